"""Records with lines of analyses beside them, made up for tests of the findings: never results of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthetic_records import append, make, write_records

from benchmarks.record import RunKey, RunRecord
from benchmarks.report.collect import collect
from benchmarks.report.published import Published
from benchmarks.report.sections.analyses import Analysis
from benchmarks.report.sections.data import Data, gather
from benchmarks.report.sections.frame import Made, unsupported, words_of

MOSI, UCF, DIGITS = "cmu_mosi.transcripts", "ucf101.subset3", "av_digits.paired"
Values = Callable[[RunKey], Mapping[str, Any]]
Scores = Mapping[tuple[str, str], float]  # by method and variant


def records(
    place: str, levels: Scores, seeds: Iterable[int] = range(5), data: str = "real", profile: str = "open"
) -> list[RunRecord]:
    """A record of each row and seed; the main metric is the level plus a thousandth of the seed."""
    benchmark, _, protocol = place.partition(".")
    metric = "mae" if benchmark.startswith("cmu") else "accuracy"
    return [
        replace(
            make(RunKey(benchmark, protocol, data, profile, *row, seed), {metric: level + seed / 1000}),
            selection={"metric": metric, "epoch": 2, "value": level},
        )
        for row, level in levels.items()
        for seed in seeds
    ]


def write_lines(out: Path, name: str, made: Iterable[RunRecord], values: Values) -> Path:
    """Append a line of the analysis ``name`` for each record."""
    lines = (Analysis(name, record.key, record.digest, "0" * 64, values(record.key)).line for record in made)
    append(out / "analyses", ((name, line) for line in lines))
    return out


def data_of(out: Path, published: Published | None = None) -> Data:
    """What sections are built from."""
    return gather(out, collect(out / "records"), published or Published())


def gathered(out: Path, made: Iterable[RunRecord], name: str, values: Values) -> Data:
    """Records and an analysis of them, read back."""
    kept = list(made)
    write_records(out, kept)
    return data_of(write_lines(out, name, kept, values))


def check(made: Made) -> None:
    """Every number of every sentence and claim stands in the table that it names; every verdict is a known word."""
    known = {table.name: words_of(table) for table in made.tables}
    said = [(s.text, s.table) for s in made.sentences] + [(f"{c.number} {c.settle}", c.table) for c in made.claims]
    for text, table in said:
        if table:
            assert not unsupported(text, known[table]), text
        else:
            assert not re.search(r"\d", text.replace("results/", "")), text


def text(made: Made) -> str:
    """All sentences."""
    return "\n".join(sentence.text for sentence in made.sentences)


def cell(made: Made, table: str, column: str, *starts: str) -> str:
    """The text of a cell: of the row that begins with these cells, in any section of a table."""
    found = next(t for t in made.tables if t.name == table)
    for sections in found.parts.values():
        for section in sections:
            for row in section.rows:
                if tuple(c.text for c in row[: len(starts)]) == starts:
                    return row[section.columns.index(column)].text
    raise AssertionError(f"no row {starts} in {table}")
