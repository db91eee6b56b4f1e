"""Calibration against sums written out one prediction at a time, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from benchmarks.report.calibration import BINS, probabilities, reliability, together


def sample(n: int = 400, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(classes, size=n)
    return rng.normal(size=(n, classes)) * 2 + np.eye(classes)[target], target


def by_hand(scores: np.ndarray, target: np.ndarray, bins: int) -> float:
    """Guo et al. 2017, equation 3, with intervals ((m-1)/M, m/M]."""
    found: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for row, truth in zip(scores, target, strict=True):
        shares = [np.exp(x) / sum(np.exp(y) for y in row) for x in row]
        confidence = max(shares)
        place = next(m for m in range(bins) if confidence <= (m + 1) / bins or m == bins - 1)
        found[place].append((confidence, int(np.argmax(row)) == truth))
    total = 0.0
    for some in filter(None, found):
        gap = sum(right for _, right in some) / len(some) - sum(c for c, _ in some) / len(some)
        total += len(some) / len(target) * abs(gap)
    return total


@pytest.mark.parametrize("bins", [1, 5, 10, 15])
@pytest.mark.parametrize("seed", range(3))
def test_ece_is_the_sum_written_out(bins: int, seed: int) -> None:
    scores, target = sample(seed=seed)
    assert reliability(scores, target, bins).ece == pytest.approx(by_hand(scores, target, bins), abs=1e-12)


def test_curve_is_that_of_scikit_learn() -> None:
    scores, target = sample()
    found = reliability(scores, target)
    confidence = probabilities(scores).max(axis=1)
    accuracy, mean = calibration_curve(scores.argmax(axis=1) == target, confidence, n_bins=BINS)
    filled = found.counts > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], mean)


def test_logits_and_log_probabilities_and_probabilities_say_the_same() -> None:
    scores, target = sample()
    shares = probabilities(scores)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    for other in (scores + 700, np.log(shares), shares, shares.astype(np.float32)):
        np.testing.assert_allclose(probabilities(other), shares, atol=1e-6)
        assert reliability(other, target).ece == pytest.approx(reliability(scores, target).ece, abs=1e-6)


def test_known_cases() -> None:
    sure = np.array([[60.0, 0.0]] * 4)
    assert reliability(sure, np.zeros(4, dtype=int)).ece == pytest.approx(0, abs=1e-12)
    assert reliability(sure, np.ones(4, dtype=int)).ece == pytest.approx(1)
    assert reliability(sure, np.array([0, 0, 0, 1])).ece == pytest.approx(0.25)
    edge = reliability(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([0, 1]))
    assert edge.counts.nonzero()[0].tolist() == [4, 8]  # a bin holds its upper end


def test_pooled_runs_are_one_long_run() -> None:
    runs = [sample(n, seed=n) for n in (50, 300, 7)]
    pooled = together([reliability(*run) for run in runs])
    whole = reliability(np.concatenate([s for s, _ in runs]), np.concatenate([t for _, t in runs]))
    for name in ("counts", "confidence", "accuracy"):
        np.testing.assert_allclose(getattr(pooled, name), getattr(whole, name))
    assert pooled.ece == pytest.approx(whole.ece)
