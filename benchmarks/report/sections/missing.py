"""Missing modalities: scores of every subset, and what each modality contributes, by its Shapley value.

The value of a coalition of modalities is the main metric of trained weights when only they are present (an error
counts negative); the others are zeros, or the mean of the training data. A Shapley value (Shapley 1953) is the mean
over all orders of what a modality adds to those before it; over all modalities they sum to what all together add to
none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import ceil, factorial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks import drawing
from benchmarks.metrics import METRICS
from benchmarks.report import layout
from benchmarks.report.collect import FULL, OURS, Row
from benchmarks.report.compare import Contrast, declared_test
from benchmarks.report.figures.sheet import scale
from benchmarks.report.layout import DASH, heading, listed, mean_sd, number, shown, signed
from benchmarks.report.sections import trained
from benchmarks.report.sections.analyses import number as read
from benchmarks.report.sections.data import Data
from benchmarks.report.sections.frame import Claim, Made, Section, Sentence, drawn, gap, joined, real
from benchmarks.report.sections.trained import Lines, cells, compared_cells, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILLS = {"zero": "zeros", "mean": "training mean"}
MAIN_FILL = "zero"
SCORES, SHARES = "scores", "shapley"
NONE = "none"
CLAIM = "CLCR loses least when a modality is missing"
INTRO = (
    "Scores of trained weights on the test split when only some modalities are present, the others filled with zeros "
    "or with the mean of the training data. Mean ± standard deviation over runs (their number).",
)
HOW = (
    "Shapley values: mean over all orders of what a modality adds to those before it, exact over all subsets; of an "
    "error, what it takes off. They sum to the score with all modalities less the score with none. Share: part of that "
    "sum, of the means over runs; a negative one says that the modality harms on average.",
)
LOSS = (
    "Loss: mean score over the subsets that lack one modality less the score with all of them, in the same run; zeros "
    "in the place of what is missing. The family is the methods that read every modality, on each data set.",
)
LOSSES = "losses"
Coalition = frozenset[str]


def shapley(worth: Mapping[Coalition, float], players: Sequence[str]) -> dict[str, float]:
    """Exact Shapley values; worth: of every coalition of the players, the empty one too. KeyError where one lacks."""
    n = len(players)
    found = {}
    for player in players:
        others = [name for name in players if name != player]
        found[player] = sum(
            factorial(size) * factorial(n - size - 1) / factorial(n)
            * (worth[frozenset(some) | {player}] - worth[frozenset(some)])
            for size in range(n)
            for some in combinations(others, size)
        )  # fmt: skip
    return found


def coalitions(values: Mapping[str, Any], fill: str, modalities: Sequence[str], metric: str) -> dict[Coalition, float]:
    """The score of each subset that a line holds."""
    found = {}
    for size in range(len(modalities) + 1):
        for some in combinations(modalities, size):
            score = read(values, fill, "+".join(some), metric)
            if score is not None:
                found[frozenset(some)] = score
    return found


def runs_of(lines: Lines, row: Row, fill: str) -> dict[int, dict[Coalition, float]]:
    """By seed; runs that lack a subset are left out."""
    found = {
        seed: coalitions(values, fill, lines.modalities, lines.metric)
        for seed, values in sorted(lines.runs[row].items())
    }
    return {seed: scores for seed, scores in found.items() if len(scores) == 2 ** len(lines.modalities)}


def contributions(lines: Lines, row: Row, fill: str) -> dict[int, dict[str, float]]:
    """Shapley values by seed and modality, positive where a modality helps."""
    sign = 1 if METRICS[lines.metric].direction == "max" else -1
    return {
        seed: shapley({some: sign * score for some, score in scores.items()}, lines.modalities)
        for seed, scores in runs_of(lines, row, fill).items()
    }


def losses(lines: Lines, row: Row) -> dict[int, float]:
    """By seed: mean score over the subsets that lack one modality, less the score with all."""
    every = frozenset(lines.modalities)
    return {
        seed: float(np.mean([scores[every - {name}] for name in every])) - scores[every]
        for seed, scores in runs_of(lines, row, MAIN_FILL).items()
    }


def tests(lines: Lines) -> dict[Row, Contrast]:
    """CLCR's loss against that of each rival."""
    found = {row: losses(lines, row) for row in lines.rows}
    ours = (OURS, FULL)
    rivals = [row for row in trained.fused(lines.rows) if found[row]] if found.get(ours) else []
    return {row: contrast for (_, row), contrast in lines.tested(found, [(ours, row) for row in rivals]).items()}


def build(data: Data) -> Made:
    """The section."""
    sets = [lines for lines in trained.lines(data, "missing") if any(_filled(lines, fill) for fill in FILLS)]
    if not sets:
        return Made(sentences=(Sentence(trained.absent("missing", "scores with missing modalities")),))
    found = {lines.place: tests(lines) for lines in sets}
    tables = (_scores_table(sets), _losses_table(sets, found), _shares_table(sets))
    sentences = [s for lines in sets for s in (*_loss_sentences(lines, found[lines.place]), *_share_sentences(lines))]
    caption = "What each modality contributes to the score of each method: Shapley values"
    return Made(tables, drawn("shapley", _figure(sets)), tuple(sentences), _claims(found, sets), {"shapley": caption})


def _filled(lines: Lines, fill: str) -> list[Row]:
    """Rows with every subset."""
    return [row for row in lines.rows if runs_of(lines, row, fill)]


def _scores_table(sets: Sequence[Lines]) -> layout.Table:
    sections, rows = [], []
    for lines in sets:
        subsets = [
            some for size in range(len(lines.modalities), -1, -1) for some in combinations(lines.modalities, size)
        ]
        for fill, words in FILLS.items():
            texts = []
            for row in _filled(lines, fill):
                runs = runs_of(lines, row, fill)
                told = [mean_sd(lines.metric, [x[frozenset(some)] for x in runs.values()]) for some in subsets]
                texts.append(cells((title(row), *told)))
                rows += [
                    (lines.place, *row, fill, seed, "+".join(some), scores[frozenset(some)])
                    for seed, scores in runs.items()
                    for some in subsets
                ]
            columns = ("Method", *("+".join(some) or NONE for some in subsets))
            name = f"{layout.name_of(lines.group)} · {heading(lines.metric)} · filled with {words}"
            sections.append(layout.Section(name, columns, tuple(texts), notes=lines.notes))
    frame = pd.DataFrame(rows, columns=["place", "method", "variant", "fill", "seed", "present", "value"])
    return real(SCORES, "Scores with missing modalities", INTRO, sections, frame)


def _losses_table(sets: Sequence[Lines], found: Mapping[str, Mapping[Row, Contrast]]) -> layout.Table:
    columns = ("Method", "Loss", "CLCR less this", "p (Holm)", "Needed", "Runs")
    sections, rows = [], []
    for lines in sets:
        texts = []
        for row in _filled(lines, MAIN_FILL):
            mine = losses(lines, row)
            sd = f" ± {shown(lines.metric, float(np.std(list(mine.values()), ddof=1)))}" if len(mine) > 1 else ""
            loss = f"{signed(lines.metric, float(np.mean(list(mine.values()))))}{sd}"
            texts.append(cells((title(row), loss, *compared_cells(found[lines.place].get(row)), str(len(mine)))))
            rows += [(lines.place, *row, seed, value) for seed, value in mine.items()]
        facts = [f"Test: {declared_test(lines.group)}."]
        if found[lines.place]:
            word, settle = _judged(found[lines.place])
            facts.append(f"{CLAIM}: {word}{f' ({settle})' if settle else ''}.")
        name = f"{layout.name_of(lines.group)} · {heading(lines.metric)}"
        sections.append(layout.Section(name, columns, tuple(texts), tuple(facts), lines.notes))
    frame = pd.DataFrame(rows, columns=["place", "method", "variant", "seed", "loss"])
    return real(LOSSES, "What a missing modality costs", LOSS, sections, frame)


def _judged(found: Mapping[Row, Contrast]) -> tuple[str, str]:
    return trained.judged([(title(row), contrast) for row, contrast in found.items()])


def _loss_sentences(lines: Lines, found: Mapping[Row, Contrast]) -> list[Sentence]:
    if not found:
        return []
    means = {row: float(np.mean(list(losses(lines, row).values()))) for row in ((OURS, FULL), *found)}
    told = listed([f"{title(row)} by {signed(lines.metric, mean)}" for row, mean in means.items()])
    word, settle = _judged(found)
    text = f"{lines.place}: without one modality {METRICS[lines.metric].title} changes, {told}; {CLAIM}: {word}"
    return [Sentence(text + (f" ({settle})." if settle else "."), LOSSES)]


def _claims(found: Mapping[str, Mapping[Row, Contrast]], sets: Sequence[Lines]) -> tuple[Claim, ...]:
    words, numbers, open_ = {}, [], []
    for lines in sets:
        if mine := found[lines.place]:
            words[lines.place], settle = _judged(mine)
            told = [f"less {title(row)} {gap(c) if c.test else c.untested}" for row, c in mine.items()]
            numbers.append(f"{lines.place}: {METRICS[lines.metric].title} {', '.join(told)}")
            open_ += [f"{lines.place}: {settle}"] if settle else []
    if not words:
        return ()
    return (Claim(CLAIM, joined(words), "; ".join(numbers), LOSSES, "; ".join(open_)),)


def mean_contributions(lines: Lines, row: Row, fill: str) -> dict[str, float]:
    """Means over runs by modality; empty without runs."""
    found = contributions(lines, row, fill)
    return {name: float(np.mean([own[name] for own in found.values()])) for name in lines.modalities} if found else {}


def shares(means: Mapping[str, float]) -> dict[str, float]:
    """Each part of the sum; empty where nothing is contributed in all."""
    total = sum(means.values())
    return {name: value / total for name, value in means.items()} if total > 0 else {}


def _shares_table(sets: Sequence[Lines]) -> layout.Table:
    columns = ("Method", "Filled with", "Modality", "Shapley value", "Share (%)", "Runs")
    sections, rows = [], []
    for lines in sets:
        texts = []
        for row in lines.rows:
            for fill, words in FILLS.items():
                found = contributions(lines, row, fill)
                parts = shares(mean_contributions(lines, row, fill))
                for name in lines.modalities if found else ():
                    mine = [own[name] for own in found.values()]
                    sd = f" ± {shown(lines.metric, float(np.std(mine, ddof=1)))}" if len(mine) > 1 else ""
                    value = f"{signed(lines.metric, float(np.mean(mine)))}{sd}"
                    texts.append(cells((title(row), words, name, value, _percent(parts, name), str(len(found)))))
                    rows += [(lines.place, *row, fill, seed, name, own[name]) for seed, own in found.items()]
        name = f"{layout.name_of(lines.group)} · {METRICS[lines.metric].title}"
        sections.append(layout.Section(name, columns, tuple(texts), notes=lines.notes))
    frame = pd.DataFrame(rows, columns=["place", "method", "variant", "fill", "seed", "modality", "shapley"])
    return real(SHARES, "What each modality contributes", HOW, sections, frame)


def _percent(parts: Mapping[str, float], name: str) -> str:
    return number(100 * parts[name], 0) if name in parts else DASH


def _share_sentences(lines: Lines) -> list[Sentence]:
    told = []
    for row in ((OURS, FULL), *trained.fused(lines.rows)):
        parts = shares(mean_contributions(lines, row, MAIN_FILL)) if row in lines.runs else {}
        if parts:
            told.append(f"{title(row)} {listed([f'{_percent(parts, name)} % to {name}' for name in parts])}")
    if not told:
        return []
    return [Sentence(f"{lines.place}: of what all modalities add to none, {'; '.join(told)}.", SHARES)]


def _figure(sets: Sequence[Lines]) -> Figure:
    """A panel a data set: a group of bars for each method, a bar for each modality, a whisker of one deviation."""
    columns = 2
    lines_of = ceil(len(sets) / columns)
    figure = drawing.page(2.2 * lines_of)
    flat = [axes for line in figure.subplots(lines_of, columns, squeeze=False) for axes in line]
    for axes in flat[len(sets) :]:
        axes.set_axis_off()
    for axes, lines in zip(flat, sets, strict=False):
        _panel(axes, lines)
    notes = (
        "Exact Shapley values over all subsets of modalities, missing ones filled with zeros; bars: means over seeds, "
        "whiskers: ± one standard deviation. They sum to the score with all modalities less that with none.",
    )
    drawing.title(figure, "What each modality contributes · real data", notes)
    return figure


def _panel(axes: Axes, lines: Lines) -> None:
    rows = [row for row in ((OURS, FULL), *trained.fused(lines.rows)) if row in _filled(lines, MAIN_FILL)]
    width, factor = 0.8 / max(len(lines.modalities), 1), scale(lines.metric)
    colours = ("#0072B2", "#E69F00", "#009E73")
    for place, name in enumerate(lines.modalities):
        found = [[factor * own[name] for own in contributions(lines, row, MAIN_FILL).values()] for row in rows]
        middles = [x + (place - (len(lines.modalities) - 1) / 2) * width for x in range(len(rows))]
        deviations = [float(np.std(x, ddof=1)) if len(x) > 1 else 0.0 for x in found]
        means = [float(np.mean(x)) for x in found]
        axes.bar(middles, means, 0.9 * width, color=colours[place % len(colours)], label=name)
        axes.errorbar(middles, means, deviations, fmt="none", ecolor=drawing.INK, elinewidth=0.7)
    axes.axhline(0, color=drawing.SOFT, linewidth=0.6)
    axes.set_xticks(range(len(rows)), labels=[title(row) for row in rows])
    unit = f" ({METRICS[lines.metric].unit})" if METRICS[lines.metric].unit else ""
    taken = "" if METRICS[lines.metric].direction == "max" else ", taken off"
    axes.set_ylabel(f"{METRICS[lines.metric].title}{unit}{taken}", fontsize=6.8)
    axes.set_title(lines.place)
    axes.legend(fontsize=6.5, loc="best")
    axes.grid(axis="y")


SECTION = Section("missing", "Missing modalities", build)
