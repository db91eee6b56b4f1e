"""From a benchmark's name to its task module, its prepared data and its twin. No torch.

Which data a run reads is decided here and nowhere else: prepared real data where it exists, else the synthetic twin.
"""

from __future__ import annotations

import hashlib
import importlib
import typing
from collections.abc import Iterator
from functools import cache as cached
from itertools import combinations, product
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks import BENCHMARKS, engine
from benchmarks.engine import Options
from benchmarks.errors import InputError, unknown
from benchmarks.prepared import Arrangement, Fold, Prepared, Writer, contents, load
from benchmarks.record import digest_of
from benchmarks.spec import BenchmarkSpec, Protocol
from benchmarks.twin import TwinRecipe, generate
from benchmarks.twin import twin_protocol as protocol_of_twin

DATA = ("auto", "twin", "real")
DEFAULTS = Options()


class TaskModule(typing.Protocol):
    """What each file of benchmarks/tasks provides."""

    SPEC: BenchmarkSpec
    TWIN: TwinRecipe | None

    def prepare(self, source: Path, writer: Writer) -> None:
        """Read the published files below ``source`` into ``writer``; InputError names what is missing or wrong."""

    def arrange(self, prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
        """The samples, targets and folds of a protocol at a seed, on real data and on the twin alike."""


def task_module(name: str) -> TaskModule:
    """The module of a benchmark, or InputError with the nearest name."""
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    return cast(TaskModule, importlib.import_module(BENCHMARKS[name]))


def spec(name: str) -> BenchmarkSpec:
    """The specification of a benchmark."""
    return task_module(name).SPEC


def prepared_folder(cache: Path, name: str) -> Path:
    """Where ``clcr prepare`` puts a benchmark."""
    return Path(cache) / "prepared" / name


def prepare(name: str, source: Path, cache: Path, options: Options = DEFAULTS) -> Path:
    """Prepare a benchmark from the published files below ``source``; returns the folder, complete or untouched.

    Before anything is published, every protocol that the new data serves is arranged and its official counts checked;
    a task names in COUNTS_NOTED the protocols whose counts its own prepare compares, noting the difference. Raw media
    may lose clips, up to the stated share: there differing counts are told and stand in the manifest.
    """
    folder = prepared_folder(cache, name)
    job = job_of(name, source, options.preset)
    if job is None:
        with Writer(folder, name) as writer:
            module: Any = task_module(name)
            module.prepare(Path(source), writer, **loss_limit(name, options.max_loss))
            for problem in _unserved(name, writer.seal()):
                raise problem
        return folder
    with engine.area(engine.partial_folder(folder)) as held, Writer(folder, name) as writer:
        engine.run(job, writer, held, options)
        data = writer.seal()
        for told in (*map(str, _unserved(name, data)), *_of_other_shape(name, data)):
            options.tell(told)
    return folder


def loss_limit(name: str, max_loss: float | None) -> dict[str, float]:
    """``max_loss`` for the prepare and the survey of a task that can lose samples, which names its own in MOST_LOST."""
    return {"max_loss": max_loss} if max_loss is not None and hasattr(task_module(name), "MOST_LOST") else {}


def job_of(name: str, source: Path, preset: str | None = None) -> engine.Job | None:
    """What the preparation of raw media below ``source`` would do; None where published files are read as they are."""
    plan = getattr(task_module(name), "plan", None)
    if not Path(source).is_dir():
        raise InputError(f"{source}: no such folder; set CLCR_DATA or pass --source to the folder of published files")
    if plan is None and preset is not None:
        raise InputError(f"{name}: no presets, its published files are read as they are; leave --preset out")
    return cast("engine.Job | None", plan(Path(source), preset)) if plan is not None else None


def _unserved(name: str, data: Prepared) -> list[InputError]:
    """What keeps the protocols that have their arrays from having their official samples."""
    present = (p for p in spec(name).protocols if set(reads(p)) <= set(data.digests))
    return [problem for problem in (unserved(name, protocol, data) for protocol in present) if problem]


def unserved(name: str, protocol: Protocol, data: Prepared) -> InputError | None:
    """What keeps a protocol from having its official samples in this data: its numbers are then not the protocol's."""
    try:
        arrangement = arrange(data, protocol, 0)
        if protocol.name not in getattr(task_module(name), "COUNTS_NOTED", ()):
            check_counts(protocol, arrangement, name)
    except InputError as error:
        return error
    return None


def _of_other_shape(name: str, data: Prepared) -> list[str]:
    """A line for each array whose shape is not that of the default preset: its runs read what was prepared."""
    modalities = {m.array: m for protocol in spec(name).protocols for m in protocol.modalities if m.layout != "text"}
    return [
        f"{name}: array {array} holds {list(found.shape[1:])} a row, the default preset's "
        f"{list(modalities[array].shape)}; runs read it as it is: compare them with others of this preset"
        for array, found in data.arrays.items()
        if array in modalities and found.shape[1:] != modalities[array].shape
    ]


def check_counts(protocol: Protocol, arrangement: Arrangement, where: str) -> None:
    """Hold every fold against the official counts; a key such as "train+valid" counts both parts."""
    for fold, (key, expected) in product(arrangement.folds, protocol.counts.items()):
        found = sum(len(getattr(fold, part)) for part in key.split("+"))
        if found != expected:
            raise InputError(
                f"{where}: protocol {protocol.name}: {found} samples in {key}, officially {expected}; "
                "the published files are not the expected ones"
            )


def arrange(data: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The samples and folds of a protocol at a seed, checked; the only way the harness asks a task for them."""
    arrangement = task_module(data.name).arrange(data, protocol, seed)
    check_arrangement(arrangement, data, protocol)
    return arrangement


def check_arrangement(arrangement: Arrangement, data: Prepared, protocol: Protocol) -> None:
    """Refuse leaks and holes: InputError where a fold shares an index between its parts, a sample is tested twice or
    never, a group that must not be shared is, an id repeats or a row lies outside its array."""
    for problem in _problems(arrangement, data, protocol):
        raise InputError(f"{data.name}: protocol {protocol.name}: {problem}; fix the arrangement of the benchmark")


def _problems(arrangement: Arrangement, data: Prepared, protocol: Protocol) -> Iterator[str]:
    count = len(arrangement.target)
    if len(set(arrangement.ids.tolist())) != count or len(arrangement.ids) != count:
        yield "sample ids are not one unique name per sample"
    for modality in protocol.modalities:
        source = data.column(modality.array) if modality.layout == "text" else data.array(modality.array)
        rows = arrangement.rows[modality.name]
        if rows.shape != (count,) or rows.min() < 0 or rows.max() >= len(source):
            yield f"rows of modality {modality.name} lie outside its {len(source)} rows"
    if protocol.n_classes is not None and not set(np.unique(arrangement.target)) <= set(range(protocol.n_classes)):
        yield f"a target is not in 0..{protocol.n_classes - 1}"
    if len(arrangement.folds) != protocol.folds:
        yield f"{len(arrangement.folds)} folds, expected {protocol.folds}"
    tested = np.concatenate([fold.test for fold in arrangement.folds])
    if len(set(tested.tolist())) != len(tested) or (protocol.folds > 1 and len(tested) != count):
        yield "a sample is tested twice or never"
    for fold in arrangement.folds:
        yield from _leaks(fold, arrangement.group, protocol)


def _leaks(fold: Fold, group: np.ndarray | None, protocol: Protocol) -> Iterator[str]:
    parts = {"train": fold.train, "valid": fold.valid, "test": fold.test}
    for (one, left), (other, right) in combinations(parts.items(), 2):
        same = protocol.selection == "test" and (one, other) == ("valid", "test")  # the literature's habit
        if not same and set(left.tolist()) & set(right.tolist()):
            yield f"a sample is in both {one} and {other}"
        if not same and group is not None and not protocol.groups_shared and set(group[left]) & set(group[right]):
            yield f"one {protocol.group} is in both {one} and {other}"
    for name, part in parts.items():
        if len(part) == 0:
            yield f"no sample in {name}"


def reads(protocol: Protocol) -> tuple[str, ...]:
    """What a protocol reads of the prepared data: names of arrays, and ``samples.<column>`` for text."""
    return tuple(f"samples.{m.array}" if m.layout == "text" else m.array for m in protocol.modalities)


def is_prepared(name: str, protocol: Protocol, cache: Path) -> bool:
    """Whether the prepared folder holds all that the protocol reads."""
    found = contents(prepared_folder(cache, name))
    return found is not None and set(reads(protocol)) <= found


def choose(name: str, protocol: str | None, wanted: str, cache: Path) -> tuple[Protocol, str]:
    """The protocol to run and the data it runs on: "real" or "twin".

    ``wanted`` is "auto" (real where prepared, else the twin), "twin" or "real". Without a protocol name the first one
    whose data is prepared is taken. InputError with the remedy where there is neither.
    """
    if wanted not in DATA:
        raise unknown("data", wanted, DATA, "--data")
    described = spec(name)
    candidates = described.protocols if protocol is None else (described.protocol(protocol),)
    if wanted != "twin":
        for candidate in candidates:
            if is_prepared(name, candidate, cache):
                return candidate, "real"
    if wanted != "real" and _twin_fits(described, protocol):
        return twin_protocol(name), "twin"
    raise _nothing_to_run(described, protocol, wanted, cache)


def _twin_fits(described: BenchmarkSpec, protocol: str | None) -> bool:
    return described.twin_protocol is not None and protocol in (None, described.twin_protocol)


def _nothing_to_run(described: BenchmarkSpec, protocol: str | None, wanted: str, cache: Path) -> InputError:
    name = described.name
    of = f"{name}: protocol {protocol}" if protocol else name
    if wanted == "twin":
        stands = f"it stands for protocol {described.twin_protocol} alone" if described.twin_protocol else "none exists"
        return InputError(f"{of}: no synthetic twin ({stands}); use --data real")
    tail = "" if wanted == "real" or described.twin_protocol else ", and it has no synthetic twin"
    return InputError(
        f"{of}: no prepared data in {prepared_folder(cache, name)}{tail}; run `clcr prepare {name} --source DIR`"
    )


def twin_protocol(name: str) -> Protocol:
    """The protocol that a benchmark's twin stands for, with the shapes of the twin."""
    return protocol_of_twin(spec(name), _recipe(name))


def _recipe(name: str) -> TwinRecipe:
    recipe = task_module(name).TWIN
    if recipe is None:
        raise InputError(f"{name}: has no synthetic twin; run `clcr prepare {name} --source DIR`")
    return recipe


def open_prepared(name: str, data: str, cache: Path) -> Prepared:
    """The data of a benchmark: "real", memory-mapped from the prepared folder, or "twin", made in memory once."""
    if data == "twin":
        return _twin(name)
    if data == "real":
        return load(prepared_folder(cache, name))
    raise unknown("data", data, DATA[1:], name)


@cached
def _twin(name: str) -> Prepared:
    return generate(_recipe(name), spec(name))


def data_digest(data: Prepared, protocol: Protocol, arrangement: Arrangement) -> str:
    """SHA-256 of all the data that determines a run's numbers: the arrays and lengths that the protocol reads, what
    their stored values stand for, which rows make a sample, targets, groups and folds."""
    arrays: dict[str, Any] = {}
    for name in reads(protocol):
        data.column(name.removeprefix("samples.")) if name.startswith("samples.") else data.array(name)
        arrays[name] = [data.digests.get(name), data.digests.get(f"{name}.lengths"), dict(data.meta.get(name, {}))]
    folds = [[_short(part) for part in (fold.train, fold.valid, fold.test)] for fold in arrangement.folds]
    group = None if arrangement.group is None else _short(arrangement.group)
    rows = {modality.name: _short(arrangement.rows[modality.name]) for modality in protocol.modalities}
    parts = [arrays, rows, _short(arrangement.target), _short(arrangement.ids), group, folds]
    return digest_of(parts)


def _short(array: np.ndarray) -> str:
    """Digest of values alone: a wider integer or string type of the same values gives the same digest."""
    values = array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array
    body = values.tobytes() if values.dtype.kind in "if" else "\n".join(map(str, values)).encode()
    return hashlib.sha256(f"{values.dtype.kind}{values.shape}".encode() + body).hexdigest()
