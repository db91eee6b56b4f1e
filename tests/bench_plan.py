"""How well ``clcr plan`` predicts sweeps from steps that it times here. Run it by hand; an hour for all of it.

    python tests/bench_plan.py [--sweep twins ucf101 ...] [--workers 2] [--out results/bench/plan.json]

Each sweep is planned in an empty folder, so that no record of any machine is known, its steps are timed, and then it is
executed by the launcher, with this file as its engine: the real one, with a note of the processor time that a team
takes. Where others use the machine, that is the figure to compare with; ``time_s`` of the records goes on while a
process waits. Sweeps of open sets need prepared data in $CLCR_CACHE. Rows of a sweep that is not measured now stay.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])

from benchmarks import cli  # noqa: E402
from benchmarks.record import RunKey, RunRecord  # noqa: E402
from benchmarks.runner import environment, launch, plan, processes, store, teams  # noqa: E402
from benchmarks.runner import execute as real  # noqa: E402
from benchmarks.runner.execute import Options, best_together, describe, mark, warm_up  # noqa: E402, F401 (of an engine)

TWINS = "crema_d,kinetics_sounds,ave,ucf101,cmu_mosi,cmu_mosei"
OPEN = ("--data", "real", "--profile", "open", "--seeds", "0-4")
SWEEPS = {
    "twins": ("--benchmark", TWINS, "--data", "twin", "--variant", "all"),
    "ucf101": ("--benchmark", "ucf101", "--protocol", "subset3", *OPEN),
    "cmu_mosi utterance": ("--benchmark", "cmu_mosi", "--protocol", "utterance", *OPEN),
    "cmu_mosi transcripts": ("--benchmark", "cmu_mosi", "--protocol", "transcripts", "--variant", "all", *OPEN),
    "av_digits": ("--benchmark", "av_digits", *OPEN),
    "ravdess": ("--benchmark", "ravdess", "--protocol", "actor_disjoint", "--variant", "all", *OPEN),
}
PROCESSOR_S = "processor_s"


def execute(
    keys: Sequence[RunKey],
    options: Options,
    folders: Sequence[Path],
    report: Callable[[Any], None],
    stop: Callable[[], bool] = lambda: False,
) -> list[RunRecord]:
    """The engine's own; its records say what processor time a run took, its share of the team's."""
    began = time.process_time()
    records = real.execute(keys, options, folders, report, stop)
    spent = {PROCESSOR_S: (time.process_time() - began) / len(keys)}
    return [replace(record, provenance={**record.provenance, **spent}) for record in records]


def planned(arguments: Sequence[str], *more: str) -> dict[str, Any]:
    """What ``clcr plan --json`` says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert cli.main(["plan", *arguments, *more, "--json", "--quiet"]) == 0
    found: dict[str, Any] = json.loads(said.getvalue())
    return found


def sweep(name: str, workers: int, folder: Path) -> dict[str, Any]:
    """Predict and execute one sweep."""
    arguments = [*SWEEPS[name], "--out", str(folder / "out"), "--workers", str(workers), "--device", "cpu"]
    loads = [os.getloadavg()[0]]
    began = time.monotonic()
    planned(arguments, "--measure", "600")
    measured_s = time.monotonic() - began
    began = time.monotonic()
    foreseen = planned(arguments)
    plan_s = time.monotonic() - began
    assert set(foreseen["sources"]) == {"bench"}, foreseen["sources"]
    keys = [RunKey(**run["key"]) for run in foreseen["runs"]]
    place = plan.Place(folder / "out", cli.cache_folder(), "cpu")
    groups = teams.teams(plan.plan(keys, place), place, None)
    began = time.monotonic()
    launch.local(groups, place, launch.Crew(workers, ("cpu",), "bench_plan"), lambda event: None)
    wall_s = time.monotonic() - began
    loads.append(os.getloadavg()[0])
    records = {key: store.read_record(store.folder_of(place.out, key)) for key in keys}
    rows = [_row(key, run["predicted_s"], records[key]) for key, run in zip(keys, foreseen["runs"], strict=True)]
    return {
        "sweep": name,
        "runs": len(keys),
        "teams": len(groups),
        "load_before_and_after": [round(load, 2) for load in loads],
        "timing_the_steps_s": round(measured_s, 1),
        "planning_s": round(plan_s, 2),
        **_sums(rows),
        "workers": workers,
        "predicted_wall_s": round(foreseen["wall_s"], 1),
        "wall_s": round(wall_s, 1),
        "by_method": [{"method": method, **_sums(part)} for method, part in _parts(rows).items()],
    }


def _row(key: RunKey, predicted: float, record: RunRecord | None) -> dict[str, Any]:
    assert record is not None
    assert record.status == "done", record.error
    name = f"{key.benchmark} {key.method}{'' if key.variant == 'full' else ', ablations'}"
    spent = {"time_s": record.time_s, PROCESSOR_S: record.provenance[PROCESSOR_S]}
    return {"name": name, "predicted_s": predicted, **spent}


def _parts(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return found


def _sums(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    sums = {name: sum(row[name] for row in rows) for name in ("predicted_s", PROCESSOR_S, "time_s")}
    ratios = {f"predicted_to_{name}": sums["predicted_s"] / sums[name] for name in (PROCESSOR_S, "time_s")}
    return {name: round(value, 3) for name, value in {**sums, **ratios}.items()}


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sweep", nargs="+", default=list(SWEEPS), choices=list(SWEEPS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    kept = json.loads(chosen.out.read_text())["sweeps"] if chosen.out and chosen.out.is_file() else []
    found = []
    for name in chosen.sweep:
        with tempfile.TemporaryDirectory() as folder:
            (cache := Path(folder) / "cache").mkdir()
            for part in ("prepared", "language"):
                (cache / part).symlink_to(cli.cache_folder().resolve() / part)
            before, os.environ["CLCR_CACHE"] = os.environ.get("CLCR_CACHE"), str(cache)
            found.append(sweep(name, chosen.workers, Path(folder)))
            os.environ.pop("CLCR_CACHE")
            os.environ |= {} if before is None else {"CLCR_CACHE": before}
        print(json.dumps(found[-1], indent=1))
        if chosen.out:
            rest = [row for row in kept if row["sweep"] not in {row["sweep"] for row in found}]
            origin = {"date": time.strftime("%Y-%m-%d"), **environment.provenance(real.torch.device("cpu"))}
            origin["threads_per_worker"] = int(processes.WORKER_ENVIRONMENT["OMP_NUM_THREADS"])
            del origin["threads"]  # of this process, which trains nothing
            chosen.out.write_text(json.dumps({**origin, "sweeps": [*rest, *found]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
