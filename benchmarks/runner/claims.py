"""Who works on a run: a claim beside its folder, so that workers of many hosts share one results folder without a lock
server.

For the run ``seed-000`` the claim is ``.seed-000.claim``, made by exclusive creation. Its owner works in a folder named
by the claim's token, ``.seed-000.<token>``: the attempt. A claim whose process is dead is taken over at once on the
same machine; from another one nobody can look, so it counts until it has shown no sign of life for EXPIRED_S, by the
clock of the file system. Who takes over renames the attempt to a token of his own: what it holds goes along, and a slow
owner that comes back finds no folder to write to. Finished attempts become the run's folder by one rename (store.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from benchmarks.record import parsed

HEARTBEAT_S = 30.0
EXPIRED_S = 600.0
WRITING_S = 10.0
LOCK = ".lock"
OLD = ".old"  # what an attempt replaces, for the moment of its publication
CHECKPOINTS = "checkpoint*"  # what an attempt can be gone on from
KEPT = (CHECKPOINTS, "log.txt")  # what goes along when it is
LEFT = re.compile(rf"[0-9a-f]{{16}}({re.escape(OLD)})?")


@dataclass(frozen=True)
class Claim:
    """A process: its pid, its host's name, the machine that can look whether it lives (boot and pid namespace), when it
    started (pids are used again, a pid with its start is not), and a number of its own."""

    token: str
    pid: int
    host: str
    machine: str
    started: str


def mine() -> Claim:
    """The claim of the calling process."""
    return _of_process(os.getpid())


@lru_cache(maxsize=1)
def _of_process(pid: int) -> Claim:
    return Claim(secrets.token_hex(8), pid, socket.gethostname(), _machine(), started(pid) or "")


def _machine() -> str:
    """What tells machines apart, also those of one name, and containers that do not see each other's processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def started(pid: int) -> str | None:
    """Clock tick at which a process of this machine started; "" where the system does not tell, None: it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _started_without_proc(pid)
    return None if fields[0] in "ZX" else fields[19]


def _started_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def claim_of(folder: Path) -> Path:
    """The claim file of a run's folder."""
    return folder.with_name(f".{folder.name}.claim")


def attempt(folder: Path, claim: Claim | None = None) -> Path:
    """Where the owner of a claim, by default the calling process, works on a run."""
    return folder.with_name(f".{folder.name}.{(claim or mine()).token}")


def attempts(folder: Path) -> list[Path]:
    """The attempts at a run that were left: those with a checkpoint, then those written to last, first."""
    start = f".{folder.name}."
    found = [path for path in folder.parent.glob(f"{start}*") if LEFT.fullmatch(path.name.removeprefix(start))]
    return sorted(found, key=_worth, reverse=True)


def _worth(path: Path) -> tuple[bool, float]:
    with contextlib.suppress(OSError):
        return any(path.glob(CHECKPOINTS)), path.stat().st_mtime
    return False, 0.0


def acquire(folder: Path) -> bool:
    """Claim a run for this process and take over what the last attempt at it left. False where another living process
    has it. Raises OSError where the file system takes no claim."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = claim_of(folder)
    with locked(folder.parent):  # spares rivals the detour of ``_put_aside``; where there are no locks, that decides
        found = owner(folder)
        if _alive(path):
            if found != mine():
                return False
        elif not (_put_aside(path, found) and _create(path)):
            return False
    _inherit(folder)
    return True


def _put_aside(path: Path, dead: Claim | None) -> bool:
    """Remove a dead claim. False where it was another one: that of a faster rival, who gets it back."""
    aside = path.with_name(f"{path.name}.{mine().token}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    found = _read(aside)
    if found != dead:
        with contextlib.suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)
    return found == dead


def _create(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(handle, json.dumps(asdict(mine())).encode())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    return True


def _inherit(folder: Path) -> None:
    """Go on in the best of the attempts that were left: its checkpoints and its log, nothing half done. The others go,
    and claims that were put aside by who was killed then."""
    own = attempt(folder)
    for path in _aside(folder):
        if _read(path) != mine():  # else a rival is about to give it back
            path.unlink(missing_ok=True)
    for path in attempts(folder):
        if path == own:
            continue
        if path.name.endswith(OLD) or not _moved(path, own):
            shutil.rmtree(path, ignore_errors=True)
    own.mkdir(exist_ok=True)
    for path in own.iterdir():
        if not any(path.match(pattern) for pattern in KEPT):
            path.unlink()


def _aside(folder: Path) -> list[Path]:
    return list(folder.parent.glob(f"{claim_of(folder).name}.*"))


def _moved(path: Path, own: Path) -> bool:
    """Rename a folder to a name that is free, or that of an empty folder."""
    try:
        path.rename(own)
    except OSError:
        return False
    return True


def release(folder: Path, pid: int | None = None) -> None:
    """Give back a claim of this process, or of a child of this machine that has ended; another's is left alone. Of the
    attempt stays what can be gone on from, of a run that has ended nothing of the kind."""
    if not claim_of(folder).exists():
        return
    with locked(folder.parent):  # who takes over a dead child's claim meanwhile would lose his own
        claim, own = owner(folder), mine()
        if claim is None or (claim != own if pid is None else (claim.pid, claim.machine) != (pid, own.machine)):
            return
        for path in folder.glob(CHECKPOINTS):
            path.unlink(missing_ok=True)
        left = attempt(folder, claim)
        if not any(left.glob(CHECKPOINTS)):
            shutil.rmtree(left, ignore_errors=True)
        _put_aside(claim_of(folder), claim)


def expire(folder: Path, token: str) -> None:
    """Let the claim of a process that is known to be dead, on whatever machine, count no longer. One that lives after
    all shows it at its next heartbeat, or finds its attempt taken over."""
    claim = owner(folder)
    if claim is not None and claim.token == token:
        with contextlib.suppress(OSError):
            os.utime(claim_of(folder), (0, 0))


def held(folder: Path) -> bool:
    """Whether a living process works on a run."""
    return _alive(claim_of(folder))


def owner(folder: Path) -> Claim | None:
    """The claim of a run, alive or dead, or None."""
    return _read(claim_of(folder))


def tidy(folder: Path) -> None:
    """Remove what a killed process left beside a run that is done."""
    left = claim_of(folder).exists() or attempts(folder) or _aside(folder) or any(folder.glob(CHECKPOINTS))
    if left and acquire(folder):
        shutil.rmtree(attempt(folder), ignore_errors=True)
        release(folder)


@contextlib.contextmanager
def beating(folders: Sequence[Path]) -> Iterator[threading.Event]:
    """While it lasts, show other machines that this process lives: touch its claims every HEARTBEAT_S. The event is set
    when one of them is another's: then somebody who took this process for dead does its work."""
    stop, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_S):
            for folder in folders:
                if owner(folder) not in (mine(), None):
                    lost.set()
                    return
                with contextlib.suppress(OSError):
                    os.utime(claim_of(folder))

    thread = threading.Thread(target=beat, name="claim", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        stop.set()
        thread.join()


def _read(path: Path) -> Claim | None:
    try:
        found = Claim(**parsed(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    texts = (found.token, found.host, found.machine, found.started)
    return found if type(found.pid) is int and all(type(text) is str for text in texts) else None


def _alive(path: Path) -> bool:
    try:
        with path.open() as file:  # opening makes NFS ask for what others have changed
            changed = os.fstat(file.fileno()).st_mtime
    except OSError:
        return False
    claim = _read(path)
    if claim is not None and claim.machine == mine().machine:
        return started(claim.pid) == claim.started
    age = now(path.parent) - changed
    if age < -HEARTBEAT_S:  # the clock was set back: it starts anew, lest a dead one count until the clock is there
        with contextlib.suppress(OSError):
            os.utime(path)
    # None: being written this moment, or its writer was killed in between
    return age < (WRITING_S if claim is None else EXPIRED_S)


def now(folder: Path) -> float:
    """The time by the clock of the file system that holds a folder, which is the clock of the claims' times."""
    path = folder / LOCK
    try:
        path.touch()
        return path.stat().st_mtime
    except OSError:  # not ours to write to
        return time.time()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time gets past here for a folder, as far as its file system has locks."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
