"""Every metric against scikit-learn, scipy and values worked out by hand, and the traps of the published code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

from benchmarks import metrics
from benchmarks.metrics import METRICS, better, compute, show

CLASSIFICATION = [name for name, metric in METRICS.items() if metric.task == "classification"]
REGRESSION = [name for name, metric in METRICS.items() if metric.task == "regression"]


def _scores(seed: int, n: int = 200, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes - 1, n)  # the last class never occurs
    return rng.standard_normal((n, classes)) + np.eye(classes)[target], target


def _values(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = np.round(np.clip(1.5 * rng.standard_normal(n), -3, 3) * 5) / 5
    return target + rng.standard_normal(n), target


def _one(name: str, prediction: object, target: object) -> float:
    return compute([name], np.array(prediction), np.array(target))[name]


@pytest.mark.parametrize("seed", range(3))
def test_classification_agrees_with_scikit_learn(seed: int) -> None:
    prediction, target = _scores(seed)
    predicted = prediction.argmax(axis=1)
    macro = f1_score(target, predicted, labels=range(6), average="macro", zero_division=0)
    assert compute(CLASSIFICATION, prediction, target) == pytest.approx(
        {"accuracy": accuracy_score(target, predicted), "macro_f1": macro}
    )


def test_a_class_that_never_occurs_counts_zero_in_macro_f1() -> None:
    perfect = np.eye(3)[[0, 1, 0, 1]]
    assert _one("macro_f1", perfect, [0, 1, 0, 1]) == pytest.approx(2 / 3)
    assert _one("accuracy", perfect, [0, 1, 0, 1]) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_regression_agrees_with_scikit_learn_and_scipy(seed: int) -> None:
    prediction, target = _values(seed)
    kept = target != 0
    assert 0 < kept.sum() < len(target)
    has0, non0 = (target >= 0, prediction >= 0), (target[kept] > 0, prediction[kept] > 0)
    expected = {
        "mae": mean_absolute_error(target, prediction),
        "corr": pearsonr(prediction, target).statistic,
        "acc2_has0": accuracy_score(*has0),
        "f1_has0": f1_score(*has0, average="weighted"),
        "acc2_non0": accuracy_score(*non0),
        "f1_non0": f1_score(*non0, average="weighted"),
    }
    found = compute(REGRESSION, prediction, target)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_weighted_f1_weighs_by_the_truth() -> None:
    """MulT and MISA pass the arguments the other way round; here the two orders differ by far."""
    prediction, target = np.array([1.0, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0, -1.0])
    assert _one("f1_non0", prediction, target) == pytest.approx(0.75 * 6 / 7)
    assert f1_score(prediction > 0, target > 0, average="weighted") == pytest.approx(6 / 7)


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        (0.5, 0.0, 1.0),  # half to even: 0.5 -> 0
        (1.5, 2.0, 1.0),  # 1.5 -> 2
        (2.5, 2.0, 1.0),  # 2.5 -> 2, half away from zero would say 3
        (2.5, 3.0, 0.0),
        (-0.5, 0.0, 1.0),
        (-2.5, -2.0, 1.0),
        (9.0, 3.0, 1.0),  # clipped
        (0.0, 0.5, 1.0),  # the truth is rounded alike
    ],
)
def test_seven_classes_round_half_to_even_after_clipping(prediction: float, target: float, expected: float) -> None:
    assert _one("acc7", [prediction], [target]) == expected


def test_five_classes_merge_the_extremes() -> None:
    assert _one("acc5", [3.0, -2.6, 1.4], [2.0, -1.9, 1.0]) == 1.0
    assert _one("acc7", [3.0, -2.6, 1.4], [2.0, -1.9, 1.0]) == pytest.approx(1 / 3)


def test_zeros_are_non_negative_in_one_variant_and_left_out_in_the_other() -> None:
    prediction, target = [0.1, -0.1, 0.0, -1.0], [0.0, 0.0, 1.0, -1.0]
    assert _one("acc2_has0", prediction, target) == 0.75
    assert _one("acc2_non0", prediction, target) == 0.5  # a prediction of exactly 0 is not positive


def test_without_a_sample_off_zero_the_non0_metrics_are_zero() -> None:
    assert compute(["acc2_non0", "f1_non0"], np.ones(3), np.zeros(3)) == {"acc2_non0": 0.0, "f1_non0": 0.0}


def test_mae_does_not_clip() -> None:
    assert _one("mae", [10.0], [3.0]) == 7.0


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e300])
def test_correlation_of_a_constant_is_zero(constant: float) -> None:
    target = np.arange(5.0)
    assert _one("corr", np.full(5, constant), target) == 0.0
    assert _one("corr", target, np.full(5, constant)) == 0.0


def test_correlation_survives_huge_and_tiny_values() -> None:
    target = np.arange(5.0)
    assert _one("corr", target * 1e307 - 2e307, target) == pytest.approx(1.0)
    assert _one("corr", -target * 1e-300, target) == pytest.approx(-1.0)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, 12, elements=st.floats(-4, 4)), arrays(np.float64, 12, elements=st.floats(-3, 3)))
def test_regression_metrics_are_finite_and_in_range(prediction: np.ndarray, target: np.ndarray) -> None:
    for name, value in compute(REGRESSION, prediction, target).items():
        low, high = {"mae": (0.0, 7.0), "corr": (-1.0, 1.0)}.get(name, (0.0, 1.0))
        assert low <= value <= high, name


def test_float32_predictions_lose_nothing() -> None:
    prediction, target = _values(0)
    narrow = prediction.astype(np.float32)
    assert compute(REGRESSION, narrow, target) == compute(REGRESSION, narrow.astype(np.float64), target)


@pytest.mark.parametrize(
    ("names", "prediction", "target", "message"),
    [
        (["mae"], np.zeros(3), np.zeros(4), "expected"),
        (["mae"], np.zeros((3, 1)), np.zeros(3), "expected"),
        (["mae"], np.zeros(0), np.zeros(0), "expected"),
        (["mae"], np.array([0.0, np.nan]), np.zeros(2), "not finite"),
        (["mae"], np.zeros(2), np.array([0.0, np.inf]), "not finite"),
        (["mae"], np.array(["a", "b"]), np.zeros(2), "dtype"),
        (["accuracy"], np.zeros(3), np.zeros(3, int), "expected"),
        (["accuracy"], np.zeros((3, 2)), np.zeros((3, 1), int), "expected"),
        (["accuracy"], np.full((3, 2), np.nan), np.zeros(3, int), "not finite"),
        (["accuracy"], np.zeros((3, 2)), np.array([0, 1, 2]), "targets"),
        (["accuracy"], np.zeros((3, 2)), np.array([0, 1, -1]), "targets"),
        (["accuracy"], np.zeros((3, 2)), np.array([0, 1, 0.5]), "targets"),
        (["accuracy", "mae"], np.zeros((3, 2)), np.zeros(3, int), "different tasks"),
        (["acc9"], np.zeros(3), np.zeros(3), "unknown metric"),
    ],
)
def test_meaningless_input_is_refused(
    names: list[str], prediction: np.ndarray, target: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compute(names, prediction, target)


def test_the_table_says_what_each_metric_is() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.direction in metrics.DIRECTIONS
        assert metric.task in ("classification", "regression")
        assert metric.unit in ("%", "")
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


def test_the_perfect_prediction_is_never_beaten() -> None:
    """Ties each metric's direction to what it computes."""
    scores, classes = _scores(1)
    values, target = _values(1)
    perfect = compute(CLASSIFICATION, np.eye(6)[classes], classes) | compute(REGRESSION, target, target)
    other = compute(CLASSIFICATION, scores, classes) | compute(REGRESSION, values, target)
    for name in METRICS:
        assert better(name, perfect[name], other[name])
        assert not better(name, other[name], perfect[name])
        assert not better(name, perfect[name], perfect[name])


def test_nan_is_never_better() -> None:
    assert not better("mae", float("nan"), 1.0)
    assert not better("accuracy", float("nan"), 0.0)


def test_values_are_shown_in_their_units() -> None:
    assert show("accuracy", 0.77921) == "77.92"
    assert show("mae", 0.67849) == "0.678"
    assert show("acc7", 1.0) == "100.00"
