"""What every Python process that tests/chaos.py starts loads first, as its sitecustomize: at an armed moment, a chosen
call of the operating system, it sends a signal to itself, to its parent or to all; and it notes what was published.

Each armed moment fires once, whichever process comes to it first. Standard library alone: nothing of the project.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from signal import SIGKILL
from typing import Any

CALLS = ("rename", "replace", "unlink", "fsync", "open")
RUN = re.compile(r".*/(\.)?(seed-\d+)(\.[0-9a-f]{16})?")
ORIGINAL: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in CALLS}
STARTED = os.getpid()


def install() -> None:
    """Put a watch before and after the calls."""
    for name in CALLS:
        original = ORIGINAL[name]
        wrapped = watched(name, original)
        setattr(os, name, wrapped)
        for names in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if original in names:
                names.add(wrapped)  # shutil.rmtree asks


def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """A call with its moments around it."""

    def call(*arguments: Any, **named: Any) -> Any:
        path = path_of(name, arguments)
        waiting = [each for each in armed() if each["call"] == name and re.search(each["path"], path)]
        for moment in waiting:
            if not moment["late"]:
                come(moment, arguments)
        told = outcome(name, arguments)
        found = original(*arguments, **named)
        if told:
            note(told)
        for moment in waiting:
            if moment["late"]:
                come(moment, arguments)
        return found

    return call


def path_of(name: str, arguments: tuple[Any, ...]) -> str:
    """The path that tells what a call is about: where a file goes to, else the file."""
    if name == "fsync":
        return os.readlink(f"/proc/self/fd/{arguments[0]}")
    if name == "open" and not arguments[1] & os.O_EXCL:
        return ""
    return os.fspath(arguments[1 if name in ("rename", "replace") else 0])


def outcome(name: str, arguments: tuple[Any, ...]) -> str:
    """What a rename publishes or takes over, "" for other calls."""
    if name != "rename":
        return ""
    source, target = (os.fspath(argument) for argument in arguments[:2])
    before, after = RUN.fullmatch(source), RUN.fullmatch(target)
    if before and after and before[1] and before[3]:
        if after[3]:
            return f"inherited {target}"
        status = json.loads(Path(source, "record.json").read_text())["status"]
        return f"published {status} {target}"
    return ""


def note(line: str) -> None:
    """A line in what is known of this sweep."""
    handle = ORIGINAL["open"](f"{os.environ['CHAOS_FOLDER']}/events", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


@cache
def armed_in(process: int) -> list[dict[str, Any]]:
    """The moments that wait for a process of this role."""
    words = Path("/proc/self/cmdline").read_text().split("\0")
    role = "worker" if "benchmarks.runner.server" in words and process != STARTED else ""
    role = role or next((word for word in ("run", "report") if word in words and "benchmarks.cli" in words), "")
    with open(f"{os.environ['CHAOS_FOLDER']}/armed.json") as file:
        return [moment for moment in json.load(file) if moment["role"] == role]


def armed() -> list[dict[str, Any]]:
    """The moments of this process."""
    return armed_in(os.getpid())


def come(moment: dict[str, Any], arguments: tuple[Any, ...]) -> None:
    """A moment has come: its signal is sent, once and at its n-th time."""
    moment["nth"] -= 1
    if moment["nth"] >= 0 and moment["nth"] != 0:
        return
    try:
        os.close(ORIGINAL["open"](f"{os.environ['CHAOS_FOLDER']}/fired/{moment['id']}", os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:
        return
    if moment["torn"] and moment["signal"] == SIGKILL:  # who lives on would publish it
        os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
    whom = {"self": [os.getpid()], "parent": [os.getppid()], "grandparent": [parent_of(os.getppid())]}
    whom["all"] = [*whom["grandparent"], *whom["parent"], *whom["self"]]
    for pid in whom[moment["whom"]]:
        os.kill(pid, moment["signal"])
    if moment["signal"] == SIGKILL:
        time.sleep(2)  # until it ends with those that were killed


def parent_of(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


if "CHAOS_FOLDER" in os.environ:
    install()
