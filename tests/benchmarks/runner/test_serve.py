"""One team under its claims: what comes of it when somebody else takes its process for dead."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fake_engine
import pytest

from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import claims, store
from benchmarks.runner.claims import Claim
from benchmarks.runner.serve import Job, serve

KEYS = tuple(RunKey("cmu_mosi", "aligned", "twin", "tiny", "quick", "full", seed) for seed in range(2))
AWAY = Claim("f" * 16, 1, "elsewhere", "another machine", "1")


@pytest.fixture
def options(tmp_path: Path) -> fake_engine.Options:
    return fake_engine.Options(tmp_path, tmp_path / "cache")


def nothing(_: Any) -> None:
    pass


class Interfered:
    """The fake engine, with something that happens while it works."""

    def __init__(self, what: Callable[[], None]) -> None:
        self.what = what
        self.describe = fake_engine.describe

    def execute(self, *arguments: Any) -> list[RunRecord]:
        """As the fake engine."""
        self.what()
        return fake_engine.execute(*arguments)


def take_over(folder: Path) -> None:
    """What another machine does with a claim that has expired."""
    claims.attempt(folder).rename(claims.attempt(folder, AWAY))
    claims.claim_of(folder).write_text(json.dumps(asdict(AWAY)))


def states(found: list[dict[str, Any]]) -> list[str]:
    return [message["state"] for message in found]


def test_a_team_is_published_and_leaves_nothing_else(options: fake_engine.Options) -> None:
    assert states(serve(Job(KEYS), fake_engine, options, nothing)) == ["done", "done"]
    assert states(serve(Job(KEYS), fake_engine, options, nothing)) == ["kept", "kept"]
    assert not list(options.out.rglob(".seed-*"))


@pytest.mark.parametrize("taken", [0, 1])
def test_who_was_taken_for_dead_publishes_nothing(options: fake_engine.Options, taken: int) -> None:
    folders = [store.folder_of(options.out, key) for key in KEYS]
    found = serve(Job(KEYS), Interfered(lambda: take_over(folders[taken])), options, nothing)
    assert states(found) == ["busy", "busy"]
    assert not any(folder.exists() for folder in folders)
    assert claims.owner(folders[taken]) == AWAY
    assert claims.attempt(folders[taken], AWAY).is_dir()
    assert claims.owner(folders[1 - taken]) is None


def test_who_loses_his_attempt_in_the_moment_of_publication_is_busy(
    options: fake_engine.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.folder_of(options.out, KEYS[0])
    write = store.write_record

    def too_late(attempt: Path, record: RunRecord) -> None:
        take_over(folder)
        write(attempt, record)

    monkeypatch.setattr(store, "write_record", too_late)
    assert states(serve(Job(KEYS[:1]), fake_engine, options, nothing)) == ["busy"]
    assert not folder.exists()
    assert claims.owner(folder) == AWAY


def test_who_is_killed_between_record_and_publication_goes_on_from_the_checkpoint(
    options: fake_engine.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = replace(KEYS[0], method="stoppable")
    assert states(serve(Job((key,)), fake_engine, options, nothing, lambda: True)) == ["stopped"]
    seen: list[list[str]] = []
    publish = store.publish

    def note(attempt: Path, folder: Path) -> bool:
        seen.append(sorted(path.name for path in attempt.iterdir()))
        return publish(attempt, folder)

    monkeypatch.setattr(store, "publish", note)
    assert states(serve(Job((key,)), fake_engine, options, nothing)) == ["done"]
    assert seen == [["checkpoint.pt", store.PREDICTIONS, store.RECORD]]
    assert sorted(path.name for path in store.folder_of(options.out, key).iterdir()) == [
        store.PREDICTIONS,
        store.RECORD,
    ]


@pytest.mark.parametrize("jump_s", [-86400.0, 86400.0])
def test_a_clock_that_jumps_costs_no_more_than_an_execution(options: fake_engine.Options, jump_s: float) -> None:
    key = replace(KEYS[0], method="raises")
    asked_at = claims.now(options.out) + jump_s
    assert states(serve(Job((key,), asked_at), fake_engine, options, nothing)) == ["failed"]
    assert states(serve(Job((key,), asked_at), fake_engine, options, nothing)) == ["failed"]
    assert len(fake_engine.executed(options.cache)) == (2 if jump_s > 0 else 1)


def test_of_two_that_finish_the_same_run_the_first_counts(options: fake_engine.Options) -> None:
    folder = store.folder_of(options.out, KEYS[0])

    def overtake() -> None:
        other = replace(options, out=options.out / "other")
        serve(Job(KEYS[:1]), fake_engine, other, nothing)
        store.folder_of(other.out, KEYS[0]).rename(folder)

    before = len(fake_engine.executed(options.cache))
    serve(Job(KEYS[:1]), Interfered(overtake), options, nothing)
    assert len(fake_engine.executed(options.cache)) == before + 2
    first = store.read_run(folder)
    assert first is not None
    assert states(serve(Job(KEYS[:1]), fake_engine, options, nothing)) == ["kept"]
    assert not list(folder.parent.glob(".seed-*"))


def test_a_team_that_is_stopped_goes_on_from_its_checkpoint(options: fake_engine.Options) -> None:
    key = replace(KEYS[0], method="stoppable")
    assert states(serve(Job((key,)), fake_engine, options, nothing, lambda: True)) == ["stopped"]
    folder = store.folder_of(options.out, key)
    (left,) = claims.attempts(folder)
    assert [path.name for path in left.iterdir()] == ["checkpoint.pt"]
    assert states(serve(Job((key,)), fake_engine, options, nothing)) == ["done"]
    assert sorted(path.name for path in folder.iterdir()) == [store.PREDICTIONS, store.RECORD]
    assert not list(options.out.rglob(".seed-*"))


def test_a_read_only_folder_halts(options: fake_engine.Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    (found,) = serve(Job(KEYS[:1]), fake_engine, options, nothing)
    assert found["state"] == "halted"
    assert "Permission denied" in found["error"]
    assert str(options.out) in found["error"]


def test_claims_are_given_back_where_a_later_one_cannot_be_made(
    options: fake_engine.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = claims.acquire
    monkeypatch.setattr(claims, "acquire", lambda folder: acquire(folder) if "000" in folder.name else fail(folder))

    def fail(folder: Path) -> bool:
        raise OSError(28, "No space left on device", str(folder))

    assert states(serve(Job(KEYS), fake_engine, options, nothing)) == ["halted", "halted"]
    assert not list(options.out.rglob(".seed-*"))
