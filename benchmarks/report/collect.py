"""Records to a DataFrame, and the list of what it lacks: scoring refuses holes. No torch.

For each key the newest line speaks; older lines stay in the file and are counted.
"""

from __future__ import annotations

import importlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from baselines import METHODS
from benchmarks import BENCHMARKS
from benchmarks.errors import InputError, unknown
from benchmarks.record import RunKey, RunRecord
from benchmarks.report.reading import RULES, Line, Reading, finished_at, lines, no_cycles, readings
from benchmarks.spec import BenchmarkSpec, Protocol

OURS = "clcr"
FULL = "full"
PROFILES = ("paper", "tuned", "open", "tiny")
GROUP = ("benchmark", "protocol", "data", "profile")
RUN = (*GROUP, "method", "variant", "seed")
COSTS = ("n_parameters", "time_s", "peak_memory_bytes", "device")
COLUMNS = (*RUN, "metric", "value", *COSTS, "predictions")
RUN_COLUMNS = (*RUN, *COSTS, "predictions")
SHOWN_HOLES = 6


Row = tuple[str, str]
Scores = Mapping[Row, Mapping[str, Mapping[int, float]]]


@dataclass(frozen=True)
class GroupKey:
    """Runs that may stand in one table: the same benchmark, protocol, data ("real" or "twin") and profile."""

    benchmark: str
    protocol: str
    data: str
    profile: str

    @classmethod
    def of(cls, key: RunKey) -> GroupKey:
        """The group that a run belongs to."""
        return cls(key.benchmark, key.protocol, key.data, key.profile)

    def __str__(self) -> str:
        return f"{self.benchmark}.{self.protocol}.{self.data}.{self.profile}"


@dataclass(frozen=True)
class Hole:
    """A result that a table needs and does not have. seed: None for all seeds of the row; method: "" for all rows."""

    group: GroupKey
    method: str
    variant: str
    seed: int | None
    why: str

    @property
    def run(self) -> str:
        """The run without its group, in words."""
        name = (
            label(self.method)
            if self.method
            else "all methods" + (f" ({self.variant})" if self.variant != FULL else "")
        )
        return name if self.seed is None else f"{name} seed {self.seed}"

    def __str__(self) -> str:
        row = f"/{self.method}/{self.variant}" if self.method else ""
        return f"{self.group}{row}{'' if self.seed is None else f'/seed-{self.seed:03d}'}: {self.why}"


AnyLine = TypeVar("AnyLine", bound=Line)


class Incomplete(InputError):
    """Results are missing; ``holes`` lists every one, the message the first of them."""

    def __init__(self, folder: Path, holes: tuple[Hole, ...]) -> None:
        self.holes = holes
        first = "; ".join(str(hole) for hole in holes[:SHOWN_HOLES])
        more = f"; and {len(holes) - SHOWN_HOLES} more" if len(holes) > SHOWN_HOLES else ""
        remedy = "complete them with `clcr run`, or show tables that name what they lack with `clcr report --partial`"
        number = f"{len(holes)} result{'' if len(holes) == 1 else 's'}"
        super().__init__(f"{folder}: {number} missing or in doubt: {first}{more}; {remedy}")


@dataclass(frozen=True)
class Group:
    """One group ready for tables. scores[(method, variant)][metric][seed] = value of the test split, unrounded.

    runs: one row per run that has a score, columns ``RUN_COLUMNS``. ceiling: the best reachable value by metric, known
    for a synthetic twin only. superseded: older lines not shown. external: of each method that is not the suite's, what
    its newest record says of it (label, citation, package, ...).
    """

    key: GroupKey
    spec: BenchmarkSpec
    scores: Scores
    runs: pd.DataFrame
    holes: tuple[Hole, ...]
    superseded: int
    ceiling: Mapping[str, float]
    external: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def protocol(self) -> Protocol:
        """The protocol of these runs."""
        return self.spec.protocol(self.key.protocol)

    @property
    def synthetic(self) -> bool:
        """Whether the runs read a synthetic twin."""
        return self.key.data == "twin"

    @cached_property
    def methods(self) -> list[str]:
        """Methods whose full variant was tried, in the order of the table of methods."""
        return sorted({method for method, variant in self.tried if variant == FULL}, key=self.method_order)

    @property
    def tried(self) -> set[Row]:
        """Rows that have results, or should have."""
        return set(self.scores) | {(hole.method, hole.variant) for hole in self.holes if hole.method}

    def values(self, row: Row, metric: str) -> Mapping[int, float]:
        """Value by seed; empty where the row has none."""
        return self.scores.get(row, {}).get(metric, {})

    def method_order(self, method: str) -> tuple[int, int, str]:
        """Place of a method: the table of methods, then the protocol's modalities, then the name."""
        row = row_name(method)
        names = [modality.name for modality in self.protocol.modalities]
        modality = method.removeprefix(f"{row}_")
        return (
            list(METHODS).index(row) if row in METHODS else len(METHODS),
            names.index(modality) if modality in names else len(names),
            method,
        )

    def row_order(self, row: Row) -> tuple[tuple[int, int, str], int, str]:
        """Place of a row: its method, then the paper's order of variants, unknown ones behind them."""
        method, variant = row
        known = METHODS[row_name(method)].every_variant if row_name(method) in METHODS else ()
        return self.method_order(method), known.index(variant) if variant in known else len(known), variant


@dataclass(frozen=True)
class Collected:
    """The groups in table order, and every hole. folder: where the records were read."""

    groups: tuple[Group, ...]
    holes: tuple[Hole, ...]
    folder: Path | None = None

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All runs as one row per run and metric, columns ``COLUMNS``."""
        tables = [group.runs.merge(_long(group), on=["method", "variant", "seed"]) for group in self.groups]
        frame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))
        return frame[list(COLUMNS)]

    @cached_property
    def records(self) -> tuple[RunRecord, ...]:
        """The newest record of each run with all that it says, in the order of their keys, failed and stale ones too;
        read again, as tables do without."""
        found = (record for record, _ in lines(self.folder)) if self.folder else ()
        return tuple(newest_of(found)[0])

    def of(self, data: str) -> list[Group]:
        """The groups on "real" or on "twin" data."""
        return [group for group in self.groups if group.key.data == data]


def _long(group: Group) -> pd.DataFrame:
    rows = [
        (method, variant, seed, metric, value)
        for (method, variant), metrics in group.scores.items()
        for metric, values in metrics.items()
        for seed, value in values.items()
    ]
    return pd.DataFrame(rows, columns=["method", "variant", "seed", "metric", "value"])


def row_name(method: str) -> str:
    """The row of the table of methods: "unimodal" for "unimodal_audio", else the method itself."""
    for row in METHODS.values():
        if row.per_modality and method.startswith(f"{row.name}_"):
            return row.name
    return method


def label(method: str) -> str:
    """The name of a method in a table: "Unimodal (audio)" for "unimodal_audio"; another package's goes by its own name,
    whether it is installed or not, so that tables follow from the records alone."""
    row = row_name(method)
    if row not in METHODS:
        return f"{method} (external)"
    modality = method.removeprefix(row).removeprefix("_")
    return f"{METHODS[row].label} ({modality})" if modality else METHODS[row].label


def load_spec(name: str) -> BenchmarkSpec:
    """The specification of a benchmark, or InputError with the nearest name."""
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS, "records")
    spec: BenchmarkSpec = importlib.import_module(BENCHMARKS[name]).SPEC
    return spec


def collect(
    folder: Path,
    select: Callable[[RunKey], bool] | None = None,
    stale: Collection[RunKey] = (),
    specs: Mapping[str, BenchmarkSpec] | None = None,
) -> Collected:
    """Read <folder>/*.jsonl. select: which runs to look at. stale: runs whose record no longer fits today's code or
    data; they are left out and listed as holes. InputError names a file and line that cannot be read."""
    with no_cycles():
        newest, superseded, clashes = newest_of(readings(folder, select))
    by_group: dict[GroupKey, list[Reading]] = defaultdict(list)
    for record in newest:
        by_group[GroupKey.of(record.key)].append(record)
    known = {key.benchmark: specs[key.benchmark] if specs else load_spec(key.benchmark) for key in by_group}
    groups, holes = [], list[Hole]()
    for key in sorted(by_group, key=lambda k: _place(k, known[k.benchmark])):
        members = [r for r in by_group[key] if r.status == "done" and r.key not in stale]
        lacks = (*[h for h in clashes if h.group == key], *find_holes(by_group[key], stale, known[key.benchmark]))
        groups.append(_group(key, known[key.benchmark], members, lacks, superseded[key]))
        holes.extend(lacks)
    return Collected(tuple(groups), tuple(holes), folder)


def newest_of(records: Iterable[AnyLine]) -> tuple[list[AnyLine], Counter[GroupKey], list[Hole]]:
    """The newest record of each key, sorted by key; how many others each group has; keys that two lines claim."""
    lines: dict[RunKey, list[AnyLine]] = defaultdict(list)
    for record in records:
        lines[record.key].append(record)
    speaking, superseded, clashes = [], Counter[GroupKey](), []
    for key in sorted(lines, key=attrgetter(*RUN)):
        ordered = sorted(lines[key], key=finished_at)
        rivals = [r for r in ordered[:-1] if finished_at(r) == finished_at(ordered[-1])]
        if any((r.digest, r.predictions, r.metrics) != _content(ordered[-1]) for r in rivals):
            why = "two different records finished at the same time; delete one line"
            clashes.append(Hole(GroupKey.of(key), key.method, key.variant, key.seed, why))
        speaking.append(ordered[-1])
        superseded[GroupKey.of(key)] += len(ordered) - 1
    return speaking, superseded, clashes


def _content(record: Line) -> tuple[object, ...]:
    return record.digest, record.predictions, record.metrics


def find_holes(records: list[Reading], stale: Collection[RunKey], spec: BenchmarkSpec) -> list[Hole]:
    """What one group lacks: failed and stale runs, missing metrics, seeds that other rows have, and mixtures.

    All methods' full variants must have the same seeds; so must the other variants of one method among themselves, and
    its full variant must have them too (it may have more).
    """
    group = GroupKey.of(records[0].key)
    holes = [
        Hole(group, r.key.method, r.key.variant, r.key.seed, why) for r in records if (why := _lack(r, stale, spec))
    ]
    seeds: dict[Row, set[int]] = defaultdict(set)
    for record in records:
        seeds[record.key.method, record.key.variant].add(record.key.seed)
    for (method, variant), missing in _missing_seeds(seeds).items():
        holes += [Hole(group, method, variant, seed, "not run, other rows have it") for seed in missing]
    return holes + _mixtures(group, [r for r in records if r.status == "done" and r.key not in stale])


def _lack(record: Reading, stale: Collection[RunKey], spec: BenchmarkSpec) -> str:
    if record.key in stale:
        return "stale, made with other code, data or configuration"
    if record.status == "failed":
        return f"failed ({' '.join(record.error.split())[:200] or 'no error was written'})"
    test = record.metrics.get("test", {})
    absent = [name for name in spec.metrics if name not in test]
    return f"no value for {', '.join(absent)} on the test split" if absent else ""


def _missing_seeds(seeds: Mapping[Row, set[int]]) -> dict[Row, list[int]]:
    """Seeds that each row lacks, beside those that were tried."""
    everyone = set().union(*(s for (_, variant), s in seeds.items() if variant == FULL))
    wanted: dict[Row, set[int]] = {}
    for method, variant in sorted(seeds):
        ablated = set().union(*(s for (m, v), s in seeds.items() if m == method and v != FULL))
        wanted[method, variant] = ablated if variant != FULL else everyone
        if ablated:
            wanted[method, FULL] = (everyone if (method, FULL) in seeds else set()) | ablated
    return {row: lacking for row, want in wanted.items() if (lacking := sorted(want - seeds.get(row, set())))}


def _mixtures(group: GroupKey, records: list[Reading]) -> list[Hole]:
    """Numbers that must not be averaged or compared: other settings inside a row, other data or rules between rows."""
    rows: dict[Row, set[bytes]] = defaultdict(set)
    data: dict[int, set[str | None]] = defaultdict(set)
    for record in records:
        data[record.key.seed].add(record.data)
        rows[record.key.method, record.key.variant].add(record.settings)
    rules = {record.rules for record in records}
    holes = []
    for (method, variant), kinds in sorted(rows.items()):
        if len(kinds) > 1:
            why = f"seeds of {len(kinds)} different settings; run them again"
            holes.append(Hole(group, method, variant, None, why))
    if mixed := sorted(seed for seed, digests in data.items() if len(digests) > 1):
        holes.append(Hole(group, "", FULL, None, f"rows read different data at seeds {mixed}; run them again"))
    if len(rules) > 1:
        holes.append(Hole(group, "", FULL, None, f"rows differ in {' or '.join(RULES)}; run them again"))
    return holes


def require_complete(collected: Collected, folder: Path) -> None:
    """Incomplete (an InputError) where anything is missing."""
    if collected.holes:
        raise Incomplete(folder, collected.holes)


def _ceiling(records: list[Reading]) -> dict[str, float]:
    """The best reachable value by metric, mean over the records of a twin that carry it in ``provenance``."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, value in record.provenance.get("ceiling", {}).items():
            found[name].append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _external(records: Iterable[Reading]) -> dict[str, Mapping[str, Any]]:
    """What the newest record of each method from another package says of it."""
    ordered = sorted(records, key=finished_at)
    return {r.key.method: r.provenance["method"] for r in ordered if isinstance(r.provenance.get("method"), dict)}


def _group(
    key: GroupKey, spec: BenchmarkSpec, records: list[Reading], holes: tuple[Hole, ...], superseded: int
) -> Group:
    scores: dict[Row, dict[str, dict[int, float]]] = {}
    runs = []
    for record in records:
        run, test = record.key, record.metrics.get("test", {})
        row = scores.setdefault((run.method, run.variant), {}) if test else {}
        for metric, value in test.items():
            row.setdefault(metric, {})[run.seed] = float(value)
        if test:
            device = str(record.provenance.get("device", "unknown"))
            told = (record.n_parameters, record.time_s, record.peak_memory_bytes, device, record.predictions)
            runs.append((*attrgetter(*RUN)(run), *told))
    frame = pd.DataFrame(runs, columns=list(RUN_COLUMNS))
    return Group(key, spec, scores, frame, holes, superseded, _ceiling(records), _external(records))


def _place(key: GroupKey, spec: BenchmarkSpec) -> tuple[object, ...]:
    """Order of groups: the table of benchmarks, the protocols of its spec, then the profiles, the paper's first."""
    benchmarks, profiles = list(BENCHMARKS), list(PROFILES)
    return (
        benchmarks.index(key.benchmark) if key.benchmark in benchmarks else len(benchmarks),
        key.benchmark,
        spec.protocols.index(spec.protocol(key.protocol)),
        profiles.index(key.profile) if key.profile in profiles else len(profiles),
        key.profile,
        key.data,
    )
