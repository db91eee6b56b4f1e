"""Timing a few steps of a run: it goes through the trainer, writes nothing, and adds up to a run."""

from __future__ import annotations

import io
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.record import RunKey
from benchmarks.runner import execute, probe
from benchmarks.runner.execute import Options
from benchmarks.runner.probe import Timing, cut

CPU = torch.device("cpu")
KEY = RunKey("crema_d", "paper", "twin", "tiny", "late_fusion", "full", 0)
TEAM = [replace(KEY, seed=seed) for seed in range(2)]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path / "out", tmp_path / "cache", "cpu", ("training.epochs=2",))


def test_a_fold_is_its_epochs_and_evaluations(options: Options) -> None:
    """448 training samples in batches of 32, 128 validation and 256 test samples."""
    run = execute.setting(KEY, options)
    timing = Timing(step_s=1.0, evaluation_s=100.0, beside_s=10000.0)
    fold = run.arrangement.folds[0]
    assert (len(fold.train), len(fold.valid), len(fold.test)) == (448, 128, 256)
    assert probe._fold_s(run, fold, timing) == 10000 + 2 * (14 + 100) + 2 * 100 + 100


def test_a_row_predicts_a_run_and_nothing_is_written(options: Options) -> None:
    row = probe.measure(TEAM, options, CPU)
    assert row["seeds"] == 2
    assert 0 < row["step_s"] < row["run_s"]
    assert row["run_s"] > 14 * row["step_s"]  # two epochs of two seeds, half of each
    assert row["memory"] > 2**20
    assert not row["early"]
    assert not options.out.exists()


def test_more_epochs_cost_more_and_early_stopping_is_told(options: Options) -> None:
    longer = replace(options, overrides=("training.epochs=40", "training.patience=3"))
    row = probe.measure(TEAM, longer, CPU)
    assert row["early"]
    assert row["run_s"] > 4 * probe.measure(TEAM, options, CPU)["run_s"]


def test_a_slow_step_is_measured_on_a_few_samples(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int, int]] = []

    def trained(runs: Any, data: Any, size: tuple[int, int, int], now: Any) -> Timing:
        sizes.append(size)
        return Timing(1.0, 2.0, 3.0)

    monkeypatch.setattr(probe, "_trained", trained)
    row = probe.measure(TEAM, options, CPU)
    assert sizes == [(4, 1, 4)] * 2
    assert (row["step_s"], row["evaluation_s"]) == (32 / 4, 2.0 * 128 / 4)
    monkeypatch.setattr(probe, "SLOW_S", 100.0)
    assert probe.measure(TEAM, options, CPU)["step_s"] == 1.0
    assert sizes[2:] == [(4, 1, 4), (32, 1, 128)]


def test_fitted_methods_are_timed_too(options: Options) -> None:
    row = probe.measure([replace(KEY, method="linear")], options, CPU)
    assert row["run_s"] > 0
    assert "step_s" not in row


def test_a_cut_keeps_samples_apart(options: Options) -> None:
    arrangement = execute.setting(KEY, options).arrangement
    fold = cut(arrangement, 10, 3).folds[0]
    assert (len(fold.train), len(fold.valid), len(fold.test)) == (10, 3, 3)
    assert len(np.unique(np.concatenate([fold.train, fold.valid, fold.test]))) == 16


def test_the_process_answers_in_lines_and_keeps_to_its_budget(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(probe, "_print", lines.append)
    place = {**asdict(options), "out": str(options.out), "cache": str(options.cache)}
    refused = [asdict(replace(KEY, method="unimodal_nothing"))]
    asked = {"teams": [refused, [asdict(KEY)]], "place": place, "budget_s": 60.0, "asked_at": time.time() - 5.0}
    probe.main(json.load(io.StringIO(json.dumps(asked))))
    assert 5.0 <= lines[0]["start_s"] < 30.0
    assert lines[0]["free"] == 0
    assert "nothing" in lines[1]["skipped"]
    assert lines[2]["run_s"] > 0
    lines.clear()
    probe.main({**asked, "budget_s": 0.0})
    assert len(lines) == 1
