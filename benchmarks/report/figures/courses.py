"""Learning curves: what selected the epoch and the loss, epoch by epoch, and the epochs that were selected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.curves import Curve, best_epoch
from benchmarks.drawing import look, page, plain_log, rows, title
from benchmarks.metrics import METRICS
from benchmarks.report.collect import FULL, Group, label
from benchmarks.report.figures.sheet import Sheet, describe, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = dict[str, list[Curve]]
SPLITS = {"valid": "validation", "test": "TEST"}


def draw(sheet: Sheet) -> Figure | None:
    """Three panels a group: metric of selection, selected epochs, loss; None where there are no curves."""
    found = {group.key: _curves(sheet, group) for group in sheet.groups}
    kept = sheet.only([group for group in sheet.groups if found[group.key]])
    if not kept.groups:
        return None
    figure = page(1.9 * len(kept.groups))
    grid = figure.subplots(len(kept.groups), 3, squeeze=False, width_ratios=(1.0, 0.85, 1.0))
    for line, group in zip(grid, kept.groups, strict=True):
        _metric(line[0], group, found[group.key])
        _selected(line[1], found[group.key])
        _loss(line[2], found[group.key])
    notes = (
        "Full variants. Lines: mean over seeds and folds, up to the epoch that all of them reached; bands: ± one "
        "standard deviation of them. Middle, the legend too: how often an epoch was selected (area: share of the runs "
        "and folds; the first of equally good epochs is taken).",
        "Loss: mean over training samples of the sum of a method's own losses: levels do not compare between methods. "
        "No test is made here.",
    )
    title(figure, kept.heading("Learning curves"), kept.notes(*notes))
    return figure


def _curves(sheet: Sheet, group: Group) -> Curves:
    found = {}
    for method in group.methods:
        seeds = sorted(group.values((method, FULL), group.spec.main_metric))
        some = [curve for seed in seeds if (curve := sheet.files.curve(group, method, seed)) is not None]
        if some:
            found[method] = some
    return found


def _band(axes: Axes, method: str, courses: Sequence[Sequence[float]]) -> None:
    """Mean and standard deviation of several courses (epochs,), as far as the shortest goes."""
    values = np.array([course[: min(map(len, courses))] for course in courses])
    epochs = np.arange(1, values.shape[1] + 1)
    mean, drawn = values.mean(axis=0), look(method)
    axes.plot(epochs, mean, color=drawn.colour, linestyle=drawn.dash, linewidth=drawn.width)
    if len(values) > 1:
        sd = values.std(axis=0, ddof=1)
        axes.fill_between(epochs, mean - sd, mean + sd, color=drawn.colour, alpha=0.13, linewidth=0)


def _metric(axes: Axes, group: Group, found: Curves) -> None:
    first = next(iter(found.values()))[0]
    factor = scale(first.metric)
    for method, some in found.items():
        _band(axes, method, [[factor * x for x in fold.score] for curve in some for fold in curve.folds])
    metric = METRICS[first.metric]
    unit = f" ({metric.unit})" if metric.unit else ""
    axes.set_ylabel(
        f"{SPLITS.get(first.split, first.split)}\n{metric.title}{unit} {'↑' if metric.direction == 'max' else '↓'}"
    )
    _epochs(axes, "epoch")
    axes.grid(axis="y")
    describe(axes, group)


def _selected(axes: Axes, found: Curves) -> None:
    """For each method the epochs selected, as areas."""
    longest = 1
    for place, (method, some) in enumerate(found.items()):
        folds = [fold for curve in some for fold in curve.folds]
        chosen = Counter(best_epoch(some[0].metric, fold.score) for fold in folds)
        longest = max(longest, *(len(fold.score) for fold in folds))
        drawn = look(method)
        axes.axhline(place, color=drawn.colour, linestyle=drawn.dash, linewidth=0.7 * drawn.width, alpha=0.8)
        area = [95 * chosen[epoch] / len(folds) + 1.5 for epoch in sorted(chosen)]
        axes.scatter(sorted(chosen), [place] * len(chosen), s=area, color=drawn.colour, linewidths=0, zorder=3)
    rows(axes, [label(method) for method in found])
    axes.set_xlim(0.3, longest + 0.7)
    _epochs(axes, "selected epoch")


def _loss(axes: Axes, found: Curves) -> None:
    lowest = min(x for some in found.values() for curve in some for fold in curve.folds for x in fold.loss)
    for method, some in found.items():
        _band(axes, method, [fold.loss for curve in some for fold in curve.folds])
    if lowest > 0:
        plain_log(axes, "y")
    axes.set_ylabel("training loss")
    _epochs(axes, "epoch")
    axes.grid(axis="y")


def _epochs(axes: Axes, text: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(text)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
