"""``clcr bench``: rows that add up, skips that are told, refusals in one line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import cli
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import bench, steps
from benchmarks.runner.opcount import OperationCount

CPU = torch.device("cpu")
TINY = bench.Size((6, 5, 4), 4, 6, 12, (4, 3))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.SIZES, "tiny", TINY)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", bench.trained())
def test_every_method_has_a_step_and_more_seeds_launch_little_more(method: str) -> None:
    one, three = list(steps.rows(steps.Measured(method, "folded", "tiny"), (1, 3), CPU, (2, math.inf)))
    assert one["steps"] == three["steps"] == 2
    assert three["flop"] == 3 * one["flop"] > 0
    assert 2 * one["bytes"] < three["bytes"] < 4 * one["bytes"]
    assert three["ops"] < 1.1 * one["ops"]
    assert one["samples_per_s"] == pytest.approx(6 / one["step_ms"] * 1e3, rel=0.01)
    assert one["peak_memory_bytes"] > 0


def test_the_loops_that_clcr_is_compared_with_are_measured_too() -> None:
    grid = bench.Grid(("clcr",), ("small",), (1, 2), steps=1, budget_s=60.0)
    naive, one, two = bench.measure(grid, {"flop_per_s": 1e11, "byte_per_s": 1e10})
    assert [row["implementation"] for row in (naive, one, two)] == ["naive", "folded", "folded"]
    assert naive["ops"] > 2 * one["ops"]


def test_a_step_from_a_graph_is_counted_as_the_one_it_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setitem(steps.BUILDERS, "graph", lambda *_: lambda: built.append("replayed"))  # type: ignore[index]
    (row,) = steps.rows(steps.Measured("late_fusion", "graph", "tiny"), (1,), CPU, (3, math.inf))
    assert built == ["replayed"] * 3
    assert row["ops"] > 100


def test_what_does_not_fit_into_the_budget_is_skipped_and_told() -> None:
    first, second = list(steps.rows(steps.Measured("late_fusion", "folded", "tiny"), (1, 2), CPU, (3, 0.0)))
    assert "skipped" not in first  # how long it takes is not known before
    assert "left" in second["skipped"]
    assert bench.roofline(second, {"flop_per_s": 1.0, "byte_per_s": 1.0}) == {}
    assert bench.as_table(second)[4] == "skipped"


def test_bytes_and_operations_of_a_known_program() -> None:
    x, y = torch.ones(4, 8), torch.ones(8, 2)
    with OperationCount() as count:
        (x @ y).add_(torch.ones(2).expand(4, 2)).view(8)
    assert dict(count.operations) == {"mm": 1, "ones": 1, "add_": 1}
    assert count.bytes == 4 * ((32 + 16 + 8) + 2 + (8 + 2 + 8))


def test_flop_of_a_grouped_convolution() -> None:
    x, weight = torch.ones(2, 6, 5, requires_grad=True), torch.ones(6, 2, 3, requires_grad=True)

    def step() -> None:
        torch.nn.functional.conv1d(x, weight, padding=1, groups=3).sum().backward()

    assert steps.count(step)["flop"] == 3 * 2 * (2 * 6 * 5) * (2 * 3)


def test_the_roofline() -> None:
    row = {"flop": 2e9, "bytes": 1e9, "step_ms": 100.0}
    assert bench.roofline(row, {"flop_per_s": 1e11, "byte_per_s": 2e10}) == {
        "flop_per_byte": 2.0,
        "flop_per_s": 2e10,
        "roof_share": 0.5,  # memory would allow 2 flop a byte x 20 GB/s
    }


def test_the_command_keeps_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "cpu.json"
    chosen = ["--method", "unimodal", "--size", "small", "--seeds-together", "2,1", "--steps", "2", "--device", "cpu"]
    assert cli.main(["bench", *chosen, "--json", "--out", str(out)]) == 0
    kept = json.loads(out.read_text())
    assert kept == json.loads(capsys.readouterr().out)
    assert [row["seeds_together"] for row in kept["rows"]] == [1, 2]
    assert kept["machine"]["threads"] == 1
    assert {"commit", "device", "cpu", "versions", "ceilings"} <= kept["machine"].keys()
    promised = {"method", "implementation", "size", "device", "samples_per_s", "step_ms", "ops", "peak_memory_bytes"}
    assert all(promised <= row.keys() for row in kept["rows"])
    assert all(row["roof_share"] > 0 for row in kept["rows"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--method", "linear"], "unknown method 'linear'"),
        (["--size", "ful"], "did you mean 'full'"),
        (["--seeds-together", "0,4"], "--seeds-together 0,4"),
        (["--seeds-together", "many"], "--seeds-together many"),
        (["--steps", "0"], "--steps 0"),
        (["--budget", "0"], "--budget 0"),
        (["--out", "kept.txt"], "ends in .json"),
        (["--figure", "kept.doc"], "must end in one of .png"),
        (["--device", "tpu"], "--device tpu"),
    ],
)
def test_bad_input_is_refused_in_one_line(wrong: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *wrong]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_figure_needs_matplotlib_and_says_so(tmp_path: Path) -> None:
    clcr = {"method": "clcr", "implementation": "folded", "size": "small"}
    rows = [{**clcr, "seeds_together": seeds, "samples_per_s": 10.0 * seeds} for seeds in (1, 2)]
    path = tmp_path / "cpu.png"
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"clcr-bench\[figures\]"):
            bench.draw({"sizes": {"small": {}}, "rows": rows}, path)
        assert not path.exists()
    else:
        bench.draw({"sizes": {"small": {}}, "rows": rows}, path)
        assert path.stat().st_size > 5000


def test_the_forward_pass_of_recorded_configurations_is_measured_on_their_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = RunKey("crema_d", "paper", "twin", "tiny", "late_fusion", "full", 0)
    lost = replace(key, data="real")
    monkeypatch.setattr(bench, "configurations", lambda _: [key, lost])
    out = tmp_path / "inference.json"
    command = ["bench", "--configurations", str(tmp_path), "--device", "cpu", "--budget", "100", "--out", str(out)]
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    assert cli.main([*command, "--json"]) == 0
    kept = json.loads(out.read_text())
    assert kept == json.loads(capsys.readouterr().out)
    measured, skipped = kept["inference"]
    assert kept["rows"] == []
    assert {name: measured[name] for name in ("benchmark", "method", "variant")} == {
        "benchmark": "crema_d", "method": "late_fusion", "variant": "full",
    }  # fmt: skip
    assert measured["flop_per_sample"] > 2 * measured["n_parameters"]
    assert 0 < measured["inference_ms"] < measured["training_ms"]
    assert skipped["run"] == lost.folder
    assert "prepared" in skipped["skipped"]


def test_configurations_are_those_of_full_variants_on_real_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--configurations"):
        bench.configurations(tmp_path)
    found = bench.configurations(Path(__file__).parents[2] / "results")
    assert {key.data for key in found} == {"real"}
    assert {key.variant for key in found} == {"full"}
    assert "linear" not in {key.method for key in found}
    assert len({replace(key, seed=0) for key in found}) == len(found)
