"""``clcr plan``: the runs of a selection, their state, what they will cost and from where that is known."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.console import Console, duration, size
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import costs, measured, plan, store
from benchmarks.runner.logs import NAME as LOG
from benchmarks.runner.measured import Crew, Table
from benchmarks.runner.plan import Place, Planned


@dataclass(frozen=True)
class How:
    """Who would execute the runs, and how long their steps may be timed before (None: not at all)."""

    workers: int
    devices: tuple[str, ...]
    measure_s: float | None = None

    def __post_init__(self) -> None:
        if self.measure_s is not None and not self.measure_s > 0:
            raise InputError(f"--measure {self.measure_s:g}: must be a number of seconds above 0")


def run(keys: Sequence[RunKey], notes: Sequence[str], place: Place, how: How, console: Console) -> int:
    """Tell what the runs are and cost; with ``measure_s`` time their steps first. Executes none of them."""
    place = replace(place, device=how.devices[0])
    console.notes(notes)
    planned = plan.plan(keys, place)
    if how.measure_s is not None:
        _measure(planned, place, Crew(how.workers, how.devices, how.measure_s), console)
        planned = plan.plan(keys, place)
    to_do = [run for run in planned if run.state != "done"]
    start_s = Table(place.cache, place.device).start_s
    wall = costs.wall_s([(run.key, run.cost) for run in to_do], how.workers, start_s)
    known = [run.predicted_s for run in to_do if run.predicted_s is not None]
    sources = costs.sources([run.cost for run in to_do])
    console.data({
        "count": len(planned), "to_do": len(to_do), "predicted_s": sum(known) if len(known) == len(to_do) else None,
        "workers": how.workers, "wall_s": wall, "sources": sources, "notes": list(notes),
        "runs": [row(run) for run in planned],
    })  # fmt: skip
    rows = [(run.key, run.state, duration(run.predicted_s), size(run.predicted_memory_bytes), run.source)
            for run in planned]  # fmt: skip
    console.table("runs", ("run", "state", "time", "memory", "known from"), rows)
    console.say(f"{len(planned)} runs, {len(to_do)} to do{_summary(known, len(to_do), wall, how)}")
    for source, count in sources.items():
        hint = "; `clcr plan --measure` times their steps" if source == "unknown" else ""
        console.say(f"  {count} by {source}{hint}" if known else f"  {count} {source}{hint}")
    return 0


def row(run: Planned) -> dict[str, Any]:
    """A planned run as plain JSON."""
    return {**asdict(run), "folder": run.key.folder}


def why(run: Planned, out: Path) -> str:
    """Why a run is not done, in one line; of a failed one also where to read more and what tries it again."""
    said = " ".join(run.error.split())
    if run.state != "failed":
        return said
    log = store.folder_of(out, run.key) / LOG
    return f"{said}; {f'read {log}, ' if log.is_file() else ''}then try again with `clcr run --retry-failed`"


def _summary(known: Sequence[float], to_do: int, wall: float | None, how: How) -> str:
    """The time of all runs, in words."""
    parts = [f"{duration(sum(known))} on one worker"] * bool(known)
    if wall is not None and known:
        crew = f"{how.workers} worker{'s' * (how.workers > 1)}"
        parts.append(f"{duration(wall)} with {crew}, from their start on")
    parts += [f"{to_do - len(known)} of unknown time"] * (len(known) < to_do)
    return f": {', '.join(parts)}" if parts else ""


def _measure(planned: Sequence[Planned], place: Place, crew: Crew, console: Console) -> None:
    """Time the steps of every configuration that neither an earlier run here nor a valid row tells of."""
    module = importlib.import_module("benchmarks.runner.teams")
    table = Table(place.cache, place.device)
    told = {(replace(run.key, seed=0), run.together) for run in planned if run.source == costs.HERE}
    teams = module.teams(planned, place, None, tell=console.note)
    new = [team for team in teams if (replace(team[0], seed=0), len(team)) not in told or place.overrides]
    missing = measured.lacking(new, table, place.overrides)
    if missing:
        table.add(*measured.measure(missing, place, crew, console.note))
