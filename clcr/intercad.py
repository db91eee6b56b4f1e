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


@dataclass(frozen=True)
class Summaries:
    """Per level and modality: s and p (L, M, B, d), and the pooled coordinates (L, M, B, rank) that they come from."""

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
        self.norm_shared, self.norm_private = nn.LayerNorm(encoder.width), nn.LayerNorm(encoder.width)

    def forward(self, tokens: Exchanged, mask: Tensor) -> Summaries:
        """``mask``: (M, B, T)."""
        pooled = self.pool_shared(tokens.shared, mask), self.pool_private(tokens.private, mask)
        shared, private = pooled
        if tokens.basis is not None:
            lifts = torch.split(tokens.basis.mT, [shared.shape[-1], private.shape[-1]], -2)
            shared, private = shared @ lifts[0], private @ lifts[1]
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

    def __init__(self, width: int) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.randn(LEVELS, width))
        self.score = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1, bias=False))
        self.query = nn.Parameter(uniform(width, width, fan_in=width))
        self.key = nn.Parameter(uniform(width, width, fan_in=width))
        self.gate = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.Linear(width, 1, bias=False), nn.Sigmoid()
        )

    def forward(self, summaries: Summaries) -> Aggregated:
        """Weigh levels, then modalities; see the class."""
        omega = self._levels(summaries.shared)
        both = torch.stack([summaries.shared, summaries.private])
        shared, private = (both * omega[:, None, :, None]).sum(1).unbind(0)
        pi = self._modalities(shared)
        eta = self.gate(private)
        features = torch.cat([(pi * shared).sum(0, keepdim=True), eta * private])
        weights = (x.squeeze(-1).transpose(0, 1) for x in (omega.unsqueeze(-1), pi, eta))
        return Aggregated(features.transpose(0, 1).flatten(1), *weights)

    def _levels(self, shared: Tensor) -> Tensor:
        """omega (L, B): an MLP scores the mean summary of each level beside the anchor of that level [A, C]."""
        mean = shared.mean(1)
        score: Tensor = self.score(torch.cat([mean, self.anchors.unsqueeze(1).expand_as(mean)], -1))
        return exact(score).squeeze(-1).softmax(0)

    def _modalities(self, shared: Tensor) -> Tensor:
        """pi (M, B, 1): the mean of the summaries (M, B, d) queries them, scaled dot product [N, C]."""
        query, key = shared.mean(0) @ self.query, shared @ self.key
        logit = (query * key).sum(-1, keepdim=True) / math.sqrt(shared.shape[-1])
        return exact(logit).softmax(0)


class MeanAggregation(nn.Module):
    """In place of InterCAD (no_intercad): means over levels and modalities, private parts concatenated ungated."""

    def forward(self, summaries: Summaries) -> Aggregated:
        """As ``InterCAD.forward``, without weights."""
        features = torch.cat([summaries.shared.mean((0, 1)).unsqueeze(0), summaries.private.mean(0)])
        return Aggregated(features.transpose(0, 1).flatten(1))
