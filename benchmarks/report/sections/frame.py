"""What a section is: tables, figures, sentences made from data, and claims with a verdict by a declared test.

A claim "a is better than b" *held* where a is significantly better after Holm's correction over the declared family;
it *did not hold* where b is, or where the interval, widened for the family (Bonferroni), leaves no room for a
difference that matters (``compare.RELEVANT``); else it is *undecided*. A sentence with a number names the table that
the number stands in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from scipy import special

from benchmarks.drawing import save
from benchmarks.metrics import METRICS
from benchmarks.report import layout
from benchmarks.report.compare import RELEVANT, Contrast, needed_text
from benchmarks.report.layout import DASH, Table, interval, listed, signed
from benchmarks.report.sections.data import Data
from benchmarks.report.statistics import ALPHA, Comparison

HELD, FAILED, OPEN = "held", "did not hold", "undecided"
WORDS = (HELD, FAILED, OPEN)
MEANING = (
    "A claim that one row is better than another held where the difference is significant after Holm's correction; it "
    "did not hold where the opposite is, or where the interval at 1 − 0.05 / comparisons of the family leaves no room "
    "for a difference that matters (1 point, 0.02 of MAE); else it is undecided. Intervals shown are at 95 %."
)
FIGURES = ("svg", "png")
NUMBER = re.compile(r"(?<![\w.-])[+−]?\d+(?:[.,]\d+)*(?![\w])")


@dataclass(frozen=True)
class Sentence:
    """One sentence of the report. table: the name of the table of its section that its numbers stand in."""

    text: str
    table: str = ""


@dataclass(frozen=True)
class Claim:
    """One row of the summary. verdict: of ``WORDS``, in total or by data set; number: what it rests on, as in the
    table; settle: what would decide what is open, "" where nothing is."""

    claim: str
    verdict: str
    number: str
    table: str
    settle: str = ""


@dataclass(frozen=True)
class Made:
    """What a section made. Names of tables and figures are without the section's: the report puts it before them.
    figures: "<name>.svg" and "<name>.png" to bytes; captions: by name."""

    tables: tuple[Table, ...] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)
    sentences: tuple[Sentence, ...] = ()
    claims: tuple[Claim, ...] = ()
    captions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """One section of the report."""

    name: str
    title: str
    build: Callable[[Data], Made]


def verdict(contrast: Contrast, better: int = 1) -> str:
    """Whether "a is better than b" (better = 1), or "b is better than a" (-1), held."""
    if contrast.better:
        return HELD if contrast.better == better else FAILED
    if contrast.test is None:
        return OPEN
    metric = METRICS[contrast.metric]
    upwards = better if metric.direction == "max" else -better
    most = upwards * contrast.test.difference + _half_width(contrast, contrast.test)
    return FAILED if most < RELEVANT[metric.unit] else OPEN


def _half_width(contrast: Contrast, test: Comparison) -> float:
    """Of the interval that holds for all comparisons of the family together."""
    level, joint = (float(special.stdtrit(test.df, alpha / 2)) for alpha in (ALPHA, ALPHA / contrast.family))
    return (test.high - test.low) / 2 * joint / level


def gap(contrast: Contrast) -> str:
    """A difference with its interval, as tables show it."""
    test = contrast.test
    return f"{signed(contrast.metric, test.difference)} {between(contrast)}" if test else DASH


def between(contrast: Contrast) -> str:
    """The interval alone."""
    test = contrast.test
    return interval(contrast.metric, test.low, test.high) if test else DASH


def claim(text: str, parts: Sequence[tuple[str, Contrast]], table: str, better: int = 1) -> Claim:
    """A claim on one or more data sets: parts are (title, contrast). The verdict is one word where it is the same
    everywhere, else each word with its sets."""
    words = {title: verdict(contrast, better) for title, contrast in parts}
    numbers = [f"{title}: {METRICS[c.metric].title} {gap(c) if c.test else c.untested}" for title, c in parts]
    return Claim(text, joined(words), "; ".join(numbers), table, settled_by(parts, words))


def joined(words: Mapping[str, str]) -> str:
    """Verdicts by data set in one cell."""
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(
        f"{word}: {listed([title for title, found in words.items() if found == word])}"
        for word in WORDS
        if word in words.values()
    )


def settled_by(parts: Sequence[tuple[str, Contrast]], words: Mapping[str, str]) -> str:
    """How many seeds, or arrangements, would find what was observed, where a verdict is open."""
    plans = []
    for title, contrast in parts:
        if words[title] == OPEN:
            needed = needed_text(contrast)
            plan = "two seeds of both at least" if contrast.test is None else f"{needed} {contrast.unit}s"
            plans.append(f"{title}: {plan if needed != DASH or contrast.test is None else 'no number of seeds'}")
    return "; ".join(plans)


def none_better(text: str, parts: Sequence[tuple[str, Sequence[Contrast]]], table: str) -> Claim:
    """The claim that no row is better than its reference: parts are (title, a family). It held where each row leaves no
    room for being better by what matters, did not hold where one is better, else it is undecided; the number is that
    of the row that comes nearest to being better."""
    words, numbers, plans = {}, [], []
    for title, found in parts:
        verdicts = {verdict(contrast) for contrast in found}
        words[title] = FAILED if HELD in verdicts else OPEN if OPEN in verdicts else HELD
        nearest = max(found, key=_gain)
        numbers.append(f"{title}: {METRICS[nearest.metric].title} {gap(nearest) if nearest.test else nearest.untested}")
        plans += [(title, nearest)]
    return Claim(text, joined(words), "; ".join(numbers), table, settled_by(plans, words))


def _gain(contrast: Contrast) -> float:
    """How much better the row is than its reference."""
    if contrast.test is None:
        return -inf
    return contrast.test.difference * (1 if METRICS[contrast.metric].direction == "max" else -1)


def lacks(data: Data, study: str, table: str = "") -> tuple[Sentence, ...]:
    """What a study lacks, as a sentence; table: whose intro says the same, "" where there is none."""
    told = data.lacking(study, bool(table))
    return (Sentence(told, table),) if told else ()


def intro_of(data: Data, study: str, *texts: str) -> tuple[str, ...]:
    """What stands before a table: what its study lacks, then the texts."""
    told = data.lacking(study)
    return (*((told,) if told else ()), *texts)


def drawn(name: str, figure: object) -> dict[str, bytes]:
    """A figure in all formats, by file name; call it inside ``drawing.style()``."""
    return {f"{name}.{suffix}": save(figure, suffix) for suffix in FIGURES}  # type: ignore[arg-type]


def words_of(table: Table) -> str:
    """Everything that a table says, as plain text."""
    found = [*table.intro, *table.empty.values()]
    for sections in table.parts.values():
        for section in sections:
            found += [section.title, *section.columns, *section.facts, *section.notes]
            found += [cell.text for row in section.rows for cell in row]
    return "\n".join(found)


def unsupported(text: str, table: str) -> list[str]:
    """Numbers of a text that do not stand in a table's text."""
    known = set(NUMBER.findall(table))
    return [number for number in NUMBER.findall(text) if number not in known]


def real(name: str, title: str, intro: Sequence[str], sections: Sequence[layout.Section], frame: object) -> Table:
    """A table on real data alone."""
    empty = {"real": "No runs yet.", "twin": "Not part of this finding."}
    return Table(name, title, tuple(intro), {"real": tuple(sections)}, frame, empty)  # type: ignore[arg-type]
