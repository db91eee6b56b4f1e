"""The two programs of the exchange's attention: the same function, the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from clcr import attention
from clcr.attention import attend_to_others


def operands(modalities: int, lead: tuple[int, ...] = (2,), dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Projections and weights; some tokens are not selected, some weigh 1, sample 0 has one modality only."""
    torch.manual_seed(0)
    projected = torch.randn(*lead, 3, 2, 3, modalities, 4, 5, dtype=dtype)
    alpha = torch.rand(*lead, modalities, 4, 5, dtype=dtype).clamp(min=0.1)
    alpha[torch.rand(alpha.shape) < 0.3] = 0.0
    alpha[torch.rand(alpha.shape) < 0.2] = 1.0
    alpha[..., 1:, 0, :] = 0.0
    return projected.requires_grad_(), alpha.requires_grad_()


def plain(projected: Tensor, alpha: Tensor) -> Tensor:
    """The definition, modality by modality."""
    query, key, value = (x.movedim((-5, -4), (-2, -1)) for x in projected.unbind(-6))  # (L, M, B, T, heads, e)
    modalities, rows = range(query.shape[-5]), []
    for m in modalities:
        others = [k for k in modalities if k != m]
        k, v = (torch.cat([x.select(-5, other) for other in others], -3) for x in (key, value))
        weight = torch.cat([alpha.select(-3, other) for other in others], -1)[..., None, None, :]
        logit = torch.einsum("...qhe,...khe->...hqk", query.select(-5, m), k) / key.shape[-1] ** 0.5
        score = logit.exp() * weight
        mixed = torch.einsum("...hqk,...khe->...qhe", score, v)
        total = score.sum(-1).transpose(-1, -2).unsqueeze(-1)
        mixed = torch.where(total > 0, mixed / torch.where(total > 0, total, 1.0), 0.0)
        rows.append(mixed * alpha.select(-3, m)[..., None, None])
    return torch.stack(rows, -5).movedim((-2, -1), (-5, -4))


@pytest.mark.parametrize("lead", [(3,), (2, 3)])
@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("program", ["few tokens", "in pieces", "fused"])
def test_both_programs_are_the_definition(
    program: str, modalities: int, lead: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if program == "fused":
        monkeypatch.setattr(attention, "FEW_TOKENS", 0)
    if program == "in pieces":
        monkeypatch.setattr(attention, "PIECE", 0)
    inputs = operands(modalities, lead)
    found, expected = attend_to_others(*inputs), plain(*inputs)
    assert_close(found, expected)
    assert not found[..., 0, :].any()  # nobody to listen to
    direction = torch.randn_like(expected)
    selected = inputs[1] > 0  # a weight of 0 is the end of the budget's range: its gradient is 0 by definition
    ours, theirs = (torch.autograd.grad(x, inputs, direction) for x in (found, expected))
    assert_close(ours[0], theirs[0])
    assert_close(ours[1][selected], theirs[1][selected])
    assert ours[1].isfinite().all()


@pytest.mark.parametrize("pieces", [1, 4])
def test_the_backward_written_by_hand_is_the_derivative(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PIECE", 0 if pieces > 1 else 1 << 30)
    projected, alpha = operands(3, (1,))
    biased = torch.randn_like(alpha).requires_grad_()
    assert torch.autograd.gradcheck(attention.FewTokens.apply, (projected, biased, alpha))


def test_single_precision_and_autocast_are_near_double() -> None:
    inputs = operands(3)
    expected = attend_to_others(*inputs)
    single = attend_to_others(*(x.detach().float() for x in inputs))
    assert_close(single.double(), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = attend_to_others(inputs[0].detach().bfloat16(), inputs[1].detach().float())
    assert half.dtype == torch.float32
    assert_close(half.double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("size", [30.0, 300.0])
def test_logits_of_any_size_are_the_definition_and_leave_other_seeds_their_bits(
    size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    projected, alpha = (x.detach() for x in operands(3, (2, 2)))
    calm = attend_to_others(projected.float(), alpha.float())
    projected[1] *= size  # far beyond what an exponential holds
    found = attend_to_others(projected.float(), alpha.float())
    assert torch.equal(found[0], calm[0])
    bound = projected.requires_grad_()
    (ours,) = torch.autograd.grad(attend_to_others(bound, alpha).square().sum(), bound)
    monkeypatch.setattr(attention, "FEW_TOKENS", 0)
    exact = attend_to_others(bound, alpha)
    (theirs,) = torch.autograd.grad(exact.square().sum(), bound)
    assert_close(found.double(), exact, rtol=1e-3, atol=1e-4 * size)
    assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * size**2)
