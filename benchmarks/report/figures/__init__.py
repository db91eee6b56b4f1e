"""Records, predictions and curves to figures, svg and png; equal records give equal bytes. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from benchmarks.drawing import save, style
from benchmarks.report.collect import Collected, Group
from benchmarks.report.figures import ablation, cost, courses, forest, ranks, reliability, seeds
from benchmarks.report.figures.sheet import Draw, Files, Sheet
from benchmarks.report.layout import DATA

KINDS: Mapping[str, Draw] = {
    "seeds": seeds.draw,
    "forest": forest.draw,
    "ranks": ranks.draw,
    "ablation": ablation.draw,
    "curves": courses.draw,
    "cost": cost.draw,
    "reliability": reliability.draw,
}
SUFFIXES = ("svg", "png")


def sheets(collected: Collected, out: Path) -> list[Sheet]:
    """The groups of each kind of data and profile."""
    files = Files(out)
    return [
        Sheet(data, profile, tuple(groups), files)
        for data in DATA
        for profile, groups in groupby(sorted(collected.of(data), key=_profile), key=_profile)
    ]


def _profile(group: Group) -> str:
    return group.key.profile


def figures(collected: Collected, out: Path) -> dict[str, bytes]:
    """File name -> bytes: <kind>_<real|twin>_<profile>.svg and .png, for every kind that the records can fill.

    Predictions and curves are read below ``out``. matplotlib must be there (``drawing.require``).
    """
    made: dict[str, bytes] = {}
    with style():
        for sheet in sheets(collected, out):
            for kind, draw in KINDS.items():
                figure = draw(sheet)
                if figure is not None:
                    name = f"{kind}_{sheet.data}_{sheet.profile}"
                    made |= {f"{name}.{suffix}": save(figure, suffix) for suffix in SUFFIXES}
    return made
