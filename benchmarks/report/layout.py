"""What a table is before it is text: cells, sections, and the numbers and sentences that go into them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
import pandas as pd

from benchmarks.errors import plain
from benchmarks.metrics import METRICS, show
from benchmarks.report.collect import Group

DASH = "—"
MADE = "Made by `clcr report` from results/records; edits are overwritten."
DATA = {"real": "Real data", "twin": "Synthetic twins"}
KINDS = {"real": "Real data", "twin": "Synthetic twin"}
EMPTY = {"real": "No runs on real data.", "twin": "No runs on synthetic twins."}
WINS, LOSES = "†", "‡"
LEVEL = 0.05


@dataclass(frozen=True)
class Cell:
    """One cell, plain text; ``bold`` marks the best of its column."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Section:
    """One table. facts: what it shows, said before it; notes: what can be concluded and what is missing, after it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    facts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One file in three formats. parts: sections by data ("real", "twin"), never mixed; frame: the same, unrounded;
    empty: what is said of data without sections."""

    name: str
    title: str
    intro: tuple[str, ...]
    parts: Mapping[str, tuple[Section, ...]]
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    empty: Mapping[str, str] = field(default_factory=lambda: EMPTY)


def numeric(section: Section) -> list[bool]:
    """Which columns hold numbers and are set flush right."""
    return [all(row[i].text[:1] in set("0123456789+−—<>") for row in section.rows) for i in range(len(section.columns))]


def blocks(widths: Sequence[float], limit: float, gap: float) -> list[list[int]]:
    """The columns as they fit beside each other in ``limit``, ``gap`` between two; the first one leads every block.

    As few blocks as can be, filled evenly; a column that does not fit beside the first has a block of its own.
    """
    first, others = widths[0], list(range(1, len(widths)))
    most = len(_filled(widths, others, limit - first, gap))
    narrow, wide = 0.0, limit - first
    for _ in range(30):  # the least width that needs no further block
        middle = (narrow + wide) / 2
        narrow, wide = (narrow, middle) if len(_filled(widths, others, middle, gap)) <= most else (middle, wide)
    return [[0, *block] for block in _filled(widths, others, wide, gap)] or [[0]]


def _filled(widths: Sequence[float], columns: Sequence[int], limit: float, gap: float) -> list[list[int]]:
    found: list[list[int]] = []
    used = limit
    for column in columns:
        if not found or used + gap + widths[column] > limit:
            found.append([])
            used = 0.0
        found[-1].append(column)
        used += gap + widths[column]
    return found


def mapped(table: Mapping[str, str]) -> Callable[[str], str]:
    """What replaces the characters of a table in a text, and puts the text on one line that can be printed."""
    pattern = re.compile(f"[{re.escape(''.join(table))}]")
    return lambda text: pattern.sub(lambda found: table[found[0]], plain(" ".join(text.split())))


def number(value: float, digits: int) -> str:
    """Fixed decimals with a true minus sign, no negative zero; a dash where there is no number."""
    if not isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def shown(metric: str, value: float) -> str:
    """A value or a difference in the metric's unit and decimals."""
    text = show(metric, value) if isfinite(value) else DASH
    return text.removeprefix("-") if text.strip("-0.") == "" else text.replace("-", "−")


def signed(metric: str, value: float) -> str:
    """A difference with its sign."""
    text = shown(metric, value)
    return text if not isfinite(value) or text.startswith("−") or text.strip("0.") == "" else f"+{text}"


def interval(metric: str, low: float, high: float) -> str:
    """[low, high] of a difference."""
    return f"[{signed(metric, low)}, {signed(metric, high)}]"


def p_text(p: float) -> str:
    """A p value for people: three decimals, or "< 0.001"; as many as tell it from the level where three do not."""
    if p < 0.001:
        return "< 0.001"
    digits = next((d for d in range(3, 7) if round(p, d) != LEVEL or p == LEVEL), 7)
    return number(p, digits)


def mean_sd(metric: str, values: Sequence[float]) -> str:
    """Mean ± standard deviation (number of runs); the deviation is left out for one run."""
    if not values:
        return DASH
    spread = f" ± {shown(metric, float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return f"{shown(metric, float(np.mean(values)))}{spread} ({len(values)})"


def heading(metric: str) -> str:
    """A metric as a column title: its name, the better direction and the unit."""
    described = METRICS[metric]
    unit = f" ({described.unit})" if described.unit else ""
    return f"{described.title} {'↑' if described.direction == 'max' else '↓'}{unit}"


def listed(items: Sequence[str]) -> str:
    """ "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def count(n: int, thing: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{n} {thing}{'' if n == 1 else 's'}"


def name_of(group: Group) -> str:
    """The title of a group's section."""
    return f"{group.spec.title} · protocol {group.key.protocol} · profile {group.key.profile}"


def about(group: Group) -> tuple[str, ...]:
    """What a reader must know of a group: data, protocol, profile, seeds, how epochs were selected, what is leaky."""
    protocol = group.protocol
    seeds = sorted({int(seed) for seed in group.runs["seed"]})
    runs = f"profile {group.key.profile}; n = {count(len(seeds), 'seed')} ({ranges(seeds)})."
    if group.synthetic:
        first = f"{KINDS['twin']}, standing for protocol {protocol.name}; {runs} Says nothing about the real data set."
    else:
        first = f"{KINDS['real']}, protocol {protocol.name} ({protocol.title}); {runs}"
    lines = [first, f"One run covers all {protocol.folds} folds."] if protocol.folds > 1 else [first]
    if protocol.selection == "test":
        lines.append("CAUTION: epochs were selected on the test set, as the literature does; scores are optimistic.")
    else:
        lines.append("Epochs were selected on validation data; the test set was read once.")
    if not group.synthetic:
        lines += [f"CAUTION: the same {protocol.group or 'group'}s occur in several splits."] * protocol.groups_shared
        lines += [protocol.note] * bool(protocol.note)
    return tuple(lines)


def ranges(seeds: Sequence[int]) -> str:
    """Seeds in the spelling of the command line: 0-4,7."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"


def lacks(group: Group, ablations: bool) -> tuple[str, ...]:
    """What is missing from a table of full variants, or of the other variants, by name; and what was superseded."""
    mine = [hole for hole in group.holes if not hole.method or ablations or hole.variant == "full"]
    lines = [f"MISSING: {'; '.join(f'{hole.run}: {hole.why}' for hole in mine)}."] if mine else []
    if group.superseded:
        lines.append(f"{count(group.superseded, 'older record')} superseded by newer ones, not shown.")
    return tuple(lines)
