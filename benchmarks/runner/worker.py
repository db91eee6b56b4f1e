"""A worker process: takes runs from its parent line by line, executes them one after the other, tells how they go.

Forked by benchmarks.runner.server or started as ``python -m benchmarks.runner.worker PARENT_PID``, see
benchmarks.runner.processes. JSON lines both ways: first {"engine", "place"}, then {"keys", "asked_at"} for each team of
runs that train together; back come "ready" (with the worker's pid), "start", "progress" and "end" messages. A worker
lives no longer than its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord, digest_of
from benchmarks.runner import claims, store

PR_SET_PDEATHSIG = 1
TELL_EVERY_S = 0.2

Message = dict[str, Any]


def run(parent: int) -> None:
    """Serve runs until whoever holds the other end of stdin closes it, or the parent ends."""
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _serve_all(parent)


def _serve_all(parent: int) -> None:
    channel = _take_stdout()
    die_with(parent)
    lines = _read_lines(sys.stdin)
    hello = json.loads(lines.get())
    engine = importlib.import_module(hello["engine"])
    engine.warm_up()
    place = hello["place"]
    folders = {name: Path(place[name]) for name in ("out", "cache")}
    options = engine.Options(**{**place, **folders, "overrides": tuple(place["overrides"])})

    def send(message: Message) -> None:
        channel.write(json.dumps(message) + "\n")

    send({"event": "ready", "pid": os.getpid()})
    while True:
        request = json.loads(lines.get())
        keys = [RunKey(**key) for key in request["keys"]]
        send({"event": "end", "runs": serve(keys, request["asked_at"], engine, options, send)})


def _take_stdout() -> TextIO:
    """The pipe to the parent. What a library prints goes to stderr and cannot break the messages."""
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return channel


def die_with(parent: int) -> None:
    """End the calling process with its parent: at once, and even where that was killed, on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _read_lines(stream: TextIO) -> queue.SimpleQueue[str]:
    """Requests, read beside the work so that the end of the parent is noticed during a run on every platform."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, name="requests", daemon=True).start()
    return lines


def serve(
    keys: Sequence[RunKey], asked_at: float, engine: Any, options: Any, send: Callable[[Message], None]
) -> list[Message]:
    """Execute the runs of a team that are not done: {"state", "seconds", "error"} of each.

    state: "done" or "failed" (its record is written), "kept" (it was done already), "busy" (a living process has it, or
    another of its team), "refused" (bad input, nothing written).
    """
    try:
        described = [engine.describe(key, options) for key in keys]
    except InputError as error:
        return [_end("refused", error=str(error)) for _ in keys]
    folders = [store.folder_of(options.out, key) for key in keys]
    claimed = [folder for folder in folders if claims.acquire(folder)]
    try:
        found = [
            _ended_meanwhile(folder, digest_of(what), asked_at) if folder in claimed else _end("busy")
            for folder, what in zip(folders, described, strict=True)
        ]
        if len(claimed) < len(keys):
            return [ended or _end("busy") for ended in found]
        if all(found):
            return [ended for ended in found if ended]
        return _train(keys, found, described, engine, options, send)
    except InputError as error:
        return [_end("refused", error=str(error)) for _ in keys]
    finally:
        for folder in claimed:
            claims.release(folder)


def _train(
    keys: Sequence[RunKey],
    found: Sequence[Message | None],
    described: Sequence[Mapping[str, Any]],
    engine: Any,
    options: Any,
    send: Callable[[Message], None],
) -> list[Message]:
    """Train the whole team, as its numbers are those of the team; runs that have ended already stay as they are."""
    began = time.perf_counter()
    send({"event": "start", "what": described})
    folders = [store.folder_of(options.out, key) for key in keys]
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(claims.beating(folder))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = [scratch / str(n) if ended else f for n, (f, ended) in enumerate(zip(folders, found, strict=True))]
        fresh = [folder for folder, ended in zip(folders, found, strict=True) if not ended]
        for folder in fresh:
            store.clean(folder)
            store.remove_record(folder)  # first, so that no moment shows it beside new predictions
        records = _execute(keys, places, described, engine, options, _Teller(send))
        for folder, record in zip(folders, records, strict=True):
            if folder in fresh:
                store.write_record(folder, record)
    seconds = (time.perf_counter() - began) / len(keys)
    return [ended or _end(r.status, seconds, r.error) for ended, r in zip(found, records, strict=True)]


def _end(state: str, seconds: float = 0.0, error: str = "") -> Message:
    return {"state": state, "seconds": seconds, "error": error}


def _ended_meanwhile(folder: Path, digest: str, asked_at: float) -> Message | None:
    """What another runner on this folder did since the run was planned: done, or failed after ``asked_at``."""
    try:
        record = store.read_run(folder)
    except InputError:
        store.quarantine(folder)
        return None
    if record is None:
        return None
    if record.status == "done":
        return _end("kept") if record.digest == digest else None
    return _end("failed", error=record.error) if store.written_at(folder) > asked_at else None


def _execute(
    keys: Sequence[RunKey],
    places: Sequence[Path],
    described: Sequence[Mapping[str, Any]],
    engine: Any,
    options: Any,
    tell: Callable[[Any], None],
) -> list[RunRecord]:
    """The records of a team; an exception, too, ends as records."""
    try:
        return list(engine.execute(keys, options, places, tell))
    except InputError:
        raise
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return [RunRecord(key, what, "failed", error=told) for key, what in zip(keys, described, strict=True)]


class _Teller:
    """Sends progress at most every TELL_EVERY_S: an epoch of a small run takes less time than telling of it."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._last = 0.0

    def __call__(self, progress: Any) -> None:
        now = time.monotonic()
        if now - self._last >= TELL_EVERY_S:
            self._last = now
            self._send({"event": "progress", **{k: v for k, v in asdict(progress).items() if k != "key"}})


if __name__ == "__main__":
    run(int(sys.argv[1]))
