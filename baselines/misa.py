"""MISA: modality-invariant and modality-specific representations.

Source: D. Hazarika, R. Zimmermann, S. Poria, MISA: Modality-Invariant and -Specific Representations for Multimodal
Sentiment Analysis, ACM MM 2020; code declare-lab/MISA at ec42fadd (src/models.py, src/solver.py,
src/utils/functions.py). Every modality becomes one vector, seen by an encoder of its own (private) and by one that all
share; losses pull the shared parts together, push private from shared, and rebuild the modality from their sum.

Deviations from the paper
- What enters is the deepest level of the suite's encoder, not raw features: methods share encoder and backbones.
  Hidden size is the encoder's width (original: 128), dropout of head and discriminator the encoder's (original: 0.5).
- A sequence passes the two bidirectional LSTMs, with hidden size = width (original: the raw feature size). Language
  with levels takes the masked mean, as the original's BERT branch, and so does a modality of one token, which has
  nothing to recur over. ``encoder.pooling`` chooses that mean or attention; the LSTMs' final states replace pooling.
- The feed-forward width of the fusion transformer is 16 * width (original: 2048 at 128).
- The task loss is the suite's: L1 for regression (original: squared error), cross entropy for classification with any
  number of classes (our extension; the original has it for two, on UR-FUNNY).
- The released difference loss is a mean over d * d correlations, 16 times stronger at width 32 than at its own 128.
  Here ``diff_weight`` means the same at every width: it is multiplied by (width / 128)^2.
- Two modalities: sums and means over the pairs and modalities there are. One is refused: there is no pair.

Deviations from the released code
- Moments are compared with a norm whose gradient at 0 is 0; its square root gives NaN for identical or single samples.
- Left out: the shared-private discriminator, which no loss uses, and the option of GRU cells.
- Optimiser, schedule, value clipping at 1, patience, batch sizes and frozen BERT layers are the trainer's or the
  profile's, common to all methods. Its learning-rate decay never took effect there (training stops first).
- Each sequence is read at its own length, wherever its padding stands. The LSTMs of all modalities run as one batched
  recurrence (clcr/recurrence.py), not packed; the numbers are those of ``nn.LSTM``.
- The attention of the fusion transformer has no bias of the keys, which changes nothing that it computes.
Kept: losses and their default weights (the paper's tuned weights are not in the repository), detached row norms, mean
(not sum) of the squared correlations in the difference loss, reconstruction of the projected, not detached, feature,
orthogonal recurrent weights, dropout 0.1 and two heads in the transformer whatever the other dropout is.
A weakness that is kept: with detached norms, the way down for the difference loss is to shrink its inputs. Where it is
strong beside the task loss (large steps, L1), all samples come to share one vector and nothing is learned any more.
``diagnostics`` "spread_private" and "spread_shared" (standard deviation over the batch) near 0 show it; the remedy is a
smaller ``diff_weight`` or step.
Not kept from thuiar/MMSA's version: it packs unaligned audio and vision by the length of the *text*, so that at most
their first 50 steps are read; weight decay in its configuration is never passed on; its adversarial branch cannot run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from clcr.api import Batch, Method, Output, Task, shape_prediction
from clcr.config import EncoderConfig
from clcr.hierarchy import Pooling, SemanticHierarchy
from clcr.intraced import exact, without_autocast
from clcr.layers import Dropout, LayerNorm, Linear
from clcr.recurrence import StackedBiLSTM

SIMILARITIES = ("cmd", "adversarial")
ORIGINAL_WIDTH = 128  # the width at which the original's weight of the difference loss was chosen


@dataclass(frozen=True)
class MISAConfig:
    """diff_weight, sim_weight, recon_weight: weights of the three losses [original's defaults: 0.3, 1, 1].
    similarity: "cmd" (central moment discrepancy) or "adversarial" (discriminator behind a gradient reversal).
    moments: how many the discrepancy compares [original: 5]. heads, feedforward: of the fusion transformer, the
    second as a multiple of the width [original: 2 and 16]. fusion_dropout: in it [original: 0.1].
    reverse_weight: factor of the reversed gradient [original: 1].
    """

    diff_weight: float = 0.3
    sim_weight: float = 1.0
    recon_weight: float = 1.0
    similarity: str = "cmd"
    moments: int = 5
    heads: int = 2
    feedforward: int = 16
    fusion_dropout: float = 0.1
    reverse_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("diff_weight", "sim_weight", "recon_weight", "reverse_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"config: method.{name} = {getattr(self, name)!r}: must be a number >= 0")
        for name in ("moments", "heads", "feedforward"):
            if getattr(self, name) < 1:
                raise ValueError(f"config: method.{name} = {getattr(self, name)!r}: must be a positive integer")
        if self.similarity not in SIMILARITIES:
            raise ValueError(
                f"config: method.similarity = {self.similarity!r}: must be one of {', '.join(SIMILARITIES)}"
            )
        if not 0 <= self.fusion_dropout < 1:
            raise ValueError(f"config: method.fusion_dropout = {self.fusion_dropout!r}: must be a number in [0, 1)")


def central_moment_discrepancy(x: Tensor, y: Tensor, moments: int) -> Tensor:
    """Distance of the means plus distances of the central moments 2 to ``moments`` of two batches (B, d)."""
    differences = central_moments(x, moments) - central_moments(y, moments)
    distances: Tensor = differences.norm(dim=-1)  # gradient 0 at 0
    return distances.sum(-1)


def central_moments(x: Tensor, moments: int) -> Tensor:
    """The mean and the central moments 2 to ``moments`` of a batch (B, d): (moments, d)."""
    mean = x.mean(-2, keepdim=True)
    power = centred = x - mean
    found = [mean]
    for _ in range(2, moments + 1):
        power = power * centred
        found.append(power.mean(-2, keepdim=True))
    return torch.cat(found, -2)


def unit_rows(x: Tensor) -> Tensor:
    """(B, d) centred over the batch, then each row divided by its norm, which passes no gradient."""
    x = x - x.mean(-2, keepdim=True)
    norm: Tensor = x.detach().norm(dim=-1, keepdim=True)
    return x / (norm + 1e-6)


def difference_loss(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared correlation of the coordinates of two batches (B, d): 0 where the subspaces share nothing."""
    return (unit_rows(x).mT @ unit_rows(y)).square().mean((-2, -1))


def pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """(M, B, d) to the first and the second of each pair of the M, (P, B, d) both."""
    first, second = zip(*combinations(range(x.shape[-3]), 2), strict=True)
    parts = x.unbind(-3)
    return torch.stack([parts[m] for m in first], -3), torch.stack([parts[m] for m in second], -3)


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """``x`` itself; its gradient comes back times -weight."""
    return (x.detach() - x) * weight + x.detach()


class SelfAttention(nn.Module):
    """The attention of ``nn.MultiheadAttention`` of a sequence to itself, without the bias of the keys: it moves all
    logits of a query alike, and its gradient is a rounding error that an adaptive optimiser would blow up."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = Linear(width, 3 * width, bias=False)
        nn.init.xavier_uniform_(self.inputs.weight)
        self.query_bias, self.value_bias = (nn.Parameter(torch.zeros(heads, 1, width // heads)) for _ in range(2))
        self.output = Linear(width, width)
        nn.init.zeros_(self.output.bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) to the same; dropout falls on the weights of attention."""
        inner = self.inputs(x).view(*x.shape[:-1], 3, self.heads, -1)
        query, key, value = inner.transpose(-4, -2).unbind(-3)  # (B, heads, N, d / heads)
        query, value = query + self.query_bias.unsqueeze(-4), value + self.value_bias.unsqueeze(-4)
        weight = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
        out = self.dropout(weight.to(value.dtype)) @ value
        mixed: Tensor = self.output(out.transpose(-3, -2).flatten(-2))
        return mixed


class Fusion(nn.Module):
    """``nn.TransformerEncoderLayer`` (post-norm, ReLU) in layers that fold."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.wider, self.narrower = Linear(width, feedforward), Linear(feedforward, width)
        self.first_norm, self.second_norm = LayerNorm(width), LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) to the same."""
        x = self.first_norm(x + self.dropout(self.attention(x)))
        hidden = self.narrower(self.dropout(functional.relu(self.wider(x))))
        fused: Tensor = self.second_norm(x + self.dropout(hidden))
        return fused


class Utterance(nn.Module):
    """One vector of the common width for each modality: LSTMs or pooling, then Linear, ReLU and LayerNorm."""

    def __init__(self, task: Task, encoder: EncoderConfig) -> None:
        super().__init__()
        width, modalities = encoder.width, list(enumerate(task.modalities))
        self.pooled = tuple(m for m, modality in modalities if modality.levelled or modality.tokens == 1)
        self.recurrent = tuple(m for m, _ in modalities if m not in self.pooled)
        self.pooling = nn.ModuleList(Pooling(encoder, ()) for _ in self.pooled)
        self.reader = StackedBiLSTM(len(self.recurrent), width) if self.recurrent else None
        self.projections = nn.ModuleList(
            nn.Sequential(Linear(4 * width if m in self.recurrent else width, width), nn.ReLU(), LayerNorm(width))
            for m, _ in modalities
        )

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(M, B, T, d) and (M, B, T) to (M, B, d)."""
        read: dict[int, Tensor] = {}
        for m, pooling in zip(self.pooled, self.pooling, strict=True):
            read[m] = pooling(hidden.select(-4, m), mask.select(-3, m))
        if self.reader is not None:
            own = torch.stack([hidden.select(-4, m) for m in self.recurrent], -4)
            states = self.reader(own, torch.stack([mask.select(-3, m) for m in self.recurrent], -3))
            read.update(zip(self.recurrent, states.unbind(-3), strict=True))
        return torch.stack([project(read[m]) for m, project in enumerate(self.projections)], -3)


class MISA(Method):
    """Shared and private views of every modality, fused by a small transformer.

    ``Output.parts``: ``projected``, ``private``, ``shared``, ``rebuilt`` (M, B, d), and ``domain`` (M, B, M), the
    discriminator's logits, in the adversarial variant. ``losses``: task, difference, similarity, reconstruction.
    """

    Config: ClassVar[type[MISAConfig]] = MISAConfig
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {}, "adversarial": {"similarity": "adversarial"}}
    FOLDS: ClassVar[bool] = True

    def __init__(
        self,
        task: Task,
        encoder: EncoderConfig | None = None,
        config: MISAConfig | None = None,
        backbones: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__(task, backbones)
        encoder = encoder or EncoderConfig()
        self.config = config or MISAConfig()
        modalities, width = len(task.modalities), encoder.width
        if modalities < 2:
            raise ValueError("misa: needs two or more modalities, the task has one: use unimodal")
        if width % self.config.heads:
            raise ValueError(f"config: method.heads = {self.config.heads}: must divide encoder.width {width}")
        self.hierarchy = SemanticHierarchy(task.modalities, encoder, levels=(3,))
        self.utterance = Utterance(task, encoder)
        self.private = nn.ModuleList(Linear(width, width) for _ in range(modalities))
        self.shared = Linear(width, width)
        self.rebuild = nn.ModuleList(Linear(width, width) for _ in range(modalities))
        self.discriminator = self._two_layers(width, width, modalities, encoder.dropout) if self._adversarial else None
        self.fusion = Fusion(width, self.config.heads, self.config.feedforward * width, self.config.fusion_dropout)
        self.head = self._two_layers(2 * modalities * width, modalities * width, task.outputs, encoder.dropout)

    @property
    def _adversarial(self) -> bool:
        return self.config.similarity == "adversarial"

    @staticmethod
    def _two_layers(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(Linear(inputs, hidden), Dropout(dropout), nn.ReLU(), Linear(hidden, outputs))

    def forward(self, batch: Batch) -> Output:
        """Predict a batch."""
        hidden, mask = self.hierarchy(*self.tokens(batch))
        projected = self.utterance(hidden.select(-5, 0), mask.select(-4, 0))
        private = self._each(self.private, projected).sigmoid()
        shared = self.shared(projected).sigmoid()
        rebuilt = self._each(self.rebuild, private + shared)
        parts = {"projected": projected, "private": private, "shared": shared, "rebuilt": rebuilt}
        if self.discriminator is not None:
            parts["domain"] = self.discriminator(reverse_gradient(shared, self.config.reverse_weight))
        fused = self.fusion(torch.cat((private, shared), -3).transpose(-3, -2))  # (B, 2 M, d): all private, then shared
        spread = {
            f"spread_{name}": part.detach().std(-2, correction=0).mean((-2, -1))
            for name, part in (("private", private), ("shared", shared))
        }
        return Output(shape_prediction(self.head(fused.flatten(-2)), self.task.n_classes), spread, parts)

    @staticmethod
    def _each(layers: nn.ModuleList, x: Tensor) -> Tensor:
        """Each modality through a layer of its own."""
        return torch.stack([layer(part) for layer, part in zip(layers, x.unbind(-3), strict=True)], -3)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The task loss and MISA's three, weighted; moments and correlations are never of half precision."""
        parts = {name: exact(part) for name, part in output.parts.items()}
        per_width = (parts["shared"].shape[-1] / ORIGINAL_WIDTH) ** 2
        with without_autocast(parts["shared"]):
            difference = self.difference(parts["private"], parts["shared"])
            similarity = self.similarity(parts)
            reconstruction = (parts["rebuilt"] - parts["projected"]).square().mean((-3, -2, -1))
        return {
            **super().losses(output, batch),
            "difference": self.config.diff_weight * per_width * difference,
            "similarity": self.config.sim_weight * similarity,
            "reconstruction": self.config.recon_weight * reconstruction,
        }

    @staticmethod
    def difference(private: Tensor, shared: Tensor) -> Tensor:
        """Sum over private and shared of each modality and over each pair of privates; (M, B, d) each."""
        first, second = pairs(private)
        return difference_loss(torch.cat((private, first), -3), torch.cat((shared, second), -3)).sum(-1)

    def similarity(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Mean discrepancy over pairs of shared parts, or cross entropy of telling which modality a part is from."""
        shared = parts["shared"]
        if not self._adversarial:
            return central_moment_discrepancy(*pairs(shared), self.config.moments).mean(-1)
        likelihood: Tensor = parts["domain"].log_softmax(-1).diagonal(dim1=-3, dim2=-1)  # (B, M), of the true modality
        return -likelihood.mean((-2, -1))

    def modality_parameters(self) -> Iterator[tuple[nn.Parameter, tuple[int, ...]]]:
        """Those of the backbones and of the encoder."""
        yield from super().modality_parameters()
        yield from self.hierarchy.modality_parameters()
