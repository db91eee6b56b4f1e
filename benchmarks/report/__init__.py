"""Records to tables, without torch: any laptop or CI job rebuilds every table from the committed records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.archive import write_bytes
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.report import published, render, site
from benchmarks.report.ablation import ablation_table
from benchmarks.report.collect import Collected, Hole, collect, require_complete
from benchmarks.report.costs import cost_table
from benchmarks.report.examples import Examples
from benchmarks.report.layout import Table, count, listed
from benchmarks.report.significance import significance_table
from benchmarks.report.tables import main_table

PUBLISHED = "published.yaml"
PROJECT = Path(__file__).resolve().parents[2] / "results" / PUBLISHED


@dataclass(frozen=True)
class Built:
    """What a report made: the files, the tables in them, and every result that they lack (empty if complete)."""

    files: tuple[Path, ...]
    tables: tuple[Table, ...]
    holes: tuple[Hole, ...]
    collected: Collected


def build(
    out: Path,
    only: str | None = None,
    partial: bool = False,
    select: Callable[[RunKey], bool] | None = None,
    stale: Collection[RunKey] = (),
) -> Built:
    """<out>/records/*.jsonl -> <out>/tables/{main,ablation,significance,published,cost}.{md,csv,tex}, site/index.html.

    The tables of a selection are made but not written: <out>/tables always holds all that the records hold.

    only: one of ``MAKERS`` or None, which is all that there is. partial: show tables that lack results and name in
    each section what it lacks; otherwise missing, failed, stale, duplicate or mixed results raise
    ``collect.Incomplete`` (an InputError) that lists them, and no file is touched. select: the runs to look at.
    stale: runs whose record no longer fits today's code or data. Published numbers are read from
    <out>/published.yaml, else from the project's.
    """
    if only is not None and only not in MAKERS:
        raise InputError(f"--only {only}: unknown part; known: {', '.join(MAKERS)}")
    collected = collect(out / "records", select, stale)
    if not collected.groups:
        raise InputError(f"{out / 'records'}: no records of these runs; make some with `clcr run`")
    if not partial:
        require_complete(collected, out / "records")
    tables = tables_of(collected, read_published(out), Examples(out / "predictions"))
    makers = [maker for part, maker in MAKERS.items() if only in (None, part)] if select is None else []
    files = tuple(path for maker in makers for path in maker(out, collected, tables))
    return Built(files, tables, collected.holes, collected)


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


def write_tables(out: Path, _: Collected, tables: Sequence[Table]) -> tuple[Path, ...]:
    """Write every table in every format to <out>/tables, each file in one step."""
    folder = out / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in tables:
        for suffix, renderer in render.RENDERERS.items():
            path = folder / f"{table.name}.{suffix}"
            write_bytes(path, renderer(table).encode())
            paths.append(path)
    return tuple(paths)


# What a report is made of: each maker writes its files from what was collected and says which.
MAKERS: dict[str, Callable[[Path, Collected, Sequence[Table]], tuple[Path, ...]]] = {
    "tables": write_tables,
    "site": site.make,
}
