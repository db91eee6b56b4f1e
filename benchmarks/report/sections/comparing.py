"""Rows against a reference, data set by data set: the tables, sentences and figures that most sections share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pandas as pd

from benchmarks.drawing import INK, SOFT, look, page, rows, title
from benchmarks.metrics import METRICS
from benchmarks.report import layout
from benchmarks.report.collect import FULL, OURS, Group, Row, label
from benchmarks.report.compare import Contrast, contrasts, declared_test, in_words, needed_text
from benchmarks.report.figures.forest import corrected, ends
from benchmarks.report.figures.sheet import better_right, describe, scale
from benchmarks.report.layout import DASH, Cell, about, count, heading, listed, mean_sd, p_text
from benchmarks.report.sections.data import Data, Source
from benchmarks.report.sections.frame import Claim, Sentence, claim, gap, real
from benchmarks.report.tables import identity, summary

NAMED = 4  # rows that a sentence names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTRO = (
    "Mean ± standard deviation over seeds (number of runs). Differences are row minus reference with their interval; "
    "each data set is a family of its own. Seeds needed: for a power of 80 % to find the observed difference."
)
BARS = (
    "Mean difference of the main metric with its 95 % interval. Filled or dark: significant after Holm's correction "
    "over the family, which is the panel; else undecided, which shows no equality."
)


@dataclass(frozen=True)
class Block:
    """One family on one data set. names: of the comparisons, in their order; what: is compared with what, in words;
    extra: further columns, as long as the names; facts: said beside what every table says; split: where the values were
    measured."""

    group: Group
    found: tuple[Contrast, ...]
    names: tuple[str, ...]
    what: str
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    split: str = "test"

    @property
    def metric(self) -> str:
        """What is compared."""
        return self.found[0].metric

    @property
    def title(self) -> str:
        """The data set in a few words."""
        return set_title(self.group)

    def of(self, row: Row) -> Contrast | None:
        """The comparison of that row, None where it has no values."""
        return next((contrast for contrast in self.found if contrast.a == row), None)

    def only(self, wanted: Callable[[str], bool]) -> Block:
        """The same with some of the comparisons; the family stays what it was."""
        return self._taking([n for n, name in enumerate(self.names) if wanted(name)])

    def sorted_by_size(self) -> Block:
        """The same with the largest difference first."""
        return self._taking(sorted(range(len(self.found)), key=lambda n: -_size(self.found[n])))

    def _taking(self, order: Sequence[int]) -> Block:
        extra = {title: [column[n] for n in order] for title, column in self.extra.items()}
        names = tuple(self.names[n] for n in order)
        return replace(self, found=tuple(self.found[n] for n in order), names=names, extra=extra)


@dataclass(frozen=True)
class Pair:
    """A row against its reference, under a name; extra: cells of further columns."""

    name: str
    row: Row
    reference: Row
    extra: Mapping[str, str] = field(default_factory=dict)


def _size(contrast: Contrast) -> float:
    return abs(contrast.test.difference) if contrast.test else 0.0


def set_title(group: Group) -> str:
    """The name of a data set and its protocol."""
    return f"{group.spec.title.partition(' (')[0]} {group.key.protocol}"


def block(
    group: Group, pairs: Sequence[Pair], what: str, facts: Sequence[str] = (), split: str = "test"
) -> Block | None:
    """The family of all pairs on the main metric; None where none has values on both sides."""
    metric = group.spec.main_metric
    known = [pair for pair in pairs if group.values(pair.row, metric) and group.values(pair.reference, metric)]
    if not known:
        return None
    found = contrasts(group, metric, [(pair.row, pair.reference) for pair in known])
    titles = dict.fromkeys(title for pair in known for title in pair.extra)
    extra = {title: [pair.extra.get(title, DASH) for pair in known] for title in titles}
    return Block(group, tuple(found), tuple(pair.name for pair in known), what, extra, tuple(facts), split)


def against_rivals(data: Data, place: str, sources: Mapping[str, Source], what: str) -> Block | None:
    """CLCR against every other method, each from its source; None where CLCR or all others have no runs."""
    group = data.compared(place, {(method, FULL): source for method, source in sources.items()})
    ours = (OURS, FULL)
    pairs = [Pair(label(method), ours, (method, FULL)) for method in sources if method != OURS]
    return block(group, pairs, f"CLCR against each other method, {what}")


def table(name: str, title: str, blocks: Sequence[Block], intro: Iterable[str] = ()) -> layout.Table:
    """One section a data set."""
    frame = pd.DataFrame([row for one in blocks for row in _csv(one)])
    return real(name, title, (INTRO, *intro), [section(one) for one in blocks], frame)


def section(one: Block) -> layout.Section:
    """Every row of a family beside its reference."""
    columns = ("Row", heading(one.metric), "Reference", "Difference [95 % interval]", "p", "p (Holm)", "Seeds needed")
    test = (
        f"Test: {declared_test(one.group)}, {one.what}. Family: the {count(len(one.found), 'comparison')} of this "
        "table; correction: Holm."
    )
    split = () if one.split == "test" else ("Metrics of the VALIDATION split: nothing here was chosen by test data.",)
    return layout.Section(
        one.title,
        (*columns, *one.extra),
        tuple(tuple(Cell(text) for text in _texts(one, place)) for place in range(len(one.found))),
        (*about(one.group), *split, test, *one.facts, tally(one)),
        in_words(one.found, one.names, "significantly better than the reference are", "significantly worse are"),
    )


def _texts(one: Block, place: int) -> list[str]:
    contrast = one.found[place]
    a, b = (mean_sd(one.metric, list(one.group.values(row, one.metric).values())) for row in (contrast.a, contrast.b))
    test = contrast.test
    tested = [gap(contrast), p_text(test.p), p_text(contrast.p_holm), needed_text(contrast)] if test else [DASH] * 4
    return [one.names[place], a, b, *tested, *(column[place] for column in one.extra.values())]


def _csv(one: Block) -> list[dict[str, object]]:
    found = []
    for place, contrast in enumerate(one.found):
        test = contrast.test
        found.append(
            {
                **identity(one.group, contrast.a),
                "name": one.names[place],
                "split": one.split,
                **summary(one.metric, list(one.group.values(contrast.a, one.metric).values())),
                "reference": "/".join(contrast.b),
                "pairs": len(contrast.seeds),
                **{name: getattr(test, name, None) for name in ("difference", "low", "high", "p")},
                "p_holm": contrast.p_holm if test else None,
                "seeds_needed": contrast.needed,
                "family": contrast.family,
                "better": contrast.better,
                **{name: column[place] for name, column in one.extra.items()},
            }
        )
    return found


def tally(one: Block) -> str:
    """How many rows of a family are significantly better or worse than their reference, and the largest difference."""
    named = list(zip(one.names, one.found, strict=True))
    tested = [(name, contrast) for name, contrast in named if contrast.test]
    if not tested:
        return f"{one.title}: {count(len(named), 'comparison')}, none could be tested."
    hits = {sign: [name for name, contrast in named if contrast.better == sign] for sign in (1, -1)}
    parts = [f"{len(hits[sign])} significantly {word}{_named(hits[sign])}" for sign, word in
             ((1, "better"), (-1, "worse")) if hits[sign]]  # fmt: skip
    told = listed(parts) if parts else "none significantly better or worse"
    name, largest = max(tested, key=lambda pair: _size(pair[1]))
    size = f"{METRICS[one.metric].title} {gap(largest)}"
    return f"{one.title}, {count(len(named), 'comparison')}: {told}; largest difference {size}, {name}."


def _named(names: Sequence[str]) -> str:
    """Names in brackets, where they are few."""
    return f" ({'; '.join(names)})" if len(names) <= NAMED else ""


def overall(blocks: Sequence[Block], text: str) -> str:
    """One sentence on all families of a table: how many comparisons are significant, either way, of how many."""
    found = [contrast for one in blocks for contrast in one.found]
    better, worse = (sum(contrast.better == sign for contrast in found) for sign in (1, -1))
    where = f"{count(len(found), 'comparison')} on {count(len(blocks), 'data set')}"
    return f"{text}: {better} of {where} significantly better, {worse} significantly worse."


def tallies(blocks: Sequence[Block], table: str) -> tuple[Sentence, ...]:
    """One sentence a data set."""
    return tuple(Sentence(tally(one), table) for one in blocks)


def intervals(
    blocks: Sequence[Block], text: str, notes: Sequence[str] = (), bars: bool = False, ends_of: str = "row"
) -> Figure:
    """One panel a data set: every difference with its interval, as points or as bars. ``ends_of``: what the two ends
    of the axis speak of."""
    figure, panels = grid([len(one.found) for one in blocks])
    for axes, one in zip(panels, blocks, strict=True):
        _panel(axes, one, bars)
        ends(axes, one.group, ends_of)
        describe(axes, one.group, sorted({seed for contrast in one.found for seed in contrast.seeds}))
    title(figure, text, (BARS, *notes))
    return figure


def grid(sizes: Sequence[int], height: float = 0.75, per_row: float = 0.17) -> tuple[Figure, list[Axes]]:
    """Panels for so many rows each, two beside each other, in a figure of their own."""
    several = min(2, len(sizes))
    lines = [sizes[i : i + several] for i in range(0, len(sizes), several)]
    tall = [height + per_row * max(line) for line in lines]
    figure = page(sum(tall))
    flat = [axes for row in figure.subplots(len(lines), several, squeeze=False, gridspec_kw={"height_ratios": tall})
            for axes in row]  # fmt: skip
    for axes in flat[len(sizes) :]:
        axes.set_axis_off()
    return figure, flat[: len(sizes)]


def _panel(axes: Axes, one: Block, bars: bool) -> None:
    factor = scale(one.metric)
    rivals = len({contrast.a for contrast in one.found}) == 1
    axes.axvline(0, color=SOFT, linewidth=0.8)
    for place, contrast in enumerate(one.found):
        corrected(axes, place, contrast)
        test, drawn = contrast.test, look(contrast.b[0] if rivals else contrast.a[0])
        if test is None:
            continue
        ends_at = [factor * test.low, factor * test.high]
        if bars:
            axes.barh(
                place, factor * test.difference, 0.62, color=drawn.colour, alpha=0.95 if contrast.better else 0.35
            )
            axes.plot(ends_at, [place, place], color=INK, linewidth=0.9)
            continue
        axes.plot(ends_at, [place, place], color=drawn.colour, linewidth=1.6)
        axes.plot(factor * test.difference, place, drawn.marker, markersize=5.5, color=drawn.colour,
                  markerfacecolor=drawn.colour if contrast.better else "white", markeredgewidth=1.1)  # fmt: skip
    rows(axes, list(one.names))
    better_right(axes, one.metric)


def fusion_claim(text: str, blocks: Sequence[Block], table: str) -> list[Claim]:
    """A claim on CLCR against late fusion, where families against rivals hold that pair."""
    parts = [(one.title, contrast) for one in blocks for contrast in one.found if contrast.b[0] == "late_fusion"]
    return [claim(text, parts, table)] if parts else []


def present(blocks: Iterable[Block | None]) -> list[Block]:
    """The data sets that have runs."""
    return [one for one in blocks if one is not None]
