"""What the page says apart from single runs: it comes from the tables of the report, nothing is computed anew."""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from baselines import METHODS
from benchmarks.metrics import METRICS
from benchmarks.report import latex, layout, render, significance
from benchmarks.report.collect import FULL, OURS, Collected, Group, GroupKey, Row, label, row_name
from benchmarks.report.compare import Contrast, against_ours, families, in_words
from benchmarks.report.layout import (
    DATA,
    KINDS,
    LOSES,
    WINS,
    Section,
    Table,
    count,
    heading,
    interval,
    listed,
    mean_sd,
    name_of,
    ranges,
    shown,
    signed,
)
from benchmarks.report.site.runs import plain, rows_of
from benchmarks.report.statistics import VERDICTS, critical_difference
from benchmarks.report.tables import BETTER, WORSE, best_of, overview_order

DISTRIBUTION = "clcr-bench"
SOURCES = ("records/*.jsonl", "curves/*.jsonl", "predictions/*.npz", "published.yaml")
AS_TABLES = ("ablation", "significance", "published", "cost")


def content(out: Path, collected: Collected, tables: Sequence[Table]) -> dict[str, Any]:
    """Everything but the runs, as JSON."""
    named = {table.name: table for table in tables}
    families = {group.key: _families(group) for group in collected.groups}
    versions = _data_versions(collected)
    data: dict[str, Any] = {
        "suite": {"name": DISTRIBUTION, "version": _version()},
        "files": [_file(path, out) for pattern in SOURCES for path in sorted(out.glob(pattern))],
        "escapes": {"markdown": render.MARKDOWN, "latex": latex.LATEX},
        "made": layout.MADE,
        "warning": render.TWIN_WARNING,
        "kinds": DATA,
        "marks": {"1": WINS, "-1": LOSES},
        "ours": OURS,
        "ourLabel": label(OURS),
        "told": significance.COLUMNS,
        "intro": named["main"].intro,
        "metrics": {name: _metric(name) for name in METRICS},
        "methods": _methods(collected),
        "groups": [
            {**_group(group, families[group.key], named["main"]), "data_digests": versions[group.key]}
            for group in collected.groups
        ],
        "tables": {name: _table(named[name], collected) for name in AS_TABLES},
        "summary": {kind: _summary(collected.of(kind), families, named["published"]) for kind in DATA},
        "ranks": {kind: list(_ranks(collected.of(kind))) for kind in DATA},
    }
    known: dict[str, Any] = plain(data)
    return known


def _version() -> str:
    """The suite's version: of the checkout, else of the installed distribution."""
    project = Path(__file__).resolve().parents[3] / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version(DISTRIBUTION)


def _file(path: Path, out: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"path": str(path.relative_to(out)), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _metric(name: str) -> dict[str, Any]:
    metric = METRICS[name]
    return {"title": metric.title, "heading": heading(name), "direction": metric.direction, "unit": metric.unit,
            "digits": metric.digits}  # fmt: skip


def _methods(collected: Collected) -> list[dict[str, Any]]:
    """Every method that was tried, in the order of an overview, with whom to cite."""
    tried = {method for group in collected.groups for method, _ in group.tried}
    found = []
    for name in sorted(tried, key=overview_order):
        row = METHODS.get(row_name(name))
        modality = name.removeprefix(f"{row.name}_") if row and row.per_modality else None
        said = {"citation": row.citation, "year": row.year} if row else {"citation": "not in the table of methods"}
        found.append({"name": name, "label": label(name), "modality": modality, **said})
    return found


def _families(group: Group) -> dict[str, dict[str, Contrast]]:
    return {metric: against_ours(group, metric) for metric in group.spec.metrics}


def _group(group: Group, families: Mapping[str, Mapping[str, Contrast]], main: Table) -> dict[str, Any]:
    key, spec, protocol = group.key, group.spec, group.protocol
    section = next(s for s in main.parts[key.data] if s.title == name_of(group))
    words = {metric: _words(found) for metric, found in families.items()}
    tested = words[spec.main_metric]
    return {
        "id": str(key),
        "benchmark": key.benchmark,
        "protocol": key.protocol,
        "data": key.data,
        "profile": key.profile,
        "title": f"{spec.title} (synthetic)" if group.synthetic else spec.title,
        "name": _name(group),
        "brief": _brief(group, families[spec.main_metric]),
        "selection": protocol.selection,
        "main": spec.main_metric,
        "metrics": spec.metrics,
        "modalities": [modality.name for modality in protocol.modalities],
        "folds": protocol.folds,
        "counts": dict(protocol.counts),
        "licence": spec.licence,
        "source": spec.source,
        "citation": spec.citation,
        "ceiling": {m: {"value": v, "text": shown(m, v)} for m, v in group.ceiling.items() if m in spec.metrics},
        "facts": section.facts,
        "words": words,
        "notes": [note for note in section.notes if note not in tested],
        "holes": [hole.why for hole in group.holes if not hole.method],
        "rows": _rows(group, families),
    }


def _name(group: Group) -> str:
    """A group's name where it stands alone: a synthetic one says so."""
    return f"{KINDS['twin']}: {name_of(group)}" if group.synthetic else name_of(group)


def _brief(group: Group, found: Mapping[str, Contrast]) -> list[str]:
    """What stands in the head of every column: protocol, profile, n, how the epoch was selected, the family."""
    seeds = sorted({int(seed) for seed in group.runs["seed"]})
    epoch = "epoch selected on the TEST set" if group.protocol.selection == "test" else "epoch by validation"
    return [
        f"protocol {group.key.protocol}, profile {group.key.profile}",
        f"n = {count(len(seeds), 'seed')} ({ranges(seeds)}), {epoch}",
        f"Holm over {families(group, found)}",
    ]


def _words(found: Mapping[str, Contrast]) -> tuple[str, ...]:
    return in_words(list(found.values()), [label(method) for method in found], BETTER, WORSE)


def _data_versions(collected: Collected) -> dict[GroupKey, list[str]]:
    """The digests of the prepared data that the runs of each group read."""
    found: dict[GroupKey, set[str]] = {group.key: set() for group in collected.groups}
    for record in collected.records:
        if record.status == "done":
            found[GroupKey.of(record.key)].add(str(record.what.get("data_digest", "unknown")))
    return {key: sorted(digests) for key, digests in found.items()}


def _rows(group: Group, families: Mapping[str, Mapping[str, Contrast]]) -> list[dict[str, Any]]:
    best = {m: best_of(m, {x: _values(group, (x, FULL), m) for x in group.methods}) for m in group.spec.metrics}
    return [
        {
            "method": row[0],
            "variant": row[1],
            "label": label(row[0]),
            "lacks": [[h.seed, h.why] for h in group.holes if (h.method, h.variant) == row],
            "cells": {
                metric: _cell(group, row, metric, families[metric].get(row[0]) if row[1] == FULL else None)
                | ({"best": True} if row[1] == FULL and row[0] in best[metric] else {})
                for metric in group.spec.metrics
                if _values(group, row, metric)
            },
        }
        for row in rows_of(group)
    ]


def _values(group: Group, row: Row, metric: str) -> list[float]:
    return list(group.values(row, metric).values())


def _cell(group: Group, row: Row, metric: str, contrast: Contrast | None) -> dict[str, Any]:
    """One result: the numbers for sorting and drawing, the texts as the tables print them."""
    values = _values(group, row, metric)
    cell: dict[str, Any] = {
        "n": len(values),
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "text": mean_sd(metric, values),
    }
    if contrast is None:
        return cell
    cell["told"] = [told.text for told in significance.cells(row[0], contrast)]
    if contrast.test is None:
        return {**cell, "untested": contrast.untested}
    test = contrast.test
    gap = f"{signed(metric, test.difference)} {interval(metric, test.low, test.high)}"
    numbers = {name: getattr(test, name) for name in ("difference", "low", "high", "p")}
    return {**cell, **numbers, "p_holm": contrast.p_holm, "better": contrast.better, "gap": gap}


def _table(table: Table, collected: Collected) -> dict[str, Any]:
    """A table as it is committed, each row beside its numbers where the csv has a line for it."""
    parts = {}
    for kind in DATA:
        frame = table.frame
        lines = iter(frame[frame["data"] == kind].to_dict("records") if len(frame) else ())
        groups = {name_of(group): str(group.key) for group in collected.of(kind)}
        parts[kind] = [_section(section, lines, groups) for section in table.parts.get(kind, ())]
    return {"title": table.title, "intro": table.intro, "parts": parts, "empty": table.empty}


def _section(section: Section, lines: Iterator[dict[Any, Any]], groups: Mapping[str, str]) -> dict[str, Any]:
    # A plot of ranks and one pair of runs are descriptive: they are in the text of a table and not in its csv.
    in_csv = not section.title.startswith(("One pair of runs", "Ranks"))
    return {
        "title": section.title,
        "group": next((key for name, key in groups.items() if section.title.endswith(name)), None),
        "columns": section.columns,
        "rows": [[cell.text for cell in row] for row in section.rows],
        "records": [next(lines) for _ in section.rows] if in_csv else [],
        "facts": section.facts,
        "notes": section.notes,
    }


def _summary(groups: Sequence[Group], families: Mapping[Any, Any], published: Table) -> list[str]:
    """What the results say of CLCR on the main metrics, in plain words, whatever a reader filters."""
    if not groups:
        return []
    ours = [group for group in groups if group.values((OURS, FULL), group.spec.main_metric)]
    if not ours:
        return ["CLCR has no result here: nothing is compared."]
    found = [(m, c) for group in ours for m, c in families[group.key][group.spec.main_metric].items()]
    sides = {sign: [m for m, c in found if c.test and c.better == sign] for sign in (1, -1, 0)}
    untested = sum(c.test is None for _, c in found)
    first = sum(OURS in best_of(g.spec.main_metric, _means(g)) for g in ours)
    kind = KINDS[groups[0].key.data]
    lines = [
        f"{kind}, main metric of {count(len(ours), 'protocol')}: CLCR has the best mean on {first or 'none'}.",
        f"{count(len(found), 'comparison')} of CLCR with another row, Holm's correction within each protocol: "
        f"significantly better in {_times(sides[1])}, significantly worse in {_times(sides[-1])}, undecided in "
        f"{len(sides[0])} (power too low)" + (f", not tested in {untested}." if untested else "."),
    ]
    if groups[0].key.data == "real" and len(published.frame):
        verdicts = Counter(published.frame["verdict"])
        told = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS)
        lines.append(f"{count(len(published.frame), 'published number')}: {told}.")
    return lines


def _means(group: Group) -> dict[str, list[float]]:
    return {method: _values(group, (method, FULL), group.spec.main_metric) for method in group.methods}


def _times(methods: Sequence[str]) -> str:
    """How often, and against whom."""
    names = [label(m) + (f" {n} times" if n > 1 else "") for m, n in sorted(Counter(methods).items(), key=_overview)]
    return f"{len(methods)}{f' (against {listed(names)})' if names else ''}"


def _overview(item: tuple[str, int]) -> tuple[int, str]:
    return overview_order(item[0])


def _ranks(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Mean ranks and the critical difference, one picture a profile."""
    for profile, members in groupby(sorted(groups, key=_profile), key=_profile):
        several = significance.one_protocol_each(list(members))
        ranks = significance.ranked(several)
        if len(several) > 1 and len(ranks) > 1:
            yield {
                "profile": profile,
                "groups": [_name(group) for group in several],
                "ranks": [[label(method), method, rank] for method, rank in ranks.items()],
                "critical": critical_difference(len(ranks), len(several)),
            }


def _profile(group: Group) -> str:
    return group.key.profile
