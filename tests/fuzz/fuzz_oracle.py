"""What hostile input may do: nothing but be read, or be refused by an InputError in one short line that names the file.

No other exception, no second of thought too many, no memory out of proportion, nothing executed, no connection, nothing
written or read outside the folder that the input lies in.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.errors import InputError, one_line

ROOT = Path(__file__).resolve().parents[2]
CPU_LIMIT_S = 5.0
MEMORY_LIMIT = 256 << 20  # bytes that one input, itself of a few kilobytes, may add to the size of the process
LONGEST_LINE = 4096
EXECUTING = frozenset(
    (
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.forkpty",
        "pty.spawn",
        "subprocess.Popen",
        "socket.connect",
        "socket.bind",
        "socket.getaddrinfo",
        "ctypes.dlopen",
        "webbrowser.open",
        "urllib.Request",
    )
)
CHANGING = frozenset(
    (
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "os.chown",
        "os.utime",
        "shutil.rmtree",
        "shutil.move",
        "shutil.copyfile",
    )
)
READABLE = tuple(
    {
        str(ROOT),
        sys.prefix,
        sys.base_prefix,
        "/proc",
        "/sys",
        "/dev",
        "/etc/localtime",
        "/usr/share/zoneinfo",
        *sysconfig.get_paths().values(),
        *filter(None, (os.path.dirname(os.__file__),)),
    }
)


class Slow(BaseException):
    """An input took more than CPU_LIMIT_S of processor time."""


@dataclass(frozen=True)
class Target:
    """One reader or writer. run: feeds an input, as bytes, to it, in an empty folder. seeds: inputs to start from.
    named: whether a refusal must name a file of the folder."""

    name: str
    run: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]
    named: bool = True


@dataclass
class Fault:
    """What was wrong with how an input was taken. site: kind and place, the same for inputs of one cause."""

    site: str
    told: str


@dataclass
class Guard:
    """Watches the events of the interpreter while an input is read."""

    folder: Path
    armed: bool = False
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """The hook. What is forbidden is noted, as the reader may swallow the exception, and refused."""
        if not self.armed:
            return
        told = ""
        if event in EXECUTING:
            told = event
        elif event == "exec":
            name = getattr(args[0], "co_filename", "")
            told = f"exec of {name}" if name.startswith("<") and not name.startswith("<frozen") else ""
        elif event == "open":
            told = self._opened(*args)
        elif event in CHANGING:
            told = "".join(f"{event} {part}" for part in args if isinstance(part, str) and self._is_outside(part, args))
        if told:
            self.seen.append(told)
            raise PermissionError(f"refused by the guard: {told}")

    def _opened(self, path: object, mode: object, flags: object) -> str:
        if not isinstance(path, str | bytes | os.PathLike):
            return ""
        writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        place = os.path.abspath(os.fsdecode(path))
        if place == os.devnull or f"{place}/".startswith(f"{self.folder}/"):
            return ""
        return f"open {mode} {place}" if writes or not place.startswith((*READABLE, *filter(None, sys.path))) else ""

    def _is_outside(self, part: str, args: tuple[Any, ...]) -> bool:
        if not os.path.isabs(part) and isinstance(args[-1], int) and args[-1] > 2:
            return False  # relative to an open folder, as when a tree is removed
        return not f"{os.path.abspath(part)}/".startswith(f"{self.folder}/")


GUARDS: list[Guard] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    for guard in GUARDS:
        guard(event, args)


_HOOKED: list[bool] = []


@contextmanager
def guarded(folder: Path) -> Iterator[Guard]:
    """A guard of a folder; temporary files of others go there as well."""
    if not _HOOKED:
        sys.addaudithook(_hook)  # stays as long as the process
        _HOOKED.append(True)
    guard, before = Guard(folder.resolve()), tempfile.tempdir
    (guard.folder / "tmp").mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(guard.folder / "tmp")
    GUARDS.append(guard)
    try:
        yield guard
    finally:
        GUARDS.remove(guard)
        tempfile.tempdir = before


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> NoReturn:
        raise Slow

    try:
        before = signal.signal(signal.SIGPROF, stop)
    except ValueError:  # not in the main thread
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(target: Target, data: bytes, guard: Guard) -> tuple[bool, Fault | None]:
    """Feed one input: whether it was accepted, and what was wrong with how it was taken."""
    work = guard.folder / "input"
    work.mkdir()
    size = _peak_from_here()
    accepted, fault = False, None
    guard.seen.clear()
    guard.armed = True
    try:
        with _limited():
            target.run(data, work)
        accepted = True
    except InputError as error:
        guard.armed = False
        fault = _refusal(str(error), work, target)
    except (Exception, Slow, SystemExit, KeyboardInterrupt) as error:
        guard.armed = False
        fault = Fault(f"{type(error).__name__} at {_place(error)}", one_line(str(error))[:300])
    finally:
        guard.armed = False
        _empty(work)
    if guard.seen:
        fault = Fault(f"forbidden: {guard.seen[0]}", "; ".join(guard.seen))
    elif fault is None and _peak() - size > MEMORY_LIMIT:
        fault = Fault("memory", f"{(_peak() - size) >> 20} MiB more")
    strangers = sorted(path.name for path in guard.folder.iterdir() if path.name != "tmp")
    return accepted, fault or (Fault("written outside", ", ".join(strangers)) if strangers else None)


def _refusal(text: str, work: Path, target: Target) -> Fault | None:
    line = one_line(text)
    if target.named and str(work) not in line and work.name not in line:
        return Fault("refusal names no file", line[:300])
    if len(line) > LONGEST_LINE or not line.isprintable():
        return Fault("refusal is not one short line", line[:300])
    return None


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(str(ROOT)) and "/tests/fuzz/" not in f.filename] or frames[-1:]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else "?"


def _peak() -> int:
    """Bytes: the most this process has held since the peak was last brought down to its size of that moment."""
    held = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if "VmHWM" in line)
    return int(held.split()[1]) << 10


def _peak_from_here() -> int:
    """Forget what was held before, which may be far above today's size; 5 is the kernel's word for that."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _empty(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    if work.exists():
        for place, _, _ in os.walk(work):
            os.chmod(place, 0o700)
        shutil.rmtree(work)


@dataclass
class Log:
    """What was tried of one target."""

    inputs: int = 0
    accepted: int = 0
    faults: dict[str, tuple[Fault, bytes]] = field(default_factory=dict)

    def add(self, target: Target, data: bytes, guard: Guard) -> Fault | None:
        """Feed one input and count it; the first input of each fault is kept, a shorter one replaces it."""
        accepted, fault = attempt(target, data, guard)
        self.inputs += 1
        self.accepted += accepted
        if fault is not None and (fault.site not in self.faults or len(data) < len(self.faults[fault.site][1])):
            self.faults[fault.site] = fault, data
        return fault


def label_of(data: bytes) -> str:
    """A short name of an input."""
    return hashlib.sha256(data).hexdigest()[:12]
