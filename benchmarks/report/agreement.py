"""A run against the same run trained again: to the last bit on one machine, within tolerances on another. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.metrics import METRICS
from benchmarks.record import RunRecord
from benchmarks.report.findings import Finding

MACHINE = ("cpu", "cpu_kind", "versions", "device", "threads")
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Tolerance:
    """How far a run may lie from itself on another processor. agreement: share of samples of the same class (of the
    same sign, for values); score: difference of the main metric; difference: mean absolute difference of predictions,
    in standard deviations of the committed ones."""

    agreement: float
    score: float
    difference: float


TOLERANCES: Mapping[str, Tolerance] = {
    "classification": Tolerance(agreement=0.97, score=0.02, difference=0.1),
    "regression": Tolerance(agreement=0.97, score=0.02, difference=0.1),
}
REMEDY = "find which change of the trainer, the data or the libraries moved it; undo it, or run the sweep again"


def same_machine(a: RunRecord, b: RunRecord) -> bool:
    """Whether two runs promise equal bits: processor, versions, device and threads, as far as both tell them."""
    told = [name for name in MACHINE if name in a.provenance and name in b.provenance]
    return "cpu" in told and all(a.provenance[name] == b.provenance[name] for name in told)


def compare(committed: RunRecord, then: Arrays, again: RunRecord, now: Arrays, main: str) -> list[Finding]:
    """What of a retrained run is not as it was committed. then, now: index, target, prediction (and group)."""
    where = f"golden {committed.key}"
    for name in ("index", "target", "group"):
        if not np.array_equal(then.get(name, ()), now.get(name, ())):
            return [Finding(f"{where}: {name}", "the committed test samples", "others", REMEDY)]
    if then["prediction"].shape != now["prediction"].shape:
        old, new = (str(x["prediction"].shape) for x in (then, now))
        return [Finding(f"{where}: shape of the predictions", old, new, REMEDY)]
    if same_machine(committed, again):
        return _to_the_bit(where, committed, then, again, now)
    return _nearly(where, committed, then, now, main)


def _to_the_bit(where: str, committed: RunRecord, then: Arrays, again: RunRecord, now: Arrays) -> list[Finding]:
    old, new = then["prediction"], now["prediction"]
    if old.dtype != new.dtype or old.tobytes() != new.tobytes():
        rows = np.any((old != new).reshape(len(old), -1), axis=1)
        gap = float(np.abs(old.astype(np.float64) - new).max())
        told = f"{int(rows.sum())} of {len(rows)} samples predicted otherwise, by up to {gap:.3g}"
        return [Finding(f"{where}: predictions", "equal bits on this processor", told, REMEDY)]
    pairs = (("metrics", committed.metrics, again.metrics), ("selection", committed.selection, again.selection))
    return [Finding(f"{where}: {name}", str(a), str(b), REMEDY) for name, a, b in pairs if a != b]


@dataclass(frozen=True)
class Distance:
    """How far two runs lie apart, in the terms of ``Tolerance``."""

    agreement: float
    score: float
    difference: float


def distance(then: Arrays, now: Arrays, main: str) -> Distance:
    """Measure the distance of predictions (n, C) or (n,) in float64."""
    old, new = (x["prediction"].astype(np.float64) for x in (then, now))
    classes = METRICS[main].task == "classification"
    agrees = old.argmax(1) == new.argmax(1) if classes else (old >= 0) == (new >= 0)
    scores = [METRICS[main].function(x, then["target"]) for x in (old, new)]
    spread = float(old.std()) or 1.0
    return Distance(float(agrees.mean()), abs(scores[0] - scores[1]), float(np.abs(old - new).mean()) / spread)


def _nearly(where: str, committed: RunRecord, then: Arrays, now: Arrays, main: str) -> list[Finding]:
    allowed, found = TOLERANCES[METRICS[main].task], distance(then, now, main)
    rows = (
        ("share of predictions that agree", f"at least {allowed.agreement:g}", found.agreement - allowed.agreement),
        (f"change of {main}", f"at most {allowed.score:g}", allowed.score - found.score),
        ("mean change of predictions", f"at most {allowed.difference:g} sd", allowed.difference - found.difference),
    )
    on = f"on another machine than {committed.provenance.get('cpu', 'the recorded one')}"
    told = (found.agreement, found.score, found.difference)
    return [
        Finding(f"{where}: {name} {on}", limit, f"{value:.4g}", REMEDY)
        for (name, limit, room), value in zip(rows, told, strict=True)
        if room < 0
    ]
