"""The command ``clcr bench``: measures step by step, tells, keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.archive import write_bytes
from benchmarks.errors import InputError
from benchmarks.runner import bench

if TYPE_CHECKING:
    from benchmarks.console import Console


def run(grid: bench.Grid, out: str | None, figure: str | None, console: Console) -> int:
    """Measure the grid; the measurements go to the file ``out`` and are drawn in ``figure``, where these are named."""
    kept_at, drawn_at = _json_path(out) if out else None, bench.figure_path(figure) if figure else None
    machine, rows = bench.machine(grid.device), []
    for row in bench.measure(grid, machine["ceilings"]):
        console.note(" ".join(bench.as_table(row)))
        rows.append(row)
    kept = bench.record(grid, machine, rows)
    console.data(kept)
    done, skipped = ([row for row in rows if ("skipped" in row) == wanted] for wanted in (False, True))
    console.table("training steps", bench.COLUMNS, [bench.as_table(row) for row in done])
    for row in skipped:
        console.say(f"skipped: {' '.join(bench.as_table(row)[:4])} seeds ({row['skipped']}); see --budget")
    if kept_at:
        kept_at.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(kept_at, f"{json.dumps(kept, indent=1)}\n".encode())
    if drawn_at:
        bench.draw(kept, drawn_at)
    return 0


def _json_path(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or path.suffix != ".json":
        raise InputError(f"--out {text}: not a file that ends in .json; choose another one")
    return path
