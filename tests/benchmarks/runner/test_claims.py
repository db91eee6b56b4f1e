from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.runner import claims

RACE = """
import sys, time
from pathlib import Path
from benchmarks.runner import claims
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
print(claims.acquire(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def write(folder: Path, pid: int, host: str, started: str, silent_s: float = 0.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / claims.CLAIM
    path.write_text(json.dumps({"pid": pid, "host": host, "started": started}))
    os.utime(path, (time.time() - silent_s, time.time() - silent_s))


def test_a_claim_is_exclusive_and_given_back(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert not claims.held(folder)
    assert claims.acquire(folder)
    assert claims.held(folder)
    assert claims.owner(folder) == claims.mine()
    claims.release(folder)
    assert not claims.held(folder)
    assert list(folder.iterdir()) == []


def test_the_claim_of_a_living_process_is_respected_and_not_released_by_others(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        write(tmp_path, other.pid, socket.gethostname(), claims._started(other.pid) or "")
        assert claims.held(tmp_path)
        assert not claims.acquire(tmp_path)
        claims.release(tmp_path)
        assert claims.held(tmp_path)
        other.kill()
    assert claims.acquire(tmp_path)


def test_a_dead_claim_is_taken_over_though_its_pid_lives_again(tmp_path: Path) -> None:
    write(tmp_path, os.getppid(), socket.gethostname(), "an earlier boot:1")
    assert not claims.held(tmp_path)
    assert claims.acquire(tmp_path)
    assert claims.owner(tmp_path) == claims.mine()


@pytest.mark.parametrize(("silent_s", "held"), [(0.0, True), (claims.EXPIRED_S + 60, False)])
def test_another_host_is_respected_until_it_has_been_silent_for_long(
    tmp_path: Path, silent_s: float, held: bool
) -> None:
    write(tmp_path, 1, "elsewhere", "x", silent_s)
    assert claims.held(tmp_path) is held
    assert claims.acquire(tmp_path) is not held


def test_a_claim_that_was_never_written_out_counts_for_moments_only(tmp_path: Path) -> None:
    (tmp_path / claims.CLAIM).touch()
    assert not claims.acquire(tmp_path)
    before = time.time() - claims.WRITING_S - 1
    os.utime(tmp_path / claims.CLAIM, (before, before))
    assert claims.acquire(tmp_path)


def test_while_it_beats_the_claim_shows_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.01)
    claims.acquire(tmp_path)
    os.utime(tmp_path / claims.CLAIM, (0, 0))
    with claims.beating(tmp_path):
        deadline = time.monotonic() + 5
        while (tmp_path / claims.CLAIM).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (tmp_path / claims.CLAIM).stat().st_mtime > 0


def test_of_many_that_find_a_dead_claim_one_gets_it(tmp_path: Path) -> None:
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        write(folder, 2**22 + 1, socket.gethostname(), "dead")
        command = [sys.executable, "-c", RACE, str(folder), str(time.time() + 0.4)]
        racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(5)]
        answers = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
        for racer in racers:
            racer.communicate()
        assert sorted(answers) == [b"False"] * 4 + [b"True"]
