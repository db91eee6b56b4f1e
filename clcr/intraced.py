"""IntraCED: exchange inside one level, between the shared subspaces of the modalities only.

A level has one shared basis U_sh (d, d_s) and a private basis U_pr (d, d_p) per modality [N]. Everything here works on
subspace coordinates ``c = h U``: the token itself, ``h U U^T``, is never built, its norm is that of ``c``, and any
linear map of it that is projected back with ``U U^T`` is a linear map of coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clcr.api import LEVELS
from clcr.attention import attend_to_others
from clcr.config import CLCRConfig
from clcr.hierarchy import uniform

SHIFT = 1e-6  # keeps the first Cholesky factor real where columns, of about unit norm, are nearly dependent
EVIDENCE_EPS = 1e-5


def exact(x: Tensor) -> Tensor:
    """``x`` in float32 where it is of lower precision."""
    return x.float() if x.element_size() < 4 else x


def without_autocast(x: Tensor) -> torch.autocast:
    """Context for what half precision would spoil."""
    return torch.autocast(x.device.type, enabled=False)


def orthonormalise(raw: Tensor) -> Tensor:
    """Orthonormal columns of the same nested spans: (..., d, r) to (..., d, r), r <= d.

    Cholesky-QR twice: the Q of a QR decomposition whose R has a positive diagonal, so that no column changes its sign
    in the course of training, from batched operations that a GPU runs as single launches.
    """
    basis = exact(raw)
    identity = torch.eye(raw.shape[-1], dtype=basis.dtype, device=basis.device)
    for shift in (SHIFT, 0.0):
        factor, _ = torch.linalg.cholesky_ex(torch.add(basis.mT @ basis, identity, alpha=shift))
        basis = torch.linalg.solve_triangular(factor.mT, basis, upper=True, left=False)
    return basis


def project_onto_budget(weight: Tensor, budget: Tensor, mask: Tensor) -> Tensor:
    """Euclidean projection of ``weight`` onto ``{0 <= alpha <= 1, sum_t alpha_t <= budget}``, masked tokens exactly 0.

    The projection is ``max(weight - theta, 0)``; the cap at 1 never binds, as no weight exceeds 1. The threshold theta
    is found without gradient by sorting, then once more in a differentiable step from the tokens that remain: exact,
    and its gradient in ``weight`` and, where the budget binds, in ``budget`` is that of the projection.

    Args:
        weight: (..., T) in [0, 1], zero at masked tokens.
        budget: (..., 1), not negative.
        mask: bool (..., T).
    """
    with torch.no_grad():
        rank = torch.arange(1, weight.shape[-1] + 1, device=weight.device)
        total = weight.sort(-1, descending=True).values.cumsum(-1)
        threshold = ((total - budget) / rank).amax(-1, keepdim=True).clamp(min=0)
        active = ((weight > threshold) & mask).to(weight.dtype)
        per_token = (threshold > 0) / active.sum(-1, keepdim=True).clamp(min=1)
    return (weight - ((weight * active).sum(-1, keepdim=True) - budget) * per_token) * active


def keep_share(weight: Tensor, share: float, mask: Tensor) -> Tensor:
    """The projection whose budget lets the given share of the real tokens take part (rounded, at least one).

    Shapes as in ``project_onto_budget``; the threshold is the first weight that is left out.
    """
    kept = (share * mask.sum(-1, keepdim=True)).round().clamp(min=1).long().expand(*weight.shape[:-1], 1)
    ordered = weight.detach().sort(-1, descending=True).values
    threshold = nn.functional.pad(ordered, (0, 1)).gather(-1, kept)
    return (weight - threshold).clamp(min=0)


class Subspaces(nn.Module):
    """The bases of all levels and modalities: Stiefel matrices, private inside the complement of shared [N, C].

    Without ``config.orthogonal`` the parameters, which start orthonormal, are used as they are: free linear maps.
    """

    def __init__(self, modalities: int, width: int, config: CLCRConfig) -> None:
        super().__init__()
        self.ranks = [config.shared_rank, config.private_rank]
        self.orthogonal = config.orthogonal
        shared = torch.randn(LEVELS, 1, width, config.shared_rank).expand(-1, modalities, -1, -1)
        private = torch.randn(LEVELS, modalities, width, config.private_rank)
        start, _ = torch.linalg.qr(torch.cat([shared, private], -1))
        shared, private = torch.split(start, self.ranks, -1)
        self.shared = nn.Parameter(shared[:, 0].clone())
        self.private = nn.Parameter(private.clone())

    def forward(self) -> Tensor:
        """[U_sh, U_pr] of each level and modality: (L, M, d, d_s + d_p); U_sh is the same for all modalities."""
        with without_autocast(self.shared):
            shared = self.shared.unsqueeze(-3).expand(*self.private.shape[:-1], -1)
            raw = torch.cat([shared, self.private], -1)
            return orthonormalise(raw) if self.orthogonal else raw


class TokenBudget(nn.Module):
    """Weights alpha of the tokens in the exchange, from the norm of their shared part [N]."""

    def __init__(self, config: CLCRConfig) -> None:
        super().__init__()
        self.gamma = config.gamma
        self.share = config.fixed_budget
        self.rate = config.budget_rate
        self.scale = nn.Parameter(torch.full((LEVELS,), config.scale_start / self.rate))
        self.threshold = nn.Parameter(torch.full((LEVELS,), config.threshold_start / self.rate))
        start = torch.logit(torch.full((LEVELS,), config.budget_start), eps=1e-6) / self.rate
        self.logit = nn.Parameter(start) if config.budget == "learned" else None

    @property
    def rho(self) -> Tensor | None:
        """Learned share of the budget, (L, 1); None where the budget is fixed."""
        return None if self.logit is None else self._moved(self.logit).sigmoid().unsqueeze(-1)

    def _moved(self, parameter: Tensor) -> Tensor:
        return parameter if self.rate == 1 else parameter * self.rate

    def forward(self, coordinates: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Shared coordinates (L, M, B, T, d_s), zero at padding, and mask (1, M, B, T) to alpha (L, M, B, T).

        The second result tells where the budget binds, bool (L, M, B). A sample with a single real token has nothing
        to select: alpha = 1.
        """
        with without_autocast(coordinates):
            count = mask.sum(-1, keepdim=True).clamp(min=1)
            weight, rho = self._weight(coordinates, mask, count), self.rho
            if rho is None:
                alpha = keep_share(weight, self.share, mask)
            else:
                alpha = project_onto_budget(weight, self.gamma * rho[..., None, None] * count, mask)
            alone = count == 1
            binds = (alpha < weight).any(-1) & ~alone.squeeze(-1)
            return torch.where(alone, mask.to(alpha.dtype), alpha), binds

    def _weight(self, coordinates: Tensor, mask: Tensor, count: Tensor) -> Tensor:
        """Raw weights: evidence standardised over the real tokens of the sample, scaled, squashed; 0 at padding."""
        evidence = torch.linalg.vector_norm(exact(coordinates), dim=-1)
        centred = (evidence - evidence.sum(-1, keepdim=True) / count) * mask  # the evidence of padding is zero
        variance = centred.square().sum(-1, keepdim=True) / count
        scale, threshold = (self._moved(x)[..., None, None, None] for x in (self.scale, self.threshold))
        return torch.sigmoid(scale * torch.rsqrt(variance + EVIDENCE_EPS) * centred - threshold) * mask


class Exchange(nn.Module):
    """Each modality attends to the weighted tokens of the others; projections are shared by the modalities [C]."""

    def __init__(self, width: int, config: CLCRConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.project = nn.Parameter(uniform(LEVELS, width, 3 * width, fan_in=width))
        self.output = nn.Parameter(uniform(LEVELS, width, width, fan_in=width) * config.exchange_scale)

    def forward(self, x: Tensor, alpha: Tensor) -> Tensor:
        """Tokens (L, M, B, T, r) and their weights (L, M, B, T) to what the exchange adds: (L, M, B, T, r)."""
        *lead, modalities, batch, tokens, _ = x.shape
        if modalities == 1:
            return torch.zeros_like(x)
        projected = self.project.mT @ x.flatten(-4, -2).mT  # channels before tokens, as the attention wants them
        projected = projected.view(*lead, 3, self.heads, -1, modalities, batch, tokens)
        received = attend_to_others(projected, alpha).flatten(-3, -1).flatten(-3, -2)
        return (received.mT @ self.output).view(x.shape)


@dataclass(frozen=True)
class Exchanged:
    """What a level's exchange leaves: coordinates of the tokens and the bases that they refer to.

    shared (L, M, B, T, d_s) after the exchange and private (L, M, B, T, d_p) before it; ``basis``
    (L, M, d, d_s + d_p), or None where both are plain tokens of width d. alpha (L, M, B, T); binds (L, M, B) or None.
    ``sketch``: without bases, fixed directions (d, d_s) and (d, d_p) in which summaries are correlated instead.
    """

    shared: Tensor
    private: Tensor
    alpha: Tensor
    basis: Tensor | None = None
    binds: Tensor | None = None
    sketch: tuple[Tensor, ...] = ()


class IntraCED(nn.Module):
    """Subspaces, token budget and exchange of all levels; private streams take no part [A]."""

    def __init__(self, modalities: int, width: int, config: CLCRConfig) -> None:
        super().__init__()
        self.subspaces = Subspaces(modalities, width, config)
        self.budget = TokenBudget(config) if config.budget != "dense" else None
        self.exchange = Exchange(config.shared_rank, config)

    def forward(self, h: Tensor, mask: Tensor) -> Exchanged:
        """H (L, M, B, T, d), zero at padding, and mask (1, M, B, T)."""
        basis = self.subspaces()
        coordinates = (h.flatten(-3, -2) @ basis).view(*h.shape[:-1], -1)
        shared, private = torch.split(coordinates, self.subspaces.ranks, -1)
        alpha, binds = everyone(shared, mask), None
        if self.budget is not None:
            alpha, binds = self.budget(shared, mask)
        return Exchanged(shared + self.exchange(shared, alpha), private, alpha, basis, binds)


class DenseExchange(nn.Module):
    """In place of IntraCED (no_intraced): dense cross-modal attention over all tokens of a level, no subspaces.

    Summaries then have the full width, too wide for their correlations in a batch: random orthonormal directions of the
    ranks of the subspaces keep L_pr alive, so that this variant loses the exchange and nothing of L_Inter but L_sp [C].
    """

    sketch: Tensor

    def __init__(self, modalities: int, width: int, config: CLCRConfig) -> None:  # noqa: ARG002 - as IntraCED
        super().__init__()
        self.exchange = Exchange(width, config)
        self.ranks = [config.shared_rank, config.private_rank]
        self.register_buffer("sketch", torch.linalg.qr(torch.randn(width, sum(self.ranks)))[0])

    def forward(self, h: Tensor, mask: Tensor) -> Exchanged:
        """As ``IntraCED.forward``."""
        alpha = everyone(h, mask)
        sketch = torch.split(self.sketch, self.ranks, -1)
        return Exchanged(h + self.exchange(h, alpha), h, alpha, sketch=sketch)


def everyone(tokens: Tensor, mask: Tensor) -> Tensor:
    """Weight 1 for each real token: (L, M, B, T)."""
    return mask.to(exact(tokens).dtype).expand(tokens.shape[:-1])
