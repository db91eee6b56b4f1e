"""Processes that do tasks of which any may crash or hang: such a task costs itself alone. Standard library.

A worker does its tasks in turn and answers each: the first that it has not answered is the one that it is at.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from benchmarks.errors import InputError

AHEAD = 2  # tasks that a worker holds: the one it does and the next, so that it never waits for its parent
ATTEMPTS = 2  # a worker may be killed for what is not its task's fault
POLL_S = 0.2
FAREWELL_S = 5.0

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lost:
    """What a task has in place of a result. slow: it took longer than it may; else its process crashed, each time."""

    slow: bool


class _Worker(Generic[Task, Result]):
    """One process, and the keys of its tasks."""

    def __init__(self, work: Callable[[Task], Result]) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.keys: deque[int] = deque()
        self.ready = False
        self.spent_s = 0.0  # on the first of them

    def give(self, key: int, task: Task) -> None:
        """Hand it a task."""
        self.keys.append(key)
        with suppress(OSError):  # it has died: the end of its pipe tells
            self.pipe.send(task)

    def hear(self) -> tuple[str, Any]:
        """Its next message: ("ready", None), ("done", result), ("failed", exception), or ("dead", None)."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            return "dead", None
        self.spent_s, self.ready = 0.0, True
        return kind, value

    def end(self) -> None:
        """Whatever it does. (A process that waits for a dead file server may outlive this.)"""
        self.process.kill()
        self.process.join(FAREWELL_S)
        self.pipe.close()


class Pool(Generic[Task, Result]):
    """``work`` (picklable) done on tasks by ``count`` processes.

    limit_s: seconds that a task may take. The time counts in steps of POLL_S, and no step for more than two: what the
    whole machine slept, or the user had stopped, does not count.
    """

    def __init__(self, work: Callable[[Task], Result], count: int, limit_s: float) -> None:
        self._work, self._count, self._limit_s = work, count, limit_s
        self._workers: list[_Worker[Task, Result]] = []
        self._crashes: Counter[int] = Counter()
        self._queue: deque[int] = deque()

    def run(self, tasks: Mapping[int, Task]) -> Iterator[tuple[int, Result | Lost]]:
        """Yields each task's key and its result, or why there is none, as they come. An exception of ``work`` is raised
        here; InputError where the processes do not even start."""
        self._queue = deque(tasks)
        try:
            self._workers = [_Worker(self._work) for _ in range(min(self._count, len(tasks)))]
            while self._queue or any(worker.keys for worker in self._workers):
                self._hand_out(tasks)
                began = time.monotonic()
                heard = wait([worker.pipe for worker in self._workers], POLL_S)
                self._count_time(time.monotonic() - began)
                yield from self._answers(heard)
                yield from self._slow()
        finally:
            for worker in self._workers:
                worker.end()

    def _hand_out(self, tasks: Mapping[int, Task]) -> None:
        for held in range(AHEAD):
            for worker in self._workers:
                if self._queue and len(worker.keys) == held:
                    key = self._queue.popleft()
                    worker.give(key, tasks[key])

    def _count_time(self, seconds: float) -> None:
        for worker in self._workers:
            if worker.ready and worker.keys:
                worker.spent_s += min(seconds, 2 * POLL_S)

    def _answers(self, heard: Sequence[object]) -> Iterator[tuple[int, Result | Lost]]:
        for worker in [worker for worker in self._workers if worker.pipe in heard]:
            kind, value = worker.hear()
            if kind == "failed":
                raise value
            if kind == "done":
                yield worker.keys.popleft(), value
            if kind == "dead":
                yield from self._crashed(worker)

    def _crashed(self, worker: _Worker[Task, Result]) -> Iterator[tuple[int, Result | Lost]]:
        if not worker.ready:
            worker.process.join(FAREWELL_S)
            code = worker.process.exitcode
            raise InputError(f"a worker process ended at its start (code {code}); what it said stands above")
        key = self._replace(worker)
        if key is None:
            return
        self._crashes[key] += 1
        if self._crashes[key] < ATTEMPTS:
            self._queue.appendleft(key)
        else:
            yield key, Lost(slow=False)

    def _slow(self) -> Iterator[tuple[int, Result | Lost]]:
        for worker in [worker for worker in self._workers if worker.spent_s > self._limit_s]:
            key = self._replace(worker)
            if key is not None:
                yield key, Lost(slow=True)

    def _replace(self, worker: _Worker[Task, Result]) -> int | None:
        """A new process in place of one; what waited there goes back. Returns the key of the task that it was at."""
        key = worker.keys.popleft() if worker.keys else None
        self._queue.extendleft(reversed(worker.keys))
        worker.end()
        self._workers[self._workers.index(worker)] = _Worker(self._work)
        return key


def _serve(work: Callable[[Task], Result], pipe: Connection, parent: int) -> None:
    """The life of a worker: it leaves interrupts to its parent and ends with it, even if that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    pipe.send(("ready", None))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = "done", work(task)
        except Exception as error:
            answer = "failed", error
        pipe.send(answer)
