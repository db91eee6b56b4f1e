"""Learning curves: what each run leaves beside its record, and what is committed of them. No torch.

results/curves/<benchmark>.jsonl holds a line a run: whose it is (key, digest and predictions as in its record), the
metric and the split that select the epoch, and for each fold the sum of the losses and that metric, epoch by epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import InputError
from benchmarks.metrics import better
from benchmarks.record import RunKey, RunRecord, canonical, key_from, parsed

FILE = "curves.jsonl"
BROKEN = (ValueError, TypeError, KeyError, AttributeError, OverflowError)  # what values of other kinds raise
DIGITS = 6  # of a loss, which is only looked at; scores are kept in full, as the selected epoch follows from them

Identity = tuple[RunKey, str, str]


@dataclass(frozen=True)
class Course:
    """One fold's training: for each epoch, from 1, the mean loss over training samples and the selection metric."""

    loss: tuple[float, ...]
    score: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """One run's training: ``metric`` on ``split`` selected the epoch."""

    metric: str
    split: str
    folds: tuple[Course, ...]

    def line(self, identity: Identity) -> str:
        """As it is committed."""
        key, digest, predictions = identity
        return canonical({"key": asdict(key), "digest": digest, "predictions": predictions, **asdict(self)})


def identity(record: RunRecord) -> Identity:
    """What a committed result is known by."""
    return record.key, record.digest, record.predictions


def of_run(folder: Path, record: RunRecord) -> Curve | None:
    """The curve in a run's folder; None for a method that is not trained by epochs. InputError where it is damaged."""
    path = folder / FILE
    try:
        rows = [parsed(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return _of_rows(rows, str(record.selection["metric"])) if rows else None
    except FileNotFoundError:
        return None
    except (*BROKEN, OSError, IndexError, StopIteration) as error:
        raise InputError(f"{path}: truncated or not the curves of a run ({error}); delete it and run again") from None


def _of_rows(rows: list[Mapping[str, Any]], metric: str) -> Curve:
    split = next(name for name in ("valid", "test") if name in rows[0])
    folds = []
    if not 0 <= rows[-1]["fold"] < len(rows):
        raise ValueError("more folds than rows")
    for fold in range(rows[-1]["fold"] + 1):
        mine = [row for row in rows if row["fold"] == fold]
        if [row["epoch"] for row in mine] != list(range(1, len(mine) + 1)):
            raise ValueError(f"the epochs of fold {fold} are not 1, 2, ...")
        loss = tuple(float(f"{row['loss']['total']:.{DIGITS}g}") for row in mine)
        folds.append(Course(loss, tuple(float(row[split][metric]) for row in mine)))
    return Curve(metric, split, tuple(folds))


def fault(record: RunRecord, curve: Curve) -> str:
    """Where a record's selection does not follow from its curve, in words; "" where it does.

    The selected epoch is the first of those with the best score; another one was picked by other means.
    """
    said, folds = record.selection, curve.folds
    several = len(folds) > 1
    epochs, values = (said["epochs"], said["values"]) if several else ([said["epoch"]], [said["value"]])
    if curve.metric != said["metric"] or len(epochs) != len(folds):
        return f"selection by {said['metric']} over {len(epochs)} folds, curve of {curve.metric} over {len(folds)}"
    for number, (course, epoch, value) in enumerate(zip(folds, epochs, values, strict=True)):
        best = best_epoch(curve.metric, course.score)
        if (best, course.score[best - 1]) != (epoch, value):
            return f"fold {number}: epoch {epoch} ({value!r}) was selected, the curve says {best}"
    return ""


def best_epoch(metric: str, scores: Sequence[float]) -> int:
    """The epoch, from 1, that is selected: the first of those with the best score."""
    best = 0
    for place, score in enumerate(scores):
        if better(metric, score, scores[best]):
            best = place
    return best + 1


def read(path: Path) -> dict[Identity, Curve]:
    """The committed curves of a benchmark; none where there is no file. InputError names the line that is damaged."""
    found: dict[Identity, Curve] = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            raw = parsed(line)
            folds = tuple(Course(_numbers(fold["loss"]), _numbers(fold["score"])) for fold in raw["folds"])
            digest, predictions, metric, split = (raw[name] for name in ("digest", "predictions", "metric", "split"))
            if not all(isinstance(text, str) for text in (digest, predictions, metric, split)):
                raise ValueError("a name is no text")
            found[key_from(raw["key"], f"{path}:{number}"), digest, predictions] = Curve(metric, split, folds)
        except BROKEN as error:
            raise InputError(f"{path}:{number}: not a learning curve ({error}); restore it from git") from None
    return found


def _numbers(values: object) -> tuple[float, ...]:
    """A list of finite numbers."""
    if not isinstance(values, list) or not all(type(v) in (int, float) and abs(v) < math.inf for v in values):
        raise ValueError("a course is not a list of finite numbers")
    return tuple(values)


def text(curves: Mapping[Identity, Curve], known: Iterable[Identity]) -> str:
    """The file of those curves whose record is known, in the order of the records."""
    return "".join(f"{curves[whose].line(whose)}\n" for whose in sorted(known) if whose in curves)
