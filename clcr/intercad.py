"""InterCAD: aggregation across levels, from summaries of tokens to the vector that the head reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clcr.api import LEVELS
from clcr.config import EncoderConfig
from clcr.hierarchy import Pooling, uniform
from clcr.intraced import Exchanged, exact
from clcr.layers import LayerNorm, Linear


@dataclass(frozen=True)
class Summaries:
    """Per level and modality: s and p (L, M, B, d), and the coordinates (L, M, B, rank) in which they are compared:
    the pooled ones that they come from, or their sketches where there are no subspaces."""

    shared: Tensor
    private: Tensor
    shared_coordinates: Tensor
    private_coordinates: Tensor


class Summarise(nn.Module):
    """``s = LN(pool_t h_sh)`` after the exchange and ``p = LN(pool_t h_pr)`` [N]; pooled before they are lifted."""

    def __init__(self, modalities: int, ranks: tuple[int, int], encoder: EncoderConfig) -> None:
        super().__init__()
        leading = (LEVELS, modalities)
        self.pool_shared, self.pool_private = (Pooling(encoder, leading, rank) for rank in ranks)
        self.norm_shared, self.norm_private = LayerNorm(encoder.width), LayerNorm(encoder.width)

    def forward(self, tokens: Exchanged, mask: Tensor) -> Summaries:
        """``mask``: (1, M, B, T)."""
        pooled = self.pool_shared(tokens.shared, mask), self.pool_private(tokens.private, mask)
        if tokens.basis is None:
            sketched = (
                x @ directions[..., None, None, :, :] for x, directions in zip(pooled, tokens.sketch, strict=True)
            )
            return Summaries(self.norm_shared(pooled[0]), self.norm_private(pooled[1]), *sketched)
        lifts = torch.split(tokens.basis.mT, [x.shape[-1] for x in pooled], -2)
        shared, private = (x @ lift for x, lift in zip(pooled, lifts, strict=True))
        return Summaries(self.norm_shared(shared), self.norm_private(private), *pooled)


@dataclass(frozen=True)
class Aggregated:
    """``features`` (B, (1 + M) d) for the head; weights omega (B, L), pi (B, M), eta (B, M), None where not learned."""

    features: Tensor
    omega: Tensor | None = None
    pi: Tensor | None = None
    eta: Tensor | None = None


class InterCAD(nn.Module):
    """Level synchronisation, selection of modalities on the shared path, gates on the private path [N]."""

    def __init__(self, width: int, level_floor: float = 0.0) -> None:
        super().__init__()
        self.level_floor = level_floor
        self.anchors = nn.Parameter(torch.randn(LEVELS, width))
        self.score = nn.Sequential(Linear(2 * width, width), nn.ReLU(), Linear(width, 1, bias=False))
        self.query = nn.Parameter(uniform(width, width, fan_in=width))
        self.key = nn.Parameter(uniform(width, width, fan_in=width))
        self.gate = nn.Sequential(
            Linear(width, width, bias=False), LayerNorm(width), Linear(width, 1, bias=False), nn.Sigmoid()
        )

    def forward(self, summaries: Summaries) -> Aggregated:
        """Weigh levels, then modalities; see the class."""
        omega = self._levels(summaries.shared)
        both = torch.stack([summaries.shared, summaries.private])
        shared, private = (both * omega.unsqueeze(-2).unsqueeze(-1)).sum(-4).unbind(0)
        pi = self._modalities(shared)
        eta = self.gate(private)
        features = torch.cat([(pi * shared).sum(-3, keepdim=True), eta * private], -3)
        return Aggregated(side_by_side(features), omega.mT, pi.squeeze(-1).mT, eta.squeeze(-1).mT)

    def _levels(self, shared: Tensor) -> Tensor:
        """omega (L, B): an MLP scores the mean summary of each level beside the anchor of that level [A, C]."""
        mean = shared.mean(-3)
        score: Tensor = self.score(torch.cat([mean, self.anchors.unsqueeze(-2).expand_as(mean)], -1))
        omega = exact(score).squeeze(-1).softmax(-2)
        return torch.lerp(omega, omega.new_tensor(1 / LEVELS), self.level_floor) if self.level_floor else omega

    def _modalities(self, shared: Tensor) -> Tensor:
        """pi (M, B, 1): the mean of the summaries (M, B, d) queries them, scaled dot product [N, C]."""
        query = shared.mean(-3) @ self.query
        key = (shared.flatten(-3, -2) @ self.key).view(shared.shape)
        logit = (query.unsqueeze(-3) * key).sum(-1, keepdim=True) / math.sqrt(shared.shape[-1])
        return exact(logit).softmax(-3)


class MeanAggregation(nn.Module):
    """In place of InterCAD (no_intercad): means over levels and modalities, private parts concatenated ungated."""

    def forward(self, summaries: Summaries) -> Aggregated:
        """As ``InterCAD.forward``, without weights."""
        shared, private = summaries.shared.mean((-4, -3)), summaries.private.mean(-4)
        return Aggregated(side_by_side(torch.cat([shared.unsqueeze(-3), private], -3)))


def side_by_side(parts: Tensor) -> Tensor:
    """(P, B, d) to (B, P d)."""
    return parts.transpose(-3, -2).flatten(-2)
