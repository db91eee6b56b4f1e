"""Studies: sweeps beside the main tables, declared in studies.yaml before they are run. No torch.

A setting is a named set of configuration values. The profile ``open+NAME`` is ``open`` and then those values, so that a
study's runs are planned, executed, resumed and recorded like all others, in an out folder of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import combinations, product
from math import prod
from pathlib import Path
from typing import Any

from baselines import METHODS
from benchmarks import plain_yaml
from benchmarks.errors import InputError, unknown

FOLDER = "studies"  # of <out>: where the runs of studies lie
FILE = Path(__file__).with_name("studies.yaml")
JOIN = "+"
OWN = ("tuned", "methods")  # what a setting says besides values
TUNED = ("base", "none", "own")
SECTIONS = ("settings", "screening", "studies", "after")
BASIC = 5
WORDS = tuple(word for size in (1, 3, 5) for word in combinations(range(BASIC), size))  # columns of the screening


@dataclass(frozen=True)
class Setting:
    """Values by dotted key, such as ``training.lr``. tuned: the search result that they are laid over: that of the
    "base" profile, "none", or their "own" (<profile>+<name>.tuned.yaml), which then speaks over them. methods: further
    values for single methods."""

    name: str
    values: Mapping[str, Any]
    tuned: str = "base"
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Runs that answer one question: every setting on every protocol ("benchmark.protocol") with every method, variant
    and seed. An empty tuple of methods means all. main: the plain profile's runs in the main tables belong to it.
    Without settings it runs the plain profile."""

    name: str
    title: str
    protocols: tuple[str, ...]
    profile: str = "open"
    data: str = "real"
    methods: tuple[str, ...] = ()
    variants: tuple[str, ...] = ("full",)
    seeds: str = "0-4"
    settings: tuple[str, ...] = ()
    main: bool = True

    @property
    def profiles(self) -> tuple[str, ...]:
        """The profiles of its runs."""
        return tuple(f"{self.profile}{JOIN}{name}" for name in self.settings) or (self.profile,)


def split(profile: str) -> tuple[str, tuple[Setting, ...]]:
    """The plain profile and the settings of a name such as ``open+sgd``; InputError for a setting that is not there."""
    base, *names = profile.split(JOIN)
    known = declared()[0] if names else {}
    for name in names:
        if name not in known:
            raise unknown("setting", name, known, f"--profile {profile}")
    return base, tuple(known[name] for name in names)


def study(name: str) -> Study:
    """A study by its name, or InputError with the nearest one."""
    known = declared()[1]
    if name not in known:
        raise unknown("study", name, known)
    return known[name]


@cache
def declared(path: Path = FILE) -> tuple[Mapping[str, Setting], Mapping[str, Study]]:
    """All settings and all studies, in the order of the file. InputError names the file and what is wrong there."""
    raw = _mapping(plain_yaml.read(path), path.name)
    for name in raw:
        if name not in SECTIONS:
            raise unknown("section", name, SECTIONS, path.name)
    settings = {
        name: _setting(name, _mapping(values, f"{path.name}: settings.{name}"), path.name)
        for name, values in _mapping(raw.get("settings", {}), f"{path.name}: settings").items()
    }
    settings |= {setting.name: setting for setting in _screens(factors(path))}
    studies = {
        name: _study(name, _mapping(values, f"{path.name}: studies.{name}"), f"{path.name}: studies.{name}", settings)
        for name, values in _mapping(raw.get("studies", {}), f"{path.name}: studies").items()
    }
    return settings, studies


@cache
def after(path: Path = FILE) -> str:
    """The profile of the main tables with the one change, ``after: {profile: NAME}``; "" where none is named."""
    raw = _mapping(_mapping(plain_yaml.read(path), path.name).get("after", {}), f"{path.name}: after")
    for name in raw:
        if name != "profile":
            raise unknown("field", name, ("profile",), f"{path.name}: after")
    return str(_typed(raw.get("profile", ""), "str", f"{path.name}: after.profile"))


@cache
def factors(path: Path = FILE) -> Mapping[str, Mapping[str, tuple[Any, Any]]]:
    """The screening's factors: {factor: {dotted key: (low, high)}}, at most one for each column of ``design``."""
    where = f"{path.name}: screening"
    found: dict[str, Mapping[str, tuple[Any, Any]]] = {}
    for name, keys in _mapping(_mapping(plain_yaml.read(path), path.name).get("screening", {}), where).items():
        for key, levels in _mapping(keys, f"{where}.{name}").items():
            if not isinstance(levels, list) or len(levels) != 2:
                raise InputError(f"{where}.{name}.{key} = {levels!r}: expected [low, high]")
        found[name] = {key: (levels[0], levels[1]) for key, levels in keys.items()}
    if len(found) > len(WORDS):
        raise InputError(f"{where}: {len(found)} factors, the design has room for {len(WORDS)}; leave some out")
    return found


def design() -> tuple[tuple[int, ...], ...]:
    """Levels (-1, 1) of 16 factors in 32 runs, a 2^(16-11) fractional factorial of resolution IV: five basic columns
    and all products of three and of five of them (Box and Hunter: The 2^(k-p) fractional factorial designs, 1961)."""
    runs = list(product((-1, 1), repeat=BASIC))
    return tuple(tuple(prod(run[place] for place in word) for word in WORDS) for run in runs)


def _screens(found: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> list[Setting]:
    return [
        Setting(
            f"screen-{number:02d}",
            {
                key: pair[level > 0]
                for keys, level in zip(found.values(), run, strict=False)
                for key, pair in keys.items()
            },
        )
        for number, run in enumerate(design() if found else (), 1)
    ]


def _setting(name: str, values: Mapping[str, Any], file: str) -> Setting:
    tuned = values.get("tuned", "base")
    if tuned not in TUNED:
        raise unknown("value", str(tuned), TUNED, f"{file}: settings.{name}.tuned")
    where = f"{file}: settings.{name}.methods"
    methods = {
        method: _mapping(own, f"{where}.{method}") for method, own in _mapping(values.get("methods", {}), where).items()
    }
    for method in methods:
        if method not in METHODS:
            raise unknown("method", method, METHODS, where)
    return Setting(name, {key: value for key, value in values.items() if key not in OWN}, tuned, methods)


def _study(name: str, values: Mapping[str, Any], where: str, settings: Mapping[str, Setting]) -> Study:
    known = {field.name: field.type for field in fields(Study) if field.name != "name"}
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise unknown("field", key, known, where)
        given[key] = _typed(value, str(known[key]), f"{where}.{key}")
    for key in ("title", "protocols"):
        if not given.get(key):
            raise InputError(f"{where}: field {key!r} is missing; add it")
    given["settings"] = tuple(each for name in given.get("settings", ()) for each in _matching(name, settings, where))
    return Study(name, **given)


def _matching(name: str, settings: Mapping[str, Setting], where: str) -> list[str]:
    """The settings that a name means: itself, or all that begin as it does before a star."""
    found = [each for each in settings if each.startswith(name[:-1])] if name.endswith("*") else [name]
    if not found or found[0] not in settings:
        raise unknown("setting", name, settings, where)
    return found


def _typed(value: object, kind: str, where: str) -> Any:
    if kind == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if (kind == "bool" and isinstance(value, bool)) or (kind == "str" and isinstance(value, str)):
        return value
    raise InputError(f"{where} = {value!r}: expected {'a list of names' if 'tuple' in kind else kind}")


def _mapping(raw: object, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict) or not all(isinstance(name, str) for name in raw):
        raise InputError(f"{where}: expected a mapping of names; write one 'name: value' a line")
    return raw


def one_each(study: Study) -> Sequence[tuple[str, str, str]]:
    """(benchmark, protocol, profile) of everything that a study runs."""
    return [(*name.split(".", 1), profile) for name in study.protocols for profile in study.profiles]  # type: ignore[misc]
