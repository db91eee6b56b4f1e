"""The ratchet of reproduced numbers turns one way. All records are synthetic."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from synthetic_records import Sweep, Write

from benchmarks import cli
from benchmarks.errors import InputError
from benchmarks.report import PROJECT, accepted, published

NUMBERS = len(published.load(PROJECT).numbers)
Check = Callable[..., tuple[int, str]]


def real(level: float) -> Sweep:
    return Sweep(data="real", profile="paper", levels={"clcr": level}, seeds=range(10))


@pytest.fixture
def check(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """`clcr check --only published` on ten synthetic runs of CLCR at a level of accuracy."""
    out = write([])
    shutil.copy(PROJECT, out)

    def run(level: float | None, *argv: str) -> tuple[int, str]:
        if level is not None:
            (out / "records" / "crema_d.jsonl").unlink(missing_ok=True)
            write(real(level).records())
        code = cli.main(["check", "--only", "published", "--out", str(out), *argv])
        return code, capsys.readouterr().err

    return run


def ratchet(tmp_path: Path) -> tuple[accepted.Accepted, ...]:
    return accepted.load(tmp_path / "out" / accepted.ACCEPTED)


def test_what_is_reproduced_is_told_accepted_and_must_stay(check: Check, tmp_path: Path) -> None:
    code, told = check(0.779)
    assert code == 0
    assert "newly reproduced: crema_d.paper.paper/clcr/full accuracy (published 0.7792 ± 0.01, source clcr)" in told
    assert ratchet(tmp_path) == ()
    code, told = check(None, "--accept")
    assert code == 0
    assert "accepted: crema_d.paper.paper/clcr/full" in told
    (cell,) = ratchet(tmp_path)
    assert (cell.published, cell.margin) == (0.7792, 0.01)
    assert check(None) == (0, f"published: 1 reproduced, 0 not reproduced, 0 inconclusive, {NUMBERS - 1} not run\n")
    code, told = check(0.75)
    assert code == 1
    assert "crema_d.paper.paper/clcr/full accuracy" in told
    assert "expected reproduced, found not reproduced" in told


def test_accepting_does_not_take_back_what_is_no_longer_reproduced(check: Check, tmp_path: Path) -> None:
    check(0.779, "--accept")
    code, told = check(0.75, "--accept")
    assert code == 1
    assert "found not reproduced" in told
    assert len(ratchet(tmp_path)) == 1


def test_runs_that_are_left_out_are_a_regression(check: Check, tmp_path: Path, write: Write) -> None:
    check(0.779, "--accept")
    (tmp_path / "out" / "records" / "crema_d.jsonl").unlink()
    write(Sweep(benchmark="ave", profile="tiny").records())
    code, told = check(None)
    assert code == 1
    assert "expected reproduced, found not run" in told


@pytest.mark.parametrize("change", ["value: 77.92", "accuracy: 1.0"], ids=["value", "margin"])
def test_a_cell_that_left_fails_until_it_is_dropped_openly(check: Check, tmp_path: Path, change: str) -> None:
    check(0.779, "--accept")
    path = tmp_path / "out" / "published.yaml"
    path.write_text(path.read_text().replace(change, change.split(":")[0] + ": 2.5", 1))
    code, told = check(None)
    assert code == 1
    assert "expected reproduced, found no such cell in published.yaml" in told
    code, told = check(None, "--accept")
    assert code == 0
    assert "dropped, as it left the published numbers: crema_d.paper.paper/clcr/full" in told
    assert all((cell.published, cell.margin) != (0.7792, 0.01) for cell in ratchet(tmp_path))


def test_the_file_is_sorted_and_one_line_a_cell(tmp_path: Path) -> None:
    cells = [
        accepted.Accepted("ave", "accuracy", method, "full", "clcr", 0.7, 0.01, "paper", "paper") for method in "zab"
    ]
    path = tmp_path / accepted.ACCEPTED
    accepted.save(path, cells)
    assert [line[4:40] for line in path.read_text().splitlines() if line.startswith("  - ")] == [
        f"{{benchmark: ave, metric: accuracy, method: {m}"[:36] for m in "abz"
    ]
    assert accepted.load(path) == tuple(sorted(cells))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 9}, "not schema 1"),
        ({"reproduced": {}}, "not schema 1"),
        ({"reproduced": [[]]}, "reproduced[0]: not a mapping"),
        ({"reproduced": [{"bench": "ave"}]}, "did you mean 'benchmark'?"),
        ({"reproduced": [{"benchmark": "ave"}]}, "reproduced[0].metric: None"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / accepted.ACCEPTED
    path.write_text(yaml.safe_dump({"schema": 1, "reproduced": [], **change}))
    with pytest.raises(InputError) as error:
        accepted.load(path)
    assert message in str(error.value)
