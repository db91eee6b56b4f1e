"""The semantic-hierarchy encoder ``H[l][m] = LN(Z[l][m] W[l][m] + P[l][m])``, shared by all methods [N].

Levels and modalities are tensor axes: all temporal convolutions of a stage run as one grouped convolution, whatever
the number of modalities. Parameters put the modality axis first, so that a method can treat modalities unequally.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from clcr.api import LEVELS, Modality
from clcr.config import EncoderConfig
from clcr.layers import LayerNorm, Linear, kept

POSITION_SCALE = 0.02


def uniform(*shape: int, fan_in: int) -> Tensor:
    """Initial weights of variance 1 / fan_in, drawn from the global generator."""
    bound = math.sqrt(3 / fan_in)
    return torch.empty(shape).uniform_(-bound, bound)


def lengthen(x: Tensor, longest: int, axis: int) -> Tensor:
    """``x`` padded with zeros (False) at the end of ``axis`` (negative) up to ``longest`` entries."""
    missing = longest - x.shape[axis]
    return functional.pad(x, (0, 0) * (-axis - 1) + (0, missing)) if missing else x


class TemporalStage(nn.Module):
    """One residual block of two dilated convolutions, separate for each of ``groups`` modalities [C].

    Tokens come last: the layout in which one grouped convolution serves all modalities.
    """

    def __init__(self, groups: int, config: EncoderConfig, dilation: int) -> None:
        super().__init__()
        shape = (groups, config.width, config.width, config.kernel)
        fan_in = config.width * config.kernel
        self.dilation = dilation
        self.dropout = config.dropout
        self.first = nn.Parameter(uniform(*shape, fan_in=fan_in))
        self.second = nn.Parameter(uniform(*shape, fan_in=fan_in))
        self.first_bias = nn.Parameter(torch.zeros(shape[:2]))
        self.second_bias = nn.Parameter(torch.zeros(shape[:2]))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, groups, d, T) to the same; mask (B, groups, 1, T), True where a token is real. Drops whole channels.

        Folded: (B, S, groups, d, T), the batch still first, as a convolution wants it.
        """
        hidden = functional.relu(self._convolve(x * mask, self.first, self.first_bias))
        if self.training and self.dropout:
            shape = (*x.shape[1:-3], x.shape[0], *x.shape[-3:-1], 1)
            hidden = hidden * kept(hidden, shape, self.dropout).movedim(-4, 0)
        return self._convolve(hidden * mask, self.second, self.second_bias).add_(x)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        reach = self.dilation * (weight.shape[-1] // 2)
        kernels, groups = weight.flatten(0, -3), weight.shape[:-3].numel()
        out = functional.conv1d(x.flatten(1, -2), kernels, bias.flatten(), 1, reach, self.dilation, groups)
        return out.view(x.shape)


class TemporalHierarchy(nn.Module):
    """The three-stage temporal convolution network: Z[l] is the output of stage l, dilation 2^(l-1) [N, C]."""

    def __init__(self, modalities: Sequence[Modality], config: EncoderConfig, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.width = config.width
        # Everything is drawn for all levels, then cut: the shared part does not depend on the levels in use.
        self.inputs = nn.ModuleList(Linear(modality.width, config.width) for modality in modalities)
        stages = [TemporalStage(len(modalities), config, 2**stage) for stage in range(LEVELS)]
        self.stages = nn.ModuleList(stages[: max(levels)])
        weight = uniform(len(modalities), LEVELS, config.width, config.width, fan_in=config.width)
        self.weight = nn.Parameter(weight[:, [level - 1 for level in levels]].clone())

    def forward(self, tokens: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Tokens (B, T_m, D_m) of each modality and their mask (M, B, T) to Z W: (L, M, B, T, d)."""
        longest = mask.shape[-1]
        projected = [lengthen(layer(x), longest, axis=-2) for layer, x in zip(self.inputs, tokens, strict=True)]
        x = torch.stack([tokens.mT.movedim(-3, 0) for tokens in projected], dim=-3)
        real = mask.movedim(-2, 0).unsqueeze(-2)
        outputs = []
        for stage in self.stages:
            x = stage(x, real)
            outputs.append(x.movedim(0, -3).mT)
        z = torch.stack([outputs[level - 1] for level in self.levels], dim=-5)
        return (z.flatten(-3, -2) @ self.weight.transpose(-3, -4)).view(z.shape)

    def modality_parameters(self) -> Iterator[tuple[nn.Parameter, tuple[int, ...]]]:
        """As ``Method.modality_parameters``, with indices among the modalities of this part."""
        for m, layer in enumerate(self.inputs):
            yield from ((parameter, (m,)) for parameter in layer.parameters())
        everyone = tuple(range(len(self.inputs)))
        yield from ((parameter, everyone) for parameter in self.stages.parameters())
        yield self.weight, everyone


class LevelledProjection(nn.Module):
    """Z W of a modality whose tokens come with a level axis: one linear projection per level."""

    def __init__(self, modality: Modality, config: EncoderConfig, levels: Sequence[int]) -> None:
        super().__init__()
        self.chosen = tuple(level - 1 for level in levels)
        weight = uniform(LEVELS, modality.width, config.width, fan_in=modality.width)
        self.weight = nn.Parameter(weight[list(self.chosen)].clone())

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, 3, T_m, D) and the mask (B, T) of the padded batch to (L, 1, B, T, d)."""
        z = torch.stack([x.select(-3, level) for level in self.chosen], dim=-4)
        projected = (z.flatten(-3, -2) @ self.weight).view(*z.shape[:-1], -1)
        return lengthen(projected, mask.shape[-1], axis=-2).unsqueeze(-4)


class SemanticHierarchy(nn.Module):
    """Tokens of each modality to L levels of one common width [N].

    A modality without levels of its own passes a three-stage temporal convolution network, one with levels a linear
    projection per level. ``levels`` names those wanted (1 shallow to 3 deep); the same seed gives the parameters of
    a level the same initial values whatever other levels are wanted.
    """

    def __init__(
        self, modalities: Sequence[Modality], config: EncoderConfig, levels: Sequence[int] = (1, 2, 3)
    ) -> None:
        super().__init__()
        if not modalities or not levels or not set(levels) <= set(range(1, LEVELS + 1)):
            raise ValueError(f"hierarchy: needs modalities and levels among 1..{LEVELS}, got {tuple(levels)}")
        self.modalities = tuple(modalities)
        self.levelled = tuple(m for m, modality in enumerate(modalities) if modality.levelled)
        self.temporal = tuple(m for m, modality in enumerate(modalities) if not modality.levelled)
        self.projections = nn.ModuleList(LevelledProjection(modalities[m], config, levels) for m in self.levelled)
        flat = [modalities[m] for m in self.temporal]
        self.convolutions = TemporalHierarchy(flat, config, levels) if flat else None
        longest = max(modality.tokens for modality in modalities)
        position = POSITION_SCALE * torch.randn(len(modalities), LEVELS, longest, config.width)
        self.position = nn.Parameter(position[:, [level - 1 for level in levels]].clone())
        self.norm = LayerNorm(config.width)

    def forward(self, tokens: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            tokens: per modality (B, T_m, D_m), or (B, 3, T_m, D_m) where the modality is levelled.
            masks: per modality bool (B, T_m), True where the token is real.

        Returns:
            H (L, M, B, T, d), zero at padding, and its mask (1, M, B, T), T being the longest T_m.

        Raises:
            ValueError: a modality has other axes or more tokens than it declared.
        """
        self._check(tokens)
        longest = max(mask.shape[-1] for mask in masks)
        mask = torch.stack([lengthen(mask, longest, axis=-1) for mask in masks], dim=-3)
        z = self._levels(tokens, mask)
        position = self.position[..., :longest, :].transpose(-3, -4).unsqueeze(-3)
        h: Tensor = self.norm(z + position)
        mask = mask.unsqueeze(-4)
        return h.mul_(mask.unsqueeze(-1)), mask  # nothing else reads ``h``

    def modality_parameters(self) -> Iterator[tuple[nn.Parameter, tuple[int, ...]]]:
        """As ``clcr.api.Method.modality_parameters``; all but the LayerNorm, which modalities and levels share [C]."""
        for m, projection in zip(self.levelled, self.projections, strict=True):
            yield from ((parameter, (m,)) for parameter in projection.parameters())
        if self.convolutions is not None:
            for parameter, indices in self.convolutions.modality_parameters():
                yield parameter, tuple(self.temporal[m] for m in indices)
        everyone = tuple(range(len(self.modalities)))
        yield self.position, everyone

    def _levels(self, tokens: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Z W of all modalities in their order: (L, M, B, T, d)."""
        parts: dict[int, Tensor] = {}
        if self.convolutions is not None:
            own = torch.stack([mask.select(-3, m) for m in self.temporal], dim=-3) if self.levelled else mask
            folded: Tensor = self.convolutions([tokens[m] for m in self.temporal], own)
            if not self.levelled:
                return folded
            parts.update(zip(self.temporal, torch.split(folded, 1, dim=-4), strict=True))
        for m, projection in zip(self.levelled, self.projections, strict=True):
            parts[m] = projection(tokens[m], mask.select(-3, m))
        return torch.cat([parts[m] for m in range(len(self.modalities))], dim=-4)

    def _check(self, tokens: Sequence[Tensor]) -> None:
        for modality, x in zip(self.modalities, tokens, strict=True):
            if x.dim() != self.position.dim() - 1 + modality.levelled or x.shape[-1] != modality.width:
                axes = "(B, 3, T, width)" if modality.levelled else "(B, T, width)"
                raise ValueError(f"{modality.name}: tokens {tuple(x.shape)} are not {axes}, width {modality.width}")
            if x.shape[-2] > self.position.shape[-2]:
                raise ValueError(f"{modality.name}: {x.shape[-2]} tokens, but at most {self.position.shape[-2]} known")


class Pooling(nn.Module):
    """Tokens to one vector: the mean over real tokens [N], or attention with a learned query [C].

    ``leading``: the axes before the batch; each of their entries has a query of its own. ``width``: that of the
    tokens where it is not ``config.width``. Attention starts as the mean: its queries start at zero.
    """

    def __init__(self, config: EncoderConfig, leading: tuple[int, ...], width: int | None = None) -> None:
        super().__init__()
        width = config.width if width is None else width
        self.query = nn.Parameter(torch.zeros(*leading, width)) if config.pooling == "attention" else None

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """(..., B, T, d) and the mask (..., B, T), broadcastable, to (..., B, d); no real token gives zeros."""
        if self.query is None:
            weight = mask.to(h.dtype) / mask.sum(-1, keepdim=True).clamp(min=1)
        else:
            query = self.query[..., None, :, None] / math.sqrt(h.shape[-1])
            logit = (h @ query).squeeze(-1)
            weight = logit.masked_fill(~mask, -1e4).softmax(-1).to(h.dtype) * mask
        return (weight.unsqueeze(-1) * h).sum(-2)  # as a product of matrices its backward takes three times as long
