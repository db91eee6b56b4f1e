"""Mechanism: whether the parts of CLCR hold what they are named after, on twins, whose true factors are known.

SYNTHETIC: what is said here is said of the twins. From the analysis ``mechanism``; of each number the same network
before training stands beside it, for random features show much of what goes into them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks import drawing
from benchmarks.report import layout
from benchmarks.report.collect import FULL, OURS, Row
from benchmarks.report.layout import DASH, heading, number, shown, signed
from benchmarks.report.sections import trained
from benchmarks.report.sections.data import Data
from benchmarks.report.sections.frame import Claim, Made, Section, Sentence, drawn, joined
from benchmarks.report.sections.gates import spread
from benchmarks.report.sections.signs import Signed, signs
from benchmarks.report.sections.trained import Lines, cells, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATES = ("trained", "untrained")
PARTS = ("features", "shared", "private")
STREAMS = ("sent", "received")
FACTORS = ("shared", "private", "foreign")
LABELS = ("shared_label", "private_label")  # of a regression: the one direction of a factor that moves the label
KINDS = ("informative", "distractor")
PROBES, CCA, TOKENS, CLAIMS = "probes", "cca", "tokens", "claims"
DIGITS = 2
PROBE_HOW = (
    "R² on the test split of linear probes for true factors: shared (by all modalities), private (of the modality), "
    "foreign (private ones of the other modalities); means over modalities and levels, then over seeds, ± standard "
    "deviation; in brackets the mean of the networks before training. Of twins with classes, factors within a class.",
    "Label: of a regression, the one direction of a factor that moves the label; a network has no reason to keep the "
    "others, and claims and the figure are about that direction where there is one.",
)
CCA_HOW = ("As the probes, as mean canonical correlations.",)
TOKEN_HOW = (
    "Sent, received: R² for the true factors of what a modality sends into the exchange and of what it receives (the "
    "leakage). AUROC: how well the weights of the tokens tell the planted tokens of a factor (informative) and the "
    "distractors from all others; 0.5 is chance, and below it distractors are kept out. In brackets before training. "
    "Gap: main metric on the test split less the best reachable score of the twin.",
)
CLAIM_HOW = (
    "CLCR, full variant. Differences of a run's own numbers, t test over seeds against zero, two-sided; the family of "
    "a claim is the twins. Held: significantly above zero; did not hold: significantly below; else undecided.",
)
Values = Mapping[str, Any]


def cell(values: Values, *path: str) -> float | None:
    """The mean in the cell at values[path[0]][path[1]]...; None where it is absent or there was no number."""
    found: object = values
    for step in (*path, "mean"):
        if not isinstance(found, Mapping):
            return None
        found = found.get(step)
    return float(found) if isinstance(found, int | float) else None


def asked(values: Values, *path: str) -> float | None:
    """The cell of the direction that moves the label, where there is one, else ``cell``."""
    found = cell(values, *path[:-1], f"{path[-1]}_label")
    return cell(values, *path) if found is None else found


def _less(a: Sequence[str], b: Sequence[str]) -> Callable[[Values], float | None]:
    def pick(values: Values) -> float | None:
        left, right = asked(values, *a), asked(values, *b)
        return None if left is None or right is None else left - right

    return pick


def _above(path: Sequence[str], chance: float, sign: int = 1) -> Callable[[Values], float | None]:
    def pick(values: Values) -> float | None:
        found = cell(values, *path)
        return None if found is None else sign * (found - chance)

    return pick


def _probe(part: str, factor: str, state: str = "trained") -> tuple[str, ...]:
    return ("probe", state, part, factor)


@dataclass(frozen=True)
class Asked:
    """A claim: what is said, and the difference of a run that should be above zero."""

    text: str
    pick: Callable[[Values], float | None]


# Declared before there were runs.
ASKED = (
    Asked(
        "Training brings shared factors into the shared parts",
        _less(_probe("shared", "shared"), _probe("shared", "shared", "untrained")),
    ),
    Asked(
        "Training brings private factors into the private parts",
        _less(_probe("private", "private"), _probe("private", "private", "untrained")),
    ),
    Asked(
        "Shared factors show more in the shared parts than in the private ones",
        _less(_probe("shared", "shared"), _probe("private", "shared")),
    ),
    Asked(
        "Private factors show more in the private parts than in the shared ones",
        _less(_probe("private", "private"), _probe("shared", "private")),
    ),
    Asked(
        "What is sent into the exchange shows shared factors more than private ones",
        _less(("leakage", "trained", "sent", "shared"), ("leakage", "trained", "sent", "private")),
    ),
    Asked("Tokens that show a factor get more weight", _above(("auroc", "trained", "informative"), 0.5)),
    Asked("Distractors get less weight", _above(("auroc", "trained", "distractor"), 0.5, -1)),
)


def values(lines: Lines, row: Row, path: Sequence[str]) -> list[float]:
    """A cell's means of a row's runs."""
    return list(trained.values_of(lines.runs[row], lambda v: cell(v, *path)).values())


def build(data: Data) -> Made:
    """The section."""
    sets = trained.lines(data, "mechanism", trained.ours, "twin")
    if not any(lines.runs for lines in sets):
        return Made(sentences=(Sentence(trained.absent("mechanism", "probes of the twins' factors")),))
    found = {one.text: _tests(one, sets) for one in ASKED}
    tables = (_claims_table(found), _probe_table(sets, PROBES), _probe_table(sets, CCA), _token_table(sets))
    sentences = [Sentence(_sentence(text, own), CLAIMS) for text, own in found.items() if own]
    caption = "R² of probes for the true factors of the twins, trained and untrained, and the weights of planted tokens"
    figures = drawn("factors", _figure(sets))
    return Made(tables, figures, tuple(sentences), tuple(_claims(found)), {"factors": caption})


def _tests(question: Asked, sets: Sequence[Lines]) -> dict[str, Signed]:
    """By twin; the family is the twins that can be asked."""
    differences = {}
    for lines in sets:
        own = trained.values_of(lines.runs.get((OURS, FULL), {}), question.pick)
        if own:
            differences[lines.group.key.benchmark] = list(own.values())
    return signs(differences)


def _twin(name: str, title: str, intro: Sequence[str], sections: Sequence[layout.Section], frame: Any) -> layout.Table:
    empty = {"real": "Not part of this finding: true factors are known of twins only.", "twin": "No runs yet."}
    return layout.Table(name, title, tuple(intro), {"twin": tuple(sections)}, frame, empty)


def _claims_table(found: Mapping[str, Mapping[str, Signed]]) -> layout.Table:
    columns = ("Claim", "Twin", "Difference", "p (Holm)", "Verdict", "To settle it")
    texts, rows = [], []
    for text, own in found.items():
        for place, one in own.items():
            settle = one.needed if one.word != one.settled else DASH
            texts.append(cells((text, place, one.gap(DIGITS), one.p, one.word, settle)))
            test = one.test
            tested = (test.difference, test.low, test.high, test.p, one.p_holm) if test else (None,) * 5
            rows.append((text, place, *tested, one.word))
    facts = tuple(_sentence(text, own) for text, own in found.items() if own)
    section = layout.Section("CLCR on all twins", columns, tuple(texts), facts)
    frame = pd.DataFrame(rows, columns=["claim", "twin", "difference", "low", "high", "p", "p_holm", "verdict"])
    return _twin(CLAIMS, "What the parts hold: claims", CLAIM_HOW, (section,), frame)


def _sentence(text: str, own: Mapping[str, Signed]) -> str:
    words = {place: one.word for place, one in own.items()}
    counted = [f"{sum(found == word for found in words.values())} {word}" for word in dict.fromkeys(words.values())]
    return f"On twins: {text[0].lower()}{text[1:]}: {joined(words)} ({', '.join(counted)} of {len(words)} twins)."


def _claims(found: Mapping[str, Mapping[str, Signed]]) -> list[Claim]:
    made = []
    for text, own in found.items():
        if own:
            numbers = "; ".join(f"{place}: {one.gap(DIGITS)}" for place, one in own.items())
            settle = "; ".join(f"{place}: {one.needed}" for place, one in own.items() if one.word != one.settled)
            words = joined({place: one.word for place, one in own.items()})
            made.append(Claim(f"{text} (twins)", words, numbers, CLAIMS, settle))
    return made


def _pair(lines: Lines, row: Row, kind: str, *path: str) -> str:
    """A trained number, with the untrained one in brackets."""
    found, before = (values(lines, row, (kind, state, *path)) for state in STATES)
    if not found:
        return DASH
    return f"{spread(found, DIGITS)} ({number(float(np.mean(before)), DIGITS)})" if before else spread(found, DIGITS)


def _probe_table(sets: Sequence[Lines], name: str) -> layout.Table:
    kind = "probe" if name == PROBES else "cca"
    sections, rows = [], []
    for lines in sets:
        texts = []
        for row in lines.rows:
            for part in PARTS:
                told = [_pair(lines, row, kind, part, factor) for factor in (*FACTORS, *LABELS)]
                if any(text != DASH for text in told):
                    texts.append(cells((title(row), part, *told, str(len(lines.runs[row])))))
            rows += _long(lines, row, kind, PARTS, (*FACTORS, *LABELS))
        columns = ("Method", "Part", *(_name(factor) for factor in (*FACTORS, *LABELS)), "Runs")
        sections.append(layout.Section(layout.name_of(lines.group), columns, tuple(texts), notes=lines.notes))
    frame = pd.DataFrame(rows, columns=["twin", "method", "variant", "seed", "state", "part", "factor", "value"])
    names = {PROBES: ("What the parts hold: probes", PROBE_HOW), CCA: ("What the parts hold: correlations", CCA_HOW)}
    return _twin(name, *names[name], sections, frame)


def _name(factor: str) -> str:
    return factor.capitalize().replace("_", ", ")


def _long(
    lines: Lines, row: Row, kind: str, parts: Sequence[str], factors: Sequence[str]
) -> list[tuple[str, str, str, int, str, str, str, float]]:
    place = lines.group.key.benchmark
    return [
        (place, *row, seed, state, part, factor, found)
        for seed, own in sorted(lines.runs[row].items())
        for state in STATES
        for part in parts
        for factor in factors
        if (found := cell(own, kind, state, part, factor)) is not None
    ]


def _token_table(sets: Sequence[Lines]) -> layout.Table:
    sections, rows = [], []
    for lines in sets:
        texts = []
        for row in lines.rows:
            leak = [_pair(lines, row, "leakage", stream, factor) for stream in STREAMS for factor in FACTORS]
            areas = [_pair(lines, row, "auroc", kind) for kind in KINDS]
            gaps = trained.values_of(lines.runs[row], _gap)
            texts.append(cells((title(row), *leak, *areas, _mean_gap(lines.metric, list(gaps.values())))))
            rows += _long(lines, row, "leakage", STREAMS, FACTORS)
            rows += [
                (lines.group.key.benchmark, *row, seed, state, "auroc", kind, found)
                for seed, own in sorted(lines.runs[row].items())
                for state in STATES
                for kind in KINDS
                if (found := cell(own, "auroc", state, kind)) is not None
            ]
            rows += [(lines.group.key.benchmark, *row, seed, "trained", "gap", "", x) for seed, x in gaps.items()]
        streams = (f"{stream.capitalize()}: {factor}" for stream in STREAMS for factor in FACTORS)
        areas_of = (f"AUROC, {kind}" for kind in KINDS)
        columns = ("Method", *streams, *areas_of, f"Gap, {heading(lines.metric)}")
        sections.append(layout.Section(layout.name_of(lines.group), columns, tuple(texts), notes=lines.notes))
    frame = pd.DataFrame(rows, columns=["twin", "method", "variant", "seed", "state", "what", "factor", "value"])
    return _twin(TOKENS, "What is exchanged, and the gap to the ceiling", TOKEN_HOW, sections, frame)


def _gap(found: Values) -> float | None:
    own = found.get("gap")
    value = own.get("gap") if isinstance(own, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _mean_gap(metric: str, gaps: Sequence[float]) -> str:
    if not gaps:
        return DASH
    sd = f" ± {shown(metric, float(np.std(gaps, ddof=1)))}" if len(gaps) > 1 else ""
    return f"{signed(metric, float(np.mean(gaps)))}{sd}"


SHOWN = (
    ("Shared parts", "probe", "shared"),
    ("Private parts", "probe", "private"),
    ("Sent into the exchange", "leakage", "sent"),
    ("Received from it", "leakage", "received"),
)
COLOURS = {"shared": "#0072B2", "private": "#D55E00", "foreign": "#999999"}


def _figure(sets: Sequence[Lines]) -> Figure:
    """Four panels of R^2 and one of areas, the twins side by side; filled: trained, hollow: untrained."""
    mine = [lines for lines in sets if (OURS, FULL) in lines.runs]
    figure = drawing.page(5.6)
    flat = [axes for line in figure.subplots(3, 2) for axes in line]
    for axes, (name, kind, part) in zip(flat, SHOWN, strict=False):
        paths = {factor: (kind, part, factor) for factor in FACTORS}
        _dots(axes, mine, {label: (path, COLOURS[label]) for label, path in paths.items()})
        axes.set_title(name)
        axes.set_ylabel("R²")
        axes.axhline(0, color=drawing.SOFT, linewidth=0.6)
    areas = {kind: (("auroc", kind), colour) for kind, colour in zip(KINDS, ("#009E73", "#CC79A7"), strict=True)}
    _dots(flat[4], mine, areas)
    flat[4].set_title("Weights of planted tokens")
    flat[4].set_ylabel("AUROC")
    flat[4].axhline(0.5, color=drawing.SOFT, linewidth=0.6)
    flat[5].set_axis_off()
    colours = {f"{name} factor": colour for name, colour in COLOURS.items()}
    colours |= {f"{kind} tokens": colour for kind, (_, colour) in areas.items()}
    looks = {name: drawing.Look(colour, "o") for name, colour in colours.items()}
    flat[5].legend(handles=drawing.keys(looks), loc="center left")
    notes = (
        "CLCR, full variant. Points: means over seeds, whiskers: ± one standard deviation; filled: trained, hollow: "
        "the same networks before training. Synthetic twins say nothing about the real data sets.",
    )
    drawing.title(figure, "What the parts hold · SYNTHETIC twins", notes)
    return figure


def _dots(axes: Any, sets: Sequence[Lines], paths: Mapping[str, tuple[Sequence[str], str]]) -> None:
    offsets = np.linspace(-0.22, 0.22, len(paths)) if len(paths) > 1 else [0.0]
    for place, lines in enumerate(sets):
        for offset, ((kind, *rest), colour) in zip(offsets, paths.values(), strict=True):
            for state, face in (("untrained", "none"), ("trained", colour)):
                own = lines.runs[OURS, FULL]
                found = list(trained.values_of(own, lambda v, p=(kind, state, *rest): asked(v, *p)).values())  # type: ignore[misc]
                if found:
                    sd = float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
                    axes.errorbar(place + offset, np.mean(found), sd, fmt="o", color=colour, markersize=4,
                                  markerfacecolor=face, elinewidth=0.8)  # fmt: skip
    axes.set_xticks(range(len(sets)), labels=[x.group.key.benchmark for x in sets], rotation=20, fontsize=6.3)
    axes.grid(axis="y")


SECTION = Section("mechanism", "Mechanism, on synthetic twins", build)
