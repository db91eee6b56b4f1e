"""Training steps of every method, of one seed and of many together: their time, what they launch, what bounds them.

Each method and size is measured in a process of its own (benchmarks.runner.steps), in the environment of a worker. No
torch here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baselines import METHODS
from benchmarks import BENCHMARKS, drawing
from benchmarks.errors import InputError, unknown
from benchmarks.record import RunKey
from benchmarks.runner import measured, processes, store
from benchmarks.runner.names import base_of

TOGETHER = (1, 2, 4, 8, 16, 32)
START_S = 4.0  # a process, until it measures
REFERENCE = Path(__file__).resolve().parents[2] / "tests" / "clcr" / "eager.py"  # CLCR in loops
OTHER_MARKERS = {"naive": "x", "graph": "s"}
FIGURE_TYPES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Size:
    """A task by its size: widths of the modalities' tokens, their number, the batch, the encoder's width, the ranks."""

    inputs: tuple[int, ...]
    tokens: int
    batch: int
    width: int
    ranks: tuple[int, int]


SIZES: Mapping[str, Size] = {
    "full": Size((768, 74, 35), 50, 64, 128, (32, 32)),
    "small": Size((300, 74, 35), 20, 32, 32, (16, 15)),
}


@dataclass(frozen=True)
class Grid:
    """What is measured. ``steps``: at most so many for each entry; ``budget_s``: for all of it, about."""

    methods: tuple[str, ...]
    sizes: tuple[str, ...]
    together: tuple[int, ...] = TOGETHER
    device: str = "cpu"
    steps: int = 20
    budget_s: float = 150.0

    def __post_init__(self) -> None:
        known = trained()
        for name, names, table in (("--method", self.methods, known), ("--size", self.sizes, tuple(SIZES))):
            for wrong in (x for x in names if x not in table):
                raise unknown(name[2:], wrong, table, name)
        if self.steps < 1:
            raise InputError(f"--steps {self.steps}: must be at least 1")
        if not self.budget_s > 0:
            raise InputError(f"--budget {self.budget_s:g}: must be a number of seconds above 0")


def trained() -> tuple[str, ...]:
    """The methods that have training steps."""
    return tuple(row.name for row in METHODS.values() if not row.fitted)


def parse_together(text: str) -> tuple[int, ...]:
    """ "1,8" as rising numbers."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1:
        raise InputError(f"--seeds-together {text}: must be numbers from 1 on, such as 1,8")
    return tuple(found)


def machine(device: str) -> dict[str, Any]:
    """The device's name, versions, threads, commit, and its ceilings: flop/s of a product, byte/s of a copy."""
    return _ask({"device": device})[0]


def measure(grid: Grid, ceilings: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """The rows of the grid, entry by entry, each with the place of what it reached under the roofline."""
    entries = [(size, *entry) for size in grid.sizes for method in grid.methods for entry in _entries(method, grid)]
    for size, method, implementation, together in entries:
        request = {
            "method": method,
            "implementation": implementation,
            "size": size,
            "together": together,
            "device": grid.device,
            "steps": grid.steps,
            "budget_s": max(grid.budget_s / len(entries) - START_S, 1.0),
        }
        for row in _ask(request):
            yield {**row, **roofline(row, ceilings)}


def configurations(out: Path) -> list[RunKey]:
    """A run of each trained method's full variant on real data that ``out`` has a record of, in their order."""
    found: dict[RunKey, RunKey] = {}
    for benchmark in BENCHMARKS:
        for entry in store.committed(out, benchmark):
            key = entry.key
            shown = key.data == "real" and key.variant == "full" and base_of(key.method) in trained()
            if entry.status == "done" and shown:
                found.setdefault(replace(key, seed=0), key)
    if not found:
        told = f"--configurations {out}: no record of a trained method's full variant on real data"
        raise InputError(f"{told}; name a folder of results")
    return list(found.values())


def forward(keys: Sequence[RunKey], place: Any, budget_s: float) -> list[dict[str, Any]]:
    """A row of each run's forward pass, see ``probe.forward``, one that failed with "skipped", as those that the budget
    left no time for."""
    asked = {**measured.request([[key] for key in keys], place, budget_s), "forward": True}
    errors: list[str] = []
    rows = measured.ask(asked, errors.append)[1:]
    if errors and not rows:
        raise InputError(f"bench on {place.device}: {errors[0]}")
    told = [{**row, "run": key.folder} if "skipped" in row else row for key, row in zip(keys, rows, strict=False)]
    late = [{"run": key.folder, "skipped": "no budget left"} for key in keys[len(rows) :]]
    return told + late


def _entries(method: str, grid: Grid) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(method, implementation, numbers of seeds): on a GPU also as a CUDA graph; of CLCR in a checkout also naive."""
    if method == "clcr" and REFERENCE.is_file():
        yield method, "naive", (1,)
    yield method, "folded", grid.together
    if grid.device.startswith("cuda"):
        yield method, "graph", grid.together


def _ask(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.runner.steps", json.dumps(request)]
    done = subprocess.run(command, env=processes.environment(), capture_output=True, text=True, check=False)
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:  # most likely out of memory: what was measured before counts
        last = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        if "method" not in request:
            raise InputError(f"bench on {request['device']}: {last}")
        names = {name: request[name] for name in ("method", "implementation", "size")}
        missing = request["together"][len(lines) :]
        lines += [{**names, "seeds_together": seeds, "skipped": f"failed: {last}"} for seeds in missing]
    return lines


def roofline(row: Mapping[str, Any], ceilings: Mapping[str, float]) -> dict[str, float]:
    """flop per byte, flop/s reached, and its share of what arithmetic and memory would allow; nothing if skipped."""
    if "skipped" in row:
        return {}
    reached = row["flop"] / (row["step_ms"] / 1e3)
    intensity = row["flop"] / row["bytes"]
    roof = min(ceilings["flop_per_s"], intensity * ceilings["byte_per_s"])
    return {"flop_per_byte": round(intensity, 3), "flop_per_s": round(reached), "roof_share": round(reached / roof, 3)}


def record(grid: Grid, origin: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is kept: the rows, and where they come from."""
    sizes = {name: asdict(SIZES[name]) for name in grid.sizes}
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return {"date": date, "machine": dict(origin), "sizes": sizes, "rows": list(rows)}


def as_forward_table(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of ``forward`` for people."""
    numbers = (f"{row['flop_per_sample'] / 1e6:.3f}", f"{row['inference_ms']:.4f}", f"{row['training_ms']:.4f}")
    return (f"{row['benchmark']}.{row['protocol']}", row["method"], f"{row['n_parameters']:,}", *numbers)


FORWARD_COLUMNS = ("data set", "method", "parameters", "MFLOP", "ms of inference", "ms of training")


def as_table(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row for people."""
    names = (row["method"], row["implementation"], row["size"], str(row["seeds_together"]))
    if "skipped" in row:
        return (*names, "skipped", row["skipped"])
    return (
        *names,
        f"{row['step_ms']:.1f}",
        f"{row['samples_per_s']:.0f}",
        str(row["ops"]),
        f"{row['flop'] / 1e9:.2f}",
        f"{row['flop_per_s'] / 1e9:.1f}",
        f"{100 * row['roof_share']:.0f}",
        f"{row['peak_memory_bytes'] / 2**20:.0f}",
    )


COLUMNS = (
    *(
        "method",
        "implementation",
        "size",
        "seeds",
        "ms a step",
        "samples/s",
        "ops",
        "GFLOP",
        "GFLOP/s",
        "% of the roof",
    ),
    "peak MiB",
)


def figure_path(text: str) -> Path:
    """Where the figure goes; InputError unless its name says what it is."""
    path = Path(text)
    if path.suffix not in FIGURE_TYPES:
        raise InputError(f"--figure {text}: must end in one of {', '.join(FIGURE_TYPES)}")
    return path


def draw(kept: Mapping[str, Any], path: Path) -> None:
    """Samples per second over all seeds against the number of seeds, a panel a size; needs matplotlib."""
    if lacking := drawing.lacking():
        raise InputError(f"--figure {path}: {lacking}")
    with drawing.style():
        figure = drawing.page(3.0)
        looks = {_name(row): _look(row) for row in kept["rows"]}
        for axes, size in zip(figure.subplots(1, len(kept["sizes"]), squeeze=False)[0], kept["sizes"], strict=True):
            rows = [row for row in kept["rows"] if row["size"] == size and "skipped" not in row]
            for name in dict.fromkeys(map(_name, rows)):
                line = [(row["seeds_together"], row["samples_per_s"]) for row in rows if _name(row) == name]
                look = looks[name]
                axes.plot(*zip(*line, strict=True), color=look.colour, marker=look.marker, markersize=4)
            drawing.plain_log(axes, "x")
            drawing.plain_log(axes, "y")
            ticks = sorted({row["seeds_together"] for row in rows})
            axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
            axes.set(xlabel="seeds in one program", ylabel="samples/s, all seeds", title=size)
            axes.grid(axis="y")
        figure.legend(handles=drawing.keys(looks), loc="outside right center")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawing.save(figure, path.suffix[1:]))


def _name(row: Mapping[str, Any]) -> str:
    """What a row's line is called."""
    label = METHODS[row["method"]].label
    return label if row["implementation"] == "folded" else f"{label}, {row['implementation']}"


def _look(row: Mapping[str, Any]) -> drawing.Look:
    look = drawing.look(row["method"])
    return look if row["implementation"] == "folded" else replace(look, marker=OTHER_MARKERS[row["implementation"]])
