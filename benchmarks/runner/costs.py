"""What a run will cost, from where that is known, and how long a crew takes for all of them. No torch.

Three sources, the nearer first: earlier runs here; the bench, steps of the configuration timed here (``measured``);
committed records, which may come from another machine and are scaled by how fast this one is. A variant without a cost
of its own takes that of its method.
"""

from __future__ import annotations

import heapq
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import store
from benchmarks.runner.measured import Table, name_of

HERE, BENCH, ELSEWHERE = "earlier runs here", "bench", "committed records"
Group = tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """What a run takes: seconds as its record will say them, its share of a team; bytes at the peak of the team.

    together: how many seeds the team has; opening_s: what the team takes besides. source: where that is known from, in
    words; seconds and memory are None where it is not.
    """

    seconds: float | None = None
    memory: int | None = None
    source: str = ""
    together: int = 1
    opening_s: float = 0.0


class Costs:
    """Costs of the runs of a selection."""

    def __init__(self, keys: Sequence[RunKey], out: Path, table: Table, overrides: Sequence[str] = ()) -> None:
        self._table, self._overrides = table, tuple(overrides)
        here, there = list(_made_here(keys, out)), list(_committed(keys, out))
        known = {(record.key, record.predictions) for record in here}
        self._here = _by_group(here)
        self._there = _by_group(record for record in there if (record.key, record.predictions) not in known)
        self._speed = self._measured_speed()

    def of(self, key: RunKey) -> Cost:
        """The cost of a run."""
        for alike in (key, replace(key, variant="full"), replace(key, variant="")):
            cost = self._nearest(alike)
            if cost is not None:
                return cost if alike == key else replace(cost, source=f"{cost.source}, of another variant")
        return Cost()

    def _nearest(self, key: RunKey) -> Cost | None:
        bench = self._bench(key)
        here = _median(self._here[_group(key)], HERE)
        if here is not None and (bench is None or bench.together == here.together) and not self._overrides:
            return here if bench is None else replace(here, opening_s=bench.opening_s)
        there = _median(self._there[_group(key)], ELSEWHERE)
        if bench is not None or here is not None or there is None or there.seconds is None:
            return bench or here
        if self._speed is None:
            return replace(there, source=f"{ELSEWHERE}, as they are: this machine was not measured")
        source = f"{ELSEWHERE}, times {self._speed:.2f} for this machine"
        return replace(there, seconds=there.seconds * self._speed, source=source)

    def _bench(self, key: RunKey) -> Cost | None:
        row = self._table.of(name_of(key, self._overrides))
        if row is None:
            return None
        source = f"{BENCH}, at most" if row.get("early") else BENCH
        return Cost(row["run_s"], int(row["memory"]), source, row["seeds"], row["opening_s"])

    def _measured_speed(self) -> float | None:
        """How much longer this machine takes than the one of the committed records, where both are known."""
        ratios = []
        for records in list(self._there.values()):
            key = records[0].key
            now, then = self._here[_group(key)], statistics.median(record.time_s for record in records)
            bench = self._table.of(name_of(key))
            seconds = statistics.median(r.time_s for r in now) if now else bench["run_s"] if bench else None
            if seconds is not None and then > 0:
                ratios.append(seconds / then)
        return statistics.median(ratios) if ratios else None


def _group(key: RunKey) -> Group:
    """Runs that cost alike; without a variant, all of the method."""
    return (key.benchmark, key.protocol, key.data, key.profile, key.method, key.variant)


def _by_group(records: Iterator[RunRecord] | Sequence[RunRecord]) -> defaultdict[Group, list[RunRecord]]:
    found: defaultdict[Group, list[RunRecord]] = defaultdict(list)
    for record in records:
        for key in (record.key, replace(record.key, variant="")):
            found[_group(key)].append(record)
    return found


def _median(records: Sequence[RunRecord], source: str) -> Cost | None:
    if not records:
        return None
    seconds = statistics.median(record.time_s for record in records)
    memory = int(statistics.median(record.peak_memory_bytes for record in records))
    together = statistics.median_high(len(record.provenance.get("together", "1")) for record in records)
    return Cost(seconds, memory, source, max(1, together))


def _made_here(keys: Sequence[RunKey], out: Path) -> Iterator[RunRecord]:
    """Finished runs of these sweeps in the folder. A record that cannot be read predicts nothing."""
    for sweep in dict.fromkeys(key.folder.partition("/")[0] for key in keys):
        for folder in store.runs_folder(out).glob(f"{sweep}/*/*/seed-*"):
            with suppress(InputError):
                record = store.read_record(folder)
                if record is not None and record.status == "done":
                    yield record


def _committed(keys: Sequence[RunKey], out: Path) -> Iterator[RunRecord]:
    for benchmark in dict.fromkeys(key.benchmark for key in keys):
        with suppress(InputError):
            yield from (record for record in store.committed(out, benchmark) if record.status == "done")


def wall_s(runs: Sequence[tuple[RunKey, Cost]], workers: int, start_s: float) -> float | None:
    """Seconds until a crew has done the runs, from the start of its workers on: each takes the longest team that is
    left when it is free. None where the cost of a run is not known."""
    teams: list[float] = []
    for _, alike in groupby(runs, key=lambda run: replace(run[0], seed=0)):
        team = [cost for _, cost in alike]
        while team:
            size = team[0].together
            members, team = team[:size], team[size:]
            seconds = [cost.seconds for cost in members if cost.seconds is not None]
            if len(seconds) < len(members):
                return None
            teams.append(sum(seconds) + members[0].opening_s)
    free = [start_s] * max(1, workers)
    for team_s in sorted(teams, reverse=True):
        heapq.heapreplace(free, free[0] + team_s)
    return max(free) if runs else 0.0


def sources(costs: Sequence[Cost]) -> Mapping[str, int]:
    """How many costs come from where, the most frequent first."""
    return dict(Counter(cost.source or "unknown" for cost in costs).most_common())
