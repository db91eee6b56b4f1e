"""What ``clcr submit`` does: read, judge, and, where every line holds, merge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.console import Console
from benchmarks.errors import InputError, one_line
from benchmarks.record import RunKey
from benchmarks.report.layout import ranges
from benchmarks.submission.judging import judge, row_of
from benchmarks.submission.merging import merge
from benchmarks.submission.official import Official
from benchmarks.submission.reading import Line, Submission, read
from benchmarks.submission.rows import Sorted, check_rows, check_sources, check_tables, sort

REJECTED = 1
SHOWN = 40


def run(folder: Path, into: Path, cache: Path, check_only: bool, console: Console) -> int:
    """Hold a folder against the rules and merge it into results, whole or not at all; the exit code. Where something
    cannot be read, that alone is told: the rest would follow from it."""
    if not (into / "records").is_dir():
        raise InputError(f"--into {into}: holds no records; name a folder of results, like the suite's own")
    if folder.resolve() == into.resolve():
        raise InputError(f"{folder}: is the target itself; submit the folder that your runs are in")
    found = read(folder)
    official = Official(into, cache)
    lines = sort(found.lines, official)
    if faults := found.faults or [*lines.faults, *_judged(lines, found, official)]:
        return _reject(faults, console)
    files = [] if check_only or not lines.new else merge(into, lines.new, found)
    _tell(lines, files, check_only, console)
    return 0


def _judged(lines: Sorted, found: Submission, official: Official) -> list[str]:
    """What does not hold, run by run; the rows and tables are looked at where every run holds."""
    faults = []
    for line in lines.new:
        try:
            judge(line, found, official)
        except InputError as error:
            faults.append(str(error))
    if not faults and not lines.faults:
        faults += [*check_sources(lines.new), *check_rows([*lines.new, *lines.known], official)]
    return faults or list(check_tables(lines.new, official))


def _reject(faults: Sequence[str], console: Console) -> int:
    texts = [one_line(fault) for fault in faults]
    console.data({"accepted": 0, "known": 0, "written": [], "rejected": texts, "rows": []})
    for text in texts[:SHOWN]:
        console.fault(text)
    if len(texts) > SHOWN:
        console.fault(f"and {len(texts) - SHOWN} more; nothing was merged")
    return REJECTED


def _tell(lines: Sorted, files: Sequence[Path], check_only: bool, console: Console) -> None:
    rows = _rows(lines.new)
    console.data({"accepted": len(lines.new), "known": len(lines.known), "written": [str(path) for path in files],
                  "rejected": [], "rows": rows})  # fmt: skip
    if rows:
        console.table("accepted", ("row", "seeds", "from"), [tuple(row.values()) for row in rows])
    done = "nothing was merged, as asked" if check_only else f"{len(files)} files written"
    console.say(f"{len(lines.new)} runs accepted, {len(lines.known)} there already; {done}")


def _rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    rows: dict[RunKey, list[Line]] = defaultdict(list)
    for line in lines:
        rows[row_of(line.record.key)].append(line)
    return [
        {
            "row": str(row).rpartition("/")[0],
            "seeds": ranges(sorted(line.record.key.seed for line in members)),
            "from": members[0].record.provenance.get("method", {}).get("url", "this suite"),
        }
        for row, members in rows.items()
    ]
