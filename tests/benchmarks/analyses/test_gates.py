"""Gates and weights are what the parameters say; gradients are those of training, without its dropout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from grouped import grouped
from torch import Tensor

from baselines import CLCR_VARIANTS
from benchmarks.analyses.gates import analyse, pool
from benchmarks.analyses.inside import alone, collect
from benchmarks.runner.seeds import streams
from clcr.method import CLCR

LEVELS = {"omega", "omega_entropy", "omega_alone", "pi", "eta", "mix", "kappa"}
BUDGET = {"alpha", "binds", "participation"}
COMMON = {"exchange_share", "rank_shared", "rank_private", "gradient"}
LACKING = {"no_intercad": LEVELS, "no_intraced": BUDGET | {"rho"}, "dense_budget": BUDGET | {"rho"}}
PARTS = {"hierarchy", "subspaces", "exchange", "summarise", "intercad", "head"}


@pytest.mark.parametrize("variant", CLCR_VARIANTS)
def test_a_variant_has_what_it_has(variant: str) -> None:
    found = analyse(*grouped("clcr", variant))[1]
    assert found.keys() == (LEVELS | BUDGET | COMMON | {"rho"}) - LACKING.get(variant, set())
    for values in found["exchange_share"].values():
        assert len(values) == 3
        assert all(0 < x < 10 for x in values)
    if variant != "no_intercad":
        assert sum(found["pi"].values()) == pytest.approx(1, abs=1e-6)
        assert sum(found["omega"]) == pytest.approx(1, abs=1e-6)
    budget = {f"budget.{name}" for name in ("scale", "threshold", "logit")}
    lacking = {"no_intercad": {"intercad"}, "no_intraced": {"subspaces"}}.get(variant, set())
    assert found["gradient"].keys() == (PARTS - lacking) | (budget if "rho" in found else set())
    assert all(0 < x < 10 for x in found["gradient"].values())


@pytest.mark.parametrize(("method", "ranks"), [("misa", 2), ("late_fusion", 0), ("ogm_ge", 0)])
def test_other_methods_have_gradients_and_misa_ranks(method: str, ranks: int) -> None:
    found = analyse(*grouped(method))[0]
    assert sum(name.startswith("rank") for name in found) == ranks
    assert {"hierarchy", "head"} <= found["gradient"].keys()


@pytest.mark.parametrize("variant", ["full", "no_intercad", "no_intraced"])
def test_seeds_together_are_what_each_is_alone(variant: str) -> None:
    (alone_,) = analyse(*grouped("clcr", variant, seeds=(1,)))
    together = analyse(*grouped("clcr", variant))[1]
    gradients = together.pop("gradient"), alone_.pop("gradient")
    assert together == alone_
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)


def test_gates_follow_the_parameters() -> None:
    group, runs, data = grouped()
    method = group.method
    assert isinstance(method, CLCR)
    with torch.no_grad():
        for parameter in (method.intercad.query, method.intercad.score[2].weight, method.intercad.gate[2].weight):
            parameter[0] = 0
        method.intraced.exchange.output[1] *= 0
        method.intraced.budget.logit[1] = torch.logit(torch.tensor(0.5))
    even, cut = analyse(group, runs, data)
    assert list(even["pi"].values()) == pytest.approx([1 / 3] * 3)
    assert list(even["eta"].values()) == pytest.approx([0.5] * 3)
    assert even["omega"] == pytest.approx([1 / 3] * 3)
    assert even["omega_entropy"] == pytest.approx(math.log(3))
    assert even["omega_alone"] == 0
    assert even["rho"] == pytest.approx([0.27] * 3)
    assert cut["rho"] == pytest.approx([0.5] * 3)
    assert all(x == 0 for values in cut["exchange_share"].values() for x in values)


def test_levels_alone_and_doubled_exchange_are_seen() -> None:
    group, runs, data = grouped()
    assert isinstance(group.method, CLCR)
    first = analyse(group, runs, data)
    with torch.no_grad():
        group.method.intercad.score[2].weight.mul_(1e4)
        group.method.intraced.exchange.output.mul_(2)
    second = analyse(group, runs, data)
    for before, after in zip(first, second, strict=True):
        assert after["omega_alone"] > 0.95 > before["omega_alone"]
        assert after["omega_entropy"] < 0.05
        for name, values in before["exchange_share"].items():
            assert after["exchange_share"][name] == pytest.approx([2 * x for x in values], rel=1e-4)


def test_tokens_that_take_part_are_counted_among_the_real_ones() -> None:
    fixed = ("method.budget=fixed", "method.fixed_budget=0.4")
    for found in analyse(*grouped("clcr", overrides=fixed)):
        assert "rho" not in found
        for values in found["participation"].values():
            assert values == pytest.approx([0.4] * 3, abs=0.03)  # of 8 to 20 tokens, rounded
        assert 0 < found["alpha"] < 0.4


def test_ranks_and_conflicts_are_those_of_the_whole_split() -> None:
    group, runs, data = grouped()
    (found, _), (inside, _) = analyse(group, runs, data), collect(group, data, "test")
    for m, name in enumerate(inside.modalities):
        for level in range(3):
            spectrum = np.linalg.eigvalsh(np.cov(inside.parts["private_coordinates"][:, level, m].T))
            expected = spectrum.sum() ** 2 / (spectrum**2).sum()
            assert found["rank_private"][name][level] == pytest.approx(expected, rel=1e-4)
    levels = inside.parts["shared"].astype(float).mean(2)
    levels /= np.linalg.norm(levels, axis=-1, keepdims=True)
    kappa = np.maximum(-np.einsum("nld,nkd->nlk", levels, levels), 0) * (1 - np.eye(3))
    assert inside.omega is not None
    assert found["kappa"] == pytest.approx(kappa.sum((1, 2)).mean() / 6, rel=1e-4)
    expected = np.einsum("nl,nlk,nk->n", inside.omega, kappa, inside.omega).mean()
    assert found["mix"] == pytest.approx(expected, rel=1e-4)
    assert found["mix"] > 0


def losses(method: CLCR, batch: object) -> Tensor:
    output = method(batch)  # type: ignore[arg-type]
    return torch.stack(list(method.losses(output, batch).values())).sum()  # type: ignore[arg-type]


def test_gradients_are_those_of_the_first_batch() -> None:
    group, runs, data = grouped()
    found = analyse(group, runs, data)
    key = runs[1].key
    order = torch.Generator().manual_seed(streams(key.benchmark, key.protocol, key.seed, 0).order)
    samples = torch.as_tensor(data[1].indices["train"])
    first = samples[torch.randperm(len(samples), generator=order)][: runs[1].config.training.batch_size]
    seed = alone(group)[1]
    single = CLCR(seed.task, runs[1].config.encoder, runs[1].config.method)
    single.load_state_dict({name: x[0] for name, x in seed.state_dict().items()})
    losses(single.eval(), data[1].batch(first)).backward()
    for part, module in (
        ("head", single.head),
        ("exchange", single.intraced.exchange),
        ("hierarchy", single.hierarchy),
    ):
        flat = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        assert found[1]["gradient"][part] == pytest.approx(float(flat.square().mean().sqrt()), rel=1e-3)
    assert single.intraced.budget.logit.grad is not None
    expected = float(single.intraced.budget.logit.grad.square().mean().sqrt())
    assert found[1]["gradient"]["budget.logit"] == pytest.approx(expected, rel=1e-3)


def test_dropout_does_not_reach_the_gradients_and_the_group_is_left_alone() -> None:
    dropped = grouped(overrides=("encoder.dropout=0.6",))
    values = {name: x.clone() for name, x in dropped[0].method.state_dict().items()}
    dropped[0].method.train()
    found, plain = analyse(*dropped), analyse(*grouped(overrides=("encoder.dropout=0.0",)))
    for one, other in zip(found, plain, strict=True):
        assert one["gradient"] == other["gradient"]
    group = dropped[0]
    assert group.method.training
    assert all(p.grad is None for p in group.method.parameters())
    assert all(torch.equal(x, values[name]) for name, x in group.method.state_dict().items())


def test_folds_are_pooled_by_their_samples() -> None:
    folds = [{"a": {"x": [1.0, 2.0]}, "b": 0.0}, {"a": {"x": [4.0, 5.0]}, "b": 3.0}]
    assert pool(folds, [200, 100]) == {"a": {"x": [2.0, 3.0]}, "b": 1.0}
    assert pool(folds[:1], [7]) == folds[0]
