"""Ablation bars: each variant minus the full form of its method, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.drawing import INK, SOFT, look, rows, title
from benchmarks.report.ablation import family
from benchmarks.report.collect import FULL, Group, label
from benchmarks.report.compare import Contrast
from benchmarks.report.figures.forest import corrected, ends, sizes
from benchmarks.report.figures.sheet import Sheet, better_right, describe, panels, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(sheet: Sheet) -> Figure | None:
    """One panel a group: the families of the table of ablations; None where no variant was run."""
    found = {group.key: _contrasts(group) for group in sheet.groups}
    kept = sheet.only([group for group in sheet.groups if found[group.key]])
    if not kept.groups:
        return None
    figure, axes = panels(kept, 0.75, rows_of=lambda group: len(found[group.key]))
    for one, group in zip(axes, kept.groups, strict=True):
        _panel(one, group, found[group.key])
    notes = (
        "Bars: mean difference of the main metric, with its 95 % interval; test: paired t by seed, two-sided, level "
        "0.05, on the seeds that both have. Dark: significant after Holm's correction over the family, all variants of "
        "one method in one panel; light: undecided, which shows no equality.",
        sizes((group, found[group.key]) for group in kept.groups),
    )
    title(figure, kept.heading("Ablations: variant minus full form"), kept.notes(*notes))
    return figure


def _contrasts(group: Group) -> list[Contrast]:
    methods = sorted({m for m, v in group.tried if v != FULL}, key=group.method_order)
    return [contrast for method in methods for contrast in family(group, method)]


def _panel(axes: Axes, group: Group, found: list[Contrast]) -> None:
    metric = group.spec.main_metric
    factor = scale(metric)
    for place, contrast in enumerate(found):
        test, colour = contrast.test, look(contrast.a[0]).colour
        corrected(axes, place, contrast)
        if test is None:
            continue
        axes.barh(place, factor * test.difference, 0.62, color=colour, alpha=0.95 if contrast.better else 0.35)
        axes.plot([factor * test.low, factor * test.high], [place, place], color=INK, linewidth=0.9)
    axes.axvline(0, color=SOFT, linewidth=0.8)
    several = len({contrast.a[0] for contrast in found}) > 1
    rows(axes, [f"{label(c.a[0])}: {c.a[1]}" if several else c.a[1] for c in found])
    better_right(axes, metric)
    ends(axes, group, "variant")
    describe(axes, group, sorted({seed for contrast in found for seed in contrast.seeds}))
