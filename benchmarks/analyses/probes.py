"""How much of one set of numbers is in another: ridge probes, canonical correlations, and areas under ROC curves.

Fitted on one sample and scored on another, in float64. No torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Array = NDArray[Any]
STRENGTHS = np.logspace(-6, 3, 19)  # of the ridge, per sample and for predictors of unit variance
FLAT = 1e-9  # a column whose deviation is below this share of the largest says nothing
RANK = 1e-4  # directions below this share of the largest singular value are rounding, or as good as


class Predictors:
    """A sample of predictors (n, k), centred, as its singular vectors; another sample can be put into its terms."""

    def __init__(self, x: Array) -> None:
        x = np.asarray(x, dtype=np.float64)
        self._mean, deviation = x.mean(0), x.std(0)
        self._kept = deviation > FLAT * max(float(deviation.max(initial=0.0)), np.finfo(np.float64).tiny)
        self._deviation = deviation[self._kept]
        u, s, v = linalg.svd(self._scaled(x), full_matrices=False)
        rank = int((s > RANK * s[0]).sum()) if s.size else 0
        self.left, self.values, self._right = u[:, :rank], s[:rank], v[:rank].T

    def _scaled(self, x: Array) -> Array:
        return np.asarray((np.asarray(x, dtype=np.float64) - self._mean)[:, self._kept] / self._deviation)

    def put(self, x: Array) -> Array:
        """Another sample (m, k) as coordinates (m, rank) in which the first is ``left``."""
        return np.asarray(self._scaled(x) @ self._right / self.values)


def ridge_r2(train: Predictors, train_y: Array, test_x: Array, test_y: Array) -> float:
    """Mean over targets of R^2 on the test sample of a ridge regression fitted on the training sample.

    train_y (n, q), test_x (m, k), test_y (m, q). One strength for all targets, by generalised cross-validation (Golub,
    Heath and Wahba, Technometrics 21(2), 1979) of the targets in units of their deviation. 1 is perfect, 0 is no better
    than the training sample's mean, which stands for a probe that found nothing; independent predictors give about 0.
    """
    mean, unit = train_y.mean(0), _unit(train_y)
    target = (train_y - mean) / unit
    n, seen = len(target), train.left.T @ target  # (rank, q)
    best, fitted = np.inf, np.zeros_like(seen)
    for strength in STRENGTHS:
        shrunk = train.values**2 / (train.values**2 + strength * n)
        residual = (target**2).sum() - ((2 * shrunk - shrunk**2)[:, None] * seen**2).sum()
        score = residual / (1 - (1 + shrunk.sum()) / n) ** 2
        if score < best:
            best, fitted = score, shrunk[:, None] * seen
    error = test_y - mean - unit * (train.put(test_x) @ fitted)
    spread = ((test_y - mean) ** 2).sum(0)
    return float(np.mean(1 - (error**2).sum(0) / np.where(spread > 0, spread, 1.0)))


def canonical_correlation(train: Predictors, train_y: Array, test_x: Array, test_y: Array) -> float:
    """Mean canonical correlation: directions from the training sample, correlations on the test sample (Hotelling,
    Biometrika 28, 1936).

    Shapes as in ``ridge_r2``. The number of directions is that of the factor, or of the predictors where those are
    fewer; the missing ones count as 0. Regularised by leaving out directions that are rounding (``RANK``), so that it
    is the same for every invertible map of either side. Independent samples give about 0, of either sign.
    """
    other = Predictors(train_y)
    left, _, right = linalg.svd(train.left.T @ other.left, full_matrices=False)
    x, y = train.put(test_x) @ left, other.put(test_y) @ right.T
    x, y = x - x.mean(0), y - y.mean(0)
    size = np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return float(((x * y).sum(0) / np.where(size > 0, size, 1.0)).sum() / max(other.values.size, 1))


def area_under_curve(score: Array, positive: Array, counted: Array) -> float:
    """Mean over samples of the chance that a positive token has a higher score than one that is not; ties count half.

    score (n, T); positive, counted: bool (n, T), the latter says which tokens take part. Samples without either kind
    are left out; NaN where all are.
    """
    yes, no = positive & counted, ~positive & counted
    pairs = yes[:, :, None] & no[:, None, :]
    higher = np.sign(score[:, :, None] - score[:, None, :]) / 2 + 0.5
    count = pairs.sum((1, 2))
    each = (higher * pairs).sum((1, 2))[count > 0] / count[count > 0]
    return float(each.mean()) if each.size else float("nan")


def _unit(x: Array) -> Array:
    deviation = x.std(0)
    return np.asarray(np.where(deviation > 0, deviation, 1.0))
