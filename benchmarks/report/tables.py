"""The main table and its overview, as sections of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from baselines import METHODS
from benchmarks.metrics import METRICS
from benchmarks.report.collect import FULL, OURS, Collected, Group, GroupKey, Row, label, row_name
from benchmarks.report.compare import Contrast, against_ours, declared_test, families, in_words
from benchmarks.report.layout import (
    DASH,
    DATA,
    KINDS,
    LOSES,
    WINS,
    Cell,
    Section,
    Table,
    about,
    heading,
    lacks,
    listed,
    mean_sd,
    name_of,
    shown,
)

Marks = Mapping[str, Mapping[str, Contrast]]
COMMIT = 12  # digits shown
BETTER, WORSE = "CLCR is significantly better than", "CLCR is significantly worse than"
INTRO = (
    "Mean ± standard deviation over seeds (number of runs); best mean in bold, which says nothing about significance.",
    "Intervals and tests are over seeds: they say what repeating the training would change, not what other test data "
    "would.",
)


def main_table(collected: Collected) -> Table:
    """Every method on every metric, one section per benchmark, protocol and profile; an overview before them."""
    families = {group.key: _families(group) for group in collected.groups}
    parts = {
        data: (
            *_overviews(collected.of(data), families),
            *(_main_section(group, families[group.key]) for group in collected.of(data)),
        )
        for data in DATA
    }
    rows = [row for group in collected.groups for row in _main_rows(group, families[group.key])]
    return Table("main", "Main results", INTRO, parts, pd.DataFrame(rows))


def _families(group: Group) -> Marks:
    """Per metric, CLCR against each rival: one family each."""
    return {metric: against_ours(group, metric) for metric in group.spec.metrics}


def _main_section(group: Group, families: Marks) -> Section:
    metrics = group.spec.metrics
    columns = [_column(group, metric, families[metric]) for metric in metrics]
    rows = [(Cell(label(m)), *(column[m] for column in columns)) for m in group.methods]
    if group.ceiling:
        best = (shown(m, group.ceiling[m]) if m in group.ceiling else DASH for m in metrics)
        rows.append((Cell("Best reachable (known)"), *(Cell(text) for text in best)))
    found = families[group.spec.main_metric]
    words = in_words(list(found.values()), [label(m) for m in found], BETTER, WORSE)
    return Section(
        name_of(group),
        ("Method", *(heading(metric) for metric in metrics)),
        tuple(rows),
        (*about(group), *_declared(group, found)),
        (*words, *_absent(group), *_external(group), *lacks(group, False)),
    )


def _column(group: Group, metric: str, found: Mapping[str, Contrast]) -> dict[str, Cell]:
    """One metric over the methods, with the best in bold and the marks of its family."""
    values = {m: list(group.values((m, FULL), metric).values()) for m in group.methods}
    best = best_of(metric, values)
    return {m: Cell(mean_sd(metric, v) + mark(found.get(m)), m in best) for m, v in values.items()}


def best_of(metric: str, values: Mapping[str, Sequence[float]]) -> set[str]:
    """The methods with the best mean; none where there is nothing to compare."""
    means = {name: float(np.mean(v)) for name, v in values.items() if v}
    if len(means) < 2:
        return set()
    best = (max if METRICS[metric].direction == "max" else min)(means.values())
    return {name for name, mean in means.items() if mean == best}


def mark(contrast: Contrast | None) -> str:
    """The mark of a rival's cell: CLCR significantly better, or significantly worse."""
    return {1: f" {WINS}", -1: f" {LOSES}"}.get(contrast.better if contrast else 0, "")


def _declared(group: Group, found: Mapping[str, Contrast]) -> tuple[str, ...]:
    """Test, family and correction, declared before the numbers."""
    if not group.values((OURS, FULL), group.spec.main_metric):
        return ("CLCR has no result here: nothing is compared.",)
    main = METRICS[group.spec.main_metric].title
    return (
        f"Test: {declared_test(group)}, CLCR against each other row. Family: the "
        f"{families(group, found)} of one metric in this table; correction: Holm. "
        f"{WINS} CLCR is significantly better than this row, {LOSES} significantly worse. What is concluded rests on "
        f"the main metric, {main}; marks of other metrics are families of their own.",
    )


def _absent(group: Group) -> tuple[str, ...]:
    """Methods of the suite that were not run in this group at all."""
    names = [row.label for row in METHODS.values() if row.name not in map(row_name, group.methods)]
    return (f"Not run here: {listed(names)}.",) if names else ()


def _external(group: Group) -> tuple[str, ...]:
    """Where the methods come from that are not the suite's, as their records say."""
    return tuple(
        f"{label(method)}: {told.get('label')}, {told.get('citation')}; run from {told.get('package')} "
        f"{told.get('version')}, {told.get('url')}, commit {str(told.get('commit'))[:COMMIT]}."
        for method, told in sorted(group.external.items())
        if method in group.methods
    )


def _main_rows(group: Group, families: Marks) -> list[dict[str, object]]:
    rows = []
    for method in group.methods:
        for metric in group.spec.metrics:
            values = list(group.values((method, FULL), metric).values())
            contrast = families[metric].get(method)
            rows.append(
                {
                    **identity(group, (method, FULL)),
                    **summary(metric, values),
                    "ceiling": group.ceiling.get(metric),
                    "p_holm": contrast.p_holm if contrast and contrast.test else None,
                    "clcr_is": _word(contrast),
                }
            )
    return rows


def _word(contrast: Contrast | None) -> str:
    if contrast is None or contrast.test is None:
        return ""
    return {1: "better", -1: "worse", 0: "undecided"}[contrast.better]


def identity(group: Group, row: Row) -> dict[str, object]:
    """The first columns of every csv; ``data`` keeps real and synthetic apart."""
    key = group.key
    return {
        "data": key.data,
        "benchmark": key.benchmark,
        "protocol": key.protocol,
        "profile": key.profile,
        "selection": group.protocol.selection,
        "method": row[0],
        "label": label(row[0]),
        "variant": row[1],
    }


def summary(metric: str, values: Sequence[float]) -> dict[str, object]:
    """Metric, n, mean and standard deviation, unrounded."""
    return {
        "metric": metric,
        "direction": METRICS[metric].direction,
        "n": len(values),
        "mean": float(np.mean(values)) if values else None,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def _overviews(groups: Sequence[Group], families: Mapping[GroupKey, Marks]) -> list[Section]:
    """Methods by benchmarks on the main metric, one section per profile, where there is more than one benchmark."""
    sections = []
    for profile, members in groupby(sorted(groups, key=lambda g: g.key.profile), key=lambda g: g.key.profile):
        several = list(members)
        if len(several) > 1:
            sections.append(_overview(profile, several, families))
    return sections


def _overview(profile: str, groups: Sequence[Group], families: Mapping[GroupKey, Marks]) -> Section:
    methods = sorted({m for group in groups for m in group.methods}, key=overview_order)
    columns = []
    for group in groups:
        metric = group.spec.main_metric
        columns.append(_column(group, metric, families[group.key][metric]))
    rows = [(Cell(label(m)), *(column.get(m, Cell(DASH)) for column in columns)) for m in methods]
    titles = [f"{group.spec.title}, {group.key.protocol}: {heading(group.spec.main_metric)}" for group in groups]
    marked = [name_of(group) for group in groups if group.protocol.selection == "test"]
    notes = [f"CAUTION: epochs were selected on the test set in {listed(marked)}."] if marked else []
    if incomplete := [name_of(group) for group in groups if any(hole.variant == FULL for hole in group.holes)]:
        notes.append(f"MISSING results in {listed(incomplete)}: see there.")
    kind = KINDS[groups[0].key.data]
    facts = f"{kind}, main metric of each benchmark; profile {profile}. n, tests, families and caveats: sections below."
    return Section(f"Overview, {profile}", ("Method", *titles), tuple(rows), (facts,), tuple(notes))


def overview_order(method: str) -> tuple[int, str]:
    """Place of a method where benchmarks with different modalities meet."""
    row = row_name(method)
    return (list(METHODS).index(row) if row in METHODS else len(METHODS), method)
