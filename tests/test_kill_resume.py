"""kill -9 of the runner and of a worker, then the same command again: the results are those of an undisturbed sweep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks import cli
from benchmarks.runner import claims, store

T = TypeVar("T")
EPOCHS = ["--set", "training.epochs=6"]
METHODS = ["--benchmark", "crema_d", "--data", "twin", "--method", "late_fusion,ogm_ge", "--seeds", "0-2"]
SWEEP = [*METHODS, "--seeds-together", "2", *EPOCHS]  # teams of seeds 0 and 1, and seed 2 alone
RUNS = 6


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))


def start(out: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.cli", "run", *SWEEP, "--out", str(out), "--workers", str(workers)]
    root = Path(__file__).resolve().parent.parent
    return subprocess.Popen([*command, "--json"], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, int]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    counts: dict[str, int] = json.loads(out)
    return counts


def done(out: Path) -> list[str]:
    return sorted(record.key.folder for _, record in store.records(out) if record.status == "done")


def claimed(out: Path) -> list[Path]:
    return [folder for folder in store.run_folders(out) if claims.held(folder)]


def working(out: Path) -> list[claims.Claim]:
    return [owner for folder in claimed(out) if (owner := claims.owner(folder)) is not None]


def until(holds: Callable[[], T], what: str) -> T:
    deadline = time.monotonic() + 120
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def results(out: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the sweep went: predictions, curves, tables without costs."""
    assert cli.main(["report", "--only", "tables", "--quiet", *EPOCHS, "--out", str(out)]) == 0
    paths = [*out.glob("runs/*/*/*/*/predictions.npz"), *out.glob("runs/*/*/*/*/curves.jsonl"), *out.glob("tables/*")]
    return {str(p.relative_to(out)): p.read_bytes() for p in paths if not p.name.startswith("cost.")}


def test_a_sweep_that_was_killed_twice_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert finished(start(calm, 1))["done"] == RUNS

    runner = start(killed, 2)
    until(lambda: done(killed) and claimed(killed), "one run is done and another one is being executed")
    runner.kill()
    runner.communicate()
    until(lambda: not claimed(killed), "the workers die with their runner")
    before = done(killed)
    assert 0 < len(before) < RUNS

    runner = start(killed, 1)
    worker = until(lambda: working(killed), "the next runner goes on")[0]
    os.kill(worker.pid, signal.SIGKILL)
    counts = finished(runner)
    assert (counts["kept"], counts["done"], counts["failed"]) == (len(before), RUNS - len(before), 0)

    assert done(killed) == done(calm)
    assert len(results(calm)) > 2 * RUNS
    assert results(killed) == results(calm)
    assert not list(killed.rglob(".seed-*"))
    assert not list(killed.rglob("*.tmp"))
