"""A worker process: takes runs from its parent line by line, executes them one after the other, tells how they go.

Started by benchmarks.runner.launch as ``python -m benchmarks.runner.worker PARENT_PID``. JSON lines both ways: first
{"engine", "place"}, then {"key", "asked_at"} a run; back come "ready", "start", "progress" and "end" messages. torch is
loaded once, not per run. A worker lives no longer than its parent.
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
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord, digest_of
from benchmarks.runner import claims, store

PR_SET_PDEATHSIG = 1
TELL_EVERY_S = 0.2

Message = dict[str, Any]


def main(parent: int) -> None:
    """Serve runs until the parent closes the pipe or ends."""
    channel = _take_stdout()
    _die_with(parent)
    lines = _read_lines(sys.stdin)
    hello = json.loads(lines.get())
    engine = importlib.import_module(hello["engine"])
    place = hello["place"]
    folders = {name: Path(place[name]) for name in ("out", "cache")}
    options = engine.Options(**{**place, **folders, "overrides": tuple(place["overrides"])})

    def send(message: Message) -> None:
        channel.write(json.dumps(message) + "\n")

    send({"event": "ready"})
    while True:
        request = json.loads(lines.get())
        send({"event": "end", **serve(RunKey(**request["key"]), request["asked_at"], engine, options, send)})


def _take_stdout() -> TextIO:
    """The pipe to the parent. What a library prints goes to stderr and cannot break the messages."""
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _die_with(parent: int) -> None:
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


def serve(key: RunKey, asked_at: float, engine: Any, options: Any, send: Callable[[Message], None]) -> Message:
    """Execute one run unless it is done or another process has it: {"state", "seconds", "error"}.

    state: "done" or "failed" (its record is written), "kept" (it was done already), "busy" (claimed by a living
    process), "refused" (bad input, nothing written).
    """
    folder = store.folder_of(options.out, key)
    try:
        described = engine.describe(key, options)
    except InputError as error:
        return _end("refused", error=str(error))
    if not claims.acquire(folder):
        return _end("busy")
    try:
        ended = _ended_meanwhile(folder, digest_of(described), asked_at)
        if ended is not None:
            return ended
        began = time.perf_counter()
        send({"event": "start", "what": described})
        with claims.beating(folder):
            record = _execute(key, described, engine, options, _Teller(send))
        return _end(record.status, time.perf_counter() - began, record.error)
    except InputError as error:
        return _end("refused", error=str(error))
    finally:
        claims.release(folder)


def _end(state: str, seconds: float = 0.0, error: str = "") -> Message:
    return {"state": state, "seconds": seconds, "error": error}


def _ended_meanwhile(folder: Path, digest: str, asked_at: float) -> Message | None:
    """What another runner on this folder did since the run was planned: done, or failed after ``asked_at``."""
    try:
        record = store.read_record(folder)
    except InputError:
        store.quarantine(folder)
        return None
    if record is None:
        return None
    if record.status == "done":
        return _end("kept") if record.digest == digest else None
    return _end("failed", error=record.error) if store.written_at(folder) > asked_at else None


def _execute(
    key: RunKey, described: Mapping[str, Any], engine: Any, options: Any, tell: Callable[[Any], None]
) -> RunRecord:
    """Run it and write its record; an exception, too, ends as a record. An old record is taken back first, so that no
    moment shows it beside new predictions."""
    folder = store.folder_of(options.out, key)
    store.clean(folder)
    store.remove_record(folder)
    try:
        record: RunRecord = engine.execute(key, options, folder, tell)
        store.write_record(folder, record)
    except InputError:
        raise
    except Exception as error:
        record = RunRecord(key, described, "failed", error=" ".join(f"{type(error).__name__}: {error}".split()))
        store.write_record(folder, record)
    return record


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
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main(int(sys.argv[1]))
