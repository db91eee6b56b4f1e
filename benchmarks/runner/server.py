"""The server that workers are forked from: it loads torch and the engine once a sweep, so that each worker after it
starts in milliseconds.

Started by benchmarks.runner.processes as ``python -m benchmarks.runner.server SOCKET ENGINE PARENT_PID`` with the
workers' environment, which glibc and OpenMP read at the start of a process alone. It says UP; then a packet with three
open files (stdin, stdout, stderr) makes a worker with them, and a packet with the number of a worker, from 0, that has
ended or is ending is answered with how: as subprocess does, the signal negative. It starts no thread, computes nothing
and never touches a GPU, all of which a fork would not survive. Linux alone: it ends with its parent, its workers with
it, even where it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import mmap
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.runner import worker

UP = b"up"
PACKET = 64
MADV_POPULATE_READ = 22  # Linux 5.14; refused before, where the memory of a run is then told some 50 MB too low
IN_MEMORY, OF_A_FILE = 1 << 63, 1 << 61  # bits of /proc/self/pagemap

Span = tuple[int, int]  # address, bytes


def main(control: socket.socket, engine: str, parent: int) -> None:
    """Fork workers until the parent closes the socket or ends."""
    worker.die_with(parent)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # meant for workers, where all of a group get them
        signal.signal(number, signal.SIG_IGN)
    importlib.import_module(engine).warm_up()
    gc.collect()
    gc.freeze()  # no collection of a worker touches, and so copies, what it shares with its server
    pages = _file_pages()
    control.send(UP)
    workers: list[int | None] = []
    while True:
        packet, files, _, _ = socket.recv_fds(control, PACKET, 3)
        if not packet:
            return
        if files:
            workers.append(_fork(files, control, pages))
            for file in files:
                os.close(file)
        else:
            control.send(str(_code(workers[int(packet)])).encode())


def _fork(files: Sequence[int], control: socket.socket, pages: Sequence[Span]) -> int | None:
    """The process of a new worker; None where the system gives none, which its stderr then says."""
    here = os.getpid()
    sys.stdout.flush()
    try:
        pid = os.fork()
    except OSError as error:
        os.write(files[2], f"{type(error).__name__}: {error}\n".encode())
        return None
    if pid == 0:
        _become_worker(files, control, pages, here)
    return pid


def _become_worker(files: Sequence[int], control: socket.socket, pages: Sequence[Span], server: int) -> None:
    """The whole life of a worker; does not return."""
    code = 1
    try:
        control.close()
        _map(pages)
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        worker.run(server)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _file_pages() -> list[Span]:
    """The pages of files, code of libraries above all, that this process has in memory."""
    found: list[Span] = []
    with contextlib.suppress(OSError), open("/proc/self/pagemap", "rb", buffering=0) as table:
        for line in Path("/proc/self/maps").read_text().splitlines():
            first, end = (int(address, 16) // mmap.PAGESIZE for address in line.split()[0].split("-"))
            if "/" in line:
                pages = np.frombuffer(os.pread(table.fileno(), 8 * (end - first), 8 * first), dtype=np.uint64)
                wanted = np.uint64(IN_MEMORY | OF_A_FILE)
                edges = np.flatnonzero(np.diff((pages & wanted) == wanted, prepend=False, append=False))
                spans = (first + edges.reshape(-1, 2)) * mmap.PAGESIZE
                found += [(int(start), int(stop - start)) for start, stop in spans]
    return found


def _map(pages: Sequence[Span]) -> None:
    """Have these pages from the beginning. A fork leaves them out until they are touched: the memory of a run would not
    compare with that of one in a process of its own."""
    libc = ctypes.CDLL(None)
    for start, length in pages:
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_POPULATE_READ)


def _code(pid: int | None) -> int:
    return 1 if pid is None else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
