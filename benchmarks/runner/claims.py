"""Who works on a run folder: a claim file, so that many workers and many runners can share one results folder.

A claim is made by exclusive creation and names its process. A claim whose process is dead is taken over at once on the
same host; on another host nobody can look, so its claim counts until it has shown no sign of life for EXPIRED_S.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

CLAIM = "claim.json"
HEARTBEAT_S = 30.0
EXPIRED_S = 600.0
WRITING_S = 10.0


@dataclass(frozen=True)
class Claim:
    """A process: pid, host, and when it started (pids are used again, a pid with its start is not)."""

    pid: int
    host: str
    started: str


def mine() -> Claim:
    """The claim of the calling process."""
    return Claim(os.getpid(), socket.gethostname(), _started(os.getpid()) or "")


def _started(pid: int) -> str | None:
    """Boot and clock tick at which a process of this host started; "" where the system does not tell, None: dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _started_without_proc(pid)
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _started_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def acquire(folder: Path) -> bool:
    """Claim a run folder (made if missing) for this process. False where another living process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CLAIM
    with locked(folder):  # of two that find the same dead claim, the slower must not remove the faster one's new claim
        if _alive(path):
            return _read(path) == mine()
        path.unlink(missing_ok=True)
        return _create(path)


def release(folder: Path, pid: int | None = None) -> None:
    """Give back a claim of this process, or of a child of this host that has ended; another's is left alone."""
    claim = owner(folder)
    ours = claim == mine() if pid is None else claim is not None and (claim.pid, claim.host) == (pid, mine().host)
    if ours:
        (folder / CLAIM).unlink(missing_ok=True)


def held(folder: Path) -> bool:
    """Whether a living process works on a run folder."""
    return _alive(folder / CLAIM)


def owner(folder: Path) -> Claim | None:
    """The claim in a run folder, alive or dead, or None."""
    return _read(folder / CLAIM)


@contextlib.contextmanager
def beating(folder: Path) -> Iterator[None]:
    """While it lasts, show other hosts that this process lives: touch the claim every HEARTBEAT_S."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(folder / CLAIM)

    thread = threading.Thread(target=beat, name="claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _create(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(handle, json.dumps(asdict(mine())).encode())
    finally:
        os.close(handle)
    return True


def _read(path: Path) -> Claim | None:
    try:
        return Claim(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _alive(path: Path) -> bool:
    claim = _read(path)
    try:
        silent_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    if claim is None:  # being written this moment, or its writer was killed in between
        return silent_s < WRITING_S
    if claim.host != socket.gethostname():
        return silent_s < EXPIRED_S
    return _started(claim.pid) == claim.started


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time gets past here for a folder. The folder itself is locked: that leaves no file behind
    and ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without such locks: exclusive creation alone decides
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
