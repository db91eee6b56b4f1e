"""Embedding: test samples of CLCR in the plane, shared and private parts apart, by modality and by label.

One network (seed 0), one fold: a picture, with the share of equal neighbours in numbers beside it; nothing is tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import drawing
from benchmarks.errors import InputError
from benchmarks.report import layout
from benchmarks.report.collect import FULL, OURS
from benchmarks.report.layout import listed, number
from benchmarks.report.sections import trained
from benchmarks.report.sections.analyses import REMEDY
from benchmarks.report.sections.data import Data
from benchmarks.report.sections.frame import Made, Section, Sentence, drawn, real
from benchmarks.report.sections.trained import Lines, cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("shared", "private")
NEIGHBOURS = 10
TABLE = "neighbours"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
MARKERS = ("o", "^", "s")  # by level
INTRO = (
    f"Of the {NEIGHBOURS} nearest points of the same part in the plane, the share that is of the same modality, level "
    "or class (of a value: the same third of the values), mean over points; in brackets what random neighbours would "
    "give. One network, seed 0, first fold; t-SNE keeps neighbours, not distances. Not tested.",
)


@dataclass(frozen=True)
class Points:
    """One embedding: xy (n, 2), and for each point its part, modality, level (from 1) and label."""

    xy: NDArray[np.float64]
    part: NDArray[np.str_]
    modality: NDArray[np.str_]
    level: NDArray[np.int64]
    label: NDArray[np.float64]

    def of(self, part: str) -> Points:
        """Those of one part."""
        mine = self.part == part
        return Points(self.xy[mine], self.part[mine], self.modality[mine], self.level[mine], self.label[mine])


def points(values: Mapping[str, Any]) -> Points:
    """Points of a line; InputError where its lists do not fit together."""
    try:
        made = Points(
            np.asarray(values["points"], dtype=np.float64),
            np.asarray(values["part"], dtype=np.str_),
            np.asarray(values["modality"], dtype=np.str_),
            np.asarray(values["level"], dtype=np.int64),
            np.asarray(values["label"], dtype=np.float64),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"analyses/embedding.jsonl: field 'values' is no embedding ({error}); {REMEDY}") from None
    lengths = {len(x) for x in (made.xy, made.part, made.modality, made.level, made.label)}
    if len(lengths) != 1 or made.xy.shape[1:] != (2,):
        raise InputError(f"analyses/embedding.jsonl: field 'values.points' and its names differ in length; {REMEDY}")
    return made


def kinds(labels: NDArray[np.float64], regression: bool) -> NDArray[np.int64]:
    """Classes as numbers; of values the third that each lies in."""
    if not regression:
        return np.asarray(labels.astype(np.int64))
    return np.asarray(np.searchsorted(np.quantile(labels, (1 / 3, 2 / 3)), labels), dtype=np.int64)


def purity(xy: NDArray[np.float64], kind: NDArray[Any], neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Share of the nearest neighbours (Euclid, without the point itself) of the same kind, mean over points; and what
    random neighbours would give. xy (n, 2), kind (n,); n > neighbours."""
    from scipy.spatial import KDTree

    n = len(xy)
    _, near = KDTree(xy).query(xy, k=min(neighbours + 1, n))
    others = near != np.arange(n)[:, None]
    others[others.all(axis=1), -1] = False  # equal points: the point itself may not be among them
    same = (kind[near] == kind[:, None]) & others
    _, counts = np.unique(kind, return_counts=True)
    return float(same.sum() / others.sum()), float((counts * (counts - 1)).sum() / (n * (n - 1)))


def build(data: Data) -> Made:
    """The section."""
    lines = trained.lines(data, "embedding", lambda key: trained.ours(key) and key.seed == 0)
    sets = [(one, points(one.runs[OURS, FULL][0])) for one in lines if 0 in one.runs.get((OURS, FULL), {})]
    if not sets:
        return Made(sentences=(Sentence(trained.absent("embedding", "embedding of the parts")),))
    figures: dict[str, bytes] = {}
    captions: dict[str, str] = {}
    for one, found in sets:
        stem = one.place.replace(".", "_")
        figures |= drawn(stem, _figure(one, found))
        captions[stem] = f"Shared and private parts of {one.place} in the plane (t-SNE), by modality and by label"
    table = _table(sets)
    return Made((table,), figures, tuple(_sentence(one, found) for one, found in sets), captions=captions)


def _shares(one: Lines, found: Points, part: str) -> dict[str, tuple[float, float]]:
    """Purity by modality, level and label in one part."""
    mine = found.of(part)
    label = kinds(mine.label, one.group.spec.task == "regression")
    return {name: purity(mine.xy, kind) for name, kind in
            (("modality", mine.modality), ("level", mine.level), ("label", label))}  # fmt: skip


def _percents(pair: tuple[float, float]) -> str:
    return f"{number(100 * pair[0], 0)} ({number(100 * pair[1], 0)})"


def _table(sets: Sequence[tuple[Lines, Points]]) -> layout.Table:
    texts, rows = [], []
    for one, found in sets:
        for part in PARTS:
            shares = _shares(one, found, part)
            texts.append(cells((one.place, part, str(len(found.of(part).xy)), *map(_percents, shares.values()))))
            rows += [(one.place, part, name, *pair) for name, pair in shares.items()]
    columns = ("Data set", "Part", "Points", "Same modality (%)", "Same level (%)", "Same label (%)")
    notes = tuple(f"{one.place}: {note}" for one, _ in sets for note in one.notes)
    section = layout.Section("CLCR, seed 0", columns, tuple(texts), notes=notes)
    frame = pd.DataFrame(rows, columns=["place", "part", "name", "share", "random"])
    return real(TABLE, "Neighbours in the plane", INTRO, (section,), frame)


def _sentence(one: Lines, found: Points) -> Sentence:
    told = []
    for part in PARTS:
        shares = _shares(one, found, part)
        told.append(f"{_percents(shares['modality'])} % of the neighbours of a {part} part are of its modality and "
                    f"{_percents(shares['label'])} % of its label")  # fmt: skip
    return Sentence(f"{one.place}: {listed(told)} (in brackets: random neighbours; one network, not tested).", TABLE)


def _figure(one: Lines, found: Points) -> Figure:
    """Columns: shared, private; rows: by modality, by label."""
    figure = drawing.page(5.5)
    above, *grid = figure.subplots(3, 2, height_ratios=[0.05, 1, 1])
    for axes in above:
        axes.set_axis_off()
    regression = one.group.spec.task == "regression"
    for part, (upper, lower) in zip(PARTS, zip(*grid, strict=True), strict=True):
        mine = found.of(part)
        _scatter(upper, mine, [COLOURS[one.modalities.index(m) % len(COLOURS)] for m in mine.modality])
        values = mine.label if regression else kinds(mine.label, regression)
        drawn_at = _scatter(lower, mine, values, "coolwarm" if regression else "turbo")
        upper.set_title(f"{part}: modality")
        lower.set_title(f"{part}: {'value' if regression else 'class'}")
    figure.colorbar(drawn_at, ax=list(grid[1]), shrink=0.8, pad=0.01, label="value" if regression else "class")
    looks = {name: drawing.Look(COLOURS[place % len(COLOURS)], "o") for place, name in enumerate(one.modalities)}
    looks |= {f"level {level}": drawing.Look(drawing.SOFT, marker) for level, marker in enumerate(MARKERS, 1)}
    above[0].legend(handles=drawing.keys(looks), loc="center left", ncols=len(looks), borderpad=0).set_in_layout(False)
    notes = (
        "t-SNE of the level summaries of test samples, all points embedded together: it shows neighbours; distances "
        "between clusters and their sizes mean nothing. Seed 0, first fold.",
    )
    drawing.title(figure, f"Shared and private parts · {one.place}, real data", notes)
    return figure


def _scatter(axes: Axes, mine: Points, colours: Any, cmap: str | None = None) -> Any:
    made = None
    numbers = np.asarray(colours)
    for level, marker in enumerate(MARKERS, 1):
        some = mine.level == level
        limits: dict[str, Any] = (
            {"cmap": cmap, "vmin": float(numbers.min()), "vmax": float(numbers.max())} if cmap else {}
        )
        made = axes.scatter(mine.xy[some, 0], mine.xy[some, 1], 6, c=numbers[some], marker=marker, linewidths=0,
                            alpha=0.7, rasterized=True, **limits)  # fmt: skip
    axes.set(xticks=[], yticks=[])
    return made


SECTION = Section("embedding", "Shared and private parts in the plane", build)
