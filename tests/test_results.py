"""What is committed under results/ hangs together: tables from records, metrics from predictions, nothing typed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks import catalog, curves
from benchmarks.archive import predictions_digest, predictions_of, read_npz
from benchmarks.metrics import compute
from benchmarks.record import RunRecord
from benchmarks.report import build

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
RECORDS = sorted((RESULTS / "records").glob("*.jsonl"))


def records(path: Path) -> list[RunRecord]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [RunRecord.from_json(json.loads(line), f"{path.name}:{i + 1}") for i, line in enumerate(lines)]


def test_there_are_committed_records_of_real_and_synthetic_runs() -> None:
    assert {record.key.data for path in RECORDS for record in records(path)} == {"real", "twin"}


def test_committed_tables_are_those_of_the_committed_records(tmp_path: Path) -> None:
    for part in ("records", "predictions"):
        shutil.copytree(RESULTS / part, tmp_path / part)
    shutil.copy(RESULTS / "published.yaml", tmp_path)
    built = build(tmp_path, only="tables")
    assert sorted(p.name for p in built.files) == sorted(p.name for p in (RESULTS / "tables").iterdir())
    for path in built.files:
        assert path.read_bytes() == (RESULTS / "tables" / path.name).read_bytes(), path.name


def test_committed_figures_are_those_of_the_committed_records(tmp_path: Path) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for name in ("matplotlib", "pillow", "numpy"):
        if not importlib.util.find_spec({"pillow": "PIL"}.get(name, name)) or version(name) != pins[name]:
            pytest.skip(f"{name} is not the pinned {pins[name]}: other versions draw other bytes")
    for part in ("records", "predictions", "curves"):
        shutil.copytree(RESULTS / part, tmp_path / part)
    built = build(tmp_path, only="figures")
    assert sorted(p.name for p in built.files) == sorted(p.name for p in (RESULTS / "figures").iterdir())
    for path in built.files:
        assert path.read_bytes() == (RESULTS / "figures" / path.name).read_bytes(), path.name
    assert sum(path.stat().st_size for path in built.files) < 3e6


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_committed_metrics_follow_from_committed_predictions(path: Path) -> None:
    spec = catalog.spec(path.stem)
    archive = read_npz(RESULTS / "predictions" / f"{path.stem}.npz")
    for record in records(path):
        assert record.status == "done", record.error
        arrays = predictions_of(archive, record.key, record.predictions)
        assert predictions_digest(arrays) == record.predictions, record.key
        assert compute(spec.metrics, arrays["prediction"], arrays["target"]) == record.metrics["test"], record.key


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_every_selected_epoch_follows_from_the_committed_curve(path: Path) -> None:
    found = curves.read(RESULTS / "curves" / path.name)
    for record in records(path):
        if record.key.method != "linear":
            assert not curves.fault(record, found[curves.identity(record)]), record.key


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_committed_records_name_a_clean_commit(path: Path) -> None:
    for record in records(path):
        assert record.provenance["commit"], record.key
        assert not record.provenance["dirty"], record.key


def test_every_method_had_the_same_number_of_trials() -> None:
    lines = (RESULTS / "search" / "open.jsonl").read_text(encoding="utf-8").splitlines()
    trials: dict[tuple[str, str], dict[str, set[int]]] = {}
    for line in map(json.loads, lines):
        group = trials.setdefault((line["benchmark"], line["protocol"]), {})
        group.setdefault(line["method"], set()).add(line["trial"])
    for methods in trials.values():
        assert len(set(map(frozenset, methods.values()))) == 1
