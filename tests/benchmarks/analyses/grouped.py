"""Groups of untrained methods on twins, for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import catalog
from benchmarks.data import FoldData
from benchmarks.record import RunKey
from benchmarks.runner.execute import Options, Setting, assemble, open_data, setting
from benchmarks.runner.group import Group
from benchmarks.runner.seeds import streams

CACHE = Path(tempfile.gettempdir()) / "no such folder"  # twins need none
Grouped = tuple[Group, list[Setting], list[FoldData]]


def grouped(
    method: str = "clcr",
    variant: str = "full",
    benchmark: str = "cmu_mosi",
    seeds: Sequence[int] = (0, 1),
    overrides: tuple[str, ...] = (),
) -> Grouped:
    """A group with its first values, its settings and its data."""
    protocol = catalog.spec(benchmark).twin_protocol
    assert protocol
    options = Options(CACHE, CACHE, overrides=overrides)
    keys = [RunKey(benchmark, protocol, "twin", "tiny", method, variant, seed) for seed in seeds]
    runs = [setting(key, options) for key in keys]
    first = open_data(runs[0], torch.device("cpu"), options.cache)
    data = [first.at(run.arrangement) for run in runs]
    return assemble(runs, data, [streams(benchmark, protocol, seed, 0) for seed in seeds]), runs, data
