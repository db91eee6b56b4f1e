"""What `clcr run --launcher ray --launcher-config FILE.yaml` is told: one checked, frozen dataclass."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.errors import InputError, unknown
from benchmarks.runner.config import coerce, read_yaml
from benchmarks.runner.processes import ROOT, WORKER_ENVIRONMENT

ADDRESS = re.compile(r"auto|(?P<host>[\w.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Settings:
    """How runs become tasks of a Ray cluster that runs already.

    address: HOST:PORT of the cluster's head, or "auto" for the one that this machine belongs to; "" takes $RAY_ADDRESS,
    else "auto". namespace: Ray's name for what belongs together. cpus_per_run, gpus_per_run: what Ray reserves for a
    team of runs, fractions allowed; gpus_per_run unsaid: 1 where --device is a GPU, else 0. max_concurrent: how many
    teams may be executed at a time (0: as many as the nodes hold). checkout: this checkout as the nodes see it.
    env_vars: what the workers' environment needs besides.
    """

    address: str = ""
    namespace: str = "clcr"
    cpus_per_run: float = 1.0
    gpus_per_run: float | None = None
    max_concurrent: int = 0
    checkout: str = str(ROOT)
    env_vars: Mapping[str, str] = field(default_factory=dict)


def read(path: Path | None) -> Settings:
    """The settings of a YAML file, those of the class where there is none. InputError names file, field and remedy."""
    if path is None:
        return Settings()
    if not path.is_file():
        raise InputError(f"--launcher-config {path}: no such file; see docs/cluster.md for what it says")
    hints = typing.get_type_hints(Settings)
    values: dict[str, Any] = {}
    for name, value in read_yaml(path).items():
        if name not in hints:
            raise unknown("field", str(name), hints, str(path))
        where = f"{path}: {name}"
        values[name] = _variables(value, where) if name == "env_vars" else coerce(value, hints[name], where)
    found = Settings(**values)
    _check(found, path)
    return found


def address(chosen: Settings, told: str | None, where: str) -> str:
    """The address to attach to; told: $RAY_ADDRESS. InputError for one that is not of a running cluster's head."""
    found = chosen.address or told or "auto"
    match = ADDRESS.fullmatch(found)
    if match and int(match["port"] or 1) < 2**16:
        return found
    source = f"{where}: address" if chosen.address else "RAY_ADDRESS"
    hint = "the command runs on a node of the cluster, not beside it; " if found.startswith("ray://") else ""
    raise InputError(f"{source} = {found!r}: not an address; {hint}write auto or HOST:PORT, as `ray start` tells it")


def _variables(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a mapping, found {value!r}; write one 'NAME: text' a line")
    for name, said in value.items():
        if not isinstance(name, str) or not VARIABLE.fullmatch(name):
            raise InputError(f"{where}: {name!r} is no name of a variable; write letters, digits and _")
        if name in WORKER_ENVIRONMENT:
            raise InputError(f"{where}: {name} is set by the launcher, equal for all workers; remove it")
        if not isinstance(said, str) or "\0" in said:
            raise InputError(f"{where}.{name} = {said!r}: expected a text; put it in quotes")
    return dict(value)


def _check(found: Settings, path: Path) -> None:
    for name in ("cpus_per_run", "gpus_per_run", "max_concurrent"):
        value = getattr(found, name)
        if value is not None and not (0 <= value < math.inf):
            raise InputError(f"{path}: {name} = {value}: must be a number from 0")
    gpus = found.gpus_per_run
    if gpus is not None and gpus > 1:
        raise InputError(f"{path}: gpus_per_run = {gpus:g}: a team of runs computes on one GPU; write 1 or less")
    if not (found.cpus_per_run or gpus):
        raise InputError(f"{path}: cpus_per_run = 0: Ray would start all runs at once; write 1, or set gpus_per_run")
    if not Path(found.checkout).is_absolute():
        raise InputError(f"{path}: checkout = {found.checkout!r}: must be a whole path, alike on every node")
