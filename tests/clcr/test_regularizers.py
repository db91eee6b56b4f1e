"""The loss terms one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from clcr import regularizers
from clcr.regularizers import Correlations, cross_correlation, effective_rank, whiten


def test_whitening_gives_unit_covariance() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 5
    white = whiten(x, 1e-6)
    assert_close(white.T @ white / 399, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-3)
    few = whiten(x[:8], 0.1)  # fewer than twice the rank: each coordinate alone
    assert_close(few.square().sum(0) / 7, torch.ones(6, dtype=torch.float64))
    assert (few.T @ few / 7 - torch.eye(6)).abs().max() > 0.1


def test_independent_batches_give_the_floor_and_equal_ones_one() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 200, 64, 8).unbind(0)
    assert_close(cross_correlation(x, y).mean(), torch.tensor(8 / 63), rtol=0.2, atol=0)
    assert cross_correlation(x, x, 1e-4).mean() > 0.97
    assert_close(cross_correlation(3 * x + 1, y), cross_correlation(x, y), rtol=1e-4, atol=1e-4)


def test_full_whitening_at_the_rank_would_be_saturated() -> None:
    """Why a batch below twice the rank is standardised: there, dependence could not be told from chance."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 65, 64, dtype=torch.float64).unbind(0)
    centred = [v - v.mean(0) for v in (x, y)]
    white = [v @ torch.linalg.inv(torch.linalg.cholesky(v.T @ v / 64)).T for v in centred]
    independent, identical = ((white[0].T @ w / 64).square().sum() / 64 for w in (white[1], white[0]))
    assert_close(independent, identical)
    assert cross_correlation(x, x) > 1.5 * cross_correlation(x, y)


@pytest.mark.parametrize("size", [1, 2, 5, 40])
@pytest.mark.parametrize("kind", ["random", "constant", "zero", "rank one"])
def test_finite_whatever_the_batch(size: int, kind: str) -> None:
    torch.manual_seed(0)
    x = {
        "random": torch.randn(size, 8),
        "constant": torch.full((size, 8), 3.0),
        "zero": torch.zeros(size, 8),
        "rank one": torch.randn(size, 1) @ torch.randn(1, 8),
    }[kind].requires_grad_()
    y = torch.randn(size, 5)
    value = cross_correlation(x, y) + cross_correlation(x, x)
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    if kind in ("constant", "zero") or size == 1:
        assert value.abs() < 1e-4


def canonical_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of two large samples, from the QR bases of the centred columns."""
    bases = [np.linalg.qr(v - v.mean(0))[0] for v in (x, y)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)


def test_minimising_it_lowers_the_population_canonical_correlations() -> None:
    torch.manual_seed(0)
    mixing = torch.randn(2, 6, 10)

    def sample(size: int) -> tuple[Tensor, Tensor]:
        common = torch.randn(size, 6)
        return tuple(common @ m + 0.7 * torch.randn(size, 10) for m in mixing)  # type: ignore[return-value]

    maps = [torch.nn.Linear(10, 4) for _ in range(2)]
    x, y = sample(20_000)
    before = canonical_correlations(*(f(v).detach().numpy() for f, v in zip(maps, (x, y), strict=True)))
    optimiser = torch.optim.Adam([p for f in maps for p in f.parameters()], lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        cross_correlation(*(f(v) for f, v in zip(maps, sample(64), strict=True))).backward()
        optimiser.step()
    after = canonical_correlations(*(f(v).detach().numpy() for f, v in zip(maps, (x, y), strict=True)))
    assert before.max() > 0.8
    assert after.max() < 0.5 * before.max()
    assert (after**2).sum() < 0.3 * (before**2).sum()


@pytest.mark.parametrize("ranks", [(4, 4), (4, 3), (3, 6)])
def test_the_table_holds_every_pair(ranks: tuple[int, int]) -> None:
    torch.manual_seed(0)
    shared, private = (torch.randn(3, 2, 16, rank, dtype=torch.float64) for rank in ranks)
    table = Correlations.of(shared, private, 0.1)
    for index in np.ndindex(3, 2, 3, 2):
        a, b = index[:2], index[2:]
        assert_close(table.private[index], cross_correlation(private[a], private[b]))
        assert_close(table.shared[index], cross_correlation(private[a], shared[b]))


@pytest.mark.parametrize(
    ("size", "live"), [(5, (False, False)), (6, (False, True)), (9, (False, True)), (10, (True, True))]
)
def test_small_batches_skip(size: int, live: tuple[bool, bool]) -> None:
    """Private rank 5, shared rank 3: a pair is read from twice its lower rank on."""
    torch.manual_seed(0)
    table = Correlations.of(torch.randn(3, 2, size, 3), torch.randn(3, 2, size, 5), 0.1)
    assert (bool(table.private.any()), bool(table.shared.any())) == live


def test_each_term_reads_its_own_pairs() -> None:
    """One entry of the table at a time: which terms see it."""
    levels, modalities = 3, 2
    for table in ("private", "shared"):
        for index in np.ndindex(levels, modalities, levels, modalities):
            tables = {name: torch.zeros(levels, modalities, levels, modalities) for name in ("private", "shared")}
            tables[table][index] = 1.0
            pairs = Correlations(**tables)
            (a, m), (b, k) = index[:2], index[2:]
            within_level, across_levels = a == b, m == k and a != b
            expected = {
                "intra": within_level and (m != k if table == "private" else m == k),
                "private_redundancy": table == "private" and across_levels,
                "shared_private": table == "shared" and across_levels,
            }
            for name, seen in expected.items():
                assert bool(getattr(regularizers, name)(pairs) > 0) == seen, (name, table, index)


def test_terms_are_means_over_pairs() -> None:
    ones = torch.ones(3, 2, 3, 2)
    pairs = Correlations(ones, ones)
    assert float(regularizers.intra(pairs)) == pytest.approx(2)
    assert float(regularizers.private_redundancy(pairs)) == pytest.approx(1)
    assert float(regularizers.shared_private(pairs)) == pytest.approx(1)


def test_mix_costs_only_levels_that_disagree() -> None:
    direction = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    agree = direction.expand(3, 2, 4, 6)
    against = torch.stack([direction, direction, -direction]).expand(3, 2, 4, 6).clone().requires_grad_()
    logits = torch.zeros(4, 3, requires_grad=True)
    assert not regularizers.mix(logits.softmax(-1), agree).any()
    cost = regularizers.mix(logits.softmax(-1), against)
    assert float(cost.detach()) == pytest.approx(4 / 9, rel=1e-5)  # pairs (0, 2) and (1, 2), both orders
    cost.backward()
    assert against.grad is None  # the summaries are not asked to agree
    assert logits.grad is not None
    assert (logits.grad[:, 2] > 0).all()  # the odd one is to lose weight


def test_effective_rank() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 8)
    assert float(effective_rank(x)) == pytest.approx(8, abs=0.1)
    assert float(effective_rank(x[:, :1] @ torch.ones(1, 8))) == pytest.approx(1, abs=1e-3)
    assert float(effective_rank(torch.zeros(5, 8))) == 0.0
    assert float(effective_rank(torch.ones(1, 8))) == 0.0
