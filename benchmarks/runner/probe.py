"""Times some steps of real runs, to predict them. Runs as a process of its own, see benchmarks.runner.measured.

Reads a JSON object: "teams" (lists of run keys), "place" (the engine's options), "budget_s" and "asked_at" (a time);
with "forward" also there, the forward pass of each team's first run is measured (``forward``).
Prints a JSON object a line: first what it runs on and how long it took to start, then a row for each team until the
budget is spent. What is timed is the trainer itself, on the team's own data, cut to a few batches.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.data import FoldData
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Fold
from benchmarks.record import RunKey
from benchmarks.runner import environment, execute
from benchmarks.runner.group import EVALUATION_BATCH, Group, steps
from benchmarks.runner.opcount import OperationCount
from benchmarks.runner.seeds import streams
from benchmarks.runner.train import train

EPOCHS, STEPS = 3, 8  # that are timed at most
EPOCH_S = 0.06  # an epoch is cut to about this
SLOW_S, SAMPLES = 4.0, 4  # a step that would take longer is measured on so many samples and scaled
FITTED = 400  # samples that time a fitted estimator
PASSES = 5  # of inference that are timed
Clock = Callable[[], float]
Measure = Callable[[Sequence[RunKey], execute.Options, torch.device], dict[str, Any]]


@dataclass(frozen=True)
class Timing:
    """Seconds of a team: a step, a pass over one evaluation batch, and what a fold takes besides."""

    step_s: float
    evaluation_s: float
    beside_s: float


def main(asked: dict[str, Any]) -> None:
    """Answer one request."""
    start_s = time.time() - asked["asked_at"]
    limit = time.monotonic() + asked["budget_s"] - start_s
    place = asked["place"]
    paths = {name: Path(place[name]) for name in ("out", "cache")}
    options = execute.Options(**{**place, **paths, "overrides": tuple(place["overrides"])})
    device = environment.pick_device(options.device)
    environment.make_deterministic()
    environment.warm_up()
    _print({"start_s": start_s, "free": free_memory(device), **environment.provenance(device)})
    for number, team in enumerate(asked["teams"]):
        keys = [RunKey(**key) for key in team]
        for _ in range(1 if number else 2):  # the first one loads what all share
            if time.monotonic() > limit:
                return
            row = _row(forward if asked.get("forward") else measure, keys, options, device)
        _print(row)


def _row(measured: Measure, keys: Sequence[RunKey], options: execute.Options, device: torch.device) -> dict[str, Any]:
    try:
        return measured(keys, options, device)
    except (InputError, RuntimeError) as error:  # also a team that does not fit into memory: no prediction
        return {"seeds": len(keys), "skipped": " ".join(f"{error}".split())[:200]}


def measure(keys: Sequence[RunKey], options: execute.Options, device: torch.device) -> dict[str, Any]:
    """The row of a team: what was timed and what follows for a whole run. Nothing is written.

    run_s: what the record of a run calls ``time_s``, for as many epochs as the configuration allows; opening_s: what
    the team takes besides, once; step_s: a step of the whole team; memory: bytes at the peak.
    """
    if device.type == "cuda":
        gc.collect()  # the group before this one would count
    environment.reset_peak_memory(device)
    now = clock(device)
    began = now()
    runs = [execute.setting(key, options) for key in keys]
    first = execute.open_data(runs[0], device, options.cache)
    data = [first.at(run.arrangement, 0) for run in runs]
    opening = now() - began
    row = {
        "seeds": len(keys),
        "opening_s": opening,
        "early": 0 < runs[0].config.training.patience < runs[0].config.training.epochs and not runs[0].config.fitted,
    }
    if runs[0].row.fitted:
        row["run_s"] = _fitted_s(runs[0], data[0], now)
    else:
        timing = _timing(runs, data, now)
        row |= {"step_s": timing.step_s, "evaluation_s": timing.evaluation_s}
        row["run_s"] = sum(_fold_s(runs[0], fold, timing) for fold in runs[0].arrangement.folds) / len(runs)
    return {**row, "memory": environment.peak_memory(device)}


def forward(keys: Sequence[RunKey], options: execute.Options, device: torch.device) -> dict[str, Any]:
    """What one trained sample and one predicted sample of the first run take, as its network is before training.

    flop_per_sample: products and convolutions of the forward pass; inference_ms: the median of ``PASSES`` passes over
    ``samples`` test samples, reading included; training_ms: a step of one seed alone over its batch. Both a sample.
    """
    run, now = execute.setting(keys[0], options), clock(device)
    if run.row.fitted:
        raise InputError(f"{run.key}: a fitted estimator has no forward pass to count; name methods that are trained")
    data = execute.open_data(run, device, options.cache)
    part = data.at(cut(run.arrangement, SAMPLES, EVALUATION_BATCH), 0)
    samples = part.size("test")
    seeds = streams(run.key.benchmark, run.key.protocol, run.key.seed, 0)
    group = execute.assemble([run], [part], [seeds])
    group.evaluate("test")
    with OperationCount() as counted:
        group.evaluate("test")
    times = []
    for _ in range(PASSES):
        began = now()
        group.evaluate("test")
        times.append(now() - began)
    batch = min(run.config.training.batch_size, len(run.arrangement.folds[0].train))
    step = _timing([run], [data], now).step_s
    return {
        **{name: value for name, value in asdict(run.key).items() if name != "seed"},
        "samples": samples,
        "n_parameters": sum(p.numel() for p in group.method.parameters() if p.requires_grad),
        "flop_per_sample": round(counted.flop / samples),
        "inference_ms": round(1e3 * median(times) / samples, 5),
        "training_ms": round(1e3 * step / batch, 5),
    }


def _fold_s(run: execute.Setting, fold: Fold, timing: Timing) -> float:
    """Seconds of a team at one fold: every epoch that it may take, and the last evaluation of all splits."""
    training = run.config.training
    passes = {name: len(getattr(fold, name)) / EVALUATION_BATCH for name in ("valid", "test")}
    epoch = steps(len(fold.train), training.batch_size) * timing.step_s + passes[run.goal.split] * timing.evaluation_s
    return timing.beside_s + training.epochs * epoch + sum(passes.values()) * timing.evaluation_s


def cut(arrangement: Arrangement, train: int, others: int) -> Arrangement:
    """The first fold alone, its training part and its other parts cut to so many samples."""
    fold = arrangement.folds[0]
    parts = (fold.train[:train], fold.valid[:others], fold.test[:others])
    return replace(arrangement, folds=(Fold(*parts),))


def _timing(runs: Sequence[execute.Setting], data: Sequence[FoldData], now: Clock) -> Timing:
    """Time the trainer on a cut fold. A configuration whose step is slow is bound by arithmetic: there a few samples
    tell the time of many."""
    batch = min(runs[0].config.training.batch_size, len(runs[0].arrangement.folds[0].train))
    few = min(SAMPLES, batch)
    rough = _trained(runs, data, (few, 1, few), now)
    whole = rough.step_s * batch / few
    if whole > SLOW_S:
        found = _trained(runs, data, (few, 1, few), now)
        return Timing(found.step_s * batch / few, found.evaluation_s * EVALUATION_BATCH / few, found.beside_s)
    count = max(1, min(STEPS, int(EPOCH_S / max(whole, 1e-9)) + 1))
    return _trained(runs, data, (batch, count, EVALUATION_BATCH), now)


def _trained(
    runs: Sequence[execute.Setting], data: Sequence[FoldData], size: tuple[int, int, int], now: Clock
) -> Timing:
    """Time some epochs of (batch, steps, samples that are evaluated)."""
    batch, count, others = size
    run = runs[0]
    parts = [own.at(cut(one.arrangement, batch * count, others), 0) for one, own in zip(runs, data, strict=True)]
    seeds = [streams(one.key.benchmark, one.key.protocol, one.key.seed, 0) for one in runs]
    training = replace(run.config.training, batch_size=batch, epochs=EPOCHS, patience=0)
    began = now()
    group = execute.assemble(runs, parts, seeds)
    ends: list[float] = []
    train(group, training, run.goal, seeds, lambda _: ends.append(now()), run.config.encoder.augment)
    spent = now() - began
    split = run.goal.split
    evaluation = _evaluation_s(group, split, now)
    epoch = median(later - earlier for earlier, later in pairwise(ends))
    step = max(epoch - evaluation, 0.1 * epoch) / steps(batch * count, batch)
    scale = min(EVALUATION_BATCH, others) / max(1, len(parts[0].indices[split]))
    return Timing(step, evaluation * max(scale, 1.0), max(spent - EPOCHS * epoch, 0.0))


def _evaluation_s(group: Group, split: str, now: Clock) -> float:
    times = []
    for _ in range(EPOCHS - 1):
        began = now()
        group.evaluate(split)
        times.append(now() - began)
    return min(times)


def _fitted_s(run: execute.Setting, data: FoldData, now: Clock) -> float:
    """Seconds of a fitted estimator over all folds, from a fit on part of the samples."""
    part = data.at(cut(run.arrangement, FITTED, FITTED), 0)
    began = now()
    execute.run_fold([run], [part], lambda _: None)
    spent = now() - began
    return sum(spent * max(1.0, len(fold.train) / FITTED) for fold in run.arrangement.folds)


def clock(device: torch.device) -> Clock:
    """Seconds as a run spends them: processor time of this process, on a GPU time once it has done what it was given.

    Processor time, since others may keep the machine busy while this is measured.
    """
    return time.process_time if device.type != "cuda" else partial(_synchronised, device)


def _synchronised(device: torch.device) -> float:
    torch.cuda.synchronize(device)
    return time.perf_counter()


def free_memory(device: torch.device) -> int:
    """Bytes that a process may still take on a GPU; 0 where it is not one."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def _print(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.load(sys.stdin))
