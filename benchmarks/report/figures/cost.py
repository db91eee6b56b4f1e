"""Cost against score: time of a run and parameters, with the methods that no other one beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.drawing import INK, SOFT, Look, keys, look, page, plain_log, title
from benchmarks.metrics import METRICS
from benchmarks.report.collect import FULL, Group, label
from benchmarks.report.costs import Cost, costs_of
from benchmarks.report.figures.sheet import Sheet, describe, scale
from benchmarks.report.tables import overview_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]
KEYS = 5  # columns of the legend


def draw(sheet: Sheet) -> Figure | None:
    """Two panels a group: seconds a run, and parameters, against the mean of the main metric."""
    kept = sheet.only([group for group in sheet.groups if _costs(group)])
    if not kept.groups:
        return None
    looks = merged_looks({m for group in kept.groups for m in _costs(group)})
    legend = 0.2 * ceil(len(looks) / KEYS) + 0.12
    figure = page(1.8 * len(kept.groups) + legend)
    heights = [legend, *[1.75] * len(kept.groups)]
    grid = figure.subplots(len(kept.groups) + 1, 2, squeeze=False, height_ratios=heights, sharey="row")
    for axes in grid[0]:
        axes.set_axis_off()
    shown = grid[0][0].legend(
        handles=keys(looks), loc="upper left", ncols=KEYS, bbox_to_anchor=(-0.16, 1.0), borderpad=0, columnspacing=1.2
    )
    shown.set_in_layout(False)
    for line, group in zip(grid[1:], kept.groups, strict=True):
        costs = _costs(group)
        panel(line[0], group, {m: cost.time_s_mean for m, cost in costs.items()}, "time of a run (s)")
        panel(line[1], group, {m: cost.n_parameters for m, cost in costs.items()}, "trained parameters")
        metric = METRICS[group.spec.main_metric]
        unit = f" ({metric.unit})" if metric.unit else ""
        line[0].set_ylabel(f"{metric.title}{unit}, better ↑", fontsize=7)
        describe(line[0], group)
    devices = sorted({cost.device for group in kept.groups for cost in _costs(group).values()})
    notes = (
        "Points: means over seeds of full variants; whiskers: ± one standard deviation of the score. Line: Pareto "
        "front, methods that no other one beats in both; means alone, no test is made here.",
        f"Device: {', '.join(devices)}. Times compare only between runs on the same idle device; seeds that trained "
        "together share their program's time in equal parts.",
    )
    title(figure, kept.heading("Cost against score"), kept.notes(*notes))
    return figure


def merged_looks(methods: set[str]) -> dict[str, Look]:
    """Label -> look of methods; modalities alone that look alike share a label."""
    found: dict[Look, list[str]] = {}
    for method in sorted(methods, key=overview_order):
        found.setdefault(look(method), []).append(label(method))
    return {_merged(labels): drawn for drawn, labels in found.items()}


def _merged(labels: list[str]) -> str:
    first, *others = labels
    parts = [first.removesuffix(")"), *(text.rpartition("(")[2].removesuffix(")") for text in others)]
    return ", ".join(parts) + ")" if others else first


def _costs(group: Group) -> dict[str, Cost]:
    """What the full variants with results cost."""
    return {m: cost for (m, v), cost in costs_of(group) if v == FULL and group.values((m, v), group.spec.main_metric)}


def front(points: Sequence[Point], highest: bool) -> list[int]:
    """Which (cost, score) no other point beats in both (at least equal in both, better in one), by rising cost."""
    sign = 1 if highest else -1
    best, found = -np.inf, list[int]()
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1])):
        score = sign * points[i][1]
        if score > best or (found and points[i] == points[found[-1]]):
            found.append(i)
            best = score
    return found


def panel(axes: Axes, group: Group, cost: Mapping[str, float], what: str) -> None:
    """Main metric against a cost by method, with the Pareto front."""
    metric = group.spec.main_metric
    factor, highest = scale(metric), METRICS[metric].direction == "max"
    points = []
    for method, x in cost.items():
        values = factor * np.array(list(group.values((method, FULL), metric).values()))
        points.append((x, float(values.mean())))
        drawn = look(method)
        if len(values) > 1:
            sd = float(values.std(ddof=1))
            axes.plot([x, x], [values.mean() - sd, values.mean() + sd], color=drawn.colour, linewidth=0.9)
        axes.plot(x, values.mean(), drawn.marker, color=drawn.colour, markersize=6, markeredgecolor=INK,
                  markeredgewidth=0.5, zorder=3)  # fmt: skip
    best = [points[i] for i in front(points, highest)]
    axes.step(*zip(*best, strict=True), where="post", color=SOFT, linewidth=0.8, zorder=1)
    if all(x > 0 for x, _ in points):
        plain_log(axes, "x")
    if not highest and not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.set_xlabel(what)
    axes.grid(axis="both")
