"""Every run as columns of the page, and their learning curves, thinned out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from benchmarks import curves
from benchmarks.curves import Course, Curve
from benchmarks.record import RunKey, RunRecord
from benchmarks.report.collect import Collected, Group, GroupKey, Row

LONGEST = 4000  # characters of one text of a record, such as an error
POINTS = 50  # of one learning curve; the selected epoch is always among them
CURVE_DIGITS = 3  # significant ones, of what is only drawn
DIGITS = 4  # of times and diagnostics
SCORE_DIGITS = 6  # of scores by fold and on validation data; those of the test split are kept in full
MOMENTS = ("started_at", "finished_at")
NOT_ENVIRONMENT = (*MOMENTS, "together", "ceiling")
COLUMNS = (
    *("group", "row", "seed", "status", "error", "test", "valid", "folds", "selection", "time_s", "n_parameters"),
    *("peak_memory_bytes", "digest", "predictions", "what", "environment", "together", *MOMENTS, "diagnostics"),
)


class Pool:
    """Distinct JSON values, each kept once: configurations and environments repeat over the runs."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: object) -> int:
        """Where a value stands in ``values``."""
        known = plain(value)
        text = json.dumps(known, sort_keys=True)
        if text not in self._places:
            self._places[text] = len(self.values)
            self.values.append(known)
        return self._places[text]


def plain(value: object) -> Any:
    """A value of a record as JSON: null for what is not a finite number, long texts cut."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text)} characters)"


def rounded(value: object, digits: int) -> Any:
    """As ``plain``, with every number to so many significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): rounded(item, digits) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return plain(value)


@dataclass(frozen=True)
class Shelf:
    """A group with its place among the groups, the places of its rows, and the runs that its tables count."""

    place: int
    group: Group
    rows: Mapping[Row, int]
    counted: Collection[tuple[str, str, int]]

    @classmethod
    def of(cls, place: int, group: Group) -> Shelf:
        """Look everything up once: there may be thousands of runs."""
        runs = group.runs
        counted = zip(runs["method"], runs["variant"], map(int, runs["seed"]), strict=True)
        return cls(place, group, {row: n for n, row in enumerate(rows_of(group))}, frozenset(counted))


def rows_of(group: Group) -> list[Row]:
    """Methods and variants of a group in the order of the tables."""
    return sorted(group.tried, key=group.row_order)


def runs_of(collected: Collected) -> dict[str, Any]:
    """{"pool": distinct values, "columns": {name: a value a run}} of all runs, those that are missing last."""
    pool = Pool()
    rows = [_row(shelf, record, pool) for shelf, record in _ordered(collected)]
    made = {record.key for record in collected.records}
    rows += [row for shelf in _shelves(collected) for row in _missing(shelf, made)]
    return {"pool": pool.values, "columns": {name: [row.get(name) for row in rows] for name in COLUMNS}}


def curves_of(out: Path, collected: Collected) -> list[Any]:
    """A curve a run, in the order of ``runs_of``; null where a run has none."""
    known: dict[str, dict[curves.Identity, Curve]] = {}
    found: list[Any] = []
    for _, record in _ordered(collected):
        name = record.key.benchmark
        if name not in known:
            known[name] = curves.read(out / "curves" / f"{name}.jsonl")
        curve = known[name].get(curves.identity(record))
        found.append(_curve(curve, record) if curve else None)
    return found


def _shelves(collected: Collected) -> list[Shelf]:
    return [Shelf.of(place, group) for place, group in enumerate(collected.groups)]


def _ordered(collected: Collected) -> list[tuple[Shelf, RunRecord]]:
    """The records by group, row and seed."""
    shelves = {shelf.group.key: shelf for shelf in _shelves(collected)}
    found = [(shelves[GroupKey.of(record.key)], record) for record in collected.records]
    return sorted(found, key=lambda f: (f[0].place, f[0].rows[f[1].key.method, f[1].key.variant], f[1].key.seed))


def _row(shelf: Shelf, record: RunRecord, pool: Pool) -> dict[str, Any]:
    key, told, names = record.key, _mapping(record.provenance), shelf.group.spec.metrics
    counted = (key.method, key.variant, key.seed) in shelf.counted
    environment = {name: value for name, value in told.items() if name not in NOT_ENVIRONMENT}
    return {
        "group": shelf.place,
        "row": shelf.rows[key.method, key.variant],
        "seed": key.seed,
        "status": record.status if counted or record.status != "done" else "stale",
        "error": plain(record.error) or None,
        "test": _scores(record.metrics, "test", names),
        "valid": rounded(_scores(record.metrics, "valid", names), SCORE_DIGITS),
        "folds": rounded([_scores(fold, "test", names) for fold in record.folds], SCORE_DIGITS) or None,
        "selection": _selection(record),
        "time_s": rounded(_number(record.time_s), DIGITS),
        "n_parameters": _number(record.n_parameters),
        "peak_memory_bytes": _number(record.peak_memory_bytes),
        "digest": record.digest,
        "predictions": plain(record.predictions),
        "what": pool.place({name: pool.place(value) for name, value in _parts(_mapping(record.what))}),
        "environment": pool.place(environment),
        "together": pool.place(told.get("together")),
        **{name: plain(told.get(name)) for name in MOMENTS},
        "diagnostics": _diagnostics(_mapping(record.diagnostics), pool),
    }


def _parts(what: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """What a digest covers, the configuration by its parts: those repeat over other runs than the whole."""
    for name, value in what.items():
        if isinstance(value, Mapping) and name == "config":
            yield from ((f"{name}.{part}", inner) for part, inner in value.items())
        else:
            yield str(name), value


def _mapping(value: object) -> Mapping[str, Any]:
    """A field of a record that anyone may have written; nothing where it is of another kind."""
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> int | float | None:
    known = plain(value)
    return known if isinstance(known, int | float) and not isinstance(known, bool) else None


def _scores(metrics: object, split: str, names: Sequence[str]) -> list[Any] | None:
    values = _mapping(_mapping(metrics).get(split))
    return [_number(values.get(name)) for name in names] if values else None


def _selection(record: RunRecord) -> dict[str, Any]:
    """What selected the epoch, which one and its value there: one of each a fold."""
    said = _mapping(record.selection)
    epochs, values = (_each(said, name) for name in ("epoch", "value"))
    return {"metric": plain(said.get("metric")), "epochs": epochs, "values": rounded(values, SCORE_DIGITS)}


def _each(said: Mapping[str, Any], name: str) -> list[int | float]:
    several = said.get(f"{name}s")
    given = several if isinstance(several, list) else [said.get(name)]
    return [number for number in map(_number, given) if number is not None]


def _diagnostics(values: Mapping[str, float], pool: Pool) -> list[Any] | None:
    return [pool.place(list(values)), rounded(list(values.values()), DIGITS)] if values else None


def _missing(shelf: Shelf, made: Collection[RunKey]) -> list[dict[str, Any]]:
    """Runs that a table needs and nobody made."""
    key = shelf.group.key
    wanted = [hole for hole in shelf.group.holes if hole.method and hole.seed is not None]
    return [
        {"group": shelf.place, "row": shelf.rows[hole.method, hole.variant], "seed": hole.seed, "status": "missing",
         "error": hole.why}
        for hole in wanted
        if RunKey(key.benchmark, key.protocol, key.data, key.profile, hole.method, hole.variant, hole.seed or 0)
        not in made
    ]  # fmt: skip


def _curve(curve: Curve, record: RunRecord) -> dict[str, Any]:
    chosen = _each(_mapping(record.selection), "epoch")
    folds = [_thin(course, chosen[n] if n < len(chosen) else None) for n, course in enumerate(curve.folds)]
    return {"metric": curve.metric, "split": curve.split, "folds": folds}


def _thin(course: Course, chosen: object) -> dict[str, Any]:
    """At most ``POINTS`` epochs, evenly, with the first, the last and the chosen one."""
    last = len(course.loss)
    kept = set(range(1, last + 1))
    if last > POINTS:
        even = {1 + round(step * (last - 1) / (POINTS - 1)) for step in range(POINTS)}
        kept = even | {epoch for epoch in kept if epoch == chosen}
    epochs = sorted(kept)
    thin = {
        "loss": rounded([course.loss[epoch - 1] for epoch in epochs], CURVE_DIGITS),
        "score": rounded([course.score[epoch - 1] for epoch in epochs], CURVE_DIGITS),
    }
    return thin if len(epochs) == last else {"epochs": epochs, **thin}
