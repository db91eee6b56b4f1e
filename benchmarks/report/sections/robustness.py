"""Noise: what is left of each method's score as tokens get noisy, and whether CLCR degrades least.

Noise is Gaussian, its standard deviation sigma in units of the modality's training deviation; weights are those of the
main tables. A curve is summed up by its mean over the range of noise: the area under score against log2(1 + sigma) by
the trapezoid rule, over the width of that range, so that a method that loses nothing has its clean score. *Change* is
that area less the clean score of the same run; *kept* its share, for errors the other way round, so that 1 is no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import ceil, log2
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks import drawing
from benchmarks.metrics import METRICS
from benchmarks.report import layout
from benchmarks.report.collect import FULL, OURS, Row
from benchmarks.report.compare import Contrast, declared_test
from benchmarks.report.figures.cost import merged_looks
from benchmarks.report.figures.sheet import scale
from benchmarks.report.layout import heading, listed, mean_sd, number, shown, signed
from benchmarks.report.sections import trained
from benchmarks.report.sections.analyses import number as read
from benchmarks.report.sections.data import Data
from benchmarks.report.sections.frame import Claim, Made, Section, Sentence, drawn, gap, joined, real
from benchmarks.report.sections.trained import Lines, cells, compared_cells, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIGMAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
ALL = "all"
KEYS = 5  # columns of the legend
CLAIM = "CLCR degrades least under Gaussian noise on all modalities"
CURVES, AREAS = "curves", "areas"
INTRO = (
    "Gaussian noise on the test tokens of trained weights; sigma in units of the modality's standard deviation on "
    "training data. Means over seeds.",
)
HOW = (
    "Mean over noise: area under score against log2(1 + sigma) for sigma from 0 to 4, trapezoid rule, divided by the "
    "width of the range. Change: that mean less the clean score of the same run. Kept: their ratio (of an error the "
    "inverse), 100 % for a method that loses nothing.",
    "Differences: change of CLCR less change of the other method; the family is the methods that read every modality, "
    "for each data set and each modality that is noisy. A method that has little to lose changes little: read the "
    "mean over noise beside it.",
)
Curve = tuple[float, ...]


def area(values: Sequence[float], sigmas: Sequence[float] = SIGMAS) -> float:
    """Mean of a curve over log2(1 + sigma), by the trapezoid rule; values (n,) at rising sigmas (n,), n >= 2."""
    places = np.log2(1.0 + np.asarray(sigmas))
    return float(np.trapezoid(np.asarray(values, dtype=np.float64), places) / (places[-1] - places[0]))


def kept(metric: str, values: Sequence[float]) -> float:
    """Share of the clean score, the first of the values, that is left on average; 1 where nothing is lost."""
    clean, left = values[0], area(values)
    above, below = (left, clean) if METRICS[metric].direction == "max" else (clean, left)
    return above / below if below else float("nan")


def curve(values: Mapping[str, Any], noisy: str, metric: str) -> Curve | None:
    """The scores of a run at ``SIGMAS``; None unless all are there."""
    found = [read(values, noisy, f"{sigma:g}", metric) for sigma in SIGMAS]
    return tuple(x for x in found if x is not None) if all(x is not None for x in found) else None


def curves(lines: Lines) -> dict[tuple[Row, str], dict[int, Curve]]:
    """By row and noisy modality ("all", then the protocol's), by seed."""
    found: dict[tuple[Row, str], dict[int, Curve]] = {}
    for row, noisy in product(lines.rows, (ALL, *lines.modalities)):
        runs = {seed: curve(values, noisy, lines.metric) for seed, values in sorted(lines.runs[row].items())}
        if whole := {seed: values for seed, values in runs.items() if values}:
            found[row, noisy] = whole
    return found


def tests(lines: Lines) -> dict[tuple[Row, str], Contrast]:
    """CLCR's change against that of each rival, a family for each noisy modality."""
    found = curves(lines)
    made: dict[tuple[Row, str], Contrast] = {}
    for noisy in (ALL, *lines.modalities):
        changes = {
            row: {seed: area(values) - values[0] for seed, values in runs.items()}
            for (row, name), runs in found.items()
            if name == noisy
        }
        pairs = [((OURS, FULL), rival) for rival in trained.fused(list(changes))] if (OURS, FULL) in changes else []
        made |= {(rival, noisy): contrast for (_, rival), contrast in lines.tested(changes, pairs).items()}
    return made


def build(data: Data) -> Made:
    """The section."""
    sets = [lines for lines in trained.lines(data, "robustness") if curves(lines)]
    if not sets:
        return Made(sentences=(Sentence(trained.absent("robustness", "scores under noise")),))
    found = {lines.place: tests(lines) for lines in sets}
    tables = (_curves_table(sets), _areas_table(sets, found))
    sentences = [sentence for lines in sets for sentence in _sentences(lines, found[lines.place])]
    caption = "Score against noise: means over seeds, bands of one standard deviation"
    figures = drawn("noise", _figure(sets))
    return Made(tables, figures, tuple(sentences), _claims(sets, found), {"noise": caption})


def _curves_table(sets: Sequence[Lines]) -> layout.Table:
    sections, rows = [], []
    for lines in sets:
        texts = []
        for (row, noisy), runs in curves(lines).items():
            means = np.mean(list(runs.values()), axis=0)
            texts.append(cells((title(row), noisy, str(len(runs)), *(shown(lines.metric, x) for x in means))))
            rows += [
                (lines.place, *row, noisy, seed, sigma, x)
                for seed, values in runs.items()
                for sigma, x in zip(SIGMAS, values, strict=True)
            ]
        columns = ("Method", "Noise on", "Runs", *(f"σ = {sigma:g}" for sigma in SIGMAS))
        name = f"{layout.name_of(lines.group)} · {heading(lines.metric)}"
        sections.append(layout.Section(name, columns, tuple(texts), notes=lines.notes))
    frame = pd.DataFrame(rows, columns=["place", "method", "variant", "noisy", "seed", "sigma", "value"])
    return real(CURVES, "Scores under noise", INTRO, sections, frame)


def _areas_table(sets: Sequence[Lines], found: Mapping[str, Mapping[tuple[Row, str], Contrast]]) -> layout.Table:
    columns = ("Method", "Noise on", "Mean over noise", "Change", "Kept (%)", "CLCR less this", "p (Holm)", "Needed")
    sections, rows = [], []
    for lines in sets:
        texts = []
        for (row, noisy), runs in curves(lines).items():
            areas, shares = [area(x) for x in runs.values()], [kept(lines.metric, x) for x in runs.values()]
            changes = [a - x[0] for a, x in zip(areas, runs.values(), strict=True)]
            contrast = found[lines.place].get((row, noisy))
            middle = (
                mean_sd(lines.metric, areas),
                _change(lines.metric, changes),
                number(100 * float(np.mean(shares)), 1),
            )
            texts.append(cells((title(row), noisy, *middle, *compared_cells(contrast))))
            values = (float(np.mean(areas)), float(np.mean(changes)), float(np.mean(shares)))
            test = contrast.test if contrast else None
            tested = (test.difference, test.low, test.high, test.p) if test else (None,) * 4
            p_holm = contrast.p_holm if contrast and test else None
            rows.append((lines.place, *row, noisy, len(runs), *values, *tested, p_holm))
        facts = (f"Test: {declared_test(lines.group)}.", *_facts(found[lines.place]))
        name = f"{layout.name_of(lines.group)} · {heading(lines.metric)}"
        sections.append(layout.Section(name, columns, tuple(texts), facts, lines.notes))
    names = ["place", "method", "variant", "noisy", "n", "mean_over_noise", "change", "kept"]
    frame = pd.DataFrame(rows, columns=[*names, "difference", "low", "high", "p", "p_holm"])
    return real(AREAS, "What noise costs", HOW, sections, frame)


def _change(metric: str, changes: Sequence[float]) -> str:
    """A mean with its sign and spread."""
    spread = f" ± {shown(metric, float(np.std(changes, ddof=1)))}" if len(changes) > 1 else ""
    return f"{signed(metric, float(np.mean(changes)))}{spread}"


def _verdict(found: Mapping[tuple[Row, str], Contrast]) -> tuple[str, str]:
    """On all modalities at once, against each rival."""
    return trained.judged([(title(row), contrast) for (row, noisy), contrast in found.items() if noisy == ALL])


def _facts(found: Mapping[tuple[Row, str], Contrast]) -> tuple[str, ...]:
    if not found:
        return ("No rival with CLCR's seeds.",)
    word, settle = _verdict(found)
    return (f"{CLAIM}: {word}.", *([f"To settle it: {settle}."] if settle else []))


def _sentences(lines: Lines, found: Mapping[tuple[Row, str], Contrast]) -> list[Sentence]:
    metric, mine = METRICS[lines.metric], curves(lines)
    rivals = [row for row in trained.fused(lines.rows) if (row, ALL) in mine]
    if ((OURS, FULL), ALL) not in mine or not rivals:
        return []
    changes = {
        row: float(np.mean([area(x) - x[0] for x in mine[row, ALL].values()])) for row in ((OURS, FULL), *rivals)
    }
    least = (max if metric.direction == "max" else min)(changes, key=lambda row: changes[row])
    word, settle = _verdict(found)
    others = listed([f"{title(row)} by {signed(lines.metric, changes[row])}" for row in rivals])
    text = (
        f"{lines.place}: noise on all modalities changes {metric.title} of CLCR by "
        f"{signed(lines.metric, changes[OURS, FULL])} on average over the range, {others}; {title(least)} changes "
        f"least. That CLCR degrades least: {word}"
    )
    told = [Sentence(text + (f" ({settle})." if settle else "."), AREAS)]
    marked = {sign: [title(r) for (r, n), c in found.items() if n == ALL and c.better == sign] for sign in (1, -1)}
    for sign, words in ((1, "less"), (-1, "more")):
        if marked[sign]:
            names = listed(marked[sign])
            told.append(Sentence(f"{lines.place}: CLCR degrades significantly {words} than {names}.", AREAS))
    return told


def _claims(sets: Sequence[Lines], found: Mapping[str, Mapping[tuple[Row, str], Contrast]]) -> tuple[Claim, ...]:
    words, numbers, open_ = {}, [], []
    for lines in sets:
        mine = {row: contrast for (row, noisy), contrast in found[lines.place].items() if noisy == ALL}
        if mine:
            words[lines.place], settle = _verdict(found[lines.place])
            told = [f"less {title(row)} {gap(c) if c.test else c.untested}" for row, c in mine.items()]
            numbers.append(f"{lines.place}: {METRICS[lines.metric].title} {', '.join(told)}")
            open_ += [f"{lines.place}: {settle}"] if settle else []
    if not words:
        return ()
    return (Claim(CLAIM, joined(words), "; ".join(numbers), AREAS, "; ".join(open_)),)


def _figure(sets: Sequence[Lines]) -> Figure:
    """A row of panels a data set: noise on all modalities, then on each."""
    widest = max(1 + len(lines.modalities) for lines in sets)
    looks = merged_looks({row[0] for lines in sets for row in lines.rows if row[1] == FULL})
    legend = 0.2 * ceil(len(looks) / KEYS) + 0.12
    figure = drawing.page(1.65 * len(sets) + legend)
    grid = figure.subplots(
        len(sets) + 1, widest, squeeze=False, sharey="row", height_ratios=[legend, *[1.65] * len(sets)]
    )
    for axes in grid[0]:
        axes.set_axis_off()
    keys = drawing.keys(looks)
    shown_keys = grid[0][0].legend(handles=keys, loc="upper left", ncols=KEYS, bbox_to_anchor=(-0.3, 1.0), borderpad=0)
    shown_keys.set_in_layout(False)
    for lines, line in zip(sets, grid[1:], strict=True):
        panels = (ALL, *lines.modalities)
        for axes in line[len(panels) :]:
            axes.set_axis_off()
        for axes, noisy in zip(line, panels, strict=False):
            _panel(axes, lines, noisy)
        line[0].set_ylabel(f"{lines.place}\n{heading(lines.metric)}", fontsize=6.8)
    notes = (
        "Gaussian noise on test tokens of the trained weights, σ in units of the modality's training deviation, axis "
        "linear in log2(1 + σ). Lines: means over seeds; bands: ± one standard deviation.",
    )
    drawing.title(figure, "Score under noise · real data", notes)
    return figure


def _panel(axes: Axes, lines: Lines, noisy: str) -> None:
    places = [log2(1 + sigma) for sigma in SIGMAS]
    factor = scale(lines.metric)
    for (row, name), runs in curves(lines).items():
        if name != noisy or row[1] != FULL:
            continue
        look, values = drawing.look(row[0]), factor * np.array(list(runs.values()))
        mean = values.mean(axis=0)
        axes.plot(places, mean, color=look.colour, marker=look.marker, markersize=3, linestyle=look.dash, linewidth=1)
        if len(values) > 1:
            sd = values.std(axis=0, ddof=1)
            axes.fill_between(places, mean - sd, mean + sd, color=look.colour, alpha=0.12, linewidth=0)
    axes.set_title("all modalities" if noisy == ALL else noisy, fontsize=7)
    axes.set_xticks(places, labels=[f"{sigma:g}" if sigma != SIGMAS[1] else "" for sigma in SIGMAS], fontsize=6)
    axes.set_xlabel("noise σ", fontsize=6.5)
    if METRICS[lines.metric].direction == "min" and not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.grid(axis="y")


SECTION = Section("robustness", "Noise", build)
