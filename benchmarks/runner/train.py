"""The trainer: one, for every method.

Each epoch passes over all training samples (the last, smaller batch included), then scores the selection split; the
weights of the best epoch (the earliest of equals) are kept in memory and loaded at the end. The test set is not
touched here: ``evaluate`` reads it once, after training. Nothing inside an epoch waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.metrics import better, compute
from benchmarks.runner.config import Training
from benchmarks.runner.seeds import Streams
from clcr.api import Batch, Method, Step

# Part of every run's digest: raise it with any change here that changes numbers.
TRAINER = 1
EVALUATION_BATCH = 128


class TrainingError(Exception):
    """A training that cannot give a number: a loss or a prediction that is not finite."""


class Samples(Protocol):
    """What the trainer needs of the data (benchmarks.data.FoldData, or anything like it)."""

    @property
    def indices(self) -> Mapping[str, np.ndarray]:
        """Samples of "train", "valid" and "test"."""

    def batch(self, samples: Tensor) -> Batch:
        """The samples of these indices (n,), on the data's device."""

    def targets(self, split: str) -> np.ndarray:
        """Targets of a split, in the order of its indices."""


@dataclass(frozen=True)
class Goal:
    """What is measured and what selects the epoch: metric ``main`` on ``split`` ("valid"; "test" is the literature's
    habit, under protocols that say so)."""

    metrics: tuple[str, ...]
    main: str
    split: str = "valid"


@dataclass(frozen=True)
class Evaluation:
    """Predictions (n, C) or (n,) of a split in the order of its indices, and the means of the method's diagnostics."""

    prediction: np.ndarray
    diagnostics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How training went. epoch: the selected one, from 1. value: its main metric. curves: one entry an epoch."""

    epoch: int
    value: float
    diagnostics: Mapping[str, float]
    curves: tuple[Mapping[str, Any], ...]


def train(
    method: Method,
    data: Samples,
    config: Training,
    goal: Goal,
    streams: Streams,
    report: Callable[[int], None],
) -> Outcome:
    """Train ``method`` in place and leave it with the weights of the selected epoch.

    ``report`` is called with each finished epoch. Raises TrainingError where a loss or prediction is not finite.
    """
    device = next(method.parameters()).device
    torch.manual_seed(streams.dropout)
    noise = torch.Generator(device).manual_seed(streams.noise)
    order = torch.Generator().manual_seed(streams.order)
    optimizer = make_optimizer(method, config)
    best: Outcome | None = None
    weights: dict[str, Tensor] = {}
    curves: list[dict[str, Any]] = []
    for epoch in range(config.epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(config, epoch)
        step = Step(epoch, config.epochs, noise)
        losses = _pass(method, _shuffled(data, config, order, device), optimizer, config, step)
        found = evaluate(method, data, goal.split)
        scores = compute(goal.metrics, found.prediction, data.targets(goal.split))
        curves.append({"epoch": epoch + 1, "loss": losses, goal.split: scores, "diagnostics": found.diagnostics})
        if best is None or better(goal.main, scores[goal.main], best.value):
            best = Outcome(epoch + 1, scores[goal.main], found.diagnostics, ())
            weights = {name: value.detach().clone() for name, value in method.state_dict().items()}
        report(epoch + 1)
        if config.patience and epoch + 1 - best.epoch >= config.patience:
            break
    assert best is not None  # epochs >= 1
    method.load_state_dict(weights)
    return Outcome(best.epoch, best.value, best.diagnostics, tuple(curves))


def make_optimizer(method: nn.Module, config: Training) -> torch.optim.Optimizer:
    """The optimiser of all trainable parameters; weight decay is the coupled one for SGD and Adam."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, **common)
    return (torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam)(parameters, **common)


def schedule(config: Training, epoch: int) -> float:
    """Factor on the learning rate in an epoch, counted from 0."""
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    return config.step_factor ** (epoch // config.step_epochs) if config.schedule == "step" else 1.0


def _shuffled(
    data: Samples, config: Training, order: torch.Generator, device: torch.device
) -> Iterator[tuple[Batch, int]]:
    """All training samples in a new order. A last batch of one sample joins the one before: batch statistics need
    two."""
    samples = torch.as_tensor(data.indices["train"])
    shuffled = samples[torch.randperm(len(samples), generator=order)].to(device)
    parts = list(torch.split(shuffled, config.batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    for part in parts:
        yield data.batch(part), len(part)


def _pass(
    method: Method,
    batches: Iterator[tuple[Batch, int]],
    optimizer: torch.optim.Optimizer,
    config: Training,
    step: Step,
) -> dict[str, float]:
    """One epoch of training; returns the mean of each named loss, and of their sum, over samples."""
    method.train()
    device = step.noise.device
    sums: dict[str, Tensor] = {}
    count = 0
    for batch, size in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            output = method(batch)
            losses = method.losses(output, batch)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        method.adjust_gradients(output, batch, step)
        if config.clip_norm:
            nn.utils.clip_grad_norm_(method.parameters(), config.clip_norm)
        optimizer.step()
        for name, loss in {**losses, "total": total}.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + loss.detach() * size
        count += size
    means = dict(zip(sums, (torch.stack(list(sums.values())) / count).tolist(), strict=True))
    wrong = [name for name, value in means.items() if not math.isfinite(value)]
    if wrong:
        told = f"epoch {step.epoch + 1}: loss {', '.join(wrong)} not finite"
        raise TrainingError(f"{told}; lower training.lr or set training.clip_norm")
    return means


@torch.no_grad()
def evaluate(method: Method, data: Samples, split: str) -> Evaluation:
    """Predict a split in evaluation mode. Raises TrainingError where a prediction is not finite."""
    method.eval()
    device = next(method.parameters()).device
    samples = torch.as_tensor(data.indices[split]).to(device)
    predictions: list[Tensor] = []
    means = DiagnosticMeans()
    for part in torch.split(samples, EVALUATION_BATCH):
        output = method(data.batch(part))
        predictions.append(output.prediction)
        means.add(output.diagnostics, len(part))
    prediction = torch.cat(predictions).float().cpu().numpy()
    if not np.isfinite(prediction).all():
        raise TrainingError(f"split {split}: a prediction is not finite; lower training.lr or set training.clip_norm")
    return Evaluation(prediction, means.read())


class DiagnosticMeans:
    """Means of diagnostics over samples, kept on the device until they are read.

    A tensor whose first axis is the batch is averaged over it; what is left keeps its place in the name: ``omega`` of
    (B, 3) gives omega.0, omega.1, omega.2, ``participation`` of (L, M) participation.0.0 and so on. Of a tensor with
    more than two axes, such as one value a token, only the mean of all elements is kept.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._per_sample: dict[str, bool] = {}
        self._count = 0

    def add(self, diagnostics: Mapping[str, Tensor], size: int) -> None:
        """Add those of a batch of ``size`` samples. The first batch, the largest, tells which axis is the batch."""
        for name, diagnostic in diagnostics.items():
            value = diagnostic.mean() if diagnostic.ndim > 2 else diagnostic
            per_sample = self._per_sample.setdefault(name, value.ndim > 0 and value.shape[0] == size)
            total = value.float().sum(dim=0) if per_sample else value.float() * size
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._count += size

    def read(self) -> dict[str, float]:
        """All means by name."""
        return {
            ".".join((name, *map(str, place))): float(mean)
            for name, total in self._sums.items()
            for place, mean in np.ndenumerate((total / self._count).cpu().numpy())
        }
