"""How far class scores can be taken for probabilities: reliability by bins and the expected calibration error. numpy.

Scores of the suite's networks are logits, those of the linear floor log-probabilities: softmax makes probabilities of
both. Rows that are probabilities already (none negative, sum 1) stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.statistics import Array

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Predictions by confidence, in ``BINS`` bins of equal width: (0, 0.1], (0.1, 0.2], ... Each array (BINS,).

    counts: samples; confidence and accuracy: their means in a bin, nan where it is empty.
    """

    counts: Array
    confidence: Array
    accuracy: Array

    @property
    def ece(self) -> float:
        """Expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017): the mean of |accuracy -
        confidence| over bins, weighted by their samples. It is biased upwards where bins hold few samples."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((self.counts[filled] * gaps).sum() / self.counts.sum())


def probabilities(scores: np.ndarray) -> Array:
    """Class scores (n, C) as probabilities (n, C): softmax, unless all rows are probabilities already."""
    values = np.asarray(scores, dtype=np.float64)
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1.0, atol=1e-4):
        return values
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def reliability(scores: np.ndarray, target: np.ndarray, bins: int = BINS) -> Reliability:
    """Confidence, the probability of the predicted class, against accuracy: scores (n, C), target (n,), n >= 1."""
    found = probabilities(scores)
    confidence = found.max(axis=1)
    correct = np.argmax(scores, axis=1) == target
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins).astype(np.float64)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=x, minlength=bins) / counts for x in (confidence, correct)]
    return Reliability(counts, *means)


def together(runs: Sequence[Reliability]) -> Reliability:
    """Several runs as if all their predictions were of one; at least one run."""
    counts = np.array([run.counts for run in runs])
    total = counts.sum(axis=0)
    parts = [run.confidence for run in runs], [run.accuracy for run in runs]
    with np.errstate(invalid="ignore"):
        means = [np.nansum(counts * np.array(part), axis=0) / total for part in parts]
    return Reliability(total, *means)
