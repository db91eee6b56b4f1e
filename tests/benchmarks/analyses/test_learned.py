"""Gates, embeddings and mechanism of runs that kept their weights, as the engine makes and keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.analysed import path_of, read
from benchmarks.analyses import embedding, engine
from benchmarks.analyses.gates import analyse, gates
from benchmarks.analyses.inside import with_group
from benchmarks.analyses.team import Team
from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import store
from benchmarks.runner.execute import Options

CLCR = RunKey("crema_d", "paper", "twin", "tiny", "clcr", "full", 0)


def records(options: Options, method: str) -> list[RunRecord]:
    found = [record for _, record in store.records(options.out) if record.key.method == method]
    return sorted(found, key=lambda record: record.key)


def test_lines_are_kept_and_read_back(place: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "POINTS", 60)
    expected = {"gates": {CLCR}, "embedding": {CLCR}}
    expected["mechanism"] = {
        record.key for m in ("clcr", "late_fusion", "unimodal_vision") for record in records(place, m)
    }
    for name, keys in expected.items():
        work = engine.plan(name, [record for _, record in store.records(place.out)], place, lambda _: True)
        assert set(work.to_do) == keys
        assert {result.state for result in engine.execute_all(work, place, lambda _: None)} == {"done"}
        assert read(path_of(place.out, name)).keys() == keys
    gap = read(path_of(place.out, "mechanism"))[CLCR].values["gap"]
    (record,) = records(place, "clcr")
    assert gap["score"] == pytest.approx(record.metrics["test"]["accuracy"], abs=1e-6)
    assert gap["ceiling"] == pytest.approx(record.provenance["ceiling"]["accuracy"], abs=1e-6)


def test_trained_weights_are_what_is_looked_at(trained: Options) -> None:
    team = Team(records(trained, "clcr"), trained)
    (values,) = gates(team)
    assert not isinstance(values, Exception)
    told = records(trained, "clcr")[0].diagnostics  # of the selected epoch, on the validation split
    assert values["rho"] == pytest.approx([told[f"rho.{level}.0"] for level in range(3)], rel=1e-6)
    assert values["rho"] != pytest.approx([0.27] * 3, abs=1e-4)  # where it starts
    assert list(values["pi"].values()) == pytest.approx([told["pi.0"], told["pi.1"]], abs=0.1)


def test_several_folds_are_one(folded: Options) -> None:
    team = Team(records(folded, "late_fusion"), folded)
    each = [analyse(group, team.runs, fold.data) for fold, group in with_group(team)]
    assert len(each) == 3
    for seed, pooled in enumerate(gates(team)):
        assert not isinstance(pooled, Exception)
        heads = [values[seed]["gradient"]["head"] for values in each]
        assert pooled["gradient"]["head"] == pytest.approx((30 * heads[0] + 30 * heads[1] + 40 * heads[2]) / 100)
        assert len(set(heads)) == 3


def test_a_fitted_model_has_no_inside(trained: Options, tmp_path: Path) -> None:
    team = Team(records(trained, "linear"), replace(trained, cache=tmp_path))
    with pytest.raises(InputError, match=r"linear.*a fitted model has no inside"):
        gates(team)
