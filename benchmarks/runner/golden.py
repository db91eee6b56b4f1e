"""Golden runs: which committed records are trained again, in the teams they were trained in, and what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from baselines import METHODS
from benchmarks import BENCHMARKS
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import launch, store
from benchmarks.runner.names import base_of
from benchmarks.runner.plan import Place, Team

OURS, FULL = "clcr", "full"
BUDGET_S = 100.0  # of one core, by the records' own times; what every method and twin needs is trained in any case


@dataclass(frozen=True)
class Golden:
    """A team of committed records that train together. cost_s: how long that took, by its records."""

    records: tuple[RunRecord, ...]

    @property
    def team(self) -> Team:
        """The runs."""
        return tuple(record.key for record in self.records)

    @property
    def key(self) -> RunKey:
        """The first of them."""
        return self.records[0].key

    @property
    def row(self) -> str:
        """The row of the table of methods."""
        return base_of(self.key.method)

    @property
    def cost_s(self) -> float:
        """Seconds of one core."""
        return sum(record.time_s for record in self.records)


def candidates(newest: Iterable[RunRecord]) -> list[Golden]:
    """The complete teams that records were trained in, the cheapest first, one for each row of a table."""
    records = {record.key: record for record in newest if record.status == "done"}
    found: dict[RunKey, Golden] = {}
    for key, record in records.items():
        seeds = record.provenance.get("together", [key.seed])
        team = [records.get(replace(key, seed=seed)) for seed in seeds]
        members = tuple(member for member in team if member is not None)
        whole = len(members) == len(team) and all(m.provenance.get("together", [m.key.seed]) == seeds for m in members)
        row = replace(key, seed=0)
        if whole and (row not in found or _order(Golden(members)) < _order(found[row])):
            found[row] = Golden(members)
    return sorted(found.values(), key=_order)


def _order(golden: Golden) -> tuple[float, RunKey]:
    return golden.cost_s, golden.key


def twins(newest: Iterable[RunRecord], budget_s: float = BUDGET_S) -> list[Golden]:
    """Runs on twins so that every method and every twin with a record occurs, then every variant, then more of them:
    as many as the budget holds. Which they are follows from the records alone."""
    left = [golden for golden in candidates(newest) if golden.key.data == "twin"]
    chosen: list[Golden] = []
    uncovered = {golden.row for golden in left} | {golden.key.benchmark for golden in left}
    seen: Counter[tuple[str, ...]] = Counter()

    def rank(golden: Golden) -> tuple[float, ...]:
        key = golden.key
        again = seen[golden.row, key.variant] * (1 if key.variant == FULL else len(BENCHMARKS))
        return again, seen[(golden.row,)], seen["on", key.benchmark], golden.cost_s

    while left:
        best = min(left, key=rank)
        left.remove(best)
        news = uncovered & {best.row, best.key.benchmark}
        if news or sum(golden.cost_s for golden in chosen) + best.cost_s <= budget_s:
            chosen.append(best)
            uncovered -= news
            seen.update([(best.row, best.key.variant), (best.row,), ("on", best.key.benchmark)])
    return chosen


def real(newest: Iterable[RunRecord]) -> list[Golden]:
    """The cheapest runs on real data of CLCR and of a trained rival that fuses, on another benchmark where there is
    one. Pass the records whose data is here."""
    full = [golden for golden in candidates(newest) if golden.key.data == "real" and golden.key.variant == FULL]
    chosen = [golden for golden in full if golden.row == OURS][:1]
    rivals = [golden for golden in full if golden.row != OURS and _fuses(golden.row)]
    elsewhere = [golden for golden in rivals if all(golden.key.benchmark != c.key.benchmark for c in chosen)]
    return chosen + (elsewhere or rivals)[:1]


def _fuses(row: str) -> bool:
    return row in METHODS and not METHODS[row].fitted and not METHODS[row].per_modality


@dataclass(frozen=True)
class Again:
    """What came of a run that was trained again: its record and predictions, or why there are none."""

    record: RunRecord | None
    arrays: dict[str, np.ndarray]
    error: str = ""


def retrain(chosen: Sequence[Golden], place: Place, workers: int, listen: launch.Listener) -> dict[RunKey, Again]:
    """Train the teams with the launcher and engine of every run, the longest first; ``place.out`` is a scratch
    folder."""
    ordered = sorted(chosen, key=_order, reverse=True)
    results = launch.local([golden.team for golden in ordered], place, launch.Crew(workers, (place.device,)), listen)
    found = {}
    for result in results:
        folder = store.folder_of(place.out, result.key)
        if result.state == "done":
            record = store.read_record(folder)
            assert record is not None
            found[result.key] = Again(record, store.read_predictions(folder, record))
        else:
            found[result.key] = Again(None, {}, result.error or result.state)
    return found
