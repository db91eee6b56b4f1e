"""Seed strips: every run is a dot, every method has its mean and the t interval of that mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.drawing import INK, SOFT, look, rows, title
from benchmarks.report.collect import FULL, Group, label
from benchmarks.report.figures.sheet import Sheet, better, better_right, describe, panels, scale
from benchmarks.report.statistics import paired_t

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MEAN = 0.14  # of a row, below its middle; the dots lie above it


def draw(sheet: Sheet) -> Figure | None:
    """One panel a group: main metric of all methods' full variants."""
    figure, axes = panels(sheet, 0.75, rows_of=lambda group: 1.15 * len(group.methods))
    for one, group in zip(axes, sheet.groups, strict=True):
        _panel(one, group)
    notes = [
        "Each dot is one run (seed); diamond and bar below: mean and its 95 % t interval over seeds, what repeating "
        "the training would change. No test is made here: overlapping intervals conclude nothing, see the forest plot."
    ]
    if any(group.ceiling for group in sheet.groups):
        notes.append("Dashed: the best score that can be reached, known for a twin.")
    title(figure, sheet.heading("Scores by seed"), sheet.notes(*notes))
    return figure


def _panel(axes: Axes, group: Group) -> None:
    metric = group.spec.main_metric
    factor = scale(metric)
    for place, method in enumerate(group.methods):
        values = [factor * value for _, value in sorted(group.values((method, FULL), metric).items())]
        found = look(method)
        above = [place - 0.32 + 0.2 * i / len(values) for i in range(len(values))]
        axes.plot(values, above, "o", color=found.colour, markersize=2.8, markeredgewidth=0)
        mean = sum(values) / len(values) if values else 0.0
        if len(values) > 1:
            known = paired_t(values, [0.0] * len(values))
            axes.plot([known.low, known.high], [place + MEAN] * 2, color=INK, linewidth=1.1, solid_capstyle="butt")
        if values:
            axes.plot(
                mean, place + MEAN, "D", color=found.colour, markeredgecolor=INK, markeredgewidth=0.7, markersize=4.4
            )
    if metric in group.ceiling:
        axes.axvline(factor * group.ceiling[metric], color=SOFT, linestyle=(0, (4, 2)), linewidth=0.9)
    rows(axes, [label(method) for method in group.methods])
    axes.set_xlabel(better(metric))
    better_right(axes, metric)
    describe(axes, group)
