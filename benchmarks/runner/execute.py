"""One run, from its key to its record: open the data, train every fold, read the test set once, write what came out.

``record.json`` is not written here: the store does that, last. A method that raises, or whose loss is not finite, gives
a failed record with its error; bad input (InputError) is raised.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from baselines import MethodRow
from benchmarks import catalog
from benchmarks.archive import predictions_digest, write_bytes, write_npz
from benchmarks.data import DataOptions, FoldData, LanguageOptions
from benchmarks.errors import InputError
from benchmarks.language import model_digest
from benchmarks.metrics import compute
from benchmarks.prepared import Arrangement, Prepared
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import environment
from benchmarks.runner.config import RunConfig, load_class, method_row, protocol_of, resolve
from benchmarks.runner.seeds import streams
from benchmarks.runner.source import source_digest
from benchmarks.runner.train import TRAINER, Goal, evaluate, train
from benchmarks.spec import BenchmarkSpec, Protocol

# Texts for people: changing them changes no number and leaves every run valid.
NOT_IN_DIGEST = ("title", "note")


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


def describe(key: RunKey, options: Options) -> dict[str, Any]:
    """What a run is (its ``what``): all that determines its numbers, nothing that does not. Trains nothing."""
    return what(setting(key, options))


def what(run: Setting) -> dict[str, Any]:
    """The ``what`` of a resolved run, as plain JSON."""
    protocol = {name: value for name, value in asdict(run.protocol).items() if name not in NOT_IN_DIGEST}
    described = {
        "config": run.config.canonical(),
        "protocol": protocol,
        "metrics": {"names": run.spec.metrics, "main": run.spec.main_metric},
        "data_digest": run.digest,
        "source_digest": source_digest(run.row.target.partition(":")[0]),
        "trainer": TRAINER,
    }
    if any(modality.backbone != "none" for modality in run.protocol.modalities):
        described["encoders_digest"] = source_digest("benchmarks.encoders")
    if run.config.language is not None:  # the same model has the same digest, by whatever name or folder it is read
        described["language_digest"] = model_digest(run.config.language.model)
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def execute(key: RunKey, options: Options, folder: Path, report: Callable[[Progress], None]) -> RunRecord:
    """Train and score a run; predictions.npz, curves.jsonl and log.txt are in ``folder`` when it returns.

    Raises InputError for bad input. Everything else that goes wrong is told by the record (status "failed").
    """
    run = setting(key, options)
    device = environment.pick_device(options.device)
    described = what(run)
    started = _now()
    folder.mkdir(parents=True, exist_ok=True)
    environment.make_deterministic()
    environment.warm_up()
    environment.reset_peak_memory(device)
    with (folder / "log.txt").open("w", encoding="utf-8", buffering=1) as log:
        log.write(f"{started} {key} on {device}\n")
        try:
            data = open_data(run, device, options.cache)
            results = [_logged_fold(run, data.at_fold(k), report, log) for k in range(len(run.arrangement.folds))]
            parts = _write(run, results, folder)
        except InputError:
            raise
        except Exception as error:
            log.write(traceback.format_exc())
            parts = {"status": "failed", "error": " ".join(f"{type(error).__name__}: {error}".split())}
        finished = _now()
        log.write(f"{finished} {parts['status']}\n")
    told = {**environment.provenance(device), **_beside(run), "started_at": started, "finished_at": finished}
    return RunRecord(key, described, peak_memory_bytes=environment.peak_memory(device), provenance=told, **parts)


def _beside(run: Setting) -> dict[str, Any]:
    """What a reader of the record wants beside its digests: the language model's name, the best score of a twin."""
    ceiling = run.prepared.truth.get("ceiling")
    beside = {} if ceiling is None else {"ceiling": dict(ceiling)}
    return beside if run.config.language is None else {**beside, "language_model": Path(run.config.language.model).name}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _logged_fold(run: Setting, data: FoldData, report: Callable[[Progress], None], log: TextIO) -> FoldResult:
    folds, epochs = len(run.arrangement.folds), run.config.training.epochs
    result = run_fold(run, data, lambda epoch: report(Progress(run.key, data.fold + 1, folds, epoch, epochs)))
    scores = " ".join(f"{split}.{name}={value:.4f}" for split, m in result.metrics.items() for name, value in m.items())
    log.write(f"fold {data.fold + 1}/{folds}: epoch {result.epoch}, {result.time_s:.1f} s: {scores}\n")
    return result


def open_data(run: Setting, device: torch.device, cache: Path) -> FoldData:
    """The data of a run at its first fold, on a device; ``at_fold`` gives the others."""
    options = DataOptions(str(device), cache, run.config.language or LanguageOptions())
    data = FoldData(run.prepared, run.spec, run.protocol, run.arrangement, 0, options)
    return data if run.modality is None else data.restrict(run.modality)


def run_fold(
    run: Setting, data: FoldData, report: Callable[[int], None], splits: Sequence[str] = ("valid", "test")
) -> FoldResult:
    """Train on one fold's data and score ``splits``. The search leaves the test split out: then nothing reads it."""
    splits = [split for split in splits if data.size(split)]
    with torch.random.fork_rng([data.device] if data.device.type == "cuda" else []):
        return (_fit if run.row.fitted else _train)(run, data, report, splits)


def _train(run: Setting, data: FoldData, report: Callable[[int], None], splits: Sequence[str]) -> FoldResult:
    began = time.perf_counter()
    key, config = run.key, run.config
    seeds = streams(key.benchmark, key.protocol, key.seed, data.fold)
    torch.manual_seed(seeds.init)
    backbones, modalities = data.backbones(config.encoder)
    method = load_class(run.row)(data.task(modalities), config.encoder, config.method, backbones).to(data.device)
    outcome = train(method, data, config.training, run.goal, seeds, report)
    predictions = {split: evaluate(method, data, split).prediction for split in splits}
    return FoldResult(
        epoch=outcome.epoch,
        value=outcome.value,
        predictions=predictions,
        metrics=_score(run, data, predictions),
        n_parameters=sum(p.numel() for p in method.parameters() if p.requires_grad),
        time_s=time.perf_counter() - began,
        diagnostics=outcome.diagnostics,
        curves=outcome.curves,
    )


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
