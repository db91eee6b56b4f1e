"""Critical-difference diagram (Demšar, JMLR 7, 2006): a picture of mean ranks, from which nothing is concluded.

CD = q sqrt(k (k + 1) / (6 N)) for k methods on N benchmarks; q is the quantile of the studentised range of k means with
infinite degrees of freedom, over sqrt(2) (Nemenyi 1963). With few benchmarks it is several ranks wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.drawing import INK, SOFT, look, name, page, title
from benchmarks.report.collect import Group, label
from benchmarks.report.figures.sheet import Sheet
from benchmarks.report.layout import count, listed, number
from benchmarks.report.resampling import mean_rank
from benchmarks.report.significance import one_protocol_each, oriented
from benchmarks.report.statistics import ALPHA, critical_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(sheet: Sheet) -> Figure | None:
    """One diagram: methods that ran on all benchmarks, one protocol each; None below 3 methods or 2 benchmarks."""
    groups = one_protocol_each(sheet.groups)
    found = mean_ranks(groups)
    if len(found) < 3 or len(groups) < 2:
        return None
    width = critical_difference(len(found), len(groups))
    figure = page(0.95 + 0.13 * len(found))
    _diagram(figure.subplots(), found, width)
    notes = (
        "A picture, not a test of the suite: nothing is concluded from it; what is concluded stands in the table of "
        f"significance. Rank 1 is best; main metric, means over seeds; {count(len(found), 'method')} on "
        f"{count(len(groups), 'benchmark')}: {listed([f'{g.spec.title} ({g.key.protocol})' for g in groups])}.",
        f"Nemenyi, level {ALPHA}: ranks less than the critical difference of {number(width, 2)} apart are joined by a "
        "bar and cannot be told apart, which with so few benchmarks shows nothing. n: "
        f"{listed(sorted({count(len(set(g.runs['seed'])), 'seed') for g in groups}))} a method.",
    )
    title(figure, sheet.heading("Mean ranks over benchmarks"), sheet.only(groups).notes(*notes))
    return figure


def mean_ranks(groups: Sequence[Group]) -> dict[str, float]:
    """Mean rank of each method that has results in all groups, best first."""
    everywhere = set.intersection(*({m for m in group.methods if oriented(group, m)} for group in groups))
    methods = sorted(everywhere)
    if not methods:
        return {}
    means = np.array([[np.mean(list(oriented(group, m).values())) for m in methods] for group in groups])
    return dict(sorted(zip(methods, map(float, mean_rank(means)), strict=True), key=lambda pair: pair[1]))


def cliques(ranks: Sequence[float], width: float) -> list[tuple[int, int]]:
    """The longest runs of rising ranks (first, last) that span less than ``width``; single ones are left out."""
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(i for i in range(first, len(ranks)) if ranks[i] - ranks[first] < width)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def _diagram(axes: Axes, found: dict[str, float], width: float) -> None:
    ranks, last = list(found.values()), len(found)
    bars = cliques(ranks, width)
    half = (last + 1) // 2
    axes.set_axis_off()
    axes.set_xlim(last + 1.6, -0.6)  # best at the right
    axes.set_ylim(-1.2 - 0.35 * len(bars) - 0.75 * half, 1.9)
    axes.plot([1, last], [0, 0], color=INK, linewidth=0.9, solid_capstyle="projecting")
    for tick in range(1, last + 1):
        axes.plot([tick, tick], [0, 0.22], color=INK, linewidth=0.9)
        axes.text(tick, 0.32, str(tick), ha="center", va="bottom")
    axes.plot([last, last - width], [1.35, 1.35], color=SOFT, linewidth=1.2, marker="|", markersize=5)
    axes.text(last - width / 2, 1.45, f"critical difference {number(width, 2)}", ha="center", va="bottom", color=SOFT)
    for line, (first, final) in enumerate(bars):
        y = -0.35 - 0.35 * line
        axes.plot(
            [ranks[first] - 0.06, ranks[final] + 0.06], [y, y], color="#9a9a9a", linewidth=3.2, solid_capstyle="butt"
        )
    for place, (method, rank) in enumerate(found.items()):
        right = place < half
        height = -0.95 - 0.35 * len(bars) - 0.75 * (place if right else last - 1 - place)
        end = 0.6 if right else last + 0.4
        drawn = look(method)
        axes.plot([rank, rank, end], [0, height, height], color=drawn.colour, linewidth=1.0)
        axes.plot(rank, 0, drawn.marker, color=drawn.colour, markersize=4.5, clip_on=False)
        text = f"{name(label(method))}  {number(rank, 2)}"
        axes.text(end + (-0.06 if right else 0.06), height, text, ha="left" if right else "right", va="center")
