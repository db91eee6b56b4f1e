"""Backbones, the same for every method: from what a modality stores to tokens, (input, mask) to (tokens, mask).

Padding cannot reach a real token: padded input is zeroed before every layer that mixes neighbours, and normalisation is
per token. Only ResNet-18 normalises over the batch, as the published protocols do.

Folded (``clcr.layers.fold``), all that is said to be (B, ...) has the seeds in front, (S, B, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import repeat
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.checkpoint import read_checkpoint
from benchmarks.errors import InputError
from benchmarks.spec import ModalitySpec
from clcr.api import Modality, Passthrough
from clcr.config import EncoderConfig
from clcr.layers import LayerNorm, Linear

GRID = 2  # frames_conv gives GRID x GRID tokens a frame
PATCH = 8  # pixels
RESNET_STAGES = (64, 128, 256, 512)
REDUCTION = 32  # of ResNet-18, per axis
SEED_BY_SEED = ("cpu",)  # devices on which a folded convolution is faster as its parts


def build_backbone(spec: ModalitySpec, encoder: EncoderConfig) -> tuple[nn.Module, Modality]:
    """The backbone of a modality and the tokens that come out of it, of width ``encoder.width`` unless passed through.

    ResNet-18 starts from ``encoder.checkpoint`` where there is one, all but its projection. InputError where backbone
    and layout, or network and weights, do not fit. A fine-tuned language model is built by ``FoldData.backbones``,
    which knows its name.
    """
    if spec.backbone == "none":
        return Passthrough(), _passed(spec)
    builders = _BUILDERS.get(spec.backbone, {})
    if spec.layout not in builders:
        fits = ", ".join(builders) or "none of the layouts here"
        raise InputError(
            f"modality {spec.name}: backbone {spec.backbone!r} does not read layout {spec.layout!r}; it reads {fits}"
        )
    module, tokens = builders[spec.layout](spec.shape, encoder.width)
    if encoder.checkpoint and isinstance(module, ResNet18):
        start_from(module, read_checkpoint(encoder.checkpoint), f"encoder.checkpoint={encoder.checkpoint}")
    return module, Modality(spec.name, encoder.width, tokens)


def smallest(backbone: str) -> int:
    """Pixels that a picture needs in height and width for this backbone."""
    return PATCH if backbone == "frames_conv" else 1


def _passed(spec: ModalitySpec) -> Modality:
    if spec.layout == "vector":
        return Modality(spec.name, spec.shape[0], 1)
    if spec.layout == "tokens":
        return Modality(spec.name, spec.shape[1], spec.shape[0])
    if spec.layout == "levels":
        return Modality(spec.name, spec.shape[2], spec.shape[1], levelled=True)
    raise InputError(f"modality {spec.name}: layout {spec.layout!r} needs a backbone; 'none' passes vectors and tokens")


def _halves(size: int, times: int) -> int:
    """Size after ``times`` strided layers, each rounding up."""
    for _ in range(times):
        size = (size + 1) // 2
    return size


def over_seeds(function: Callable[..., Tensor], x: Tensor, *tensors: Tensor | None) -> Tensor:
    """``function(x, seeds, *tensors)`` for x (S, N, C, ...) and tensors (S, ...): (S, N, C', ...).

    On a GPU one call serves all seeds: they lie beside the channels, (N, S * C, ...), and a layer of ``seeds`` groups
    keeps them apart; between such layers the change of layout is a view. On a CPU, where a grouped convolution takes
    twice the time of its parts, the function is called seed by seed, with ``seeds`` = 1.
    """
    if x.device.type in SEED_BY_SEED:
        columns = [repeat(None, len(x)) if tensor is None else tensor for tensor in tensors]
        own = zip(*columns, strict=True) if columns else repeat((), len(x))
        return torch.stack([function(one, 1, *state) for one, state in zip(x, own, strict=True)])
    flat = (None if tensor is None else tensor.flatten(0, 1) for tensor in tensors)
    out = function(x.transpose(0, 1).flatten(1, 2), len(x), *flat)
    return out.reshape(len(out), len(x), -1, *out.shape[2:]).transpose(0, 1)


class Conv1d(nn.Conv1d):
    """``nn.Conv1d``; folded, a weight (S, out, in, k) and input (S, N, in, T)."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., N, in, T) to (..., N, out, T')."""
        if self.weight.dim() == 3:
            return super().forward(input)
        return over_seeds(self._convolve, input, self.weight, self.bias)

    def _convolve(self, x: Tensor, seeds: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv1d(x, weight, bias, self.stride, cast("tuple[int]", self.padding), 1, seeds)


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``; folded, a weight (S, out, in, k, k) and input (S, N, in, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., N, in, H, W) to (..., N, out, H', W')."""
        if self.weight.dim() == 4:
            return super().forward(input)
        return over_seeds(self._convolve, input, self.weight, self.bias)

    def _convolve(self, x: Tensor, seeds: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(x, weight, bias, self.stride, cast("tuple[int, int]", self.padding), 1, seeds)


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm``; folded, a weight (S, C) and input (S, N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., N, C, ...) to the same."""
        if self.weight.dim() == 1:
            return super().forward(input)
        return over_seeds(self._normalise, input, self.weight, self.bias)

    def _normalise(self, x: Tensor, seeds: int, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.group_norm(x, self.num_groups * seeds, weight, bias, self.eps)


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d``; folded, weights and running statistics (S, C), which training updates in place, and input
    (S, N, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., N, C, H, W) to the same."""
        if self.weight.dim() == 1:
            return super().forward(input)
        if self.training:
            cast(Tensor, self.num_batches_tracked).add_(1)
        return over_seeds(self._normalise, input, self.running_mean, self.running_var, self.weight, self.bias)

    def _normalise(self, x: Tensor, _seeds: int, mean: Tensor, variance: Tensor, *affine: Tensor) -> Tensor:
        weight, bias = affine
        momentum = cast(float, self.momentum)
        return functional.batch_norm(x, mean, variance, weight, bias, self.training, momentum, self.eps)


def _pooled(x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """A pooling of pictures (N, C, H, W), or folded (S, N, C, H, W)."""
    return pool(x) if x.dim() == 4 else over_seeds(lambda flat, _seeds: pool(flat), x)


class SequenceConv(nn.Module):
    """Spectrogram (B, T, F) to tokens (B, ceil(T/4), width): two strided convolutions over time, a norm per token."""

    def __init__(self, bins: int, width: int) -> None:
        super().__init__()
        sizes = [(bins, width), (width, width)]
        self.convolutions = nn.ModuleList(Conv1d(a, b, kernel_size=5, stride=2, padding=2) for a, b in sizes)
        self.norms = nn.ModuleList(LayerNorm(width) for _ in sizes)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """A token is real where the frame under its centre is."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(functional.gelu(convolution((x * mask.unsqueeze(-1)).mT)).mT)
            mask = mask[..., ::2]
        return x, mask


class ImageConv(nn.Module):
    """Image (B, C, H, W) to the cells of its map, (B, ceil(H/8) * ceil(W/8), width): 28 x 28 gives 16 tokens."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        half = max(width // 2, 1)
        self.network = nn.Sequential(
            Conv2d(channels, half, kernel_size=3, stride=2, padding=1),
            nn.GELU(),
            Conv2d(half, width, kernel_size=3, stride=2, padding=1),
            GroupNorm(1, width),
            nn.GELU(),
            Conv2d(width, width, kernel_size=3, stride=2, padding=1),
            GroupNorm(1, width),
        )

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``mask`` (B, 1) says whether there is an image; so do all its tokens."""
        tokens = self.network(x).flatten(-2).mT
        return tokens, mask[..., :1].expand(*mask.shape[:-1], tokens.shape[-2])


class FramesConv(nn.Module):
    """Frames (B, N, C, H, W) to (B, N * 4, width): each frame alone, in patches of 8 x 8 (a quarter of the time of
    overlapping convolutions on a CPU), then one strided convolution, pooled to a grid of 2 x 2 tokens."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            Conv2d(channels, width, kernel_size=PATCH, stride=PATCH),
            GroupNorm(1, width),
            nn.GELU(),
            Conv2d(width, width, kernel_size=3, stride=2, padding=1),
            GroupNorm(1, width),
        )

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """A token is real where its frame is."""
        cells = _pooled(self.network(x.flatten(-5, -4)), lambda y: functional.adaptive_avg_pool2d(y, GRID))
        tokens = cells.flatten(-2).mT
        return tokens.reshape(*x.shape[:-4], -1, tokens.shape[-1]), mask.repeat_interleave(GRID * GRID, dim=-1)


class ResidualBlock(nn.Module):
    """The basic block of ResNet-18 (He et al. 2016): two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.first_norm = BatchNorm2d(outside)
        self.second = Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.second_norm = BatchNorm2d(outside)
        same = stride == 1 and inside == outside
        projection = nn.Sequential(Conv2d(inside, outside, 1, stride, bias=False), BatchNorm2d(outside))
        self.shortcut = nn.Identity() if same else projection

    def forward(self, x: Tensor) -> Tensor:
        """(..., N, C, H, W) to (..., N, C', H / stride, W / stride)."""
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18, from scratch, with tokens from its map. ``over``: "image", "frames" or "spectrogram".

    Image (B, C, H, W): a token per cell of the map. Frames (B, N, C, H, W): a token per frame. Spectrogram (B, T, F):
    read as one channel; frequency is averaged, a token per 32 frames of time. The 512 features are projected to
    ``width``. Padded frames are read as zeros and enter the batch statistics; the published protocols pad nothing.
    """

    def __init__(self, channels: int, width: int, over: str) -> None:
        super().__init__()
        self.over = over
        self.stem = Conv2d(channels, RESNET_STAGES[0], 7, 2, 3, bias=False)
        self.stem_norm = BatchNorm2d(RESNET_STAGES[0])
        self.stages = nn.ModuleList(
            nn.Sequential(ResidualBlock(inside, outside, stride), ResidualBlock(outside, outside, 1))
            for inside, outside, stride in zip((64, 64, 128, 256), RESNET_STAGES, (1, 2, 2, 2), strict=True)
        )
        self.projection = Linear(RESNET_STAGES[-1], width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to their maps (N, 512, ceil(H / 32), ceil(W / 32)); folded, (S, N, C, H, W) likewise."""
        x = functional.relu(self.stem_norm(self.stem(x)))
        x = _pooled(x, lambda y: functional.max_pool2d(y, 3, 2, 1))
        for stage in self.stages:
            x = stage(x)
        return x

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T', width) and their mask; padded frames are read as zeros."""
        if self.over == "spectrogram":
            grid = self.features((x * mask.unsqueeze(-1)).mT.unsqueeze(-3))
            return self.projection(grid.mean(-2).mT), mask[..., ::REDUCTION]
        if self.over == "frames":
            grid = self.features((x * mask[..., None, None, None]).flatten(-5, -4))
            return self.projection(grid.mean((-2, -1)).reshape(*mask.shape, -1)), mask
        tokens = self.features(x).flatten(-2).mT
        return self.projection(tokens), mask[..., :1].expand(*mask.shape[:-1], tokens.shape[-2])


def _published(name: str) -> str:
    """The name that torchvision's ResNet-18 has for a tensor of ours."""
    parts = name.split(".")
    if parts[0] != "stages":
        return name.replace("stem_norm", "bn1").replace("stem", "conv1")
    inner = {"first": "conv1", "first_norm": "bn1", "second": "conv2", "second_norm": "bn2", "shortcut": "downsample"}
    return ".".join((f"layer{int(parts[1]) + 1}", parts[2], inner[parts[3]], *parts[4:]))


@torch.no_grad()
def start_from(network: ResNet18, weights: Mapping[str, Tensor], where: str) -> None:
    """Give a ResNet-18 the ``weights`` of torchvision's, whose classifier ``fc`` is left out; the projection stays.

    A first convolution of C channels other than three gets the mean over the three, times 3 / C: on channels that are
    all equal it answers as the original does to a grey picture, so that activations keep their size. Files from before
    batch statistics were counted lack that count, which nothing reads. InputError where a tensor is missing, unknown,
    of another shape or not finite.
    """
    ours = {_published(n): tensor for n, tensor in network.state_dict().items() if not n.startswith("projection.")}
    counts = {name for name in ours if name.endswith("num_batches_tracked")}
    given = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    missing, unknown = sorted(ours.keys() - given.keys() - counts), sorted(given.keys() - ours.keys())
    if missing or unknown:
        told = f"lacks {missing[0]!r}" if missing else f"holds {unknown[0]!r}"
        raise InputError(f"{where}: {told}, so it is no ResNet-18; give one with torchvision's names")
    for name, target in ours.items():
        if name in given:
            source = given[name].to(target.dtype)
            if name == "conv1.weight" and source.dim() == 4 and source.shape[1] == 3 != target.shape[1]:
                source = source.mean(1, keepdim=True).mul(3 / target.shape[1]).expand(-1, target.shape[1], -1, -1)
            if source.shape != target.shape or not bool(torch.isfinite(source).all()):
                told = f"{name!r} is {tuple(given[name].shape)}, expected {tuple(target.shape)} and finite numbers"
                raise InputError(f"{where}: {told}; give ImageNet weights of ResNet-18 in torchvision's layout")
            target.copy_(source)


Builder = Callable[[tuple[int, ...], int], tuple[nn.Module, int]]

_BUILDERS: dict[str, dict[str, Builder]] = {
    "sequence_conv": {"spectrogram": lambda s, width: (SequenceConv(s[1], width), _halves(s[0], 2))},
    "image_conv": {"image": lambda s, width: (ImageConv(s[2], width), _halves(s[0], 3) * _halves(s[1], 3))},
    "frames_conv": {"frames": lambda s, width: (FramesConv(s[3], width), s[0] * GRID * GRID)},
    "resnet18": {
        "image": lambda s, width: (ResNet18(s[2], width, "image"), _halves(s[0], 5) * _halves(s[1], 5)),
        "frames": lambda s, width: (ResNet18(s[3], width, "frames"), s[0]),
        "spectrogram": lambda s, width: (ResNet18(1, width, "spectrogram"), _halves(s[0], 5)),
    },
}
