"""The linear floor against closed forms and optimality conditions written out in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from baselines.linear import Linear, LinearConfig

RNG = np.random.default_rng(0)
Array = NDArray[np.float64]


def regression_data(n: int = 60, width: int = 5, noise: float = 0.5) -> tuple[Array, Array]:
    x = RNG.normal(size=(n, width))
    return x, x @ np.arange(1.0, width + 1) + 3 + noise * RNG.normal(size=n)


def class_data(n: int = 90, classes: int = 3) -> tuple[Array, NDArray[np.int64]]:
    y = np.arange(n) % classes
    return RNG.normal(size=(n, 4)) + np.eye(4)[y] * 1.5, y


def closed_form(x: Array, y: Array, strength: float) -> tuple[Array, float]:
    """argmin mean (y - xw - b)^2 + strength |w|^2."""
    centre, mean = x.mean(0), y.mean()
    gram = (x - centre).T @ (x - centre) / len(x) + strength * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, (x - centre).T @ (y - mean) / len(x))
    return weight, float(mean - centre @ weight)


def test_ridge_is_the_closed_form() -> None:
    (x, y), (valid_x, valid_y), (test_x, _) = regression_data(), regression_data(), regression_data()
    model = Linear(None, LinearConfig(strengths=(0.3,)))
    model.fit(x, y, valid_x, valid_y)
    weight, bias = closed_form(x, y, 0.3)
    np.testing.assert_allclose(model.predict(test_x), test_x @ weight + bias, rtol=1e-9)
    assert model.n_parameters == 6


def test_the_strength_of_least_validation_error_is_chosen() -> None:
    x, y = regression_data(12, 10, noise=20.0)
    valid_x, valid_y = regression_data(200, 10, noise=0.0)
    grid = LinearConfig().strengths
    errors = []
    for strength in grid:
        weight, bias = closed_form(x, y, strength)
        errors.append(np.abs(valid_x @ weight + bias - valid_y).mean())
    model = Linear(None)
    model.fit(x, y, valid_x, valid_y)
    assert model.strength == grid[int(np.argmin(errors))]
    assert grid[0] < model.strength < grid[-1]


def test_features_of_pure_noise_get_the_strongest_penalty() -> None:
    x, valid_x = RNG.normal(size=(40, 30)), RNG.normal(size=(400, 30))
    model = Linear(3)
    model.fit(x, np.arange(40) % 3, valid_x, np.arange(400) % 3)
    assert model.strength == max(LinearConfig().strengths)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_is_at_its_optimum(classes: int) -> None:
    """Stationary: X^T (p - y) / n + strength * W = 0, free intercept."""
    x, y = class_data(classes=classes)
    model = Linear(classes, LinearConfig(strengths=(0.05,)))
    model.fit(x, y, x, y)
    residual = np.exp(model.predict(x)) - np.eye(classes)[y]
    assert model._weight is not None
    weight = model._weight if classes > 2 else model._weight * 2  # two classes: the penalty is on their difference
    np.testing.assert_allclose(x.T @ residual / len(x) + 0.05 * weight, 0, atol=2e-4)
    np.testing.assert_allclose(residual.mean(0), 0, atol=2e-4)


def test_scores_are_log_probabilities_also_of_absent_classes() -> None:
    x, y = class_data(classes=2)
    model = Linear(5)
    model.fit(x, np.where(y == 0, 1, 3), x, np.where(y == 0, 1, 4))
    scores = model.predict(x)
    assert scores.shape == (90, 5)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(np.exp(scores).sum(1), 1)
    assert set(scores.argmax(1)) == {1, 3}
    assert scores[:, [0, 2, 4]].max() < -20


def test_it_learns_and_repeats() -> None:
    x, y = class_data(300)
    runs = []
    for _ in range(2):
        model = Linear(3, seed=4)
        model.fit(x[:200], y[:200], x[200:250], y[200:250])
        runs.append(model.predict(x[250:]))
    assert np.array_equal(*runs)
    assert (runs[0].argmax(1) == y[250:]).mean() > 0.7


@pytest.mark.parametrize("fields", [{"strengths": ()}, {"strengths": (0.0, 1.0)}, {"iterations": 0}])
def test_senseless_configs_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"config: method\."):
        LinearConfig(**fields)


def test_misuse_is_named() -> None:
    with pytest.raises(RuntimeError, match="before fit"):
        Linear(3).predict(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="no training rows"):
        Linear(None).fit(np.zeros((0, 4)), np.zeros(0), np.zeros((1, 4)), np.zeros(1))
    x, y = regression_data()
    with pytest.raises(ValueError, match="not finite"):
        Linear(None).fit(x, y, x, np.full(len(y), np.nan))
