"""How many seeds train as one program: on a CPU by what the configuration is, on a GPU by what was measured there.

On a CPU the number of seeds is part of a run's rounding, so the choice must be the same on every machine: it counts
operations and their arithmetic and compares them with a fixed figure of the bench. A GPU promises no such thing; there
the seeds are as many as fit into its memory and still gain. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_CPU, MOST_GPU = 8, 32
# Of one forward pass, per operation. Configurations of the small profiles (tiny, open) have 0.02 to 2.8 MFLOP, those of
# the large ones (paper, tuned) 7.9 to 25. results/bench/cpu.json: at the small size 8 seeds do 1.4 to 2 times as many
# samples/s as one, at the full size 4 seeds do as many.
ARITHMETIC_BOUND = 5e6
SHARE = 0.8  # of the free memory that is filled
GAIN = 1.05  # samples/s that twice as many seeds must give


@dataclass(frozen=True)
class Choice:
    """A number of seeds and why it is that."""

    seeds: int
    why: str


@dataclass(frozen=True)
class Measured:
    """A training step of some seeds: its seconds and the bytes at its peak."""

    seeds: int
    step_s: float
    memory: int


def on_cpu(operations: int, flop: float) -> Choice:
    """``MOST_CPU`` or 1. operations and flop: of one forward pass of one seed over a training batch."""
    each = flop / max(1, operations)
    told = f"{each / 1e6:.2g} MFLOP an operation, {'under' if each < ARITHMETIC_BOUND else 'not under'}"
    told += f" {ARITHMETIC_BOUND / 1e6:.2g}: bound by "
    if each < ARITHMETIC_BOUND:
        return Choice(MOST_CPU, f"{told}launches, which seeds share")
    return Choice(1, f"{told}arithmetic, which seeds do not share")


def on_gpu(one: Measured, two: Measured, free: int, most: int = MOST_GPU) -> Choice:
    """The largest power of two, at most ``most``, whose memory fits into ``free`` bytes and that still gains.

    Memory and time are taken to grow by as much with every seed as from one to two.
    """
    seeds = 1
    room = SHARE * free
    while seeds < min(most, MOST_GPU):
        more = 2 * seeds
        if more > min(most, MOST_GPU):
            return Choice(seeds, f"no more than {min(most, MOST_GPU)} are asked for")
        needed = _at(one.memory, two.memory, more)
        if needed > room:
            return Choice(seeds, f"{more} would take {needed / 2**30:.1f} of {room / 2**30:.1f} GiB")
        gain = 2 * _at(one.step_s, two.step_s, seeds) / _at(one.step_s, two.step_s, more)
        if gain < GAIN:
            return Choice(seeds, f"{more} would do {gain:.2f} times the samples/s")
        seeds = more
    return Choice(seeds, "the most that train as one")


def _at(one: float, two: float, seeds: int) -> float:
    """What grows by as much with every seed, at a number of them."""
    return one + max(two - one, 0) * (seeds - 1)


def from_rows(rows: Sequence[Mapping[str, Any]], free: int, most: int) -> Choice:
    """The choice by rows of benchmarks.runner.probe for one seed and for two; where they could not be measured,
    ``MOST_CPU``: a group that does not fit is trained in halves."""
    found = [Measured(row["seeds"], row["step_s"], row["memory"]) for row in rows if "step_s" in row]
    if [each.seeds for each in found] == [1, 2]:
        return on_gpu(found[0], found[1], free, most)
    return Choice(min(MOST_CPU, most), "the steps of one and two seeds could not be measured")
