"""What analyses find of real, small trainings, held against the records of the runs and against plain computations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.analysed import rounded
from benchmarks.analyses.habits import habits
from benchmarks.analyses.missing import missing, subsets
from benchmarks.analyses.robustness import STRENGTHS, robustness
from benchmarks.analyses.team import Team, score, scores
from benchmarks.errors import InputError
from benchmarks.metrics import better, compute
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import store, weights
from benchmarks.runner.execute import Options
from benchmarks.runner.group import TrainingError
from clcr.api import Batch

TWIN = RunKey("crema_d", "paper", "twin", "tiny", "late_fusion", "full", 0)
CV = RunKey("folded_toy", "rotated", "real", "tiny", "late_fusion", "full", 0)
CASES = [("trained", TWIN, m) for m in ("late_fusion", "clcr", "unimodal_vision", "linear")]
CASES += [("folded", CV, m) for m in ("late_fusion", "linear")]


def records(options: Options, key: RunKey) -> list[RunRecord]:
    count = 1 if key.method == "clcr" else 2
    found = [store.read_record(store.folder_of(options.out, replace(key, seed=seed))) for seed in range(count)]
    return [record for record in found if record is not None]


def team(options: Options, key: RunKey) -> Team:
    return Team(records(options, key), options)


@pytest.mark.parametrize(("place", "key", "method"), CASES)
def test_intact_inputs_and_noise_of_no_strength_give_the_predictions_of_the_run(
    place: str, key: RunKey, method: str, request: pytest.FixtureRequest
) -> None:
    options = request.getfixturevalue(place)
    own = team(options, replace(key, method=method))
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in own.keys]
    for fold in own.folds():
        silent = fold.changes.noise(0.0, fold.changes.names)
        for row, *pair in zip(found, fold.predict("test"), fold.predict("test", silent), strict=True):
            row.append((pair[0], pair[1]))
    for run, record, pairs in zip(own.runs, own.records, found, strict=True):
        want = store.read_predictions(store.folder_of(options.out, run.key), record)
        order = np.argsort(np.concatenate([fold.test for fold in run.arrangement.folds]))
        for predictions in zip(*pairs, strict=True):
            assert np.concatenate(predictions)[order].tobytes() == want["prediction"].tobytes()


@pytest.mark.parametrize(("place", "key", "method"), CASES)
def test_robustness_begins_at_the_scores_of_the_run_and_ends_below(
    place: str, key: RunKey, method: str, request: pytest.FixtureRequest
) -> None:
    own = team(request.getfixturevalue(place), replace(key, method=method))
    names = ["vision"] if method == "unimodal_vision" else [m.name for m in own.runs[0].protocol.modalities]
    for record, values in zip(own.records, robustness(own), strict=True):
        assert isinstance(values, dict)
        assert list(values) == ([] if len(names) == 1 else ["all"]) + names
        for by_strength in values.values():
            assert tuple(by_strength) == STRENGTHS
            assert by_strength["0"] == record.metrics["test"]
        worst = values[names[0] if len(names) == 1 else "all"]["4"]["accuracy"]
        assert worst < record.metrics["test"]["accuracy"]


@pytest.mark.parametrize(("place", "key", "method"), CASES)
def test_nothing_missing_is_the_run_and_both_stand_ins_cover_every_subset(
    place: str, key: RunKey, method: str, request: pytest.FixtureRequest
) -> None:
    own = team(request.getfixturevalue(place), replace(key, method=method))
    names = ["vision"] if method == "unimodal_vision" else [m.name for m in own.runs[0].protocol.modalities]
    for record, values in zip(own.records, missing(own), strict=True):
        assert isinstance(values, dict)
        for how in ("zero", "mean"):
            assert set(values[how]) == {"+".join(some) for some in subsets(names)}
            assert values[how]["+".join(names)] == record.metrics["test"]


def test_subsets_keep_the_order_of_the_protocol() -> None:
    found = ["".join(some) for some in subsets(("a", "b", "c"))]
    assert found == ["abc", "ab", "ac", "bc", "a", "b", "c", ""]


@pytest.mark.parametrize("method", ["late_fusion", "clcr", "linear"])
def test_without_any_modality_samples_of_equal_lengths_are_predicted_alike(trained: Options, method: str) -> None:
    own = team(trained, replace(TWIN, method=method))
    (fold,) = own.folds()
    for stand_in in (fold.changes.zeros, fold.changes.means):
        for data, found in zip(fold.data, fold.predict("test", stand_in(fold.changes.names)), strict=True):
            assert isinstance(found, np.ndarray)
            masks = data.batch(data.indices["test"]).masks
            lengths = torch.stack([mask.sum(-1) for mask in masks], 1).tolist()
            for alike in set(map(tuple, lengths)):
                rows = found[[tuple(row) == alike for row in lengths]]
                np.testing.assert_allclose(rows, np.broadcast_to(rows[:1], rows.shape), atol=1e-5)


def noise_of(fold: Any) -> list[np.ndarray]:
    """What noise of strength 1 adds to vision in the test split, for each seed."""
    change, seen = fold.changes.noise(1.0, ["vision"]), []

    def watched(batch: Batch, part: Any) -> Batch:
        noisy, place = change(batch, part), fold.changes.names.index("vision")
        added = noisy.inputs[place] - batch.inputs[place]
        seen.append((added if batch.target.dim() == 2 else added[None]).numpy())
        return noisy

    fold.predict("test", watched)
    if fold.group is None:  # seed by seed
        half = len(seen) // len(fold.data)
        return [np.concatenate(seen[n * half : (n + 1) * half], 1)[0] for n in range(len(fold.data))]
    return list(np.concatenate(seen, 1))


def test_all_methods_and_seeds_meet_the_same_noise(trained: Options) -> None:
    found = []
    for method in ("late_fusion", "clcr", "unimodal_vision", "linear"):
        (fold,) = team(trained, replace(TWIN, method=method)).folds()
        for data, added in zip(fold.data, noise_of(fold), strict=True):
            ids = data.arrangement.ids[data.indices["test"]]
            found.append(dict(zip(ids.tolist(), added, strict=True)))
    shared = set.intersection(*(set(each) for each in found))
    assert len(shared) > 20
    for name in shared:
        for each in found[1:]:
            np.testing.assert_allclose(each[name], found[0][name], atol=1e-5)


@pytest.mark.parametrize(("place", "key"), [("trained", TWIN), ("folded", CV)])
def test_habits_are_those_of_the_epochs_that_were_kept(place: str, key: RunKey, request: pytest.FixtureRequest) -> None:
    options = request.getfixturevalue(place)
    own = team(options, key)
    found = habits(own)
    for n, (run, record, values) in enumerate(zip(own.runs, own.records, found, strict=True)):
        assert isinstance(values, dict)
        assert values["valid"] == record.metrics["test"]
        by_fold = [by_epoch(own, n, fold) for fold in range(own.n_folds)]
        assert values["last"] == pytest.approx(score(run, [epochs[4] for epochs in by_fold]))
        assert values["test"] == pytest.approx(score(run, [best(run, *pair) for pair in enumerate(by_fold)]))
        assert values["test"]["accuracy"] >= max(values["valid"]["accuracy"], values["last"]["accuracy"])


def by_epoch(own: Team, place: int, fold: int) -> dict[int, np.ndarray]:
    """Predictions of a fold's test split with the weights of each epoch, restored one by one."""
    kept = [weights.read(store.folder_of(own.options.out, key)) for key in own.keys]
    found = {}
    for epoch in kept[place].folds[fold]:
        evaluation = weights.restore(kept, own.keys, own.options, fold, epoch).evaluate("test")[place]
        assert not isinstance(evaluation, TrainingError)
        found[epoch] = evaluation.prediction
    assert sorted(found) == [1, 2, 3, 4]
    return found


def best(run: Any, fold: int, epochs: dict[int, np.ndarray]) -> np.ndarray:
    target = run.arrangement.target[run.arrangement.folds[fold].test]
    chosen, most = epochs[1], -1.0
    for epoch in sorted(epochs):
        value = compute(("accuracy",), epochs[epoch], target)["accuracy"]
        if better("accuracy", value, most):
            chosen, most = epochs[epoch], value
    return chosen


@pytest.mark.parametrize(("place", "key"), [("trained", TWIN), ("folded", CV)])
def test_drop_last_counts_whole_batches_alone(place: str, key: RunKey, request: pytest.FixtureRequest) -> None:
    options = request.getfixturevalue(place)
    own = team(options, key)
    size = own.runs[0].config.training.batch_size
    for run, record, values in zip(own.runs, own.records, habits(own), strict=True):
        assert isinstance(values, dict)
        arrays = store.read_predictions(store.folder_of(options.out, run.key), record)
        kept = np.concatenate([fold.test[: len(fold.test) // size * size] for fold in run.arrangement.folds])
        assert len(kept) > 0
        rows = np.isin(arrays["index"], kept)
        assert rows.sum() == sum(len(fold.test) // size * size for fold in run.arrangement.folds)
        want = compute(run.spec.metrics, arrays["prediction"][rows], arrays["target"][rows])
        assert values["drop_last"] == pytest.approx(dict(want), abs=1e-12)


def test_drop_last_is_absent_where_no_batch_is_whole(folded: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    own = team(folded, CV)
    large = replace(own.runs[0].config, training=replace(own.runs[0].config.training, batch_size=64))
    own.runs = tuple(replace(run, config=large) for run in own.runs)
    assert all("drop_last" not in values for values in habits(own))  # type: ignore[operator]


def test_a_prediction_that_is_not_finite_fails_its_run_alone(trained: Options) -> None:
    own = team(trained, TWIN)
    good = np.zeros((len(own.runs[0].arrangement.folds[0].test), own.runs[0].protocol.n_classes or 0))
    assert isinstance(scores(own.runs[0], [{("a", "b"): good}]), dict)
    found = scores(own.runs[0], [{("a", "b"): TrainingError("split test: a prediction is not finite")}])
    assert isinstance(found, TrainingError)
    assert str(found).startswith("a.b: ")


def test_epochs_after_which_a_seed_had_stopped_do_not_count_for_it(
    place: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience ends the training of each seed by itself: what is then missing of one is found of the others."""
    read: Callable[..., weights.Kept] = weights.read

    def shortened(folder: Any) -> weights.Kept:
        kept = read(folder)
        if not str(folder).endswith("seed-001"):
            return kept
        folds = tuple(
            {e: w for e, w in fold.items() if e <= max(2, b)} for fold, b in zip(kept.folds, kept.best, strict=True)
        )
        return replace(kept, folds=folds)

    whole = habits(team(place, TWIN))
    monkeypatch.setattr(weights, "read", shortened)
    found = habits(team(place, TWIN))
    assert found[0] == whole[0]
    assert found[1]["valid"] == whole[1]["valid"]  # type: ignore[index]
    own = team(place, TWIN)
    last = max(shortened(store.folder_of(place.out, own.keys[1])).folds[0])
    assert found[1]["last"] == pytest.approx(score(own.runs[1], [in_company(own, 1)[last]]))  # type: ignore[index]


def in_company(own: Team, place: int) -> dict[int, np.ndarray]:
    """Predictions of the test split of a run's only fold, with the weights of each epoch that it kept."""
    (fold,) = own.folds()
    found = {}
    for epoch in fold.epochs[place]:
        fold.load(place, epoch)
        prediction = fold.predict("test")[place]
        assert isinstance(prediction, np.ndarray)
        found[epoch] = prediction
    return found


def test_weights_of_another_number_of_folds_are_refused(place: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = weights.read(store.folder_of(place.out, TWIN))
    monkeypatch.setattr(weights, "read", lambda _: replace(kept, folds=kept.folds * 2, best=kept.best * 2))
    with pytest.raises(InputError, match="weights of 2 folds, not 1; run it again"):
        list(team(place, TWIN).folds())


def test_numbers_are_rounded_to_seven_digits() -> None:
    assert rounded({"a": (1 / 3, [2, "x"]), "b": 123456789.0}) == {"a": [0.3333333, [2, "x"]], "b": 123456800.0}
