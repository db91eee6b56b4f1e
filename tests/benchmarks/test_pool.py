"""The pool: tasks that crash or hang cost themselves alone, whatever they are stuck in."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.errors import InputError
from benchmarks.pool import Lost, Pool

LIMIT_S = 1.0


def in_python() -> None:
    while True:
        time.sleep(0.05)


def in_a_read() -> None:
    os.read(os.pipe()[0], 1)


def in_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def deaf_to_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    in_a_read()


def work(text: str, folder: Path, hang: Callable[[], None] = in_python) -> str:
    """Does what the text says; leaves its process's number in the folder."""
    with (folder / text).open("a") as file:
        file.write(f"{os.getpid()}\n")
    tries = (folder / text).read_text().count("\n")
    if text == "crash" or (text == "crash once" and tries == 1):
        os.kill(os.getpid(), signal.SIGSEGV)
    if text == "hang":
        hang()
    if text == "raise":
        raise OSError(28, "full")
    time.sleep(0.3 if text == "slow" else 0.0)
    return text.upper()


def done(texts: str, folder: Path, count: int = 2, hang: Callable[[], None] = in_python) -> dict[int, str | Lost]:
    pool: Pool[str, str] = Pool(partial(work, folder=folder, hang=hang), count, LIMIT_S)
    results = list(pool.run(dict(enumerate(texts.split(", ")))))
    assert len(dict(results)) == len(results)
    return dict(results)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_every_task_is_done_once(count: int, tmp_path: Path) -> None:
    texts = [f"t{number}" for number in range(20)]
    assert done(", ".join(texts), tmp_path, count) == {n: text.upper() for n, text in enumerate(texts)}
    assert all((tmp_path / text).read_text().count("\n") == 1 for text in texts)


def test_no_tasks_no_processes(tmp_path: Path) -> None:
    assert not list(Pool(partial(work, folder=tmp_path), 2, LIMIT_S).run({}))


@pytest.mark.parametrize("hang", [in_python, in_a_read, in_a_lock, deaf_to_signals])
def test_a_task_that_hangs_is_ended_and_the_others_are_done(hang: Callable[[], None], tmp_path: Path) -> None:
    began = time.monotonic()
    assert done("a, hang, b, c, d", tmp_path, 1, hang) == {0: "A", 1: Lost(slow=True), 2: "B", 3: "C", 4: "D"}
    assert LIMIT_S < time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "hang").read_text()), 0)


def test_tasks_that_take_long_together_are_not_slow(tmp_path: Path) -> None:
    texts = ", ".join(["slow"] * 6)  # 1.8 s in one worker
    assert set(done(texts, tmp_path, 1).values()) == {"SLOW"}


def test_the_time_of_the_one_who_reads_the_results_does_not_count(tmp_path: Path) -> None:
    found = []
    for _, result in Pool(partial(work, folder=tmp_path), 1, 0.5).run(dict(enumerate(("slow", "slow", "slow")))):
        found.append(result)
        time.sleep(0.8)
    assert found == ["SLOW"] * 3


def test_a_crash_is_tried_again_and_costs_its_task_alone(tmp_path: Path) -> None:
    assert done("a, crash, crash once, b", tmp_path) == {0: "A", 1: Lost(slow=False), 2: "CRASH ONCE", 3: "B"}
    assert (tmp_path / "crash").read_text().count("\n") == 2


def test_an_exception_comes_through_and_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as caught:
        done("a, hang, raise", tmp_path)
    assert caught.value.errno == 28
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "raise").read_text()), 0)


class NotHere:
    """Work that no other process can take."""

    def __call__(self, task: str) -> str:
        return task

    def __setstate__(self, state: object) -> None:
        raise RuntimeError("not here")

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}


def test_a_worker_that_does_not_start_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"ended at its start \(code 1\)"):
        list(Pool(NotHere(), 1, LIMIT_S).run({0: "a"}))
    assert "not here" in capfd.readouterr().err
