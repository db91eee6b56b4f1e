"""What an analysis gets: finished runs that trained together, at each of their folds with the weights that were kept.

Arithmetic over seeds rounds by their number, so that a team is restored as it was trained and what it predicts
unchanged is what its records hold, bit by bit. Rows without a training loop keep no weights: they are fitted again,
which gives the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np
import torch

from benchmarks.analyses.changes import Change, Changes, Drawings, Moments, Part, bound, moments
from benchmarks.data import FoldData
from benchmarks.errors import InputError
from benchmarks.metrics import compute
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import environment, execute, store, weights
from benchmarks.runner.config import load_class
from benchmarks.runner.execute import Options, Setting
from benchmarks.runner.group import EVALUATION_BATCH, Evaluation, Group, TrainingError
from benchmarks.runner.results import FoldResult, pool
from benchmarks.runner.seeds import streams
from benchmarks.runner.snapshot import load_tensors
from benchmarks.runner.weights import Kept, Weights
from benchmarks.storage import ROWS_AT_ONCE
from clcr.api import Batch

Prediction = np.ndarray | TrainingError
Named = Mapping[tuple[str, ...], Prediction]  # predictions of a test split by the path of their scores
Values = dict[str, Any]


class Predictor(Protocol):
    """What predicts a split for each seed of a fold."""

    def __call__(self, split: str, change: Change | None) -> list[Prediction]:
        """(n, C) or (n,) for each seed, in the order of the split's indices."""


@dataclass(frozen=True)
class Fold:
    """A team at one fold. data: of each seed. group: the trained methods, in evaluation mode; None for fitted rows.
    epochs: the weights that each seed kept, by epoch."""

    number: int
    data: Sequence[FoldData]
    changes: Changes
    predictor: Predictor
    group: Group | None = None
    epochs: Sequence[Mapping[int, Weights]] = ()

    def predict(self, split: str, change: Change | None = None) -> list[Prediction]:
        """What each seed predicts, or the TrainingError that says it is not finite."""
        return self.predictor(split, change)

    @torch.no_grad()
    def load(self, place: int, epoch: int) -> None:
        """Give one of the seeds the weights of an epoch that it kept. InputError where they do not fit its method."""
        assert self.group is not None
        own = {name: value[place] for name, value in self.group.state().items()}
        try:
            load_tensors(own, self.epochs[place][epoch])
        except ValueError as error:
            raise InputError(f"{self.data[place].spec.name}: weights: {error}; run it again with --keep") from None


@dataclass(frozen=True)
class Shared:
    """What teams on the same data need not find out again."""

    moments: dict[Any, tuple[Moments, ...]] = field(default_factory=dict)
    drawings: Drawings = field(default_factory=Drawings)


class Team:
    """Finished runs that differ in the seed alone and trained together.

    tell: hears the share (0 to 1) of the work that is done.
    """

    def __init__(
        self,
        records: Sequence[RunRecord],
        options: Options,
        tell: Callable[[float], None] = lambda _: None,
        shared: Shared | None = None,
    ) -> None:
        self.records, self.options, self.tell = tuple(records), options, tell
        self.keys: tuple[RunKey, ...] = tuple(record.key for record in records)
        self.runs: tuple[Setting, ...] = tuple(execute.setting(key, options) for key in self.keys)
        self._shared = shared or Shared()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def fitted(self) -> bool:
        """Whether the runs have no training loop."""
        return self.runs[0].row.fitted

    @property
    def n_folds(self) -> int:
        """How many folds a run has."""
        return len(self.runs[0].arrangement.folds)

    def folds(self) -> Iterator[Fold]:
        """The team at each fold, with each seed's best weights."""
        execute.warm_up()
        for number in range(self.n_folds):
            yield self._fitted(number) if self.fitted else self._restored(number)
            self.tell((number + 1) / self.n_folds)

    def scores(self, predict: Callable[[Fold], Sequence[Named]]) -> list[Values | Exception]:
        """The scores of each run, nested by the paths of its predictions: those of all folds' test samples together.
        ``predict`` gives, for each seed of a fold, predictions by path."""
        found: list[list[Named]] = [[] for _ in self.keys]
        for fold in self.folds():
            for rows, named in zip(found, predict(fold), strict=True):
                rows.append(named)
        return [scores(run, rows) for run, rows in zip(self.runs, found, strict=True)]

    def _kept(self, number: int) -> list[Kept]:
        """What each run kept of a fold, and nothing of the others: of every epoch it is large."""
        found = []
        for key in self.keys:
            kept = weights.read(store.folder_of(self.options.out, key))
            if len(kept.folds) != self.n_folds:
                raise InputError(f"{key}: weights of {len(kept.folds)} folds, not {self.n_folds}; run it again")
            found.append(replace(kept, folds=tuple(x if n == number else {} for n, x in enumerate(kept.folds))))
        return found

    def _restored(self, number: int) -> Fold:
        kept = self._kept(number)
        group = weights.restore(kept, self.keys, self.options, number)
        folds = cast("list[FoldData]", group.folds)

        def predict(split: str, change: Change | None) -> list[Prediction]:
            own = _same if change is None else bound(change, folds, split, EVALUATION_BATCH)
            found = group.evaluate(split, own)
            return [each.prediction if isinstance(each, Evaluation) else each for each in found]

        epochs = [own.folds[number] for own in kept]
        return Fold(number, folds, self._changes(folds), predict, group, epochs)

    def _fitted(self, number: int) -> Fold:
        device = environment.pick_device(self.options.device)
        first = execute.open_data(self.runs[0], device, self.options.cache)
        folds = [first.at(run.arrangement, number) for run in self.runs]
        models = [_fit(run, data) for run, data in zip(self.runs, folds, strict=True)]

        def predict(split: str, change: Change | None) -> list[Prediction]:
            own = [
                _same if change is None else bound(_at(change, place), [data], split, ROWS_AT_ONCE)
                for place, data in enumerate(folds)
            ]
            pairs = zip(models, folds, own, strict=True)
            return [model.predict(data.pooled(split, each)).astype(np.float32) for model, data, each in pairs]

        return Fold(number, folds, self._changes(folds), predict)

    def _changes(self, folds: Sequence[FoldData]) -> Changes:
        digests = {id(data): run.digest for data, run in zip(folds, self.runs, strict=True)}

        def known(data: FoldData) -> tuple[Moments, ...]:
            whose = (digests[id(data)], data.fold, data.modalities, str(data.device), data.options.language)
            if whose not in self._shared.moments:
                self._shared.moments[whose] = moments(data)
            return self._shared.moments[whose]

        return Changes(folds, known, self._shared.drawings)


def _same(batch: Batch) -> Batch:
    return batch


def _at(change: Change, place: int) -> Change:
    """A change for the batches of one seed alone."""
    return lambda batch, part: change(batch, Part(slice(place, place + 1), part.samples))


def _fit(run: Setting, data: FoldData) -> Any:
    """The estimator that ``execute`` fitted."""
    seed = streams(run.key.benchmark, run.key.protocol, run.key.seed, data.fold).init % 2**32
    model = load_class(run.row)(run.protocol.n_classes, run.config.method, seed)
    select = run.goal.split
    model.fit(data.pooled("train"), data.targets("train"), data.pooled(select), data.targets(select))
    return model


def scores(run: Setting, folds: Sequence[Named]) -> Values | Exception:
    """Predictions of the test split of each fold, pooled and scored; the first that is an error instead."""
    values: Values = {}
    for path in folds[0]:
        predictions = [named[path] for named in folds]
        pooled: list[np.ndarray] = []
        for prediction in predictions:
            if isinstance(prediction, TrainingError):
                return TrainingError(f"{'.'.join(path)}: {prediction}")
            pooled.append(prediction)
        place = values
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = score(run, pooled)
    return values


def score(run: Setting, predictions: Sequence[np.ndarray], kept: Sequence[int] | None = None) -> dict[str, float]:
    """Every metric of the test samples of all folds. kept: of each fold, how many of the first samples count."""
    arrangement = run.arrangement
    if kept is not None:
        pairs = zip(arrangement.folds, kept, strict=True)
        arrangement = replace(arrangement, folds=tuple(replace(fold, test=fold.test[:size]) for fold, size in pairs))
        predictions = [each[:size] for each, size in zip(predictions, kept, strict=True)]
    results = [FoldResult(0, 0.0, {"test": each}, {}, 0, 0.0) for each in predictions]
    arrays = pool(arrangement, results)
    return dict(compute(run.spec.metrics, arrays["prediction"], arrays["target"]))
