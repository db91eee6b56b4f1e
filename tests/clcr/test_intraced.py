"""Subspaces, token budget, exchange."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from toys import TOY, WIDTH, toy_batch, toy_model, toy_task, train

from clcr.config import CLCRConfig
from clcr.intraced import (
    DenseExchange,
    Exchanged,
    IntraCED,
    TokenBudget,
    keep_share,
    orthonormalise,
    project_onto_budget,
)

# --- subspaces


def overlap(basis: Tensor) -> float:
    """Largest deviation of [U_sh, U_pr] from orthonormal columns."""
    return float((basis.mT @ basis - torch.eye(basis.shape[-1])).detach().abs().max())


def test_bases_are_orthonormal_at_the_start_and_after_training() -> None:
    task = toy_task()
    model = toy_model("full", task).float()
    start = model.intraced.subspaces()
    assert overlap(start) < 1e-5
    history = train(model, [toy_batch(task, 16, seed, dtype=torch.float32) for seed in range(3)], 50, lr=0.02)
    after = model.intraced.subspaces()
    assert overlap(after) < 1e-5
    assert (after - start).abs().max() > 1e-2  # it has moved
    assert sum(history[-3:]) < 0.9 * sum(history[:3])
    shared = after[..., : TOY["shared_rank"]]
    assert_close(shared, shared[:, :1].expand_as(shared), rtol=0, atol=1e-6)  # one for all modalities


def test_private_bases_differ_by_modality() -> None:
    private = toy_model().intraced.subspaces()[..., TOY["shared_rank"] :]
    assert torch.linalg.matrix_norm(private[:, 0].mT @ private[:, 1], 2).max() < 0.999


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_orthonormalise_is_robust_and_equals_qr(condition: float) -> None:
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(5, 32, 16, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(5, 16, 16, dtype=torch.float64))
    raw = left * torch.logspace(0, -np.log10(condition), 16, dtype=torch.float64) @ right.mT
    assert overlap(orthonormalise(raw.float())) < 1e-5
    q, r = torch.linalg.qr(raw)
    assert_close(orthonormalise(raw), q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2), rtol=0, atol=1e-6)


def test_free_maps_start_where_the_bases_start() -> None:
    free, bound = (toy_model(variant).intraced.subspaces() for variant in ("no_orthogonality", "full"))
    assert_close(free, bound, rtol=0, atol=1e-6)


# --- budget


def reference_projection(weight: np.ndarray, budget: float) -> np.ndarray:
    """Bisection on the dual variable of one row, both bounds in force."""
    if np.clip(weight, 0, 1).sum() <= budget:
        return np.clip(weight, 0, 1)
    low, high = 0.0, weight.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(weight - middle, 0, 1).sum() > budget else (low, middle)
    return np.clip(weight - high, 0, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 50), st.floats(0.0, 1.2))
def test_projection_equals_the_reference(seed: int, tokens: int, rho: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(4, tokens, generator=draw) > 0.3
    weight = torch.rand(4, tokens, generator=draw).pow(torch.randint(1, 5, (), generator=draw)) * mask
    budget = rho * mask.sum(-1, keepdim=True).float()
    alpha = project_onto_budget(weight, budget, mask)
    assert (alpha >= 0).all()
    assert (alpha <= 1).all()
    assert (alpha.sum(-1, keepdim=True) <= budget + 1e-5).all()
    assert not alpha[~mask].any()
    for row in range(4):
        expected = reference_projection(weight[row].double().numpy(), float(budget[row]))
        np.testing.assert_allclose(alpha[row].numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rho", [0.2, 0.45, 2.0])
def test_projection_gradient(rho: float) -> None:
    torch.manual_seed(0)
    mask = torch.rand(3, 7) > 0.2
    weight = (torch.rand(3, 7, dtype=torch.float64) * mask).requires_grad_()
    budget = (rho * mask.sum(-1, keepdim=True).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: project_onto_budget(a * mask, b, mask), (weight, budget))
    (gradient,) = torch.autograd.grad(project_onto_budget(weight * mask, budget, mask).sum(), budget)
    assert_close(gradient, torch.full_like(gradient, float(rho < 1)))  # one more unit is used where the budget binds


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.floats(0.05, 1.0))
def test_a_fixed_share_of_tokens_takes_part(seed: int, tokens: int, share: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(4, tokens, generator=draw) > 0.3
    weight = torch.rand(4, tokens, generator=draw, dtype=torch.float64) * mask
    alpha = keep_share(weight, share, mask)
    wanted = torch.minimum((share * mask.sum(-1)).round().clamp(min=1), mask.sum(-1))
    assert (alpha > 0).sum(-1).tolist() == wanted.tolist()
    for row in range(4):
        budget = float(alpha[row].sum())
        np.testing.assert_allclose(alpha[row], reference_projection(weight[row].numpy(), budget), atol=1e-12)


def evidence_tokens(samples: int = 32, tokens: int = 40) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    lengths = torch.randint(2, tokens + 1, (2, samples, 1))
    mask = torch.arange(tokens) < lengths
    return torch.randn(3, 2, samples, tokens, 8) * mask.unsqueeze(-1), mask


def test_participation_starts_near_the_published_optimum_and_can_move() -> None:
    coordinates, mask = evidence_tokens()
    budget = TokenBudget(CLCRConfig())
    alpha, binds = budget(coordinates, mask)
    assert binds.float().mean() > 0.95
    share = (alpha > 0).sum() / mask.expand(3, -1, -1, -1).sum()
    assert 0.63 < share < 0.73
    alpha.square().sum().backward()
    for parameter in budget.parameters():
        assert parameter.grad is not None
        assert (parameter.grad.abs() > 1e-3).all()
    with torch.no_grad():
        budget.logit -= 2  # type: ignore[operator]
    fewer, _ = budget(coordinates, mask)
    assert (fewer > 0).sum() < 0.6 * (alpha > 0).sum()


def test_evidence_of_nearly_equal_norms_still_selects() -> None:
    coordinates, mask = evidence_tokens()
    flat = torch.nn.functional.normalize(coordinates, dim=-1) * (1 + 0.02 * coordinates[..., :1])
    alpha, _ = TokenBudget(CLCRConfig())(flat * mask.unsqueeze(-1), mask)
    assert 0.6 < (alpha > 0).sum() / mask.expand(3, -1, -1, -1).sum() < 0.75


@pytest.mark.parametrize("budget", ["learned", "fixed"])
def test_a_single_token_has_nothing_to_select(budget: str) -> None:
    coordinates, mask = evidence_tokens()
    mask = mask.clone()
    mask[:, :5] = torch.arange(40) == 3
    mask[:, 5:8] = False
    coordinates = (coordinates * mask.unsqueeze(-1)).requires_grad_()
    alpha, binds = TokenBudget(CLCRConfig(budget=budget))(coordinates, mask)
    assert_close(alpha[:, :, :5], mask[:, :5].float().expand(3, -1, -1, -1))
    assert not alpha[:, :, 5:8].any()
    assert not binds[:, :, :8].any()
    alpha.square().sum().backward()
    assert coordinates.grad is not None
    assert coordinates.grad.isfinite().all()


def test_constant_evidence_has_finite_gradients() -> None:
    coordinates = torch.ones(3, 2, 4, 6, 8, requires_grad=True)
    alpha, _ = TokenBudget(CLCRConfig())(coordinates, torch.ones(2, 4, 6, dtype=torch.bool))
    assert_close(alpha, torch.full_like(alpha, 0.27))
    alpha.square().sum().backward()
    assert coordinates.grad is not None
    assert coordinates.grad.isfinite().all()


# --- exchange


def build(config: CLCRConfig | None = None, cls: type = IntraCED, modalities: int = 3) -> IntraCED:
    torch.manual_seed(0)
    module: IntraCED = cls(modalities, WIDTH, config or CLCRConfig(**TOY))
    return module


def tokens(modalities: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.arange(6) < torch.randint(2, 7, (modalities, 8, 1))
    h = torch.nn.functional.layer_norm(torch.randn(3, modalities, 8, 6, WIDTH), (WIDTH,))
    return h * mask.unsqueeze(-1), mask


def what_the_exchange_adds(module: IntraCED | DenseExchange, h: Tensor, mask: Tensor) -> Tensor:
    """In token space: (L, M, B, T, d)."""
    out: Exchanged = module(h, mask)
    if out.basis is None:
        return out.shared - h
    basis = out.basis[:, :1, :, : out.shared.shape[-1]].unsqueeze(2)
    return out.shared @ basis.mT - h @ basis @ basis.mT


def leak(module: IntraCED | DenseExchange, shared: Tensor, inside: bool) -> Tensor:
    """How far each level's exchange moves when level 1 is perturbed inside the shared space or its complement: (L,)."""
    h, mask = tokens()
    noise = torch.randn(3, 8, 6, WIDTH) * mask.unsqueeze(-1)
    within = noise @ shared @ shared.mT
    moved = h.clone()
    moved[1] += within if inside else noise - within
    change = what_the_exchange_adds(module, moved, mask) - what_the_exchange_adds(module, h, mask)
    return change.abs().amax((1, 2, 3, 4))


@torch.no_grad()
def test_nothing_leaks_from_the_complement_of_the_shared_space() -> None:
    module = build()
    shared = module.subspaces()[1, 0, :, : TOY["shared_rank"]]
    assert (leak(module, shared, inside=False) < 1e-5).all()
    assert leak(module, shared, inside=True)[1] > 1e-3
    assert (leak(module, shared, inside=True)[[0, 2]] == 0).all()  # the other levels have not moved at all


@torch.no_grad()
def test_the_check_for_leaks_fails_without_the_projection() -> None:
    shared = build().subspaces()[1, 0, :, : TOY["shared_rank"]]
    dense = build(CLCRConfig(**{**TOY, "intraced": False}), DenseExchange)
    assert leak(dense, shared, inside=False)[1] > 1e-3
    tilted = build()
    exact = tilted.subspaces.forward()
    mixed = torch.cat([exact[..., :4] + 0.1 * exact[..., 4:5], exact[..., 4:]], -1)
    tilted.subspaces.forward = lambda: mixed  # type: ignore[method-assign]
    assert leak(tilted, shared, inside=False)[1] > 1e-3


@torch.no_grad()
def test_private_streams_take_no_part() -> None:
    module, (h, mask) = build(), tokens()
    out = module(h, mask)
    private = out.basis[..., TOY["shared_rank"] :]
    assert_close(out.private, h @ private.unsqueeze(2))


def test_an_empty_pool_adds_exactly_nothing() -> None:
    module, (h, mask) = build(), tokens()
    mask = mask.clone()
    mask[1:, 0] = False  # sample 0: modality 0 is alone
    mask[:, 1] = False  # sample 1: nothing at all
    h = (h * mask.unsqueeze(-1)).requires_grad_()
    out = module(h, mask)
    added = module.exchange(h @ out.basis[..., : TOY["shared_rank"]].unsqueeze(2), out.alpha)
    assert not added[:, :, :2].any()
    assert added[:, :, 2:].any()
    (out.shared.square().sum() + out.private.sum()).backward()
    for x in (h, *module.parameters()):
        assert x.grad is not None
        assert x.grad.isfinite().all()


@torch.no_grad()
def test_only_selected_tokens_of_other_modalities_are_read() -> None:
    module, (h, mask) = build(), tokens()
    shared = h @ module.subspaces()[..., : TOY["shared_rank"]].unsqueeze(2)
    alpha = torch.where(torch.rand(3, 3, 8, 6) > 0.5, torch.rand(3, 3, 8, 6), 0.0) * mask
    added = module.exchange(shared, alpha)
    assert not added[alpha == 0].any()  # a token that is not selected receives nothing either
    loud = torch.where((alpha > 0).unsqueeze(-1), shared, 50 * torch.randn_like(shared))
    assert_close(module.exchange(loud, alpha)[alpha > 0], added[alpha > 0])
    own = shared.clone()
    own[:, 0, :, 1:] += 1  # tokens of modality 0 other than the first do not change what its first receives
    assert_close(module.exchange(own, alpha)[:, 0, :, 0], added[:, 0, :, 0])
    assert not torch.allclose(module.exchange(own, alpha)[:, 1], added[:, 1])


@torch.no_grad()
def test_one_modality_has_no_partner() -> None:
    module, (h, mask) = build(modalities=1), tokens(1)
    out = module(h, mask)
    assert_close(out.shared, h @ out.basis[..., : TOY["shared_rank"]].unsqueeze(2))


@torch.no_grad()
def test_leading_axes_broadcast() -> None:
    """A seed axis in front of level: projection, bases and exchange run as they are."""
    torch.manual_seed(0)
    raw = torch.randn(2, 3, 4, 12, 5)
    assert_close(orthonormalise(raw)[1], orthonormalise(raw[1]))
    weight, mask = torch.rand(2, 3, 4, 8, 6), torch.rand(4, 8, 6) > 0.3
    budget = 0.3 * mask.sum(-1, keepdim=True)
    assert_close(
        project_onto_budget(weight * mask, budget, mask)[1], project_onto_budget(weight[1] * mask, budget, mask)
    )
