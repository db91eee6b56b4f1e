"""Every method runs on every twin, and two committed runs come out again when they are trained anew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import BENCHMARKS, catalog
from benchmarks.archive import predictions_of, read_npz
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner.execute import Options, execute
from benchmarks.runner.plan import Selection, select

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
TWINS = tuple(name for name in BENCHMARKS if catalog.spec(name).twin_protocol is not None)
GOLDEN = ("late_fusion", "clcr")


def run(key: RunKey, folder: Path, *overrides: str) -> RunRecord:
    options = Options(folder, folder / "cache", overrides=overrides)
    (record,) = execute([key], options, [folder / "run"], lambda progress: None)
    return record


def sweep() -> list[RunKey]:
    keys, _ = select(Selection(benchmarks=TWINS, data="twin", seeds=(0,)), ROOT / ".cache")
    return keys


@pytest.mark.parametrize("key", sweep(), ids=lambda key: f"{key.benchmark}-{key.method}")
def test_every_method_runs_on_every_twin(key: RunKey, tmp_path: Path) -> None:
    record = run(key, tmp_path, *(() if key.method == "linear" else ("training.epochs=1",)))
    assert record.status == "done", record.error
    spec = catalog.spec(key.benchmark)
    assert set(record.metrics["test"]) == set(spec.metrics)
    with np.load(tmp_path / "run" / "predictions.npz", allow_pickle=False) as arrays:
        assert len(arrays["index"]) == catalog.twin_protocol(key.benchmark).counts["test"]


@pytest.mark.parametrize("method", GOLDEN)
def test_a_committed_run_comes_out_again(method: str, tmp_path: Path) -> None:
    """Another processor rounds differently, and a hundred steps carry that on: scores agree, bits need not."""
    lines = (RESULTS / "records" / "ave.jsonl").read_text(encoding="utf-8").splitlines()
    records = [RunRecord.from_json(json.loads(line), "ave.jsonl") for line in lines]
    key = RunKey("ave", "paper", "twin", "tiny", method, "full", 0)
    committed = next(record for record in records if record.key == key)
    again = run(key, tmp_path)
    assert again.digest == committed.digest, "the committed run is stale: code, data or configuration has changed"
    arrays = predictions_of(read_npz(RESULTS / "predictions" / "ave.npz"), key, committed.predictions)
    with np.load(tmp_path / "run" / "predictions.npz", allow_pickle=False) as found:
        assert np.array_equal(found["index"], arrays["index"])
        same = found["prediction"].argmax(1) == arrays["prediction"].argmax(1)
    assert same.mean() > 0.97
    assert again.metrics["test"]["accuracy"] == pytest.approx(committed.metrics["test"]["accuracy"], abs=0.02)
