"""Gates: which modality decides, what the exchange adds, what the budget learned, and what collapsed.

From the analysis ``gates`` of CLCR's trained weights on the test split; a run's numbers are means over its folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks import drawing
from benchmarks.report import layout
from benchmarks.report.collect import FULL, OURS
from benchmarks.report.layout import DASH, count, listed, number
from benchmarks.report.sections import trained
from benchmarks.report.sections.analyses import number as read
from benchmarks.report.sections.data import Data
from benchmarks.report.sections.frame import FAILED, HELD, OPEN, Claim, Made, Section, Sentence, drawn, joined, real
from benchmarks.report.sections.signs import Signed, signs
from benchmarks.report.sections.trained import Lines, cells, title, values_of
from benchmarks.report.statistics import ALPHA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = 3
LOWEST = 0.1  # of the highest entropy of omega: below it a run's levels have collapsed into one
INERT = 0.01  # of all losses: a term below this share moves nothing
EXPECTED = {"cmu_mosi": "language", "kinetics_sounds": "vision"}  # the paper's claims on the largest modality weight
WEIGHTS, TOKENS, INERTIA = "weights", "exchange", "inert"
PI = (
    "pi: weight of a modality on the shared path; eta: gate of its private part. Means over test samples, then mean ± "
    "standard deviation over seeds. Largest: runs in which the modality has the largest pi.",
    "That a modality has the largest pi: paired t test of its pi against each other modality's, Holm over them; held "
    "where all are significant, did not hold where another modality's is significantly larger, else undecided.",
)
EXCHANGE = (
    "Participation: share of the real tokens with a weight above 0; rho: learned share of the budget; binds: share of "
    "samples whose budget binds; exchange: norm of what the exchange adds to the tokens of a modality over the norm "
    "of the tokens; ranks: effective rank of the summaries. Means over levels and modalities, mean ± standard "
    "deviation over seeds.",
)
DEAD = (
    f"Collapsed: the entropy of omega, mean over test samples, is below {LOWEST:g} of its highest value, ln 3 = "
    f"{log(3):.3f} nats; interval: Clopper and Pearson, 95 %. Budget's gradient: root mean square gradient of its "
    "parameters over that of the encoder's, on one training batch with the selected weights; geometric mean and 95 % t "
    "interval of the logarithms.",
    "L_mix: its value on the test split times its weight in the loss, over the sum of all losses in training at the "
    f"selected epoch. Inert: the 95 % t interval of that share lies below {100 * INERT:g} %.",
)


@dataclass(frozen=True)
class Largest:
    """Whether a modality has the largest pi: tests against each other, by name; wins of runs."""

    modality: str
    wins: int
    runs: int
    tests: Mapping[str, Signed]

    @property
    def verdict(self) -> str:
        """By the declared test."""
        return trained.every([one.word for one in self.tests.values()])

    @property
    def needed(self) -> str:
        """What would settle it, by the modalities that are open."""
        return listed([f"{one.needed} against {name}" for name, one in self.tests.items() if one.word == OPEN])


def largest(pi: Mapping[int, Mapping[str, float]], modality: str) -> Largest:
    """Tests that ``modality`` has the largest pi; pi: by seed, then by modality."""
    names = [name for name in next(iter(pi.values())) if name != modality] if pi else []
    wins = sum(all(own[modality] > own[name] for name in names) for own in pi.values())
    gaps = {name: [own[modality] - own[name] for own in pi.values()] for name in names}
    return Largest(modality, wins, len(pi), signs(gaps))


def build(data: Data) -> Made:
    """The section."""
    sets = [lines for lines in trained.lines(data, "gates", trained.ours) if (OURS, FULL) in lines.runs]
    if not sets:
        return Made(sentences=(Sentence(trained.absent("gates", "gates and weights")),))
    inert = _inert_table(data, sets)
    tables = (_weights_table(sets), _exchange_table(sets), inert[0])
    sentences = [s for lines in sets for s in (*_weight_sentences(lines), *_exchange_sentences(lines))]
    caption = "Weight of each modality on the shared path and of each level, every seed a point"
    figures = drawn("weights", _figure(sets))
    return Made(tables, figures, (*sentences, *inert[1]), _claims(sets), {"weights": caption})


def weights(lines: Lines, name: str, row: tuple[str, str] = (OURS, FULL)) -> dict[int, dict[str, float]]:
    """pi or eta by seed and modality; runs that lack one are left out."""
    found: dict[int, dict[str, float]] = {}
    for seed, values in sorted(lines.runs.get(row, {}).items()):
        own = {m: read(values, name, m) for m in lines.modalities}
        if all(x is not None for x in own.values()):
            found[seed] = {m: x for m, x in own.items() if x is not None}
    return found


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation."""
    if not len(values):
        return DASH
    sd = f" ± {number(float(np.std(values, ddof=1)), digits)}" if len(values) > 1 else ""
    return f"{number(float(np.mean(values)), digits)}{sd}"


def _best(lines: Lines) -> Largest:
    """The claim's modality where the paper makes one, else the one with the largest mean."""
    pi = weights(lines, "pi")
    means = {m: np.mean([own[m] for own in pi.values()]) for m in lines.modalities} if pi else {}
    claimed = EXPECTED.get(lines.group.key.benchmark, "")
    return largest(pi, claimed if claimed in lines.modalities else max(means, key=lambda m: means[m], default=""))


def _weights_table(sets: Sequence[Lines]) -> layout.Table:
    columns = ("Method", "Modality", "pi", "Largest", "Difference to it", "p (Holm)", "eta", "Runs")
    sections, rows = [], []
    for lines in sets:
        texts = []
        best = _best(lines)
        for row in lines.rows:
            pi, eta = weights(lines, "pi", row), weights(lines, "eta", row)
            if not pi and not eta:
                continue
            for m in lines.modalities:
                mine, gate = ([own[m] for own in found.values()] for found in (pi, eta))
                wins = sum(own[m] == max(own.values()) for own in pi.values())
                test = best.tests.get(m) if row == (OURS, FULL) else None
                gap, p = (test.gap(), test.p) if test else (DASH, DASH)
                share = f"{wins} of {len(pi)}" if pi else DASH
                texts.append(
                    cells((title(row), m, spread(mine), share, gap, p, spread(gate), str(len(lines.runs[row]))))
                )
                rows += [(lines.place, *row, m, seed, own[m], eta.get(seed, {}).get(m)) for seed, own in pi.items()]
        facts = [f"That {best.modality} has the largest pi: {best.verdict}."] if best.modality else []
        facts += [f"To settle it: {best.needed}."] if best.modality and best.verdict == OPEN else []
        name = layout.name_of(lines.group)
        sections.append(layout.Section(name, columns, tuple(texts), tuple(facts), lines.notes))
    frame = pd.DataFrame(rows, columns=["place", "method", "variant", "modality", "seed", "pi", "eta"])
    return real(WEIGHTS, "Weights of the modalities", PI, sections, frame)


def _weight_sentences(lines: Lines) -> list[Sentence]:
    best, pi = _best(lines), weights(lines, "pi")
    if not best.modality or not pi:
        return []
    told = listed([f"{spread([own[m] for own in pi.values()])} on {m}" for m in lines.modalities])
    word = f"{best.verdict} ({best.needed})" if best.verdict == OPEN else best.verdict
    text = (
        f"{lines.place}: the shared path puts a weight of {told}; {best.modality} has the largest in {best.wins} of "
        f"{best.runs} runs. That {best.modality} has the largest: {word}."
    )
    return [Sentence(text, WEIGHTS)]


def mean_of(values: Mapping[str, Any], name: str) -> float | None:
    """Mean of a number, of a list by level or of lists by modality; None where a variant lacks it."""
    found = _flat(values.get(name))
    return float(np.mean(found)) if found else None


def _flat(value: object) -> list[float]:
    if isinstance(value, Mapping):
        return [x for item in value.values() for x in _flat(item)]
    if isinstance(value, list):
        return [x for item in value for x in _flat(item)]
    return [float(value)] if isinstance(value, int | float) else []


SHOWN = {
    "participation": "Participation",
    "rho": "rho",
    "binds": "Binds",
    "exchange_share": "Exchange",
    "rank_shared": "Rank, shared",
    "rank_private": "Rank, private",
}


def _exchange_table(sets: Sequence[Lines]) -> layout.Table:
    sections, rows = [], []
    for lines in sets:
        texts = []
        for row in lines.rows:
            found = {name: values_of(lines.runs[row], lambda v, n=name: mean_of(v, n)) for name in SHOWN}  # type: ignore[misc]
            texts.append(cells((title(row), *(spread(list(own.values())) for own in found.values()))))
            rows += [
                (lines.place, *row, seed, name, modality, level, x)
                for seed, values in sorted(lines.runs[row].items())
                for name in SHOWN
                for modality, level, x in _long(values.get(name))
            ]
        name = layout.name_of(lines.group)
        sections.append(layout.Section(name, ("Method", *SHOWN.values()), tuple(texts), notes=lines.notes))
    names = ["place", "method", "variant", "seed", "name", "modality", "level", "value"]
    return real(TOKENS, "Exchange and budget", EXCHANGE, sections, pd.DataFrame(rows, columns=names))


def _long(value: object, modality: str = "") -> list[tuple[str, int, float]]:
    """(modality, level from 1, value) of lists by level."""
    if isinstance(value, Mapping):
        return [row for name, item in value.items() for row in _long(item, str(name))]
    return [(modality, level, float(x)) for level, x in enumerate(value, 1)] if isinstance(value, list) else []


def _exchange_sentences(lines: Lines) -> list[Sentence]:
    runs = lines.runs[OURS, FULL]
    found = {name: list(values_of(runs, lambda v, n=name: mean_of(v, n)).values()) for name in SHOWN}  # type: ignore[misc]
    if not found["participation"] or not found["exchange_share"]:
        return []
    text = (
        f"{lines.place}: {spread(found['participation'])} of the tokens take part (rho {spread(found['rho'])}), the "
        f"exchange adds {spread(found['exchange_share'])} of the norm of the tokens, and effective ranks are "
        f"{spread(found['rank_shared'])} (shared) and {spread(found['rank_private'])} (private)."
    )
    return [Sentence(text, TOKENS)]


def collapsed(runs: Mapping[int, Mapping[str, Any]]) -> tuple[int, int]:
    """Runs whose entropy of omega is below the declared threshold, and runs that have one."""
    entropies = values_of(runs, lambda values: read(values, "omega_entropy"))
    return sum(x < LOWEST * log(LEVELS) for x in entropies.values()), len(entropies)


def budget_ratio(values: Mapping[str, Any]) -> float | None:
    """Root mean square gradient of the budget's parameters over that of the encoder; None without either."""
    parts = values.get("gradient")
    parts = parts if isinstance(parts, Mapping) else {}
    budget = [float(x) for name, x in parts.items() if name.split(".")[0] == "budget"]
    encoder = read(parts, "hierarchy")
    return float(np.sqrt(np.mean(np.square(budget)))) / encoder if budget and encoder else None


def geometric(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of positive numbers with the 95 % t interval of the logarithms; nan where n < 2."""
    logs = np.log(values)
    half = float(stats.t.ppf(1 - ALPHA / 2, len(logs) - 1) * stats.sem(logs)) if len(logs) > 1 else float("nan")
    middle = float(logs.mean())
    return exp(middle), exp(middle - half), exp(middle + half)


def proportion(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Clopper and Pearson, Biometrika 26, 1934)."""
    found = stats.binomtest(k, n).proportion_ci(1 - ALPHA, method="exact")
    return float(found.low), float(found.high)


def mix_shares(data: Data, lines: Lines) -> dict[int, float]:
    """By seed: L_mix times its weight over the sum of all losses in training at the selected epoch."""
    kept = data.curves(lines.group.key.benchmark)
    by_digest = {(whose[0], whose[1]): one for whose, one in kept.items()}
    found: dict[int, float] = {}
    for key, record in data.records.items():
        if f"{key.benchmark}.{key.protocol}" != lines.place or (key.method, key.variant) != (OURS, FULL):
            continue
        if (key.data, key.profile) != (lines.group.key.data, lines.group.key.profile):
            continue
        mix, course = read(lines.runs[OURS, FULL].get(key.seed, {}), "mix"), by_digest.get((key, record.digest))
        weight = read(record.what, "config", "method", "lambda_inter")
        epochs = record.selection.get("epochs", [record.selection.get("epoch", 0)])
        if mix is None or weight is None or course is None or len(epochs) != len(course.folds):
            continue
        losses = [fold.loss[epoch - 1] for fold, epoch in zip(course.folds, epochs, strict=True)]
        found[key.seed] = weight * mix / float(np.mean(losses))
    return found


def _inert_table(data: Data, sets: Sequence[Lines]) -> tuple[layout.Table, list[Sentence]]:
    columns = ("Data set", "Collapsed", "Share (%)", "Entropy of omega", "Budget's gradient", "L_mix (%)", "Runs")
    texts, rows, sentences, notes = [], [], [], []
    for lines in sets:
        runs = lines.runs[OURS, FULL]
        entropy = list(values_of(runs, lambda values: read(values, "omega_entropy")).values())
        fallen, n = collapsed(runs)
        ratios = list(values_of(runs, budget_ratio).values())
        shares = mix_shares(data, lines)
        told = (_share(fallen, n), _ratio(ratios), _percent(list(shares.values())))
        middle = (f"{fallen} of {n}" if n else DASH, told[0], spread(entropy))
        texts.append(cells((lines.place, *middle, *told[1:], str(len(runs)))))
        rows.append((lines.place, n, fallen, *(float(np.mean(x)) if len(x) else None for x in (entropy, ratios)),
                     float(np.mean(list(shares.values()))) if shares else None))  # fmt: skip
        sentences += _inert_sentences(lines.place, (fallen, n), ratios, list(shares.values()), told)
        notes += [f"{lines.place}: {note}" for note in lines.notes]
    section = layout.Section("CLCR, all data sets", columns, tuple(texts), notes=tuple(notes))
    frame = pd.DataFrame(rows, columns=["place", "n", "collapsed", "omega_entropy", "budget_ratio", "mix_share"])
    return real(INERTIA, "What collapsed, what is inert", DEAD, (section,), frame), sentences


def _share(k: int, n: int) -> str:
    if not n:
        return DASH
    low, high = proportion(k, n)
    return f"{number(100 * k / n, 0)} [{number(100 * low, 0)}, {number(100 * high, 0)}]"


def _ratio(ratios: Sequence[float]) -> str:
    if not ratios or min(ratios) <= 0:
        return DASH
    middle, low, high = geometric(ratios)
    return f"{middle:.2g} [{low:.2g}, {high:.2g}]" if len(ratios) > 1 else f"{middle:.2g}"


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with its 95 % t interval; nan bounds where n < 2."""
    half = float(stats.t.ppf(1 - ALPHA / 2, len(values) - 1) * stats.sem(values)) if len(values) > 1 else float("nan")
    middle = float(np.mean(values))
    return middle, middle - half, middle + half


def _percent(shares: Sequence[float]) -> str:
    if not shares:
        return DASH
    middle, low, high = (number(100 * x, 2) for x in mean_interval(shares))
    return f"{middle} [{low}, {high}]"


def _inert_sentences(
    place: str, fallen: tuple[int, int], ratios: Sequence[float], shares: Sequence[float], told: Sequence[str]
) -> list[Sentence]:
    made = []
    if fallen[1]:
        where = f"in {fallen[0]} of {count(fallen[1], 'run')}"
        made.append(f"{place}: the weights of the levels collapsed into one {where} ({told[0]} %).")
    if ratios and told[1] != DASH:
        made.append(f"{place}: the budget's gradient is {told[1]} of the encoder's.")
    if shares:
        _, low, high = mean_interval(shares)
        word = HELD if high < INERT else FAILED if low >= INERT else OPEN
        made.append(f"{place}: L_mix makes {told[2]} % of all losses; that it is inert: {word}.")
    return [Sentence(text, INERTIA) for text in made]


def _claims(sets: Sequence[Lines]) -> tuple[Claim, ...]:
    made = []
    for benchmark, modality in EXPECTED.items():
        mine = [lines for lines in sets if lines.group.key.benchmark == benchmark and modality in lines.modalities]
        found = {lines.place: _best(lines) for lines in mine if weights(lines, "pi")}
        if not found:
            continue
        numbers = [f"{place}: in {one.wins} of {one.runs} runs" for place, one in found.items()]
        settle = [f"{place}: {one.needed}" for place, one in found.items() if one.verdict == OPEN]
        words = {place: one.verdict for place, one in found.items()}
        text = f"{modality.capitalize()} has the largest modality weight on {mine[0].group.spec.title}"
        made.append(Claim(text, joined(words), "; ".join(numbers), WEIGHTS, "; ".join(settle)))
    return tuple(made)


def _figure(sets: Sequence[Lines]) -> Figure:
    """Two panels a data set: pi by modality, omega by level."""
    figure = drawing.page(1.35 * len(sets) + 0.1)
    grid = figure.subplots(len(sets), 2, squeeze=False, sharey=True)
    for lines, (left, right) in zip(sets, grid, strict=True):
        pi = weights(lines, "pi")
        omega = [v["omega"] for v in lines.runs[OURS, FULL].values() if isinstance(v.get("omega"), list)]
        _points(left, lines.modalities, [list(own.values()) for own in pi.values()])
        _points(right, [f"level {level}" for level in range(1, LEVELS + 1)], omega)
        left.set_ylabel("weight")
        left.set_title(f"{lines.place}: modalities (pi)")
        right.set_title("levels (omega)")
    notes = ("Points: seeds, means over test samples; bars: means over seeds. Dotted: equal weights.",)
    drawing.title(figure, "Weights of modalities and levels · CLCR, real data", notes)
    return figure


def _points(axes: Any, names: Sequence[str], runs: Sequence[Sequence[float]]) -> None:
    look = drawing.look(OURS)
    for place in range(len(names)):
        column = [run[place] for run in runs]
        if column:
            offsets = np.linspace(-0.12, 0.12, len(column)) if len(column) > 1 else [0.0]
            axes.plot([place + o for o in offsets], column, "o", color=look.colour, markersize=3, alpha=0.8)
            axes.plot([place - 0.25, place + 0.25], [np.mean(column)] * 2, color=drawing.INK, linewidth=1.2)
    axes.axhline(1 / max(len(names), 1), color=drawing.SOFT, linewidth=0.6, linestyle=":")
    axes.set_xticks(range(len(names)), labels=list(names))
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(axis="y")


SECTION = Section("gates", "Gates and weights", build)
