"""LMF: low-rank multimodal fusion, as a method that lives outside of the suite.

Source: Z. Liu, Y. Shen, V. B. Lakshminarasimhan, P. P. Liang, A. Zadeh, L.-P. Morency, Efficient Low-rank Multimodal
Fusion with Modality-Specific Factors, ACL 2018; code Justin1904/Low-rank-Multimodal-Fusion (model.py). The tensor
fusion of A. Zadeh et al. (EMNLP 2017) multiplies the outer product of all modalities' vectors, each with a 1 appended,
by a weight tensor. Here that tensor is a sum of ``rank`` outer products of one factor a modality (section 3.2), so that
neither it nor the outer product is ever made: each modality meets its factors alone, and the results are multiplied.

Deviations from the paper
- What enters is the deepest level of the suite's encoder, pooled, not the paper's LSTM and three-layer networks: the
  methods of the suite share the encoder. One linear layer with ReLU and dropout a modality is left of those.
- Any number of modalities from two on, and classification with cross entropy beside regression with L1.
- Rank 4 for every benchmark; the paper selected it for each data set.

Deviations from the released code
- No batch normalisation; the optimiser's separate rate for the factors is left out: the trainer and the profile are
  common to all methods. The dropout after fusion that it defines and never calls is not there either.
- The 1 stands behind the vector, not before it, which renames rows of the factors.
Kept: the sum over ranks weighted by a learned vector (in the code, not in the paper), Xavier-normal factors with the
fans that torch reads from a (rank, d + 1, outputs) tensor, and that what is fused is the prediction itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from clcr.api import Batch, Method, Output, Task, shape_prediction
from clcr.config import EncoderConfig
from clcr.hierarchy import Pooling, SemanticHierarchy
from clcr.layers import Dropout, Linear

ROW = {
    "label": "LMF",
    "citation": "Liu et al., Efficient Low-rank Multimodal Fusion with Modality-Specific Factors, ACL 2018",
    "year": 2018,
    "variants": ("full", "rank_1"),
}


@dataclass(frozen=True)
class LMFConfig:
    """rank: outer products that the weight tensor is the sum of."""

    rank: int = 4

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"config: method.rank = {self.rank!r}: must be a positive integer")


class LowRankFusion(nn.Module):
    """One vector a modality to one vector of the outputs: the product over modalities, summed over ranks."""

    def __init__(self, modalities: int, width: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.empty(modalities, rank, width + 1, outputs))
        self.weight = nn.Parameter(torch.empty(rank, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, outputs))
        for factor in self.factors.detach().unbind():
            nn.init.xavier_normal_(factor)
        nn.init.xavier_normal_(self.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        """(M, B, d) to (B, outputs); folded, all with the seeds first."""
        seen = functional.pad(vectors, (0, 1), value=1.0).unsqueeze(-3) @ self.factors  # (M, rank, B, outputs)
        product: Tensor = reduce(torch.mul, seen.unbind(-4))
        return (self.weight * product).sum(-3) + self.bias


class LMF(Method):
    """Pooled features of every modality, fused by a low-rank tensor that gives the prediction."""

    Config: ClassVar[type[LMFConfig]] = LMFConfig
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {}, "rank_1": {"rank": 1}}
    FOLDS: ClassVar[bool] = True

    def __init__(
        self,
        task: Task,
        encoder: EncoderConfig | None = None,
        config: LMFConfig | None = None,
        backbones: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__(task, backbones)
        encoder = encoder or EncoderConfig()
        self.config = config or LMFConfig()
        modalities, width = len(task.modalities), encoder.width
        if modalities < 2:
            raise ValueError("lmf: needs two or more modalities: with one there is nothing to fuse")
        self.hierarchy = SemanticHierarchy(task.modalities, encoder, levels=(3,))
        self.pooling = Pooling(encoder, (modalities,))
        self.reading = nn.ModuleList(Linear(width, width) for _ in range(modalities))
        self.dropout = Dropout(encoder.dropout)
        self.fusion = LowRankFusion(modalities, width, self.config.rank, task.outputs)

    def forward(self, batch: Batch) -> Output:
        """Predict a batch."""
        hidden, mask = self.hierarchy(*self.tokens(batch))
        pooled: Tensor = self.pooling(hidden.select(-5, 0), mask.select(-4, 0))  # (M, B, d)
        read = torch.stack([layer(x) for layer, x in zip(self.reading, pooled.unbind(-3), strict=True)], -3)
        raw = self.fusion(self.dropout(functional.relu(read)))
        return Output(shape_prediction(raw, self.task.n_classes))

    def modality_parameters(self) -> Iterator[tuple[nn.Parameter, tuple[int, ...]]]:
        """Those of the backbones and of the encoder."""
        yield from super().modality_parameters()
        yield from self.hierarchy.modality_parameters()
