"""Which runs train together: those that differ in the seed alone, in teams that the plan fixes.

A team's numbers are its own to the last bit: batched arithmetic rounds by the number of seeds. So its composition
depends on the runs that were asked for and on the device, never on the number of workers or on what was interrupted: a
run that is missing from a recorded team trains with that team again.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Any

from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import store
from benchmarks.runner.plan import ENGINE, Place, Planned, Team, options

AUTO = "auto"
MOST = 32


def parse_together(text: str) -> int | None:
    """What --seeds-together says: a number, or None for "auto". InputError for anything else."""
    if text == AUTO:
        return None
    if text.isdecimal() and 1 <= int(text) <= MOST:
        return int(text)
    raise InputError(f"--seeds-together {text}: not a number of seeds from 1 to {MOST}; write auto, 1 or 8")


def teams(planned: Sequence[Planned], place: Place, together: int | None, engine: str = ENGINE) -> list[Team]:
    """The runs to do, in teams of at most ``together`` seeds (None: as many as the engine finds best on the device).

    Every run that is not done is in one team; a team may hold runs that are done, as companions of one that is not.
    """
    module = importlib.import_module(engine)
    chosen = options(place, engine)
    found: list[Team] = []
    for _, alike in groupby(planned, key=lambda run: replace(run.key, seed=0)):
        runs = list(alike)
        missing = [run.key for run in runs if run.state != "done"]
        if missing:
            broken = _recorded(runs, place) if len(missing) < len(runs) else []
            rest = [key for key in missing if not any(key in team for team in broken)]
            found += broken + _new(rest, together, module, chosen)
    return found


def _recorded(runs: Sequence[Planned], place: Place) -> list[Team]:
    """Teams that finished runs were trained in and of which some are missing, as an interruption leaves them."""
    known = {run.key.seed: run for run in runs}
    found: dict[Team, None] = {}
    for run in runs:
        if run.state == "done":
            with suppress(InputError):
                record = store.read_record(store.folder_of(place.out, run.key))
                seeds = record.provenance.get("together", ()) if record else ()
                if all(seed in known for seed in seeds) and any(known[seed].state != "done" for seed in seeds):
                    found[tuple(known[seed].key for seed in seeds)] = None
    return list(found)


def _new(keys: Iterable[RunKey], together: int | None, engine: Any, chosen: Any) -> list[Team]:
    """Teams of seeds whose epochs have equally many steps, in the order of the seeds."""
    by_mark: dict[Any, list[RunKey]] = {}
    alone: list[Team] = []
    for key in keys:
        mark = None
        if together != 1:
            with suppress(InputError):  # bad input is told when the run is executed
                mark = engine.mark(key, chosen)
        if mark is None:
            alone.append((key,))
        else:
            by_mark.setdefault(mark, []).append(key)
    found = []
    for members in by_mark.values():
        size = together or max(1, min(MOST, engine.best_together(members[0], chosen)))
        found += [tuple(members[start : start + size]) for start in range(0, len(members), size)]
    return sorted([*alone, *found], key=lambda team: team[0].seed)
