"""The sweep as a list: which runs a selection names, what state each is in, what each will cost. Runs nothing.

Reads names, specs and records; torch is loaded only to judge records that exist or to check overrides.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import BENCHMARKS, catalog, studies
from benchmarks.errors import InputError, unknown
from benchmarks.methods import METHODS
from benchmarks.record import RunKey, RunRecord, digest_of
from benchmarks.runner import claims, store
from benchmarks.runner.costs import Cost, Costs
from benchmarks.runner.measured import Table
from benchmarks.runner.names import base_of, check_profile
from benchmarks.spec import Protocol

STATES = ("done", "running", "failed", "stale", "missing")
ENGINE = "benchmarks.runner.execute"
Team = tuple[RunKey, ...]  # runs that differ in the seed alone and train as one program
MAX_SEED, MAX_SEEDS = 2**31 - 1, 10_000
LONGEST = 40  # characters of a range of seeds


@dataclass(frozen=True)
class Selection:
    """What was asked for. An empty tuple of benchmarks, methods or variants means all there are. studies: the runs of
    these, in place of all the rest."""

    benchmarks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    variants: tuple[str, ...] = ("full",)
    seeds: tuple[int, ...] = (0, 1, 2)
    protocol: str | None = None
    profile: str = "tiny"
    data: str = "auto"
    studies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where runs lie and how they are executed; nothing of it but ``overrides`` enters a digest. checkpoint_s: seconds
    between the checkpoints of a run (0: never by time); checkpoint_epochs: epochs between them (0: not by epochs).
    beside: workers that share the memory of a device. keep: the weights that runs leave, see execute.Options."""

    out: Path
    cache: Path
    device: str = "cpu"
    overrides: tuple[str, ...] = ()
    checkpoint_s: float = 300.0
    checkpoint_epochs: int = 0
    beside: int = 1
    keep: str = ""


@dataclass(frozen=True)
class Planned:
    """A run, its state, and its predicted cost (None where nothing tells), with the source of that in words. error: why
    it failed, or why a record is called stale where it cannot be judged. together: the seeds of its team, where known.
    """

    key: RunKey
    state: str
    predicted_s: float | None = None
    predicted_memory_bytes: int | None = None
    error: str = ""
    source: str = ""
    together: int = 1
    opening_s: float = 0.0

    @property
    def cost(self) -> Cost:
        """The predicted cost."""
        return Cost(self.predicted_s, self.predicted_memory_bytes, self.source, self.together, self.opening_s)


def parse_seeds(text: str) -> tuple[int, ...]:
    """ "0-4" or "0,3" or "0-2,7" as ascending distinct seeds; InputError where it is not that."""
    seeds: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > LONGEST:
            raise InputError(f"--seeds {text}: {part!r} is not a seed or a range; write 0-4 or 0,3")
        low, high = int(first), int(last or first)
        if low > high or high > MAX_SEED or high - low >= MAX_SEEDS:
            raise InputError(f"--seeds {text}: {part!r} runs backwards or is too large; write the smaller seed first")
        seeds.update(range(low, high + 1))
    return tuple(sorted(seeds))


def select(selection: Selection, cache: Path) -> tuple[list[RunKey], list[str]]:
    """The runs of a selection, in the order of the tables, and what to tell people about the choice of data.

    InputError for a name that is not in its table. Under "all", benchmarks that cannot be run here are left out and
    told; a benchmark that was asked for by name must be runnable.
    """
    if selection.studies:
        found = [select(part, cache) for name in selection.studies for part in of_study(studies.study(name))]
        return list(dict.fromkeys(key for keys, _ in found for key in keys)), []
    check_names(selection)
    chosen, notes = _choose(selection, cache)
    keys = [
        RunKey(name, protocol.name, data, selection.profile, method, variant, seed)
        for name, (protocol, data) in chosen.items()
        for method in _methods(selection.methods, protocol)
        for variant in _variants(method, selection.variants)
        for seed in selection.seeds
    ]
    if not keys:
        asked = f"--method {','.join(selection.methods)} --variant {','.join(selection.variants)}"
        raise InputError(
            f"{asked}: no run of {', '.join(chosen)} fits; see `clcr list variants` and `clcr list protocols`"
        )
    return keys, notes


def of_study(study: studies.Study) -> list[Selection]:
    """What a study runs, one selection for each protocol and profile."""
    common = Selection((), study.methods, study.variants, parse_seeds(study.seeds), data=study.data)
    parts = studies.one_each(study)
    return [replace(common, benchmarks=(b,), protocol=protocol, profile=profile) for b, protocol, profile in parts]


def check_names(selection: Selection) -> None:
    """InputError, with the nearest name, for a name of a selection that is in no table."""
    protocols = [p.name for name in BENCHMARKS for p in catalog.spec(name).protocols]
    rows = [METHODS[base_of(name)] for name in selection.methods if base_of(name) in METHODS] or list(METHODS.values())
    variants = [variant for row in rows for variant in row.every_variant]
    check_profile(selection.profile)
    for what, names, known in (
        ("benchmark", selection.benchmarks, list(BENCHMARKS)),
        ("method", selection.methods, method_names()),
        ("variant", selection.variants, variants),
        ("protocol", (selection.protocol,) if selection.protocol is not None else (), protocols),
        ("data", (selection.data,), list(catalog.DATA)),
    ):
        for name in names:
            if name not in known:
                raise unknown(what, name, dict.fromkeys(known), f"--{what}")


def matcher(selection: Selection, given: Collection[str]) -> Callable[[RunKey], bool]:
    """Whether a run that exists fits a selection; only the parts named in ``given`` (as on the command line) count."""
    fits: Mapping[str, Callable[[RunKey], bool]] = {
        "benchmark": lambda key: not selection.benchmarks or key.benchmark in selection.benchmarks,
        "method": lambda key: not selection.methods or bool({key.method, base_of(key.method)} & set(selection.methods)),
        "variant": lambda key: not selection.variants or key.variant in selection.variants,
        "seeds": lambda key: key.seed in selection.seeds,
        "protocol": lambda key: key.protocol == selection.protocol,
        "profile": lambda key: key.profile == selection.profile,
        "data": lambda key: selection.data in ("auto", key.data),
    }
    return lambda key: all(fits[name](key) for name in given)


def method_names() -> list[str]:
    """Every name that --method takes, without "all": a row that exists once per modality goes by its own name, which
    means all of them, and by <name>_<modality>."""
    return [name for row in METHODS.values() for name in (row.name, *_per_modality(row.name))]


def _per_modality(name: str) -> list[str]:
    return [f"{name}_{modality}" for modality in _modalities()] if METHODS[name].per_modality else []


@cache
def _modalities() -> tuple[str, ...]:
    protocols = [protocol for name in BENCHMARKS for protocol in catalog.spec(name).protocols]
    return tuple(dict.fromkeys(modality.name for protocol in protocols for modality in protocol.modalities))


def _choose(selection: Selection, cache: Path) -> tuple[dict[str, tuple[Protocol, str]], list[str]]:
    chosen: dict[str, tuple[Protocol, str]] = {}
    told, refused = [], []
    for name in selection.benchmarks or BENCHMARKS:
        try:
            protocol, data = catalog.choose(name, selection.protocol, selection.data, cache)
        except InputError as error:
            if selection.benchmarks:
                raise
            refused.append(error)
            continue
        chosen[name] = protocol, data
        told.append(f"{name}: {'prepared real data' if data == 'real' else 'synthetic twin'}, protocol {protocol.name}")
        if data == "real" and (problem := catalog.unserved(name, protocol, catalog.open_prepared(name, data, cache))):
            told.append(f"not the official samples, so that its numbers are not the protocol's: {problem}")
    if not chosen:
        raise refused[0]
    return chosen, told + [f"left out: {error}" for error in refused]


def _methods(asked: Sequence[str], protocol: Protocol) -> list[str]:
    """The methods of a protocol in table order; a row per modality becomes one for each modality of the protocol. All
    means those of the suite: what else is installed runs when it is named."""
    found = []
    for row in METHODS.values():
        names = [f"{row.name}_{m.name}" for m in protocol.modalities] if row.per_modality else [row.name]
        found += [name for name in names if name in asked or row.name in asked or not (asked or row.origin)]
    return found


def _variants(method: str, asked: Sequence[str]) -> list[str]:
    row = METHODS[base_of(method)]
    return [variant for variant in row.every_variant if variant in asked] if asked else list(row.variants)


def check_configs(keys: Iterable[RunKey], place: Place) -> None:
    """Resolve the configuration of every run, seeds apart, so that a wrong key is refused before anything starts."""
    config = importlib.import_module("benchmarks.runner.config")
    for key in dict.fromkeys(replace(key, seed=0) for key in keys):
        config.resolve(key, place.overrides)


def plan(
    keys: Sequence[RunKey], place: Place, engine: str = ENGINE, heal: Callable[[str], None] | None = None
) -> list[Planned]:
    """The state and the predicted cost of each run.

    A record that cannot be trusted raises InputError. With ``heal`` it is put aside, ``heal`` is told, and the run
    counts as missing.
    """
    found = {key: _read(store.folder_of(place.out, key), heal) for key in keys}
    costs = Costs(keys, place.out, Table(place.cache, place.device), place.overrides)
    return [_planned(key, record, costs, place, engine) for key, record in found.items()]


def _read(folder: Path, heal: Callable[[str], None] | None) -> RunRecord | None:
    try:
        return store.read_run(folder)
    except InputError as error:
        if heal is None:
            raise
        heal(f"{error} (put aside as {store.quarantine(folder).name}; its run starts anew)")
        return None


def _planned(key: RunKey, record: RunRecord | None, costs: Costs, place: Place, engine: str) -> Planned:
    state, error = _state(key, record, place, engine)
    cost = costs.of(key)
    return Planned(key, state, cost.seconds, cost.memory, error, cost.source, cost.together, cost.opening_s)


def _state(key: RunKey, record: RunRecord | None, place: Place, engine: str) -> tuple[str, str]:
    why, current = "", False
    if record is not None:
        try:
            current = record.digest == digest_now(key, place, engine)
        except InputError as error:
            why = str(error)
    if record is not None and record.status == "done" and current:
        lacks = store.lacks_weights(store.folder_of(place.out, key), key, place.keep)
        return ("missing", "its weights were not kept") if lacks else ("done", "")
    claim = claims.owner(store.folder_of(place.out, key))
    if claim is not None and claims.held(store.folder_of(place.out, key)):
        return "running", f"process {claim.pid} of {claim.host}"
    if record is None:
        return "missing", "stopped; goes on from a checkpoint" if _resumable(store.folder_of(place.out, key)) else ""
    return ("failed", record.error) if record.status == "failed" and current else ("stale", why or record.error)


def _resumable(folder: Path) -> bool:
    return any(any(left.glob(claims.CHECKPOINTS)) for left in claims.attempts(folder))


def digest_now(key: RunKey, place: Place, engine: str = ENGINE) -> str:
    """The digest that a run would have if it were executed now (loads torch and the run's data)."""
    module = importlib.import_module(engine)
    return digest_of(module.describe(key, options(place, engine)))


def stale(place: Place, matches: Callable[[RunKey], bool], engine: str = ENGINE) -> set[RunKey]:
    """Runs of this folder whose newest merged record no longer fits today's code, data or configuration.

    Records that came from elsewhere are taken at their word, and so are runs whose data is not here any more.
    """
    local = {key for key in map(store.key_of, store.run_folders(place.out)) if key is not None and matches(key)}
    old = set()
    for benchmark in sorted({key.benchmark for key in local}):
        lines = sorted(store.committed(place.out, benchmark), key=store.finished_at)
        for key, record in {line.key: line for line in lines if line.key in local}.items():
            with suppress(InputError):
                if record.status == "done" and record.digest != digest_now(key, place, engine):
                    old.add(key)
    return old


def options(place: Place, engine: str = ENGINE) -> Any:
    """The engine's own options for a place."""
    return importlib.import_module(engine).Options(**asdict(place))


def counts(planned: Iterable[Planned]) -> Mapping[str, int]:
    """How many runs are in each state."""
    states = [run.state for run in planned]
    return {state: states.count(state) for state in STATES}
