"""How many seeds train together: counted on a CPU, measured on a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import catalog, cli
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import execute, measured
from benchmarks.runner.execute import Options
from benchmarks.runner.opcount import OperationCount
from benchmarks.runner.plan import Place, Planned
from benchmarks.runner.teams import teams
from benchmarks.runner.together import Measured, from_rows, on_cpu, on_gpu

KEY = RunKey("crema_d", "paper", "twin", "tiny", "late_fusion", "full", 0)
GIB = 2**30
RECORDS = Path(__file__).resolve().parents[3] / "results" / "records"


def test_a_cpu_tells_launches_from_arithmetic() -> None:
    small, large = on_cpu(300, 300 * 0.8e6), on_cpu(300, 300 * 25e6)
    assert (small.seeds, large.seeds) == (8, 1)
    assert "0.8 MFLOP" in small.why
    assert "arithmetic" in large.why
    assert on_cpu(0, 0.0).seeds == 8


def test_a_gpu_takes_what_fits() -> None:
    one, two = Measured(1, 0.010, 3 * GIB), Measured(2, 0.011, 5 * GIB)  # 1 + 2 GiB a seed
    assert [on_gpu(one, two, free * GIB).seeds for free in (1, 7, 12, 22, 42, 82, 1000)] == [1, 2, 4, 8, 16, 32, 32]
    assert "8 would take 17.0 of 16.0 GiB" in on_gpu(one, two, 20 * GIB).why


def test_a_gpu_takes_what_still_gains() -> None:
    def seeds(one: float, two: float) -> int:
        return on_gpu(Measured(1, one, 1), Measured(2, two, 2), 100 * GIB).seeds

    assert seeds(0.010, 0.0101) == 32  # bound by launches
    assert seeds(0.010, 0.020) == 1  # bound by arithmetic
    assert seeds(0.010, 0.015) == 16  # 5 + 5 ms a seed: 16 do 1.06 times the samples/s of 8, 32 would do 1.03 times
    assert seeds(0.010, 0.009) == 32  # a measurement that shows no cost at all
    assert "samples/s" in on_gpu(Measured(1, 1.0, 1), Measured(2, 2.0, 2), 100 * GIB).why


def test_a_gpu_takes_no_more_than_there_are() -> None:
    one, two = Measured(1, 0.010, 1), Measured(2, 0.0101, 2)
    assert [on_gpu(one, two, GIB, most).seeds for most in (1, 2, 3, 5, 8, 100)] == [1, 2, 2, 4, 8, 32]


def test_a_probe_that_failed_falls_back() -> None:
    row = {"seeds": 1, "step_s": 0.01, "memory": GIB}
    assert from_rows([row, {**row, "seeds": 2}], 100 * GIB, 5).seeds == 4
    assert from_rows([row], 100 * GIB, 5).seeds == 5
    assert from_rows([row, {"seeds": 2, "skipped": "out of memory"}], 100 * GIB, 20).seeds == 8
    assert "could not be measured" in from_rows([], 0, 5).why


def test_one_request_serves_all_configurations_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[list[dict[str, Any]]]] = []

    def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
        asked.append(request["teams"])
        rows = [{"seeds": len(team), "step_s": 0.01 * len(team) ** (team[0]["method"] == "misa"), "memory": GIB}
                for team in request["teams"]]  # fmt: skip
        return [{"free": 100 * GIB}, *rows]

    monkeypatch.setattr(measured, "ask", answer)
    seeds = [replace(KEY, seed=seed) for seed in range(9)]
    groups = [
        seeds,
        [replace(key, method="misa") for key in seeds],
        [replace(key, variant="other") for key in seeds],
        [replace(KEY, method="ogm_ge")],
    ]
    found = execute.best_together(groups, Options(tmp_path, tmp_path, "cuda:0"))
    assert [choice.seeds for choice in found] == [8, 1, 8, 1]
    assert [[len(team) for team in teams] for teams in asked] == [[1, 2, 1, 2]]
    assert {team[0]["variant"] for team in asked[0]} == {"full"}
    execute.best_together([groups[3]], Options(tmp_path, tmp_path, "cuda:0"))
    assert len(asked) == 1


def test_a_cpu_chooses_by_the_configuration_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "ask", lambda *_: pytest.fail("a CPU must not measure"))
    options = Options(tmp_path, tmp_path)
    groups = [[replace(KEY, seed=seed) for seed in seeds] for seeds in ((0, 1), (5, 6, 7))]
    before = torch.random.get_rng_state()
    first, second = execute.best_together(groups, options)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first == second
    assert first.seeds == 8
    large = replace(options, overrides=("encoder.width=128", "training.batch_size=64"))
    assert execute.best_together(groups[:1], large)[0].seeds == 1
    assert execute.best_together([[replace(KEY, method="clcr", variant="no_hierarchy")]], options)[0].seeds == 8


def test_flop_of_a_forward_pass_are_those_of_torch() -> None:
    x, weight = torch.ones(2, 6, 5), torch.ones(6, 2, 3)
    with torch.no_grad(), OperationCount() as count, FlopCounterMode(display=False) as flops:
        torch.nn.functional.conv1d(x, weight, padding=1, groups=3)
        torch.nn.functional.linear(x, torch.ones(7, 5))
    assert count.flop == flops.get_total_flops() > 0


def committed() -> dict[tuple[str, ...], dict[RunKey, tuple[int, ...]]]:
    """Sweep -> its runs and the seeds that each was trained with."""
    found: dict[tuple[str, ...], dict[RunKey, tuple[int, ...]]] = {}
    for path in sorted(RECORDS.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            key = RunKey(**record["key"])
            sweep = (key.benchmark, key.protocol, key.data, key.profile)
            found.setdefault(sweep, {})[key] = tuple(record["provenance"]["together"])
    return found


@pytest.mark.parametrize(("sweep", "runs"), committed().items(), ids=map(".".join, committed()))
def test_committed_runs_would_train_in_the_same_teams_again(
    sweep: tuple[str, ...], runs: dict[RunKey, tuple[int, ...]], tmp_path: Path
) -> None:
    benchmark, _, data, _ = sweep
    cache = cli.cache_folder() if data == "real" else tmp_path
    try:
        catalog.open_prepared(benchmark, data, cache)
    except InputError as error:
        pytest.skip(str(error))
    keys = sorted(runs)
    place = Place(tmp_path / "out", cache)
    found = teams([Planned(key, "missing") for key in keys], place, None)
    assert {key: tuple(member.seed for member in team) for team in found for key in team} == runs
