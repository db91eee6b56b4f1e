"""What a run is told: profile, overrides and variant, resolved into one frozen RunConfig.

Later speaks over earlier: defaults of the dataclasses, the profile's sections, its part for the benchmark, what the
search found (<profile>.tuned.yaml), the settings of a profile such as ``open+sgd`` (benchmarks/studies.py), ``--set``,
and last the variant, so that an ablation keeps the tuned numbers of ``full``. Every key and type is checked; a wrong
one is refused with the file, the field and the nearest known name.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from baselines import MethodRow
from benchmarks import BENCHMARKS, catalog, plain_yaml, studies
from benchmarks.augment import augments
from benchmarks.data import LanguageOptions
from benchmarks.errors import InputError, unknown
from benchmarks.methods import METHODS
from benchmarks.record import RunKey
from benchmarks.runner import names
from benchmarks.spec import ModalitySpec, Protocol
from clcr.api import Method
from clcr.config import EncoderConfig

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "step")
SECTIONS = ("encoder", "training", "language", "data")
TOP = (*SECTIONS, "methods", "benchmarks")
SET = "--set"
LARGEST = 1 << 62  # of whole numbers


@dataclass(frozen=True)
class Training:
    """How every method of a run is trained, alike for all.

    patience: epochs without a better validation score before training stops; 0 never stops early. schedule: "constant",
    "cosine" (to zero over the epochs) or "step" (times ``step_factor`` every ``step_epochs``). clip_norm: 0 does not
    clip. bf16: forward pass and losses in bfloat16 where that is safe (autocast).
    """

    optimizer: str = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 64
    epochs: int = 100
    patience: int = 0
    schedule: str = "constant"
    step_epochs: int = 70
    step_factor: float = 0.1
    clip_norm: float = 0.0
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, OPTIMIZERS, "training.optimizer")
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES, "training.schedule")
        for name, least in (("batch_size", 2), ("epochs", 1), ("patience", 0), ("step_epochs", 1)):
            _at_least(name, getattr(self, name), least)
        for name in ("lr", "momentum", "weight_decay", "step_factor", "clip_norm"):
            _at_least(name, getattr(self, name), 0)


@dataclass(frozen=True)
class DataUse:
    """fraction: the share of each fold's training samples that is used, for every method the same ones; smaller shares
    lie inside larger ones. Validation and test stay whole."""

    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise InputError(f"data.fraction = {self.fraction!r}: must be in (0, 1]")


@dataclass(frozen=True)
class RunConfig:
    """All that a run is told. ``method`` is an instance of its class's ``Config``; ``language`` is None where the
    protocol has no text; ``fitted`` methods read neither encoder nor training."""

    encoder: EncoderConfig
    training: Training
    method: Any
    language: LanguageOptions | None = None
    fitted: bool = False
    data: DataUse = DataUse()

    def canonical(self) -> dict[str, Any]:
        """What enters the digest: only what can change this run's numbers."""
        parts: dict[str, Any] = {"method": asdict(self.method)}
        if self.language is not None:  # which model it is, its own digest says (execute.what); so of a checkpoint
            parts["language"] = {name: value for name, value in asdict(self.language).items() if name != "model"}
        if self.data != DataUse():
            parts["data"] = asdict(self.data)
        if not self.fitted:
            encoder = {name: value for name, value in asdict(self.encoder).items() if name != "checkpoint"}
            parts |= {"encoder": encoder, "training": asdict(self.training)}
        return parts


def method_row(method: str) -> tuple[MethodRow, str | None]:
    """The row of a method's name and, for ``unimodal_<modality>``, the modality that it is restricted to."""
    if method in METHODS and not METHODS[method].per_modality:
        return METHODS[method], None
    for row in METHODS.values():
        if row.per_modality and method.startswith(f"{row.name}_"):
            return row, method.removeprefix(f"{row.name}_")
    known = [f"{name}_<modality>" if row.per_modality else name for name, row in METHODS.items()]
    raise unknown("method", method, known)


def load_class(row: MethodRow) -> Any:
    """The class behind a row of the table (loads torch). InputError where a package's class is not what it says."""
    module, _, name = row.target.partition(":")
    if not row.origin:
        return getattr(importlib.import_module(module), name)
    where = f"method {row.name} of package {row.origin}: {row.target}"
    try:
        cls = getattr(importlib.import_module(module), name)
        fault = _fault(cls, row)
    except Exception as error:  # whatever another's module raises
        raise InputError(f"{where}: cannot be loaded ({type(error).__name__}: {error}); correct the package") from error
    if fault:
        raise InputError(f"{where}: {fault}; correct the package")
    return cls


def _fault(cls: Any, row: MethodRow) -> str:
    """Where a class falls short of the contract, in words."""
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        return "not a subclass of clcr.api.Method"
    if not is_dataclass(getattr(cls, "Config", None)):
        return "Config is not a dataclass"
    if tuple(cls.VARIANTS) != row.every_variant:
        return f"VARIANTS are {', '.join(cls.VARIANTS)}, its ROW says {', '.join(row.every_variant)}"
    for changes in cls.VARIANTS.values():
        cls.Config(**changes)
    return ""


def protocol_of(key: RunKey) -> Protocol:
    """The protocol of a run, with the twin's shapes where it runs on the twin."""
    described = catalog.spec(key.benchmark).protocol(key.protocol)
    if key.data != "twin":
        return described
    twin = catalog.twin_protocol(key.benchmark)
    if twin.name != key.protocol:
        raise InputError(f"{key.benchmark}: its synthetic twin stands for protocol {twin.name}, not {key.protocol}")
    return twin


def profile_path(profile: str) -> Path:
    """The file of a profile, settings apart, or InputError with the nearest name."""
    base, _ = studies.split(profile)
    if base not in names.profile_names():
        raise unknown("profile", base, names.profile_names())
    return names.PROFILES / f"{base}.yaml"


def tuned_path(profile: str) -> Path:
    """What the search found for a profile (or one with settings) and its runs are told (`clcr search --adopt`); it need
    not exist."""
    return names.PROFILES / f"{profile}.tuned.yaml"


def resolve(key: RunKey, overrides: Sequence[str] = (), tuned: bool = True) -> RunConfig:
    """The configuration of a run. ``overrides``: "section.field=value"; ``tuned``: whether the search's result counts.

    Raises InputError for an unknown key, a wrong type or a value that a config refuses.
    """
    row, _ = method_row(key.method)
    cls = load_class(row)
    if key.variant not in cls.VARIANTS:
        raise unknown("variant", key.variant, cls.VARIANTS, f"method {key.method}")
    modalities = protocol_of(key).modalities
    text = any(modality.backbone == "language_model" for modality in modalities)
    sections = {"encoder": EncoderConfig, "training": Training, "language": LanguageOptions, "data": DataUse}
    sections |= {"method": cls.Config}
    values: dict[str, dict[str, Any]] = {name: {} for name in sections}
    said: dict[str, str] = {}  # by whom last, for a value that its class refuses
    for where, dotted in _layers(key, row, overrides, tuned):
        for name, value in dotted.items():
            section, field = _find(name, sections, where)
            values[section][field] = coerce(value, _hints(sections[section])[field], f"{where}: {name}")
            said[name] = where
    values["method"] |= cls.VARIANTS[key.variant]
    with _blamed_on(said, profile_path(key.profile).name):
        built = {name: cls(**values[name]) for name, cls in sections.items()}
        if hasattr(built["method"], "check_width"):  # some methods have numbers that must fit the encoder's width
            built["method"].check_width(built["encoder"].width)
    return RunConfig(
        encoder=_in_force(built["encoder"], modalities),
        training=built["training"],
        method=built["method"],
        language=built["language"] if text else None,
        fitted=row.fitted,
        data=built["data"],
    )


def _layers(key: RunKey, row: MethodRow, overrides: Sequence[str], tuned: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it was said, {dotted key: value}) in the order in which later speaks over earlier."""
    profile, (base, settings) = load_profile(key.profile), studies.split(key.profile)
    group = f"{key.benchmark}.{key.protocol}"
    own = any(setting.tuned == "own" for setting in settings)
    name = profile_path(key.profile).name
    yield name, _dotted({section: profile.get(section, {}) for section in SECTIONS}, name)
    yield name, _dotted({"method": profile.get("methods", {}).get(row.name, {})}, name)
    where = f"{name}: benchmarks.{group}"
    yield where, _dotted(profile.get("benchmarks", {}).get(group, {}), where)
    if tuned and all(setting.tuned == "base" for setting in settings):
        yield tuned_path(base).name, load_tuned(base).get(group, {}).get(key.method, {})
    for setting in settings:
        yield f"{studies.FILE.name}: settings.{setting.name}", {**setting.values, **setting.methods.get(row.name, {})}
    if tuned and own:
        yield tuned_path(key.profile).name, load_tuned(key.profile).get(group, {}).get(key.method, {})
    yield SET, dict(_split_override(text) for text in overrides)


def load_profile(profile: str) -> dict[str, Any]:
    """A profile's YAML with its section names checked (the fields are checked when a run is resolved)."""
    return _load_profile(profile_path(profile))


@cache
def _load_profile(path: Path) -> dict[str, Any]:
    raw = read_yaml(path)
    _check_names("section", raw, TOP, path.name)
    _check_names("method", raw.get("methods", {}), METHODS, f"{path.name}: methods")
    known = [f"{name}.{protocol.name}" for name in BENCHMARKS for protocol in catalog.spec(name).protocols]
    _check_names("benchmark and protocol", raw.get("benchmarks", {}), known, f"{path.name}: benchmarks")
    for group, part in raw.get("benchmarks", {}).items():
        _check_names("section", part, SECTIONS, f"{path.name}: benchmarks.{group}")
    return raw


def load_tuned(profile: str) -> dict[str, Any]:
    """What the search found for a profile; see read_tuned."""
    return read_tuned(tuned_path(profile))


def read_tuned(path: Path) -> dict[str, Any]:
    """{"<benchmark>.<protocol>": {method: {dotted key: value}}} as the search left it; empty where there is no file."""
    raw = read_yaml(path) if path.is_file() else {}
    _check_names("section", raw, ("tuned",), path.name)
    tuned = raw.get("tuned", {})
    _check_names("group", tuned, None, f"{path.name}: tuned")
    for group, methods in tuned.items():
        _check_names("method", methods, None, f"{path.name}: tuned.{group}")
    return dict(tuned)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, {} of an empty one. InputError where it cannot be read or holds none."""
    raw = plain_yaml.read(path)
    if raw is None:
        return {}
    _check_names("section", raw, None, path.name)
    return dict(raw)


def _check_names(what: str, raw: object, known: Sequence[str] | Mapping[str, Any] | None, where: str) -> None:
    if not isinstance(raw, dict):
        raise InputError(f"{where}: expected a mapping of names, found {raw!r}; write one 'name: value' a line")
    for name in raw:
        if known is not None and name not in known:
            raise unknown(what, str(name), known, where)


def _dotted(sections: Mapping[str, Any], where: str) -> dict[str, Any]:
    """{"training": {"lr": 1}} as {"training.lr": 1}."""
    dotted: dict[str, Any] = {}
    for section, part in sections.items():
        _check_names("field", part, None, f"{where}: {section}")
        dotted |= {f"{section}.{name}": value for name, value in part.items()}
    return dotted


def _split_override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {text}: expected key=value, for example training.lr=0.001")
    try:
        return name.strip(), plain_yaml.parse(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {text}: the value cannot be read; quote it") from error


def _find(name: str, sections: Mapping[str, type[Any]], where: str) -> tuple[str, str]:
    """(section, field) of a dotted key; a bare field name is answered with the key that was probably meant."""
    known = [f"{section}.{field.name}" for section, cls in sections.items() for field in fields(cls)]
    if name in known:
        section, _, field = name.partition(".")
        return section, field
    meant = [key for key in known if key.partition(".")[2] == name.rpartition(".")[2]]
    if meant:
        raise InputError(f"{where}: unknown key {name!r}; did you mean {meant[0]!r}?")
    raise unknown("key", name, known, where)


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def coerce(value: object, hint: Any, where: str) -> Any:
    """``value`` as the annotated type; InputError where it does not fit. YAML reads 1e-3 as text: taken as a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return coerce(value, next(a for a in arguments if a is not type(None)), where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(coerce(item, arguments[0], where) for item in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float:
        with contextlib.suppress(ValueError, OverflowError):
            if number or isinstance(value, str):
                return float(value)  # type: ignore[arg-type]
    elif hint is int and number and abs(value) < LARGEST and value == int(value):  # type: ignore[arg-type,call-overload]
        return int(value)  # type: ignore[call-overload]
    elif (hint is bool and isinstance(value, bool)) or (hint is str and isinstance(value, str)):
        return value
    raise InputError(f"{where} = {_told(value)}: expected {getattr(hint, '__name__', hint)}")


def _told(value: object) -> str:
    try:
        return repr(value)[:200]
    except ValueError:  # Python prints no number of more than 4300 digits
        return "a number of thousands of digits"


@contextlib.contextmanager
def _blamed_on(said: Mapping[str, str], profile: str) -> Iterator[None]:
    """Refusals of values, with where the field that they name was set: --set if any of them was, else its last file."""
    try:
        yield
    except (ValueError, InputError) as error:
        told = str(error).removeprefix("config: ")
        places = [where for name, where in said.items() if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", told)]
        where = SET if SET in places else places[-1] if places else profile
        raise InputError(f"{where}: {told}") from error


def _in_force(encoder: EncoderConfig, modalities: Sequence[ModalitySpec]) -> EncoderConfig:
    """The encoder without what changes nothing here: augmentation and weights that none of its backbones reads."""
    if not any(map(augments, modalities)):
        encoder = replace(encoder, augment="none")
    if not any(modality.backbone == "resnet18" for modality in modalities):
        encoder = replace(encoder, checkpoint="")
    return encoder


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise InputError(f"training.{name} = {value!r}: must be at least {least}")
