"""Probes find what is planted, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score, roc_auc_score

from benchmarks.analyses.probes import Predictors, area_under_curve, canonical_correlation, ridge_r2

N, K, Q = 400, 12, 3


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def halves(x: np.ndarray, y: np.ndarray) -> tuple[Predictors, np.ndarray, np.ndarray, np.ndarray]:
    return Predictors(x[:N]), y[:N], x[N:], y[N:]


def test_a_planted_linear_map_is_recovered(rng: np.random.Generator) -> None:
    y = rng.standard_normal((2 * N, Q)) * (1, 10, 0.1) + 5
    x = y @ rng.standard_normal((Q, K)) + 1e-3 * rng.standard_normal((2 * N, K)) - 2
    assert ridge_r2(*halves(x, y)) > 0.99
    assert canonical_correlation(*halves(x, y)) > 0.99


def test_half_of_a_factor_gives_half(rng: np.random.Generator) -> None:
    y = rng.standard_normal((2 * N, 2))
    x = np.concatenate([y[:, :1], rng.standard_normal((2 * N, 3))], axis=1)
    assert ridge_r2(*halves(x, y)) == pytest.approx(0.5, abs=0.03)
    assert canonical_correlation(*halves(x, y)) == pytest.approx(0.5, abs=0.06)
    assert canonical_correlation(*halves(x[:, :1], y)) == pytest.approx(0.5, abs=0.01)  # fewer directions than numbers


def test_independent_noise_gives_about_nothing() -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((2 * N, K)), rng.standard_normal((2 * N, Q))
        found.append((ridge_r2(*halves(x, y)), canonical_correlation(*halves(x, y))))
    assert np.abs(np.mean(found, axis=0)).max() < 0.02
    assert np.abs(found).max() < 0.15


def test_ridge_is_scikit_learns_at_the_strength_of_least_error(rng: np.random.Generator) -> None:
    x, noise = rng.standard_normal((2 * N, K)), rng.standard_normal((2 * N, Q))
    y = x @ rng.standard_normal((K, Q)) + 2 * noise
    y[N:] += y[:N].mean(0) - y[N:].mean(0)  # one mean, so that both measures of R^2 agree
    scaled = (x - x[:N].mean(0)) / x[:N].std(0)
    scores = [
        r2_score(y[N:], Ridge(alpha=a * N).fit(scaled[:N], y[:N]).predict(scaled[N:])) for a in np.logspace(-6, 3, 19)
    ]
    assert ridge_r2(*halves(x, y)) == pytest.approx(max(scores), abs=5e-3)
    assert min(scores) < max(scores) - 0.1


def test_correlations_do_not_change_with_invertible_maps(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2 * N, K))
    y = x[:, :Q] + rng.standard_normal((2 * N, Q))
    first = canonical_correlation(*halves(x, y))
    mapped = x @ rng.standard_normal((K, K)) + 3, y @ rng.standard_normal((Q, Q)) - 1
    assert canonical_correlation(*halves(*mapped)) == pytest.approx(first, abs=1e-8)
    assert 0.5 < first < 0.9


def test_what_does_not_vary_says_nothing(rng: np.random.Generator) -> None:
    y = rng.standard_normal((2 * N, Q))
    for x in (np.ones((2 * N, K)), np.full((2 * N, K), 0.1, dtype=np.float32)):
        assert ridge_r2(*halves(x, y)) == pytest.approx(0, abs=1e-12)
        assert canonical_correlation(*halves(x, y)) == 0


def test_repeated_columns_change_nothing(rng: np.random.Generator) -> None:
    y = rng.standard_normal((2 * N, Q))
    x = y @ rng.standard_normal((Q, 4)) + rng.standard_normal((2 * N, 4))
    again = np.concatenate([x, x, np.zeros((2 * N, 1))], axis=1).astype(np.float32)
    assert canonical_correlation(*halves(again, y)) == pytest.approx(canonical_correlation(*halves(x, y)), abs=1e-4)


def test_areas_with_and_without_ties(rng: np.random.Generator) -> None:
    positive = rng.random((50, 20)) < 0.4
    counted = np.arange(20) < rng.integers(5, 21, 50)[:, None]
    assert area_under_curve(positive * 1.0, positive, counted) == 1
    assert area_under_curve(-1.0 * positive, positive, counted) == 0
    assert area_under_curve(np.ones_like(positive, dtype=float), positive, counted) == 0.5
    score = np.round(rng.random((50, 20)) + 0.3 * positive, 1)
    each = [
        roc_auc_score(p[c], s[c]) for s, p, c in zip(score, positive, counted, strict=True) if 0 < p[c].sum() < c.sum()
    ]
    assert area_under_curve(score, positive, counted) == pytest.approx(np.mean(each), abs=1e-12)


def test_what_is_not_counted_does_not_matter_and_one_kind_alone_gives_no_number() -> None:
    positive = np.array([[True, False, False], [True, True, True]])
    score = np.array([[0.5, 0.1, 0.9], [0.1, 0.2, 0.3]])
    assert area_under_curve(score, positive, np.array([[True, True, False]] * 2)) == 1
    assert np.isnan(area_under_curve(score[1:], positive[1:], np.ones((1, 3), dtype=bool)))
