"""Random crops and flips of training pictures: seeded per sample and epoch, made on the device, nothing per sample.

As the audio-visual literature does it (OGM-GE, dataset/CramedDataset.py): torchvision's RandomResizedCrop with its
defaults, then a horizontal flip of every second picture. Evaluation sees the whole picture. Differences, alike for all
methods: the crop is cut from the stored square, not from the film's frame; a crop is never larger than the picture it
becomes, so nothing shrinks and Pillow's antialiasing would do nothing, but its rounding to bytes is not repeated; all
frames of a clip share one crop and one flip, where the original draws per frame; optical flow shares those of the RGB
frames and changes the sign of its horizontal part where it is flipped, where the originals flip streams apart and keep
the sign. Vectors are not stretched with the crop, as in two-stream networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.spec import ModalitySpec

SCALE = (0.08, 1.0)  # share of the picture's area
RATIO = (3 / 4, 4 / 3)  # width / height
ATTEMPTS = 10  # to draw a crop that fits, then the largest one in the middle
FLIPPED = 0.5
PICTURES = ("image", "frames")

_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def augments(spec: ModalitySpec) -> bool:
    """Whether a modality's pictures are augmented: those that ResNet-18 reads; spectrograms never are."""
    return spec.layout in PICTURES and spec.backbone == "resnet18"


def augmentation(name: str, seeds: int | Sequence[int], epoch: int) -> Augmentation | None:
    """What ``encoder.augment`` = ``name`` means for the training batches of an epoch; None where it is "none"."""
    return None if name == "none" else Augmentation(seeds, epoch)


@dataclass(frozen=True)
class Crops:
    """Of each sample, in pixels of the stored picture: the corner and size of its crop, and whether it is flipped."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor


class Augmentation:
    """The crops and flips of one epoch.

    ``seeds``: the stream of one run (63 bits), or one for each seed of a folded run; indices of samples are then
    (S, B), and each seed finds what it would find alone. A crop depends on stream, epoch and sample, on nothing else.
    """

    def __init__(self, seeds: int | Sequence[int], epoch: int) -> None:
        streams = torch.tensor(seeds if isinstance(seeds, int) else [[seed] for seed in seeds], dtype=torch.int64)
        self._key = _mixed(_mixed(streams) + _GAMMA * torch.tensor(epoch + 1))

    def uniform(self, samples: Tensor, count: int) -> Tensor:
        """(..., count) float64 in [0, 1) for samples (...): the same bits on every device."""
        if self._key.device != samples.device:
            self._key = self._key.to(samples.device)
        state = _mixed(self._key + _GAMMA * (samples + 1)).unsqueeze(-1)
        places = torch.arange(1, count + 1, device=samples.device)
        return ((_mixed(state + _GAMMA * places) >> 11) & ((1 << 53) - 1)).double() * 2.0**-53

    def crops(self, samples: Tensor, height: int, width: int) -> Crops:
        """The crops of these samples from pictures of that size; every entry has the shape of ``samples``."""
        drawn = self.uniform(samples, 2 * ATTEMPTS + 3)
        area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * drawn[..., :ATTEMPTS])
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        ratio = (low + (high - low) * drawn[..., ATTEMPTS : 2 * ATTEMPTS]).exp()
        wide, tall = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (wide >= 1) & (wide <= width) & (tall >= 1) & (tall <= height)
        first = fits.int().argmax(-1, keepdim=True)  # the first that fits
        found = fits.any(-1)
        whole = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
        wide = torch.where(found, wide.gather(-1, first).squeeze(-1), float(whole[0]))
        tall = torch.where(found, tall.gather(-1, first).squeeze(-1), float(whole[1]))
        down, right, flip = drawn[..., 2 * ATTEMPTS :].unbind(-1)
        top = torch.where(found, (down * (height - tall + 1)).floor(), ((height - tall) / 2).floor())
        left = torch.where(found, (right * (width - wide + 1)).floor(), ((width - wide) / 2).floor())
        return Crops(top, left, tall, wide, flip < FLIPPED)

    def apply(self, x: Tensor, samples: Tensor, zero: float | None = None) -> Tensor:
        """Crop, resize to the old size and flip.

        Args:
            x: pictures (*samples.shape, ..., C, H, W) in any type; what lies between shares its sample's crop.
            samples: their indices, (B,) or (S, B).
            zero: for optical flow, the stored value that stands for no motion.

        Returns:
            float32, of the same shape; stored values, bilinearly interpolated inside the crop.
        """
        height, width = x.shape[-2:]
        crops = self.crops(samples, height, width)
        rows = _places(crops.top, crops.height, height)
        columns = _places(crops.left, crops.width, width)
        columns = torch.where(crops.flip.flatten().unsqueeze(-1), columns.flip(-1), columns)
        shape = (-1, height, width)
        grid = torch.stack([columns.unsqueeze(1).expand(shape), rows.unsqueeze(2).expand(shape)], -1)
        flat = x.reshape(len(grid), -1, height, width).float()
        out = functional.grid_sample(flat, grid, padding_mode="border", align_corners=False).view(x.shape)
        if zero is not None:
            across = out.select(-3, 0)
            flip = crops.flip.view(*samples.shape, *[1] * (across.dim() - samples.dim()))
            across.copy_(torch.where(flip, 2 * zero - across, across))
        return out


def _places(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where each of ``size`` pixels is read along an axis, (n, size) float32, -1 and 1 being the picture's borders.
    Nothing outside the crop is read, as if it had been cut out first."""
    start, length = start.flatten().unsqueeze(-1), length.flatten().unsqueeze(-1)
    steps = (torch.arange(size, dtype=torch.float64, device=start.device) + 0.5) / size
    inside = (steps * length).clamp(min=0.5).minimum(length - 0.5)
    return (2 * (start + inside) / size - 1).float()


def _mixed(x: Tensor) -> Tensor:
    """The output function of splitmix64 (Steele, Lea, Flood 2014) on int64, whose arithmetic wraps around."""
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """A right shift that fills with zeros."""
    return (x >> by) & ((1 << (64 - by)) - 1)
