"""Sixteen choices at once: the effects of a two-level fractional factorial, with what each is mixed up with.

Each effect is the mean of the runs at the high level minus that of the runs at the low one. Its error comes from what
repeats of the same settings differ by, seeds as blocks; with one seed from Lenth's pseudo standard error (Lenth: Quick
and easy analysis of unreplicated factorials, Technometrics 31, 1989), which takes most effects to be nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from benchmarks import studies
from benchmarks.drawing import INK, SOFT, look, rows, title
from benchmarks.metrics import METRICS
from benchmarks.report import layout
from benchmarks.report.collect import OURS, Group
from benchmarks.report.figures.sheet import better_right, describe, scale
from benchmarks.report.layout import Cell, Table, count, heading, interval, listed, p_text, signed
from benchmarks.report.sections import comparing
from benchmarks.report.sections.data import Data, Source
from benchmarks.report.sections.frame import Made, Section, Sentence, drawn, intro_of, lacks, real
from benchmarks.report.statistics import ALPHA, holm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STUDY = "screening"
Words = tuple[tuple[str, ...], ...]  # one factor, or pairs of factors that share a column
SHOWN = 4  # pairs that a string of aliases names
NOTE = (
    "Bars: effect on the main metric of the VALIDATION split, high level minus low, with its 95 % interval. Dark: "
    "significant after Holm's correction over the main effects of the panel. Right: p after correction."
)
INTRO = (
    "Effect: mean at the high level minus mean at the low level, on the VALIDATION split, over all the other choices. "
    "The design has resolution IV: no main effect is mixed up with a pair of choices, but pairs are with other pairs.",
)


@dataclass(frozen=True)
class Effect:
    """One effect with its 95 % interval and p, corrected where it is a main effect. name: a factor, or pairs that
    cannot be told apart."""

    name: str
    main: bool
    value: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Screened:
    """The effects on one data set, the largest main effect first. error: where the interval's width comes from."""

    group: Group
    seeds: tuple[int, ...]
    effects: tuple[Effect, ...]
    error: str

    @property
    def mains(self) -> list[Effect]:
        """The effects of single factors."""
        return [effect for effect in self.effects if effect.main]


def build(data: Data) -> Made:
    """The effects on every data set whose design is complete at one seed at least."""
    found = [one for place in data.study_of(STUDY).protocols if (one := _screened(data, place)) is not None]
    if not found:
        return Made(sentences=lacks(data, STUDY))
    table = _table(data, found)
    told = (*lacks(data, STUDY, table.name), *(Sentence(_tally(one), table.name) for one in found))
    caption = {"effects": "Effects of sixteen choices, by validation"}
    return Made((table,), drawn("effects", _figure(found)), told, (), caption)


def _screened(data: Data, place: str) -> Screened | None:
    """None where no seed has every setting."""
    study = data.study_of(STUDY)
    names = list(studies.factors())
    rows_of = {(OURS, s): Source(profile, OURS) for s, profile in zip(study.settings, study.profiles, strict=False)}
    group = data.compared(place, rows_of, split="valid")
    levels = np.array(studies.design(), dtype=np.float64)[:, : len(names)]
    values = [group.values(row, group.spec.main_metric) for row in rows_of]
    seeds = sorted(set.intersection(*(set(v) for v in values))) if values else []
    if not seeds or len(values) != len(levels):
        return None
    scores = np.array([[v[seed] for seed in seeds] for v in values])
    effects, error = effects_of(names, levels, scores)
    return Screened(group, tuple(seeds), effects, error)


def effects_of(
    names: Sequence[str], levels: NDArray[np.float64], scores: NDArray[np.float64]
) -> tuple[tuple[Effect, ...], str]:
    """Main effects, then pairs. levels (n, k) of -1 and 1 in orthogonal columns; scores (n, seeds)."""
    columns: dict[Words, NDArray[np.float64]] = {((name,),): levels[:, n] for n, name in enumerate(names)}
    for words in aliases(names, levels):
        columns[words] = levels[:, [list(names).index(name) for name in words[0]]].prod(axis=1)
    values = {words: float(2 * (column @ scores.mean(axis=1)) / len(column)) for words, column in columns.items()}
    error, df, told = _error(list(values.values()), scores)
    half = -float(special.stdtrit(df, ALPHA / 2)) * error
    p = {words: 2 * float(special.stdtr(df, -abs(value) / error)) if error else float(value == 0)
         for words, value in values.items()}  # fmt: skip
    mains = [words for words in values if len(words[0]) == 1]
    corrected = dict(zip(mains, holm([p[words] for words in mains]), strict=True))
    found = [
        Effect(_name(words), words in corrected, v, v - half, v + half, p[words], corrected.get(words, 1.0))
        for words, v in values.items()
    ]
    return tuple(sorted(found, key=lambda effect: (not effect.main, -abs(effect.value)))), told


def aliases(names: Sequence[str], levels: NDArray[np.float64]) -> list[Words]:
    """The pairs of factors in groups that the design cannot tell apart."""
    found: dict[tuple[float, ...], list[tuple[str, ...]]] = {}
    for a, b in combinations(range(len(names)), 2):
        found.setdefault(tuple(levels[:, a] * levels[:, b]), []).append((names[a], names[b]))
    return [tuple(pairs) for pairs in found.values()]


def _name(words: Words) -> str:
    more = f" and {count(len(words) - SHOWN, 'more pair')}" if len(words) > SHOWN else ""
    return " = ".join(" × ".join(word) for word in words[:SHOWN]) + more


def _error(effects: Sequence[float], scores: NDArray[np.float64]) -> tuple[float, float, str]:
    """Standard error of an effect, its degrees of freedom, and where it comes from in words."""
    n, seeds = scores.shape
    if seeds > 1:
        rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + scores.mean()
        df = (n - 1) * (seeds - 1)
        variance = float((rest**2).sum()) / df
        return 2 * sqrt(variance / scores.size), df, f"pooled over {seeds} seeds, {df} degrees of freedom"
    return lenth(effects), len(effects) / 3, "Lenth's pseudo standard error, one seed"


def lenth(effects: Sequence[float]) -> float:
    """Lenth's pseudo standard error of effects of an unreplicated design."""
    sizes = np.abs(np.asarray(effects, dtype=np.float64))
    first = 1.5 * float(np.median(sizes))
    kept = sizes[sizes < 2.5 * first]
    return 1.5 * float(np.median(kept)) if len(kept) else first


def _table(data: Data, found: Sequence[Screened]) -> Table:
    sections = [_section(one) for one in found]
    levels = "; ".join(f"{name}: {_levels(keys)}" for name, keys in studies.factors().items())
    frame = pd.DataFrame(
        [
            {"data": "real", "benchmark": one.group.key.benchmark, "protocol": one.group.key.protocol, "split": "valid",
             "metric": one.group.spec.main_metric, **vars(effect)}
            for one in found
            for effect in one.effects
        ]
    )  # fmt: skip
    intro = intro_of(data, STUDY, *INTRO, f"Low and high level of each choice: {levels}.")
    return real("effects", "Effects of sixteen choices", intro, sections, frame)


def _levels(keys: Mapping[str, tuple[object, object]]) -> str:
    return ", ".join(f"{key} {low} and {high}" for key, (low, high) in keys.items())


def _section(one: Screened) -> layout.Section:
    metric = one.group.spec.main_metric
    columns = ("Effect", f"{heading(metric)}, high − low", "95 % interval", "p", "p (Holm)")
    cells = [
        (e.name, signed(metric, e.value), interval(metric, e.low, e.high), p_text(e.p),
         p_text(e.p_holm) if e.main else layout.DASH)
        for e in one.effects
    ]  # fmt: skip
    facts = (
        *layout.about(one.group),
        f"Error: {one.error}. Family: the {count(len(one.mains), 'main effect')}; correction: Holm. Pairs are not "
        "tested; those joined by = cannot be told apart.",
        _tally(one),
    )
    return layout.Section(
        comparing.set_title(one.group), columns, tuple(tuple(Cell(text) for text in row) for row in cells), facts
    )


def _tally(one: Screened) -> str:
    metric = one.group.spec.main_metric
    better = 1 if METRICS[metric].direction == "max" else -1
    hits = [e for e in one.mains if e.p_holm < ALPHA]
    parts = []
    for word, sign in (("better", 1), ("worse", -1)):
        names = [e.name for e in hits if (e.value * better > 0) == (sign > 0)]
        parts += [f"the high level is significantly {word} for {listed(names)}"] if names else []
    told = listed(parts) if parts else "no choice makes a significant difference"
    first = one.mains[0]
    size = f"{METRICS[metric].title} {signed(metric, first.value)} {interval(metric, first.low, first.high)}"
    where = f"{comparing.set_title(one.group)}, {count(len(one.mains), 'main effect')}"
    return f"{where}: {told}; largest {size}, {first.name}."


def _figure(found: Sequence[Screened]) -> Figure:
    figure, panels = comparing.grid([len(one.mains) for one in found])
    for axes, one in zip(panels, found, strict=True):
        _panel(axes, one)
        describe(axes, one.group, one.seeds)
    title(figure, "Effects of sixteen choices · real data, VALIDATION", (NOTE,))
    return figure


def _panel(axes: Axes, one: Screened) -> None:
    metric, drawn_as = one.group.spec.main_metric, look(OURS)
    factor = scale(metric)
    axes.axvline(0, color=SOFT, linewidth=0.8)
    for place, effect in enumerate(one.mains):
        sure = effect.p_holm < ALPHA
        axes.barh(place, factor * effect.value, 0.62, color=drawn_as.colour, alpha=0.95 if sure else 0.35)
        axes.plot([factor * effect.low, factor * effect.high], [place, place], color=INK, linewidth=0.9)
        axes.text(1.015, place, p_text(effect.p_holm), transform=axes.get_yaxis_transform(), va="center", fontsize=6.8)
    rows(axes, [effect.name for effect in one.mains])
    better_right(axes, metric)
    unit = " (points)" if METRICS[metric].unit == "%" else ""
    axes.set_xlabel(f"{METRICS[metric].title} difference{unit}\n← high worse · high better →", fontsize=7)


SECTION = Section("screening", "Our own choices, all at once", build)
