"""What two worker processes make of two cores, and how long a worker takes to start. Run it by hand.

    python tests/bench_workers.py [--workers 1 2] [--rounds 3] [--seeds 0-15] [--patience 600]

Sweeps of the same runs with so many workers take turns, each into an empty folder, timed from the command to its end;
the median counts. Before each the machine is given time to be quiet: what other processes use of its cores is noted
before and after every sweep, so that a reader sees which of them was disturbed. Then the seconds from the request of a
worker until it can work, for the first of a sweep and for those after it. Writes results/bench/workers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.runner import environment, launch, processes, store  # noqa: E402
from benchmarks.runner.plan import ENGINE, Place  # noqa: E402

SELECTION = ("--benchmark", "ave,cmu_mosi", "--data", "twin", "--method", "clcr,late_fusion", "--profile", "tiny")
TOGETHER = ("--seeds-together", "8")
SAMPLE_S = 5.0


def busy_cores(seconds: float = SAMPLE_S) -> float:
    """How many cores the whole machine uses, while this process sleeps."""

    def ticks() -> int:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4]  # without idle and waiting for disks

    before, began = ticks(), time.perf_counter()
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.perf_counter() - began)


def quiet(limit: float, patience_s: float) -> float:
    """Wait until others use at most so many cores, or for as long as that; returns what they use."""
    deadline = time.monotonic() + patience_s
    while (used := busy_cores()) > limit and time.monotonic() < deadline:
        pass
    return used


def sweep(workers: int, chosen: argparse.Namespace) -> dict[str, float]:
    """One sweep: seconds of all and of its trainings, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.cli", "run", *SELECTION, *TOGETHER, "--seeds", chosen.seeds]
        command += ["--device", "cpu", "--quiet"]
        before = quiet(chosen.limit, chosen.patience)
        began = time.perf_counter()
        subprocess.run([*command, "--workers", str(workers), "--out", folder], cwd=ROOT, check=True)
        wall_s = time.perf_counter() - began
        after = busy_cores()
        trained = [record.time_s for _, record in store.records(Path(folder))]
    told = {"wall_s": wall_s, "training_s": sum(trained), "others_before": before, "others_after": after}
    return {"workers": workers, "runs": len(trained), **{name: round(value, 2) for name, value in told.items()}}


def starts(rounds: int) -> dict[str, float]:
    """Median seconds from request to readiness, of a sweep's first worker and of those after it."""
    first, following = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), Path(folder))
        for _ in range(rounds):
            starter = processes.starter(ENGINE)
            times = [_start(starter, place) for _ in range(1 + rounds)]
            starter.end()
            first.append(times[0])
            following += times[1:]
    return {"first_s": round(statistics.median(first), 3), "following_s": round(statistics.median(following), 3)}


def _start(starter: processes.Starter, place: Place) -> float:
    began = time.perf_counter()
    worker = launch._Worker(starter, place, ENGINE)
    while worker.pid is None:
        assert worker.receive() is not None
    return time.perf_counter() - began


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", default="0-15")
    parser.add_argument("--limit", type=float, default=0.2, help="cores that others may use when a sweep starts")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for that before each sweep")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench" / "workers.json")
    chosen = parser.parse_args()
    sweeps = []
    for _ in range(chosen.rounds):
        for workers in chosen.workers:
            sweeps.append(sweep(workers, chosen))
            print(json.dumps(sweeps[-1]), flush=True)
    walls = {n: statistics.median(s["wall_s"] for s in sweeps if s["workers"] == n) for n in chosen.workers}
    found = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        **environment.provenance(torch.device("cpu")),
        "selection": " ".join((*SELECTION, *TOGETHER, "--seeds", chosen.seeds)),
        "sweeps": sweeps,
        "median_wall_s": walls,
        "speedup": {n: round(walls[chosen.workers[0]] / wall, 3) for n, wall in walls.items()},
        "start": starts(5),
    }
    print(json.dumps(found, indent=1))
    chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
