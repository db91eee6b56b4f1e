"""Learning curves of several settings beside each other, from the committed curves of runs and of studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import curves
from benchmarks.curves import Curve
from benchmarks.drawing import Look, keys, page, title
from benchmarks.metrics import METRICS
from benchmarks.report.collect import Group
from benchmarks.report.figures.sheet import describe, scale
from benchmarks.report.sections.data import Data, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = (
    "Lines: mean over seeds and folds of the metric that selects the epoch, on validation data, up to the epoch that "
    "all of them reached; bands: ± one standard deviation of them. No test is made here."
)


@dataclass(frozen=True)
class Course:
    """The curves of one setting."""

    name: str
    look: Look
    curves: Sequence[Curve]


def courses_of(data: Data, place: str, source: Source) -> list[Curve]:
    """The committed curves of a source's runs; none where there are none."""
    found = []
    for record in data.records_of(place, source):
        curve = data.curves(record.key.benchmark).get(curves.identity(record))
        found += [curve] if curve else []
    return found


def draw(panels: Sequence[tuple[Group, str, Sequence[Course]]], text: str) -> Figure:
    """One panel for each (data set, name, courses), two beside each other, under one legend."""
    looks = {course.name: course.look for _, _, courses in panels for course in courses}
    lines = ceil(len(panels) / 2)
    figure = page(0.32 + 1.8 * lines)
    grid = figure.subplots(lines + 1, 2, squeeze=False, height_ratios=[0.32, *[1.8] * lines])
    for axes in grid[0]:
        axes.set_axis_off()
    shown = grid[0][0].legend(handles=keys(looks), loc="upper left", ncols=5, borderpad=0, bbox_to_anchor=(-0.1, 1.0))
    shown.set_in_layout(False)
    flat = [axes for line in grid[1:] for axes in line]
    for axes in flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (group, name, courses) in zip(flat, panels, strict=False):
        _panel(axes, courses)
        axes.set_ylabel(f"{name}\n{axes.get_ylabel()}", fontsize=7)
        describe(axes, group)
    title(figure, text, (NOTE,))
    return figure


def _panel(axes: Axes, courses: Sequence[Course]) -> None:
    metric = METRICS[courses[0].curves[0].metric]
    for course in courses:
        folds = [fold.score for curve in course.curves for fold in curve.folds]
        values = scale(metric.name) * np.array([score[: min(map(len, folds))] for score in folds])
        epochs, mean = np.arange(1, values.shape[1] + 1), values.mean(axis=0)
        drawn = course.look
        axes.plot(epochs, mean, color=drawn.colour, linestyle=drawn.dash, linewidth=drawn.width)
        if len(values) > 1:
            sd = values.std(axis=0, ddof=1)
            axes.fill_between(epochs, mean - sd, mean + sd, color=drawn.colour, alpha=0.13, linewidth=0)
    if metric.direction == "min":
        axes.invert_yaxis()
    unit = f" ({metric.unit})" if metric.unit else ""
    axes.set_xscale("log")
    from matplotlib.ticker import NullLocator

    longest = max(len(fold.score) for course in courses for curve in course.curves for fold in curve.folds)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200) if tick <= longest]
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{metric.title}{unit}, better ↑")
    axes.grid(axis="y")
