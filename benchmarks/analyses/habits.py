"""What the literature's habits are worth: the epoch chosen on the test split, and the last batch dropped.

Values: {"valid" | "test" | "last" | "drop_last": scores}.
- "valid": the run's own result. Each fold's epoch was chosen on validation data.
- "test": the epoch is chosen on the fold's test split by the main metric, the earliest of equals, among those that were
  trained; patience, which looks at validation data, may have ended training before a better one.
- "last": the last epoch that was trained.
- "drop_last": "valid" without each fold's last incomplete test batch of ``training.batch_size`` samples, in the order
  of the split, as a loader that drops it scores; absent where no batch is complete.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from benchmarks.analyses.team import Fold, Prediction, Team, Values, score
from benchmarks.metrics import better, compute
from benchmarks.runner.execute import Setting
from benchmarks.runner.group import TrainingError


@dataclass
class _Course:
    """One run's predictions of the test split: of each fold by the epoch that was chosen."""

    valid: list[np.ndarray] = field(default_factory=list)
    test: list[np.ndarray] = field(default_factory=list)
    last: list[np.ndarray] = field(default_factory=list)


def habits(team: Team) -> list[Values | Exception]:
    """The scores of each run under each habit."""
    found: list[_Course | Exception] = [_Course() for _ in team.keys]
    for fold in team.folds():
        best = fold.predict("test")
        chosen = _by_epoch(team, fold)
        for place, course in enumerate(found):
            if not isinstance(course, Exception):
                found[place] = _added(course, best[place], chosen[place])
    return [
        course if isinstance(course, Exception) else _values(run, course)
        for run, course in zip(team.runs, found, strict=True)
    ]


def _added(course: _Course, best: Prediction, chosen: tuple[Prediction, Prediction]) -> _Course | Exception:
    """A run's course with one more fold, or what is wrong with that."""
    for prediction, kept in zip((best, *chosen), (course.valid, course.test, course.last), strict=True):
        if isinstance(prediction, TrainingError):
            return prediction
        kept.append(prediction)
    return course


def _by_epoch(team: Team, fold: Fold) -> list[tuple[Prediction, Prediction]]:
    """For each run, what it predicts of the fold's test split: at the epoch that is best there, and at the last."""
    tests: list[Prediction | None] = [None] * len(team)
    lasts: list[Prediction | None] = [None] * len(team)
    values = [0.0] * len(team)
    for epoch in sorted(set().union(*fold.epochs)):
        trained = [place for place, states in enumerate(fold.epochs) if epoch in states]
        for place in trained:
            fold.load(place, epoch)
        predictions = fold.predict("test")
        for place in trained:
            lasts[place] = prediction = predictions[place]
            if isinstance(prediction, TrainingError):  # as in training, an epoch that gives no number is never chosen
                continue
            run, value = team.runs[place], _main(team.runs[place], prediction, fold, place)
            if tests[place] is None or better(run.spec.main_metric, value, values[place]):
                tests[place], values[place] = prediction, value
    return [(_found(test), _found(last)) for test, last in zip(tests, lasts, strict=True)]


def _found(prediction: Prediction | None) -> Prediction:
    return TrainingError("no epoch gives finite predictions") if prediction is None else prediction


def _main(run: Setting, prediction: np.ndarray, fold: Fold, place: int) -> float:
    metric = run.spec.main_metric
    return float(compute((metric,), prediction, fold.data[place].targets("test"))[metric])


def _values(run: Setting, course: _Course) -> Values:
    size = run.config.training.batch_size
    whole = [len(fold.test) - len(fold.test) % size for fold in run.arrangement.folds]
    values: Values = {name: score(run, getattr(course, name)) for name in ("valid", "test", "last")}
    if any(whole):
        values["drop_last"] = score(run, course.valid, whole)
    return values
