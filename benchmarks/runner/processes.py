"""How worker processes come to be: forked from one server per sweep on Linux, started one by one elsewhere.

A starter is given the standard files of a worker. It returns a function that waits for the worker's end and says how it
was: the exit code, a signal as its negative, None where the server of the workers died and took it along.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from benchmarks.errors import InputError
from benchmarks.runner.server import PACKET, UP

ROOT = Path(__file__).resolve().parents[2]
LAST_WORDS = 2000
SERVERS = 5
REMEDY = "check the installation (`clcr list` needs less of it)"

# Measured: two processes of one thread beat one process of two, and spinning OpenMP threads slow each other down. glibc
# gives every large tensor back to the kernel and asks for it again at the next step, which costs up to half the time.
WORKER_ENVIRONMENT: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}

Code = Callable[[], int | None]


class Starter(Protocol):
    """What starts the workers of a sweep."""

    def begin(self) -> None:
        """Start with what takes time and needs no worker yet; returns at once."""

    def start(self, stdin: int, stdout: int, stderr: int) -> Code:
        """A new worker with these open files, which stay the caller's to close."""

    def end(self) -> None:
        """Kill every worker that still lives, and what they came from. Twice does no harm."""


def starter(engine: str) -> Starter:
    """What this platform has. Elsewhere than on Linux no process can be told to end with its parent, and system
    libraries do not survive a fork."""
    return Forks(engine) if sys.platform == "linux" else Spawns()


def worker_environment() -> dict[str, str]:
    """This process's environment with one thread per worker and reproducible matrix products on a GPU."""
    return {**os.environ, **WORKER_ENVIRONMENT}


def environment() -> dict[str, str]:
    """Set before a worker, or its server, loads torch: one thread, no spinning; this checkout's packages first."""
    found = worker_environment()
    paths = [str(ROOT), *filter(None, [found.get("PYTHONPATH")])]
    return {**found, "PYTHONPATH": os.pathsep.join(paths)}


def last_words(who: str, code: int, errors: IO[bytes]) -> str:
    """How a process ended and the last line of what it said, in one line."""
    errors.seek(0)
    lines = errors.read()[-LAST_WORDS:].decode(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"{who} {how}" + (f": {said}" if said else "")


class Spawns:
    """A new interpreter for each worker."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        """See Starter. A new interpreter has nothing to wait for."""

    def start(self, stdin: int, stdout: int, stderr: int) -> Code:
        """See Starter."""
        command = [sys.executable, "-m", "benchmarks.runner.worker", str(os.getpid())]
        process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment(), start_new_session=True
        )
        self._processes.append(process)
        return process.wait

    def end(self) -> None:
        """See Starter."""
        for process in self._processes:
            process.kill()
            process.wait()


class Forks:
    """Workers forked from a server. One that was killed is replaced, SERVERS times at most: InputError then, and where
    a server does not come up."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._servers: list[_Server] = []

    def begin(self) -> None:
        """See Starter."""
        if not self._servers or self._servers[-1].dead:
            self._serve()

    def start(self, stdin: int, stdout: int, stderr: int) -> Code:
        """See Starter."""
        while True:
            self.begin()
            number = self._servers[-1].fork(stdin, stdout, stderr)
            if number is not None:
                return partial(self._servers[-1].code, number)

    def end(self) -> None:
        """See Starter."""
        for server in self._servers:
            server.end()

    def _serve(self) -> None:
        if len(self._servers) > SERVERS:
            words = f"{self._servers[-1].last_words()}, the last of {len(self._servers)}"
            raise InputError(f"{words}; see what kills it and give the same command: it goes on")
        self._servers.append(_Server(self._engine))


class _Server:
    """The parent's end of a server process."""

    def __init__(self, engine: str) -> None:
        self.dead = False
        self._up = False
        self._count = 0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the server)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            handle = theirs.fileno()
            command = [sys.executable, "-m", "benchmarks.runner.server", str(handle), engine, str(os.getpid())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env=environment(),
                pass_fds=(handle,),
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its workers
            )

    def fork(self, *files: int) -> int | None:
        """The number of a new worker; None where the server has died."""
        try:
            socket.send_fds(self._control, [b"fork"], files)
        except OSError:
            self._bury()
            return None
        self._count += 1
        return self._count - 1

    def code(self, number: int) -> int | None:
        """See Code; waits. InputError where the server never came up."""
        try:
            self._control.send(str(number).encode())
        except OSError:
            self._bury()
            return None
        answer = self._answer()
        if not answer:
            self._bury()
        return int(answer) if answer else None

    def _answer(self) -> bytes:
        """Its next answer; nothing where it has died."""
        while True:
            try:
                packet = self._control.recv(PACKET)
            except ConnectionResetError:  # it died with a question unread; what it said before comes after
                continue
            self._up = self._up or packet == UP
            if packet != UP:
                return packet

    def _bury(self) -> None:
        self.dead = True
        while not self._up and self._answer():
            pass
        if not self._up:
            raise InputError(f"a worker cannot start: {self.last_words()}; {REMEDY}")

    def last_words(self) -> str:
        """How it died."""
        return last_words("the server of the workers", self._process.wait(), self._errors)

    def end(self) -> None:
        """Kill it, and with it every worker of its."""
        self._process.kill()
        self._process.wait()
        self._control.close()
        self._errors.close()
