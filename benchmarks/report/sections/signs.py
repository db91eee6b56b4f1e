"""Claims on the sign of a difference that is no metric's: weights, shares, R^2. Pure functions.

The differences of a claim over runs are tested against zero (t, two-sided), Holm's correction over the family. The
claim *held* where the mean is significantly above zero, *did not hold* where it is significantly below, and is
*undecided* else: no difference is known to be too small to matter here, so none is called nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from benchmarks.report.layout import DASH, number, p_text
from benchmarks.report.sections.frame import FAILED, HELD, OPEN
from benchmarks.report.statistics import ALPHA, Comparison, holm, paired_t, seeds_needed

MOST = 1000


@dataclass(frozen=True)
class Signed:
    """One difference of a family of ``family``: its test, None where there are fewer than two runs."""

    test: Comparison | None
    p_holm: float
    family: int

    @property
    def word(self) -> str:
        """The verdict."""
        if self.test is None or self.p_holm >= ALPHA:
            return OPEN
        return HELD if self.test.difference > 0 else FAILED

    @property
    def needed(self) -> str:
        """Runs that would find what was observed with a power of 80 % at Holm's strictest step."""
        if self.test is None:
            return "two seeds at least"
        if self.test.difference == 0 or self.test.sd == 0:
            return "no number of seeds"
        plan = seeds_needed(self.test.difference, self.test.sd, alpha=ALPHA / self.family, most=MOST)
        return f"more than {MOST} seeds" if plan is None else f"{plan} seeds"

    @property
    def settled(self) -> str:
        """The verdict, and in brackets what would settle it."""
        return f"{self.word} ({self.needed})" if self.word == OPEN else self.word

    def gap(self, digits: int = 3) -> str:
        """The mean difference with its 95 % interval."""
        if self.test is None:
            return DASH
        return f"{plus(self.test.difference, digits)} [{plus(self.test.low, digits)}, {plus(self.test.high, digits)}]"

    @property
    def p(self) -> str:
        """p by Holm."""
        return DASH if self.test is None else p_text(self.p_holm)


def signs(differences: Mapping[str, Sequence[float]]) -> dict[str, Signed]:
    """One declared family: name -> differences of its runs."""
    tests = {name: paired_t(x, [0.0] * len(x)) if len(x) > 1 else None for name, x in differences.items()}
    defined = [name for name, test in tests.items() if test and isfinite(test.p)]
    values = [test.p for name in defined if (test := tests[name])]
    corrected = dict(zip(defined, holm(values, len(tests)), strict=True))
    return {name: Signed(test, corrected.get(name, 1.0), len(tests)) for name, test in tests.items()}


def plus(value: float, digits: int = 3) -> str:
    """A number with its sign."""
    text = number(value, digits)
    return text if text.startswith("−") or not isfinite(value) else f"+{text}"
