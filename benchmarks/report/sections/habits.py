"""Habits of evaluation: what each is worth, in points or MAE, and how much of a published gain that can explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks import drawing
from benchmarks.metrics import METRICS
from benchmarks.report import layout
from benchmarks.report.collect import FULL, OURS, Row, load_spec
from benchmarks.report.compare import Contrast, declared_test, per_unit
from benchmarks.report.layout import DASH, heading, interval, listed, mean_sd, signed
from benchmarks.report.sections import trained
from benchmarks.report.sections.analyses import number as read
from benchmarks.report.sections.data import Data, Source, methods_at, spec_of
from benchmarks.report.sections.frame import FAILED, HELD, OPEN, Claim, Made, Section, Sentence, drawn, joined, real
from benchmarks.report.sections.trained import Lines, cells, compared_cells, title, values_of
from benchmarks.report.statistics import ALPHA, welch_t

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HABITS = {
    "test": "epoch chosen on the test set",
    "last": "last epoch instead of the best one",
    "drop_last": "last incomplete test batch dropped",
}
BASE = "valid"
LEAKY, CLEAN = "ravdess.clip_random", "ravdess.actor_disjoint"
LEAK = "leak"
NAMES = {**HABITS, LEAK: "the same actors in training and test"}
WORTH, POOLED, GAINS = "worth", "pooled", "gains"
SOURCE = "clcr"  # of published numbers: the paper's own tables
HOW = (
    "Score with the habit less the score of the same training with the epoch chosen on validation data and every test "
    "sample counted. The family of a habit is all methods on a data set.",
)
POOL = (
    "Over data sets whose main metric has the same unit: the unweighted mean over sets of the mean over methods. "
    "95 % interval: t over seeds (arrangements where those repeat) of the mean over methods in each set, errors of the "
    "sets added, degrees of freedom by Satterthwaite. It says nothing about other sets.",
    f"The same actors in training and test: protocol {LEAKY} less {CLEAN}, mean over methods; other samples are in "
    "either split, so Welch's t interval over seeds.",
)
GAIN_HOW = (
    "Gains that the paper prints over another method, main metric, and what choosing the epoch on the test set was "
    "worth here, pooled over sets. That the habit is worth as much: held where the 95 % interval lies above the gain, "
    "did not hold where it lies below, else undecided. "
    "The published rows may share the habit; then it explains nothing.",
)


@dataclass(frozen=True)
class Pool:
    """What a habit is worth over several sets, in their unit, with the 95 % interval (nan where it is not known)."""

    metric: str
    places: tuple[str, ...]
    mean: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """As tables show it."""
        bounds = f" {interval(self.metric, self.low, self.high)}" if np.isfinite(self.low) else ""
        return f"{signed(self.metric, self.mean)}{bounds}"

    def reaches(self, gain: float) -> str:
        """Whether the habit is worth that much or more; gain: positive where better. Needs an interval."""
        better = METRICS[self.metric].direction == "max"
        low, high = (self.low, self.high) if better else (-self.high, -self.low)
        return HELD if low >= gain else FAILED if high < gain else OPEN


def scores(lines: Lines, row: Row) -> dict[str, dict[int, float]]:
    """Main metric by habit (and the base) and seed."""
    runs = lines.runs[row]
    return {name: values_of(runs, lambda v, n=name: read(v, n, lines.metric)) for name in (BASE, *HABITS)}  # type: ignore[misc]


def tests(lines: Lines) -> dict[tuple[Row, str], Contrast]:
    """Each habit against the base, by row; a family for each habit."""
    found: dict[tuple[Row, str], Contrast] = {}
    rows = [row for row in lines.rows if row[1] == FULL]
    table = {(row[0], name): values for row in rows for name, values in scores(lines, row).items()}
    for habit in HABITS:
        pairs = [((row[0], habit), (row[0], BASE)) for row in rows if table[row[0], habit] and table[row[0], BASE]]
        found |= {((a[0], FULL), habit): contrast for (a, _), contrast in lines.tested(table, pairs).items()}
    return found


def worth(lines: Lines, habit: str) -> list[float]:
    """By seed, or by arrangement: mean over methods of the score with the habit less the base."""
    gaps = []
    for row in (row for row in lines.rows if row[1] == FULL):
        found = scores(lines, row)
        own = {s: x - found[BASE][s] for s, x in found[habit].items() if s in found[BASE]}
        if own:
            gaps.append(per_unit(lines.group, own))
    return _by_seed(gaps)


def pooled(metric: str, sets: Mapping[str, Sequence[float]]) -> Pool:
    """The unweighted mean of the sets' means; see ``POOL``. sets: place -> values, at least one each."""
    k = len(sets)
    mean = float(np.mean([np.mean(x) for x in sets.values()]))
    if any(len(x) < 2 for x in sets.values()):
        return Pool(metric, tuple(sets), mean, float("nan"), float("nan"))
    parts = [float(np.var(x, ddof=1)) / len(x) for x in sets.values()]
    below = sum(part**2 / (len(x) - 1) for part, x in zip(parts, sets.values(), strict=True))
    df = sum(parts) ** 2 / below if below else 1.0
    half = float(stats.t.ppf(1 - ALPHA / 2, df)) * sqrt(sum(parts)) / k
    return Pool(metric, tuple(sets), mean, mean - half, mean + half)


def pools(sets: Sequence[Lines]) -> dict[tuple[str, str], Pool]:
    """By habit and metric, over the sets that have both."""
    found = {}
    for habit in HABITS:
        for metric in dict.fromkeys(lines.metric for lines in sets):
            mine = {lines.place: values for lines in sets if lines.metric == metric and (values := worth(lines, habit))}
            if mine:
                found[habit, metric] = pooled(metric, mine)
    return found


def leak(data: Data) -> Pool | None:
    """What the leaky protocol is worth, mean over methods; Welch's t test. None without two seeds of both."""
    study, metric = data.study_of(LEAK), spec_of(CLEAN)[0].main_metric
    sides: list[list[Mapping[int, float]]] = [[], []]
    for method in methods_at(study, CLEAN):
        both = [data.values(place, Source(study.profiles[0], method)).get(metric, {}) for place in (LEAKY, CLEAN)]
        if all(both):
            for side, values in zip(sides, both, strict=True):
                side.append(values)
    means = [_by_seed(side) for side in sides]
    if min(map(len, means)) < 2:
        return None
    test = welch_t(means[0], means[1])
    return Pool(metric, (f"{LEAKY} less {CLEAN}",), test.difference, test.low, test.high)


def _by_seed(methods: Sequence[Mapping[int, float]]) -> list[float]:
    """Mean over methods at each seed that all have."""
    shared = set.intersection(*(set(own) for own in methods)) if methods else set()
    return [float(np.mean([own[seed] for own in methods])) for seed in sorted(shared)]


@dataclass(frozen=True)
class Gain:
    """A gain that the paper prints: of CLCR over ``rival``, positive where better, in the unit of records."""

    benchmark: str
    rival: str
    metric: str
    gain: float


def gains(data: Data) -> list[Gain]:
    """Of the paper's own tables, on the main metric, where CLCR's full variant and another method are printed."""
    numbers = [n for n in data.published.numbers if n.source == SOURCE and n.variant == FULL]
    ours = {(n.benchmark, n.metric): n.value for n in numbers if n.method == OURS}
    found = []
    for n in numbers:
        main = load_spec(n.benchmark).main_metric
        if n.method != OURS and n.metric == main and (n.benchmark, n.metric) in ours:
            difference = ours[n.benchmark, n.metric] - n.value
            sign = 1 if METRICS[main].direction == "max" else -1
            found.append(Gain(n.benchmark, data.published.name(n.method), main, sign * difference))
    return found


def build(data: Data) -> Made:
    """The section."""
    sets = [lines for lines in trained.lines(data, "habits", trained.by_epochs) if tests(lines)]
    found, leaky = pools(sets), leak(data)
    sentences = [] if sets else [Sentence(trained.absent("habits", "scores by habit"))]
    lack = data.lacking(LEAK, counted=False)
    sentences += [Sentence(lack)] if lack else []
    if leaky:
        found[LEAK, leaky.metric] = leaky
    if not found:
        return Made(sentences=tuple(sentences))
    tables = [_pooled_table(found), _gains_table(data, found)]
    sentences += [*_pooled_sentences(found), *_gain_sentences(data, found)]
    figures: dict[str, bytes] = {}
    if sets:
        tables.insert(0, _worth_table(sets))
        figures = drawn("worth", _figure(sets))
    captions = {"worth": "What each habit is worth by method, with 95 % intervals"}
    return Made(tuple(tables), figures, tuple(sentences), _claims(data, found), captions)


def _worth_table(sets: Sequence[Lines]) -> layout.Table:
    columns = ("Method", "Habit", "With the habit", "Without", "Difference", "p (Holm)", "Needed")
    sections, rows = [], []
    for lines in sets:
        texts = []
        for (row, habit), contrast in tests(lines).items():
            found = scores(lines, row)
            told = (mean_sd(lines.metric, list(found[name].values())) for name in (habit, BASE))
            texts.append(cells((title(row), HABITS[habit], *told, *compared_cells(contrast))))
            test = contrast.test
            tested = (test.difference, test.low, test.high, test.p, contrast.p_holm) if test else (None,) * 5
            rows.append((lines.place, row[0], habit, lines.metric, *tested))
        name = f"{layout.name_of(lines.group)} · {heading(lines.metric)}"
        facts = (f"Test: {declared_test(lines.group)}.",)
        sections.append(layout.Section(name, columns, tuple(texts), facts, lines.notes))
    frame = pd.DataFrame(
        rows, columns=["place", "method", "habit", "metric", "difference", "low", "high", "p", "p_holm"]
    )
    return real(WORTH, "What each habit is worth", HOW, sections, frame)


def _pooled_table(found: Mapping[tuple[str, str], Pool]) -> layout.Table:
    texts = [cells((NAMES[h], METRICS[m].title, one.text, listed(one.places))) for (h, m), one in found.items()]
    rows = [(h, m, one.mean, one.low, one.high, " ".join(one.places)) for (h, m), one in found.items()]
    columns = ("Habit", "Metric", "Worth", "Data sets")
    section = layout.Section("All methods", columns, tuple(texts))
    frame = pd.DataFrame(rows, columns=["habit", "metric", "mean", "low", "high", "places"])
    return real(POOLED, "What each habit is worth, over data sets", POOL, (section,), frame)


def _pooled_sentences(found: Mapping[tuple[str, str], Pool]) -> list[Sentence]:
    made = []
    for habit, words in NAMES.items():
        told = [f"{METRICS[m].title} by {one.text}" for (h, m), one in found.items() if h == habit]
        if told:
            made.append(Sentence(f"{words.capitalize()}: changes {listed(told)}, over methods and data sets.", POOLED))
    return made


def _pool_of(found: Mapping[tuple[str, str], Pool], metric: str) -> Pool | None:
    pool = found.get(("test", metric))
    return pool if pool is not None and np.isfinite(pool.low) else None


def _gains_table(data: Data, found: Mapping[tuple[str, str], Pool]) -> layout.Table:
    columns = ("Benchmark", "Over", "Metric", "Published gain", "Worth of test-chosen epochs", "Worth as much")
    texts, rows = [], []
    for one in gains(data):
        pool = _pool_of(found, one.metric)
        word = pool.reaches(one.gain) if pool else OPEN
        names = (load_spec(one.benchmark).title, one.rival, METRICS[one.metric].title)
        texts.append(cells((*names, layout.shown(one.metric, one.gain), pool.text if pool else DASH, word)))
        rows.append((one.benchmark, one.rival, one.metric, one.gain, pool.mean if pool else None, word))
    section = layout.Section("Published gains of CLCR", columns, tuple(texts))
    frame = pd.DataFrame(rows, columns=["benchmark", "rival", "metric", "gain", "worth", "verdict"])
    return real(GAINS, "Habits beside published gains", GAIN_HOW, (section,), frame)


def _gain_sentences(data: Data, found: Mapping[tuple[str, str], Pool]) -> list[Sentence]:
    made = []
    for metric in dict.fromkeys(one.metric for one in gains(data)):
        pool = _pool_of(found, metric)
        if pool is None:
            continue
        mine = [one for one in gains(data) if one.metric == metric]
        words = [
            f"{layout.shown(metric, one.gain)} over {one.rival} on {load_spec(one.benchmark).title} "
            f"({pool.reaches(one.gain)})"
            for one in mine
        ]
        text = (
            f"Choosing the epoch on the test set is worth {pool.text} of {METRICS[metric].title} here; that it is "
            f"worth as much as the published gain of {listed(words)}."
        )
        made.append(Sentence(text, GAINS))
    return made


def _claims(data: Data, found: Mapping[tuple[str, str], Pool]) -> tuple[Claim, ...]:
    words, numbers = {}, []
    for one in gains(data):
        if pool := _pool_of(found, one.metric):
            name = f"{one.rival} on {load_spec(one.benchmark).title}"
            words[name] = pool.reaches(one.gain)
            numbers.append(f"{name}: {layout.shown(one.metric, one.gain)} against {pool.text}")
    if not words:
        return ()
    open_ = [name for name, word in words.items() if word == OPEN]
    settle = f"more seeds, for {listed(open_)}" if open_ else ""
    text = "Choosing the epoch on the test set is worth as much as the published gain over"
    return (Claim(text, joined(words), "; ".join(numbers), GAINS, settle),)


def _figure(sets: Sequence[Lines]) -> Figure:
    """A row of panels a data set, a panel a habit, a line a method."""
    heights = [0.45 + 0.17 * len({row for row, _ in tests(lines)}) for lines in sets]
    figure = drawing.page(sum(heights))
    grid = figure.subplots(len(sets), len(HABITS), squeeze=False, sharex="row", sharey="row", height_ratios=heights)
    for lines, line in zip(sets, grid, strict=True):
        found = tests(lines)
        rows = list(dict.fromkeys(row for row, _ in found))
        factor = 100.0 if METRICS[lines.metric].unit == "%" else 1.0
        for axes, (habit, words) in zip(line, HABITS.items(), strict=True):
            drawing.rows(axes, [title(row) for row in rows])
            for place, row in enumerate(rows):
                contrast = found.get((row, habit))
                if contrast is not None and contrast.test:
                    look, test = drawing.look(row[0]), contrast.test
                    axes.plot([factor * test.low, factor * test.high], [place] * 2, color=look.colour, linewidth=1.2)
                    axes.plot(factor * test.difference, place, look.marker, color=look.colour, markersize=4)
            axes.axvline(0, color=drawing.SOFT, linewidth=0.6)
            axes.set_title(f"{lines.place}\n{words}" if habit == "test" else f"\n{words}", fontsize=6.8)
        metric = METRICS[lines.metric]
        line[0].set_xlabel(f"{metric.title}{f' ({metric.unit})' if metric.unit else ''}", fontsize=6.8)
    notes = ("Points: mean over seeds of the score with the habit less the score without; lines: 95 % t intervals.",)
    drawing.title(figure, "What habits of evaluation are worth · real data", notes)
    return figure


SECTION = Section("habits", "Habits of evaluation", build)
