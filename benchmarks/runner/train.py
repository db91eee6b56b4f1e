"""The trainer: one, for every method, for one seed or a group of them.

Each epoch passes over all training samples (the last, smaller batch included), then scores the selection split; the
weights of the best epoch (the earliest of equals) are kept in memory and loaded at the end. The test set is not
touched here. Nothing inside an epoch waits for the device. The seeds of a group do not know of each other: one that
fails, or has lost its patience, stops mattering to its own outcome only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.metrics import better, compute
from benchmarks.runner.config import Training
from benchmarks.runner.group import Evaluation, Group, Samples, TrainingError
from benchmarks.runner.seeds import Streams
from benchmarks.runner.step import Randomness, Steps
from clcr.api import Step

# Part of every run's digest: raise it with any change here that changes numbers.
TRAINER = 2
VECTOR = 16  # numbers that a processor handles at once, at most


@dataclass(frozen=True)
class Goal:
    """What is measured and what selects the epoch: metric ``main`` on ``split`` ("valid"; "test" is the literature's
    habit, under protocols that say so)."""

    metrics: tuple[str, ...]
    main: str
    split: str = "valid"


@dataclass(frozen=True)
class Outcome:
    """How training went. epoch: the selected one, from 1. value: its main metric. curves: one entry an epoch."""

    epoch: int
    value: float
    diagnostics: Mapping[str, float]
    curves: tuple[Mapping[str, Any], ...]


def train(
    group: Group,
    config: Training,
    goal: Goal,
    streams: Sequence[Streams],
    report: Callable[[int], None],
    augment: str = "none",
) -> list[Outcome | TrainingError]:
    """Train a group in place and leave it with the weights of each seed's selected epoch.

    ``report`` is called with each finished epoch. ``augment``: what training pictures go through, as
    ``EncoderConfig.augment``. A seed whose loss or prediction is not finite gives a TrainingError in the place of its
    outcome.
    """
    torch.manual_seed(streams[0].dropout)  # for methods that draw from torch's own generator; they train alone
    orders = [torch.Generator().manual_seed(each.order) for each in streams]
    draws, noise = (group.draws([getattr(each, name) for each in streams]) for name in ("dropout", "noise"))
    optimizer = make_optimizer(group.method, config, len(group))
    steps = Steps(group, optimizer, config.clip_norm, config.bf16)
    courses = [_Course(config, goal, data) for data in group.folds]
    best = {name: value.detach().clone() for name, value in group.state().items()}
    for epoch in range(config.epochs):
        for parameters in optimizer.param_groups:
            parameters["lr"] = config.lr * schedule(config, epoch)
        draws.begin(epoch)
        noise.begin(epoch)
        random = Randomness(Step(epoch, config.epochs, noise), draws, augment, tuple(each.augment for each in streams))
        losses = _pass(group, orders, steps, config.batch_size, random)
        evaluations = group.evaluate(goal.split)
        for seed, course in enumerate(courses):
            if course.goes_on and course.improves(losses[seed], evaluations[seed]):
                _keep(best, group.state(), seed)
        report(epoch + 1)
        if not any(course.goes_on for course in courses):
            break
    for name, value in group.state().items():
        value.copy_(best[name])
    return [course.outcome() for course in courses]


class _Course:
    """The course of one seed's training: its curves, its best epoch, whether it still matters."""

    def __init__(self, config: Training, goal: Goal, data: Samples) -> None:
        self._patience, self._goal, self._data = config.patience, goal, data
        self._curves: list[dict[str, Any]] = []
        self._best: Outcome | None = None
        self._error: TrainingError | None = None

    @property
    def goes_on(self) -> bool:
        """False once it has failed or lost its patience."""
        waited = len(self._curves) - self._best.epoch if self._best else 0
        return self._error is None and not 0 < self._patience <= waited

    def improves(self, losses: Mapping[str, float], found: Evaluation | TrainingError) -> bool:
        """Take in an epoch; whether it is the best so far."""
        self._error = _fault(len(self._curves) + 1, losses) or (found if isinstance(found, TrainingError) else None)
        if isinstance(found, TrainingError) or self._error is not None:
            return False
        scores = compute(self._goal.metrics, found.prediction, self._data.targets(self._goal.split))
        epoch, value = len(self._curves) + 1, scores[self._goal.main]
        row = {"epoch": epoch, "loss": dict(losses), self._goal.split: scores, "diagnostics": found.diagnostics}
        self._curves.append(row)
        if self._best is not None and not better(self._goal.main, value, self._best.value):
            return False
        self._best = Outcome(epoch, value, found.diagnostics, ())
        return True

    def outcome(self) -> Outcome | TrainingError:
        """What has come of it."""
        if self._error is not None:
            return self._error
        assert self._best is not None  # epochs >= 1
        return Outcome(self._best.epoch, self._best.value, self._best.diagnostics, tuple(self._curves))


def _fault(epoch: int, losses: Mapping[str, float]) -> TrainingError | None:
    wrong = [name for name, value in losses.items() if not math.isfinite(value)]
    if not wrong:
        return None
    told = f"epoch {epoch}: loss {', '.join(wrong)} not finite"
    return TrainingError(f"{told}; lower training.lr or set training.clip_norm")


@torch.no_grad()
def _keep(best: Mapping[str, Tensor], now: Mapping[str, Tensor], seed: int) -> None:
    """Copy the state of one seed."""
    for name, value in best.items():
        value[seed].copy_(now[name][seed])


def make_optimizer(method: nn.Module, config: Training, seeds: int = 1) -> torch.optim.Optimizer:
    """The optimiser of all trainable parameters, folded from ``seeds`` or not; weight decay is the coupled one for SGD
    and Adam.

    A fused step rounds the last elements of a tensor otherwise than those before them. Tensors whose seeds do not fill
    whole vectors of the processor take the other implementation, so that a seed's bits do not depend on its company.
    """
    parameters = [p for p in method.parameters() if p.requires_grad]
    odd = [p for p in parameters if p.numel() // seeds % VECTOR and not p.is_cuda]
    even = [p for p in parameters if not any(p is other for other in odd)]
    groups: list[dict[str, Any]] = [{"params": even}, {"params": odd, "fused": False, "foreach": True}]
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    chosen = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(chosen, momentum=config.momentum, **common)
    return (torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam)(chosen, **common)


def schedule(config: Training, epoch: int) -> float:
    """Factor on the learning rate in an epoch, counted from 0."""
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    return config.step_factor ** (epoch // config.step_epochs) if config.schedule == "step" else 1.0


def _pass(
    group: Group, orders: Sequence[torch.Generator], steps: Steps, batch_size: int, random: Randomness
) -> list[dict[str, float]]:
    """One epoch of training; returns for each seed the mean of each named loss, and of their sum, over samples."""
    group.method.train()
    sums: dict[str, Tensor] = {}
    counts = torch.zeros(len(group), dtype=torch.float64)
    for shares in group.epoch(orders, batch_size):
        for share, losses in steps(shares, random):
            size = share.samples.shape[-1]
            counts[share.seeds] += size
            for name, loss in losses.items():
                total = sums.setdefault(name, torch.zeros(len(group), device=group.device))
                total[share.seeds] += loss * size
    means = (torch.stack(list(sums.values())).double().cpu() / counts).T.tolist()
    return [dict(zip(sums, row, strict=True)) for row in means]
