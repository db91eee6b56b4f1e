"""Whole runs that are cut short and taken up again: their files and records are those of runs that never were."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import test_execute
import torch
from test_execute import CV, KEY

from baselines import METHODS
from benchmarks import cli
from benchmarks.errors import Stopped
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import environment, plan, results, snapshot
from benchmarks.runner import execute as module
from benchmarks.runner.execute import Options, execute

options, synthetic_cv = test_execute.options, test_execute.synthetic_cv
SUITE = [
    (f"{row.name}_audio" if row.per_modality else row.name, variant)
    for row in METHODS.values()
    if not row.fitted
    for variant in row.variants
]
SAME = ("key", "what", "status", "selection", "metrics", "folds", "diagnostics", "n_parameters", "predictions", "error")


class After:
    """Says stop when it is asked for the n-th time; counts how often it was asked."""

    def __init__(self, point: int) -> None:
        self.point, self.asked = point, 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked == self.point


def trained(
    keys: Sequence[RunKey], options: Options, name: str, stop: Callable[[], bool] = lambda: False
) -> tuple[list[RunRecord], list[Path]]:
    folders = [options.out / name / str(key.seed) for key in keys]
    return execute(keys, options, folders, lambda _: None, stop), folders


def left(records: Sequence[RunRecord], folders: Sequence[Path]) -> list[Any]:
    """What must be the same: the files, and what records say of numbers."""
    names = ("predictions.npz", "curves.jsonl")
    files = [(folder / name).read_bytes() for folder in folders for name in names if (folder / name).exists()]
    return [*files, *(getattr(record, name) for record in records for name in SAME)]


def cut(keys: Sequence[RunKey], options: Options, points: Sequence[int]) -> list[Any]:
    """Leave a team at these points, each counted from the one before, and end it."""
    for point in points:
        with pytest.raises(Stopped):
            trained(keys, options, "cut", After(point))
    found, folders = trained(keys, options, "cut")
    for record in found:
        assert [set(entry) for entry in record.provenance["resumed"]] == [
            {"epoch", "fold", "cpu_kind", "cpu_kind_before", "at"}
        ] * len(points)
    for folder in folders:
        lines = (folder / "log.txt").read_text()
        assert len(re.findall(r"resumed at epoch \d+, step \d+ of fold \d+\n", lines)) == len(points)
        assert len(re.findall(r" on cpu", lines)) == len(points) + 1
    return left(found, folders)


@pytest.mark.parametrize(("method", "variant"), SUITE)
def test_a_run_of_any_method_goes_on(method: str, variant: str, options: Options) -> None:
    seeds = (0, 1, 5)[: 1 + len(variant) % 3]
    keys = [replace(KEY, method=method, variant=variant, seed=seed) for seed in seeds]
    options = replace(options, overrides=(*options.overrides, "training.batch_size=64"))
    asked = After(0)
    whole = left(*trained(keys, options, "whole", asked))
    points = np.random.default_rng([len(method), len(variant)]).integers(1, asked.asked // 2, 2)
    assert cut(keys, options, [int(point) for point in points]) == whole


@pytest.mark.parametrize("method", ["clcr", "linear"])
def test_folds_that_are_over_are_not_trained_again(
    method: str, options: Options, synthetic_cv: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [replace(CV, method=method, seed=seed) for seed in ((0,) if method == "linear" else (0, 1))]
    asked, folds = After(0), []
    whole = left(*trained(keys, options, "whole", asked))
    run_fold = module.run_fold

    def counted(runs: Any, data: Any, *rest: Any) -> Any:
        folds.append(data[0].fold)
        return run_fold(runs, data, *rest)

    monkeypatch.setattr(module, "run_fold", counted)
    each = (asked.asked - 2) // 3  # the last fold's end is the run's
    points = [1] if method == "linear" else [each + 1, each + 2]
    assert cut(keys, options, points) == whole
    assert folds == ([0, 1, 2] if method == "linear" else [0, 1, 2, 2])


def test_every_point_of_a_cross_validated_run(options: Options, synthetic_cv: ModuleType) -> None:
    keys, asked = [replace(CV, method="ogm_ge")], After(0)
    whole = left(*trained(keys, options, "whole", asked))
    assert asked.asked == 3 * 2 * 2 + 2  # a step and an end each epoch, two folds' ends
    for point in range(1, asked.asked + 1):
        assert cut(keys, replace(options, out=options.out / str(point)), [point]) == whole


def test_time_adds_up_and_memory_is_the_most(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "peak_memory", lambda _: 2**50)
    clock = [100.0]
    monkeypatch.setattr(snapshot.time, "process_time", lambda: clock[0])

    def stop() -> bool:
        clock[0] += 50.0
        return True

    with pytest.raises(Stopped):
        trained([KEY], options, "cut", stop)
    monkeypatch.setattr(environment, "peak_memory", lambda _: 1)
    clock[0] = 10_000.0
    (record,), _ = trained([KEY], options, "cut")
    assert record.time_s == 50.0
    assert record.peak_memory_bytes == 2**50
    assert record.provenance["started_at"] < record.provenance["resumed"][0]["at"]


def test_a_run_of_seconds_writes_no_checkpoint(options: Options) -> None:
    _, (folder,) = trained([KEY], options, "whole")
    assert sorted(path.name for path in folder.iterdir()) == ["curves.jsonl", "log.txt", "predictions.npz"]
    trained([KEY], replace(options, checkpoint_epochs=1), "often")
    assert {snapshot.NAME, snapshot.PREVIOUS} < {path.name for path in (options.out / "often" / "0").iterdir()}
    trained([KEY], replace(options, checkpoint_s=1e-9), "always")
    steps = len(re.findall("checkpoint at", (options.out / "always" / "0" / "log.txt").read_text()))
    assert steps > 2 * 2


def test_a_bad_checkpoint_is_told_in_the_log_and_the_run_starts_anew(options: Options) -> None:
    whole = left(*trained([KEY], options, "whole"))
    folder = options.out / "bad" / "0"
    folder.mkdir(parents=True)
    (folder / snapshot.NAME).write_bytes(b"not this")
    assert left(*trained([KEY], options, "bad")) == whole
    assert "checkpoint.pt is not used: not a checkpoint" in (folder / "log.txt").read_text()
    with pytest.raises(Stopped):
        trained([KEY], options, "changed", After(3))
    (record,), (folder,) = trained([KEY], replace(options, overrides=("training.epochs=3",)), "changed")
    assert "resumed" not in record.provenance
    assert "it belongs to other runs" in (folder / "log.txt").read_text()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("name", ["write_npz", "write_bytes", "log.txt"])
def test_a_disk_without_room_is_not_the_methods_fault(
    code: int, name: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(code, "no room")

    if name == "log.txt":
        monkeypatch.setattr(module, "_scores", full)
    else:
        monkeypatch.setattr(results, name, full)
    if code == errno.EIO:
        (record,), _ = trained([KEY], options, "full")
        assert (record.status, record.error) == ("failed", f"OSError: [Errno {code}] no room")
    else:
        with pytest.raises(OSError, match="no room"):
            trained([KEY], options, "full")


NO_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes"),
    MemoryError("Unable to allocate"),
)


def tight(monkeypatch: pytest.MonkeyPatch, error: Exception, most: int) -> list[list[int]]:
    """Let no more than some seeds fit; the teams that are tried."""
    tried, whole = [], module.run_fold

    def run_fold(runs: Any, *rest: Any) -> Any:
        tried.append([run.key.seed for run in runs])
        if len(runs) > most:
            raise error
        return whole(runs, *rest)

    monkeypatch.setattr(module, "run_fold", run_fold)
    return tried


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: str(error)[:20])
def test_what_does_not_fit_into_memory(error: Exception, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        tried = tight(patch, error, 1)
        records, _ = trained([replace(KEY, seed=seed) for seed in range(3)], options, "halves")
        assert [record.status for record in records] == ["done"] * 3
        assert tried == [[0, 1, 2], [0], [1, 2], [1], [2]]
    tight(monkeypatch, error, 0)
    (record,), _ = trained([KEY], options, "one")
    assert record.status == "failed"
    pattern = (
        r"MemoryError: one seed with training.batch_size 32 does not fit into the memory of cpu \([\d.]+ GiB, .*--set"
    )
    assert re.match(pattern, record.error)
    assert "\n" not in record.error


def test_other_errors_are_the_methods_own(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = tight(monkeypatch, RuntimeError("shapes differ"), 0)
    records, _ = trained([replace(KEY, seed=seed) for seed in range(2)], options, "all")
    assert [record.error for record in records] == ["RuntimeError: shapes differ"] * 2
    assert tried == [[0, 1]]


def test_a_half_that_was_trained_is_not_trained_again(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """A team that does not fit is left in its second half, and taken up: each half goes on where it was."""
    keys = [replace(KEY, seed=seed) for seed in range(2)]
    tight(monkeypatch, MemoryError("no"), 1)
    asked = After(0)
    whole = left(*trained(keys, options, "whole", asked))
    with pytest.raises(Stopped):
        trained(keys, options, "cut", After(asked.asked - 2))
    tried = tight(monkeypatch, MemoryError("no"), 1)
    found, folders = trained(keys, options, "cut")
    assert left(found, folders) == whole
    assert tried == [[0, 1], [1]]
    assert [record.provenance["together"] for record in found] == [[0], [1]]
    assert "resumed" in (folders[0] / "log.txt").read_text()


def test_the_place_tells_the_engine_when(tmp_path: Path) -> None:
    place = plan.Place(tmp_path, tmp_path, checkpoint_s=7.0, checkpoint_epochs=2)
    assert asdict(plan.options(place)) == asdict(place)
    assert (plan.Place(tmp_path, tmp_path).checkpoint_s, Options(tmp_path, tmp_path).checkpoint_epochs) == (300.0, 0)


@pytest.mark.parametrize("wrong", [("--checkpoint-minutes", "-1"), ("--checkpoint-minutes", "nan")])
def test_a_wrong_interval_is_refused(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--benchmark", "crema_d", *wrong]) == cli.BAD_INPUT
    assert capsys.readouterr().err.startswith(f"clcr: {wrong[0]} ")
