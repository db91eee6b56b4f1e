"""Submitted runs as rows of a table: every seed, each once, beside rows that they can be compared with."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.curves import identity
from benchmarks.methods import belongs
from benchmarks.record import RunKey, canonical
from benchmarks.report.collect import collect
from benchmarks.report.layout import ranges
from benchmarks.submission.judging import row_of
from benchmarks.submission.official import Official
from benchmarks.submission.reading import Line

LEAST_SEEDS = 3  # where no row of CLCR says how many


@dataclass
class Sorted:
    """new: lines to merge; known: lines that are committed already, byte for byte the same result."""

    new: list[Line] = field(default_factory=list)
    known: list[Line] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def sort(lines: Sequence[Line], official: Official) -> Sorted:
    """Tell new lines from known ones; a second line of a run, here or there, is a fault: results do not replace
    results."""
    found = Sorted()
    first: dict[RunKey, Line] = {}
    for line in lines:
        key = line.record.key
        committed = [record for record in official.records(key.benchmark) if record.key == key]
        if key in first:
            found.faults.append(
                f"{line.where}: field 'key': a second line of {key} (the first: {first[key].where}), so that it was "
                "tried more than once; run all seeds anew into an empty --out and submit that"
            )
        elif any(identity(record) == identity(line.record) for record in committed):
            found.known.append(line)
        elif committed:
            found.faults.append(
                f"{line.where}: field 'key': {key} is committed with another result, which stands; leave the line out"
            )
        else:
            found.new.append(line)
        first.setdefault(key, line)
    return found


def check_rows(lines: Sequence[Line], official: Official) -> Iterator[str]:
    """A line for each row whose seeds are not those of the table."""
    rows: dict[RunKey, list[Line]] = defaultdict(list)
    for line in lines:
        rows[row_of(line.record.key)].append(line)
    seeds = {row: {line.record.key.seed for line in members} for row, members in rows.items()}
    for row, members in rows.items():
        where, name = members[0].where, str(row).rpartition("/")[0]
        beside = set().union(*(seeds[other] for other in rows if _same_table(other, row)))
        wanted = (official.seeds(row) or set(range(LEAST_SEEDS))) | beside
        wanted |= set(range(min(wanted), max(wanted)))
        committed = {r.key.seed for r in official.of_group(row) if row_of(r.key) == row}
        if lacking := sorted(wanted - seeds[row] - committed):
            yield (
                f"{where}: field 'key.seed': {name} has seeds {ranges(sorted(seeds[row]))} and lacks "
                f"{ranges(lacking)}; every row of a table has the same seeds, run those too"
            )


def _same_table(one: RunKey, other: RunKey) -> bool:
    names = ("benchmark", "protocol", "data", "profile")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def check_sources(lines: Sequence[Line]) -> Iterator[str]:
    """A line for each run of a method that is of another source or package than the method's first."""
    first: dict[str, tuple[object, object]] = {}
    for line in lines:
        key, told = line.record.key, line.record.provenance.get("method")
        mine = (None if belongs(key.method) else line.record.what["source_digest"], told)
        if first.setdefault(key.method, mine) != mine:
            yield (
                f"{line.where}: field 'what.source_digest': {key.method} was run from another source or package than "
                "its first line; run all its seeds at one commit"
            )


def check_tables(lines: Sequence[Line], official: Official) -> Iterator[str]:
    """A line for each hole that the tables would have with these runs and do not have without."""
    new: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        new[line.record.key.benchmark].append(f"{canonical(line.record.to_json())}\n")
    paths = {name: official.into / "records" / f"{name}.jsonl" for name in new}
    before = {name: path.read_text(encoding="utf-8") if path.exists() else "" for name, path in paths.items()}
    after = {name: before[name] + "".join(new[name]) for name in new}
    for hole in sorted(_holes(after) - _holes(before)):
        yield f"{official.into}: the tables would have a hole: {hole}; submit runs that stand beside those of the table"


def _holes(texts: Mapping[str, str]) -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            (Path(folder) / f"{name}.jsonl").write_text(text, encoding="utf-8")
        return {str(hole) for hole in collect(Path(folder)).holes}
