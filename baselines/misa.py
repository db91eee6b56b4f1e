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
- Each sequence is read at its own length, wherever its padding stands.
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
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred_x, centred_y = x - mean_x, y - mean_y
    differences = [mean_x - mean_y]
    differences += [centred_x.pow(k).mean(0) - centred_y.pow(k).mean(0) for k in range(2, moments + 1)]
    distances: Tensor = torch.stack(differences).norm(dim=1)  # gradient 0 at 0
    return distances.sum()


def unit_rows(x: Tensor) -> Tensor:
    """(B, d) centred over the batch, then each row divided by its norm, which passes no gradient."""
    x = x - x.mean(0)
    norm: Tensor = x.detach().norm(dim=1, keepdim=True)
    return x / (norm + 1e-6)


def difference_loss(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared correlation of the coordinates of two batches (B, d): 0 where the subspaces share nothing."""
    return torch.mm(unit_rows(x).T, unit_rows(y)).pow(2).mean()


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """``x`` itself; its gradient comes back times -weight."""
    return (x.detach() - x) * weight + x.detach()


class StackedBiLSTM(nn.Module):
    """Two one-layer bidirectional LSTMs with layer normalisation between; final states of both layers, (B, 4 d).

    Both directions run forwards over the real tokens, the second over their reverse: padding comes last in either,
    and the state after the last real token is picked. No packing, which is slower and waits for the device.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(2))
        self.norm = nn.LayerNorm(2 * width)
        self.second = nn.ModuleList(nn.LSTM(2 * width, width, batch_first=True) for _ in range(2))
        for name, parameter in self.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(parameter)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, T, d) and mask (B, T), in any pattern, to (B, 4 d); no real token gives zeros."""
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # real tokens first
        length = mask.sum(1, keepdim=True)
        step = torch.arange(mask.shape[1], device=mask.device)
        flip = torch.where(step < length, length - 1 - step, step).unsqueeze(-1)
        last = (length - 1).clamp(min=0).unsqueeze(-1)
        tokens = x.masked_fill(~mask.unsqueeze(-1), 0).take_along_dim(order.unsqueeze(-1), 1)
        states, final = self._layer(self.first, tokens, flip, last)
        return torch.cat((final, self._layer(self.second, self.norm(states), flip, last)[1]), -1) * (length > 0)

    def _layer(self, pair: nn.ModuleList, x: Tensor, flip: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, T, 2 d) and final states (B, 2 d) of one bidirectional layer."""
        ahead, back = pair[0](x)[0], pair[1](x.take_along_dim(flip, 1))[0]
        final = torch.cat((ahead.take_along_dim(last, 1), back.take_along_dim(last, 1)), -1).squeeze(1)
        return torch.cat((ahead, back.take_along_dim(flip, 1)), -1), final


class Utterance(nn.Module):
    """One vector of the common width for each modality: LSTMs or pooling, then Linear, ReLU and LayerNorm."""

    def __init__(self, task: Task, encoder: EncoderConfig) -> None:
        super().__init__()
        width = encoder.width
        readers = (
            Pooling(encoder, ()) if modality.levelled or modality.tokens == 1 else StackedBiLSTM(width)
            for modality in task.modalities
        )
        self.readers = nn.ModuleList(readers)
        self.projections = nn.ModuleList(
            nn.Sequential(
                nn.Linear(4 * width if isinstance(reader, StackedBiLSTM) else width, width),
                nn.ReLU(),
                nn.LayerNorm(width),
            )
            for reader in self.readers
        )

    def forward(self, hidden: Tensor, mask: Tensor, tokens: Sequence[int]) -> Tensor:
        """(M, B, T, d), (M, B, T) and how many of the T each modality can use, to (M, B, d)."""
        own = [(hidden[m, :, :count], mask[m, :, :count]) for m, count in enumerate(tokens)]
        read = [reader(*pair) for reader, pair in zip(self.readers, own, strict=True)]
        return torch.stack([project(x) for project, x in zip(self.projections, read, strict=True)])


class MISA(Method):
    """Shared and private views of every modality, fused by a small transformer.

    ``Output.parts``: ``projected``, ``private``, ``shared``, ``rebuilt`` (M, B, d), and ``domain`` (M, B, M), the
    discriminator's logits, in the adversarial variant. ``losses``: task, difference, similarity, reconstruction.
    """

    Config: ClassVar[type[MISAConfig]] = MISAConfig
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {}, "adversarial": {"similarity": "adversarial"}}

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
        self.private = nn.ModuleList(nn.Linear(width, width) for _ in range(modalities))
        self.shared = nn.Linear(width, width)
        self.rebuild = nn.ModuleList(nn.Linear(width, width) for _ in range(modalities))
        self.discriminator = self._two_layers(width, width, modalities, encoder.dropout) if self._adversarial else None
        self.fusion = nn.TransformerEncoderLayer(
            width, self.config.heads, self.config.feedforward * width, self.config.fusion_dropout, batch_first=True
        )
        self.head = self._two_layers(2 * modalities * width, modalities * width, task.outputs, encoder.dropout)

    @property
    def _adversarial(self) -> bool:
        return self.config.similarity == "adversarial"

    @staticmethod
    def _two_layers(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, hidden), nn.Dropout(dropout), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, batch: Batch) -> Output:
        """Predict a batch."""
        tokens, masks = self.tokens(batch)
        hidden, mask = self.hierarchy(tokens, masks)
        projected = self.utterance(hidden[0], mask, [own.shape[1] for own in masks])
        private = torch.stack([layer(x) for layer, x in zip(self.private, projected, strict=True)]).sigmoid()
        shared = self.shared(projected).sigmoid()
        rebuilt = torch.stack([layer(x) for layer, x in zip(self.rebuild, private + shared, strict=True)])
        parts = {"projected": projected, "private": private, "shared": shared, "rebuilt": rebuilt}
        if self.discriminator is not None:
            parts["domain"] = self.discriminator(reverse_gradient(shared, self.config.reverse_weight))
        fused = self.fusion(torch.cat((private, shared)).transpose(0, 1))  # (B, 2 M, d): all private, then all shared
        spread = {f"spread_{name}": parts[name].detach().std(1, correction=0).mean() for name in ("private", "shared")}
        return Output(shape_prediction(self.head(fused.flatten(1)), self.task.n_classes), spread, parts)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The task loss and MISA's three, weighted."""
        parts = output.parts
        per_width = (parts["shared"].shape[-1] / ORIGINAL_WIDTH) ** 2
        return {
            **super().losses(output, batch),
            "difference": self.config.diff_weight * per_width * self.difference(parts["private"], parts["shared"]),
            "similarity": self.config.sim_weight * self.similarity(parts),
            "reconstruction": self.config.recon_weight * functional.mse_loss(parts["rebuilt"], parts["projected"]),
        }

    @staticmethod
    def difference(private: Tensor, shared: Tensor) -> Tensor:
        """Sum over private and shared of each modality and over each pair of privates; (M, B, d) each."""
        own = [difference_loss(p, s) for p, s in zip(private, shared, strict=True)]
        across = [difference_loss(p, q) for p, q in combinations(private, 2)]
        return torch.stack(own + across).sum()

    def similarity(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Mean discrepancy over pairs of shared parts, or cross entropy of telling which modality a part is from."""
        shared = parts["shared"]
        if not self._adversarial:
            pairs = combinations(shared, 2)
            return torch.stack([central_moment_discrepancy(x, y, self.config.moments) for x, y in pairs]).mean()
        modality = torch.arange(len(shared), device=shared.device).repeat_interleave(shared.shape[1])
        return functional.cross_entropy(parts["domain"].flatten(0, 1), modality)

    def modality_parameters(self) -> Iterator[tuple[nn.Parameter, tuple[int, ...]]]:
        """Those of the backbones and of the encoder."""
        yield from super().modality_parameters()
        yield from self.hierarchy.modality_parameters()
