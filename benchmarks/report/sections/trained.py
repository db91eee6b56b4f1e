"""Lines of analyses beside the committed runs that they belong to, group by group. No torch.

A line counts where a committed run has its key and its digest: a number of weights whose run is not there, or was made
again with other settings, is left out and told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from baselines import METHODS
from benchmarks.record import RunKey
from benchmarks.report.collect import FULL, OURS, Group, GroupKey, Row, label, row_name
from benchmarks.report.compare import Contrast, contrasts, needed_text
from benchmarks.report.layout import DASH, Cell, count, p_text
from benchmarks.report.sections.data import Data, Values, group_of, keys_of
from benchmarks.report.sections.frame import FAILED, HELD, OPEN, gap, settled_by, verdict

PROFILES: Mapping[str, str] = {"real": "open", "twin": "tiny"}  # of the main tables that findings are about
Runs = Mapping[Row, Mapping[int, Mapping[str, Any]]]  # by row, by seed: the values of a line


@dataclass(frozen=True)
class Lines:
    """What one analysis gave for a group of the main tables. notes: what it lacks and how to get it."""

    group: Group
    runs: Runs
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """ "benchmark.protocol"."""
        return f"{self.group.key.benchmark}.{self.group.key.protocol}"

    @property
    def metric(self) -> str:
        """The metric that the group is compared by."""
        return self.group.spec.main_metric

    @property
    def modalities(self) -> list[str]:
        """Names in the protocol's order."""
        return [modality.name for modality in self.group.protocol.modalities]

    @property
    def rows(self) -> list[Row]:
        """Rows with lines, in the order of the tables."""
        return sorted(self.runs, key=self.group.row_order)

    def scored(self, scores: Mapping[Row, Mapping[int, float]]) -> Group:
        """A group whose rows have these values of the main metric by seed: for tests. Empty rows are left out."""
        kept: dict[Row, Values] = {row: {self.metric: values} for row, values in scores.items() if values}
        return group_of(self.place, kept, self.group.key.data, self.group.key.profile)

    def tested(
        self, scores: Mapping[Row, Mapping[int, float]], pairs: Sequence[tuple[Row, Row]]
    ) -> dict[tuple[Row, Row], Contrast]:
        """The declared test over one family of pairs."""
        return dict(zip(pairs, contrasts(self.scored(scores), self.metric, pairs), strict=True))


def lines(
    data: Data, name: str, wanted: Callable[[RunKey], bool] | None = None, kind: str = "real"
) -> tuple[Lines, ...]:
    """The lines of an analysis for each group of the main tables that has some. wanted: the runs that should have
    one; by default the full variants of all methods."""
    found: dict[GroupKey, dict[Row, dict[int, Mapping[str, Any]]]] = {}
    rejected: dict[GroupKey, int] = {}
    for line in data.analysed(name):
        place = GroupKey.of(line.key)
        record = data.records.get(line.key)
        if record is None or record.digest != line.digest:
            rejected[place] = rejected.get(place, 0) + 1
            continue
        row = (line.key.method, line.key.variant)
        found.setdefault(place, {}).setdefault(row, {})[line.key.seed] = line.values
    made = []
    for group in data.main.of(kind):
        runs = found.get(group.key, {})
        if group.key.profile == PROFILES[kind] and (runs or group.key in rejected):
            notes = _notes(group, name, runs, rejected.get(group.key, 0), wanted or whole)
            made.append(Lines(group, runs, notes))
    return tuple(made)


def whole(key: RunKey) -> bool:
    """Whether a run is of a full variant."""
    return key.variant == FULL


def by_epochs(key: RunKey) -> bool:
    """Whether a run is of a full variant that trains by epochs."""
    known = METHODS.get(row_name(key.method))
    return whole(key) and not (known is not None and known.fitted)


def ours(key: RunKey) -> bool:
    """Whether a run is of CLCR's full variant."""
    return key.method == OURS and key.variant == FULL


def _notes(group: Group, name: str, runs: Runs, rejected: int, wanted: Callable[[RunKey], bool]) -> tuple[str, ...]:
    keys = [key for key in keys_of(group) if wanted(key)]
    absent = sum(key.seed not in runs.get((key.method, key.variant), {}) for key in keys)
    remedy = f"`clcr analyse {name}` makes them"
    notes = [f"PARTIAL: {count(absent, 'run')} of {len(keys)} not analysed; {remedy}."] if absent else []
    if rejected:
        notes.append(f"{count(rejected, 'line')} left out: no committed run has that key and digest; {remedy} again.")
    return tuple(notes)


def absent(name: str, what: str) -> str:
    """The sentence of a section whose analysis was not made."""
    lacks = f"results/analyses/{name}.jsonl holds no line of a committed run"
    return f"No {what} yet: {lacks}; `clcr analyse {name}` makes them."


def fused(rows: Sequence[Row]) -> list[Row]:
    """Full variants of the methods that read every modality, without CLCR: its rivals."""
    return [row for row in rows if row[1] == FULL and row[0] != OURS and not alone(row[0])]


def alone(method: str) -> bool:
    """Whether a method reads one modality."""
    known = METHODS.get(row_name(method))
    return known is not None and known.per_modality


def title(row: Row) -> str:
    """A row's name: the method, and the variant where it is not the full one."""
    return label(row[0]) if row[1] == FULL else f"{label(row[0])}, {row[1]}"


Pick = Callable[[Mapping[str, Any]], float | None]


def values_of(runs: Mapping[int, Mapping[str, Any]], pick: Pick) -> dict[int, float]:
    """What ``pick`` finds in each run, by seed; runs where it finds no finite number are left out."""
    found = {seed: pick(values) for seed, values in sorted(runs.items())}
    return {seed: float(value) for seed, value in found.items() if value is not None and isfinite(value)}


def every(words: Sequence[str]) -> str:
    """The verdict on a claim that is a claim on each of several: it held where all held, it did not hold where one did
    not."""
    if FAILED in words:
        return FAILED
    return HELD if words and all(word == HELD for word in words) else OPEN


def judged(found: Sequence[tuple[str, Contrast]]) -> tuple[str, str]:
    """The verdict on "better than each of these" (name, contrast), and what would settle it; "" where nothing is
    open or the verdict stands without it."""
    words = {name: verdict(contrast) for name, contrast in found}
    word = every(list(words.values()))
    return word, settled_by(found, words) if word == OPEN else ""


def cells(texts: Sequence[str]) -> tuple[Cell, ...]:
    """One row of a table."""
    return tuple(Cell(text) for text in texts)


def compared_cells(contrast: Contrast | None) -> tuple[str, str, str]:
    """Difference with its interval, p by Holm, and the seeds that would find it."""
    if contrast is None:
        return DASH, DASH, DASH
    if contrast.test is None:
        return contrast.untested, DASH, DASH
    return gap(contrast), p_text(contrast.p_holm), needed_text(contrast)
