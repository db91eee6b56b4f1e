"""The trainer: one, for every method, for one seed or a group of them.

Each epoch passes over all training samples (the last, smaller batch included), then scores the selection split; the
weights of the best epoch (the earliest of equals) are kept in memory and loaded at the end. The test set is not
touched here. Nothing inside an epoch waits for the device. The seeds of a group do not know of each other: one that
fails, or has lost its patience, stops mattering to its own outcome only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.metrics import better, compute
from benchmarks.runner import snapshot
from benchmarks.runner.config import Training
from benchmarks.runner.group import Evaluation, Group, Samples, Share, TrainingError
from benchmarks.runner.seeds import Streams
from benchmarks.runner.snapshot import Checkpoints
from benchmarks.runner.step import Randomness, Steps
from clcr.api import Step

# Part of every run's digest: raise it with any change here that changes numbers.
TRAINER = 2
VECTOR = 16  # numbers that a processor handles at once, at most


@dataclass(frozen=True)
class Goal:
    """What is measured and what selects the epoch: metric ``main`` on ``split`` ("valid"; "test" is the literature's
    habit, under protocols that say so). keep: the weights that are handed out, "" (none), of the "best" epoch or of all
    "epochs"."""

    metrics: tuple[str, ...]
    main: str
    split: str = "valid"
    keep: str = ""


@dataclass(frozen=True)
class Outcome:
    """How training went. epoch: the selected one, from 1. value: its main metric. curves: one entry an epoch. weights:
    by epoch, as ``Goal.keep`` says."""

    epoch: int
    value: float
    diagnostics: Mapping[str, float]
    curves: tuple[Mapping[str, Any], ...]
    weights: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)


def train(
    group: Group,
    config: Training,
    goal: Goal,
    streams: Sequence[Streams],
    report: Callable[[int], None],
    augment: str = "none",
    checkpoints: Checkpoints | None = None,
) -> list[Outcome | TrainingError]:
    """Train a group in place and leave it with the weights of each seed's selected epoch.

    ``report`` is called with each finished epoch. ``augment``: what training pictures go through, as
    ``EncoderConfig.augment``. A seed whose loss or prediction is not finite gives a TrainingError in the place of its
    outcome. ``checkpoints``: where the training is saved between its steps, and taken up again; raises Stopped when
    they are asked to stop.
    """
    checkpoints = checkpoints or Checkpoints()
    state = _State(group, config, goal, streams)
    steps = Steps(group, state.optimizer, config.clip_norm, config.bf16)
    seeds = tuple(each.augment for each in streams)
    with checkpoints.keeping("training", state):
        while state.goes_on:
            state.begin_epoch()
            random = Randomness(Step(state.epoch, config.epochs, state.noise), state.draws, augment, seeds)
            losses = _pass(group, state, steps, random, checkpoints)
            state.end_epoch(losses, group.evaluate(goal.split))
            report(state.epoch)
            checkpoints.epoch(state.epoch)
    return state.outcomes()


def _pass(
    group: Group, state: _State, steps: Steps, random: Randomness, checkpoints: Checkpoints
) -> list[dict[str, float]]:
    """What is left of an epoch of training; returns for each seed the mean of each named loss, and of their sum, over
    samples."""
    group.method.train()
    for shares in islice(group.epoch(state.orders, state.config.batch_size), state.step, None):
        for share, losses in steps(shares, random):
            state.count(share, losses)
        state.step += 1
        checkpoints.step()
    return state.means()


class _State:
    """All that changes while a group trains, its method's values included: a part of checkpoints.

    epoch: how many are over. step: how many of the open one are.
    """

    def __init__(self, group: Group, config: Training, goal: Goal, streams: Sequence[Streams]) -> None:
        torch.manual_seed(streams[0].dropout)  # for methods that draw from torch's own generator; they train alone
        self.config, self._group, self._keeps = config, group, goal.keep
        self._kept: list[dict[str, Tensor]] = []  # where every epoch's weights are handed out
        self.orders = [torch.Generator().manual_seed(each.order) for each in streams]
        self.draws, self.noise = (
            group.draws([getattr(each, name) for each in streams]) for name in ("dropout", "noise")
        )
        self.optimizer = make_optimizer(group.method, config, len(group))
        self._courses = [_Course(config, goal, data) for data in group.folds]
        self._best = {name: value.detach().clone() for name, value in group.state().items()}
        self.epoch = 0
        self._open_epoch()

    def _open_epoch(self) -> None:
        self.step = 0
        self._opened = [order.get_state() for order in self.orders]  # the epoch's order can be drawn again
        self._sums: dict[str, Tensor] = {}
        self._counts = torch.zeros(len(self._group), dtype=torch.float64)

    @property
    def goes_on(self) -> bool:
        """Whether an epoch is left, and a seed that it matters to."""
        return self.epoch < self.config.epochs and any(course.goes_on for course in self._courses)

    def begin_epoch(self) -> None:
        """Before the first step of an epoch, or the next one where it was taken up again."""
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.config.lr * schedule(self.config, self.epoch)
        if self.step == 0:
            self.draws.begin(self.epoch)
            self.noise.begin(self.epoch)

    def count(self, share: Share, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step of some seeds."""
        size = share.samples.shape[-1]
        self._counts[share.seeds] += size
        for name, loss in losses.items():
            total = self._sums.setdefault(name, torch.zeros(len(self._group), device=self._group.device))
            total[share.seeds] += loss * size

    def means(self) -> list[dict[str, float]]:
        """The mean losses of each seed."""
        means = (torch.stack(list(self._sums.values())).double().cpu() / self._counts).T.tolist()
        return [dict(zip(self._sums, row, strict=True)) for row in means]

    def end_epoch(self, losses: Sequence[Mapping[str, float]], found: Sequence[Evaluation | TrainingError]) -> None:
        """Take in what an epoch gave each seed."""
        for seed, course in enumerate(self._courses):
            if course.goes_on and course.improves(losses[seed], found[seed]):
                _keep(self._best, self._group.state(), seed)
        if self._keeps == "epochs":
            self._kept.append(
                {name: value.detach().to("cpu", copy=True) for name, value in self._group.state().items()}
            )
        self.epoch += 1
        self._open_epoch()

    def outcomes(self) -> list[Outcome | TrainingError]:
        """How it went; puts the weights of each seed's best epoch in place."""
        for name, value in self._group.state().items():
            value.copy_(self._best[name])
        outcomes = [course.outcome() for course in self._courses]
        return [x if isinstance(x, TrainingError) else self._with_weights(n, x) for n, x in enumerate(outcomes)]

    def _with_weights(self, seed: int, outcome: Outcome) -> Outcome:
        """The outcome of a seed with what is kept of it."""
        kept = {outcome.epoch: self._best} if self._keeps else {}
        kept |= dict(enumerate(self._kept[: len(outcome.curves)], 1))
        own = {
            epoch: {name: x[seed].detach().to("cpu", copy=True) for name, x in state.items()}
            for epoch, state in kept.items()
        }
        return replace(outcome, weights=own)

    def save(self) -> dict[str, Any]:
        """See snapshot.Part."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "orders": self._opened,
            "sums": self._sums,
            "counts": self._counts,
            "courses": [course.save() for course in self._courses],
            "method": snapshot.method_state(self._group.method),
            "best": self._best,
            "kept": self._kept,
            "optimizer": self.optimizer.state_dict()["state"],
            "draws": snapshot.draws_state(self.draws),
            "noise": snapshot.draws_state(self.noise),
            "torch": snapshot.torch_state(self._group.device),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """See snapshot.Part."""
        self.epoch, self.step = saved["epoch"], saved["step"]
        self._counts, self._opened = saved["counts"], saved["orders"]
        self._sums = {name: total.to(self._group.device) for name, total in saved["sums"].items()}
        self._check_place()
        for course, each in zip(self._courses, saved["courses"], strict=True):
            course.load(each)
        snapshot.load_tensors(snapshot.method_state(self._group.method), saved["method"])
        snapshot.load_tensors(self._best, saved["best"])
        self._take_kept(saved["kept"])
        snapshot.load_optimizer(self.optimizer, saved["optimizer"])
        snapshot.load_draws(self.draws, saved["draws"])
        snapshot.load_draws(self.noise, saved["noise"])
        snapshot.load_generators(self.orders, self._opened)
        snapshot.load_torch_state(self._group.device, saved["torch"])

    def _take_kept(self, kept: list[dict[str, Tensor]]) -> None:
        """Those of the epochs that are over; a training that was not asked for them takes none, and one that is asked
        and finds none cannot go on."""
        self._kept = kept if self._keeps == "epochs" else []
        if self._keeps == "epochs" and len(kept) != self.epoch:
            raise ValueError(f"weights of {len(kept)} epochs, {self.epoch} are over")
        for each in self._kept:
            for name, value in self._best.items():
                snapshot.check_alike(name, value.cpu(), each[name])

    def _check_place(self) -> None:
        plain = type(self.epoch) is type(self.step) is int
        within = 0 <= self.epoch <= self.config.epochs and self.step >= 0 and (self.step == 0) == (not self._sums)
        if not plain or not within:
            raise ValueError(f"epoch {self.epoch}, step {self.step}: not one of this training")
        zeros = torch.zeros(len(self._group))
        snapshot.check_alike("counts", zeros.double(), self._counts)
        for name, total in self._sums.items():
            snapshot.check_alike(name, zeros, total.cpu())


class _Course:
    """The course of one seed's training: its curves, its best epoch, whether it still matters."""

    def __init__(self, config: Training, goal: Goal, data: Samples) -> None:
        self._patience, self._goal, self._data = config.patience, goal, data
        self._curves: list[dict[str, Any]] = []
        self._best = 0  # its epoch, from 1
        self._error: TrainingError | None = None

    @property
    def goes_on(self) -> bool:
        """False once it has failed or lost its patience."""
        waited = len(self._curves) - self._best if self._best else 0
        return self._error is None and not 0 < self._patience <= waited

    def improves(self, losses: Mapping[str, float], found: Evaluation | TrainingError) -> bool:
        """Take in an epoch; whether it is the best so far."""
        self._error = _fault(len(self._curves) + 1, losses) or (found if isinstance(found, TrainingError) else None)
        if isinstance(found, TrainingError) or self._error is not None:
            return False
        scores = compute(self._goal.metrics, found.prediction, self._data.targets(self._goal.split))
        epoch = len(self._curves) + 1
        row = {"epoch": epoch, "loss": dict(losses), self._goal.split: scores, "diagnostics": found.diagnostics}
        self._curves.append(row)
        if self._best and not better(self._goal.main, scores[self._goal.main], self._best_value):
            return False
        self._best = epoch
        return True

    @property
    def _best_value(self) -> float:
        return float(self._curves[self._best - 1][self._goal.split][self._goal.main])

    def outcome(self) -> Outcome | TrainingError:
        """What has come of it."""
        if self._error is not None:
            return self._error
        assert self._best  # epochs >= 1
        diagnostics = self._curves[self._best - 1]["diagnostics"]
        return Outcome(self._best, self._best_value, diagnostics, tuple(self._curves))

    def save(self) -> dict[str, Any]:
        """See snapshot.Part."""
        return {"curves": json.dumps(self._curves), "best": self._best, "error": self._error and str(self._error)}

    def load(self, saved: dict[str, Any]) -> None:
        """See snapshot.Part."""
        self._curves, self._best = json.loads(saved["curves"]), saved["best"]
        self._error = None if saved["error"] is None else TrainingError(saved["error"])
        if not 0 <= self._best <= len(self._curves) or not all(isinstance(row, dict) for row in self._curves):
            raise ValueError(f"best epoch {self._best} of {len(self._curves)}")


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
