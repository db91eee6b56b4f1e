"""Committed records against committed predictions and curves: every metric computed again with today's definitions,
every selected epoch found again. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import archive, curves
from benchmarks.errors import InputError
from benchmarks.metrics import compute
from benchmarks.record import RunRecord, parsed
from benchmarks.report.collect import load_spec, newest_of
from benchmarks.report.findings import Finding

RELATIVE = 1e-12  # a sum over samples in another order; anything more is another definition or another prediction
RESTORE = "restore the file from version control, or run it again and report"
AGAIN = "run it again with `clcr run`, then `clcr report`"


@dataclass(frozen=True)
class Recount:
    """Every record that can be read, the newest of each run, and what does not hold."""

    records: tuple[RunRecord, ...]
    newest: tuple[RunRecord, ...]
    failures: tuple[Finding, ...]


def recount(out: Path) -> Recount:
    """Read <out>/records/*.jsonl and hold every line against <out>/predictions. InputError where there are none."""
    paths = sorted((out / "records").glob("*.jsonl"))
    if not paths:
        raise InputError(f"{out / 'records'}: no records; make some with `clcr run` and `clcr report`")
    records: list[RunRecord] = []
    failures: list[Finding] = []
    for path in paths:
        found, wrong = read_lines(path)
        records += found
        failures += wrong + against_predictions(found, out / "predictions" / f"{path.stem}.npz")
        failures += against_curves(found, out / "curves" / path.name)
    newest, _, clashes = newest_of(records)
    failures += [Finding(str(hole), "one of them", "two", RESTORE) for hole in clashes]
    failures += [
        Finding(str(r.key), "a finished run", f"status {r.status} ({r.error})", AGAIN)
        for r in newest
        if r.status != "done"
    ]
    return Recount(tuple(records), tuple(newest), tuple(failures))


def read_lines(path: Path) -> tuple[list[RunRecord], list[Finding]]:
    """The records of a file that can be trusted, and a failure for each line that cannot."""
    found: list[RunRecord] = []
    failures: list[Finding] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            record = RunRecord.from_json(parsed(line), where)
        except (ValueError, InputError) as error:
            failures.append(Finding(where, "a run's record whose digest fits", str(error), RESTORE))
            continue
        if record.key.benchmark != path.stem:
            failures.append(Finding(where, f"a run of {path.stem}", str(record.key), RESTORE))
        found.append(record)
    return found, failures


def against_predictions(records: list[RunRecord], path: Path) -> list[Finding]:
    """Digests of the predictions and the test metrics of finished runs, held against one archive of predictions."""
    done = [record for record in records if record.status == "done"]
    if not done:
        return []
    try:
        arrays = archive.read_npz(path)
    except InputError as error:
        return [Finding(str(path), "the predictions of its records", str(error), RESTORE)]
    return [failure for record in done for failure in _of_record(record, arrays)]


def _of_record(record: RunRecord, arrays: Mapping[str, np.ndarray]) -> list[Finding]:
    try:
        found = archive.predictions_of(arrays, record.key, record.predictions)
        digest = archive.predictions_digest(found)
        if digest != record.predictions:
            return [Finding(f"{record.key}: predictions", record.predictions[:12], digest[:12], RESTORE)]
        again = compute(load_spec(record.key.benchmark).metrics, found["prediction"], found["target"])
    except (InputError, ValueError, KeyError) as error:
        return [Finding(f"{record.key}: predictions", "scores for every sample", str(error), RESTORE)]
    told = record.metrics.get("test", {})
    return [
        Finding(f"{record.key}: test {name}", _text(again.get(name)), _text(told.get(name)), _remedy(name))
        for name in sorted({*again, *told})
        if not same(again.get(name), told.get(name))
    ]


def against_curves(records: list[RunRecord], path: Path) -> list[Finding]:
    """The selected epochs of runs that were trained by epochs, held against the file of learning curves."""
    try:
        known = curves.read(path)
    except InputError as error:
        return [Finding(str(path), "learning curves", str(error), RESTORE)]
    failures = []
    for record in records:
        said = record.selection
        if record.status == "done" and any(said.get("epochs", [said.get("epoch", 0)])):
            curve = known.get(curves.identity(record))
            wrong = "none" if curve is None else curves.fault(record, curve)
            failures += [Finding(f"{record.key}: curve", "one that selects its epoch", wrong, RESTORE)] * bool(wrong)
    return failures


def same(a: float | None, b: float | None) -> bool:
    """Whether two values of a metric are the same but for the order of a sum."""
    return a is not None and b is not None and math.isclose(a, b, rel_tol=RELATIVE, abs_tol=RELATIVE)


def _text(value: float | None) -> str:
    return "none" if value is None else repr(value)


def _remedy(name: str) -> str:
    return f"its predictions and today's definition of {name} give the first: {RESTORE}"
