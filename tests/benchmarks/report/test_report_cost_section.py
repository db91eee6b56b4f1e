"""Costs beside scores: the front, the claim on what is paid for, the seeds that a claim takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_lines import UCF, cell, check, data_of, records, text
from synthetic_records import noise, write_records

from benchmarks.drawing import style
from benchmarks.errors import InputError
from benchmarks.report.sections import cost
from benchmarks.report.sections.frame import FAILED, HELD, OPEN, Made

KEY = {"benchmark": "ucf101", "protocol": "subset3", "data": "real", "profile": "open", "variant": "full"}
FLOP = {"clcr": 9e6, "late_fusion": 3e6, "misa": 12e6, "unimodal_rgb": 1e6}


def rows() -> list[dict[str, Any]]:
    times = {"inference_ms": 0.2, "training_ms": 0.6}
    return [{**KEY, "method": method, "flop_per_sample": flop, **times} for method, flop in FLOP.items()]


def made(out: Path, gain: float, spread: float, inference: list[dict[str, Any]] | None = None) -> Made:
    levels = {"clcr": 0.7 + gain, "late_fusion": 0.7, "misa": 0.9, "unimodal_rgb": 0.5}
    kept = []
    for record in records(UCF, {(method, "full"): level for method, level in levels.items()}):
        value = record.metrics["test"]["accuracy"] + spread * noise(str(record.key))
        kept.append(record.__class__(**{**vars(record), "metrics": {"test": {"accuracy": value}}}))
    write_records(out, kept)
    if inference is not None:
        (out / "bench").mkdir()
        (out / "bench" / "inference.json").write_text(json.dumps({"rows": [], "inference": inference}))
    with style():
        return cost.build(data_of(out))


@pytest.mark.parametrize(("gain", "spread", "word"), [(0.1, 1e-3, HELD), (-0.1, 1e-3, FAILED), (0.02, 0.05, OPEN)])
def test_clcr_is_worth_its_cost_where_it_beats_what_is_cheaper(
    tmp_path: Path, gain: float, spread: float, word: str
) -> None:
    found = made(tmp_path, gain, spread, rows())
    check(found)
    assert found.claims[0].verdict == word  # MISA is better and costs more: it does not count
    assert "CLCR less each cheaper method: Late fusion" in text(found)
    assert "3.00 times the forward pass" in text(found)
    assert cell(found, "costs", "Forward (MFLOP)", "CLCR") == "9.000"
    assert cell(found, "costs", "Front", "Unimodal (rgb)") == "—"
    assert cell(found, "costs", "Front", "CLCR") == ("no" if gain < 0 else "yes")


def test_without_measurements_the_time_of_a_run_orders_and_the_section_says_so(tmp_path: Path) -> None:
    found = made(tmp_path, 0.1, 1e-3)
    check(found)
    assert "`clcr bench --configurations" in text(found)
    assert cell(found, "costs", "Forward (MFLOP)", "CLCR") == "—"


def test_the_seeds_that_a_relevant_difference_takes(tmp_path: Path) -> None:
    found = made(tmp_path, 0.1, 0.02, rows())
    relevant, n = (int(cell(found, "seeds", name, "Late fusion")) for name in ("To find what matters", "Runs"))
    assert relevant > n == 5
    assert "to find a difference of 1.00 takes up to" in text(found)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**KEY, "method": "clcr", "flop_per_sample": "many"}, "field 'flop_per_sample' is 'many'"),
        ({**KEY, "method": 3}, "field 'method' is '3'"),
        ({**rows()[0], "training_ms": -1}, "field 'training_ms' is '-1'"),
    ],
)
def test_a_damaged_measurement_is_refused_in_one_line(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"inference": [row]}))
    with pytest.raises(InputError, match=r"inference\[0\]") as error:
        cost.forwards(tmp_path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_other_files_of_the_bench_and_skipped_rows_are_no_measurements(tmp_path: Path) -> None:
    (tmp_path / "cpu.json").write_text(json.dumps({"rows": []}))
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "some.json").write_text(json.dumps({"inference": [{"run": "x", "skipped": "no budget left"}]}))
    assert cost.forwards(tmp_path) == {}
    (tmp_path / "torn.json").write_text('{"inference": [')
    with pytest.raises(InputError, match="not JSON"):
        cost.forwards(tmp_path)
