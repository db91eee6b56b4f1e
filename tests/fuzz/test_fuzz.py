"""Every target for a bounded number of inputs: hypothesis always, coverage-guided where atheris is installed; and the
oracle itself, which must see what it is there to see."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run
from fuzz_material import Choices, bent, deep, mutated, random_inputs, spoiled
from fuzz_oracle import CPU_LIMIT_S, Guard, Log, Target, attempt, guarded
from fuzz_targets import SLOW, TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.errors import InputError

EXAMPLES, FEW = 60, 8
# The parsers that the coverage-guided engine is for, and the seconds that each has here; run.py takes all targets.
GUIDED = ("pickle", "pickle_opcodes", "csd", "record_bytes", "record", "published_yaml", "yaml_tree", "set")
GUIDED_S = 3


def told(log: Log) -> str:
    return "\n".join(f"{site}: {fault.told} <- {data[:200]!r}" for site, (fault, data) in log.faults.items())


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    seeds, log = target.seeds(), Log()
    for seed in seeds:
        run._warm(target, seed, tmp_path / "warm")
    near = st.builds(lambda seed, how: bent(seed, Choices(how)), st.sampled_from(seeds), st.binary(max_size=32))
    with guarded(tmp_path / "guarded") as guard:
        for seed in seeds:
            log.add(target, seed, guard)

        @settings(max_examples=FEW if name in SLOW else EXAMPLES, derandomize=True, deadline=None, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(st.one_of(near, st.binary(max_size=200)))
        def explore(data: bytes) -> None:
            log.add(target, data, guard)

        explore()
    assert log.inputs > FEW
    assert not log.faults, told(log)


@pytest.mark.skipif(not run.has_atheris(), reason="atheris is not installed (pip install '.[fuzz]')")
@pytest.mark.parametrize("name", GUIDED)
def test_inputs_that_reach_new_places(name: str, tmp_path: Path) -> None:
    row = run.run(name, GUIDED_S, "atheris", tmp_path)
    assert row["inputs"] > 100
    assert not row["faults"], row


# --------------------------------------------------------------------------------------------------- the oracle itself


def _obeys(_: bytes, folder: Path) -> object:
    return os.system(f"true {folder}")


def _starts(_: bytes, folder: Path) -> object:
    return subprocess.run(["true", str(folder)], check=False)


def _swallows(_: bytes, folder: Path) -> object:
    try:
        os.system(f"true {folder}")
    except Exception as error:
        raise InputError(f"{folder}: {error}") from None
    return None


def _connects(_: bytes, folder: Path) -> object:
    return socket.socket().connect(("127.0.0.1", len(str(folder))))


def _writes(_: bytes, folder: Path) -> object:
    return (folder.parent.parent / "outside").write_text("x")


def _next_door(_: bytes, folder: Path) -> object:
    """A folder whose name begins as the guarded one's."""
    return (folder.parent.parent / f"{folder.parent.name}2").mkdir()


def _leaves(_: bytes, folder: Path) -> object:
    return (folder.parent / "beside").write_text("x")


def _reads(_: bytes, folder: Path) -> object:
    return Path("/etc/passwd").read_text(encoding="utf-8") and folder


def _evaluates(data: bytes, folder: Path) -> object:
    exec(data, {"folder": folder})
    return None


def _loops(_: bytes, folder: Path) -> object:
    while folder:
        pass
    return None


def _grows(_: bytes, folder: Path) -> object:
    return bytes(folder.name, "ascii") + b"x" * (400 << 20)


def _raises(_: bytes, folder: Path) -> object:
    raise KeyError(folder)


def _asks(_: bytes, folder: Path) -> object:
    raise SystemExit(str(folder))


def _nameless(_: bytes, folder: Path) -> object:
    raise InputError(f"a file of {len(str(folder))} letters is wrong")


BREAKS: dict[str, tuple[Callable[[bytes, Path], object], str]] = {
    "system": (_obeys, "forbidden: os.system"),
    "swallowed": (_swallows, "forbidden: os.system"),
    "process": (_starts, "forbidden: subprocess.Popen"),
    "connection": (_connects, "forbidden: socket.connect"),
    "write": (_writes, "forbidden: open w"),
    "next door": (_next_door, "forbidden: os.mkdir"),
    "beside": (_leaves, "written outside"),
    "read": (_reads, "forbidden: open r /etc/passwd"),
    "exec": (_evaluates, "forbidden: exec of <string>"),
    "loop": (_loops, "Slow"),
    "memory": (_grows, "memory"),
    "exception": (_raises, "KeyError"),
    "exit": (_asks, "SystemExit"),
    "nameless": (_nameless, "refusal names no file"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_oracle_sees_what_no_reader_may_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks, expected = BREAKS[name]
    monkeypatch.setattr("fuzz_oracle.CPU_LIMIT_S", 0.3 if name == "loop" else CPU_LIMIT_S)
    with guarded(tmp_path / "guarded") as guard:
        _, fault = attempt(Target(name, breaks, list), b"x = 1", guard)
    assert fault is not None
    assert fault.site.startswith(expected), fault
    assert not (tmp_path / "outside").exists()


def test_the_oracle_lets_readers_read_write_their_folder_and_refuse(tmp_path: Path) -> None:
    def reads(data: bytes, folder: Path) -> object:
        (folder / "input").write_bytes(data)
        if data:
            raise InputError(f"{folder / 'input'}: is not to be read; put another one there")
        return (folder / "input").read_bytes()

    with guarded(tmp_path) as guard:
        assert attempt(Target("good", reads, list), b"", guard) == (True, None)
        assert attempt(Target("good", reads, list), b"x", guard) == (False, None)
    assert not guard.armed


def test_a_guard_is_gone_when_it_is_done(tmp_path: Path) -> None:
    with guarded(tmp_path) as guard:
        guard.armed = True
    assert isinstance(guard, Guard)
    assert os.listdir("/")


def test_the_shortest_input_of_a_fault_is_kept(tmp_path: Path) -> None:
    log = Log()
    with guarded(tmp_path) as guard:
        for data in (b"aaa", b"a", b"aa"):
            log.add(Target("bad", _raises, list), data, guard)
    assert [data for _, data in log.faults.values()] == [b"a"]
    assert log.inputs == 3


# ------------------------------------------------------------------------------------------------------- the material


def test_the_same_bytes_make_the_same_input() -> None:
    tree: Any = {"a": [1, 2, {"b": "c"}], "d": None}
    for how in (b"", b"\1\2\3", bytes(range(40))):
        assert repr(spoiled(tree, Choices(how))) == repr(spoiled(tree, Choices(how)))
        assert bent(b"seed", Choices(how)) == bent(b"seed", Choices(how))
    assert tree == {"a": [1, 2, {"b": "c"}], "d": None}
    one, other = (
        [mutated([b"seed"], dice) for _ in range(20)] for dice in (random_inputs([b""], 1), random_inputs([b""], 1))
    )
    assert one == other
    assert len(set(one)) > 10
    assert len(repr(deep(60))) == 2 * 61


# --------------------------------------------------------------------------------------------------------- the driver


def test_the_driver_tells_inputs_and_faults_of_a_target(tmp_path: Path) -> None:
    row = run.run("curve_fields", 0.5, "random", tmp_path)
    assert row["target"] == "curve_fields"
    assert row["inputs"] > 10
    assert row["faults"] == []


def test_the_driver_tells_of_a_process_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    row = run.run("curve_fields", 0.5, "random", tmp_path)
    assert [fault["site"] for fault in row["faults"]] == ["process died"]


def test_the_driver_kills_a_process_that_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 1.5)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert run._watched(child, tmp_path / "current") == "hang"
    assert child.returncode == -9


def test_the_driver_knows_its_targets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["no_such_target"])
    assert "no target 'no_such_target'" in capsys.readouterr().err
