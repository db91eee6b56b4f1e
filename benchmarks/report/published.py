"""Published numbers: the file that holds them, and the table that puts ours beside them with a verdict.

Synthetic twins, open protocols and small profiles are never compared with a published number.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from baselines import METHODS
from benchmarks import BENCHMARKS, plain_yaml
from benchmarks.errors import InputError, unknown
from benchmarks.metrics import METRICS
from benchmarks.report.collect import FULL, OURS, Collected, Group, label, load_spec, row_name
from benchmarks.report.compare import per_unit
from benchmarks.report.layout import DASH, Cell, Section, Table, heading, interval, mean_sd, shown, signed
from benchmarks.report.statistics import VERDICT_SEEDS, Equivalence, tost, tost_power, tost_seeds

SCHEMA = 1
SELECTIONS = ("test", "validation", "unknown")
TEXTS = ("benchmark", "method", "metric", "source", "variant", "note")
TOP = ("schema", "margins", "profiles", "labels", "sources", "numbers")
GAP = "Ours − published [90 % interval]"
COLUMNS = ("Method", "Variant", "Metric", "Published", "Ours", GAP, "Margin", "Verdict", "Source")
INTRO = (
    "Verdict: two one-sided t tests (TOST, level 0.05) of our mean against the printed number as a constant, within "
    "the margin stated beforehand in results/published.yaml. The printed number's own noise is unknown. Reproduced: "
    "the 90 % interval lies within the margin; not reproduced: it lies outside; inconclusive: neither, or the runs do "
    "not vary. Each number is a family of its own, no correction.",
    "Where the standard deviation over seeds is 0.8 of the margin, a true match is confirmed with a probability of "
    f"{tost_power(1.0, 0.8, 5):.0%} by 5 seeds and {tost_power(1.0, 0.8, VERDICT_SEEDS):.0%} by {VERDICT_SEEDS}, the "
    "default for a verdict.",
)


@dataclass(frozen=True)
class Source:
    """Where numbers come from. selection: how it chose the epoch; seeds: runs behind a number, or "unknown"."""

    title: str
    selection: str
    seeds: int | str


@dataclass(frozen=True)
class Number:
    """One published number, in the unit that records use (fractions for %). protocols: ours that are comparable."""

    benchmark: str
    protocols: tuple[str, ...]
    method: str
    metric: str
    value: float
    source: str
    variant: str = FULL
    sd: float | None = None
    margin: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Published:
    """The file, checked."""

    margins: Mapping[str, float] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    numbers: tuple[Number, ...] = ()

    def fits(self, number: Number, group: Group) -> bool:
        """Whether a group's runs may stand beside a number."""
        key = group.key
        same = key.benchmark == number.benchmark and key.protocol in number.protocols
        return same and key.data == "real" and key.profile in self.profiles

    def margin(self, number: Number) -> float:
        """How far ours may lie off, in the unit of records."""
        return self.margins[number.metric] if number.margin is None else number.margin

    def name(self, method: str) -> str:
        """The label of a method, of the suite or not."""
        return self.labels.get(method, label(method))


def load(path: Path) -> Published:
    """Read and check the file; InputError names the field and the remedy in one line."""
    raw = plain_yaml.read(path)
    _keys(raw, TOP, TOP, str(path))
    if raw["schema"] != SCHEMA:
        raise InputError(f"{path}: schema: {raw['schema']!r}, expected {SCHEMA}")
    for name, kind in {"margins": dict, "sources": dict, "labels": dict, "profiles": list, "numbers": list}.items():
        if not isinstance(raw[name], kind):
            raise InputError(f"{path}: {name}: expected a {'list' if kind is list else 'mapping'}; correct the file")
    margins = {name: _metric_value(name, value, f"{path}: margins.{name}") for name, value in raw["margins"].items()}
    sources = {name: _source(entry, f"{path}: sources.{name}") for name, entry in raw["sources"].items()}
    numbers: list[Number] = []
    for place, entry in enumerate(raw["numbers"]):
        number = _number(entry, f"{path}: numbers[{place}]")
        if number.source not in sources:
            raise unknown("source", number.source, sources, f"{path}: numbers[{place}].source")
        if number.metric not in margins and number.margin is None:
            raise InputError(f"{path}: margins.{number.metric}: missing; state the margin before the run")
        if any(_same_cell(number, other) for other in numbers):
            raise InputError(f"{path}: numbers[{place}]: this cell stands there already; delete one of the two")
        numbers.append(number)
    numbers.sort(key=lambda number: list(BENCHMARKS).index(number.benchmark))
    return Published(margins, tuple(raw["profiles"]), dict(raw["labels"]), sources, tuple(numbers))


def _same_cell(a: Number, b: Number) -> bool:
    names = ("benchmark", "method", "variant", "metric", "source")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _keys(entry: object, known: Sequence[str], needed: Sequence[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not a mapping; give it the keys {', '.join(needed)}")
    for name in entry:
        if name not in known:
            raise unknown("key", str(name), known, where)
    for name in needed:
        if name not in entry:
            raise InputError(f"{where}.{name}: missing; add it")


def _source(entry: Any, where: str) -> Source:
    names = [f.name for f in fields(Source)]
    _keys(entry, names, names, where)
    if entry["selection"] not in SELECTIONS:
        raise unknown("selection", str(entry["selection"]), SELECTIONS, f"{where}.selection")
    if entry["seeds"] != "unknown" and (not isinstance(entry["seeds"], int) or entry["seeds"] < 1):
        raise InputError(f"{where}.seeds: {entry['seeds']!r}; expected a positive integer or unknown")
    return Source(str(entry["title"]), entry["selection"], entry["seeds"])


def _number(entry: Any, where: str) -> Number:
    needed = [f.name for f in fields(Number) if f.default is MISSING]
    _keys(entry, [f.name for f in fields(Number)], needed, where)
    for name in TEXTS:
        if not isinstance(entry.get(name, ""), str):
            raise InputError(f"{where}.{name}: {entry[name]!r}; expected a name")
    if entry["benchmark"] not in BENCHMARKS:
        raise unknown("benchmark", str(entry["benchmark"]), BENCHMARKS, f"{where}.benchmark")
    if not isinstance(entry["protocols"], list) or not all(isinstance(name, str) for name in entry["protocols"]):
        raise InputError(f"{where}.protocols: {entry['protocols']!r}; expected a list of names, [] for none")
    metric = entry["metric"]
    given = [name for name in ("value", "sd", "margin") if name in entry]
    values = {name: _metric_value(metric, entry[name], f"{where}.{name}") for name in given}
    return Number(**{**entry, "protocols": tuple(entry["protocols"]), **values})


def _metric_value(metric: str, value: object, where: str) -> float:
    """A printed value in the unit of records."""
    if metric not in METRICS:
        raise unknown("metric", str(metric), METRICS, where)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise InputError(f"{where}: {value!r} is not a number; write it as printed")
    return value / 100 if METRICS[metric].unit == "%" else float(value)


def comparable(published: Published, group: Group) -> dict[tuple[str, str], float]:
    """The paper's own numbers of CLCR by (variant, metric), where this group may stand beside them."""
    mine = (n for n in published.numbers if n.method == OURS and n.source == OURS and published.fits(n, group))
    return {(n.variant, n.metric): n.value for n in mine}


@dataclass(frozen=True)
class Beside:
    """A published number and ours. result: None where ours has fewer than two runs."""

    number: Number
    group: Group | None
    values: tuple[float, ...]
    result: Equivalence | None
    verdict: str


def beside(published: Published, collected: Collected) -> list[Beside]:
    """Every published number with each group that may stand beside it, or alone as "not run"."""
    found = []
    for number in published.numbers:
        groups = [group for group in collected.groups if published.fits(number, group)]
        rows = [_judge(published, number, group) for group in groups]
        found += [row for row in rows if row.values] or [Beside(number, None, (), None, "not run")]
    return found


def _judge(published: Published, number: Number, group: Group) -> Beside:
    values = tuple(per_unit(group, group.values((number.method, number.variant), number.metric)).values())
    if len(values) < 2:
        return Beside(number, group, values, None, "inconclusive")
    result = tost(values, number.value, published.margin(number))
    return Beside(number, group, values, result, result.verdict)


def published_table(collected: Collected, published: Published) -> Table:
    """Every published number known, by benchmark, with ours and a verdict."""
    rows = beside(published, collected)
    sections = []
    for benchmark, members in groupby(rows, key=lambda row: row.number.benchmark):
        sections.append(_section(benchmark, list(members), published))
    empty = {
        "real": "No published numbers: results/published.yaml was not found.",
        "twin": "Synthetic twins are never compared with published numbers.",
    }
    frame = pd.DataFrame([_csv_row(row, published) for row in rows])
    return Table("published", "Published and reproduced", INTRO, {"real": tuple(sections), "twin": ()}, frame, empty)


def _section(benchmark: str, rows: Sequence[Beside], published: Published) -> Section:
    profiles = " or ".join(published.profiles)
    facts = [f"Real data, comparable protocol, profile {profiles}; anything else is not run for this purpose."]
    for protocol, profile in sorted({(r.group.key.protocol, r.group.key.profile) for r in rows if r.group}):
        facts.append(f"Ours: protocol {protocol}, profile {profile}.")
    names = sorted({row.number.source for row in rows}, key=list(published.sources).index)
    notes = [_source_note(name, published.sources[name]) for name in names]
    notes += _number_notes([row.number for row in rows], published)
    notes += [_power_note(row, published) for row in rows if row.values and row.verdict == "inconclusive"]
    return Section(
        load_spec(benchmark).title, COLUMNS, tuple(_cells(row, published) for row in rows), tuple(facts), tuple(notes)
    )


def _number_notes(numbers: Sequence[Number], published: Published) -> list[str]:
    """What the file says of single numbers; where it says the same of several metrics, once."""
    metrics: dict[tuple[str, str, str, str], list[str]] = {}
    for number in numbers:
        if number.note:
            names = metrics.setdefault((number.method, number.variant, number.source, number.note), [])
            names += [title for title in (METRICS[number.metric].title,) if title not in names]
    return [
        f"{published.name(method)}{'' if variant == FULL else f' {variant}'}, {', '.join(titles)}, {source}: {note}"
        for (method, variant, source, note), titles in metrics.items()
    ]


def _power_note(row: Beside, published: Published) -> str:
    """What an inconclusive verdict leaves open, and the seeds that it would take."""
    number, margin = row.number, published.margin(row.number)
    name = f"{published.name(number.method)} ({number.variant}), {METRICS[number.metric].title}, {number.source}"
    if row.result is None:
        return f"{name}: inconclusive; one run has no interval, {VERDICT_SEEDS} seeds are the default for a verdict."
    if row.result.sd == 0:
        return f"{name}: inconclusive; the {row.result.n} runs gave the same value, which leaves nothing to test with."
    needed = tost_seeds(margin, row.result.sd)
    plan = f"about {needed} seeds" if needed else "more than 1000 seeds"
    return (
        f"{name}: inconclusive; that does not mean that the number is wrong. At this spread {row.result.n} seeds would "
        f"confirm a true match with a probability of {tost_power(margin, row.result.sd, row.result.n):.0%}; it would "
        f"take {plan} for 80 %."
    )


def _source_note(name: str, source: Source) -> str:
    selection = {"test": "epoch selected on the test set", "validation": "epoch selected on validation data"}
    seeds = "seeds unknown" if source.seeds == "unknown" else f"{source.seeds} seed{'' if source.seeds == 1 else 's'}"
    return f"Source {name}: {source.title}; {selection.get(source.selection, 'selection unknown')}; {seeds}."


def _cells(row: Beside, published: Published) -> tuple[Cell, ...]:
    number, result = row.number, row.result
    printed = shown(number.metric, number.value)
    place = f", {row.group.key.protocol}, {row.group.key.profile}" if row.group else ""
    gap = DASH
    if result:
        gap = f"{signed(number.metric, result.difference)} {interval(number.metric, result.low, result.high)}"
    texts = (
        published.name(number.method),
        number.variant,
        heading(number.metric),
        printed if number.sd is None else f"{printed} ± {shown(number.metric, number.sd)}",
        mean_sd(number.metric, row.values) + place,
        gap,
        shown(number.metric, published.margin(number)),
        row.verdict + _why(row),
        number.source,
    )
    return tuple(Cell(text) for text in texts)


def _why(row: Beside) -> str:
    """Why a number was not run, where running more would not help."""
    if row.verdict != "not run":
        return ""
    if not row.number.protocols:
        return " (no comparable protocol)"
    method = METHODS.get(row_name(row.number.method))
    if method is None:
        return " (not a method of this suite)"
    return "" if row.number.variant in method.every_variant else " (not a variant of this suite)"


def _csv_row(row: Beside, published: Published) -> dict[str, object]:
    number, source = row.number, published.sources[row.number.source]
    result = asdict(row.result) if row.result else {}
    return {
        "data": "real",
        "benchmark": number.benchmark,
        "protocol": row.group.key.protocol if row.group else None,
        "profile": row.group.key.profile if row.group else None,
        "method": number.method,
        "label": published.name(number.method),
        "variant": number.variant,
        "metric": number.metric,
        "published": number.value,
        "published_sd": number.sd,
        "n": len(row.values),
        "mean": sum(row.values) / len(row.values) if row.values else None,
        **{name: result.get(name) for name in ("difference", "low", "high", "p")},
        "margin": published.margin(number),
        "verdict": row.verdict,
        "source": number.source,
        "source_selection": source.selection,
        "source_seeds": source.seeds,
        "note": number.note,
    }
