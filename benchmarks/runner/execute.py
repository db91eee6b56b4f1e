"""Runs, from their keys to their records: open the data, train every fold, read the test set once, write what came out.

Several runs are a group: they differ in the seed alone and train as one program (benchmarks/runner/group.py).
``record.json`` is not written here: the store does that, last. A method that raises, or whose loss is not finite, gives
a failed record with its error; bad input (InputError) is raised.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines import MethodRow
from benchmarks import catalog, splits
from benchmarks.checkpoint import checkpoint_digest
from benchmarks.data import DataOptions, FoldData, LanguageOptions
from benchmarks.errors import InputError, Stopped, no_room
from benchmarks.language import model_digest
from benchmarks.metrics import compute
from benchmarks.prepared import Arrangement, Prepared
from benchmarks.record import RunKey, RunRecord, digest_of
from benchmarks.runner import environment, measured, snapshot, together
from benchmarks.runner.config import RunConfig, load_class, method_row, protocol_of, resolve
from benchmarks.runner.group import Evaluation, Group, TrainingError, steps
from benchmarks.runner.logs import Logs, now
from benchmarks.runner.opcount import OperationCount
from benchmarks.runner.results import FoldResult, Folds, Found, write, write_weights
from benchmarks.runner.seeds import Streams, streams
from benchmarks.runner.snapshot import Checkpoints, Owner, Policy, Stopwatch
from benchmarks.runner.source import source_digest
from benchmarks.runner.together import Choice
from benchmarks.runner.train import TRAINER, Goal, train
from benchmarks.spec import BenchmarkSpec, Protocol
from clcr.api import Method
from clcr.layers import Draws, drawing

# Texts for people: changing them changes no number and leaves every run valid.
NOT_IN_DIGEST = ("title", "note")
SPLITS = ("valid", "test")
COUNTED, PROBE_S = 2, 300.0  # samples that a forward pass is counted with; seconds that steps on a GPU may be timed


@dataclass(frozen=True)
class Options:
    """Where things lie, on which device they run and with how many others, what ``--set`` says, and when checkpoints
    are written (see ``plan.Place``). keep: the weights that a run leaves, "" (none) or one of ``store.WEIGHTS``."""

    out: Path
    cache: Path
    device: str = "cpu"
    overrides: tuple[str, ...] = ()
    checkpoint_s: float = 300.0
    checkpoint_epochs: int = 0
    beside: int = 1
    keep: str = ""


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


def setting(key: RunKey, options: Options, tuned: bool = True) -> Setting:
    """Resolve a run: its configuration, data and samples. InputError for anything that does not fit."""
    row, modality = method_row(key.method)
    protocol = protocol_of(key)
    if modality is not None:
        protocol.modality(modality)
    config = resolve(key, options.overrides, tuned)
    sample = replace(key, profile="", method="", variant="")
    prepared, arrangement, digest = _samples(sample, options.cache, config.data.fraction)
    return Setting(key, catalog.spec(key.benchmark), protocol, row, modality, config, prepared, arrangement, digest)


@lru_cache(maxsize=64)
def _samples(sample: RunKey, cache: Path, fraction: float = 1.0) -> tuple[Prepared, Arrangement, str]:
    """Data, samples and their digest; ``sample`` is a key without profile, method and variant, which all share them.
    ``fraction``: of the training samples."""
    protocol = protocol_of(sample)
    prepared = catalog.open_prepared(sample.benchmark, sample.data, cache)
    arrangement = catalog.arrange(prepared, protocol, sample.seed)
    if fraction < 1:
        rng = splits.stream(f"{sample.benchmark}/{sample.protocol}/fraction", sample.seed)
        folds = [replace(fold, train=splits.fewer(fold.train, fraction, rng)) for fold in arrangement.folds]
        arrangement = replace(arrangement, folds=tuple(folds))
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
        free = lines[0]["free"] // options.beside if lines else 0
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


@dataclass(frozen=True)
class _Team:
    """What ``execute`` was asked for. part: it is one of the halves of a team. waits: others of them train after it."""

    keys: Sequence[RunKey]
    options: Options
    folders: Sequence[Path]
    report: Callable[[Progress], None]
    stop: Callable[[], bool]
    part: bool = False
    waits: bool = False

    def halves(self) -> tuple[_Team, _Team]:
        """The first half and the other."""
        half = len(self.keys) // 2
        first = replace(self, keys=self.keys[:half], folders=self.folders[:half], part=True, waits=True)
        return first, replace(self, keys=self.keys[half:], folders=self.folders[half:], part=True)


def execute(
    keys: Sequence[RunKey],
    options: Options,
    folders: Sequence[Path],
    report: Callable[[Progress], None],
    stop: Callable[[], bool] = lambda: False,
) -> list[RunRecord]:
    """Train and score the runs of a group; predictions.npz, curves.jsonl and log.txt are in each run's folder then.

    A checkpoint in the first folder is taken up (benchmarks/runner/snapshot.py); whoever writes the records removes it
    after that. ``stop`` is asked between training steps. A group that does not fit into the device's memory is trained
    in halves.

    Raises InputError for bad input, Stopped once ``stop`` said True and a checkpoint was written, OSError where there
    is no room for files. Everything else that goes wrong is told by the records (status "failed").
    """
    return _in_halves(_Team(keys, options, folders, report, stop))


def _in_halves(team: _Team) -> list[RunRecord]:
    try:
        return _execute(team)
    except Exception as error:
        if len(team.keys) == 1 or not environment.out_of_memory(error):
            raise
    environment.forget(environment.pick_device(team.options.device))  # here, since the error holds on to tensors
    return [record for half in team.halves() for record in _in_halves(half)]


def _execute(team: _Team) -> list[RunRecord]:
    runs = [setting(key, team.options) for key in team.keys]
    described = [what(run) for run in runs]
    device = environment.pick_device(team.options.device)
    warm_up()
    environment.reset_peak_memory(device)
    goes_on = team.part or bool(snapshot.existing(team.folders[0]))
    for folder in team.folders:
        snapshot.tidy(folder)
    with Logs(team.folders, goes_on) as logs:
        for place, key in enumerate(team.keys):
            logs.one(place, f"{now()} {key} on {device}{_beside_whom(key, team.keys)}")
        checkpoints = _checkpoints(team, described, device, logs)
        results = _results(team, runs, device, logs, checkpoints)
        ended = partial(_ended, logs=logs)
        parts = [ended(place, *each) for place, each in enumerate(zip(runs, results, team.folders, strict=True))]
        for each in zip(team.folders, described, results, strict=True):
            write_weights(team.options.keep, *each)
    told = _provenance(team, device, checkpoints)
    peak = checkpoints.peak
    return [
        RunRecord(run.key, digested, peak_memory_bytes=peak, provenance={**told, **_beside(run)}, **part)
        for run, digested, part in zip(runs, described, parts, strict=True)
    ]


def _checkpoints(team: _Team, described: Sequence[Mapping[str, Any]], device: torch.device, logs: Logs) -> Checkpoints:
    options, seeds = team.options, tuple(key.seed for key in team.keys)
    digests = tuple(digest_of(each) for each in described)
    owner = Owner(tuple(map(str, team.keys)), digests, seeds, TRAINER, device.type)
    policy = Policy(options.checkpoint_s, options.checkpoint_epochs, team.stop)
    return Checkpoints(team.folders[0], owner, policy, device, logs.tell)


def _results(
    team: _Team, runs: Sequence[Setting], device: torch.device, logs: Logs, checkpoints: Checkpoints
) -> Sequence[Found]:
    """What the folds of each run gave, or what made it fail."""
    try:
        return checkpoints.resume(partial(_folds, team, runs, device, logs, checkpoints))
    except (InputError, Stopped):
        raise
    except Exception as error:
        short = environment.out_of_memory(error)
        if no_room(error) or (short and len(runs) > 1):
            raise
        logs.all(traceback.format_exc())
        return [MemoryError(_too_large(runs[0], device)) if short else error] * len(runs)


def _too_large(run: Setting, device: torch.device) -> str:
    tried = (
        f"one seed with training.batch_size {run.config.training.batch_size} does not fit into the memory of {device}"
    )
    remedy = "fewer --workers, another --device or a smaller training.batch_size (--set; that is another configuration)"
    return f"{tried} ({environment.memory_of(device)}); try {remedy}"


def _provenance(team: _Team, device: torch.device, checkpoints: Checkpoints) -> dict[str, Any]:
    told = {**environment.provenance(device), "started_at": checkpoints.started, "finished_at": now()}
    told |= {"together": [key.seed for key in team.keys]}
    told |= {"resumed": checkpoints.resumed} if checkpoints.resumed else {}
    name = measured.name_of(team.keys[0], team.options.overrides)
    chosen = measured.choice_of(team.options.cache, team.options.device, name)
    return told | ({"best_together": chosen} if chosen else {})


def _beside_whom(key: RunKey, keys: Sequence[RunKey]) -> str:
    others = [str(other.seed) for other in keys if other != key]
    return f", together with seed {', '.join(others)}" if others else ""


def _folds(
    team: _Team, runs: Sequence[Setting], device: torch.device, logs: Logs, checkpoints: Checkpoints
) -> list[Found]:
    """The results of every fold for each run, or what made it fail; the others of its group go on."""
    first = open_data(runs[0], device, team.options.cache)
    so_far = Folds(len(runs))
    folds, epochs = len(runs[0].arrangement.folds), runs[0].config.training.epochs
    with checkpoints.keeping("folds", so_far):
        for k in range(so_far.done, folds):
            data = [first.at(run.arrangement, k) for run in runs]
            told = partial(_tell, team.report, Progress(runs[0].key, k + 1, folds, 0, epochs))
            results = run_fold(runs, data, told, SPLITS, checkpoints, team.options.keep)
            for place, result in enumerate(so_far.add(results)):
                if result is not None:
                    logs.one(place, f"fold {k + 1}/{folds}: {_scores(result)}")
            if k + 1 < folds or team.waits:
                checkpoints.fold(due=k + 1 == folds)
    return so_far.found


def _scores(result: FoldResult) -> str:
    scores = (f"{split}.{n}={v:.4f}" for split, m in result.metrics.items() for n, v in m.items())
    return f"epoch {result.epoch}, {result.time_s:.1f} s: {' '.join(scores)}"


def _tell(report: Callable[[Progress], None], place: Progress, epoch: int) -> None:
    report(replace(place, epoch=epoch))


def _ended(place: int, run: Setting, results: Found, folder: Path, logs: Logs) -> dict[str, Any]:
    """Write what a run left; the fields of its record that tell how it ended."""
    parts = {"status": "failed", "error": " ".join(f"{type(results).__name__}: {results}".split())}
    if isinstance(results, Exception):
        logs.one(place, f"{parts['error']}")
    else:
        try:
            parts = write(run.spec, run.arrangement, results, folder)
        except Exception as error:
            if no_room(error):
                raise
            logs.one(place, traceback.format_exc())
            parts = {"status": "failed", "error": " ".join(f"{type(error).__name__}: {error}".split())}
    logs.one(place, f"{now()} {parts['status']}")
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


def open_data(run: Setting, device: torch.device, cache: Path) -> FoldData:
    """The data of a run at its first fold, on a device; ``at_fold`` gives the others."""
    options = DataOptions(str(device), cache, run.config.language or LanguageOptions())
    data = FoldData(run.prepared, run.spec, run.protocol, run.arrangement, 0, options)
    return data if run.modality is None else data.restrict(run.modality)


def run_fold(
    runs: Sequence[Setting],
    data: Sequence[FoldData],
    report: Callable[[int], None],
    splits: Sequence[str] = SPLITS,
    checkpoints: Checkpoints | None = None,
    keep: str = "",
) -> list[FoldResult | Exception]:
    """Train a group on one fold's data and score ``splits``. The search leaves the test split out: then nothing reads
    it. ``keep``: the weights that results hold, see ``Goal``. A run that cannot give a number has its TrainingError in
    the place of its result."""
    splits = [split for split in splits if data[0].size(split)]
    with torch.random.fork_rng([data[0].device] if data[0].device.type == "cuda" else []):
        if runs[0].row.fitted:
            return [_fit(run, own, report, splits) for run, own in zip(runs, data, strict=True)]
        return _train(runs, data, report, splits, checkpoints or Checkpoints(), keep)


def _train(
    runs: Sequence[Setting],
    data: Sequence[FoldData],
    report: Callable[[int], None],
    splits: Sequence[str],
    checkpoints: Checkpoints,
    keep: str,
) -> list[FoldResult | Exception]:
    watch = Stopwatch(data[0].device.type)
    config = runs[0].config
    keys = [run.key for run in runs]
    seeds = [streams(k.benchmark, k.protocol, k.seed, data[0].fold) for k in keys]
    with checkpoints.keeping("time", watch):
        group = assemble(runs, data, seeds)
        goal = replace(runs[0].goal, keep=keep)
        outcomes = train(group, config.training, goal, seeds, report, config.encoder.augment, checkpoints)
    n_parameters = sum(p.numel() for p in group.method.parameters() if p.requires_grad) // len(runs)
    evaluations = {split: group.evaluate(split) for split in splits}
    time_s = watch.seconds / len(runs)
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
                weights=outcome.weights,
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
    watch = Stopwatch()
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
        time_s=watch.seconds,
        diagnostics={"strength": model.strength},
    )


def _score(run: Setting, data: FoldData, predictions: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    return {split: compute(run.spec.metrics, found, data.targets(split)) for split, found in predictions.items()}
