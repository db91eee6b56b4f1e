"""One modality's values in storage, and as the input of a backbone: gather, dequantise, standardise, mask.

Storage is the device where the arrays fit, else the host: then each batch is gathered there and sent, in the type it is
stored in, from pinned memory, without waiting. Where the values lie changes no number.

A source of several seeds has the seeds in front of its rows and of its standardisation; indices are then (S, B) and one
gather serves them all. Axes are counted from the end, so that everything here reads (B, ...) and (S, B, ...) alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from benchmarks.augment import Augmentation, augments
from benchmarks.errors import InputError
from benchmarks.spec import ModalitySpec

FRAME_GRID, IMAGE_GRID = 4, 7  # cells per side to which frames and images are averaged for the linear floor
ROWS_AT_ONCE = 64
CPU = torch.device("cpu")
CLIP = 10.0  # deviations; a feature that is nearly constant in training would otherwise explode on a test sample
FLAT = 1e-6  # a feature that varies less than this on the training rows is left unscaled
_DIMENSIONS = {"vector": 2, "tokens": 2, "levels": 3, "spectrogram": 2, "image": 3, "frames": 4}  # of one sample


@dataclass(frozen=True)
class Affine:
    """``scale * v + shift`` dequantises and standardises a stored value v; both broadcast over a backbone's input."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Source:
    """One modality. values: (rows, ...) as stored. rows: row of each sample (n,), or (S, n), where the values are.
    lengths: real tokens per row, or None, on ``device``, to which batches go. streams: the values stay on the host."""

    spec: ModalitySpec
    values: Tensor
    rows: Tensor
    lengths: Tensor | None
    dequantise: tuple[float, float]
    device: torch.device = CPU
    streams: bool = False
    affine: Affine | None = None

    @property
    def token_axis(self) -> int:
        """Axis of the stored values that lengths count along."""
        return 2 if self.spec.layout == "levels" else 1

    @property
    def tokens(self) -> int:
        """Tokens before any backbone; 1 for vectors and images."""
        return 1 if self.spec.layout in ("vector", "image") else int(self.values.shape[self.token_axis])

    @property
    def feature_axis(self) -> int:
        """Axis of a backbone's input that is standardised feature by feature."""
        return -3 if self.spec.layout in ("image", "frames") else -1

    def gather(self, samples: Tensor, augment: Augmentation | None = None, full: bool = False) -> tuple[Tensor, Tensor]:
        """Input of the backbone and its mask for samples (B,) or (S, B); padded tokens are exactly zero. ``full``: not
        trimmed to the longest sample."""
        chosen = self.rows.gather(-1, samples.to(self.rows.device))
        lengths = None if self.lengths is None else self.lengths[chosen.to(self.device)]
        tokens = self.tokens if full else self._longest()
        mask = self._mask(lengths, samples, tokens)
        stored = self._stored(chosen, tokens)
        if self.spec.layout == "text":
            return stored, mask
        x = self._channels_first(stored)
        if augment is not None and augments(self.spec):
            zero = -self.dequantise[1] / self.dequantise[0] if self.spec.flow else None
            x = augment.apply(x, samples.to(self.device), zero)
        x = self._real(x)
        return (x if lengths is None else x.mul_(self.spread(mask))), mask

    def spread(self, mask: Tensor) -> Tensor:
        """The mask, shaped to broadcast over the backbone's input."""
        if self.spec.layout == "levels":
            return mask[..., None, :, None]
        return mask.view(*mask.shape, *[1] * (_DIMENSIONS[self.spec.layout] - 1))

    def _longest(self) -> int:
        """Tokens of the longest sample there is, so that no batch's shape depends on what is in it. On a GPU, and for
        ResNet-18, which sees its padding as zeros at the border, the full length."""
        if self.lengths is None or self.device.type != "cpu" or self.spec.backbone == "resnet18":
            return self.tokens
        return max(1, int(self.lengths.max()))

    def _mask(self, lengths: Tensor | None, samples: Tensor, tokens: int) -> Tensor:
        """(..., B, tokens), True where the token is real."""
        if lengths is None:
            return torch.ones(*samples.shape, tokens, dtype=torch.bool, device=self.device)
        return torch.arange(tokens, device=self.device) < lengths.unsqueeze(-1)

    def _stored(self, chosen: Tensor, tokens: int) -> Tensor:
        """The first ``tokens`` tokens of these rows, on the device, as they are stored."""
        values = self.values if tokens == self.tokens else self.values.narrow(self.token_axis, 0, tokens)
        rows = chosen.flatten()
        if self.streams:  # torch reuses a pinned buffer only when its copy has gone
            pinned = self.device.type == "cuda"
            buffer = torch.empty(len(rows), *values.shape[1:], dtype=values.dtype, pin_memory=pinned)
            found = torch.index_select(values, 0, rows, out=buffer).to(self.device, non_blocking=True)
        else:
            found = values.index_select(0, rows)
        return found.view(*chosen.shape, *values.shape[1:])

    def _channels_first(self, stored: Tensor) -> Tensor:
        """Stored rows as a backbone wants them: images (..., C, H, W), frames (..., N, C, H, W), vectors as one token.
        Moved while still bytes, which is four times cheaper."""
        if self.spec.layout == "vector":
            return stored.unsqueeze(-2)
        return stored.movedim(-1, -3).contiguous() if self.feature_axis == -3 else stored

    def _real(self, stored: Tensor) -> Tensor:
        """Gathered values as float32, dequantised, and standardised where that has been fitted. They are a batch's own
        and changed in place: on a CPU, fresh memory costs more than the arithmetic."""
        x = stored.to(torch.float32)
        if self.affine is not None:
            return torch.addcmul(self.affine.shift, x, self.affine.scale, out=x).clamp_(-CLIP, CLIP)
        scale, offset = self.dequantise
        return x if self.dequantise == (1.0, 0.0) else x.mul_(scale).add_(offset)


def stored(
    spec: ModalitySpec, array: np.ndarray, lengths: np.ndarray | None, dequantise: tuple[float, float] = (1.0, 0.0)
) -> Source:
    """A modality's storage on the host, still without rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # nothing here writes to a memory-mapped file
        values = torch.from_numpy(array if array.dtype != np.float64 else array.astype(np.float32))
    ragged = None if lengths is None else torch.from_numpy(np.array(lengths, dtype=np.int64))
    return Source(spec, values, torch.empty(0, dtype=torch.int64), ragged, dequantise)


def place(sources: Sequence[Source], device: torch.device, room: int) -> tuple[Source, ...]:
    """The sources for batches on ``device``: values move there, smallest first, as long as they fit into ``room``
    bytes; the others stay on the host."""
    placed = {}
    for k in sorted(range(len(sources)), key=lambda k: sources[k].values.nbytes):
        source = sources[k]
        lengths = None if source.lengths is None else source.lengths.to(device)
        room -= source.values.nbytes
        values = source.values.to(device) if room >= 0 else source.values
        placed[k] = replace(source, values=values, lengths=lengths, device=device, streams=room < 0)
    return tuple(placed[k] for k in range(len(sources)))


def room_on(device: torch.device, share: float) -> int:
    """Bytes that arrays may take there: a share of what is free on a GPU; a CPU reads them where they are."""
    if device.type != "cuda":
        return 1 << 62
    return int(share * torch.cuda.mem_get_info(device)[0])


def arranged(source: Source, rows: np.ndarray) -> Source:
    """The same storage with other rows (n,), not yet standardised."""
    chosen = torch.from_numpy(np.array(rows, dtype=np.int64)).to(source.values.device)
    return replace(source, rows=chosen, affine=None)


def together(sources: Sequence[Source]) -> Source:
    """One source of several seeds, with the seeds in front. ValueError where they do not share their storage."""
    first = sources[0]
    if any(source.values is not first.values or source.spec != first.spec for source in sources):
        raise ValueError(f"{first.spec.name}: seeds that go together must share their storage; open them with `at`")
    affines = [source.affine for source in sources if source.affine is not None]
    affine = None
    if affines:
        scale, shift = (torch.stack([getattr(one, name) for one in affines]) for name in ("scale", "shift"))
        affine = Affine(scale.unsqueeze(1), shift.unsqueeze(1))
    return replace(first, rows=pad_sequence([source.rows for source in sources], batch_first=True), affine=affine)


def standardised(source: Source, train: np.ndarray) -> Source:
    """The source with mean and deviation of each feature over the real tokens of the training rows, each row once."""
    if not source.spec.standardise or source.spec.layout == "text":
        return source
    raw = replace(source, affine=None)
    rows = raw.rows.cpu().numpy()[train]
    _, first = np.unique(rows, return_index=True)
    samples = torch.from_numpy(train[np.sort(first)]).to(raw.rows.device)
    mean = _expectation(raw, samples, lambda x: x)
    deviation = _expectation(raw, samples, lambda x: (x - mean) ** 2).sqrt()
    deviation = torch.where(deviation > FLAT, deviation, torch.ones_like(deviation))
    scale, offset = raw.dequantise
    affine = Affine((scale / deviation).float(), ((offset - mean) / deviation).float())
    return replace(source, affine=affine)


def _expectation(source: Source, samples: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of a function of each feature over the real tokens, in float64, shaped to broadcast over inputs. Levels are
    kept apart: early and late hidden states have scales of their own."""
    total = count = torch.zeros((), dtype=torch.float64, device=source.device)
    for part in torch.split(samples, ROWS_AT_ONCE):
        x, mask = source.gather(part, full=True)
        kept = {x.dim() + source.feature_axis} | ({1} if source.spec.layout == "levels" else set())
        axes = tuple(axis for axis in range(x.dim()) if axis not in kept)
        weight = source.spread(mask).double()
        total = total + (function(x.double()) * weight).sum(axes, keepdim=True)
        count = count + weight.expand(x.shape).sum(axes, keepdim=True)
    return (total / count.clamp_min(1)).squeeze(0)


def pooled(spec: ModalitySpec, x: Tensor, mask: Tensor) -> Tensor:
    """(B, D) float64 features of a batch of one modality, from inputs and mask as ``gather`` gives them."""
    x = x.double()
    if spec.layout == "text":
        raise InputError(
            f"modality {spec.name}: the linear floor needs frozen hidden states; --set language.finetune=false"
        )
    if spec.layout == "image":
        return functional.adaptive_avg_pool2d(x, IMAGE_GRID).flatten(1)
    if spec.layout == "levels":
        return _masked_mean(x, mask[:, None, :, None], 2).flatten(1)
    if spec.layout == "frames":
        x = functional.adaptive_avg_pool2d(x.flatten(0, 1), FRAME_GRID).reshape(*x.shape[:2], -1)
    mean = _masked_mean(x, mask.unsqueeze(-1), 1)
    if spec.layout not in ("spectrogram", "frames"):
        return mean
    variance = _masked_mean((x - mean.unsqueeze(1)) ** 2, mask.unsqueeze(-1), 1)
    return torch.cat([mean, variance.sqrt()], dim=1)


def _masked_mean(x: Tensor, mask: Tensor, axis: int) -> Tensor:
    weight = mask.to(x.dtype)
    return (x * weight).sum(axis) / weight.sum(axis).clamp_min(1)
