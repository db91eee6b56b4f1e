"""One submitted run against the suite's rules: each function raises InputError for the first thing that does not hold.

Nothing that a line says of itself is believed where it can be computed: protocol, metrics and budget are those of this
version, the test samples are the official ones, every metric follows from the predictions, the epoch from the curve.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks import archive, catalog, curves
from benchmarks.errors import InputError, unknown
from benchmarks.methods import NAME, belongs
from benchmarks.metrics import compute
from benchmarks.prepared import Fold
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner.config import method_row, protocol_of, resolve
from benchmarks.runner.execute import common_rules
from benchmarks.runner.names import profile_names
from benchmarks.runner.search import COMMON, Choice
from benchmarks.runner.source import source_digest
from benchmarks.spec import BenchmarkSpec, Protocol
from benchmarks.submission.fields import METHOD, is_sha, shown
from benchmarks.submission.official import Official, Samples
from benchmarks.submission.reading import Line, Submission

NEAR = 1e-9  # another processor may sum in another order
PLAIN = "late_fusion"  # it has no numbers of its own: what it is told, every method is told
SPLITS = ("valid", "test")
MEANS = ("accuracy", "mae", "acc7", "acc5", "acc2_has0")  # means over samples: a pooled one lies between those of folds
RUN_AGAIN = "run it again with this version of the suite"


@dataclass(frozen=True)
class Case:
    """A line, its protocol and what it is held against."""

    line: Line
    spec: BenchmarkSpec
    protocol: Protocol
    official: Official
    file: str

    @property
    def record(self) -> RunRecord:
        """The record of the line."""
        return self.line.record

    @property
    def split(self) -> str:
        """The split that selects the epoch."""
        return "test" if self.protocol.selection == "test" else "valid"

    def wrong(self, field: str, why: str, remedy: str) -> InputError:
        """The line to say where a field does not hold."""
        return InputError(f"{self.line.where}: field {field!r}: {why}; {remedy}")


def judge(line: Line, found: Submission, official: Official) -> None:
    """InputError for the first rule that a run breaks."""
    key = line.record.key
    _check_key(line)
    case = Case(line, catalog.spec(key.benchmark), protocol_of(key), official, found.file("predictions", key.benchmark))
    check_method(case)
    check_ended(case)
    check_rules(case)
    check_config(case)
    check_provenance(case)
    arrays = _arrays(case, found)
    try:
        samples = official.samples(key)
    except InputError as error:
        raise InputError(f"{line.where}: {error}") from None
    check_data(case, samples, arrays)
    check_predictions(case, arrays)
    check_metrics(case, samples, arrays)
    check_selection(case)


def _check_key(line: Line) -> None:
    key, where = line.record.key, f"{line.where}: field 'key'"
    if key.benchmark != line.where.rpartition(":")[0].rpartition("/")[2].removesuffix(".jsonl"):
        raise InputError(f"{where}: benchmark {key.benchmark} stands in the file of another; make it again")
    known = {"data": catalog.DATA[1:], "profile": profile_names()}
    known["protocol"] = [protocol.name for protocol in catalog.spec(key.benchmark).protocols]
    for name, names in known.items():
        if getattr(key, name) not in names:
            raise unknown(name, getattr(key, name), names, where)
    try:
        protocol_of(key)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def check_method(case: Case) -> None:
    """The suite's names are for the suite's methods, source and all; another method says where its code is."""
    key, told = case.record.key, case.record.provenance.get("method")
    digest = case.record.what.get("source_digest")
    if not is_sha(digest):
        raise case.wrong("what.source_digest", f"{shown(digest)} is not a sha256", RUN_AGAIN)
    if belongs(key.method):
        row, modality = method_row(key.method)
        if modality is not None:
            case.protocol.modality(modality)
        if key.variant not in row.every_variant:
            raise unknown("variant", key.variant, row.every_variant, f"{case.line.where}: field 'key.variant'")
        if digest != source_digest(row.target.partition(":")[0]) or told is not None:
            raise case.wrong(
                "what.source_digest", f"not the suite's {key.method}", "give a method of your own a name of its own"
            )
        return
    if not NAME.fullmatch(key.method) or key.method == "all" or key.variant == "all":
        raise case.wrong("key.method", f"{shown(key.method)} cannot be a method's name", "rename it and run again")
    _check_package(case, told)


def _check_package(case: Case, told: Any) -> None:
    field, remedy = "provenance.method", "run it from its own repository, see docs/submit.md"
    if not isinstance(told, dict):
        raise case.wrong(field, "missing for a method that is not the suite's", remedy)
    if set(told) != set(METHOD):
        raise case.wrong(field, f"holds {shown(sorted(told))}, expected {', '.join(METHOD)}", remedy)
    for name, test in METHOD.items():
        if not test(told[name]):
            why = f"{shown(told[name])} will not do"
            needs = {"commit": "commit the package and run from its checkout, or pip install it from git+https",
                     "url": "give its https address under [project.urls] in its pyproject.toml"}  # fmt: skip
            raise case.wrong(f"{field}.{name}", why, needs.get(name, remedy))
    if told["dirty"]:
        raise case.wrong(f"{field}.dirty", "the package's code differs from its commit", "commit it and run again")
    if case.official.package(case.record.key.method) not in (None, told["package"]):
        why = f"a method of package {case.official.package(case.record.key.method)} has this name"
        raise case.wrong("key.method", why, "rename yours and run again")


def check_ended(case: Case) -> None:
    """Only runs that are done; a failed one is not left out quietly."""
    if case.record.status != "done":
        why = f"{shown(case.record.status)} ({shown(case.record.error)})"
        remedy = "a failed seed is a result too: mend the method and run all its seeds again into an empty --out"
        raise case.wrong("status", why, remedy)


def check_rules(case: Case) -> None:
    """Protocol, metrics, trainer and encoders are those of this version; models are those of the committed rows."""
    what, config = case.record.what, case.record.what["config"]
    expected = common_rules(case.spec, case.protocol)
    if config.get("encoder", {}).get("augment", "none") != "none":
        expected["augment_digest"] = source_digest("benchmarks.augment")
    for name, value in expected.items():
        if what.get(name) != value:
            raise case.wrong(f"what.{name}", _first_difference(what.get(name), value), RUN_AGAIN)
    trained = [r.what for r in case.official.of_group(case.record.key) if "training" in r.what["config"]]
    models = ["language_digest"] * ("language" in config) + ["checkpoint_digest"] * ("training" in config)
    for name in models:
        values = {other.get(name) for other in trained}
        if what.get(name) not in values if values else name in what and not is_sha(what[name]):
            raise case.wrong(f"what.{name}", "not the weights of the committed rows", "run with the same model")
    known = {*expected, *models, "config", "data_digest", "source_digest"}
    if odd := sorted(set(what) - known):
        raise case.wrong(f"what.{odd[0]}", "nothing of this run", RUN_AGAIN)


def _first_difference(found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in (*expected, *found):
            if name not in found or name not in expected or found[name] != expected[name]:
                return f"{name} is {shown(found.get(name))}, here {shown(expected.get(name))}"
    return f"{shown(found)}, here {shown(expected)}"


def check_config(case: Case) -> None:
    """The profile's numbers. A method of the suite has all of them; another one its own section, and of the shared ones
    those that a search may change, within the search's bounds."""
    key, config = case.record.key, case.record.what["config"]
    own = belongs(key.method)
    asked = key if own else replace(key, method=PLAIN, variant="full")
    expected = json.loads(json.dumps(resolve(asked, tuned=own).canonical()))
    sections = set(expected) | {"method"}
    if set(config) != sections:
        raise case.wrong("what.config", f"sections {shown(sorted(config))}", f"expected {', '.join(sorted(sections))}")
    for section in sorted(sections - (set() if own else {"method"})):
        for name in sorted(set(config[section]) | set(expected[section])):
            mine, profile = (part[section].get(name) for part in (config, expected))
            if mine != profile and not (not own and _searched(f"{section}.{name}", mine, profile)):
                why = f"{shown(mine)}, profile {key.profile} says {shown(profile)}"
                raise case.wrong(f"what.config.{section}.{name}", why, "run it without --set, at the profile's budget")


def _searched(name: str, mine: Any, profile: Any) -> bool:
    part = COMMON.get(name)
    if part is None or not isinstance(mine, float):
        return False
    return mine in part.values if isinstance(part, Choice) else part.low <= mine / profile * (1 + NEAR) <= part.high


def check_provenance(case: Case) -> None:
    """A clean commit of the suite, the official samples, the twin's own ceiling."""
    told = case.record.provenance
    if told["dirty"]:
        raise case.wrong(
            "provenance.dirty", "the suite's code differs from its commit", "undo the change and run again"
        )
    if case.record.key.seed not in told.get("together", [case.record.key.seed]):
        raise case.wrong("provenance.together", "the run's own seed is not among them", RUN_AGAIN)
    if "not_official" in told:
        raise case.wrong("provenance.not_official", shown(told["not_official"]), "prepare the official samples")


def _arrays(case: Case, found: Submission) -> dict[str, np.ndarray]:
    """The run's predictions, by the digest that the record holds."""
    key, digest = case.record.key, case.record.predictions
    members = found.arrays.get(key.benchmark, {})
    if not digest or archive.find(members, key, digest) is None:
        raise InputError(f"{case.file}: no predictions of {key} with the digest of its record; {RUN_AGAIN} and report")
    arrays = archive.predictions_of(members, key, digest)
    if lacking := [name for name in ("index", "target") if name not in arrays]:
        raise InputError(f"{case.file}: array {lacking[0]!r} of {key} is missing; {RUN_AGAIN} and report")
    if archive.predictions_digest(arrays) != digest:
        raise case.wrong("predictions", f"not the digest of what {case.file} holds", f"{RUN_AGAIN} and report")
    return arrays


def check_data(case: Case, samples: Samples, arrays: Mapping[str, np.ndarray]) -> None:
    """The official test samples, all of them, with their targets and groups; the same training data."""
    where, key = f"{case.file}: {case.record.key}", case.record.key
    expected = case.protocol.counts.get("test", 0) * case.protocol.folds
    if expected and len(arrays["index"]) != expected:
        found = len(arrays["index"]) if arrays["index"].ndim else 0
        raise InputError(f"{where}: array 'index': {found} test samples, officially {expected}; test on all of them")
    for name in archive.SAMPLES:
        mine, official = arrays.get(name), samples.arrays.get(name)
        if (mine is None) != (official is None) or (mine is not None and not _equal(mine, official)):
            raise InputError(
                f"{where}: array {name!r}: not that of the official test samples ({samples.source}); "
                f"prepare {key.benchmark} anew and run again"
            )
    if case.record.what.get("data_digest") != samples.digest:
        why = f"other data than {samples.source}"
        raise case.wrong(
            "what.data_digest", why, f"prepare {key.benchmark} anew, with its default preset, and run again"
        )
    ceiling = case.record.provenance.get("ceiling")
    known = None if samples.ceiling is None else dict(samples.ceiling)
    if ceiling != known:
        raise case.wrong("provenance.ceiling", "not the best score of this data", RUN_AGAIN)


def _equal(mine: np.ndarray, official: np.ndarray | None) -> bool:
    return official is not None and mine.dtype == official.dtype and np.array_equal(mine, official)


def check_predictions(case: Case, arrays: Mapping[str, np.ndarray]) -> None:
    """Finite numbers of the right shape: (n, C) scores or (n,) values, float32."""
    prediction, n = arrays["prediction"], len(arrays["index"])
    shape = (n,) if case.protocol.n_classes is None else (n, case.protocol.n_classes)
    where = f"{case.file}: {case.record.key}: array 'prediction'"
    if prediction.dtype != np.float32 or prediction.shape != shape:
        found = f"{prediction.dtype} {list(prediction.shape)}"
        raise InputError(f"{where}: {found}, expected float32 {list(shape)}; predict every class of every test sample")
    if not np.isfinite(prediction).all():
        count = int((~np.isfinite(prediction)).sum())
        raise InputError(f"{where}: {count} values are not finite; mend the method and run again")


def check_metrics(case: Case, samples: Samples, arrays: Mapping[str, np.ndarray]) -> None:
    """Every metric of the test split from the predictions; those of folds where the folds are known, else by bounds."""
    record, names = case.record, case.spec.metrics
    parts = {"metrics": record.metrics, **{f"folds.{k}": fold for k, fold in enumerate(record.folds)}}
    for field, splits in parts.items():
        if set(splits) != set(SPLITS) or any(set(values) != set(names) for values in splits.values()):
            raise case.wrong(field, "not every metric on valid and test", RUN_AGAIN)
    _same(case, "metrics.test", record.metrics["test"], compute(names, arrays["prediction"], arrays["target"]))
    if len(record.folds) != (case.protocol.folds if case.protocol.folds > 1 else 0):
        raise case.wrong("folds", f"{len(record.folds)}, the protocol has {case.protocol.folds}", RUN_AGAIN)
    if record.folds:
        means = {name: float(np.mean([fold["valid"][name] for fold in record.folds])) for name in names}
        _same(case, "metrics.valid", record.metrics["valid"], means, "the mean over the folds is")
        _check_folds(case, samples, arrays)


def _check_folds(case: Case, samples: Samples, arrays: Mapping[str, np.ndarray]) -> None:
    record = case.record
    if samples.arrangement is not None:
        for k, fold in enumerate(samples.arrangement.folds):
            _same(case, f"folds.{k}.test", record.folds[k]["test"], _of_fold(case.spec.metrics, fold, arrays))
        return
    for name in set(MEANS) & set(case.spec.metrics):
        found = [fold["test"][name] for fold in record.folds]
        if not min(found) - NEAR <= record.metrics["test"][name] <= max(found) + NEAR:
            why = f"{name} of the folds lies on one side of that of all samples, {record.metrics['test'][name]!r}"
            raise case.wrong("folds", why, RUN_AGAIN)


def _of_fold(names: Sequence[str], fold: Fold, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    place = np.searchsorted(arrays["index"], fold.test)
    return compute(names, arrays["prediction"][place], arrays["target"][place])


def _same(
    case: Case, field: str, said: Mapping[str, float], found: Mapping[str, float], word: str = "the predictions give"
) -> None:
    for name, value in found.items():
        if abs(said[name] - value) > NEAR * max(1.0, abs(value)):
            raise case.wrong(f"{field}.{name}", f"{said[name]!r}, {word} {value!r}", RUN_AGAIN)


def check_selection(case: Case) -> None:
    """The epoch is the first of the best by the curve of the split that selects; the curve is whole."""
    record, main = case.record, case.spec.main_metric
    said, fitted = record.selection, "training" not in record.what["config"]
    several = case.protocol.folds > 1
    if not said or ("values" in said) != several or said["metric"] != main:
        raise case.wrong("selection", f"{shown(dict(said))}, expected one epoch and value a fold, by {main}", RUN_AGAIN)
    values = list(said["values"]) if several else [said["value"]]
    epochs = list(said["epochs"]) if several else [said["epoch"]]
    splits = record.folds if several else (record.metrics,)
    reached = [split[case.split][main] for split in splits]
    if len(values) != len(reached) or not np.allclose(
        [*values, said["value"]], [*reached, np.mean(values)], NEAR, NEAR
    ):
        raise case.wrong("selection.value", f"not the {main} on {case.split} of what was kept", RUN_AGAIN)
    if fitted:
        if any(epochs) or case.line.curve is not None:
            raise case.wrong("selection.epoch", "a fitted method has no epochs", RUN_AGAIN)
        return
    check_curve(case, epochs)


def check_curve(case: Case, epochs: Sequence[int]) -> None:
    """A curve there is, of the right split, as long as the budget, and the selected epoch follows from it."""
    curve, training = case.line.curve, case.record.what["config"]["training"]
    if curve is None:
        raise InputError(f"{case.line.where}: no curve of this run in curves/; submit what `clcr report` merged of it")
    where = case.line.where
    if curve.split != case.split:
        raise InputError(f"{where}: its curve selects on {curve.split}, the protocol on {case.split}; {RUN_AGAIN}")
    if len(curve.folds) != case.protocol.folds or len(epochs) != len(curve.folds):
        raise InputError(
            f"{where}: its curve has {len(curve.folds)} folds, expected {case.protocol.folds}; {RUN_AGAIN}"
        )
    for course, epoch in zip(curve.folds, epochs, strict=True):
        length, most, patience = len(course.score), training["epochs"], training["patience"]
        whole = length == most or (length < most and 0 < patience <= length - epoch)
        if not whole:
            raise InputError(f"{where}: its curve has {length} epochs, the budget is {most}; submit the whole curve")
    if fault := curves.fault(case.record, curve):
        raise case.wrong("selection.epoch", fault, "keep the epoch that validation selects")


def row_of(key: RunKey) -> RunKey:
    """The row of a table that a run belongs to: its key at seed 0."""
    return replace(key, seed=0)
