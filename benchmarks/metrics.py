"""The metrics, as pure functions of numpy arrays, and the table that describes them. Nothing but numpy.

Classification: ``prediction`` is scores (n, C), any monotone scale, ``target`` integers (n,) in 0..C-1; the first of
equal scores wins. Regression: both are values (n,). All figures are means over samples, none is rounded, none is in %.

Sentiment metrics follow the code shared by MulT, MISA and MMSA (utils/metricsTop.py) with two things settled:
F1 is weighted by the support of the truth (MulT and MISA pass the arguments the other way round and so weight by the
support of the prediction), and ``acc7``/``acc5`` round half to even as ``np.round`` does, on truth and prediction
alike; rounding half away from zero moves Acc-7 of CMU-MOSI by about 0.3 points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

DIRECTIONS = ("max", "min")


@dataclass(frozen=True)
class Metric:
    """One metric. direction: "max" or "min", the better way. unit: "%" (the value is a fraction, shown times 100) or
    "". digits: decimals when shown. task: "classification" or "regression"."""

    name: str
    title: str
    task: str
    direction: str
    unit: str
    digits: int
    function: Callable[[np.ndarray, np.ndarray], float]


def accuracy(prediction: np.ndarray, target: np.ndarray) -> float:
    """Share of samples whose highest score is that of their class."""
    return float(np.mean(np.argmax(prediction, axis=1) == target))


def macro_f1(prediction: np.ndarray, target: np.ndarray) -> float:
    """Mean over all C classes of the class's F1; a class that neither occurs nor is predicted counts 0 (0/0 -> 0)."""
    predicted = np.argmax(prediction, axis=1)
    return float(np.mean([_f1(predicted == c, target == c) for c in range(prediction.shape[1])]))


def mae(prediction: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute error; the prediction is not clipped."""
    return float(np.mean(np.abs(prediction - target)))


def corr(prediction: np.ndarray, target: np.ndarray) -> float:
    """Pearson correlation; 0.0 where either is constant."""
    x, y = _standardise(prediction), _standardise(target)
    return float(np.clip(np.mean(x * y), -1.0, 1.0))


def acc7(prediction: np.ndarray, target: np.ndarray) -> float:
    """Accuracy of the seven sentiment classes: both clipped to [-3, 3], rounded half to even."""
    return _rounded_accuracy(prediction, target, 3.0)


def acc5(prediction: np.ndarray, target: np.ndarray) -> float:
    """Accuracy of five sentiment classes: both clipped to [-2, 2], rounded half to even."""
    return _rounded_accuracy(prediction, target, 2.0)


def acc2_has0(prediction: np.ndarray, target: np.ndarray) -> float:
    """Accuracy of non-negative against negative, all samples ("Has0")."""
    return float(np.mean((prediction >= 0) == (target >= 0)))


def f1_has0(prediction: np.ndarray, target: np.ndarray) -> float:
    """Weighted F1 of non-negative against negative, all samples."""
    return _weighted_f1(prediction >= 0, target >= 0)


def acc2_non0(prediction: np.ndarray, target: np.ndarray) -> float:
    """Accuracy of positive against negative, samples of truth 0 left out ("Non0"); 0.0 where none is left."""
    kept = target != 0
    return float(np.mean((prediction[kept] > 0) == (target[kept] > 0))) if kept.any() else 0.0


def f1_non0(prediction: np.ndarray, target: np.ndarray) -> float:
    """Weighted F1 of positive against negative, samples of truth 0 left out; 0.0 where none is left."""
    kept = target != 0
    return _weighted_f1(prediction[kept] > 0, target[kept] > 0) if kept.any() else 0.0


def _f1(predicted: np.ndarray, true: np.ndarray) -> float:
    support = int(predicted.sum()) + int(true.sum())
    return 2.0 * int((predicted & true).sum()) / support if support else 0.0


def _weighted_f1(predicted: np.ndarray, true: np.ndarray) -> float:
    """F1 of either side, weighted by how often that side is *true*."""
    share = float(np.mean(true))
    return share * _f1(predicted, true) + (1.0 - share) * _f1(~predicted, ~true)


def _rounded_accuracy(prediction: np.ndarray, target: np.ndarray, limit: float) -> float:
    classes = [np.round(np.clip(x, -limit, limit)) for x in (prediction, target)]
    return float(np.mean(classes[0] == classes[1]))


def _standardise(x: np.ndarray) -> np.ndarray:
    """Zero mean, unit deviation; zeros for a constant. Scaled first, so that no finite input overflows."""
    if np.ptp(x / 2) == 0:
        return np.zeros_like(x)
    scaled = x / np.max(np.abs(x))
    centred = scaled - scaled.mean()
    deviation = np.sqrt(np.mean(centred**2))
    return np.asarray(centred / deviation) if deviation > 0 else np.zeros_like(x)


def _classification(name: str, title: str, function: Callable[[np.ndarray, np.ndarray], float]) -> Metric:
    return Metric(name, title, "classification", "max", "%", 2, function)


def _share(name: str, title: str, function: Callable[[np.ndarray, np.ndarray], float]) -> Metric:
    return Metric(name, title, "regression", "max", "%", 2, function)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _classification("accuracy", "Accuracy", accuracy),
        _classification("macro_f1", "Macro F1", macro_f1),
        Metric("mae", "MAE", "regression", "min", "", 3, mae),
        Metric("corr", "Corr", "regression", "max", "", 3, corr),
        _share("acc7", "Acc-7", acc7),
        _share("acc5", "Acc-5", acc5),
        _share("acc2_has0", "Acc-2 (has 0)", acc2_has0),
        _share("f1_has0", "F1 (has 0)", f1_has0),
        _share("acc2_non0", "Acc-2 (non 0)", acc2_non0),
        _share("f1_non0", "F1 (non 0)", f1_non0),
    )
}


def compute(names: Iterable[str], prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """The named metrics. ValueError for an unknown name, metrics of two tasks, wrong shapes, no samples, or values that
    are not finite: a number that would be meaningless is never returned."""
    wanted = [_known(name) for name in names]
    tasks = {metric.task for metric in wanted}
    if len(tasks) > 1:
        raise ValueError(f"metrics: {', '.join(m.name for m in wanted)} belong to different tasks")
    prediction, target = np.asarray(prediction), np.asarray(target)
    if tasks == {"classification"}:
        _check_classification(prediction, target)
        target = target.astype(np.int64)
    elif tasks:
        _check_values(prediction, target)
    prediction = prediction.astype(np.float64)
    return {metric.name: metric.function(prediction, target) for metric in wanted}


def better(name: str, a: float, b: float) -> bool:
    """Whether value ``a`` of a metric is strictly better than ``b``; a NaN on either side: never."""
    return a > b if _known(name).direction == "max" else a < b


def show(name: str, value: float) -> str:
    """A value as tables print it: fractions times 100, the metric's decimals, no unit."""
    metric = _known(name)
    return f"{value * (100.0 if metric.unit == '%' else 1.0):.{metric.digits}f}"


def _known(name: str) -> Metric:
    if name not in METRICS:
        raise ValueError(f"metrics: unknown metric {name!r}; known: {', '.join(METRICS)}")
    return METRICS[name]


def _check_classification(prediction: np.ndarray, target: np.ndarray) -> None:
    if prediction.ndim != 2 or target.shape != prediction.shape[:1] or 0 in prediction.shape:
        raise ValueError(f"metrics: scores {prediction.shape} and classes {target.shape}; expected (n, C) and (n,)")
    _check_finite("prediction", prediction)
    _check_finite("target", target)
    if (target != np.floor(target)).any() or target.min() < 0 or target.max() >= prediction.shape[1]:
        raise ValueError(f"metrics: targets are not integers in 0..{prediction.shape[1] - 1}")


def _check_values(prediction: np.ndarray, target: np.ndarray) -> None:
    if prediction.ndim != 1 or target.shape != prediction.shape or not prediction.size:
        raise ValueError(f"metrics: values {prediction.shape} and {target.shape}; expected (n,) and (n,)")
    _check_finite("prediction", prediction)
    _check_finite("target", target)


def _check_finite(what: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"metrics: {what} has dtype {array.dtype}, not numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"metrics: {what} holds {int((~np.isfinite(array)).sum())} values that are not finite")
