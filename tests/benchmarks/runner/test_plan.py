from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fake_engine
import pytest

from baselines import METHODS
from benchmarks import BENCHMARKS, archive, catalog
from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord, canonical
from benchmarks.runner import claims, plan, store
from benchmarks.runner.plan import Place, Planned, Selection

KEY = RunKey("cmu_mosi", "standard", "twin", "tiny", "clcr", "full", 0)
TWINS = ["crema_d", "kinetics_sounds", "ave", "ucf101", "cmu_mosi", "cmu_mosei"]
OPEN_SETS = ["ravdess", "av_digits"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path / "cache")


def ended(place: Place, key: RunKey = KEY, status: str = "done", what: object = None, **fields: object) -> RunRecord:
    """A run that has ended, with the digest that the fake engine would give it now unless ``what`` says otherwise."""
    now = {"config": list(place.overrides), "engine": "fake"}
    record = RunRecord(key, now if what is None else {"other": what}, status, **fields)  # type: ignore[arg-type]
    folder = store.folder_of(place.out, key)
    folder.mkdir(parents=True, exist_ok=True)
    archive.write_npz(folder / store.PREDICTIONS, fake_engine.predictions(key))
    store.write_record(folder, record)
    return record


def planned(place: Place, *keys: RunKey, heal: Callable[[str], None] | None = None) -> list[Planned]:
    return plan.plan(keys or [KEY], place, "fake_engine", heal)


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (3,)), ("0-4", (0, 1, 2, 3, 4)), ("3,0", (0, 3)), ("0-2,7,1", (0, 1, 2, 7))]
)
def test_seeds_are_read(text: str, seeds: tuple[int, ...]) -> None:
    assert plan.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "-1", "0-", "4-2", "1,,2", "0-99999999", "99999999999", "1.5", "0--3", "²"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--seeds"):
        plan.parse_seeds(text)


def test_all_means_every_benchmark_that_can_run_here_and_says_so(tmp_path: Path) -> None:
    keys, notes = plan.select(Selection(seeds=(0,)), tmp_path)
    assert list(dict.fromkeys(key.benchmark for key in keys)) == TWINS
    assert all(key.data == "twin" for key in keys)
    for name in TWINS:
        assert sum(note.startswith(f"{name}: synthetic twin") for note in notes) == 1
    for name in OPEN_SETS:
        assert sum(note.startswith(f"left out: {name}: ") for note in notes) == 1
    assert set(TWINS + OPEN_SETS) == set(BENCHMARKS)


def test_prepared_data_goes_before_the_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "is_prepared", lambda name, protocol, cache: name == "ravdess")
    monkeypatch.setattr(catalog, "open_prepared", lambda name, data, cache: None)
    monkeypatch.setattr(catalog, "unserved", lambda name, protocol, data: InputError("100 samples, officially 1440"))
    keys, notes = plan.select(Selection(seeds=(0,)), tmp_path)
    assert any("not the official samples" in note and "officially 1440" in note for note in notes)
    assert {key.data for key in keys if key.benchmark == "ravdess"} == {"real"}
    assert {key.data for key in keys if key.benchmark != "ravdess"} == {"twin"}
    assert any(note.startswith("ravdess: prepared real data, protocol") for note in notes)


def test_a_benchmark_asked_for_by_name_must_be_runnable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="clcr prepare ravdess"):
        plan.select(Selection(benchmarks=("ravdess",)), tmp_path)
    with pytest.raises(InputError, match="clcr prepare"):
        plan.select(Selection(data="real"), tmp_path)


def test_a_protocol_is_taken_where_it_exists(tmp_path: Path) -> None:
    keys, notes = plan.select(Selection(protocol="standard"), tmp_path)
    assert {key.benchmark for key in keys} == {"cmu_mosi", "cmu_mosei"}
    assert sum(note.startswith("left out") for note in notes) == len(BENCHMARKS) - 2
    with pytest.raises(InputError, match="protocol"):
        plan.select(Selection(benchmarks=("crema_d",), protocol="standard"), tmp_path)


def test_every_method_once_unimodal_rows_by_modality_in_table_order(tmp_path: Path) -> None:
    keys, _ = plan.select(Selection(benchmarks=("cmu_mosi",), seeds=(1, 0)), tmp_path)
    methods = list(dict.fromkeys(key.method for key in keys))
    unimodal = [f"unimodal_{m.name}" for m in catalog.twin_protocol("cmu_mosi").modalities]
    expected = [name for row in METHODS for name in (unimodal if row == "unimodal" else [row])]
    assert methods == expected
    assert len(keys) == len(set(keys)) == 2 * len(methods)
    only, _ = plan.select(Selection(benchmarks=("cmu_mosi",), methods=("unimodal",), seeds=(0,)), tmp_path)
    assert [key.method for key in only] == unimodal


def test_a_single_modality_is_taken_where_the_protocol_has_it(tmp_path: Path) -> None:
    keys, _ = plan.select(Selection(methods=("unimodal_language",), seeds=(0,)), tmp_path)
    assert {key.benchmark for key in keys} == {"cmu_mosi", "cmu_mosei"}
    with pytest.raises(InputError, match="no run of crema_d fits"):
        plan.select(Selection(benchmarks=("crema_d",), methods=("unimodal_language",)), tmp_path)


def test_variants_of_a_selection(tmp_path: Path) -> None:
    def variants(*asked: str, methods: tuple[str, ...] = ("clcr", "misa")) -> set[tuple[str, str]]:
        selection = Selection(benchmarks=("ave",), methods=methods, variants=asked, seeds=(0,))
        return {(key.method, key.variant) for key in plan.select(selection, tmp_path)[0]}

    assert variants("full") == {("clcr", "full"), ("misa", "full")}
    assert variants("no_hierarchy") == {("clcr", "no_hierarchy")}
    assert variants() == {(name, v) for name in ("clcr", "misa") for v in METHODS[name].variants}
    with pytest.raises(InputError, match="did you mean 'no_hierarchy'"):
        variants("no_hierarch")
    with pytest.raises(InputError, match="--variant"):
        variants("no_hierarchy", methods=("misa",))


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        (Selection(benchmarks=("cmu_mosy",)), "cmu_mosi"),
        (Selection(methods=("clrc",)), "clcr"),
        (Selection(methods=("unimodal_visoin",)), "unimodal_vision"),
        (Selection(profile="tinny"), "tiny"),
        (Selection(data="twins"), "twin"),
        (Selection(protocol="standart"), "standard"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(wrong: Selection, near: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        plan.select(wrong, tmp_path)


def test_the_five_states(place: Place) -> None:
    keys = [replace(KEY, seed=seed) for seed in range(5)]
    ended(place, keys[0])
    ended(place, keys[1], "failed", error="RuntimeError: broke")
    ended(place, keys[2], what="older code")
    claims.acquire(store.folder_of(place.out, keys[3]))
    runs = planned(place, *keys)
    assert [run.state for run in runs] == ["done", "failed", "stale", "running", "missing"]
    assert runs[1].error == "RuntimeError: broke"
    assert plan.counts(runs) == {"done": 1, "running": 1, "failed": 1, "stale": 1, "missing": 1}
    assert [run.state for run in planned(replace(place, overrides=("training.lr=1",)), keys[0])] == ["stale"]


def test_a_stale_run_that_is_being_executed_again_is_running(place: Place) -> None:
    ended(place, what="older code")
    claims.acquire(store.folder_of(place.out, KEY))
    assert planned(place)[0].state == "running"


def test_a_record_that_cannot_be_judged_is_stale_and_says_why(place: Place) -> None:
    key = replace(KEY, method="refused")
    ended(place, key)
    assert (planned(place, key)[0].state, planned(place, key)[0].error[:9]) == ("stale", "fake.yaml")


def test_costs_come_from_runs_like_it(place: Place) -> None:
    for seed, seconds in enumerate((1.0, 2.0, 9.0)):
        ended(place, replace(KEY, seed=seed), time_s=seconds, peak_memory_bytes=100)
    ended(place, replace(KEY, method="misa"), time_s=50.0)
    ended(place, replace(KEY, seed=9), "failed", time_s=500.0)
    same, variant, other, elsewhere = planned(
        place,
        replace(KEY, seed=7),
        replace(KEY, variant="no_reg"),
        replace(KEY, method="ogm_ge"),
        replace(KEY, profile="paper"),
    )
    assert (same.predicted_s, same.predicted_memory_bytes) == (2.0, 100)
    assert variant.predicted_s == 2.0
    assert other.predicted_s is None
    assert elsewhere.predicted_s is None


def test_committed_records_predict_too(place: Place) -> None:
    record = ended(place, time_s=4.0, status="done", predictions="", metrics={})
    (place.out / "records").mkdir()
    (place.out / "records" / "cmu_mosi.jsonl").write_text(canonical(record.to_json()) + "\n")
    shutil.rmtree(store.folder_of(place.out, KEY))
    assert (planned(place)[0].state, planned(place)[0].predicted_s) == ("missing", 4.0)


def test_a_finished_run_whose_predictions_were_cut_short_runs_again(place: Place) -> None:
    ended(place)
    path = store.folder_of(place.out, KEY) / store.PREDICTIONS
    whole = path.read_bytes()
    assert planned(place)[0].state == "done"
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", None):
        ended(place)
        path.write_bytes(damaged) if damaged is not None else path.unlink()
        with pytest.raises(InputError, match=r"predictions\.npz: .*record\.json beside it and run again"):
            planned(place)
        told: list[str] = []
        assert planned(place, heal=told.append)[0].state == "missing"
        assert "predictions.npz" in told[0]


def test_a_corrupt_record_stops_a_plan_but_a_run_puts_it_aside(place: Place) -> None:
    ended(place)
    path = store.folder_of(place.out, KEY) / store.RECORD
    path.write_text("{")
    with pytest.raises(InputError, match=r"record\.json"):
        planned(place)
    told: list[str] = []
    assert planned(place, heal=told.append)[0].state == "missing"
    assert "put aside as .seed-000.corrupt" in told[0]
    assert planned(place)[0].state == "missing"


def test_a_matcher_counts_what_was_given_alone() -> None:
    selection = Selection(methods=("unimodal",), benchmarks=("ave",), seeds=(0,), data="twin")
    key = replace(KEY, benchmark="ave", method="unimodal_audio", seed=5)
    assert plan.matcher(selection, [])(KEY)
    assert plan.matcher(selection, ["method", "benchmark", "data"])(key)
    assert not plan.matcher(selection, ["method", "seeds"])(key)
    assert not plan.matcher(selection, ["benchmark"])(KEY)
    assert not plan.matcher(selection, ["profile"])(replace(key, profile="paper"))
    assert not plan.matcher(selection, ["variant"])(replace(key, variant="no_reg"))
    assert not plan.matcher(selection, ["data"])(replace(key, data="real"))
    assert plan.matcher(replace(selection, data="auto"), ["data"])(replace(key, data="real"))


def test_stale_results_are_those_whose_newest_line_is_older_than_the_code(place: Place) -> None:
    keys = [replace(KEY, seed=seed) for seed in range(3)]
    for number, (key, what) in enumerate(zip(keys, ("older", None, "older"), strict=True)):
        arrays = fake_engine.predictions(key)
        time = {"finished_at": f"2026-01-01T00:00:0{number}+00:00"}
        ended(place, key, what=what, provenance=time, predictions=archive.predictions_digest(arrays))
        archive.write_npz(store.folder_of(place.out, key) / store.PREDICTIONS, arrays)
    store.merge(place.out)
    assert plan.stale(place, lambda key: True, "fake_engine") == {keys[0], keys[2]}
    assert plan.stale(place, lambda key: key.seed == 2, "fake_engine") == {keys[2]}
    again = {"finished_at": "2026-01-01T00:01:00+00:00"}
    digest = archive.predictions_digest(fake_engine.predictions(keys[0]))
    ended(place, keys[0], provenance=again, predictions=digest)
    store.merge(place.out)
    assert plan.stale(place, lambda key: True, "fake_engine") == {keys[2]}


def test_planning_what_was_never_run_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from benchmarks.cli import main;"
        f"assert main(['plan', '--quiet', '--data', 'twin', '--out', {str(tmp_path)!r}]) == 0;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
