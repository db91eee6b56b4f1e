"""The synthetic twins: deterministic, well formed, informative where planted and nowhere else; the ceiling holds."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import BENCHMARKS, catalog, twin
from benchmarks.errors import InputError
from benchmarks.metrics import METRICS, compute
from benchmarks.prepared import Prepared, with_digests
from benchmarks.spec import BenchmarkSpec, Protocol
from benchmarks.twin import TwinRecipe

TWINS = [name for name in BENCHMARKS if catalog.task_module(name).TWIN is not None]
CLASSIFICATION = [name for name in TWINS if catalog.spec(name).task == "classification"]


@functools.cache
def _twin(name: str) -> tuple[BenchmarkSpec, TwinRecipe, Protocol, Prepared]:
    spec, recipe = catalog.spec(name), catalog.task_module(name).TWIN
    assert recipe is not None
    return spec, recipe, twin.twin_protocol(spec, recipe), twin.generate(recipe, spec)


def _mean(data: Prepared, modality: str, weight: np.ndarray | None = None) -> np.ndarray:
    """Mean token (n, D) or, of a levelled modality, the level means side by side; weights (n, T) pick tokens."""
    tokens = data.arrays[modality].astype(np.float64)
    if weight is None:
        weight = np.arange(tokens.shape[-2]) < data.lengths[modality][:, None]
    shaped = weight[:, None, :, None] if tokens.ndim == 4 else weight[..., None]
    mean = (tokens * shaped).sum(axis=-2) / np.maximum(shaped.sum(axis=-2), 1)
    return mean.reshape(len(mean), -1)


def _located(data: Prepared, modality: str) -> np.ndarray:
    """What who knows the planted places pools: the mean over each level's informative tokens."""
    return np.concatenate([_mean(data, modality, data.truth["informative"][modality][:, k]) for k in range(3)], axis=1)


def _score(name: str, features: np.ndarray) -> float:
    """Main metric on the test split of a linear model fitted on training and validation."""
    spec, recipe, _, data = _twin(name)
    test, label = data.samples["split"] == "test", data.samples["label"]
    estimator = LogisticRegression(C=0.03, max_iter=300) if recipe.n_classes else RidgeCV(np.logspace(0, 4, 9))
    model = make_pipeline(StandardScaler(), estimator).fit(features[~test], label[~test])
    prediction = model.decision_function(features[test]) if recipe.n_classes else model.predict(features[test])
    return compute([spec.main_metric], prediction, label[test])[spec.main_metric]


def _gain(name: str, a: float, b: float) -> float:
    """By how much a is better than b."""
    return (a - b) * (1 if METRICS[catalog.spec(name).main_metric].direction == "max" else -1)


@pytest.mark.parametrize("name", TWINS)
def test_data_fits_the_protocol_it_announces(name: str) -> None:
    spec, recipe, protocol, data = _twin(name)
    assert data.origin == "twin"
    assert protocol.name == spec.twin_protocol
    n = sum(protocol.counts.values())
    for modality in protocol.modalities:
        array, lengths = data.arrays[modality.array], data.lengths[modality.array]
        assert array.shape == (n, *modality.shape)
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        padding = np.arange(array.shape[-2]) >= lengths[:, None]
        assert not array.swapaxes(1, -2)[padding].any() if array.ndim == 3 else not array[:, 0][padding].any()
        assert lengths.min() >= 4
        assert lengths.min() < lengths.max() == array.shape[-2]
    label = data.samples["label"]
    if recipe.n_classes is not None:
        assert set(label) == set(range(recipe.n_classes))
    else:
        low, high = spec.value_range or (0, 0)
        assert low <= label.min()
        assert label.max() <= high
        assert 0.01 < np.mean(label == 0) < 0.15  # the zeros that part Has0 from Non0


@pytest.mark.parametrize("name", TWINS)
def test_modalities_task_and_metrics_are_those_of_the_benchmark(name: str) -> None:
    spec, _, protocol, data = _twin(name)
    assert spec.twin_protocol is not None
    real = spec.protocol(spec.twin_protocol)
    assert [m.name for m in protocol.modalities] == [m.name for m in real.modalities]
    assert (protocol.n_classes is None) == (real.n_classes is None)
    assert all(m.backbone == "none" and not m.standardise for m in protocol.modalities)
    assert set(data.truth["ceiling"]) == set(spec.metrics)
    assert "ynthetic" in protocol.title


@pytest.mark.parametrize("name", TWINS)
def test_arrangement_is_one_fixed_split_of_all_samples(name: str) -> None:
    _, recipe, protocol, data = _twin(name)
    one, other = (catalog.task_module(name).arrange(data, protocol, seed) for seed in (0, 1))
    (fold,), (again,) = one.folds, other.folds
    parts = (fold.train, fold.valid, fold.test)
    assert tuple(map(len, parts)) == recipe.sizes
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(one.ids)))
    assert all(np.array_equal(a, b) for a, b in zip(parts, (again.train, again.valid, again.test), strict=True))
    assert len(set(one.ids)) == len(one.ids)
    assert one.target.dtype == (np.float32 if recipe.n_classes is None else np.int64)
    assert one.group is not None
    shared = set(one.group[fold.train]) & set(one.group[fold.test])
    assert bool(shared) == protocol.groups_shared
    assert len(set(one.group[fold.test])) > 3


def test_cross_validation_on_a_twin_is_refused() -> None:
    _, _, protocol, data = _twin("crema_d")
    with pytest.raises(InputError, match="one split"):
        twin.arrange(data, replace(protocol, folds=5), 0)


@pytest.mark.parametrize("name", TWINS)
def test_equal_recipes_give_equal_bytes(name: str) -> None:
    spec, recipe, _, data = _twin(name)
    again = twin.generate(recipe, spec)
    assert again.digests == data.digests
    assert again.truth["ceiling"] == data.truth["ceiling"]
    assert set(with_digests(data).digests.values()) == set(data.digests.values())


def test_another_seed_or_modality_changes_only_what_it_must() -> None:
    spec, recipe, _, data = _twin("cmu_mosi")
    other = twin.generate(replace(recipe, seed=recipe.seed + 1), spec)
    assert not np.array_equal(other.arrays["audio"], data.arrays["audio"])
    louder = replace(recipe.modalities[2], noise=2.0)
    changed = twin.generate(replace(recipe, modalities=(*recipe.modalities[:2], louder)), spec)
    assert np.array_equal(changed.arrays["audio"], data.arrays["audio"])
    assert np.array_equal(changed.samples["label"], data.samples["label"])
    assert not np.array_equal(changed.arrays["vision"], data.arrays["vision"])


@pytest.mark.parametrize("name", TWINS)
def test_values_are_free_of_the_last_bit_of_a_machine(name: str) -> None:
    _, _, _, data = _twin(name)
    for array in data.arrays.values():
        assert np.array_equal(array * twin.FINE, np.round(array * twin.FINE))
        assert not np.signbit(array[array == 0]).any()


@pytest.mark.parametrize("name", TWINS)
def test_the_ceiling_is_what_the_best_predictor_reaches(name: str) -> None:
    """On the twin's own samples, within three standard errors (roughly) of the figure from fresh ones."""
    spec, _, _, data = _twin(name)
    found = compute(spec.metrics, data.truth["best"], data.samples["label"])
    assert found == pytest.approx(data.truth["ceiling"], abs=0.06)


@pytest.mark.parametrize("name", TWINS)
def test_no_linear_model_of_the_true_factors_beats_the_ceiling(name: str) -> None:
    """It comes close, so the ceiling is not too high; within the noise of 256 samples it does not pass it."""
    spec, _, _, data = _twin(name)
    test = data.samples["split"] == "test"
    factors = np.concatenate([x.reshape(len(x), -1) for x in data.truth["factors"].values()], axis=1)
    found = _score(name, factors)
    here = compute([spec.main_metric], data.truth["best"][test], data.samples["label"][test])[spec.main_metric]
    assert -0.07 < _gain(name, found, here) < 0.02


def test_the_ceiling_of_pure_label_noise_follows_its_formula() -> None:
    """Factors that separate the classes perfectly leave (1 - e) + e / C."""
    spec, recipe, _, _ = _twin("crema_d")
    easy = replace(recipe, shared=(50.0, 50.0, 50.0), label_noise=0.2)
    ceiling = twin.generate(easy, spec).truth["ceiling"]["accuracy"]
    assert ceiling == pytest.approx(0.8 + 0.2 / 6, abs=0.01)


def test_the_ceiling_of_gaussian_label_noise_follows_its_formula() -> None:
    """Far from the ends of the range the least MAE is sigma * sqrt(2 / pi), up to the rounding of labels."""
    spec, recipe, _, _ = _twin("cmu_mosei")
    ceiling = twin.generate(replace(recipe, spread=0.5, label_noise=0.6), spec).truth["ceiling"]
    assert ceiling["mae"] == pytest.approx(0.6 * np.sqrt(2 / np.pi), abs=0.01)
    assert ceiling["corr"] == pytest.approx(0.5 / np.hypot(0.5, 0.6), abs=0.02)


@pytest.mark.parametrize("name", TWINS)
def test_difficulty_is_sensible(name: str) -> None:
    """Chance < one modality < all modalities < told where to look < ceiling, with clear gaps where it matters."""
    spec, recipe, protocol, data = _twin(name)
    names = [m.name for m in protocol.modalities]
    alone = [_score(name, _mean(data, m)) for m in names]
    fused = _score(name, np.concatenate([_mean(data, m) for m in names], axis=1))
    located = _score(name, np.concatenate([_located(data, m) for m in names], axis=1))
    ceiling = data.truth["ceiling"][spec.main_metric]
    chance = 1 / recipe.n_classes if recipe.n_classes else float(np.mean(np.abs(data.samples["label"])))
    assert all(_gain(name, score, chance) > 0.02 for score in alone)
    assert all(_gain(name, fused, score) > 0.03 for score in alone)
    assert max(alone) - min(alone) > 0.05  # one modality dominates
    assert _gain(name, located, fused) > 0.1
    assert _gain(name, ceiling, fused) > 0.2
    assert 0.01 < _gain(name, ceiling, located) < 0.16


@pytest.mark.parametrize("name", TWINS)
def test_distractors_tell_nothing_about_the_label(name: str) -> None:
    _, recipe, protocol, data = _twin(name)
    test = data.samples["split"] == "test"
    for modality in protocol.modalities:
        marked = data.truth["distractor"][modality.name]
        found = _score(name, _mean(data, modality.name, marked))
        if recipe.n_classes is not None:
            assert found < 1 / recipe.n_classes + 0.08
        else:
            label = data.samples["label"]
            assert found > np.mean(np.abs(label[test] - np.median(label[~test]))) - 0.03


@pytest.mark.parametrize("name", TWINS)
def test_distractors_are_loud_and_apart_from_the_informative_tokens(name: str) -> None:
    _, _, protocol, data = _twin(name)
    for modality in protocol.modalities:
        marked, planted = data.truth["distractor"][modality.name], data.truth["informative"][modality.name]
        assert not (marked[:, None] & planted).any()
        real = np.arange(planted.shape[2]) < data.lengths[modality.name][:, None]
        assert not (planted & ~real[:, None]).any()
        tokens = data.arrays[modality.name] if modality.layout == "tokens" else data.arrays[modality.name][:, 2]
        size = np.linalg.norm(tokens, axis=-1)
        assert size[marked].mean() > 1.5 * size[real & ~marked].mean()


@pytest.mark.parametrize("name", TWINS)
def test_levels_speak_at_their_own_time_scales(name: str) -> None:
    _, _, protocol, data = _twin(name)
    for modality in protocol.modalities:
        shallow, middle, deep = data.truth["informative"][modality.name].sum(axis=2).mean(axis=0)
        assert shallow + 0.5 < middle < deep - 1
        assert 2 <= shallow <= 4


@pytest.mark.parametrize("name", TWINS)
def test_shared_factors_stand_in_every_modality_and_private_ones_in_their_own(name: str) -> None:
    """A modality's tokens tell its loudest level's factors, and nothing of what is private to another modality (of
    those that carry no label: the others can be guessed from the label)."""
    _, recipe, _, data = _twin(name)
    factors = data.truth["factors"]
    for modality in recipe.modalities:
        level = int(np.argmax(modality.gain))
        features = _located(data, modality.name)
        own = _explained(features, factors[f"private_{modality.name}"][:, level])
        assert _explained(features, factors["shared"][:, level]) > 0.4, modality.name
        assert own > 0.4, modality.name
        for other in recipe.modalities:
            nuisance = factors[f"private_{other.name}"][:, np.array(other.private) == 0]
            if other is not modality:
                assert _explained(features, nuisance.reshape(len(nuisance), -1)) < 0.05, (modality.name, other.name)


def _explained(features: np.ndarray, factor: np.ndarray) -> float:
    """Share of variance of a factor (n, k) that a ridge regression predicts on the second half of the samples."""
    half = len(factor) // 2
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 4, 9))).fit(features[:half], factor[:half])
    return float(model.score(features[half:], factor[half:]))


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_every_level_of_shared_factors_is_needed(name: str) -> None:
    """Without one level, a linear model of the factors loses several points."""
    _, _, _, data = _twin(name)
    factors = data.truth["factors"]
    private = [factors[key].reshape(len(data.samples["id"]), -1) for key in factors if key != "shared"]
    full = _score(name, np.concatenate([factors["shared"].reshape(len(private[0]), -1), *private], axis=1))
    for level in range(3):
        rest = np.delete(factors["shared"], level, axis=1).reshape(len(private[0]), -1)
        assert full - _score(name, np.concatenate([rest, *private], axis=1)) > 0.02


def test_levels_share_directions_that_mean_other_factors() -> None:
    """What makes mixing of levels harmful: a shared direction of one level is not that of the same factor elsewhere."""
    _, _, _, data = _twin("crema_d")
    directions = data.truth["directions"]["audio"][:, : twin.SHARED]
    assert np.allclose(np.linalg.norm(directions, axis=-1), 1)
    overlap = np.abs(np.einsum("kd,jd->kj", directions[0], directions[2]))
    assert overlap.max() > 0.2
    assert np.abs(np.linalg.det(directions[0] @ directions[2].T)) < 0.5


def test_the_levelled_twin_is_loudest_at_its_own_level() -> None:
    _, _, protocol, data = _twin("cmu_mosi")
    assert protocol.modality("language").layout == "levels"
    tokens, factors = data.arrays["language"], data.truth["factors"]["shared"]
    planted = data.truth["informative"]["language"]
    for level in range(3):
        weight = planted[:, level][..., None]
        read = [_explained((tokens[:, k] * weight).sum(1) / weight.sum(1), factors[:, level]) for k in range(3)]
        assert np.argmax(read) == level


@pytest.mark.parametrize("name", TWINS)
def test_twins_are_small(name: str) -> None:
    _, _, _, data = _twin(name)
    assert sum(array.nbytes for array in data.arrays.values()) < 8e6
