from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.runner import claims
from benchmarks.runner.claims import Claim

RACE = """
import sys, time
from pathlib import Path
from benchmarks.runner import claims
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
print(claims.acquire(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""
DEAD = Claim("0" * 16, 2**22 + 1, claims.mine().host, claims.mine().machine, "7")
AWAY = replace(DEAD, machine="another machine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "full" / "seed-000"


def write(folder: Path, claim: Claim, silent_s: float = 0.0) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = claims.claim_of(folder)
    path.write_text(json.dumps(asdict(claim)))
    os.utime(path, (time.time() - silent_s, time.time() - silent_s))


def leave(folder: Path, claim: Claim, name: str, text: str = "") -> Path:
    """A file in the attempt of a claim."""
    path = claims.attempt(folder, claim) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir() if path.name != claims.LOCK)


def test_a_claim_is_exclusive_and_given_back(folder: Path) -> None:
    assert not claims.held(folder)
    assert claims.acquire(folder)
    assert claims.held(folder)
    assert claims.owner(folder) == claims.mine()
    assert claims.attempt(folder).is_dir()
    assert not folder.exists()
    claims.release(folder)
    assert not claims.held(folder)
    assert names(folder) == []


def test_the_claim_of_a_living_process_is_respected_and_not_released_by_others(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        write(folder, replace(DEAD, pid=other.pid, started=claims.started(other.pid) or ""))
        assert claims.held(folder)
        assert not claims.acquire(folder)
        claims.release(folder)
        assert claims.held(folder)
        other.kill()
    assert claims.acquire(folder)


def test_a_dead_claim_is_taken_over_though_its_pid_lives_again(folder: Path) -> None:
    write(folder, replace(DEAD, pid=os.getppid(), started="1"))
    assert not claims.held(folder)
    assert claims.acquire(folder)
    assert claims.owner(folder) == claims.mine()


@pytest.mark.parametrize(("silent_s", "held"), [(0.0, True), (claims.EXPIRED_S + 60, False)])
def test_another_machine_is_respected_until_it_has_been_silent_for_long(
    folder: Path, silent_s: float, held: bool
) -> None:
    write(folder, AWAY, silent_s)
    assert claims.held(folder) is held
    assert claims.acquire(folder) is not held


def test_a_machine_of_the_same_name_is_another_one(folder: Path) -> None:
    write(folder, AWAY)
    assert AWAY.host == claims.mine().host
    assert claims.held(folder)


def test_the_local_clock_does_not_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, AWAY)
    for jump in (-1e6, 1e6):
        monkeypatch.setattr(time, "time", lambda jump=jump: time.monotonic() + jump)
        assert claims.held(folder)


def test_a_claim_that_was_never_written_out_counts_for_moments_only(folder: Path) -> None:
    folder.parent.mkdir()
    claims.claim_of(folder).touch()
    assert not claims.acquire(folder)
    before = time.time() - claims.WRITING_S - 1
    os.utime(claims.claim_of(folder), (before, before))
    assert claims.acquire(folder)


@pytest.mark.parametrize(
    "text", ["[" * 10**5, "{}", "[]", '{"token": 1}', json.dumps(asdict(DEAD) | {"pid": "../x"}), "\xff"]
)
def test_a_claim_that_nobody_wrote_counts_like_one_that_was_not_written_out(folder: Path, text: str) -> None:
    folder.parent.mkdir()
    claims.claim_of(folder).write_text(text)
    assert claims.owner(folder) is None
    assert claims.held(folder)
    before = time.time() - claims.WRITING_S - 1
    os.utime(claims.claim_of(folder), (before, before))
    assert claims.acquire(folder)


def test_what_the_dead_left_goes_to_who_takes_over_and_is_out_of_their_reach(folder: Path) -> None:
    write(folder, DEAD)
    theirs = leave(folder, DEAD, "checkpoint.pt", "half the way")
    assert claims.acquire(folder)
    assert (claims.attempt(folder) / "checkpoint.pt").read_text() == "half the way"
    with pytest.raises(FileNotFoundError):  # the slow owner comes back
        theirs.write_text("an older way")


def test_of_several_attempts_the_one_written_to_last_is_gone_on_from(folder: Path) -> None:
    for age, claim in ((50, replace(DEAD, token="a" * 16)), (5, DEAD), (500, replace(DEAD, token="b" * 16))):
        left = leave(folder, claim, "checkpoint.pt", str(age)).parent
        os.utime(left, (time.time() - age, time.time() - age))
    leave(folder, replace(DEAD, token="c" * 16 + claims.OLD), "record.json")
    assert claims.acquire(folder)
    assert (claims.attempt(folder) / "checkpoint.pt").read_text() == "5"
    assert names(folder) == sorted([claims.claim_of(folder).name, claims.attempt(folder).name])


def test_a_released_attempt_stays_where_it_can_be_gone_on_from(folder: Path) -> None:
    assert claims.acquire(folder)
    (claims.attempt(folder) / "checkpoint.pt").touch()
    claims.release(folder)
    assert names(folder) == [claims.attempt(folder).name]
    claims.tidy(folder)
    assert names(folder) == []


def test_what_is_left_beside_a_run_that_a_living_process_has_is_not_tidied(folder: Path) -> None:
    write(folder, AWAY)
    leave(folder, AWAY, "log.txt")
    before = names(folder)
    claims.tidy(folder)
    assert names(folder) == before


def test_a_rival_gets_back_the_claim_that_was_taken_for_a_dead_one(folder: Path) -> None:
    write(folder, AWAY)
    path = claims.claim_of(folder)
    assert not claims._put_aside(path, DEAD)
    assert claims.owner(folder) == AWAY
    assert names(folder) == [path.name]


def test_while_it_beats_the_claim_shows_signs_of_life(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.01)
    claims.acquire(folder)
    path = claims.claim_of(folder)
    os.utime(path, (0, 0))
    with claims.beating([folder]) as lost:
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert path.stat().st_mtime > 0
    assert not lost.is_set()


def test_who_was_taken_for_dead_hears_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.01)
    claims.acquire(folder)
    with claims.beating([folder]) as lost:
        write(folder, AWAY)
        assert lost.wait(5)
    claims.release(folder)
    assert claims.owner(folder) == AWAY


def test_of_many_that_find_a_dead_claim_one_gets_it(tmp_path: Path) -> None:
    for attempt in range(2):
        folder = tmp_path / str(attempt) / "seed-000"
        write(folder, DEAD)
        command = [sys.executable, "-c", RACE, str(folder), str(time.time() + 0.4)]
        racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(5)]
        answers = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
        for racer in racers:
            racer.communicate()
        assert sorted(answers) == [b"False"] * 4 + [b"True"]


def test_what_was_half_done_does_not_go_along(folder: Path) -> None:
    write(folder, DEAD)
    for name in ("checkpoint.pt", "checkpoint.previous.pt", "log.txt", "predictions.npz", ".record.json.7.tmp"):
        leave(folder, DEAD, name)
    assert claims.acquire(folder)
    kept = sorted(path.name for path in claims.attempt(folder).iterdir())
    assert kept == ["checkpoint.previous.pt", "checkpoint.pt", "log.txt"]


def test_an_attempt_with_a_checkpoint_is_gone_on_from_before_a_newer_one_without(folder: Path) -> None:
    leave(folder, DEAD, "checkpoint.pt")
    os.utime(claims.attempt(folder, DEAD), (1, 1))
    leave(folder, replace(DEAD, token="1" * 16), "log.txt")
    assert claims.acquire(folder)
    assert [path.name for path in claims.attempt(folder).iterdir()] == ["checkpoint.pt"]


def test_what_is_left_of_a_takeover_or_a_release_that_was_cut_short_goes(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").touch()
    write(folder, DEAD)
    claims.claim_of(folder).rename(folder.with_name(f".seed-000.claim.{'2' * 16}"))
    claims.tidy(folder)
    assert names(folder) == ["seed-000"]
    assert not list(folder.iterdir())


def test_a_rival_who_is_faster_than_a_release_keeps_his_claim(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rival = replace(AWAY, token="3" * 16)
    write(folder, rival)
    leave(folder, rival, "log.txt")
    monkeypatch.setattr(claims, "owner", lambda _: DEAD)  # as it was a moment ago
    claims.release(folder, DEAD.pid)
    assert names(folder) == [f".seed-000.{rival.token}", ".seed-000.claim"]
    assert json.loads(claims.claim_of(folder).read_text()) == asdict(rival)


@pytest.mark.parametrize("text", [json.dumps(asdict(AWAY)), ""])
def test_a_clock_that_is_set_back_makes_no_claim_immortal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    write(folder, AWAY, -86400.0)
    claims.claim_of(folder).write_text(text)
    os.utime(claims.claim_of(folder), (time.time() + 86400.0,) * 2)
    assert not claims.acquire(folder)  # it may live: its next sign of life tells
    later = time.time() + claims.EXPIRED_S + 1
    monkeypatch.setattr(claims, "now", lambda _: later)
    assert claims.acquire(folder)


def test_a_clock_that_jumps_ahead_takes_nothing_from_a_process_that_lives_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, replace(DEAD, pid=os.getppid(), started=claims.started(os.getppid()) or ""), 86400.0)
    monkeypatch.setattr(claims, "now", lambda _: time.time() + 10 * 86400.0)
    assert not claims.acquire(folder)
