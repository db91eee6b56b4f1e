"""Records to tables and figures, without torch: any laptop or CI job rebuilds them from the committed records."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import drawing
from benchmarks.archive import write_bytes
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.report import published, render, sections, site
from benchmarks.report.ablation import ablation_table
from benchmarks.report.collect import Collected, Hole, collect, require_complete
from benchmarks.report.costs import cost_table
from benchmarks.report.examples import Examples
from benchmarks.report.figures import KINDS, SUFFIXES, figures
from benchmarks.report.layout import DATA, Table, count, listed
from benchmarks.report.sections import SECTIONS, compose
from benchmarks.report.sections.data import Data, gather
from benchmarks.report.sections.frame import Made
from benchmarks.report.significance import significance_table
from benchmarks.report.tables import main_table

PUBLISHED = "published.yaml"
PROJECT = Path(__file__).resolve().parents[2] / "results" / PUBLISHED


@dataclass(frozen=True)
class Built:
    """What a report made: the files, the tables in them, and every result that they lack (empty if complete).

    notes: parts that were left out, and why."""

    files: tuple[Path, ...]
    tables: tuple[Table, ...]
    holes: tuple[Hole, ...]
    collected: Collected
    notes: tuple[str, ...] = ()


def build(
    out: Path,
    only: str | None = None,
    partial: bool = False,
    select: Callable[[RunKey], bool] | None = None,
    stale: Collection[RunKey] = (),
) -> Built:
    """<out>/records/*.jsonl -> <out>/tables/{main,ablation,significance,published,cost}.{md,csv,tex}, <out>/figures/*,
    <out>/site/index.html, <out>/REPORT.md, <out>/findings/*.

    The tables of a selection are made but not written: <out>/tables and <out>/figures always hold all that the records
    hold. Everything is made before the first file is written.

    only: a part of ``MAKERS``, or None for all that can be made here. partial: show tables that lack results and name
    in each section what it lacks; otherwise missing, failed, stale, duplicate or mixed results raise
    ``collect.Incomplete`` (an InputError) that lists them, and no file is touched. select: the runs to look at. stale:
    runs whose record no longer fits today's code or data. Published numbers are read from <out>/published.yaml, else
    from the project's.
    """
    if only is not None and only not in MAKERS:
        raise InputError(f"--only {only}: unknown part; known: {', '.join(MAKERS)}")
    if only is not None and LACKS[only]():
        raise InputError(f"--only {only}: {LACKS[only]()}")
    collected = collect(out / "records", select, stale)
    if not collected.groups:
        raise InputError(f"{out / 'records'}: no records of these runs; make some with `clcr run`")
    if not partial:
        require_complete(collected, out / "records")
    numbers = read_published(out)
    if select is not None:
        shown = {group.key.benchmark for group in collected.groups}
        numbers = replace(numbers, numbers=tuple(n for n in numbers.numbers if n.benchmark in shown))
    tables = tables_of(collected, numbers, Examples(out / "predictions"))
    if select is not None:
        return Built((), tables, collected.holes, collected)
    parts = [name for name in MAKERS if only in (None, name)]
    notes = tuple(f"{name} are left out: {LACKS[name]()}" for name in parts if LACKS[name]())
    made = {name: MAKERS[name](collected, tables, out) for name in parts if not LACKS[name]()}
    files = [path for name, contents in made.items() for path in write_part(contents, out, name)]
    return Built(tuple(files), tables, collected.holes, collected, notes)


def read_published(out: Path) -> published.Published:
    """The published numbers beside the records, else those of the project; none where neither file exists."""
    for path in (out / PUBLISHED, PROJECT):
        if path.exists():
            return published.load(path)
    return published.Published()


def tables_of(collected: Collected, numbers: published.Published, examples: Examples) -> tuple[Table, ...]:
    """The five tables; every one says first that it is partial, where it is."""
    tables = (
        main_table(collected),
        ablation_table(collected, numbers),
        significance_table(collected, examples),
        published.published_table(collected, numbers),
        cost_table(collected),
    )
    if not collected.holes:
        return tables
    lacking = listed([str(key) for key in dict.fromkeys(hole.group for hole in collected.holes)])
    warning = f"PARTIAL: {count(len(collected.holes), 'result')} missing, in {lacking}; each section names its own."
    return tuple(replace(table, intro=(warning, *table.intro)) for table in tables)


def write_part(contents: Mapping[str, bytes], out: Path, part: str) -> tuple[Path, ...]:
    """Write the files of a part, each in one step; those of ``MADE`` in its folder that it no longer has go."""
    (out / part).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_bytes(place_of(out, part, name), content)
    for path in (out / part).iterdir():
        if path.name not in contents and MADE.fullmatch(path.name):
            path.unlink()
    return tuple(place_of(out, part, name) for name in contents)


def place_of(out: Path, part: str, name: str) -> Path:
    """Where a file of a part lies: in the folder of the part, or beside it."""
    return out / name if name in BESIDE else out / part / name


def _tables(_: Collected, tables: Sequence[Table], __: Path) -> dict[str, bytes]:
    return {f"{t.name}.{suffix}": make(t).encode() for t in tables for suffix, make in render.RENDERERS.items()}


def _figures(collected: Collected, _: Sequence[Table], out: Path) -> dict[str, bytes]:
    return figures(collected, out)


def _site(collected: Collected, tables: Sequence[Table], out: Path) -> dict[str, bytes]:
    return {site.PAGE: site.make(out, collected, tables)}


def gathered(out: Path) -> Data:
    """What the sections of the findings are made from; InputError names what cannot be read."""
    return gather(out, collect(out / "records"), read_published(out))


def section(out: Path, name: str) -> Made:
    """One section of the findings, from what is below ``out``; no file is written."""
    if drawing.lacking():
        raise InputError(f"analyse {name}: {drawing.lacking()}")
    with drawing.style():
        return sections.load(name).build(gathered(out))


def _findings(collected: Collected, _: Sequence[Table], out: Path) -> dict[str, bytes]:
    return compose.contents(out, collected, read_published(out))


# A part is a folder of <out>: its name -> what makes its files, by name, from the records, their tables and <out>.
MAKERS: dict[str, Callable[[Collected, Sequence[Table], Path], Mapping[str, bytes]]] = {
    "tables": _tables,
    "figures": _figures,
    "site": _site,
    "findings": _findings,
}
# What a part needs and is not here, with the remedy; "" where nothing lacks.
LACKS: dict[str, Callable[[], str]] = {
    "tables": str,
    "figures": drawing.lacking,
    "site": str,
    "findings": drawing.lacking,
}
BESIDE = (compose.REPORT,)  # files that lie beside the folder of their part
MADE = re.compile(
    rf"(?:{'|'.join(KINDS)})_(?:{'|'.join(DATA)})_\w+\.(?:{'|'.join(SUFFIXES)})"
    rf"|(?:{'|'.join(SECTIONS) or compose.SUMMARY})_\w+\.(?:md|csv|{'|'.join(SUFFIXES)})"
)
