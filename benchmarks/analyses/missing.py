"""Modalities that are missing at test time, their tokens zeroed or replaced by their training mean.

Values: {"zero" | "mean": {present: scores}}, where ``present`` names the modalities that are there, joined by "+" in
the order of the protocol: every subset, "" of none and all of them included. Masks stay as they are: a method knows how
many tokens a missing modality would have had, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from benchmarks.analyses.team import Fold, Named, Prediction, Team, Values

JOIN = "+"


def missing(team: Team) -> list[Values | Exception]:
    """The scores of each run with each subset of its modalities."""
    return team.scores(_predict)


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every subset, the largest first, each in the order of ``names``."""
    return [some for size in range(len(names), -1, -1) for some in combinations(names, size)]


def _predict(fold: Fold) -> Sequence[Named]:
    names = fold.changes.names
    intact = fold.predict("test")
    found: list[dict[tuple[str, ...], Prediction]] = [{} for _ in fold.data]
    for how, stand_in in (("zero", fold.changes.zeros), ("mean", fold.changes.means)):
        for present in subsets(names):
            gone = [name for name in names if name not in present]
            predictions = fold.predict("test", stand_in(gone)) if gone else intact
            for named, prediction in zip(found, predictions, strict=True):
                named[how, JOIN.join(present)] = prediction
    return found
