"""The ablation table: every variant of a method against its full form, on the seeds that both have."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from baselines import CLCR_VARIANTS
from benchmarks.report.collect import FULL, OURS, Collected, Group, Row, label
from benchmarks.report.compare import Contrast, contrasts, declared_test, in_words, needed_text
from benchmarks.report.layout import (
    DASH,
    DATA,
    Cell,
    Section,
    Table,
    about,
    count,
    heading,
    interval,
    lacks,
    mean_sd,
    name_of,
    p_text,
    shown,
    signed,
)
from benchmarks.report.published import Published, comparable
from benchmarks.report.tables import identity, summary

INTRO = (
    "Mean ± standard deviation over seeds (number of runs) of the main metric; the full form is shown on the seeds "
    "that its variants have. Differences are variant minus full.",
    "Published differences are between single printed numbers whose noise is unknown; they stand beside real data "
    "under a comparable protocol and a profile that follows the paper, nowhere else.",
)


def ablation_table(collected: Collected, published: Published) -> Table:
    """One section per method with variants, per benchmark, protocol and profile."""
    parts: dict[str, tuple[Section, ...]] = {}
    rows: list[dict[str, object]] = []
    for data in DATA:
        sections = []
        for group in collected.of(data):
            for method in sorted({m for m, v in group.tried if v != FULL}, key=group.method_order):
                found = family(group, method)
                sections.append(_section(group, method, found, published))
                rows.append({**identity(group, found[0].b), **summary(found[0].metric, _full_values(group, found))})
                rows += [_csv_row(group, contrast, published) for contrast in found]
        parts[data] = tuple(sections)
    empty = {"real": "No variants were run on real data.", "twin": "No variants were run on twins."}
    return Table("ablation", "Ablations", INTRO, parts, pd.DataFrame(rows), empty)


def family(group: Group, method: str) -> list[Contrast]:
    """All variants that were tried, in the paper's order, against the full form on the main metric: one family."""
    rows = sorted((row for row in group.tried if row[0] == method and row[1] != FULL), key=group.row_order)
    return contrasts(group, group.spec.main_metric, [(row, (method, FULL)) for row in rows])


def _section(group: Group, method: str, found: Sequence[Contrast], published: Published) -> Section:
    metric = group.spec.main_metric
    beside = comparable(published, group) if method == OURS else {}
    titles = ["Variant", heading(metric), "Difference [95 % interval]", "p", "p (Holm)", "Seeds needed"]
    top = [FULL, mean_sd(metric, _full_values(group, found)), DASH, DASH, DASH, DASH]
    rows = [top, *(_texts(group, contrast) for contrast in found)]
    if beside:
        titles += ["Published", "Published difference"]
        for row in rows:
            row += _published(beside.get((row[0], metric)), beside.get((FULL, metric)), metric)
    test = (
        f"Test: {declared_test(group)}, each variant against the full form. Family: the "
        f"{count(len(found), 'comparison')} of this table; correction: Holm."
    )
    words = in_words(
        found, [c.a[1] for c in found], "significantly better than the full form are", "significantly worse are"
    )
    return Section(
        f"{label(method)}: {name_of(group)}",
        tuple(titles),
        tuple(tuple(Cell(text) for text in row) for row in rows),
        (*about(group), test),
        (*words, *_untried(method, found), *lacks(group, True)),
    )


def _full_values(group: Group, found: Sequence[Contrast]) -> list[float]:
    """The full form on the seeds that any of its variants has."""
    seeds = {seed for contrast in found for seed in contrast.seeds}
    return [value for seed, value in group.values(found[0].b, found[0].metric).items() if seed in seeds]


def _untried(method: str, found: Sequence[Contrast]) -> tuple[str, ...]:
    tried = {contrast.a[1] for contrast in found} | {FULL}
    absent = [variant for variant in CLCR_VARIANTS if variant not in tried] if method == OURS else []
    return (f"Not run here: {', '.join(absent)}.",) if absent else ()


def _texts(group: Group, contrast: Contrast) -> list[str]:
    metric = contrast.metric
    first = [contrast.a[1], mean_sd(metric, list(group.values(contrast.a, metric).values()))]
    test = contrast.test
    if test is None:
        return [*first, DASH, DASH, DASH, DASH]
    gap = f"{signed(metric, test.difference)} {interval(metric, test.low, test.high)}"
    return [*first, gap, p_text(test.p), p_text(contrast.p_holm), needed_text(contrast)]


def _published(value: float | None, full: float | None, metric: str) -> list[str]:
    if value is None:
        return [DASH, DASH]
    gap = DASH if full is None or value == full else signed(metric, value - full)
    return [shown(metric, value), gap]


def _csv_row(group: Group, contrast: Contrast, published: Published) -> dict[str, object]:
    row: Row = contrast.a
    metric, test = contrast.metric, contrast.test
    beside = comparable(published, group) if row[0] == OURS else {}
    value, full = beside.get((row[1], metric)), beside.get((FULL, metric))
    return {
        **identity(group, row),
        **summary(metric, list(group.values(row, metric).values())),
        "pairs": len(contrast.seeds),
        "difference": test.difference if test else None,
        "low": test.low if test else None,
        "high": test.high if test else None,
        "p": test.p if test else None,
        "p_holm": contrast.p_holm if test else None,
        "correlation": test.correlation if test else None,
        "detectable": contrast.detectable if test else None,
        "seeds_needed": contrast.needed,
        "family": contrast.family,
        "published": value,
        "published_difference": None if value is None or full is None else value - full,
    }
