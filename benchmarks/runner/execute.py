"""Runs, from their keys to their records: open the data, train every fold, read the test set once, write what came out.

Several runs are a group: they differ in the seed alone and train as one program (benchmarks/runner/group.py).
``record.json`` is not written here: the store does that, last. A method that raises, or whose loss is not finite, gives
a failed record with its error; bad input (InputError) is raised.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from baselines import MethodRow
from benchmarks import catalog
from benchmarks.archive import predictions_digest, write_bytes, write_npz
from benchmarks.checkpoint import checkpoint_digest
from benchmarks.data import DataOptions, FoldData, LanguageOptions
from benchmarks.errors import InputError
from benchmarks.language import model_digest
from benchmarks.metrics import compute
from benchmarks.prepared import Arrangement, Prepared
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import environment, measured, together
from benchmarks.runner.config import RunConfig, load_class, method_row, protocol_of, resolve
from benchmarks.runner.group import Evaluation, Group, TrainingError, steps
from benchmarks.runner.opcount import OperationCount
from benchmarks.runner.seeds import Streams, streams
from benchmarks.runner.source import source_digest
from benchmarks.runner.together import Choice
from benchmarks.runner.train import TRAINER, Goal, train
from benchmarks.spec import BenchmarkSpec, Protocol
from clcr.api import Method
from clcr.layers import Draws, drawing

# Texts for people: changing them changes no number and leaves every run valid.
NOT_IN_DIGEST = ("title", "note")
COUNTED, PROBE_S = 2, 300.0  # samples that a forward pass is counted with; seconds that steps on a GPU may be timed


@dataclass(frozen=True)
class Options:
    """Where things lie, on which device they run, and what ``--set`` says."""

    out: Path
    cache: Path
    device: str = "cpu"
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a run is: epoch ``epoch`` of ``epochs`` (at most) of fold ``fold`` of ``folds``, all from 1."""

    key: RunKey
    fold: int
    folds: int
    epoch: int
    epochs: int


@dataclass(frozen=True)
class Setting:
    """Everything about a run that is known before it starts. ``modality``: the one that a unimodal row reads."""

    key: RunKey
    spec: BenchmarkSpec
    protocol: Protocol
    row: MethodRow
    modality: str | None
    config: RunConfig
    prepared: Prepared
    arrangement: Arrangement
    digest: str

    @property
    def goal(self) -> Goal:
        """What is measured, and which split selects the epoch."""
        split = "test" if self.protocol.selection == "test" else "valid"
        return Goal(self.spec.metrics, self.spec.main_metric, split)


@dataclass(frozen=True)
class FoldResult:
    """What one fold gave. predictions and metrics by split; epoch 0: a method without epochs."""

    epoch: int
    value: float
    predictions: Mapping[str, np.ndarray]
    metrics: Mapping[str, Mapping[str, float]]
    n_parameters: int
    time_s: float
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[Mapping[str, Any]] = ()


def setting(key: RunKey, options: Options, tuned: bool = True) -> Setting:
    """Resolve a run: its configuration, data and samples. InputError for anything that does not fit."""
    row, modality = method_row(key.method)
    protocol = protocol_of(key)
    if modality is not None:
        protocol.modality(modality)
    prepared, arrangement, digest = _samples(replace(key, profile="", method="", variant=""), options.cache)
    config = resolve(key, options.overrides, tuned)
    return Setting(key, catalog.spec(key.benchmark), protocol, row, modality, config, prepared, arrangement, digest)


@lru_cache(maxsize=64)
def _samples(sample: RunKey, cache: Path) -> tuple[Prepared, Arrangement, str]:
    """Data, samples and their digest; ``sample`` is a key without profile, method and variant, which all share them."""
    protocol = protocol_of(sample)
    prepared = catalog.open_prepared(sample.benchmark, sample.data, cache)
    arrangement = catalog.arrange(prepared, protocol, sample.seed)
    return prepared, arrangement, catalog.data_digest(prepared, protocol, arrangement)


def warm_up() -> None:
    """What every run needs of its process; again and again costs nothing. Takes seconds, starts no thread, computes
    nothing: workers are forked after it."""
    environment.make_deterministic()
    environment.warm_up()


def describe(key: RunKey, options: Options) -> dict[str, Any]:
    """What a run is (its ``what``): all that determines its numbers, nothing that does not. Trains nothing."""
    return what(setting(key, options))


def what(run: Setting) -> dict[str, Any]:
    """The ``what`` of a resolved run, as plain JSON."""
    return {**_rules(run.spec, run.protocol, run.row, run.config), "data_digest": run.digest}


def rules(key: RunKey, options: Options) -> dict[str, Any]:
    """The ``what`` of a run without the digest of its data, which need not be here."""
    row, _ = method_row(key.method)
    return _rules(catalog.spec(key.benchmark), protocol_of(key), row, resolve(key, options.overrides))


def common_rules(spec: BenchmarkSpec, protocol: Protocol) -> dict[str, Any]:
    """The part of ``what`` that is the same for every method of a protocol in this version of the suite."""
    described = {
        "protocol": {name: value for name, value in asdict(protocol).items() if name not in NOT_IN_DIGEST},
        "metrics": {"names": spec.metrics, "main": spec.main_metric},
        "trainer": TRAINER,
    }
    if any(modality.backbone != "none" for modality in protocol.modalities):
        described["encoders_digest"] = source_digest("benchmarks.encoders")
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def _rules(spec: BenchmarkSpec, protocol: Protocol, row: MethodRow, config: RunConfig) -> dict[str, Any]:
    described = {
        "config": config.canonical(),
        "source_digest": source_digest(row.target.partition(":")[0]),
        **common_rules(spec, protocol),
    }
    if config.language is not None:  # the same model has the same digest, by whatever name or folder it is read
        described["language_digest"] = model_digest(config.language.model)
    if not config.fitted and config.encoder.checkpoint:
        described["checkpoint_digest"] = checkpoint_digest(config.encoder.checkpoint)
    if not config.fitted and config.encoder.augment != "none":
        described["augment_digest"] = source_digest("benchmarks.augment")
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def mark(key: RunKey, options: Options) -> tuple[int, ...] | None:
    """Runs that differ in the seed alone can train together where their marks are equal: the steps of an epoch in each
    fold. None for a method that trains one seed at a time."""
    run = setting(key, options)
    if run.row.fitted or not load_class(run.row).FOLDS or (run.config.language and run.config.language.finetune):
        return None
    return tuple(steps(len(fold.train), run.config.training.batch_size) for fold in run.arrangement.folds)


def best_together(groups: Sequence[Sequence[RunKey]], options: Options) -> list[Choice]:
    """How many seeds of each group to train together, all variants of a method alike. A group: runs of equal marks."""
    if options.device == "cpu":
        return [_counted(replace(group[0], variant="full", seed=0), options) for group in groups]
    chosen: dict[RunKey, Choice] = {}
    full = {replace(group[0], variant="full", seed=0): group for group in groups}
    pairs = {key: [replace(run, variant="full") for run in group[:2]] for key, group in full.items() if len(group) > 1}
    teams = [team for pair in pairs.values() for team in (pair[:1], pair)]
    lines = measured.ask(measured.request(teams, options, PROBE_S)) if teams else []
    rows = lines[1:]  # fewer where the time was over
    for place, key in enumerate(pairs):
        free = lines[0]["free"] if lines else 0
        chosen[key] = together.from_rows(rows[2 * place : 2 * place + 2], free, len(full[key]))
    return [chosen.get(replace(group[0], variant="full", seed=0), Choice(1, "one seed")) for group in groups]


@lru_cache(maxsize=1024)
def _counted(key: RunKey, options: Options) -> Choice:
    """The choice on a CPU: of a forward pass with its losses over a few samples, operations and arithmetic."""
    run = setting(key, options)
    fold, size = run.arrangement.folds[0], run.config.training.batch_size
    few = replace(run.arrangement, folds=(replace(fold, train=fold.train[:COUNTED], valid=fold.valid[:1]),))
    data = open_data(replace(run, arrangement=few), torch.device("cpu"), options.cache)
    with torch.random.fork_rng([]), torch.no_grad():
        group = Group([_build(run, data, 0)], [data])
        batch = group.data.batch(torch.as_tensor(few.folds[0].train)[None])
        with OperationCount() as count, drawing(Draws([0])):
            group.method.train().losses(group.method(batch), batch)
    return together.on_cpu(count.total, count.flop * size / len(few.folds[0].train))


def execute(
    keys: Sequence[RunKey],
    options: Options,
    folders: Sequence[Path],
    report: Callable[[Progress], None],
    stop: Callable[[], bool] = lambda: False,
) -> list[RunRecord]:
    """Train and score the runs of a group; predictions.npz, curves.jsonl and log.txt are in each run's folder then.

    A group that does not fit into the device's memory is trained in halves.

    Raises InputError for bad input. Everything else that goes wrong is told by the records (status "failed").
    """
    try:
        return _execute(keys, options, folders, report)
    except torch.OutOfMemoryError:  # raised for several only
        half = len(keys) // 2
        parts = slice(0, half), slice(half, len(keys))
        return [record for part in parts for record in execute(keys[part], options, folders[part], report)]


def _execute(
    keys: Sequence[RunKey], options: Options, folders: Sequence[Path], report: Callable[[Progress], None]
) -> list[RunRecord]:
    runs = [setting(key, options) for key in keys]
    described = [what(run) for run in runs]
    device = environment.pick_device(options.device)
    started = _now()
    warm_up()
    environment.reset_peak_memory(device)
    with ExitStack() as stack:
        logs = [stack.enter_context(_log(folder)) for folder in folders]
        for key, log in zip(keys, logs, strict=True):
            log.write(f"{started} {key} on {device}{_beside_whom(key, keys)}\n")
        try:
            results = _folds(runs, device, options.cache, report, logs)
        except InputError:
            raise
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError) and len(keys) > 1:
                raise
            for log in logs:
                log.write(traceback.format_exc())
            results = [error] * len(runs)
        parts = [_ended(*each) for each in zip(runs, results, folders, logs, strict=True)]
    told = {**environment.provenance(device), "started_at": started, "finished_at": _now()}
    told |= {"together": [key.seed for key in keys]}
    chosen = measured.choice_of(options.cache, options.device, measured.name_of(keys[0], options.overrides))
    told |= {"best_together": chosen} if chosen else {}
    peak = environment.peak_memory(device)
    return [
        RunRecord(run.key, digested, peak_memory_bytes=peak, provenance={**told, **_beside(run)}, **part)
        for run, digested, part in zip(runs, described, parts, strict=True)
    ]


def _log(folder: Path) -> TextIO:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "log.txt").open("w", encoding="utf-8", buffering=1)


def _beside_whom(key: RunKey, keys: Sequence[RunKey]) -> str:
    others = [str(other.seed) for other in keys if other != key]
    return f", together with seed {', '.join(others)}" if others else ""


def _folds(
    runs: Sequence[Setting],
    device: torch.device,
    cache: Path,
    report: Callable[[Progress], None],
    logs: Sequence[TextIO],
) -> list[list[FoldResult] | Exception]:
    """The results of every fold for each run, or what made it fail; the others of its group go on."""
    first = open_data(runs[0], device, cache)
    found: list[list[FoldResult] | Exception] = [[] for _ in runs]
    folds, epochs = len(runs[0].arrangement.folds), runs[0].config.training.epochs
    for k in range(folds):
        data = [first.at(run.arrangement, k) for run in runs]
        results = run_fold(runs, data, partial(_tell, report, Progress(runs[0].key, k + 1, folds, 0, epochs)))
        for place, result in enumerate(results):
            so_far = found[place]
            if isinstance(so_far, Exception):
                continue
            if isinstance(result, Exception):
                found[place] = result
                continue
            so_far.append(result)
            scores = (f"{split}.{n}={v:.4f}" for split, m in result.metrics.items() for n, v in m.items())
            told = f"fold {k + 1}/{folds}: epoch {result.epoch}, {result.time_s:.1f} s: {' '.join(scores)}"
            logs[place].write(f"{told}\n")
    return found


def _tell(report: Callable[[Progress], None], place: Progress, epoch: int) -> None:
    report(replace(place, epoch=epoch))


def _ended(run: Setting, results: list[FoldResult] | Exception, folder: Path, log: TextIO) -> dict[str, Any]:
    """Write what a run left; the fields of its record that tell how it ended."""
    parts = {"status": "failed", "error": " ".join(f"{type(results).__name__}: {results}".split())}
    if isinstance(results, Exception):
        log.write(f"{parts['error']}\n")
    else:
        try:
            parts = _write(run, results, folder)
        except Exception as error:
            log.write(traceback.format_exc())
            parts = {"status": "failed", "error": " ".join(f"{type(error).__name__}: {error}".split())}
    log.write(f"{_now()} {parts['status']}\n")
    return parts


def _beside(run: Setting) -> dict[str, Any]:
    """What a reader of the record wants beside its digests: the language model's name, the best score of a twin, where
    another package's method comes from."""
    ceiling = run.prepared.truth.get("ceiling")
    beside: dict[str, Any] = {} if ceiling is None else {"ceiling": dict(ceiling)}
    problem = catalog.unserved(run.key.benchmark, run.protocol, run.prepared) if run.key.data == "real" else None
    if problem is not None:
        beside["not_official"] = str(problem)
    if run.row.origin:
        beside["method"] = environment.package_state(run.row)
    return beside if run.config.language is None else {**beside, "language_model": Path(run.config.language.model).name}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def open_data(run: Setting, device: torch.device, cache: Path) -> FoldData:
    """The data of a run at its first fold, on a device; ``at_fold`` gives the others."""
    options = DataOptions(str(device), cache, run.config.language or LanguageOptions())
    data = FoldData(run.prepared, run.spec, run.protocol, run.arrangement, 0, options)
    return data if run.modality is None else data.restrict(run.modality)


def run_fold(
    runs: Sequence[Setting],
    data: Sequence[FoldData],
    report: Callable[[int], None],
    splits: Sequence[str] = ("valid", "test"),
) -> list[FoldResult | Exception]:
    """Train a group on one fold's data and score ``splits``. The search leaves the test split out: then nothing reads
    it. A run that cannot give a number has its TrainingError in the place of its result."""
    splits = [split for split in splits if data[0].size(split)]
    with torch.random.fork_rng([data[0].device] if data[0].device.type == "cuda" else []):
        if runs[0].row.fitted:
            return [_fit(run, own, report, splits) for run, own in zip(runs, data, strict=True)]
        return _train(runs, data, report, splits)


def _train(
    runs: Sequence[Setting], data: Sequence[FoldData], report: Callable[[int], None], splits: Sequence[str]
) -> list[FoldResult | Exception]:
    began = time.perf_counter()
    config = runs[0].config
    keys = [run.key for run in runs]
    seeds = [streams(k.benchmark, k.protocol, k.seed, data[0].fold) for k in keys]
    group = assemble(runs, data, seeds)
    n_parameters = sum(p.numel() for p in group.method.parameters() if p.requires_grad) // len(runs)
    outcomes = train(group, config.training, runs[0].goal, seeds, report, config.encoder.augment)
    evaluations = {split: group.evaluate(split) for split in splits}
    time_s = (time.perf_counter() - began) / len(runs)
    results: list[FoldResult | Exception] = []
    for place, (run, own, outcome) in enumerate(zip(runs, data, outcomes, strict=True)):
        found = {split: each[place] for split, each in evaluations.items()}
        wrong = [x for x in (outcome, *found.values()) if isinstance(x, TrainingError)]
        if isinstance(outcome, TrainingError) or wrong:
            results.append(wrong[0])
            continue
        predictions = {split: x.prediction for split, x in found.items() if isinstance(x, Evaluation)}
        results.append(
            FoldResult(
                epoch=outcome.epoch,
                value=outcome.value,
                predictions=predictions,
                metrics=_score(run, own, predictions),
                n_parameters=n_parameters,
                time_s=time_s,
                diagnostics=outcome.diagnostics,
                curves=outcome.curves,
            )
        )
    return results


def assemble(runs: Sequence[Setting], data: Sequence[FoldData], seeds: Sequence[Streams]) -> Group:
    """The methods of a group with their first values and their data, ready to train."""
    return Group([_build(run, own, each.init) for run, own, each in zip(runs, data, seeds, strict=True)], data)


def _build(run: Setting, data: FoldData, init: int) -> Method:
    """The method of a run with its first values."""
    torch.manual_seed(init)
    backbones, modalities = data.backbones(run.config.encoder)
    method: Method = load_class(run.row)(data.task(modalities), run.config.encoder, run.config.method, backbones)
    return method.to(data.device)


def _fit(run: Setting, data: FoldData, report: Callable[[int], None], splits: Sequence[str]) -> FoldResult:
    """A fitted estimator: the split that selects epochs elsewhere selects its regularisation here."""
    began = time.perf_counter()
    seed = streams(run.key.benchmark, run.key.protocol, run.key.seed, data.fold).init % 2**32
    model = load_class(run.row)(run.protocol.n_classes, run.config.method, seed)
    select = run.goal.split
    model.fit(data.pooled("train"), data.targets("train"), data.pooled(select), data.targets(select))
    predictions = {split: model.predict(data.pooled(split)).astype(np.float32) for split in splits}
    metrics = _score(run, data, predictions)
    report(run.config.training.epochs)
    return FoldResult(
        epoch=0,
        value=metrics[select][run.spec.main_metric],
        predictions=predictions,
        metrics=metrics,
        n_parameters=model.n_parameters,
        time_s=time.perf_counter() - began,
        diagnostics={"strength": model.strength},
    )


def _score(run: Setting, data: FoldData, predictions: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    return {split: compute(run.spec.metrics, found, data.targets(split)) for split, found in predictions.items()}


def _write(run: Setting, results: Sequence[FoldResult], folder: Path) -> dict[str, Any]:
    """Write predictions and curves; return the fields of a finished run's record."""
    arrays = pool(run.arrangement, results)
    write_npz(folder / "predictions.npz", arrays)
    lines = [json.dumps({"fold": fold, **row}) for fold, result in enumerate(results) for row in result.curves]
    write_bytes(folder / "curves.jsonl", "".join(f"{line}\n" for line in lines).encode())
    several = len(results) > 1
    metrics = {split: _mean([result.metrics[split] for result in results]) for split in results[0].metrics}
    metrics["test"] = compute(run.spec.metrics, arrays["prediction"], arrays["target"])
    return {
        "status": "done",
        "selection": _selection(run.spec.main_metric, results),
        "metrics": metrics,
        "folds": tuple(result.metrics for result in results) if several else (),
        "diagnostics": _mean([result.diagnostics for result in results]),
        "n_parameters": max(result.n_parameters for result in results),
        "time_s": sum(result.time_s for result in results),
        "predictions": predictions_digest(arrays),
    }


def _selection(metric: str, results: Sequence[FoldResult]) -> dict[str, Any]:
    if len(results) == 1:
        return {"metric": metric, "epoch": results[0].epoch, "value": results[0].value}
    values = [result.value for result in results]
    epochs = [result.epoch for result in results]
    return {"metric": metric, "epochs": epochs, "values": values, "value": float(np.mean(values))}


def pool(arrangement: Arrangement, results: Sequence[FoldResult]) -> dict[str, np.ndarray]:
    """index, target, prediction (and group) of the test samples of all folds, by index. ValueError where a sample was
    predicted twice."""
    index = np.concatenate([fold.test for fold in arrangement.folds]).astype(np.int64)
    if len(np.unique(index)) != len(index):
        raise ValueError("folds: a sample is in the test split of two folds")
    by_index = np.argsort(index)
    index = index[by_index]
    arrays = {
        "index": index,
        "target": arrangement.target[index],
        "prediction": np.concatenate([result.predictions["test"] for result in results])[by_index],
    }
    if arrangement.group is not None:
        arrays["group"] = arrangement.group[index]
    return arrays


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over folds, entry by entry."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
