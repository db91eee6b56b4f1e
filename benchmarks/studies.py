"""Studies: which settings beside the main tables' are compared with which, as benchmarks/studies.yaml states. No torch.

A setting is a named set of overrides; the profile "open+NAME" is the profile and then the setting's values. A study
names protocols, methods, variants, seeds and settings; without settings it runs the plain profile.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baselines import METHODS
from benchmarks import BENCHMARKS, plain_yaml
from benchmarks.errors import InputError, unknown
from benchmarks.record import PLAIN_NAME, RunKey
from benchmarks.spec import BenchmarkSpec, Protocol

FILE = Path(__file__).parent / "studies.yaml"
FOLDER = "studies"  # of <out>: where the runs of studies lie
TUNED = ("base", "none", "own")
DATA = ("real", "twin")
TOP = ("settings", "studies", "after")
NEEDED = ("title", "profile", "data", "protocols", "methods", "variants", "seeds", "settings", "main")
FREE = ("factors", "aliases", "resolution", "generators")  # said of a design, for readers
SEEDS = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")
EVERY = ("all", "trained")


@dataclass(frozen=True)
class Setting:
    """A named set of overrides. tuned: which search result it starts from, see benchmarks/studies.yaml."""

    name: str
    values: Mapping[str, Any]
    tuned: str = "base"


@dataclass(frozen=True)
class Study:
    """One study. protocols: "benchmark.protocol". methods: names, or "all" or "trained". main: whether the runs of the
    plain profile, which are those of the main tables, belong to the comparison."""

    name: str
    title: str
    profile: str
    data: str
    protocols: tuple[str, ...]
    methods: tuple[str, ...]
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    main: bool

    def profile_of(self, setting: str) -> str:
        """The profile that a setting's runs are known by; of "" the plain one."""
        return f"{self.profile}+{setting}" if setting else self.profile

    def methods_at(self, place: str) -> list[str]:
        """The methods that run on "benchmark.protocol", in the order of the table of methods."""
        wanted = METHODS if set(self.methods) & set(EVERY) else self.methods
        trained = "trained" in self.methods
        found: list[str] = []
        for name in wanted:
            row = METHODS.get(name)
            if row is not None and row.per_modality:
                found += [f"{name}_{modality.name}" for modality in spec_of(place)[1].modalities]
            elif row is None or not (trained and row.fitted):
                found.append(name)
        return found


@dataclass(frozen=True)
class Studies:
    """The file, checked. after: the profile with the one change, "" where none is named."""

    settings: Mapping[str, Setting] = field(default_factory=dict)
    studies: Mapping[str, Study] = field(default_factory=dict)
    after: str = ""

    def keys(self, study: str) -> list[RunKey]:
        """The runs that a study needs beside those of the main tables; InputError for an unknown study."""
        if study not in self.studies:
            raise unknown("study", study, self.studies, "studies")
        known = self.studies[study]
        return [
            RunKey(*_parts(place), known.data, known.profile_of(setting), method, variant, seed)
            for place in known.protocols
            for setting in known.settings or ("",)
            for method in known.methods_at(place)
            for variant in known.variants
            for seed in known.seeds
        ]


def _parts(place: str) -> tuple[str, str]:
    benchmark, _, protocol = place.partition(".")
    return benchmark, protocol


def spec_of(place: str) -> tuple[BenchmarkSpec, Protocol]:
    """The specification behind "benchmark.protocol"; InputError with the nearest name."""
    benchmark, protocol = _parts(place)
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS, "protocols")
    spec: BenchmarkSpec = importlib.import_module(BENCHMARKS[benchmark]).SPEC
    return spec, spec.protocol(protocol)


def load(path: Path = FILE) -> Studies:
    """Read and check the file; none of anything where there is none. InputError names the field and the remedy."""
    if not path.exists():
        return Studies()
    raw = plain_yaml.read(path)
    _mapping(raw, str(path), TOP)
    settings = {
        name: _setting(name, entry, f"{path}: settings.{name}")
        for name, entry in _named(raw.get("settings", {}), f"{path}: settings")
    }
    studies = {
        name: _study(name, entry, settings, f"{path}: studies.{name}")
        for name, entry in _named(raw.get("studies", {}), f"{path}: studies")
    }
    after = raw.get("after", {})
    _mapping(after, f"{path}: after", ("profile",))
    return Studies(settings, studies, _text(after.get("profile", ""), f"{path}: after.profile"))


def _mapping(entry: object, where: str, known: Sequence[str]) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not a mapping; give it keys of {', '.join(known)}")
    for name in entry:
        if name not in known:
            raise unknown("key", str(name), known, where)


def _named(entries: object, where: str) -> list[tuple[str, Any]]:
    """Entries by name; names become parts of names of profiles and files."""
    if not isinstance(entries, dict):
        raise InputError(f"{where}: not a mapping of names; correct the file")
    for name in entries:
        if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name) or "+" in name:
            raise InputError(f"{where}: {name!r} is not a plain name; use letters, digits, _ and -")
    return list(entries.items())


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 200:
        raise InputError(f"{where}: {str(value)[:60]!r} is not a line of text; correct the file")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise InputError(f"{where}: {str(value)[:60]!r} is not a list of names; correct the file")
    return tuple(_text(item, where) for item in value)


def _setting(name: str, entry: Any, where: str) -> Setting:
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        raise InputError(f"{where}: not a mapping of dotted keys to values; correct the file")
    values = {key: value for key, value in entry.items() if key != "tuned"}
    for key, value in values.items():
        if not isinstance(value, str | int | float | bool):
            raise InputError(f"{where}.{key}: {str(value)[:60]!r} is not a plain value; correct the file")
    tuned = entry.get("tuned", "base")
    if tuned not in TUNED:
        raise unknown("value", str(tuned), TUNED, f"{where}.tuned")
    return Setting(name, values, tuned)


def _study(name: str, entry: Any, settings: Iterable[str], where: str) -> Study:
    _mapping(entry, where, (*NEEDED, *FREE))
    for field_name in NEEDED:
        if field_name not in entry:
            raise InputError(f"{where}.{field_name}: missing; add it")
    if entry["data"] not in DATA:
        raise unknown("data", str(entry["data"]), DATA, f"{where}.data")
    if not isinstance(entry["main"], bool):
        raise InputError(f"{where}.main: {entry['main']!r}; write true or false")
    protocols = _texts(entry["protocols"], f"{where}.protocols")
    for place in protocols:
        spec_of(place)
    chosen = _texts(entry["settings"], f"{where}.settings")
    for setting in chosen:
        if setting not in settings:
            raise unknown("setting", setting, settings, f"{where}.settings")
    return Study(
        name=name,
        title=_text(entry["title"], f"{where}.title"),
        profile=_text(entry["profile"], f"{where}.profile"),
        data=entry["data"],
        protocols=protocols,
        methods=_texts(entry["methods"], f"{where}.methods"),
        variants=_texts(entry["variants"], f"{where}.variants"),
        seeds=_seeds(entry["seeds"], f"{where}.seeds"),
        settings=chosen,
        main=entry["main"],
    )


def _seeds(value: object, where: str) -> tuple[int, ...]:
    """ "0-4,7" as numbers."""
    found: list[int] = []
    for part in str(value).split(","):
        match = SEEDS.fullmatch(part.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise InputError(f"{where}: {str(value)[:60]!r} are no seeds; write them as 0-4 or 0,2,5")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(dict.fromkeys(found))
