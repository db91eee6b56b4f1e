"""Every method runs on every twin. That committed runs come out again is held by `clcr check`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import BENCHMARKS, catalog
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner.execute import Options, execute
from benchmarks.runner.plan import Selection, select

ROOT = Path(__file__).resolve().parent.parent
TWINS = tuple(name for name in BENCHMARKS if catalog.spec(name).twin_protocol is not None)


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
