"""Noise: areas that are known, and a verdict that follows from them."""

from __future__ import annotations

from math import log2
from pathlib import Path

import pytest
from made_lines import MOSI, UCF, cell, check, gathered, records, text
from synthetic_records import noise

from benchmarks.drawing import style
from benchmarks.record import RunKey
from benchmarks.report.sections.frame import FAILED, HELD, OPEN, Made
from benchmarks.report.sections.robustness import ALL, SIGMAS, area, build, kept

ROWS = {("clcr", "full"): 0.8, ("late_fusion", "full"): 0.7, ("misa", "full"): 0.75, ("unimodal_rgb", "full"): 0.5}


def test_a_method_that_loses_nothing_keeps_everything() -> None:
    flat = [0.7] * len(SIGMAS)
    assert area(flat) == pytest.approx(0.7)
    assert kept("accuracy", flat) == kept("mae", flat) == pytest.approx(1.0)


def test_the_area_of_a_straight_line_is_its_middle_and_the_scale_is_the_logarithm() -> None:
    assert area([1 - 0.1 * log2(1 + s) for s in SIGMAS]) == pytest.approx(1 - 0.05 * log2(5))
    assert area([0.0, 1.0, 1.0], (0.0, 1.0, 3.0)) == pytest.approx(0.75)  # places 0, 1 and 2


def test_an_error_that_doubles_keeps_half() -> None:
    rising = [1 + log2(1 + s) * 2 / log2(5) for s in SIGMAS]  # from 1 to 3, 2 on average
    assert kept("mae", rising) == pytest.approx(0.5)
    assert kept("accuracy", rising[::-1]) < 1 < kept("accuracy", rising)


def made(tmp_path: Path, place: str, slopes: dict[str, float], spread: float = 1e-4) -> Made:
    metric = "mae" if place == MOSI else "accuracy"
    modalities = ("language", "audio") if place == MOSI else ("rgb", "flow")

    def values(key: RunKey) -> dict[str, object]:
        slope = slopes[key.method] + spread * noise(str(key))
        line = {f"{s:g}": {metric: 0.8 - slope * log2(1 + s)} for s in SIGMAS}
        return {ALL: line, **dict.fromkeys(modalities, line)}

    with style():
        return build(gathered(tmp_path, records(place, ROWS), "robustness", values))


def test_the_verdict_is_that_of_the_worst_rival(tmp_path: Path) -> None:
    held = made(tmp_path / "a", UCF, {"clcr": 0.01, "late_fusion": 0.03, "misa": 0.05, "unimodal_rgb": 0.0})
    failed = made(tmp_path / "b", UCF, {"clcr": 0.03, "late_fusion": 0.01, "misa": 0.05, "unimodal_rgb": 0.0})
    slopes = {"clcr": 0.030, "late_fusion": 0.035, "misa": 0.05, "unimodal_rgb": 0.0}
    open_ = made(tmp_path / "c", UCF, slopes, spread=0.02)
    assert [m.claims[0].verdict for m in (held, failed, open_)] == [HELD, FAILED, OPEN]
    for found in (held, failed, open_):
        check(found)
    assert "CLCR degrades significantly less than Late fusion and MISA" in text(held)
    assert "CLCR degrades significantly more than Late fusion" in text(failed)
    assert "seeds" in open_.claims[0].settle


def test_less_error_is_better(tmp_path: Path) -> None:
    slopes = {"clcr": -0.01, "late_fusion": -0.03, "misa": -0.05, "unimodal_rgb": 0.0}
    found = made(tmp_path, MOSI, slopes)
    assert found.claims[0].verdict == HELD
    assert cell(found, "areas", "Change", "CLCR", ALL).startswith("+0.01")
    assert set(found.figures) == {"noise.svg", "noise.png"}


def test_lines_of_other_runs_do_not_count(tmp_path: Path) -> None:
    rows = records(UCF, ROWS)
    curve = {ALL: {f"{s:g}": {"accuracy": 0.5} for s in SIGMAS}}
    data = gathered(tmp_path, rows, "robustness", lambda _: curve)
    lines = (tmp_path / "analyses/robustness.jsonl").read_text().splitlines()
    lines[-1] = lines[-1].replace(rows[-1].digest, "1" * 64)
    (tmp_path / "analyses/robustness.jsonl").write_text("\n".join(lines))
    with style():
        told = build(data).tables[0].parts["real"][0].notes
    assert "PARTIAL: 1 run of 20 not analysed" in told[0]
    assert "1 line left out" in told[1]


def test_without_lines_the_section_says_how_to_make_them(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    assert "`clcr analyse robustness`" in text(
        build(gathered(tmp_path, records(UCF, ROWS), "robustness", lambda _: {}))
    )
