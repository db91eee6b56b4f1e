"""Times training steps of one method at one size. Runs as a process of its own, see benchmarks.runner.bench.

``python -m benchmarks.runner.steps REQUEST``, a JSON object with "method", "implementation" (see ``BUILDERS``), "size",
"together" (numbers of seeds, rising), "device", "steps" and "budget_s". Prints a JSON object a line, a row for each
number of seeds; one that would not fit into the budget says so in "skipped". With "device" alone it prints the
ceilings of the device and what it is.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from baselines import METHODS
from benchmarks.runner import environment
from benchmarks.runner.bench import REFERENCE, SIZES, Size
from benchmarks.runner.config import Training, load_class
from benchmarks.runner.group import Group, Share
from benchmarks.runner.opcount import OperationCount
from benchmarks.runner.step import WARM_UP, Randomness, Recorder, Steps, cuda_graph
from benchmarks.runner.train import make_optimizer
from clcr.api import Batch, Method, Modality, Step, Task
from clcr.config import EncoderConfig

FEWEST = 3
ADAMW = Training(optimizer="adamw")
PRODUCT = {"cpu": 1024, "cuda": 8192}  # side of the matrices that measure the ceiling of arithmetic
COPIED = {"cpu": 1 << 27, "cuda": 1 << 30}  # bytes copied to measure that of memory: more than a cache holds
TRIALS = 5


def main(request: str) -> None:
    """Answer one request."""
    asked = json.loads(request)
    device = torch.device(asked["device"])
    if "method" not in asked:
        _print({"ceilings": ceilings(device), **environment.provenance(device)})
        return
    limit = time.monotonic() + asked["budget_s"]
    what = Measured(asked["method"], asked["implementation"], asked["size"])
    for row in rows(what, asked["together"], device, (asked["steps"], limit)):
        _print(row)


@dataclass(frozen=True)
class Measured:
    """A method in one of its implementations, at a size."""

    method: str
    implementation: str
    size: str


def rows(
    what: Measured, together: Sequence[int], device: torch.device, limits: tuple[int, float]
) -> Iterator[dict[str, Any]]:
    """A row for each number of seeds. ``limits``: steps to time at most, and when to stop, on the monotonic clock."""
    steps, limit = limits
    cost = 0.0  # seconds a seed and step took at the number of seeds before
    for seeds in together:
        row: dict[str, Any] = {**asdict(what), "seeds_together": seeds, "device": device.type}
        left, expected = limit - time.monotonic(), cost * seeds * (WARM_UP + FEWEST + 1)
        if cost and expected > left:
            yield {**row, "skipped": f"about {expected:.0f} s, {max(left, 0):.0f} s of the budget left"}
            continue
        step = BUILDERS[COUNTED.get(what.implementation, what.implementation)](
            what.method, SIZES[what.size], seeds, device
        )
        row |= count(step)  # warms up, too
        if what.implementation in COUNTED:
            step = BUILDERS[what.implementation](what.method, SIZES[what.size], seeds, device)
        times = timed(step, device, steps, min(limit, time.monotonic() + max(left - expected, 0.0) / 2))
        cost = median(times) / seeds
        yield {
            **row,
            "steps": len(times),
            "step_ms": round(1e3 * median(times), 3),
            "fastest_ms": round(1e3 * min(times), 3),
            "samples_per_s": round(seeds * SIZES[what.size].batch / median(times), 1),
            "peak_memory_bytes": environment.peak_memory(device),
        }
        del step


def folded(
    method: str, size: Size, seeds: int, device: torch.device, record: Recorder | None = None
) -> Callable[[], object]:
    """A training step of so many seeds, the trainer's own; recorded by ``record`` where there is one."""
    models = [model.to(device) for model in _models(method, size, seeds)]
    data = Fixed(random_batch(models[0].task, size, (seeds,)).to(device))
    group = Group(models, [data] * seeds)
    group.method.train()
    steps = Steps(group, make_optimizer(group.method, ADAMW, seeds), record=record)
    shares = [Share(slice(0, seeds), group.method, torch.arange(size.batch).expand(seeds, -1))]
    random = Randomness(Step(0, 1, group.draws(range(seeds))), group.draws(range(seeds)))
    return lambda: steps(shares, random)


def graph(method: str, size: Size, seeds: int, device: torch.device) -> Callable[[], object]:
    """As ``folded``, replayed from a CUDA graph."""
    step = folded(method, size, seeds, device, cuda_graph)
    for _ in range(WARM_UP):
        step()
    return step


def naive(method: str, size: Size, seeds: int, device: torch.device) -> Callable[[], object]:
    """A step of CLCR as loops over levels and modalities, one seed alone: the tests' reference."""
    del method, seeds
    (model,) = _models("clcr", size, 1)
    net = _reference().Eager(model).to(device).train()
    batch = random_batch(model.task, size, ()).to(device)
    optimizer = make_optimizer(net, ADAMW)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        _, losses = net(batch)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


BUILDERS: dict[str, Callable[[str, Size, int, torch.device], Callable[[], object]]] = {
    "naive": naive,
    "folded": folded,
    "graph": graph,
}


COUNTED = {"graph": "folded"}  # the same operations; a replay shows none of them


def _reference() -> Any:
    spec = importlib.util.spec_from_file_location("eager", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _models(method: str, size: Size, seeds: int) -> list[Method]:
    row = METHODS[method]
    cls = load_class(row)
    modalities = tuple(Modality(f"modality {m}", width, size.tokens) for m, width in enumerate(size.inputs))
    task = Task(modalities[:1] if row.per_modality else modalities, None, "l1")
    ranks = {"shared_rank": size.ranks[0], "private_rank": size.ranks[1]} if method == "clcr" else {}
    models: list[Method] = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        models.append(cls(task, EncoderConfig(width=size.width), cls.Config(**ranks)))
    return models


@dataclass(frozen=True)
class Fixed:
    """Data whose every batch is the same one."""

    all: Batch
    indices: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def together(cls, folds: Sequence[Self]) -> Self:
        """That of any seed is that of all."""
        return folds[0]

    def batch(self, samples: Tensor) -> Batch:
        """The one batch."""
        del samples
        return self.all

    def targets(self, split: str) -> np.ndarray:
        """Those of the one batch."""
        del split
        return self.all.target.cpu().numpy()


def random_batch(task: Task, size: Size, seeds: tuple[int, ...]) -> Batch:
    """Random tokens of ragged lengths, (B, ...) or (S, B, ...)."""
    shape = (*seeds, size.batch)
    lengths = torch.randint(size.tokens // 4, size.tokens + 1, (*shape, 1))
    return Batch(
        tuple(torch.randn(*shape, size.tokens, modality.width) for modality in task.modalities),
        tuple(torch.arange(size.tokens) < lengths for _ in task.modalities),
        torch.randn(shape),
    )


def count(step: Callable[[], object]) -> dict[str, int]:
    """Operations that are not views, floating point operations of products and convolutions, bytes moved; of a step
    after the first, which makes the optimiser's state."""
    step()
    with OperationCount() as launched:
        step()
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _of_convolution}) as flops:
        step()
    return {"ops": launched.total, "flop": flops.get_total_flops(), "bytes": launched.bytes}


def _of_convolution(gradient: Sequence[int], _: Sequence[int], weight: Sequence[int], *rest: Any, **__: Any) -> int:
    """flop of the backward of a convolution; torch's own count takes a grouped one for a dense one."""
    wanted: Sequence[bool] = rest[-1]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * sum(wanted[:2])


def timed(step: Callable[[], object], device: torch.device, steps: int, until: float) -> list[float]:
    """Seconds of each of ``steps`` steps, fewer (but three) where it is later than ``until``."""
    for _ in range(WARM_UP if device.type == "cuda" else 0):
        step()
    times: list[float] = []
    while len(times) < min(FEWEST, steps) or (len(times) < steps and time.monotonic() < until):
        times.append(seconds(step, device))
    return times


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """How long a call takes: processor time of the one thread, or on a GPU the time between two of its own events."""
    if device.type != "cuda":
        start = time.process_time()
        call()
        return time.process_time() - start
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
    events[0].record()
    call()
    events[1].record()
    torch.cuda.synchronize(device)
    return float(events[0].elapsed_time(events[1])) / 1e3


def ceilings(device: torch.device) -> dict[str, float]:
    """What the device reaches here and now: flop/s of a large product in float32, byte/s of a large copy."""
    side, size = PRODUCT[device.type], COPIED[device.type]
    a = torch.randn(side, side, device=device)
    product = torch.empty_like(a)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    fastest = [
        min(seconds(call, device) for _ in range(TRIALS))
        for call in (lambda: torch.mm(a, a, out=product), lambda: target.copy_(source))
    ]
    return {"flop_per_s": 2 * side**3 / fastest[0], "byte_per_s": 2 * size / fastest[1]}


def _print(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
