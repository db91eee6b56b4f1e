"""One training step of a group: forward, losses, backward, the method's own hook, clipping, the optimiser.

On a GPU a small step is bound by its launches. With CLCR_CUDA_GRAPHS=1 what lies between a batch and its gradients is
recorded once as a CUDA graph and replayed for every batch of the same shape, with the same kernels and numbers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.augment import augmentation
from benchmarks.runner.group import Group, Share
from clcr.api import Batch, Method, Output, Step
from clcr.layers import Draws, collect_gradients, drawing

GRAPHS = "CLCR_CUDA_GRAPHS"
WARM_UP = 3  # steps without a graph: libraries allocate and choose at their first calls

Shape = tuple[tuple[torch.Size, torch.dtype], ...]
Losses = dict[str, Tensor]
Learned = tuple[Output, Losses]
Recorder = Callable[[Callable[[], Learned]], tuple[Callable[[], None], Learned]]


@dataclass(frozen=True)
class Randomness:
    """Where training stands, with the stream of noise; the streams of dropout and of what pictures go through."""

    step: Step
    draws: Draws
    augment: str = "none"
    augment_seeds: tuple[int, ...] = ()

    def part(self, seeds: slice) -> Randomness:
        """Those of some seeds."""
        step = Step(self.step.epoch, self.step.epochs, self.step.noise.part(seeds))
        return Randomness(step, self.draws.part(seeds), self.augment, self.augment_seeds[seeds])

    def pictures(self, folded: bool) -> Mapping[str, Any]:
        """What a training batch of this epoch is asked for besides its samples."""
        if self.augment == "none":
            return {}
        seeds = self.augment_seeds if folded else self.augment_seeds[0]
        return {"augment": augmentation(self.augment, seeds, self.step.epoch)}


class Steps:
    """Takes training steps with a group and its optimiser. ``limit``: of the gradient's norm, for each seed; 0 is none.

    ``record``: makes a replayable program of a function; by default a CUDA graph where the environment asks for it.
    """

    def __init__(
        self,
        group: Group,
        optimizer: torch.optim.Optimizer,
        limit: float = 0.0,
        bf16: bool = False,
        record: Recorder | None = None,
    ) -> None:
        self._group, self._optimizer, self._limit, self._bf16 = group, optimizer, limit, bf16
        record = record or (cuda_graph if graphs_wanted(group.device) else None)
        self._replayed = Replayed(record) if record else None

    def __call__(self, shares: Sequence[Share], random: Randomness) -> list[tuple[Share, Losses]]:
        """One step; the losses of each share, one a seed, and their sum under "total"."""
        self._optimizer.zero_grad(set_to_none=True)
        losses = [(share, self._learn(share, random)) for share in shares]
        if self._limit:
            clip_gradients(self._group, self._limit)
        self._optimizer.step()
        return losses

    def _learn(self, share: Share, random: Randomness) -> Losses:
        """Gradients of some seeds, in their place among those of the group."""
        group = self._group
        share.method.zero_grad(set_to_none=True)
        whole = group.whole(share)
        random = random if whole else random.part(share.seeds)
        batch = group.read(share, **random.pictures(group.folded))
        if self._replayed and whole:
            output, losses = self._replayed(share.method, batch, random.draws, self._bf16)
        else:
            output, losses = differentiate(share.method, batch, random.draws, self._bf16)
        share.method.adjust_gradients(output, batch, random.step)
        if not whole:
            collect_gradients(group.method, share.method, share.seeds)
        return {name: loss.detach() for name, loss in losses.items()}  # a graph that lived on would meet the next one


def differentiate(method: Method, batch: Batch, draws: Draws, bf16: bool) -> Learned:
    """Forward and backward: the output, the losses with their sum, and gradients in the parameters."""
    with torch.autocast(batch.target.device.type, torch.bfloat16, enabled=bf16), drawing(draws):
        output = method(batch)
        losses = {name: loss.float() for name, loss in method.losses(output, batch).items()}
        total = torch.stack(list(losses.values())).sum(0)
    total.sum().backward()  # type: ignore[no-untyped-call]
    return output, {**losses, "total": total}


@torch.no_grad()
def clip_gradients(group: Group, limit: float) -> None:
    """Scale the gradients of each seed so that their norm, over all its parameters, is at most ``limit``."""
    gradients = [group.rows(p.grad) for p in group.method.parameters() if p.grad is not None]
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
    factor = (limit / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *(1,) * (gradient.dim() - 1)))


def graphs_wanted(device: torch.device) -> bool:
    """Whether steps on this device are to be replayed from CUDA graphs."""
    return device.type == "cuda" and os.environ.get(GRAPHS, "0") not in ("", "0")


class Tape(Draws):
    """Random numbers at fixed places: a step that draws from it leaves the list of what it drew, ``wind`` puts the next
    numbers of the streams there, and a program recorded after that reads them, in the order of the list."""

    def __init__(self, draws: Draws) -> None:
        self.lead = draws.lead
        self._draws = draws
        self._slots: list[tuple[str, tuple[int, ...], Tensor]] = []
        self._next: Iterator[tuple[str, tuple[int, ...], Tensor]] | None = None

    def _take(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        if self._next is None:
            self._slots.append((kind, shape, self._draws._take(kind, shape).clone()))
            return self._slots[-1][-1]
        *wanted, slot = next(self._next)
        if wanted != [kind, shape]:
            raise RuntimeError(f"step: {kind} numbers {shape} drawn, {wanted} the time before; unset {GRAPHS}")
        return slot

    def rewind(self) -> None:
        """Hand out the places again, from the first."""
        self._next = iter(self._slots)

    def wind(self) -> None:
        """Put the next numbers of the streams in place."""
        for kind, shape, slot in self._slots:
            slot.copy_(self._draws._take(kind, shape))
        self.rewind()


class Replayed:
    """``differentiate`` as a recorded program, for batches of the shape that comes first as often as it takes.

    The first steps run as they are, the last of them with a tape. Then one is recorded, with the batch, the random
    numbers and the gradients at fixed places. From there on batches of its shape are copied in and the program is
    replayed; others go on as they are.
    """

    def __init__(self, record: Recorder) -> None:
        self._record = record
        self._seen: Counter[Shape] = Counter()
        self._tape: Tape | None = None
        self._program: _Program | None = None

    def __call__(self, method: Method, batch: Batch, draws: Draws, bf16: bool) -> Learned:
        """As ``differentiate``."""
        shape = _shape(batch)
        if self._program is not None:
            known = shape == self._program.shape
            return self._program(batch) if known else differentiate(method, batch, draws, bf16)
        self._seen[shape] += 1
        if self._seen[shape] < WARM_UP:
            return differentiate(method, batch, draws, bf16)
        if self._seen[shape] == WARM_UP:
            self._tape = Tape(draws)
            return differentiate(method, batch, self._tape, bf16)
        assert self._tape is not None
        self._program = _Program(self._record, method, batch, self._tape, bf16)
        return self._program(batch)


class _Program:
    """A recorded ``differentiate`` with what it reads and writes."""

    def __init__(self, record: Recorder, method: Method, batch: Batch, tape: Tape, bf16: bool) -> None:
        inputs, masks = (tuple(x.clone() for x in tensors) for tensors in (batch.inputs, batch.masks))
        self._batch, self._tape = Batch(inputs, masks, batch.target.clone()), tape
        self.shape = _shape(batch)
        tape.rewind()
        self._replay, self._learned = record(lambda: differentiate(method, self._batch, tape, bf16))
        self._gradients = [(p, p.grad) for p in method.parameters() if p.grad is not None]

    def __call__(self, batch: Batch) -> Learned:
        for own, new in zip(_tensors(self._batch), _tensors(batch), strict=True):
            own.copy_(new)
        self._tape.wind()
        self._replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._learned


def cuda_graph(function: Callable[[], Learned]) -> tuple[Callable[[], None], Learned]:
    """Record a function on the current GPU, without running it: what replays it, and the results that this fills."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    try:
        with torch.cuda.graph(graph):
            learned = function()
    except RuntimeError as error:
        raise RuntimeError(f"this step cannot be recorded as a CUDA graph; unset {GRAPHS}: {error}") from error
    return graph.replay, learned


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    return (*batch.inputs, *batch.masks, batch.target)


def _shape(batch: Batch) -> Shape:
    return tuple((x.shape, x.dtype) for x in _tensors(batch))
