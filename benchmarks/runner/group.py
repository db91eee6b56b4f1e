"""Several trainings that differ in the seed alone, as one program: one folded method, one batch for all of them.

A group of one is folded, too, so that a seed meets the same operations whatever its company; only methods that do not
fold stand as they are, without a seed axis. Where seeds have batches of different sizes, as at the end of splits that
differ by some samples, each run of equal sizes passes through a part of the folded method that shares its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from clcr.api import Batch, Method, Output
from clcr.layers import Draws, fold, part

EVALUATION_BATCH = 128


class TrainingError(Exception):
    """A training that cannot give a number: a loss or a prediction that is not finite."""


class Samples(Protocol):
    """What training needs of the data (benchmarks.data.FoldData, or anything like it)."""

    @property
    def indices(self) -> Mapping[str, Any]:
        """Samples of "train", "valid" and "test"."""

    def batch(self, samples: Tensor) -> Batch:
        """The samples of these indices (n,), on the device; of (S, n) where the data is that of S seeds."""

    def targets(self, split: str) -> np.ndarray:
        """Targets of a split, in the order of its indices."""

    @classmethod
    def together(cls, folds: Sequence[Self]) -> Self:
        """The data of several seeds as one."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions (n, C) or (n,) of a split in the order of its indices, and the means of the method's diagnostics."""

    prediction: np.ndarray
    diagnostics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Share:
    """What a run of seeds passes through in one step: their places in the group, their method, their samples (S, n)."""

    seeds: slice
    method: Method
    samples: Tensor


class Group:
    """Methods of one kind, each with the data and the streams of its seed.

    Raises:
        ValueError: methods that do not fold, or that differ in more than their values.
    """

    def __init__(self, methods: Sequence[Method], folds: Sequence[Samples]) -> None:
        self.folded = methods[0].FOLDS
        if len(methods) > 1 and not self.folded:
            raise ValueError(f"{type(methods[0]).__name__} trains one seed at a time")
        self.folds = list(folds)
        self.method = fold(methods) if self.folded else methods[0]
        self.data = type(folds[0]).together(folds) if self.folded else folds[0]
        self.device = next(self.method.parameters()).device
        self._parts: dict[tuple[int, int], tuple[Method, Samples]] = {(0, len(methods)): (self.method, self.data)}

    def __len__(self) -> int:
        return len(self.folds)

    def draws(self, seeds: Sequence[int]) -> Draws:
        """Streams of random numbers, one a seed, as the group's method wants them."""
        return Draws(seeds if self.folded else seeds[0], self.device)

    def epoch(self, orders: Sequence[torch.Generator], size: int) -> Iterator[list[Share]]:
        """All training samples in a new order: step by step, what each run of seeds reads.

        Raises ValueError where the seeds do not have the same number of steps (see ``steps``).
        """
        each = []
        for fold_data, order in zip(self.folds, orders, strict=True):
            samples = torch.as_tensor(fold_data.indices["train"])
            each.append(batches(samples[torch.randperm(len(samples), generator=order)], size))
        for step in zip(*each, strict=True):
            yield self._shares(step)

    def whole(self, share: Share) -> bool:
        """Whether a share is that of all seeds."""
        return share.seeds == slice(0, len(self))

    def rows(self, x: Tensor) -> Tensor:
        """``x`` with a seed axis in front, also where the method does not fold."""
        return x if self.folded else x.unsqueeze(0)

    def state(self) -> dict[str, Tensor]:
        """The method's state with a seed axis in front; aliases it."""
        return {name: self.rows(value) for name, value in self.method.state_dict().items()}

    @torch.no_grad()
    def evaluate(
        self, split: str, change: Callable[[Batch], Batch] = lambda batch: batch
    ) -> list[Evaluation | TrainingError]:
        """Predict a split in evaluation mode, for each seed. ``change``: what each batch goes through before."""
        self.method.eval()
        predictions: list[list[Tensor]] = [[] for _ in self.folds]
        means = [DiagnosticMeans() for _ in self.folds]
        each = [torch.split(torch.as_tensor(data.indices[split]), EVALUATION_BATCH) for data in self.folds]
        for step in zip_longest(*each, fillvalue=torch.empty(0, dtype=torch.int64)):
            for share in self._shares(step):
                output = share.method(change(self.read(share)))
                self._keep(share, output, predictions, means)
        return [self._evaluation(split, *found) for found in zip(predictions, means, strict=True)]

    def read(self, share: Share, **how: Any) -> Batch:
        """The batch of a share."""
        return self._part(share.seeds)[1].batch(share.samples, **how)

    def _shares(self, step: Sequence[Tensor]) -> list[Share]:
        """Runs of seeds whose batches have one size, in the order of the seeds; empty ones are left out."""
        if not self.folded:
            return [Share(slice(0, 1), self.method, step[0])]
        shares, start = [], 0
        for size, run in groupby(map(len, step)):
            seeds = slice(start, start := start + len(list(run)))
            if size:
                samples = torch.stack(list(step[seeds]))
                method = self._part(seeds)[0].train(self.method.training)
                shares.append(Share(seeds, method, samples))
        return shares

    def _part(self, seeds: slice) -> tuple[Method, Samples]:
        """The method and the data of some seeds."""
        place = seeds.start, seeds.stop
        if place not in self._parts:
            members = self.folds[seeds]
            self._parts[place] = part(self.method, seeds), type(members[0]).together(members)
        return self._parts[place]

    def _keep(
        self, share: Share, output: Output, predictions: list[list[Tensor]], means: list[DiagnosticMeans]
    ) -> None:
        size = share.samples.shape[-1]
        for row, seed in enumerate(range(share.seeds.start, share.seeds.stop)):
            predictions[seed].append(self.rows(output.prediction)[row])
            means[seed].add({name: self.rows(x)[row] for name, x in output.diagnostics.items()}, size)

    @staticmethod
    def _evaluation(split: str, predictions: list[Tensor], means: DiagnosticMeans) -> Evaluation | TrainingError:
        prediction = torch.cat(predictions).float().cpu().numpy()
        if np.isfinite(prediction).all():
            return Evaluation(prediction, means.read())
        return TrainingError(f"split {split}: a prediction is not finite; lower training.lr or set training.clip_norm")


def batches(samples: Tensor, size: int) -> list[Tensor]:
    """The samples in batches. A last batch of one sample joins the one before: batch statistics need two."""
    parts = list(torch.split(samples, size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def steps(samples: int, size: int) -> int:
    """How many batches an epoch has. Seeds train together where all of theirs have the same number."""
    return max(1, -(-samples // size) - (samples % size == 1 and samples > size))


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
