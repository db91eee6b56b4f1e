"""A disk that is full, or becomes read-only, in the middle of a sweep or of a report: one line, nothing half written,
and the same command goes on once there is room. On a real file system of a few MB; needs the right to mount one."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import chaos
import pytest

from benchmarks import cli
from benchmarks.runner import store

LIBC = ctypes.CDLL(None, use_errno=True)
RDONLY, REMOUNT, DETACH = 1, 32, 2
PAGE = 4096
TWIN = ["--benchmark", "crema_d", "--data", "twin", "--seeds-together", "2"]
EPOCHS = ["--set", "training.epochs=12"]
SHORT = [*TWIN, "--method", "linear", "--seeds", "0-5"]  # without epochs
LONG = [*TWIN, "--method", "late_fusion", "--seeds", "0-1", *EPOCHS]


def mount(folder: Path, flags: int = 0) -> bool:
    """A small file system in memory, or other flags for it; whether that went well."""
    return bool(LIBC.mount(b"tmpfs", str(folder).encode(), b"tmpfs", flags, b"size=16m") == 0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data and undisturbed sweeps."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def disk(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CLCR_CACHE", str(shared / "cache"))
    folder = tmp_path / "disk"
    folder.mkdir()
    if not sys.platform.startswith("linux") or not mount(folder):
        pytest.skip("no right to mount a file system here")
    try:
        yield folder
    finally:
        LIBC.umount2(str(folder).encode(), DETACH)


def fill(disk: Path, leave: int = 0) -> None:
    """Take all room but so many bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with (disk / "filler").open("wb") as file:
        file.write(bytes(max(0, free - leave)))


def clear(disk: Path) -> None:
    (disk / "filler").unlink()


def run(out: Path, *flags: str) -> int:
    return cli.main(["run", *flags, "--out", str(out), "--workers", "1", "--quiet"])


def started(out: Path, *flags: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "benchmarks.cli", "run", *flags, "--out", str(out), "--workers", "1", "--quiet"]
    return subprocess.Popen(line, cwd=chaos.ROOT, stderr=subprocess.PIPE, text=True)


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0)


def one_line(text: str, word: str) -> None:
    assert text.count("\n") == 1, text
    assert text.startswith("clcr: ")
    assert word in text


def whole(out: Path) -> int:
    """How many runs are finished; all of them can be read, and nothing is half written."""
    found = [(folder, record) for folder, record in store.records(out)]
    for folder, record in found:
        assert record.status == "done"
        store.read_predictions(folder, record)
    assert not list(out.rglob("*.tmp"))
    return len(found)


def same(out: Path, flags: Sequence[str], shared: Path) -> None:
    """Finished like an undisturbed sweep, and nothing is left."""
    calm = shared / flags[flags.index("--method") + 1]
    if not calm.exists():
        assert run(calm, *flags) == 0
    assert not [path for pattern in chaos.LEFT for path in out.rglob(pattern)]
    assert chaos.results(out, EPOCHS) == chaos.results(calm, EPOCHS)
    assert len(chaos.results(calm, EPOCHS)) > 5


@pytest.mark.parametrize("pages", [0, 22])
def test_a_full_disk_halts_a_sweep_and_the_same_command_goes_on(
    disk: Path, shared: Path, capfd: pytest.CaptureFixture[str], pages: int
) -> None:
    out = disk / "out"
    out.mkdir()
    fill(disk, pages * PAGE)
    assert run(out, *SHORT) == cli.BAD_INPUT
    one_line(capfd.readouterr().err, "No space left on device; make room")
    assert whole(out) < 6
    assert bool(whole(out)) == (pages >= 20)
    assert not list(out.rglob(".seed-*"))
    clear(disk)
    assert run(out, *SHORT) == 0
    same(out, SHORT, shared)


def test_a_disk_that_fills_up_between_checkpoints_keeps_the_last_one(disk: Path, shared: Path) -> None:
    out = disk / "out"
    flags = [*LONG, "--checkpoint-epochs", "1"]
    runner = started(out, *flags)
    until(lambda: list(out.rglob("checkpoint.pt")), "there is a checkpoint")
    fill(disk)
    one_line(runner.communicate(timeout=60)[1], "No space left on device; make room")
    assert runner.returncode == cli.BAD_INPUT
    assert whole(out) == 0
    (left,) = out.rglob("checkpoint*.pt")
    assert "no checkpoint could be written" in (left.parent / "log.txt").read_text() or left.name == "checkpoint.pt"
    clear(disk)
    assert run(out, *flags) == 0
    assert all(record.provenance["resumed"] for _, record in store.records(out))
    same(out, LONG, shared)


def test_a_checkpoint_that_does_not_fit_does_not_end_the_run(disk: Path, shared: Path) -> None:
    out = disk / "out"
    out.mkdir()
    fill(disk, 100 * PAGE)
    assert run(out, *LONG, "--checkpoint-epochs", "4") == 0
    assert whole(out) == 2
    assert "no checkpoint could be written" in next(out.rglob("seed-000/log.txt")).read_text()
    clear(disk)
    same(out, LONG, shared)


def test_a_report_on_a_full_disk_leaves_the_old_tables(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = disk / "out"
    report = ["report", "--only", "tables", "--quiet", "--out", str(out)]

    def files() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}

    assert run(out, *TWIN, "--method", "linear", "--seeds", "0-1") == 0
    assert cli.main(report) == 0
    assert run(out, *TWIN, "--method", "linear", "--seeds", "0-2") == 0
    before = files()
    for pages in (0, 1, 12):
        fill(disk, pages * PAGE)
        capfd.readouterr()
        assert cli.main(report) == cli.BAD_INPUT
        one_line(capfd.readouterr().err, "No space left on device; make room")
        clear(disk)
        if pages < 12:
            assert files() == before
        assert all((out / "tables" / f"main.{kind}").stat().st_size for kind in ("md", "csv", "tex"))
        assert not list(out.rglob("*.tmp"))
    assert cli.main(report) == 0
    assert files() != before


def test_a_disk_that_becomes_read_only_halts_and_the_same_command_goes_on(
    disk: Path, shared: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = disk / "out"
    runner = started(out, *SHORT)
    until(lambda: list(out.glob("runs/*/*/*/seed-*")), "a run is finished")
    until(lambda: mount(disk, REMOUNT | RDONLY), "nobody is writing for a moment")
    one_line(runner.communicate(timeout=60)[1], "Read-only file system")
    assert runner.returncode == cli.BAD_INPUT
    assert 0 < len(list(store.records(out))) < 6
    capfd.readouterr()
    assert run(out, *SHORT) == cli.BAD_INPUT
    one_line(capfd.readouterr().err, "Read-only file system")
    assert mount(disk, REMOUNT)
    assert run(out, *SHORT) == 0
    same(out, SHORT, shared)
