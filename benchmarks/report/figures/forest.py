"""Forest plot: CLCR minus each rival, paired by seed, with what Holm's correction leaves of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.drawing import INK, SOFT, look, rows, title
from benchmarks.metrics import METRICS
from benchmarks.report.collect import Group, label
from benchmarks.report.compare import Contrast, against_ours
from benchmarks.report.figures.sheet import Sheet, better_right, describe, panels, scale
from benchmarks.report.layout import p_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(sheet: Sheet) -> Figure | None:
    """One panel a group: the family of the main metric, as in the table of significance."""
    found = {group.key: against_ours(group, group.spec.main_metric) for group in sheet.groups}
    kept = sheet.only([group for group in sheet.groups if found[group.key]])
    if not kept.groups:
        return None
    figure, axes = panels(kept, 0.75, rows_of=lambda group: len(found[group.key]))
    for one, group in zip(axes, kept.groups, strict=True):
        _panel(one, group, found[group.key])
    notes = (
        "Mean difference of the main metric with its 95 % interval; test: paired t by seed, two-sided, level 0.05. "
        "Filled: significant after Holm's correction over the family, which is the panel; open: undecided, which "
        "shows no equality.",
        sizes((group, list(found[group.key].values())) for group in kept.groups),
    )
    title(figure, kept.heading("CLCR against each other method"), kept.notes(*notes))
    return figure


def _panel(axes: Axes, group: Group, found: Mapping[str, Contrast]) -> None:
    metric = group.spec.main_metric
    factor = scale(metric)
    axes.axvline(0, color=SOFT, linewidth=0.8)
    for place, (method, contrast) in enumerate(found.items()):
        test, drawn = contrast.test, look(method)
        corrected(axes, place, contrast)
        if test is None:
            continue
        filled = drawn.colour if contrast.better else "white"
        axes.plot([factor * test.low, factor * test.high], [place, place], color=drawn.colour, linewidth=1.6)
        axes.plot(factor * test.difference, place, drawn.marker, markersize=5.5, color=drawn.colour,
                  markerfacecolor=filled, markeredgewidth=1.1)  # fmt: skip
    rows(axes, [label(method) for method in found])
    better_right(axes, metric)
    ends(axes, group, "CLCR")
    describe(axes, group, sorted({seed for contrast in found.values() for seed in contrast.seeds}))


def sizes(found: Iterable[tuple[Group, Sequence[Contrast]]]) -> str:
    """How many comparisons were corrected together in each panel, by the method they belong to, in words."""
    told = []
    for group, some in found:
        families = {contrast.a[0]: contrast.family for contrast in some if contrast.test}
        told.append(f"{group.spec.title} {group.key.protocol} {' + '.join(map(str, families.values())) or 'none'}")
    return f"Comparisons in a family: {'; '.join(told)}."


def corrected(axes: Axes, place: int, contrast: Contrast) -> None:
    """Right of a row, its p after correction."""
    note = p_text(contrast.p_holm) if contrast.test else "not tested"
    axes.text(1.015, place, note, transform=axes.get_yaxis_transform(), va="center", fontsize=6.8, color=INK)


def ends(axes: Axes, group: Group, who: str) -> None:
    """What the axis shows, and what its two ends mean; and a head for the column of ``corrected``."""
    metric = METRICS[group.spec.main_metric]
    unit = " (points)" if metric.unit == "%" else ""
    axes.set_xlabel(f"{metric.title} difference{unit}\n← {who} worse · {who} better →", fontsize=7)
    axes.annotate("p (Holm)", (1, 1), xycoords="axes fraction", xytext=(2, 4), textcoords="offset points",
                  fontsize=6.2, color=SOFT)  # fmt: skip
