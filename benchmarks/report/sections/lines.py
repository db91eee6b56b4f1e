"""Scores along an axis, one panel a data set: means over seeds with their 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from benchmarks.drawing import Look, keys, page, title
from benchmarks.metrics import METRICS
from benchmarks.report.collect import Group
from benchmarks.report.compare import per_unit
from benchmarks.report.figures.sheet import describe, scale
from benchmarks.report.statistics import ALPHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEANS = (
    "Points: means over seeds with their 95 % interval (t), not corrected for what is compared; tests: see the table."
)
PER_LINE = 5  # names in a line of the legend


@dataclass(frozen=True)
class Line:
    """One line: what it shows, how it looks, its points (x, values by seed). joined: whether the points are a curve."""

    name: str
    look: Look
    points: tuple[tuple[float, Mapping[int, float]], ...]
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """One data set and its lines."""

    group: Group
    lines: tuple[Line, ...]


def draw(panels: Sequence[Panel], text: str, axis: str, notes: Sequence[str] = (), log: bool = False) -> Figure:
    """All panels under one legend. axis: what x is."""
    looks = {line.name: line.look for panel in panels for line in panel.lines}
    legend = 0.2 * ceil(len(looks) / PER_LINE) + 0.12
    several = min(2, len(panels))
    rows = ceil(len(panels) / several)
    figure = page(legend + 1.9 * rows)
    grid = figure.subplots(rows + 1, several, squeeze=False, height_ratios=[legend, *[1.9] * rows])
    for axes in grid[0]:
        axes.set_axis_off()
    handles = keys(looks)
    shown = grid[0][0].legend(handles=handles, loc="upper left", ncols=PER_LINE, borderpad=0, columnspacing=1.2,
                              bbox_to_anchor=(-0.1, 1.0))  # fmt: skip
    shown.set_in_layout(False)
    flat = [axes for line in grid[1:] for axes in line]
    for axes in flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(flat, panels, strict=False):
        _panel(axes, panel, log)
        axes.set_xlabel(axis)
    title(figure, text, (MEANS, *notes))
    return figure


def _panel(axes: Axes, panel: Panel, log: bool) -> None:
    name = panel.group.spec.main_metric
    metric, factor = METRICS[name], scale(name)
    seeds = set()
    for line in panel.lines:
        places, means = [], []
        for x, values in line.points:
            mean, half = centre(panel.group, values)
            axes.plot([x, x], [factor * (mean - half), factor * (mean + half)], color=line.look.colour, linewidth=0.9)
            places.append(x)
            means.append(factor * mean)
            seeds |= set(values)
        axes.plot(places, means, line.look.marker, color=line.look.colour, markersize=4.5,
                  linestyle=line.look.dash if line.joined else "", linewidth=line.look.width)  # fmt: skip
    if log:
        ticks = sorted({x for line in panel.lines for x, _ in line.points})
        axes.set_xscale("log")
        axes.set_xticks(ticks, labels=[f"{x:g}" for x in ticks])
        axes.minorticks_off()
    if metric.direction == "min":
        axes.invert_yaxis()
    unit = f" ({metric.unit})" if metric.unit else ""
    axes.set_ylabel(f"{metric.title}{unit}, better ↑", fontsize=7)
    axes.grid(axis="both")
    describe(axes, panel.group, sorted(seeds))


def centre(group: Group, values: Mapping[int, float]) -> tuple[float, float]:
    """Mean of the values by seed (or by arrangement) and half of its 95 % interval, 0 for one value."""
    found = np.array(list(per_unit(group, values).values()))
    if len(found) < 2:
        return float(found.mean()), 0.0
    quantile = -float(special.stdtrit(len(found) - 1, ALPHA / 2))
    return float(found.mean()), quantile * float(found.std(ddof=1)) / sqrt(len(found))
