"""What a figure is made of: groups of one kind of data and one profile, never real and synthetic together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import archive, curves
from benchmarks.curves import Curve
from benchmarks.drawing import name, page
from benchmarks.metrics import METRICS
from benchmarks.record import RunKey
from benchmarks.report.collect import FULL, Group
from benchmarks.report.layout import count, ranges

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {"real": "real data", "twin": "SYNTHETIC twins"}


class Files:
    """The committed predictions and curves of <out>, each file read once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._arrays: dict[str, Mapping[str, np.ndarray]] = {}
        self._curves: dict[str, dict[tuple[RunKey, str], Curve]] = {}

    def predictions(self, group: Group, method: str, seed: int) -> Mapping[str, np.ndarray] | None:
        """index, target, prediction (and group) of a full variant's run; None where no file of them is there."""
        benchmark = group.key.benchmark
        path = self.out / "predictions" / f"{benchmark}.npz"
        if benchmark not in self._arrays:
            self._arrays[benchmark] = archive.read_npz(path) if path.exists() else {}
        if not self._arrays[benchmark]:
            return None
        return archive.predictions_of(self._arrays[benchmark], *_run(group, method, seed))

    def curve(self, group: Group, method: str, seed: int) -> Curve | None:
        """The learning curve of a full variant's run; None where there is none."""
        benchmark = group.key.benchmark
        if benchmark not in self._curves:
            found = curves.read(self.out / "curves" / f"{benchmark}.jsonl")
            self._curves[benchmark] = {(key, predictions): curve for (key, _, predictions), curve in found.items()}
        return self._curves[benchmark].get(_run(group, method, seed))


def _run(group: Group, method: str, seed: int) -> tuple[RunKey, str]:
    key, runs = group.key, group.runs
    mine = runs[(runs["method"] == method) & (runs["variant"] == FULL) & (runs["seed"] == seed)]
    run = RunKey(key.benchmark, key.protocol, key.data, key.profile, method, FULL, seed)
    return run, str(mine["predictions"].iloc[0])


@dataclass(frozen=True)
class Sheet:
    """The groups of one figure, all of the same data and profile, and the files beside their records."""

    data: str
    profile: str
    groups: tuple[Group, ...]
    files: Files

    def only(self, groups: Sequence[Group]) -> Sheet:
        """The same sheet with some of its groups."""
        return replace(self, groups=tuple(groups))

    def heading(self, text: str) -> str:
        """A figure's title: what it shows, of which data and profile."""
        return f"{text} · {KINDS[self.data]}, profile {self.profile}"

    def notes(self, *texts: str) -> tuple[str, ...]:
        """What stands below a figure: its own notes, and what is to be known of the data."""
        notes = list(texts)
        if self.data == "twin":
            notes.append("Synthetic twins are made by the suite: their scores say nothing about the real data sets.")
        leaky = [group.key.protocol for group in self.groups if _optimistic(group)]
        if leaky:
            notes.append(
                "CAUTION: * epochs selected on the test set, or the same groups in several splits "
                f"({', '.join(dict.fromkeys(leaky))})."
            )
        if lacking := sum(len(group.holes) for group in self.groups):
            notes.append(f"PARTIAL: {count(lacking, 'result')} missing; the tables name them.")
        return tuple(notes)


Draw = Callable[[Sheet], "Figure | None"]


def _optimistic(group: Group) -> bool:
    """Whether the tables warn of this group's protocol."""
    return group.protocol.selection == "test" or (group.protocol.groups_shared and not group.synthetic)


def caption(group: Group, seeds: Sequence[int] | None = None) -> str:
    """A panel's title: benchmark; below it protocol and the number of seeds; a star where scores are optimistic."""
    found = sorted({int(seed) for seed in group.runs["seed"]}) if seeds is None else list(seeds)
    star = " *" if _optimistic(group) else ""
    return (
        f"{name(group.spec.title, 34)}\n{group.key.protocol}{star}, n = {count(len(found), 'seed')} ({ranges(found)})"
    )


def describe(axes: Axes, group: Group, seeds: Sequence[int] | None = None) -> None:
    """The title of a panel: the benchmark in bold, protocol and n below it."""
    first, second = caption(group, seeds).split("\n")
    axes.set_title(f"{first}\n")
    axes.annotate(
        second, (0, 1), xytext=(0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=6.8, va="bottom"
    )


def panels(
    sheet: Sheet, height: float, columns: int = 2, rows_of: Callable[[Group], float] | None = None
) -> tuple[Figure, list[Axes]]:
    """One panel a group, in a figure of its own; ``height`` in inches of a row of panels, plus its rows of text."""
    several = min(columns, len(sheet.groups))
    lines = ceil(len(sheet.groups) / several)
    tall = [
        height + 0.17 * max((rows_of(g) for g in sheet.groups[i * several : (i + 1) * several]), default=0)
        if rows_of
        else height
        for i in range(lines)
    ]
    figure = page(sum(tall))
    grid = figure.subplots(lines, several, squeeze=False, gridspec_kw={"height_ratios": tall})
    flat = [axes for row in grid for axes in row]
    for axes in flat[len(sheet.groups) :]:
        axes.set_axis_off()
    return figure, flat[: len(sheet.groups)]


def scale(metric: str) -> float:
    """What a value is multiplied by to be shown: fractions in percent."""
    return 100.0 if METRICS[metric].unit == "%" else 1.0


def better_right(axes: Axes, metric: str) -> None:
    """Turn the axis of a metric whose low values are the good ones: right is always better."""
    if METRICS[metric].direction == "min":
        axes.invert_xaxis()


def better(metric: str) -> str:
    """The metric with its unit, and where its good end lies on an axis that ``better_right`` has turned."""
    unit = f" ({METRICS[metric].unit})" if METRICS[metric].unit else ""
    return f"{METRICS[metric].title}{unit}, better →"
