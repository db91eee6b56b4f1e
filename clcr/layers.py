"""Layers that train one seed or many in one program.

A module is *folded* when every parameter carries a leading seed axis: ``fold`` makes one of several modules that differ
in their values alone. The layers here, like all code of this package, count axes from the end, so that the axes are
(seed, level, modality, batch, token, width) with the seed or without it, and no seed can reach another.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

M = TypeVar("M", bound=nn.Module)

CHUNK = 1 << 17  # random numbers a stream draws at once: one launch a seed then serves many steps


KINDS = ("uniform", "normal")
EPOCH = 0x9E3779B97F4A7C15  # odd: the seeds of a stream's epochs are distinct


class Draws:
    """The random numbers of a training: one stream a seed, in which each seed finds what it would find alone.

    ``seeds``: one number, or a sequence of them for a folded module; only then results have a leading seed axis.
    """

    def __init__(self, seeds: int | Sequence[int], device: torch.device | str = "cpu") -> None:
        self.lead = () if isinstance(seeds, int) else (len(seeds),)
        self._seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
        self._streams = {kind: [torch.Generator(device) for _ in self._seeds] for kind in KINDS}
        self._banks: dict[str, Tensor] = {}
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Start the streams of an epoch, wherever the last one ended: its last batch may differ in size by seed."""
        for place, kind in enumerate(KINDS):
            for seed, stream in zip(self._seeds, self._streams[kind], strict=True):
                stream.manual_seed((seed + len(KINDS) * epoch * EPOCH + place) % 2**63)
            self._banks[kind] = torch.empty(len(self._seeds), 0, device=self._streams[kind][0].device)

    def part(self, seeds: slice) -> Draws:
        """The streams of some of the seeds, from where they stand."""
        some = copy.copy(self)
        some._seeds = self._seeds[seeds]
        some.lead = (len(some._seeds),)
        some._streams = {kind: [stream.clone_state() for stream in self._streams[kind][seeds]] for kind in KINDS}
        some._banks = {kind: bank[seeds] for kind, bank in self._banks.items()}
        return some

    def uniform(self, *shape: int) -> Tensor:
        """(*shape) in [0, 1) for each seed."""
        return self._take("uniform", shape)

    def normal(self, *shape: int) -> Tensor:
        """(*shape) of the standard normal distribution for each seed."""
        return self._take("normal", shape)

    def _take(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        size, bank = math.prod(shape), self._banks[kind]
        if size > bank.shape[1]:
            bank = torch.empty(len(bank), max(CHUNK, size), device=bank.device)
            for row, stream in zip(bank, self._streams[kind], strict=True):
                row.uniform_(generator=stream) if kind == "uniform" else row.normal_(generator=stream)
        self._banks[kind] = bank[:, size:]
        return bank[:, :size].reshape(*self.lead, *shape)


_current: list[Draws] = []


@contextmanager
def drawing(draws: Draws) -> Iterator[None]:
    """Dropout inside draws from ``draws``; outside of any such context it draws from torch's global generator."""
    _current.append(draws)
    try:
        yield
    finally:
        _current.pop()


def kept(x: Tensor, shape: Sequence[int], p: float) -> Tensor:
    """A dropout mask of ``shape`` (seed axis included) in the type of ``x``: 0 with probability p, else 1 / (1 - p)."""
    with torch.no_grad():
        draws = _current[-1] if _current else None
        lead = len(draws.lead) if draws else 0
        drawn = draws.uniform(*shape[lead:]) if draws else torch.rand(tuple(shape), device=x.device)
        return (drawn >= p).to(x.dtype).mul_(1 / (1 - p))


class Dropout(nn.Dropout):
    """Dropout with a stream of its own for each seed. ``nn.Dropout`` in all else."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape; a folded input has the seeds first."""
        return input * kept(input, input.shape, self.p) if self.training and self.p > 0 else input


class Linear(nn.Linear):
    """``nn.Linear``; folded, a weight (S, out, in) and input (S, ..., in)."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if self.weight.dim() == 2:
            return super().forward(input)
        flat, weight = input.flatten(1, -2), self.weight.mT
        if self.out_features == 1:  # a product with one column is computed in another order for one seed than for more
            products = (flat * self.weight).sum(-1, keepdim=True)
            return (products if self.bias is None else products + self.bias.unsqueeze(1)).view(*input.shape[:-1], 1)
        out = flat @ weight if self.bias is None else torch.baddbmm(self.bias.unsqueeze(1), flat, weight)
        return out.view(*input.shape[:-1], -1)


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over the last axis; folded, a weight (S, d) and input (S, ..., d)."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., d) to the same."""
        if self.weight.dim() == 1:
            return super().forward(input)
        normal = functional.layer_norm(input, self.normalized_shape, eps=self.eps)
        shape = (len(self.weight), *(1,) * (input.dim() - 2), -1)
        return (normal * self.weight.view(shape)).add_(self.bias.view(shape))


def fold(modules: Sequence[M]) -> M:
    """One module with the values of all, stacked along a leading seed axis; what is not in their state stays single.

    Raises:
        ValueError: modules whose state differs in more than its values.
    """
    states = [module.state_dict() for module in modules]
    if any(s.keys() != states[0].keys() or any(s[n].shape != v.shape for n, v in states[0].items()) for s in states):
        raise ValueError("fold: the modules differ in more than the values of their parameters")
    folded = copy.deepcopy(modules[0])
    for prefix, module in folded.named_modules():
        path = f"{prefix}." if prefix else ""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                stacked = torch.stack([state[path + name] for state in states])
                module._parameters[name] = nn.Parameter(stacked, parameter.requires_grad)
        for name in module._buffers:
            if path + name in states[0]:
                module._buffers[name] = torch.stack([state[path + name] for state in states])
    return folded


def part(folded: M, seeds: slice) -> M:
    """Some of the seeds of a folded module: its parameters and buffers are views of the whole's."""
    stacked = folded.state_dict().keys()
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach()[seeds], parameter.requires_grad)
        for parameter in folded.parameters()
    }
    memo |= {id(buffer): buffer[seeds] if name in stacked else buffer for name, buffer in folded.named_buffers()}
    return copy.deepcopy(folded, memo)


def collect_gradients(folded: nn.Module, some: nn.Module, seeds: slice) -> None:
    """Put the gradients of a part in their place among the whole's; those of the other seeds stay, zero at first."""
    for whole, own in zip(folded.parameters(), some.parameters(), strict=True):
        if own.grad is not None:
            if whole.grad is None:
                whole.grad = torch.zeros_like(whole)
            whole.grad[seeds] = own.grad
