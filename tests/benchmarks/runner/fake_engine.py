"""An engine that trains nothing: the method's name says how a run behaves. Executions are noted in <cache>/executed."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import archive
from benchmarks.errors import InputError, Stopped
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner.together import Choice


@dataclass(frozen=True)
class Options:
    out: Path
    cache: Path
    device: str = "cpu"
    overrides: tuple[str, ...] = ()
    checkpoint_s: float = 300.0
    checkpoint_epochs: int = 0
    keep: str = ""
    beside: int = 1


@dataclass(frozen=True)
class Progress:
    key: RunKey
    fold: int
    folds: int
    epoch: int
    epochs: int


def warm_up() -> None:
    pass


def describe(key: RunKey, options: Options) -> dict[str, Any]:
    if key.method == "refused":
        raise InputError("fake.yaml: field 'x' is wrong; mend it")
    return {"config": list(options.overrides), "engine": "fake"}


def mark(key: RunKey, options: Options) -> str | None:
    return None if key.method == "single" else f"{key.seed // 10}"


def best_together(groups: Sequence[Sequence[RunKey]], options: Options) -> list[Choice]:
    return [Choice(3, "three is company")] * len(groups)


def execute(
    keys: Sequence[RunKey],
    options: Options,
    folders: Sequence[Path],
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> list[RunRecord]:
    seeds = [key.seed for key in keys]
    if any(key.method == "stoppable" for key in keys):
        stoppable(keys[0], options.cache, folders[0], stop)
    return [_one(key, options, folder, report, seeds) for key, folder in zip(keys, folders, strict=True)]


def stoppable(key: RunKey, cache: Path, folder: Path, stop: Callable[[], bool]) -> None:
    """Goes on for long, once; then from its checkpoint."""
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        return
    note(cache, key)
    while not stop():
        time.sleep(0.01)
    checkpoint.touch()
    raise Stopped


def _one(
    key: RunKey, options: Options, folder: Path, report: Callable[[Progress], None], seeds: list[int]
) -> RunRecord:
    folder.mkdir(parents=True, exist_ok=True)
    times = note(options.cache, key)
    print("a library that prints must not break the messages")
    report(Progress(key, 1, 1, 1, 2))
    behave(key.method, times)
    arrays = predictions(key)
    archive.write_npz(folder / "predictions.npz", arrays)
    value = float("nan") if key.method == "not_finite" else 0.5
    return RunRecord(
        key,
        describe(key, options),
        "done",
        metrics={"test": {"accuracy": value}},
        time_s=2.0,
        peak_memory_bytes=10,
        predictions=archive.predictions_digest(arrays),
        provenance={"finished_at": "2026-01-01T00:00:00+00:00", "device": options.device, "together": seeds}
        | {"pid": os.getpid(), "parent": os.getppid()},
    )


def behave(method: str, times: int) -> None:
    if method.startswith("slow"):
        time.sleep(0.3)
    if method == "endless":
        time.sleep(600)
    if method == "full_disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "predictions.npz")
    if method == "raises":
        raise RuntimeError("the method\nbroke")
    if method == "dies" or (method == "dies_once" and times == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if method == "exits":
        print("cannot go on", file=sys.stderr, flush=True)
        os._exit(3)
    if method == "kills_servers" or (method == "kills_server" and times == 1):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)


def predictions(key: RunKey) -> dict[str, np.ndarray]:
    seed = int(hashlib.sha256(str(key).encode()).hexdigest()[:8], 16)
    scores = np.random.default_rng(seed).normal(size=(6, 3)).astype(np.float32)
    return {"index": np.arange(6), "target": np.arange(6) % 3, "prediction": scores, "group": np.array(list("aabbcc"))}


def note(cache: Path, key: RunKey) -> int:
    """Write down that a run is executed; returns how often it has been so far."""
    cache.mkdir(parents=True, exist_ok=True)
    handle = os.open(cache / "executed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{key}\n".encode())
    os.close(handle)
    return executed(cache).count(str(key))


def executed(cache: Path) -> list[str]:
    return (cache / "executed").read_text().split() if (cache / "executed").exists() else []
