"""The hyper-parameter search: one budget, shared and recorded, for every trained method.

Each method gets the same number of trials on a benchmark. Trial 0 is the profile as it stands; the others are drawn
from a common space (the same draws for every method) times the few numbers that are the method's own. A trial is scored
by the selection metric on validation data, at a seed that no table reports; the test split is never read. Every trial
is a line of <out>/search/<profile>.jsonl, so a search that was stopped goes on where it was; the best of each method is
written beside it, to <profile>.tuned.yaml. Runs are told of it when it is adopted: then it is in the profiles' folder,
too. The linear floor is not searched: its grid is its search.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.archive import write_bytes
from benchmarks.data import FoldData
from benchmarks.errors import InputError
from benchmarks.metrics import better
from benchmarks.record import RunKey, digest_of
from benchmarks.runner import environment, processes
from benchmarks.runner.config import method_row, read_tuned, resolve, tuned_path
from benchmarks.runner.execute import Options, Setting, open_data, run_fold, setting, warm_up, what
from benchmarks.runner.results import FoldResult
from benchmarks.runner.seeds import stream

SEARCH_SEED = 1000
HEADER = "# Written by `clcr search`: the best trial of each method by validation; {} is the profile as it stands.\n"
NAMES = ("benchmark", "protocol", "data", "profile", "method", "seed")
Trial = dict[str, Any]


@dataclass(frozen=True)
class Factor:
    """The profile's value times a log-uniform number between ``low`` and ``high``."""

    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[float, ...]


WEIGHTS = Choice((0.003, 0.01, 0.03, 0.1, 0.3, 1.0))  # never 0: a method without its losses is another method
COMMON: Mapping[str, Factor | Choice] = {
    "training.lr": Factor(0.2, 5.0),
    "training.weight_decay": Factor(0.1, 10.0),
    "encoder.dropout": Choice((0.0, 0.1, 0.2, 0.3, 0.5)),
}
OWN: Mapping[str, Mapping[str, Factor | Choice]] = {
    "clcr": {"method.lambda_inter": WEIGHTS, "method.lambda_intra": WEIGHTS},
    "ogm_ge": {"method.alpha": Choice((0.1, 0.2, 0.3, 0.5, 0.8, 1.2))},
    "misa": {"method.diff_weight": WEIGHTS, "method.sim_weight": WEIGHTS, "method.recon_weight": WEIGHTS},
}


@dataclass(frozen=True)
class Budget:
    """What every method gets on a benchmark. folds: how many folds of a cross-validated protocol score a trial."""

    trials: int = 12
    folds: int = 1

    def __post_init__(self) -> None:
        if self.trials < 1 or self.folds < 1:
            raise InputError(f"--trials {self.trials} --folds {self.folds}: both must be at least 1")


def overrides_of(key: RunKey, trial: int, given: Sequence[str] = ()) -> Trial:
    """What trial number ``trial`` of a method changes: {dotted key: value}. Deterministic, empty for trial 0.

    ``given``: what ``--set`` says; factors multiply the value that it leaves.
    """
    if trial == 0:
        return {}
    row, _ = method_row(key.method)
    identity = (key.benchmark, key.protocol, key.profile, trial)
    config = resolve(key, given, tuned=False)
    drawn = _draw(COMMON, random.Random(stream("search", *identity)), config)
    return drawn | _draw(OWN.get(row.name, {}), random.Random(stream("search", *identity, row.name)), config)


def _draw(space: Mapping[str, Factor | Choice], rng: random.Random, config: object) -> Trial:
    drawn: Trial = {}
    for name, part in space.items():
        if isinstance(part, Choice):
            drawn[name] = rng.choice(part.values)
        else:
            section, _, field = name.partition(".")
            default = getattr(getattr(config, section), field)
            drawn[name] = float(f"{default * np.exp(rng.uniform(np.log(part.low), np.log(part.high))):.3g}")
    return drawn


def search(
    keys: Iterable[RunKey], options: Options, budget: Budget, workers: int, report: Callable[[Trial], None]
) -> dict[str, Any]:
    """Run the trials that are not recorded yet and write the best below <out>; returns what the file there now holds.

    ``keys``: runs of one profile, of which method, data and protocol count. ``report`` is called with each new line.
    """
    groups = list(dict.fromkeys(replace(key, variant="full", seed=SEARCH_SEED) for key in keys if _searched(key)))
    profiles = {key.profile for key in groups}
    if len(profiles) != 1:
        raise InputError(f"search: expected trained methods of one profile, found {len(groups)} of {len(profiles)}")
    path = options.out / "search" / f"{profiles.pop()}.jsonl"
    wanted = [_trial(key, number, options, budget) for key in groups for number in range(budget.trials)]
    recorded = {line["digest"]: line for line in read_trials(path)}
    missing = [trial for trial in wanted if trial["digest"] not in recorded]
    for line in _run(missing, options, workers):
        _append(path, line)
        recorded[line["digest"]] = line
        report(line)
    best = _best(groups, [recorded[trial["digest"]] for trial in wanted])
    return _merge(path.with_name(tuned_path(groups[0].profile).name), best)


def adopt(profile: str, tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Let every run of a profile use what was found; returns what the profile's file now holds. What it holds for other
    methods stays."""
    return _merge(tuned_path(profile), tuned)


def _searched(key: RunKey) -> bool:
    return not method_row(key.method)[0].fitted


def _trial(key: RunKey, number: int, options: Options, budget: Budget) -> Trial:
    """A line without its outcome. The digest says what was tried: configuration, data, source, folds."""
    overrides = overrides_of(key, number, options.overrides)
    run = setting(key, _with(options, overrides), tuned=False)
    folds = min(budget.folds, len(run.arrangement.folds))
    return {**_names(key), "trial": number, "overrides": overrides, "folds": folds, "digest": _digest(run, folds)}


def _digest(run: Setting, folds: int) -> str:
    return digest_of([what(run), str(run.key), folds])


def _names(key: RunKey) -> Trial:
    return {name: getattr(key, name) for name in NAMES}


def _with(options: Options, overrides: Mapping[str, Any]) -> Options:
    return replace(options, overrides=(*options.overrides, *(f"{name}={value}" for name, value in overrides.items())))


def run_trial(trial: Trial, options: Options) -> Trial:
    """Train and score one trial on validation data only; the line with its outcome. A failure is an outcome."""
    key = RunKey(variant="full", **{name: trial[name] for name in NAMES})
    run = setting(key, _with(options, trial["overrides"]), tuned=False)
    if _digest(run, trial["folds"]) != trial["digest"]:
        raise InputError(f"{key}: profile, code or data changed during the search; search again, it goes on")
    run = replace(run, protocol=replace(run.protocol, selection="validation"))
    outcome: Trial = {"metric": run.spec.main_metric, "value": None, "time_s": 0.0, "error": ""}
    try:
        data = open_data(run, environment.pick_device(options.device), options.cache)
        results = [_scored(run, data.at_fold(k)) for k in range(trial["folds"])]
        outcome["value"] = float(np.mean([result.value for result in results]))
        outcome["time_s"] = round(sum(result.time_s for result in results), 2)
    except InputError:
        raise
    except Exception as error:
        outcome["error"] = " ".join(f"{type(error).__name__}: {error}".split())
    return {**trial, **outcome}


def _scored(run: Setting, data: FoldData) -> FoldResult:
    (result,) = run_fold([run], [data], lambda _: None, ("valid",))
    if isinstance(result, Exception):
        raise result
    return result


def _run(trials: Sequence[Trial], options: Options, workers: int) -> Iterator[Trial]:
    """Outcomes as they come, from processes of one thread each."""
    if not trials:
        return
    with _environment(), ProcessPoolExecutor(workers, get_context("spawn"), _prepare_worker) as pool:
        waiting: list[Future[Trial]] = [pool.submit(run_trial, trial, options) for trial in trials]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    warm_up()


@contextmanager
def _environment() -> Iterator[None]:
    """The workers' environment, which must be there before they load anything; ours is put back afterwards."""
    before = dict(os.environ)
    os.environ.update(processes.WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def read_trials(path: Path) -> list[Trial]:
    """All recorded trials; a last line that was cut off by a crash is left out. InputError for any other bad line."""
    if not path.is_file():
        return []
    *lines, last = path.read_text(encoding="utf-8").split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(dict(json.loads(line)))
        except ValueError as error:
            raise InputError(f"{path}: line {number} is not JSON ({error}); delete that line") from error
    if last:
        write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    return found


def _append(path: Path, line: Trial) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def best_of(lines: Iterable[Trial]) -> Trial | None:
    """The trial with the best value, the earliest of equals; None where all failed."""
    best: Trial | None = None
    for line in sorted(lines, key=lambda line: int(line["trial"])):
        if line["value"] is not None and (best is None or better(line["metric"], line["value"], best["value"])):
            best = line
    return best


def _best(groups: Sequence[RunKey], lines: Sequence[Trial]) -> dict[str, Any]:
    """The best of each searched method, as a tuned file holds it."""
    tuned: dict[str, Any] = {}
    for key in groups:
        best = best_of(line for line in lines if _names(key).items() <= line.items())
        if best is not None:
            tuned.setdefault(f"{key.benchmark}.{key.protocol}", {})[key.method] = best["overrides"]
    return tuned


def _merge(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Put what was found into a tuned file; entries of other methods stay as they are."""
    tuned = read_tuned(path)
    for group, methods in found.items():
        tuned.setdefault(group, {}).update(methods)
    text = HEADER + yaml.safe_dump({"tuned": tuned}, sort_keys=True, default_flow_style=None, width=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())
    return tuned
