"""The command ``clcr bench``: measures step by step, tells, keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.archive import write_bytes
from benchmarks.errors import InputError
from benchmarks.runner import bench

if TYPE_CHECKING:
    from benchmarks.console import Console
    from benchmarks.runner.plan import Place


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
        _keep(kept, kept_at)
    if drawn_at:
        bench.draw(kept, drawn_at)
    return 0


def run_forward(place: Place, budget_s: float, out: str | None, console: Console) -> int:
    """Measure the forward pass of each configuration that ``place.out`` has a record of: "inference" in what is kept,
    beside "rows", the training steps, of which there are none here."""
    kept_at, keys = _json_path(out) if out else None, bench.configurations(place.out)
    machine = bench.machine(place.device)
    found = bench.forward(keys, place, budget_s)
    kept = {**bench.record(bench.Grid((), ()), machine, []), "inference": found}
    console.data(kept)
    done, skipped = ([row for row in found if ("skipped" in row) == wanted] for wanted in (False, True))
    console.table("forward passes, a sample", bench.FORWARD_COLUMNS, [bench.as_forward_table(row) for row in done])
    for row in skipped:
        console.say(f"skipped: {row['run']} ({row['skipped']}); see --budget")
    if kept_at:
        _keep(kept, kept_at)
    return 0


def _keep(kept: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, f"{json.dumps(kept, indent=1)}\n".encode())


def _json_path(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or path.suffix != ".json":
        raise InputError(f"--out {text}: not a file that ends in .json; choose another one")
    return path
