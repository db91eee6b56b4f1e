"""``clcr run``: the runs of a selection that have not ended, planned into teams and given to a launcher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace

from benchmarks.console import Console, Watch
from benchmarks.errors import InputError, unknown
from benchmarks.runner import claims, launch, plan, slots, store, teams
from benchmarks.runner.launch import Crew, Result
from benchmarks.runner.plan import Place, Planned, Selection

DONE, FAILED, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class How:
    """How runs are executed, as on the command line: --launcher, --seeds-together, --per-gpu, --retry-failed,
    --dry-run."""

    launcher: str = "local"
    together: str = "auto"
    per_gpu: str = "1"
    retry_failed: bool = False
    dry_run: bool = False


def leaves(place: Place, minutes: float, epochs: int, keep: str) -> Place:
    """The place with the time and the epochs between checkpoints, and the weights that runs keep. InputError for what
    is not one."""
    if not 0 <= minutes < math.inf:
        raise InputError(f"--checkpoint-minutes {minutes}: must be 0 or more")
    if epochs < 0:
        raise InputError(f"--checkpoint-epochs {epochs}: must be 0 or more")
    if keep and keep not in store.WEIGHTS:
        raise unknown("weights", keep, store.WEIGHTS, "--keep")
    return replace(place, checkpoint_s=60 * minutes, checkpoint_epochs=epochs, keep=keep)


def run(selection: Selection, place: Place, crew: Crew, how: How, console: Console) -> int:
    """Execute what has not ended; the exit code. InputError for bad input, before anything is executed."""
    with launch.ahead(crew) if how.launcher == "local" else nullcontext(crew) as ready:
        return _sweep(selection, place, ready, how, console)


def _sweep(selection: Selection, place: Place, crew: Crew, how: How, console: Console) -> int:
    together, per_gpu = teams.parse_together(how.together), slots.parse(how.per_gpu)
    launcher = launch.launcher(how.launcher)
    keys, notes = plan.select(selection, place.cache)
    plan.check_configs(keys, place)
    store.check_out(place.out)
    console.notes(notes)
    planned = plan.plan(keys, place, heal=console.note)
    settled = {"done"} if how.retry_failed else {"done", "failed"}
    to_do = [run for run in planned if run.state not in settled]
    ended = [run for run in planned if run.state in settled]
    console.note(f"{len(keys)} runs, {len(ended)} ended already, {len(to_do)} to do")
    crew, place = slots.share(crew, place, to_do, per_gpu, console.note)
    work = launch.longest_first(teams.teams(planned, place, together, tell=console.note, settled=settled), planned)
    if how.dry_run:
        text = launch.dry_run(how.launcher, work, place, crew)
        console.data({"script": text})
        console.say(text)
        return DONE
    if how.retry_failed:
        crew = replace(crew, retry_before=claims.now(store.runs_folder(place.out)))
    with Watch(console, to_do, crew.workers) as watch:
        try:
            results = launcher(work, place, crew, watch) if work else []
        except KeyboardInterrupt:
            count = sum(run.state == "done" for run in ended) + watch.ended["done"] + watch.ended["kept"]
            console.fault(f"interrupted with {count} of {len(keys)} runs done; the same command goes on")
            return INTERRUPTED
    store.tidy(place.out, keys)
    return _finish(ended, results, console)


def _finish(ended: Sequence[Planned], results: Sequence[Result], console: Console) -> int:
    """Tell how it went. ended: what was not executed again."""
    before = [Result(run.key, "failed", error=run.error) for run in ended if run.state == "failed"]
    told = [*before, *results]
    count = {state: sum(r.state == state for r in told) for state in ("done", "kept", "failed", "refused")}
    count["kept"] += len(ended) - len(before)
    console.data({**count, "runs": [asdict(result) for result in told]})
    bad = [result for result in told if result.state not in ("done", "kept")]
    refused = next((result.error for result in bad if result.state == "refused"), "")
    rows = [(r.key, r.error) for r in bad if r.error != refused]  # that one is told last, once for all its runs
    if rows:
        console.table("not done", ("run", "why"), rows)
    console.say(f"{count['done']} executed, {count['kept']} done before, {len(bad)} not done")
    if count["failed"]:
        console.say("log.txt in a failed run's folder tells more; `clcr run --retry-failed` tries them again")
    if refused:
        raise InputError(refused)
    return FAILED if bad else DONE
