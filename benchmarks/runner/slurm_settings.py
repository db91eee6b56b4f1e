"""What `clcr run --launcher slurm --launcher-config FILE.yaml` is told: one checked, frozen dataclass."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks import plain_yaml
from benchmarks.errors import InputError, unknown
from benchmarks.runner.config import coerce

LEAST = {"tasks": 1, "at_once": 0, "cpus_per_task": 1, "gpus_per_task": 0, "workers": 0, "signal_s": 1, "requeues": 0}
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)")
OPTION = re.compile(r"[a-z][a-z0-9-]*")
# sbatch options that the launcher sets itself, and the field here that says them ("": none does).
OURS = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "gres": "gres",
    "time": "time",
    "mem": "memory",
    "array": "tasks",
    "signal": "signal_s",
    "cpus-per-task": "cpus_per_task",
    "gpus-per-task": "gpus_per_task",
    "requeue": "requeues",
    "no-requeue": "requeues",
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node", "output", "error", "open-mode", "job-name", "wrap"), ""),
}


@dataclass(frozen=True)
class Settings:
    """How the array is submitted and watched.

    partition, account, qos, gres, memory: as sbatch takes them, "" for the cluster's own; gres and the numbers below
    are those of one task, which is one element of the array on one node. time: minutes, H:MM:SS or D-HH:MM:SS; an
    element that needs longer goes on in the next turn, ``requeues`` times at most. tasks: the elements; at_once: how
    many may run at a time (0: all). workers: worker processes a task (0: one a GPU, else one a core that it was given);
    device: where they compute, looked up on the node. signal_s: seconds before the end of the time in which checkpoints
    are written. setup: lines of shell before the task. sbatch: further options by their long names. poll_s: seconds
    between looks. wait: watch until all is done; false: submit and return.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: int = 240
    tasks: int = 4
    at_once: int = 0
    cpus_per_task: int = 1
    gpus_per_task: int = 0
    gres: str = ""
    memory: str = ""
    workers: int = 0
    device: str = "auto"
    signal_s: int = 120
    requeues: int = 1000
    setup: tuple[str, ...] = ()
    sbatch: Mapping[str, str | int | bool] = field(default_factory=dict)
    poll_s: float = 10.0
    wait: bool = True


def read(path: Path | None) -> Settings:
    """The settings of a YAML file, those of the class where there is none. InputError names file, field and remedy."""
    if path is None:
        return Settings()
    raw = _mapping(path)
    hints = typing.get_type_hints(Settings)
    for name in raw:
        if name not in hints:
            raise unknown("field", str(name), hints, str(path))
    values = {name: _value(name, value, hints[name], f"{path}: {name}") for name, value in raw.items()}
    found = Settings(**values)
    _check(found, path)
    return found


def _mapping(path: Path) -> dict[str, Any]:
    """The file's fields."""
    if not path.is_file():
        raise InputError(f"--launcher-config {path}: no such file; see docs/cluster.md for what it says")
    raw = plain_yaml.read(path)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InputError(
            f"{path}: expected a mapping of names, found {str(raw)[:60]!r}; write one 'name: value' a line"
        )
    return raw


def _value(name: str, value: object, hint: Any, where: str) -> Any:
    if name == "time":
        return _minutes(value, where)
    if name == "sbatch":
        return _options(value, where)
    found = coerce(value, hint, where)
    for text in found if isinstance(found, tuple) else (found,):
        _one_line(text, where)
    return found


def _minutes(value: object, where: str) -> int:
    """A time limit in minutes, SLURM's own unit, rounded up."""
    text = str(value)
    clock = TIME.fullmatch(text)
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        total = math.ceil(((days * 24 + hours) * 60 + minutes) + seconds / 60)
    elif text.isdecimal():
        total = int(text)
    else:
        raise InputError(f"{where} = {value!r}: not a time; write minutes, H:MM:SS or D-HH:MM:SS")
    if total < 1:
        raise InputError(f"{where} = {value!r}: must be at least one minute")
    return total


def _options(value: object, where: str) -> dict[str, str | int | bool]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a mapping, found {value!r}; write one 'option: value' a line")
    for name, said in value.items():
        if not isinstance(name, str) or not OPTION.fullmatch(name):
            raise InputError(f"{where}: {name!r} is no option; write its long name without dashes before it")
        if name in OURS:
            instead = f"use the field {OURS[name]!r}" if OURS[name] else "the launcher sets it"
            raise InputError(f"{where}: {name!r} cannot be set here; {instead}")
        if not (isinstance(said, str | int) and said is not False):
            raise InputError(f"{where}.{name} = {said!r}: expected a text, a number or true")
        _one_line(said, f"{where}.{name}")
    return dict(value)


def _one_line(value: object, where: str) -> None:
    """Each value becomes (part of) a line of the script: one that holds two would be a command."""
    if isinstance(value, str) and not value.isprintable():
        raise InputError(f"{where} = {value!r}: must be one line of printable text")


def _check(found: Settings, path: Path) -> None:
    for name in (each.name for each in fields(found) if each.name in LEAST):
        if getattr(found, name) < LEAST[name]:
            raise InputError(f"{path}: {name} = {getattr(found, name)}: must be at least {LEAST[name]}")
    if not 0.1 <= found.poll_s <= 3600:
        raise InputError(f"{path}: poll_s = {found.poll_s}: must be from 0.1 to 3600 seconds")
    if found.signal_s >= 60 * found.time:
        raise InputError(f"{path}: signal_s = {found.signal_s}: must be less than time, {60 * found.time} s")
    if found.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"{path}: device = {found.device!r}: not known here; write auto, cpu or cuda")
