"""The table of costs: parameters, time per run and memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pandas as pd

from benchmarks.report.collect import Collected, Group, Row
from benchmarks.report.layout import DATA, Cell, Section, Table, about, lacks, name_of, number
from benchmarks.report.tables import identity

COLUMNS = ("Method", "Variant", "Parameters", "Time per run (s)", "Peak memory (MiB)", "Device", "Runs")
INTRO = (
    "Time is mean ± standard deviation over runs; memory is the largest of them (of the process on a CPU, of the "
    "allocator on a GPU). Seeds that trained together share their program's time in equal parts and have its memory. "
    "No test is made: times compare only between runs made on the same idle device.",
)


@dataclass(frozen=True)
class Cost:
    """What the runs of one row cost."""

    n: int
    n_parameters: int
    time_s_mean: float
    time_s_sd: float | None
    peak_memory_bytes: int
    device: str


def cost_table(collected: Collected) -> Table:
    """What each method and variant costs, one section per benchmark, protocol and profile."""
    costs = {group.key: list(costs_of(group)) for group in collected.groups}
    parts = {data: tuple(_section(group, costs[group.key]) for group in collected.of(data)) for data in DATA}
    rows = [{**identity(group, row), **asdict(cost)} for group in collected.groups for row, cost in costs[group.key]]
    return Table("cost", "Cost", INTRO, parts, pd.DataFrame(rows))


def costs_of(group: Group) -> Iterator[tuple[Row, Cost]]:
    """What each row of a group costs, in the order of the tables."""
    found = {(str(m), str(v)): runs for (m, v), runs in group.runs.groupby(["method", "variant"])}
    for row in sorted(found, key=group.row_order):
        runs, times = found[row], found[row]["time_s"].astype(float)
        yield (
            row,
            Cost(
                n=len(runs),
                n_parameters=int(runs["n_parameters"].max()),
                time_s_mean=float(times.mean()),
                time_s_sd=float(times.std(ddof=1)) if len(runs) > 1 else None,
                peak_memory_bytes=int(runs["peak_memory_bytes"].max()),
                device=", ".join(sorted(set(runs["device"]))),
            ),
        )


def _section(group: Group, costs: list[tuple[Row, Cost]]) -> Section:
    rows = []
    for row, cost in costs:
        spread = "" if cost.time_s_sd is None else f" ± {number(cost.time_s_sd, 1)}"
        texts = (
            str(identity(group, row)["label"]),
            row[1],
            f"{cost.n_parameters:,}",
            f"{number(cost.time_s_mean, 1)}{spread}",
            number(cost.peak_memory_bytes / 2**20, 0),
            cost.device,
            str(cost.n),
        )
        rows.append(tuple(Cell(text) for text in texts))
    return Section(name_of(group), COLUMNS, tuple(rows), about(group)[:1], lacks(group, True))
