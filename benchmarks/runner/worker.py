"""A worker process: takes runs from its parent line by line, executes them one after the other, tells how they go.

Forked by benchmarks.runner.server or started as ``python -m benchmarks.runner.worker PARENT_PID``, see
benchmarks.runner.processes. JSON lines both ways: first {"engine", "place"}, then {"keys", "retry_before"} for each
team of runs that train together; back come "ready" (with the worker's pid), "start", "progress" and "end" messages.
SIGTERM, SIGUSR1 and SIGUSR2 ask it to stop its team where that can be gone on from. A worker lives no longer than its
parent.
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
from pathlib import Path
from typing import TextIO

from benchmarks.record import RunKey
from benchmarks.runner.serve import Job, Message, serve

PR_SET_PDEATHSIG = 1


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

    stop = _asked_to_stop()
    send({"event": "ready", "pid": os.getpid()})
    while True:
        request = json.loads(lines.get())
        job = Job(tuple(RunKey(**key) for key in request["keys"]), request["retry_before"])
        runs = serve(job, engine, options, send, stop.is_set)
        send({"event": "end", "runs": runs})
        if any(run["state"] == "stopped" for run in runs):  # every further one would be, too
            return


def _asked_to_stop() -> threading.Event:
    """Set from the moment when a signal asks for it."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: asked.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())  # its parent may have been holding some back
    return asked


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


if __name__ == "__main__":
    run(int(sys.argv[1]))
