"""Changes of what a method reads at test time: noise on a modality, zeros or its training mean in its place.

``add`` and ``put`` are pure functions of a batch; padded tokens stay exactly zero and masks stay as they are. A
``Change`` says what becomes of which samples, so that a batch may be that of one seed or of several, in any company.

Everything is in the units that the backbone reads: dequantised, and standardised where the protocol says so.
- The mean is that of each feature over the real tokens of the training split; levels are kept apart. Of pictures it is
  that of each channel and pixel, the mean picture: a mean of each channel would be zero where channels are standardised
  and so tell nothing that zeroing does not tell, and a flat picture is farther from any that was trained on.
- Noise is measured in the modality's deviation over the same tokens: the root of the mean variance of its features as
  they are standardised (columns, channels of pictures; each level by itself), so about 1 where they are.
- A sample's noise follows from the benchmark, the protocol, the modality and the sample's name alone: all methods,
  seeds, folds and strengths meet the same realisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest

import torch
from torch import Tensor

from benchmarks.data import FoldData
from benchmarks.errors import InputError
from benchmarks.runner.seeds import stream
from benchmarks.spec import ModalitySpec
from benchmarks.storage import ROWS_AT_ONCE
from clcr.api import Batch

TOKEN_AXIS = {"vector": 0, "tokens": 0, "levels": 1, "spectrogram": 0, "frames": 0}  # of one sample; images have none
PICTURES = ("image", "frames")
ROOM = 1 << 29
SAMPLE_AXES = {"vector": 2, "tokens": 2, "levels": 3, "spectrogram": 2, "image": 3, "frames": 4}


@dataclass(frozen=True)
class Moments:
    """Of one modality over the real tokens of a training split; both broadcast over a sample and have all its axes.
    mean: of each feature. unit: the modality's deviation, one number, or one a level."""

    mean: Tensor
    unit: Tensor


@dataclass(frozen=True)
class Part:
    """Whose samples a batch holds: those of some seeds. samples: (S, n), indices into the seeds' arrangements."""

    places: slice
    samples: Tensor


Change = Callable[[Batch, Part], Batch]


def add(batch: Batch, specs: Sequence[ModalitySpec], terms: Mapping[int, Tensor]) -> Batch:
    """The batch with a term added to the real tokens of some modalities; a term broadcasts over its input."""
    return _changed(batch, specs, terms, lambda x, term: x + term)


def put(batch: Batch, specs: Sequence[ModalitySpec], values: Mapping[int, Tensor]) -> Batch:
    """The batch with a value in the place of the real tokens of some modalities."""
    return _changed(batch, specs, values, lambda x, value: value.expand_as(x))


def _changed(
    batch: Batch,
    specs: Sequence[ModalitySpec],
    given: Mapping[int, Tensor],
    function: Callable[[Tensor, Tensor], Tensor],
) -> Batch:
    inputs = list(batch.inputs)
    for m, term in given.items():
        real = over_tokens(batch.masks[m], specs[m])
        inputs[m] = torch.where(real, function(inputs[m], term), torch.zeros_like(inputs[m]))
    return replace(batch, inputs=tuple(inputs))


def over_tokens(mask: Tensor, spec: ModalitySpec) -> Tensor:
    """A mask (..., T), shaped to broadcast over the backbone's input."""
    if spec.layout == "levels":
        return mask[..., None, :, None]
    return mask.view(*mask.shape, *[1] * (SAMPLE_AXES[spec.layout] - 1))


def moments(data: FoldData) -> tuple[Moments, ...]:
    """Of each modality of one seed's data. InputError for token ids of a fine-tuned language model."""
    for spec in data.modalities:
        if spec.layout == "text":
            told = f"modality {spec.name}: token ids of a fine-tuned language model have no mean and take no noise"
            raise InputError(f"{told}; run it with --set language.finetune=false")
    totals = [[torch.zeros((), dtype=torch.float64, device=data.device)] * 3 for _ in data.modalities]
    for samples in torch.split(torch.as_tensor(data.indices["train"]), ROWS_AT_ONCE):
        batch = data.batch(samples)
        for m, spec in enumerate(data.modalities):
            x, real = batch.inputs[m].double(), over_tokens(batch.masks[m], spec).double()
            axes = (0,) if spec.layout not in TOKEN_AXIS else (0, TOKEN_AXIS[spec.layout] + 1)
            found = (x * real, x.square() * real, real.expand_as(x))
            totals[m] = [a + b.sum(axes, keepdim=True).squeeze(0) for a, b in zip(totals[m], found, strict=True)]
    return tuple(_moments(spec, *total) for spec, total in zip(data.modalities, totals, strict=True))


def _moments(spec: ModalitySpec, first: Tensor, second: Tensor, count: Tensor) -> Moments:
    mean, square = first / count.clamp_min(1), second / count.clamp_min(1)
    if spec.layout in PICTURES:  # a channel is one feature, wherever the pixel
        centre, square = mean.mean((-2, -1)), square.mean((-2, -1))
        variance = (square - centre.square()).clamp_min(0).mean().view((1,) * SAMPLE_AXES[spec.layout])
    else:
        variance = (square - mean.square()).clamp_min(0).mean(-1, keepdim=True)
    return Moments(mean.float(), variance.sqrt().float())


class Drawings:
    """Noise that was drawn in one protocol, for those who meet the same again, up to ``room`` bytes; what is more is
    drawn each time."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = self._left = room
        self._where = ("", "")
        self._known: dict[tuple[str, ...], Tensor] = {}

    def of(self, benchmark: str, protocol: str, spec: ModalitySpec, sample: str) -> Tensor:
        """As ``standard_noise``."""
        if (benchmark, protocol) != self._where:
            self._where, self._known, self._left = (benchmark, protocol), {}, self._room
        whose = (spec.name, spec.layout, str(spec.shape), sample)
        found = self._known.get(whose)
        if found is None:
            found = standard_noise(benchmark, protocol, spec, sample)
            if found.nbytes <= self._left:
                self._left -= found.nbytes
                self._known[whose] = found
        return found


class Changes:
    """The changes of one fold's data, that of each seed of a group; they read a batch of any of its seeds."""

    def __init__(
        self,
        folds: Sequence[FoldData],
        known: Callable[[FoldData], tuple[Moments, ...]] = moments,
        drawings: Drawings | None = None,
    ) -> None:
        self.specs = folds[0].modalities
        self._drawings = drawings or Drawings()
        self._folds = list(folds)
        self._moments = [known(data) for data in folds]

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in the order of the protocol."""
        return tuple(spec.name for spec in self.specs)

    def noise(self, strength: float, names: Iterable[str]) -> Change:
        """Gaussian noise on some modalities, ``strength`` times the deviation of each."""
        chosen = self._places(names)

        def change(batch: Batch, part: Part) -> Batch:
            return add(batch, self.specs, {m: self._noise(m, strength, batch, part) for m in chosen})

        return change

    def zeros(self, names: Iterable[str]) -> Change:
        """Zeros in the place of some modalities."""
        chosen = self._places(names)

        def change(batch: Batch, _: Part) -> Batch:
            return put(batch, self.specs, {m: batch.inputs[m].new_zeros(()) for m in chosen})

        return change

    def means(self, names: Iterable[str]) -> Change:
        """Their training mean in the place of some modalities."""
        chosen = self._places(names)

        def change(batch: Batch, part: Part) -> Batch:
            return put(batch, self.specs, {m: self._of_seeds("mean", m, batch, part) for m in chosen})

        return change

    def _places(self, names: Iterable[str]) -> list[int]:
        return [self.names.index(name) for name in names]

    def _of_seeds(self, what: str, m: int, batch: Batch, part: Part) -> Tensor:
        """A moment of each seed, shaped to broadcast over the batch's input."""
        stacked = torch.stack([getattr(each[m], what) for each in self._moments[part.places]]).unsqueeze(1)
        return stacked if batch.target.dim() == 2 else stacked[0]

    def _noise(self, m: int, strength: float, batch: Batch, part: Part) -> Tensor:
        """The term of a modality, on the device of the batch: one of no seed where all seeds have the same samples."""
        x, spec = batch.inputs[m], self.specs[m]
        pairs = zip(self._folds[part.places], part.samples, strict=True)
        names = [tuple(map(str, data.arrangement.ids[samples.numpy()])) for data, samples in pairs]
        first, tokens = self._folds[0], 0
        if spec.layout in TOKEN_AXIS:  # a batch is trimmed to the longest sample there is
            tokens = x.shape[TOKEN_AXIS[spec.layout] - SAMPLE_AXES[spec.layout]]
        each = names[:1] if len(set(names)) == 1 else names
        rows = [self._drawn((first.spec.name, first.protocol.name), spec, own, tokens) for own in each]
        drawn = (torch.stack(rows) if len(rows) > 1 else rows[0]).to(x.device)
        return drawn * (strength * self._of_seeds("unit", m, batch, part))

    def _drawn(self, where: tuple[str, str], spec: ModalitySpec, names: Iterable[str], tokens: int) -> Tensor:
        """The noise of some samples (n, ...), of their first tokens where they have any."""
        rows = (self._drawings.of(*where, spec, name) for name in names)
        if spec.layout not in TOKEN_AXIS:
            return torch.stack(list(rows))
        return torch.stack([row.narrow(TOKEN_AXIS[spec.layout], 0, tokens) for row in rows])


def standard_noise(benchmark: str, protocol: str, spec: ModalitySpec, sample: str) -> Tensor:
    """A sample's noise of unit deviation in the shape that the backbone reads, untrimmed; always the same."""
    seed = stream("analysis.noise", benchmark, protocol, spec.name, sample)
    return torch.randn(_shape(spec), generator=torch.Generator().manual_seed(seed))


def _shape(spec: ModalitySpec) -> tuple[int, ...]:
    """Of one sample as the backbone reads it."""
    if spec.layout == "vector":
        return (1, *spec.shape)
    if spec.layout in PICTURES:
        return (*spec.shape[:-3], spec.shape[-1], *spec.shape[-3:-1])
    return spec.shape


def bound(change: Change, folds: Sequence[FoldData], split: str, size: int) -> Callable[[Batch], Batch]:
    """A change for the batches of one pass over a split, in the order in which they are read: ``size`` samples of each
    seed at a time, seeds with batches of one size together. ValueError where a batch is not the expected one."""
    parts = _parts([torch.as_tensor(data.indices[split]) for data in folds], size)

    def apply(batch: Batch) -> Batch:
        part = next(parts, None)
        if part is None or part.samples.numel() != batch.target.numel():
            raise ValueError(f"{split}: a batch is not the one that was expected")
        return change(batch, part)

    return apply


def _parts(indices: Sequence[Tensor], size: int) -> Iterator[Part]:
    pieces = [torch.split(samples, size) for samples in indices]
    for step in zip_longest(*pieces, fillvalue=torch.empty(0, dtype=torch.int64)):
        start = 0
        for count, run in groupby(map(len, step)):
            places = slice(start, start := start + len(list(run)))
            if count:
                yield Part(places, torch.stack(list(step[places])))
