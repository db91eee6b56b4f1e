"""One run, from key to record, on a synthetic twin and on a small synthetic cross-validated set."""

from __future__ import annotations

import json
import math
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks import BENCHMARKS, catalog
from benchmarks.archive import predictions_digest
from benchmarks.errors import InputError
from benchmarks.metrics import compute
from benchmarks.prepared import Arrangement, Fold, Prepared, Writer
from benchmarks.record import RunKey, RunRecord, digest_of
from benchmarks.runner import execute as module
from benchmarks.runner import measured
from benchmarks.runner.execute import Options, Progress, describe, execute, setting, what
from benchmarks.runner.together import Choice
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol

KEY = RunKey("crema_d", catalog.spec("crema_d").twin_protocol or "", "twin", "tiny", "late_fusion", "full", 0)
CV = RunKey("synthetic_cv", "rotated", "real", "tiny", "late_fusion", "full", 0)
FILES = ("predictions.npz", "curves.jsonl", "log.txt")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(tmp_path / "results", tmp_path / "cache", overrides=("training.epochs=2",))


def run(key: RunKey, options: Options, told: list[Progress] | None = None) -> tuple[RunRecord, Path]:
    folder = options.out / "runs" / key.folder
    (record,) = execute([key], options, [folder], ([] if told is None else told).append)
    return record, folder


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "predictions.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def synthetic_protocol(**changes: object) -> Protocol:
    modalities = (ModalitySpec("a", "a", "vector", (3,)), ModalitySpec("b", "b", "tokens", (4, 3), standardise=True))
    plain = Protocol("rotated", "Three rotations", modalities, 3, folds=3, group="speaker", groups_shared=True)
    return replace(plain, **changes)


@pytest.fixture
def synthetic_cv(options: Options, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A benchmark of 90 synthetic samples, prepared on disk; each third is tested once."""
    task = ModuleType("synthetic_cv_task")
    protocols = (synthetic_protocol(), synthetic_protocol(name="habit", folds=1, selection="test"))
    task.SPEC = BenchmarkSpec(  # type: ignore[attr-defined]
        "synthetic_cv", "Synthetic", "classification", protocols, ("accuracy", "macro_f1"), "accuracy", "-", "-", "-"
    )
    task.TWIN, task.arrange = None, arrange  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "synthetic_cv_task", task)
    monkeypatch.setitem(BENCHMARKS, "synthetic_cv", "synthetic_cv_task")
    rng = np.random.default_rng(0)
    label = np.arange(90) % 3
    with Writer(options.cache / "prepared" / "synthetic_cv", "synthetic_cv") as writer:
        writer.add("a", (np.eye(3)[label] * 3 + rng.standard_normal((90, 3))).astype(np.float32))
        writer.add("b", rng.standard_normal((90, 4, 3)).astype(np.float32), lengths=np.full(90, 3))
        writer.samples({"id": np.arange(90), "label": label})
    module._samples.cache_clear()
    return task


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    label, every = prepared.column("label"), np.arange(90)
    thirds = [every[k * 30 : (k + 1) * 30][::-1].copy() for k in range(3)]
    folds = tuple(Fold(thirds[k - 1], thirds[k - 2], thirds[k]) for k in range(3))
    return Arrangement({"a": every, "b": every}, label, every.astype(str), folds[: protocol.folds], every % 5)


def test_a_run_leaves_a_complete_record_and_its_files(options: Options) -> None:
    told: list[Progress] = []
    record, folder = run(KEY, options, told)
    assert record.status == "done"
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json())), "test") == record
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert record.digest == digest_of(describe(KEY, options))
    assert told == [Progress(KEY, 1, 1, epoch, 2) for epoch in (1, 2)]
    assert (record.n_parameters > 0, record.time_s > 0, record.peak_memory_bytes > 0, record.folds) == (True,) * 3 + (
        (),
    )
    assert set(record.selection) == {"metric", "epoch", "value"}
    assert record.selection["value"] == record.metrics["valid"][record.selection["metric"]]
    curves = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in curves] == [1, 2]
    assert str(KEY) in (folder / "log.txt").read_text()


def test_metrics_are_those_of_the_saved_predictions(options: Options) -> None:
    record, folder = run(KEY, options)
    arrays = arrays_of(folder)
    run_setting = setting(KEY, options)
    assert arrays["index"].tolist() == sorted(run_setting.arrangement.folds[0].test.tolist())
    assert np.array_equal(arrays["target"], run_setting.arrangement.target[arrays["index"]])
    assert np.array_equal(arrays["group"], run_setting.arrangement.group[arrays["index"]])
    again = compute(run_setting.spec.metrics, arrays["prediction"], arrays["target"])
    assert again == record.metrics["test"]
    assert predictions_digest(arrays) == record.predictions
    arrays["prediction"][0] += 1e-3
    assert predictions_digest(arrays) != record.predictions


def test_the_same_run_gives_the_same_bits_and_another_seed_does_not(options: Options) -> None:
    first, again = run(KEY, options)[0], run(KEY, replace(options, out=options.out / "again"))[0]
    assert (first.predictions, first.metrics, first.digest) == (again.predictions, again.metrics, again.digest)
    assert run(replace(KEY, seed=1), options)[0].predictions != first.predictions


def test_provenance_tells_the_versions_but_neither_host_nor_place(options: Options) -> None:
    record, _ = run(replace(KEY, method="linear"), options)
    told = record.provenance
    expected = {"versions", "commit", "dirty", "cpu", "cpu_kind", "device", "threads", "ceiling"}
    assert expected | {"started_at", "finished_at", "together"} == set(told)
    text = json.dumps(record.to_json())
    assert str(options.out) not in text
    assert not socket.gethostname() or socket.gethostname() not in json.dumps(told)


def test_where_and_on_what_a_run_happens_is_not_what_it_is(options: Options, tmp_path: Path) -> None:
    here = describe(KEY, options)
    assert describe(KEY, replace(options, out=tmp_path / "x", cache=tmp_path / "y", device="cuda:3")) == here
    assert describe(KEY, replace(options, overrides=("training.epochs=3",))) != here
    assert describe(replace(KEY, method="ogm_ge"), options)["source_digest"] != here["source_digest"]
    linear = replace(KEY, method="linear")
    assert describe(linear, options) == describe(linear, replace(options, overrides=("training.epochs=3",)))
    noted = setting(KEY, options)
    assert what(replace(noted, protocol=replace(noted.protocol, note="another note", title="t"))) == here
    assert what(replace(noted, digest="other data")) != here


@pytest.mark.parametrize("method", ["clcr", "ogm_ge", "misa", "linear", "unimodal_audio"])
def test_every_method_runs_through_the_same_door(method: str, options: Options) -> None:
    record, folder = run(replace(KEY, method=method), options)
    assert record.status == "done", record.error
    classes = setting(KEY, options).protocol.n_classes
    assert arrays_of(folder)["prediction"].shape == (len(arrays_of(folder)["index"]), classes)
    assert all(math.isfinite(value) for value in record.diagnostics.values())


def test_cross_validation_predicts_each_sample_once(options: Options, synthetic_cv: ModuleType) -> None:
    record, folder = run(CV, replace(options, overrides=("training.epochs=10",)))
    assert record.status == "done", record.error
    arrays = arrays_of(folder)
    assert arrays["index"].tolist() == list(range(90))
    assert np.array_equal(arrays["target"], np.arange(90) % 3)
    assert np.array_equal(arrays["group"], np.arange(90) % 5)
    assert record.metrics["test"] == compute(("accuracy", "macro_f1"), arrays["prediction"], arrays["target"])
    assert record.metrics["test"]["accuracy"] > 0.6
    assert len(record.folds) == len(record.selection["epochs"]) == len(record.selection["values"]) == 3
    assert record.metrics["valid"]["accuracy"] == pytest.approx(np.mean([f["valid"]["accuracy"] for f in record.folds]))
    assert record.selection["value"] == pytest.approx(np.mean(record.selection["values"]))
    rows = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    assert [(row["fold"], row["epoch"]) for row in rows] == [(k, e) for k in range(3) for e in range(1, 11)]
    linear, _ = run(replace(CV, method="linear"), options)
    assert linear.metrics["test"]["accuracy"] > 0.6


def test_a_fold_is_the_same_whatever_folds_ran_before(options: Options, synthetic_cv: ModuleType) -> None:
    run_setting = setting(CV, options)
    device = module.environment.pick_device("cpu")
    data = module.open_data(run_setting, device, options.cache).at_fold(2)
    (alone,) = module.run_fold([run_setting], [data], lambda _: None)
    assert isinstance(alone, module.FoldResult)
    _, folder = run(CV, options)
    arrays = arrays_of(folder)
    test = run_setting.arrangement.folds[2].test
    assert np.array_equal(arrays["prediction"][60:90], alone.predictions["test"][np.argsort(test)])


def test_selection_on_test_follows_the_protocol(options: Options, synthetic_cv: ModuleType) -> None:
    record, folder = run(replace(CV, protocol="habit"), options)
    assert record.selection["value"] == record.metrics["test"]["accuracy"]
    assert "test" in json.loads((folder / "curves.jsonl").read_text().splitlines()[0])


def test_a_sample_in_two_test_splits_is_refused(options: Options, synthetic_cv: ModuleType) -> None:
    def overlapping(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
        arranged = arrange(prepared, protocol, seed)
        return replace(arranged, folds=(*arranged.folds[:2], replace(arranged.folds[2], test=arranged.folds[0].test)))

    synthetic_cv.arrange = overlapping  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="tested twice"):
        run(CV, options)


def test_a_loss_that_is_not_finite_is_a_failed_record(options: Options) -> None:
    record, folder = run(KEY, replace(options, overrides=("training.lr=1e30", "training.epochs=3")))
    assert record.status == "failed"
    assert "not finite" in record.error
    assert "\n" not in record.error
    assert "not finite" in (folder / "log.txt").read_text()
    assert not (folder / "predictions.npz").exists()
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json())), "test").status == "failed"


def test_a_method_that_raises_is_a_failed_record(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(module, "load_class", lambda row: broken)
    record, _ = run(KEY, options)
    assert (record.status, record.error) == ("failed", "RuntimeError: out of memory")


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"method": "unimodal_audoi"}, "audio"), ({"protocol": "papr"}, "protocol"), ({"data": "real"}, "prepare")],
)
def test_bad_input_is_raised_not_recorded(changes: dict[str, str], told: str, options: Options) -> None:
    with pytest.raises(InputError, match=told):
        run(replace(KEY, **changes), options)


@pytest.mark.parametrize("method", ["clcr", "late_fusion", "ogm_ge", "misa", "unimodal_vision"])
def test_seeds_together_leave_the_records_that_they_would_leave_alone(method: str, options: Options) -> None:
    keys = [replace(KEY, method=method, seed=seed) for seed in (0, 1, 5)]
    assert len({module.mark(key, options) for key in keys}) == 1
    folders = [options.out / "together" / str(key.seed) for key in keys]
    together = execute(keys, options, folders, lambda progress: None)
    for key, found, place in zip(keys, together, folders, strict=True):
        alone, folder = run(key, options)
        assert (found.key, found.digest, found.n_parameters) == (alone.key, alone.digest, alone.n_parameters)
        assert found.selection["epoch"] == alone.selection["epoch"]
        assert found.metrics["test"] == pytest.approx(alone.metrics["test"], abs=5e-4)
        assert np.allclose(arrays_of(place)["prediction"], arrays_of(folder)["prediction"], atol=1e-3)
        assert (found.provenance["together"], alone.provenance["together"]) == ([0, 1, 5], [key.seed])


def test_fitted_methods_and_fine_tuned_language_train_alone(options: Options) -> None:
    assert module.mark(replace(KEY, method="linear"), options) is None


def test_a_record_says_how_many_seeds_were_found_best_and_why(options: Options) -> None:
    assert "best_together" not in run(KEY, options)[0].provenance
    measured.keep_choices(options.cache, "cpu", {measured.name_of(KEY, options.overrides): Choice(8, "small")})
    record, _ = run(KEY, options)
    assert record.provenance["best_together"] == {"seeds": 8, "why": "small"}
    assert record.provenance["together"] == [0]


def test_a_group_that_does_not_fit_is_halved(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    whole = module.run_fold

    def tight(runs: list, *rest: object) -> object:
        sizes.append(len(runs))
        if len(runs) > 1:
            raise torch.OutOfMemoryError("tried to allocate too much")
        return whole(runs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "run_fold", tight)
    keys = [replace(KEY, seed=seed) for seed in range(3)]
    records = execute(keys, options, [options.out / str(key.seed) for key in keys], lambda progress: None)
    assert sizes == [3, 1, 2, 1, 1]
    assert [record.status for record in records] == ["done"] * 3
    assert [record.provenance["together"] for record in records] == [[0], [1], [2]]
