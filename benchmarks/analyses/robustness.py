"""Gaussian noise on the inputs of the test split: on all modalities at once, and on each alone.

Values: {"all" | modality: {strength: scores}}, strength in deviations of the modality (benchmarks/analyses/changes.py);
"0" is the intact input. A row that reads one modality has that one and no "all".
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.analyses.team import Fold, Named, Prediction, Team, Values

STRENGTHS = ("0", "0.25", "0.5", "1", "2", "4")
ALL = "all"


def robustness(team: Team) -> list[Values | Exception]:
    """The scores of each run under noise."""
    return team.scores(_predict)


def _predict(fold: Fold) -> Sequence[Named]:
    names = fold.changes.names
    targets = {ALL: names} if len(names) > 1 else {}
    intact = fold.predict("test")
    found: list[dict[tuple[str, ...], Prediction]] = [{} for _ in fold.data]
    for target, noisy in (targets | {name: (name,) for name in names}).items():
        for strength in STRENGTHS:
            change = fold.changes.noise(float(strength), noisy)
            predictions = intact if float(strength) == 0 else fold.predict("test", change)
            for named, prediction in zip(found, predictions, strict=True):
                named[target, strength] = prediction
    return found
