"""Bad input on the command line: exit code 2, one line on stderr that names it and the remedy, nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import store

KEY = RunKey("crema_d", "paper", "twin", "tiny", "linear", "full", 0)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLCR_DATA", raising=False)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a call is refused with."""
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("clcr: ")]
    assert len(lines) == 1
    assert captured.err.splitlines()[-1] == lines[0]
    return lines[0]


@pytest.mark.parametrize("command", ["plan", "run", "status", "report"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--benchmark", "crema-d"], ["--benchmark", "'crema-d'", "did you mean 'crema_d'"]),
        (["--benchmark", ""], ["--benchmark", "''"]),
        (["--method", "clrc"], ["--method", "did you mean 'clcr'"]),
        (["--variant", "no_hierachy", "--method", "clcr"], ["--variant", "did you mean 'no_hierarchy'"]),
        (["--seeds", "4-0"], ["--seeds 4-0", "smaller seed first"]),
        (["--seeds", "x"], ["--seeds x", "write 0-4 or 0,3"]),
        (["--profile", "tyny"], ["--profile", "did you mean 'tiny'"]),
        (["--protocol", "papre"], ["--protocol", "did you mean 'paper'"]),
        (["--data", "rael"], ["--data", "did you mean 'real'"]),
        (["--bench", "crema_d"], ["--bench", "--help"]),
    ],
)
def test_a_wrong_selection(
    command: str, arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, command, *arguments, "--out", str(tmp_path / "out"))
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "training.lrr=1"], ["training.lrr", "did you mean 'training.lr'"]),
        (["--set", "training.lr"], ["training.lr", "key=value"]),
        (["--set", "training.epochs=many"], ["training.epochs", "'many'", "int"]),
        (["--set", "training.epochs=0"], ["clcr: --set: training.epochs", "at least 1"]),
        (["--set", "encoder.width=0"], ["clcr: --set: encoder.width = 0", "positive integer"]),
        (["--launcher", "lokal"], ["--launcher", "did you mean 'local'"]),
        (["--workers", "0"], ["--workers 0", "at least 1"]),
        (["--workers", "two"], ["--workers", "'two'"]),
        (["--device", "gpu"], ["--device gpu", "cuda:0"]),
        (["--device", "cuda:99"], ["--device cuda:99", "--device cpu"]),
        (["--data", "real"], ["crema_d", "no prepared data", "clcr prepare crema_d --source DIR"]),
    ],
)
def test_a_wrong_run(
    arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    selection = ["--benchmark", "crema_d", "--method", "late_fusion"]
    line = refused(capsys, "run", *selection, *arguments, "--out", str(tmp_path / "out"))
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["COMMAND"]),
        (["rnu"], ["'rnu'", "'run'"]),
        (["list", "method"], ["'method'", "'methods'"]),
        (["prepare", "ravdess"], ["--source", "CLCR_DATA"]),
        (["prepare", "ravdes", "--source", "."], ["did you mean 'ravdess'"]),
        (["prepare", "ravdes"], ["did you mean 'ravdess'"]),
        (["prepare", "RAVDESS", "--source", "."], ["did you mean 'ravdess'"]),
        (["prepare", "ravdess", "--source", "/nowhere/at/all"], ["/nowhere/at/all", "no such folder"]),
        (["prepare", "all", "--source", "/nowhere/at/all"], ["/nowhere/at/all", "no such folder"]),
        (["prepare", "all", "--source", "/dev/null"], ["/dev/null: not a folder"]),
        (["prepare", "all", "--source", ".", "--dry-run"], ["holds none of the benchmarks' files"]),
        (["prepare", "all", "--verify"], ["nothing is prepared there", "clcr prepare BENCHMARK"]),
        (["fetch", "ave", "--to", "/proc/clcr"], ["--to /proc/clcr: cannot be made", "another folder"]),
        (["fetch", "CMU-MOSI", "--dry-run"], ["did you mean 'cmu_mosi'"]),
        (["fetch", "all", "--sdk", "--dry-run"], ["--sdk", "only cmu_mosi and cmu_mosei have"]),
        (["report", "--only", "tabels", "--out", "."], ["--only tabels", "tables"]),
    ],
)
def test_a_wrong_command(
    argv: list[str],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *argv)
    assert all(word in line for word in words), line


def test_preparing_from_a_folder_without_the_files_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    refused(capsys, "prepare", "ravdess", "--source", str(tmp_path / "source"))
    line = refused(capsys, "prepare", "all", "--source", str(tmp_path / "source"))
    assert "none of the benchmarks" in line
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("command", ["plan", "run", "status", "report"])
def test_an_out_that_is_no_folder(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    line = refused(capsys, command, "--benchmark", "crema_d", "--out", str(tmp_path / "file"))
    assert f"--out {tmp_path / 'file'}" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_an_out_that_cannot_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--benchmark", "crema_d", "--method", "linear", "--data", "twin"]
    assert "--out /proc/clcr: cannot write there" in refused(capsys, "run", *arguments, "--out", "/proc/clcr")


@pytest.fixture
def corrupt(tmp_path: Path) -> Path:
    """An out folder with one good and one corrupt record."""
    out = tmp_path / "out"
    for seed in (0, 1):
        key = RunKey(**{**vars(KEY), "seed": seed})
        folder = store.folder_of(out, key)
        folder.mkdir(parents=True)
        store.write_record(folder, RunRecord(key, {}, "failed", error="broke"))
    path = store.folder_of(out, KEY) / store.RECORD
    path.write_text(path.read_text()[:-40])
    return out


@pytest.mark.parametrize("command", ["plan", "status", "report"])
def test_a_corrupt_record(command: str, corrupt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in corrupt.rglob("*") if path.is_file()}
    arguments = ["--benchmark", "crema_d", "--method", "linear", "--data", "twin"]
    line = refused(capsys, command, *arguments, "--out", str(corrupt))
    assert f"{KEY.folder}/record.json" in line
    assert "run again" in line
    assert before == {path: path.read_bytes() for path in corrupt.rglob("*") if path.is_file()}


def test_a_corrupt_committed_line(corrupt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(store.folder_of(corrupt, KEY))
    (corrupt / "records").mkdir()
    (corrupt / "records" / "crema_d.jsonl").write_text("{}\n")
    line = refused(capsys, "report", "--out", str(corrupt))
    assert "crema_d.jsonl:1" in line
    assert "'schema'" in line
    assert not (corrupt / "tables").exists()


def test_a_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refused(capsys, "report", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
