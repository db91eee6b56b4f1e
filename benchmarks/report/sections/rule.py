"""What is acted on: the rule that benchmarks/studies.yaml stated before there were runs of ``choices`` and ``pooling``.

A setting counts when its improvement on validation metrics, paired by seed and in units of the standard deviation of
the default over seeds, is positive over all pairs (two-sided p < 0.05, t) and its mean is worse on no data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.metrics import METRICS
from benchmarks.report import layout
from benchmarks.report.layout import DASH, Cell, Table, count, listed, number, p_text
from benchmarks.report.sections.data import Data, Source, spec_of
from benchmarks.report.sections.frame import real
from benchmarks.report.statistics import ALPHA, paired_t

YES, NO = "counts", "does not count"
DIGITS = 2
INTRO = (
    "Rule, stated in benchmarks/studies.yaml before the runs: a setting counts when its improvement on validation "
    "metrics, in standard deviations of the default over seeds, paired by seed, is positive over all pairs with "
    "two-sided p < 0.05 (t, not corrected) and its mean is worse than the default's on no data set; of settings that "
    "move the same field the one of the larger mean counts."
)


@dataclass(frozen=True)
class Ruled:
    """One setting under the rule. gains: in standard deviations of the default, by data set; verdict: counts or not,
    with why."""

    setting: str
    gains: Mapping[str, tuple[float, ...]]
    mean: float
    low: float
    high: float
    p: float
    verdict: str

    @property
    def worse(self) -> list[str]:
        """The data sets on which the mean is worse than the default's."""
        return [place for place, gains in self.gains.items() if np.mean(gains) < 0]


def judged(data: Data, setting: str, pairs: Sequence[tuple[str, str, Source, Source]]) -> Ruled | None:
    """The rule on one setting; pairs: (name of the set, "benchmark.protocol", changed, default). None without two pairs
    of seeds, or where a default does not vary."""
    gains: dict[str, tuple[float, ...]] = {}
    for name, place, changed, default in pairs:
        metric = spec_of(place)[0].main_metric
        new, old = (data.values(place, source, "valid").get(metric, {}) for source in (changed, default))
        sd = float(np.std(list(old.values()), ddof=1)) if len(old) > 1 else 0.0
        upwards = 1 if METRICS[metric].direction == "max" else -1
        some = tuple(upwards * (new[seed] - old[seed]) / sd for seed in sorted(set(new) & set(old))) if sd else ()
        gains |= {name: some} if some else {}
    flat = [gain for some in gains.values() for gain in some]
    if len(flat) < 2:
        return None
    test = paired_t(flat, [0.0] * len(flat))
    mean = float(np.mean([np.mean(some) for some in gains.values()]))
    found = Ruled(setting, gains, mean, test.low, test.high, test.p, NO)
    good = mean > 0 and test.p < ALPHA and not found.worse
    return Ruled(setting, gains, mean, test.low, test.high, test.p, YES if good else NO)


def one_a_field(found: Sequence[Ruled], fields: Mapping[str, frozenset[str]]) -> list[Ruled]:
    """Of settings that count and move a same field only that of the larger mean counts."""
    kept: list[Ruled] = []
    for one in sorted(found, key=lambda each: -each.mean):
        rival = next((k.setting for k in kept if k.verdict == YES and fields[k.setting] & fields[one.setting]), "")
        beaten = one.verdict == YES and rival
        kept.append(Ruled(**{**vars(one), "verdict": f"{NO}: {rival} moves the same field"}) if beaten else one)
    return kept


def table(found: Sequence[Ruled], intro: Sequence[str] = ()) -> Table:
    """All that were judged, with the sentence that sums them up."""
    columns = ("Setting", "Mean gain (sd) [95 % interval]", "p", "Pairs", "Worse on", "By the rule")
    rows = tuple(tuple(Cell(text) for text in _texts(one)) for one in found)
    told = layout.Section("The rule", columns, rows, (summed(found),))
    frame = pd.DataFrame(
        [
            {"setting": one.setting, "mean": one.mean, "low": one.low, "high": one.high, "p": one.p,
             "pairs": _pairs(one), "worse_on": "; ".join(one.worse), "verdict": one.verdict}
            for one in found
        ]
    )  # fmt: skip
    return real("rule", "What is acted on", (*intro, INTRO), (told,), frame)


def summed(found: Sequence[Ruled]) -> str:
    """One sentence on all of them."""
    names = [one.setting for one in found if one.verdict == YES]
    told = f": {listed(names)}" if names else ""
    return f"By the rule stated beforehand {len(names)} of {count(len(found), 'setting')} count{told}."


def _pairs(one: Ruled) -> int:
    return sum(len(gains) for gains in one.gains.values())


def _texts(one: Ruled) -> tuple[str, ...]:
    sure = [number(value, DIGITS) for value in (one.mean, one.low, one.high)]
    gain = f"{sure[0]} [{sure[1]}, {sure[2]}]"
    return one.setting, gain, p_text(one.p), str(_pairs(one)), listed(one.worse) or DASH, one.verdict
