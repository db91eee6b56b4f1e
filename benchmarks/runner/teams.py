"""Which runs train together: those that differ in the seed alone, in teams that the plan fixes.

A team's numbers are its own to the last bit: batched arithmetic rounds by the number of seeds. So its composition
depends on the runs that were asked for and on the device, never on the number of workers or on what was interrupted: a
run that is missing from a recorded team trains with that team again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Any

from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import store
from benchmarks.runner.measured import keep_choices, name_of
from benchmarks.runner.plan import ENGINE, Place, Planned, Team, options
from benchmarks.runner.together import Choice

AUTO = "auto"
MOST = 32


def parse_together(text: str) -> int | None:
    """What --seeds-together says: a number, or None for "auto". InputError for anything else."""
    if text == AUTO:
        return None
    if text.isdecimal() and 1 <= int(text) <= MOST:
        return int(text)
    raise InputError(f"--seeds-together {text}: not a number of seeds from 1 to {MOST}; write auto, 1 or 8")


def teams(
    planned: Sequence[Planned],
    place: Place,
    together: int | None,
    engine: str = ENGINE,
    tell: Callable[[str], None] = lambda _: None,
    settled: Collection[str] = ("done",),
) -> list[Team]:
    """The runs to do, in teams of at most ``together`` seeds (None: as many as the engine finds best on the device).

    Every run whose state is not ``settled`` is in one team; a team may hold settled runs, as companions of others.
    ``tell`` hears how many seeds were chosen and why; the cache keeps it for the records.
    """
    module = importlib.import_module(engine)
    chosen = options(place, engine)
    found: list[tuple[list[Team], list[list[RunKey]]]] = []
    for _, alike in groupby(planned, key=lambda run: replace(run.key, seed=0)):
        runs = list(alike)
        missing = [run.key for run in runs if run.state not in settled]
        if missing:
            broken = _recorded(runs, missing, place) if len(missing) < len(runs) else []
            rest = [key for key in missing if not any(key in team for team in broken)]
            found.append((broken, _alike(rest, together, module, chosen)))
    groups = [group for _, parts in found for group in parts if len(group) > 1]
    sizes = dict(zip(map(tuple, groups), _sizes(groups, together, module, chosen), strict=True))
    _note(sizes, place, tell)
    return [team for broken, parts in found for team in broken + _cut(parts, sizes)]


def _recorded(runs: Sequence[Planned], missing: Collection[RunKey], place: Place) -> list[Team]:
    """Teams that finished runs were trained in and of which some are missing, as an interruption leaves them."""
    known = {run.key.seed: run for run in runs}
    found: dict[Team, None] = {}
    for run in runs:
        if run.state == "done":
            with suppress(InputError):
                record = store.read_record(store.folder_of(place.out, run.key))
                seeds = record.provenance.get("together", ()) if record else ()
                if all(seed in known for seed in seeds) and any(known[seed].key in missing for seed in seeds):
                    found[tuple(known[seed].key for seed in seeds)] = None
    return list(found)


def _alike(keys: Iterable[RunKey], together: int | None, engine: Any, chosen: Any) -> list[list[RunKey]]:
    """Runs that can be one program: seeds whose epochs have equally many steps, in the order of the seeds."""
    by_mark: dict[Any, list[RunKey]] = {}
    for key in keys:
        mark = None
        if together != 1:
            with suppress(InputError):  # bad input is told when the run is executed
                mark = engine.mark(key, chosen)
        by_mark.setdefault(key if mark is None else ("mark", mark), []).append(key)
    return list(by_mark.values())


def _sizes(groups: Sequence[Sequence[RunKey]], together: int | None, engine: Any, chosen: Any) -> list[Choice]:
    """How many seeds of each group go together."""
    if together is not None:
        return [Choice(together, "as asked for")] * len(groups)
    found: list[Choice] = engine.best_together(groups, chosen)
    return [replace(choice, seeds=max(1, min(MOST, choice.seeds))) for choice in found]


def _cut(groups: Sequence[Sequence[RunKey]], sizes: Mapping[Team, Choice]) -> list[Team]:
    """The teams of the groups of one configuration, by their first seeds."""
    found: list[Team] = []
    for group in map(tuple, groups):
        size = sizes[group].seeds if group in sizes else 1
        found += [group[start : start + size] for start in range(0, len(group), size)]
    return sorted(found, key=lambda team: team[0].seed)


def _note(sizes: Mapping[Team, Choice], place: Place, tell: Callable[[str], None]) -> None:
    """Tell the choices, those of one number in one line, and keep them."""
    by_number: dict[int, list[tuple[RunKey, Choice]]] = {}
    for group, choice in sizes.items():
        by_number.setdefault(choice.seeds, []).append((group[0], choice))
    for number, found in by_number.items():
        key, choice = found[0]
        how = f"up to {number} seeds together" if number > 1 else "seed by seed"
        tell(f"{len(found)} configurations train {how}; {key.benchmark} {key.method}: {choice.why}")
    if sizes:
        kept = {name_of(group[0], place.overrides): choice for group, choice in sizes.items()}
        keep_choices(place.cache, place.device, kept)
