"""Cost: what a method takes to train and to run, what it gives for that, and what a claim takes in seeds.

Parameters, time of a run and memory are those of the committed records; the forward pass and the time of a sample are
measured by ``clcr bench --configurations`` (a list "inference" in a file of results/bench).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from baselines import METHODS
from benchmarks import drawing
from benchmarks.errors import InputError
from benchmarks.metrics import METRICS
from benchmarks.record import parsed
from benchmarks.report import layout
from benchmarks.report.collect import FULL, OURS, Group, label
from benchmarks.report.compare import RELEVANT, Contrast, against_ours, declared_test, needed_text
from benchmarks.report.costs import Cost, costs_of
from benchmarks.report.figures.cost import front, merged_looks, panel
from benchmarks.report.layout import DASH, heading, mean_sd, number, shown
from benchmarks.report.sections.data import Data
from benchmarks.report.sections.frame import Claim, Made, Section, Sentence, drawn, gap, joined, real
from benchmarks.report.sections.trained import PROFILES, alone, cells, judged
from benchmarks.report.statistics import ALPHA, seeds_needed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS, SEEDS = "costs", "seeds"
BASELINE = "late_fusion"
BENCH = "bench"
REMEDY = "`clcr bench --configurations results --out results/bench/inference.json` makes it"
NEEDS = f"The forward passes of these configurations are not measured yet; {REMEDY}."
HOW = (
    "Parameters, training (seconds of a run) and memory: of the committed runs; seeds that trained together share "
    "their program's time. Forward pass: products and convolutions, MFLOP a sample. Milliseconds a sample, of one "
    "thread: of prediction in batches, and of a training step of one seed alone. Front: no method that reads every "
    "modality costs less, by the forward pass (by the time of a run where that is not measured), and scores better.",
    "That CLCR is worth its cost, that is better than every method that costs less: held where each difference is "
    "significant after Holm's correction, did not hold where one is significantly against it or leaves no room for a "
    "difference that matters, else undecided.",
)
SEEDS_HOW = (
    "Seeds (or arrangements) of CLCR and the other method that a paired t test takes to find a difference that matters "
    "(1 point, 0.02 of MAE) and the observed one, with a power of 80 % at Holm's strictest step, from the standard "
    "deviation of the differences seen here. Detectable: the smallest difference that the runs there are would find.",
)


@dataclass(frozen=True)
class Forward:
    """One measured configuration: products and convolutions of a forward pass, and milliseconds, of one sample."""

    benchmark: str
    protocol: str
    data: str
    profile: str
    method: str
    flop_per_sample: float
    inference_ms: float
    training_ms: float


NUMBERS = ("flop_per_sample", "inference_ms", "training_ms")


def forwards(folder: Path) -> dict[tuple[str, str, str, str, str], Forward]:
    """By benchmark, protocol, data, profile and method: what the files of <out>/bench hold, later names first.

    InputError names a file and a field that is not what the bench writes.
    """
    found: dict[tuple[str, str, str, str, str], Forward] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            kept = parsed(path.read_text(encoding="utf-8", errors="replace"))
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}); restore it from git or measure again") from None
        rows = kept.get("inference", []) if isinstance(kept, Mapping) else []
        for place, row in enumerate(rows if isinstance(rows, list) else ()):
            if isinstance(row, Mapping) and "skipped" not in row:
                one = _checked(row, f"{path}: inference[{place}]")
                found[one.benchmark, one.protocol, one.data, one.profile, one.method] = one
    return found


def _checked(row: Mapping[str, Any], where: str) -> Forward:
    for field in fields(Forward):
        value = row.get(field.name)
        is_number = isinstance(value, int | float) and 0 <= value <= sys.float_info.max
        if not (is_number if field.name in NUMBERS else isinstance(value, str)):
            told = f"field '{field.name}' is {str(value)[:60]!r}"
            raise InputError(f"{where}: {told}; restore it from git or measure again")
    return Forward(**{field.name: row[field.name] for field in fields(Forward)})


@dataclass(frozen=True)
class Priced:
    """A group with the costs of its full variants, and what was measured of them."""

    group: Group
    costs: Mapping[str, Cost]
    forward: Mapping[str, Forward]

    @property
    def place(self) -> str:
        """ "benchmark.protocol"."""
        return f"{self.group.key.benchmark}.{self.group.key.protocol}"

    def price(self, method: str) -> float:
        """What methods are ordered by: the forward pass, or the time of a run where any method lacks it."""
        if all(name in self.forward for name in self.fused):
            return self.forward[method].flop_per_sample
        return self.costs[method].time_s_mean

    @property
    def fused(self) -> list[str]:
        """Trained methods that read every modality."""
        return [name for name in self.costs if not alone(name) and self.trained(name)]

    def trained(self, method: str) -> bool:
        """Whether a method has forward passes to measure."""
        return method in METHODS and not METHODS[method].fitted

    def mean(self, method: str) -> float:
        """Mean of the main metric."""
        values = self.group.values((method, FULL), self.group.spec.main_metric)
        return sum(values.values()) / len(values)


def priced(data: Data) -> list[Priced]:
    """The main tables' groups on real data."""
    measured = forwards(data.out / BENCH)
    found = []
    for group in data.main.of("real"):
        if group.key.profile != PROFILES["real"]:
            continue
        metric = group.spec.main_metric
        costs = {m: cost for (m, v), cost in costs_of(group) if v == FULL and group.values((m, v), metric)}
        known = {m: own for m in costs if (own := measured.get((*vars(group.key).values(), m)))}
        if costs:
            found.append(Priced(group, costs, known))
    return found


def build(data: Data) -> Made:
    """The section."""
    sets = priced(data)
    if not sets:
        return Made(sentences=(Sentence("No runs on real data yet; `clcr run` makes them."),))
    found = {one.place: against_ours(one.group, one.group.spec.main_metric) for one in sets}
    sentences = [] if any(one.forward for one in sets) else [Sentence(NEEDS)]
    for one in sets:
        sentences += _sentences(one, found[one.place])
    caption = "Score against the cost of a sample: forward pass, inference and training; line: Pareto front"
    figures = drawn("pareto", _figure(sets))
    tables = (_costs_table(sets, found), _seeds_table(sets, found))
    return Made(tables, figures, tuple(sentences), tuple(_claims(sets, found)), {"pareto": caption})


def dearer(one: Priced, found: Mapping[str, Contrast]) -> list[tuple[str, Contrast]]:
    """The tests of CLCR against each method that costs less."""
    if OURS not in one.fused:
        return []
    own = one.price(OURS)
    return [(label(m), found[m]) for m in one.fused if m in found and one.price(m) < own]


def _on_front(one: Priced) -> set[str]:
    names = one.fused
    best = METRICS[one.group.spec.main_metric].direction == "max"
    return {names[place] for place in front([(one.price(name), one.mean(name)) for name in names], best)}


def _costs_table(sets: Sequence[Priced], found: Mapping[str, Mapping[str, Contrast]]) -> layout.Table:
    sections, rows = [], []
    for one in sets:
        metric = one.group.spec.main_metric
        texts, best = [], _on_front(one)
        for name, cost in one.costs.items():
            passed = one.forward.get(name)
            told = _measured(passed)
            values = list(one.group.values((name, FULL), metric).values())
            flag = DASH if name not in one.fused else "yes" if name in best else "no"
            run = (f"{cost.n_parameters:,}", number(cost.time_s_mean, 1), number(cost.peak_memory_bytes / 2**20, 0))
            texts.append(cells((label(name), *run, *told, mean_sd(metric, values), flag)))
            measured = tuple(getattr(passed, field, None) for field in NUMBERS)
            rows.append((one.place, name, cost.n_parameters, cost.time_s_mean, cost.peak_memory_bytes, *measured,
                         metric, one.mean(name), flag == "yes"))  # fmt: skip
        facts = [*_times(one), *_worth(one, found[one.place])]
        columns = ("Method", "Parameters", "Run (s)", "Memory (MiB)", "Forward (MFLOP)", "Inference (ms)",
                   "Training (ms)", heading(metric), "Front")  # fmt: skip
        sections.append(layout.Section(layout.name_of(one.group), columns, tuple(texts), tuple(facts)))
    names = ["place", "method", "n_parameters", "run_s", "peak_memory_bytes", *NUMBERS, "metric", "mean", "front"]
    return real(COSTS, "What methods cost and give", HOW, sections, pd.DataFrame(rows, columns=names))


def _measured(passed: Forward | None) -> tuple[str, str, str]:
    if passed is None:
        return DASH, DASH, DASH
    return (number(passed.flop_per_sample / 1e6, 3), number(passed.inference_ms, 3), number(passed.training_ms, 3))


def _times(one: Priced) -> Iterator[str]:
    """How CLCR's costs compare with the plainest fusion, in one sentence."""
    if not {OURS, BASELINE} <= one.costs.keys():
        return
    mine, theirs = one.costs[OURS], one.costs[BASELINE]
    told = [f"{_ratio(mine.n_parameters, theirs.n_parameters)} times the parameters",
            f"{_ratio(mine.time_s_mean, theirs.time_s_mean)} times the time of a run"]  # fmt: skip
    if {OURS, BASELINE} <= one.forward.keys():
        a, b = one.forward[OURS], one.forward[BASELINE]
        told += [f"{_ratio(a.flop_per_sample, b.flop_per_sample)} times the forward pass",
                 f"{_ratio(a.inference_ms, b.inference_ms)} times the time of a prediction"]  # fmt: skip
    yield f"CLCR has {layout.listed(told)} of {label(BASELINE)}."


def _ratio(a: float, b: float) -> str:
    return number(a / b, 2) if b > 0 else DASH


def _worth(one: Priced, found: Mapping[str, Contrast]) -> Iterator[str]:
    """Whether CLCR is better than each method that costs less."""
    if cheaper := dearer(one, found):
        word, settle = judged(cheaper)
        told = layout.listed([f"{name} {gap(c) if c.test else c.untested}" for name, c in cheaper])
        yield f"CLCR less each cheaper method: {told}. That it is worth its cost: {word}{_in_brackets(settle)}."
    elif OURS in one.fused:
        yield "No method that reads every modality costs less than CLCR."


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _sentences(one: Priced, found: Mapping[str, Contrast]) -> list[Sentence]:
    told = [Sentence(f"{one.place}: {fact}", COSTS) for fact in (*_times(one), *_worth(one, found))]
    plans = {label(name): _relevant(contrast) for name, contrast in found.items() if contrast.test}
    known = {name: plan for name, plan in plans.items() if plan is not None}
    if known:
        most = max(known, key=lambda name: known[name])
        n = next(contrast.test.n for contrast in found.values() if contrast.test)
        unit = next(iter(found.values())).unit
        what = shown(one.group.spec.main_metric, RELEVANT[METRICS[one.group.spec.main_metric].unit])
        enough = sum(contrast.enough for contrast in found.values())
        text = (
            f"{one.place}: to find a difference of {what} takes up to {known[most]} {unit}s (against {most}), and "
            f"there are {n}: enough for {enough} of {len(found)} comparisons."
        )
        told.append(Sentence(text, SEEDS))
    return told


def _relevant(contrast: Contrast) -> int | None:
    """Seeds that find a difference that matters; None beyond 1000."""
    if contrast.test is None:
        return None
    least = RELEVANT[METRICS[contrast.metric].unit]
    return seeds_needed(least, contrast.test.sd, contrast.paired, ALPHA / contrast.family)


def _seeds_table(sets: Sequence[Priced], found: Mapping[str, Mapping[str, Contrast]]) -> layout.Table:
    plans_of = ("To find what matters", "To find the observed")
    columns = ("CLCR against", "Runs", "Difference", "SD", "Detectable", *plans_of)
    sections, rows = [], []
    for one in sets:
        metric, texts = one.group.spec.main_metric, []
        for name, contrast in found[one.place].items():
            test, plan = contrast.test, _relevant(contrast)
            if test is None:
                texts.append(cells((label(name), contrast.untested, *[DASH] * 5)))
                continue
            spread = (shown(metric, test.sd), shown(metric, contrast.detectable))
            plans = ("> 1000" if plan is None else str(plan), needed_text(contrast))
            texts.append(cells((label(name), str(test.n), gap(contrast), *spread, *plans)))
            detectable = contrast.detectable if isfinite(contrast.detectable) else None
            rows.append((one.place, name, test.n, test.difference, test.sd, detectable, plan, contrast.needed))
        enough = sum(contrast.enough for contrast in found[one.place].values())
        least = shown(metric, RELEVANT[METRICS[metric].unit])
        facts = (
            f"Test: {declared_test(one.group)}.",
            f"A difference of {least} would be found in {enough} of {len(found[one.place])} comparisons.",
        )
        name = f"{layout.name_of(one.group)} · {heading(metric)}"
        sections.append(layout.Section(name, columns, tuple(texts), facts))
    names = ["place", "method", "n", "difference", "sd", "detectable", "seeds_relevant", "seeds_observed"]
    return real(SEEDS, "Seeds that a claim takes", SEEDS_HOW, sections, pd.DataFrame(rows, columns=names))


def _claims(sets: Sequence[Priced], found: Mapping[str, Mapping[str, Contrast]]) -> Iterator[Claim]:
    words, numbers, open_ = {}, [], []
    for one in sets:
        if cheaper := dearer(one, found[one.place]):
            words[one.place], settle = judged(cheaper)
            told = [f"{name} {gap(c) if c.test else c.untested}" for name, c in cheaper]
            numbers.append(f"{one.place}: less {', less '.join(told)}")
            open_ += [f"{one.place}: {settle}"] if settle else []
    if words:
        text = "CLCR is better than every method that costs less"
        yield Claim(text, joined(words), "; ".join(numbers), COSTS, "; ".join(open_))


PANELS = (
    ("forward pass of a sample (FLOP)", "flop_per_sample"),
    ("inference of a sample (ms)", "inference_ms"),
    ("training of a sample (ms)", "training_ms"),
)


def _figure(sets: Sequence[Priced]) -> Figure:
    """A row of panels a data set: what was measured, else parameters and the time of a run."""
    looks = merged_looks({name for one in sets for _, cost in _panels(one) for name in cost})
    legend = 0.2 * ceil(len(looks) / 5) + 0.12
    figure = drawing.page(1.75 * len(sets) + legend)
    grid = figure.subplots(
        len(sets) + 1, len(PANELS), squeeze=False, sharey="row", height_ratios=[legend, *[1.7] * len(sets)]
    )
    for axes in grid[0]:
        axes.set_axis_off()
    keys = drawing.keys(looks)
    grid[0][0].legend(handles=keys, loc="upper left", ncols=5, bbox_to_anchor=(-0.25, 1.0), borderpad=0).set_in_layout(
        False
    )
    for one, line in zip(sets, grid[1:], strict=True):
        for axes, (what, cost) in zip(line, _panels(one), strict=False):
            panel(axes, one.group, cost, what)
            axes.tick_params(axis="x", labelsize=5.8)
        for axes in line[len(_panels(one)) :]:
            axes.set_axis_off()
        line[0].set_ylabel(heading(one.group.spec.main_metric), fontsize=6.8)
        line[0].set_title(one.place)
    notes = (
        "Points: means over seeds, whiskers: ± one standard deviation of the score. Line: Pareto front, methods that "
        "no other one beats in both; means alone. Milliseconds of one thread, one seed; where they are not measured, "
        "parameters and the time of a run stand in their place.",
    )
    drawing.title(figure, "Score against cost · real data", notes)
    return figure


def _panels(one: Priced) -> list[tuple[str, dict[str, float]]]:
    if one.forward:
        return [(what, {m: getattr(own, field) for m, own in one.forward.items()}) for what, field in PANELS]
    return [
        ("trained parameters", {m: float(cost.n_parameters) for m, cost in one.costs.items()}),
        ("time of a run (s)", {m: cost.time_s_mean for m, cost in one.costs.items()}),
    ]


SECTION = Section("cost", "Cost", build)
