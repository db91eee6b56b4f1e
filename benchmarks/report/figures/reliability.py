"""Reliability diagrams (Niculescu-Mizil and Caruana, ICML 2005) of class scores, with their calibration error."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.drawing import SOFT, look, name, page, title
from benchmarks.report.calibration import BINS, Reliability, reliability, together
from benchmarks.report.collect import FULL, Group, label
from benchmarks.report.figures.sheet import Sheet, caption
from benchmarks.report.layout import number, ranges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FEW = 10  # samples in a bin, below which its accuracy says little


def draw(sheet: Sheet) -> Figure | None:
    """A row of panels a group, a panel a method; None without classification or without predictions."""
    found = {g.key: _runs(sheet, g) for g in sheet.groups if g.spec.task == "classification"}
    kept = sheet.only([group for group in sheet.groups if found.get(group.key)])
    if not kept.groups:
        return None
    columns = max(len(found[group.key]) for group in kept.groups)
    figure = page(1.4 * len(kept.groups) + 0.15, gap=0.02)
    grid = figure.subplots(len(kept.groups), columns, squeeze=False, sharex=True, sharey=True)
    for line, group in zip(grid, kept.groups, strict=True):
        for axes, (method, runs) in zip(line, found[group.key].items(), strict=False):
            _panel(axes, method, runs)
        for axes in line[len(found[group.key]) :]:
            axes.set_axis_off()
        line[0].set_ylabel(f"{_short(group)}\naccuracy", fontsize=6.6)
    for axes in grid[-1]:
        axes.set_xlabel("confidence", fontsize=6.6)
    notes = (
        "Test predictions of full variants, by confidence (probability of the predicted class, softmax of the scores) "
        f"in {BINS} bins of equal width; dots: all runs pooled, areas by number of samples, open "
        f"and not joined below {FEW}; below the diagonal: too confident.",
        "ECE: expected calibration error of one run (Naeini et al. 2015, Guo et al. 2017), mean ± standard deviation "
        "over seeds, in points; biased upwards where bins hold few samples. No test is made here. Test samples: "
        + "; ".join(f"{g.spec.title} {_samples(found[g.key])}" for g in kept.groups)
        + ".",
    )
    title(figure, kept.heading("Reliability of class scores"), kept.notes(*notes))
    return figure


def _short(group: Group) -> str:
    first, second = caption(group).split("\n")
    return "\n".join(textwrap.wrap(f"{first}, {second}", 22))


def _samples(runs: dict[str, list[Reliability]]) -> str:
    return ranges(sorted({int(run.counts.sum()) for some in runs.values() for run in some}))


def _runs(sheet: Sheet, group: Group) -> dict[str, list[Reliability]]:
    found = {}
    for method in group.methods:
        some = []
        for seed in sorted(group.values((method, FULL), group.spec.main_metric)):
            arrays = sheet.files.predictions(group, method, seed)
            if arrays is not None:
                some.append(reliability(np.asarray(arrays["prediction"]), np.asarray(arrays["target"])))
        if some:
            found[method] = some
    return found


def _panel(axes: Axes, method: str, runs: list[Reliability]) -> None:
    pooled = together(runs)
    filled, sure = pooled.counts > 0, pooled.counts >= FEW
    drawn = look(method)
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.7, linestyle=(0, (3, 2)))
    axes.plot(pooled.confidence[sure], pooled.accuracy[sure], color=drawn.colour, linewidth=1.1)
    for kept, face in ((sure, drawn.colour), (filled & ~sure, "white")):
        area = 110 * pooled.counts[kept] / pooled.counts.sum() + 4
        axes.scatter(pooled.confidence[kept], pooled.accuracy[kept], s=area, facecolor=face, edgecolor=drawn.colour,
                     linewidths=0.6, zorder=3, clip_on=False)  # fmt: skip
    errors = [100 * run.ece for run in runs]
    spread = f" ± {number(float(np.std(errors, ddof=1)), 1)}" if len(errors) > 1 else ""
    axes.set(xlim=(-0.06, 1.06), ylim=(-0.06, 1.06), aspect="equal")
    axes.set_xticks((0, 0.5, 1), labels=("0", "0.5", "1"))
    axes.set_yticks((0, 0.5, 1), labels=("0", "0.5", "1"))
    error = f"ECE {number(float(np.mean(errors)), 1)}{spread}"
    axes.set_title(f"{name(label(method), 18)}\n{error}", fontsize=6.6, fontweight="normal", loc="center", pad=3)
