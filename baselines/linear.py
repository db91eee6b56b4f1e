"""The linear floor: ridge regression or multinomial logistic regression on pooled features.

Source: A. E. Hoerl and R. W. Kennard, Ridge Regression: Biased Estimation for Nonorthogonal Problems, Technometrics
12(1), 1970; D. R. Cox, The Regression Analysis of Binary Sequences, JRSS B 20(2), 1958. Fitted by scikit-learn. Not a
rival from the literature on fusion: it says how far features alone go, and a network below it has not been trained.

Deviations from the textbook
- The strength is a penalty per sample, so that one grid serves data sets of every size: mean squared error plus
  strength * |W|^2, or mean cross entropy plus strength * |W|^2 / 2; intercepts are free.
- The strength is the one of least validation loss (mean absolute error, or cross entropy), the stronger one on a tie;
  the fit is not repeated on training and validation data together, because no other method sees the validation data.
- Classes absent from the training data keep a column of (finite) log-probabilities.

Deviations from released code: scikit-learn's RidgeCV and LogisticRegressionCV select by cross validation inside the
training data; here the benchmark's own validation split selects, as for every other method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

ABSENT = float(np.log(np.finfo(np.float32).tiny))


@dataclass(frozen=True)
class LinearConfig:
    """strengths: penalties per sample to choose from. iterations: limit of the logistic solver (L-BFGS)."""

    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
    iterations: int = 1000

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0:
            raise ValueError(f"config: method.strengths = {self.strengths!r}: must be one or more numbers > 0")
        if self.iterations < 1:
            raise ValueError(f"config: method.iterations = {self.iterations!r}: must be a positive integer")


class Linear:
    """A fitted estimator: ``fit`` on training rows, choose on validation rows, ``predict``; no training loop.

    ``n_classes``: number of classes, or None for regression. Features are expected standardised.
    """

    Config: ClassVar[type[LinearConfig]] = LinearConfig
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {}}

    def __init__(self, n_classes: int | None, config: LinearConfig | None = None, seed: int = 0) -> None:
        self.n_classes = n_classes
        self.config = config or LinearConfig()
        self.seed = seed
        self._strength = float("nan")
        self._weight: NDArray[np.float64] | None = None
        self._bias = np.zeros(0)

    def fit(
        self,
        train_x: NDArray[np.floating],
        train_y: NDArray[Any],
        valid_x: NDArray[np.floating],
        valid_y: NDArray[Any],
    ) -> None:
        """Fit on (n, D) features and (n,) targets for each strength; keep the one of least validation loss."""
        best = np.inf
        model = self._model(len(train_x))
        for strength in sorted(self.config.strengths, reverse=True):  # strong first: each fit warms up the next
            weight, bias = self._fit_one(model, strength, np.asarray(train_x, dtype=np.float64), train_y)
            loss = self._loss(self._scores(valid_x, weight, bias), valid_y)
            if loss < best:
                best, self._strength, self._weight, self._bias = loss, strength, weight, bias
        if self._weight is None:
            raise ValueError("linear: the validation loss is not finite at any strength: look for NaN in the features")

    def predict(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Log-probabilities (n, C), or values (n,)."""
        if self._weight is None:
            raise RuntimeError("linear: predict was called before fit")
        return self._scores(x, self._weight, self._bias)

    @property
    def strength(self) -> float:
        """The penalty per sample that was chosen; NaN before ``fit``."""
        return self._strength

    @property
    def n_parameters(self) -> int:
        """Weights and intercepts of the fitted model; 0 before ``fit``."""
        return 0 if self._weight is None else self._weight.size + self._bias.size

    def _model(self, n: int) -> Ridge | LogisticRegression:
        if n == 0:
            raise ValueError("linear: there are no training rows")
        if self.n_classes is None:
            return Ridge()
        return LogisticRegression(max_iter=self.config.iterations, warm_start=True, random_state=self.seed)

    def _fit_one(
        self, model: Ridge | LogisticRegression, strength: float, x: NDArray[np.float64], y: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight (D, C) or (D, 1) and bias (C,) or (1,) at one strength."""
        if self.n_classes is None:
            model.set_params(alpha=strength * len(x)).fit(x, y)
            return np.array(model.coef_, dtype=np.float64).reshape(-1, 1), np.atleast_1d(np.float64(model.intercept_))
        model.set_params(C=1.0 / (strength * len(x))).fit(x, y)
        return self._all_classes(model)

    def _all_classes(self, model: LogisticRegression) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One column per class of the task: scikit-learn knows only those present, and one column for two of them."""
        assert self.n_classes is not None
        coef, intercept = model.coef_, model.intercept_
        if len(model.classes_) == 2:
            coef, intercept = np.concatenate((-coef / 2, coef / 2)), np.concatenate((-intercept / 2, intercept / 2))
        weight, bias = np.zeros((coef.shape[1], self.n_classes)), np.full(self.n_classes, ABSENT)
        weight[:, model.classes_], bias[model.classes_] = coef.T, intercept
        return weight, bias

    def _scores(
        self, x: NDArray[np.floating], weight: NDArray[np.float64], bias: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        raw = np.asarray(x, dtype=np.float64) @ weight + bias
        if self.n_classes is None:
            return np.asarray(raw[:, 0])
        shifted = raw - raw.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))

    def _loss(self, scores: NDArray[np.float64], target: NDArray[Any]) -> float:
        if self.n_classes is None:
            return float(np.abs(scores - target).mean())
        return float(-scores[np.arange(len(target)), target].mean())
