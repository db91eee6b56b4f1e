"""Late fusion, the common baseline, and each modality alone.

Source: the plain model of every comparison in this literature: pooled features of all modalities are concatenated and
a small network reads them (T. Baltrusaitis, C. Ahuja, L.-P. Morency, Multimodal Machine Learning: A Survey and
Taxonomy, TPAMI 41(2), 2019, section 6; ``Normal`` with ``ConcatFusion`` in GeWu-Lab/OGM-GE_CVPR2022; LF_DNN in
thuiar/MMSA). No single paper or repository defines it.

Deviations from the papers
- The encoder, the pooling, the width and the dropout are the suite's, so that a method differs from this one in its
  fusion alone. LF_DNN averages frames over time without an encoder; the audio-visual papers use a ResNet per modality
  (here the backbone, where a benchmark has one).
- The head has two layers like that of CLCR. OGM-GE's ``concat`` baseline is one linear layer: that one is
  ``baselines/ogm_ge.py`` with ``modulation: none``.

Deviations from released code: none of LF_DNN's post-fusion stack is taken over, nor its batch normalisation; the
numbers printed for "late fusion" in different papers come from different networks and are not comparable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from clcr.api import Batch, Method, Output, Task, shape_prediction
from clcr.config import EncoderConfig
from clcr.hierarchy import Pooling, SemanticHierarchy
from clcr.intercad import side_by_side
from clcr.layers import Dropout, Linear


@dataclass(frozen=True)
class LateFusionConfig:
    """Nothing of its own: width, dropout and pooling are the shared encoder's."""


class LateFusion(Method):
    """Pooled features of every modality, concatenated, into a two-layer head."""

    Config: ClassVar[type[LateFusionConfig]] = LateFusionConfig
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {}}
    FOLDS: ClassVar[bool] = True

    def __init__(
        self,
        task: Task,
        encoder: EncoderConfig | None = None,
        config: LateFusionConfig | None = None,
        backbones: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__(task, backbones)
        encoder = encoder or EncoderConfig()
        self.config = config or LateFusionConfig()
        modalities, width = len(task.modalities), encoder.width
        self.hierarchy = SemanticHierarchy(task.modalities, encoder, levels=(3,))
        self.pooling = Pooling(encoder, (modalities,))
        self.head = nn.Sequential(
            Linear(modalities * width, width), nn.ReLU(), Dropout(encoder.dropout), Linear(width, task.outputs)
        )

    def forward(self, batch: Batch) -> Output:
        """Predict a batch."""
        hidden, mask = self.hierarchy(*self.tokens(batch))
        features: Tensor = self.pooling(hidden.select(-5, 0), mask.select(-4, 0))  # (M, B, d)
        raw = self.head(side_by_side(features))
        return Output(shape_prediction(raw, self.task.n_classes))

    def modality_parameters(self) -> Iterator[tuple[nn.Parameter, tuple[int, ...]]]:
        """Those of the backbones and of the encoder."""
        yield from super().modality_parameters()
        yield from self.hierarchy.modality_parameters()


class Unimodal(LateFusion):
    """The same network on one modality: what fusion has to beat. The task and the batch hold that modality only."""

    def __init__(
        self,
        task: Task,
        encoder: EncoderConfig | None = None,
        config: LateFusionConfig | None = None,
        backbones: Sequence[nn.Module] | None = None,
    ) -> None:
        if len(task.modalities) != 1:
            raise ValueError(f"unimodal: the task has {len(task.modalities)} modalities: restrict it to one")
        super().__init__(task, encoder, config, backbones)
