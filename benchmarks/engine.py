"""From a list of clips to prepared arrays: many processes, resumable clip by clip, the same bytes in any order.

The parent alone writes. Rows go to their place in ``.partial-<benchmark>/<array>.npy``, then a line to its journal with
the row's checksum: whatever kills the process, the next one checks the rows that the journal names and does the others.
A clip that cannot be used is listed with its reason; above a stated share of losses nothing is published.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import InputError
from benchmarks.lists import Table
from benchmarks.media import MediaFault
from benchmarks.media.files import Loss, fault
from benchmarks.prepared import Writer

JOURNAL, LOCK, PLAN = "journal.jsonl", "lock", "plan.json"
WINDOW = 4  # clips handed out per worker: enough to keep it busy, little to lose
TELL_EVERY_S = 10.0


@dataclass(frozen=True)
class Clip:
    """A sample: its media files by part (a part that is not there is missing), and the seconds that count."""

    id: str
    files: Mapping[str, Path]
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class ArrayPlan:
    """An array to write: shape per row, dtype, and what stored integers stand for."""

    shape: tuple[int, ...]
    dtype: str
    meta: Mapping[str, float] = field(default_factory=dict)


Extracted = tuple[dict[str, np.ndarray], str]  # arrays of a clip, and a remark ("" as a rule) that the manifest lists


@dataclass(frozen=True)
class Job:
    """All that is to be prepared. table: the official list, a row per clip. extract: picklable, raises MediaFault.

    parameters: go to the manifest as they are. official: count per protocol and part. losses: clips that the search for
    files gave up, by id. problems: what else it found (no samples). max_loss: share of clips that may be lost.
    """

    name: str
    clips: Sequence[Clip]
    parts: tuple[str, ...]
    arrays: Mapping[str, ArrayPlan]
    extract: Callable[[Clip], Extracted]
    table: Table
    parameters: Mapping[str, Any]
    official: Mapping[str, Mapping[str, int]]
    losses: Mapping[str, Loss] = field(default_factory=dict)
    problems: Sequence[Loss] = ()
    classes: Sequence[str] = ()
    max_loss: float = 0.01

    @property
    def row_bytes(self) -> int:
        """Bytes that a clip takes in the prepared folder."""
        return sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in self.arrays.values())


@dataclass(frozen=True)
class Options:
    """How to prepare: processes (0: this one), preset and share of losses (None: as the benchmark says)."""

    workers: int = 0
    preset: str | None = None
    max_loss: float | None = None
    tell: Callable[[str], None] = lambda _: None


def survey(job: Job) -> tuple[list[int], list[Loss]]:
    """Clips whose files are there, by index, and the losses that can be seen without decoding."""
    found, losses = [], []
    for index, clip in enumerate(job.clips):
        loss = job.losses.get(clip.id) or _outside(clip, job.parts)
        found += [] if loss else [index]
        losses += [loss] if loss else []
    return found, losses


def _outside(clip: Clip, parts: Sequence[str]) -> Loss | None:
    absent = [part for part in parts if part not in clip.files]
    if absent:
        return Loss(clip.id, "missing", " and ".join(absent))
    for part in parts:
        wrong = fault(clip.files[part]) if clip.files[part].suffix else None
        if wrong:
            return Loss(clip.id, wrong[0], f"{part}: {wrong[1]}")
    return None


def check_losses(job: Job, losses: Sequence[Loss], limit: float | None, folder: Path) -> None:
    """InputError above the allowed share of losses; the whole list goes to a file beside the prepared folder."""
    allowed = job.max_loss if limit is None else limit
    if len(losses) <= allowed * len(job.clips) and len(losses) < len(job.clips):
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{job.name}.losses.txt"
    lines = "".join(f"{loss.id}\t{loss.reason}\t{loss.detail}\n" for loss in losses)
    path.write_text(lines, encoding="utf-8")
    first = ", ".join(f"{loss.id} ({loss.reason})" for loss in losses[:3])
    told = f"{len(losses)} of {len(job.clips)} clips lost ({by_reason(losses)})"
    if len(losses) == len(job.clips):
        raise InputError(f"{job.name}: {told}: {first} ...; the list is {path}; look where --source points")
    raise InputError(
        f"{job.name}: {told}, at most {allowed:.1%} allowed: {first} ...; the list is {path}; "
        f"complete the source, or allow it with --max-loss {_above(losses, job)}"
    )


def _above(losses: Sequence[Loss], job: Job) -> float:
    return float(np.ceil(1000 * len(losses) / max(len(job.clips), 1)) / 1000)


def by_reason(losses: Sequence[Loss]) -> str:
    """ "missing 12, damaged 1" """
    return ", ".join(f"{reason} {count}" for reason, count in Counter(loss.reason for loss in losses).most_common())


def counts(job: Job, kept: Sequence[int]) -> dict[str, dict[str, list[int]]]:
    """Per protocol and part: [found, official]. A key such as "train+valid" counts both."""
    table = job.table.take(np.asarray(kept, dtype=np.int64))
    result: dict[str, dict[str, list[int]]] = {}
    for protocol, parts in job.official.items():
        where = table.columns.get(f"split.{protocol}")
        found = {p: len(table) if where is None else int(np.isin(where, p.split("+")).sum()) for p in parts}
        result[protocol] = {part: [found[part], official] for part, official in parts.items()}
    return result


def lost_by_class(job: Job, kept: Sequence[int]) -> dict[str, list[int]]:
    """Per class that lost clips: [lost, listed]."""
    gone = np.ones(len(job.table), dtype=bool)
    gone[np.asarray(kept, dtype=np.int64)] = False
    shares = {int(k): [int(gone[job.table.label == k].sum()), int((job.table.label == k).sum())]
              for k in np.unique(job.table.label)}  # fmt: skip
    return {job.classes[k] if k < len(job.classes) else str(k): share for k, share in shares.items() if share[0]}


class Area:
    """The folder of a preparation under way, held by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, tuple[int, int, int]] = {}  # name -> handle, where rows begin, bytes of a row
        self._journal = -1
        self.results: dict[int, dict[str, Any]] = {}

    def open(self, job: Job, rows: Sequence[int]) -> None:
        """Go on with what is there if it belongs to this very job, else begin anew."""
        mark = _mark(job, rows)
        plan = self.folder / PLAN
        if not plan.is_file() or plan.read_text(encoding="utf-8") != mark:
            self._clear()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._journal = os.open(self.folder / JOURNAL, flags, 0o644)
        for name, array in job.arrays.items():
            self._files[name] = _array_file(self.folder / f"{name}.npy", array, len(rows))
        if not plan.is_file():
            plan.write_text(mark, encoding="utf-8")
        self.results = dict(self._intact())

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != LOCK:
                path.unlink()

    def _intact(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """What the journal says, line by line, where it is whole and the row has the checksum that it had."""
        for line in (self.folder / JOURNAL).read_bytes().split(b"\n"):
            try:
                result = json.loads(line)
                row = int(result["row"])
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a killed process
            if all(self._checksum(name, row) == value for name, value in result["crc"].items()):
                yield row, result

    def _checksum(self, name: str, row: int) -> int:
        handle, start, size = self._files[name]
        return zlib.crc32(os.pread(handle, size, start + row * size))

    def put(self, row: int, result: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write a clip's rows, then the line that says so."""
        checksums = {}
        for name, array in arrays.items():
            handle, start, size = self._files[name]
            body = np.ascontiguousarray(array).tobytes()
            _write_all(handle, body, start + row * size)
            checksums[name] = zlib.crc32(body)
        result = {"row": row, "crc": checksums, **result}
        line = b"\n" + json.dumps(result).encode() + b"\n"
        if os.write(self._journal, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.results[row] = result

    def file(self, name: str, array: ArrayPlan, rows: Sequence[int], total: int) -> Path:
        """The array's file with these rows alone; the very file where no row was lost."""
        path = self.folder / f"{name}.npy"
        if len(rows) == total:
            return path
        compact = self.folder / f"{name}.kept.npy"
        compact.unlink(missing_ok=True)
        handle, start, size = self._files[name]
        with compact.open("wb") as file:
            _header(file, array, len(rows))
            for row in rows:
                file.write(os.pread(handle, size, start + row * size))
        return compact

    def close(self) -> None:
        """Let go of the files."""
        for handle, _, _ in self._files.values():
            os.close(handle)
        if self._journal >= 0:
            os.close(self._journal)
        self._files, self._journal = {}, -1


@contextmanager
def area(folder: Path) -> Iterator[Area]:
    """The preparation's own folder; InputError where another process holds it. Removed when all went well, kept for the
    next attempt when not."""
    handle = _lock(folder)
    held = Area(folder)
    try:
        yield held
        shutil.rmtree(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{folder}: no space left on the disk; free some and run the same command: it goes on"
        ) from None
    finally:
        held.close()
        os.close(handle)


def _lock(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == os.stat(folder / LOCK).st_ino:
                return handle
        except FileNotFoundError:
            pass  # the holder before us has just finished and removed it
        except BlockingIOError:
            os.close(handle)
            raise InputError(f"{folder}: another `clcr prepare` is at work there; wait for it or stop it") from None
        os.close(handle)


def _mark(job: Job, rows: Sequence[int]) -> str:
    files = [[job.clips[row].id, job.clips[row].span, _stamps(job.clips[row])] for row in rows]
    arrays = {name: asdict(array) for name, array in job.arrays.items()}
    text = json.dumps([job.name, arrays, dict(job.parameters), files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest() + "\n"


def _stamps(clip: Clip) -> list[list[object]]:
    return [
        [part, str(path), path.stat().st_size, path.stat().st_mtime_ns] for part, path in sorted(clip.files.items())
    ]


def _header(file: Any, array: ArrayPlan, rows: int) -> None:
    described = {"descr": np.dtype(array.dtype).str, "fortran_order": False, "shape": (rows, *array.shape)}
    np.lib.format.write_array_header_1_0(file, described)


def _array_file(path: Path, array: ArrayPlan, rows: int) -> tuple[int, int, int]:
    size = int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize
    if not path.is_file():
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as file:
            _header(file, array, rows)
            file.truncate(file.tell() + rows * size)
        temporary.rename(path)
    return os.open(path, os.O_RDWR), path.stat().st_size - rows * size, size


def _write_all(handle: int, body: bytes, offset: int) -> None:
    view = memoryview(body)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def run(job: Job, writer: Writer, held: Area, options: Options) -> list[int]:
    """Extract every clip that is there and hand the arrays to the writer; returns the clips that were kept.

    InputError above the allowed share of losses, before decoding where that can be seen."""
    beside = writer.folder.parent
    rows, losses = survey(job)
    check_losses(job, losses, options.max_loss, beside)
    held.open(job, rows)
    todo = [row for row in range(len(rows)) if row not in held.results]
    _check_space(job, len(todo), held.folder)
    if len(todo) < len(rows):
        options.tell(f"{job.name}: {len(rows) - len(todo)} of {len(rows)} clips are done already")
    progress = _Progress(job.name, len(todo), options.tell)
    for row, arrays, result in _results(job, [(row, rows[row]) for row in todo], options.workers):
        held.put(row, result, arrays)
        progress.step()
    kept_rows = [row for row in range(len(rows)) if "reason" not in held.results[row]]
    decoded = {row: held.results[row] for row in range(len(rows)) if "reason" in held.results[row]}
    losses += [Loss(job.clips[rows[row]].id, r["reason"], r["detail"]) for row, r in decoded.items()]
    losses.sort(key=lambda loss: loss.id)
    check_losses(job, losses, options.max_loss, beside)
    for name, array in job.arrays.items():
        writer.adopt(name, held.file(name, array, kept_rows, len(rows)), array.meta)
    kept = [rows[row] for row in kept_rows]
    remarks = {job.clips[rows[row]].id: held.results[row]["remark"] for row in kept_rows if held.results[row]["remark"]}
    _describe(job, writer, kept, losses, remarks)
    return kept


def alone(job: Job, writer: Writer) -> None:
    """Do a job in this process, with the defaults; the folder under way lies beside the writer's."""
    with area(partial_folder(writer.folder)) as held:
        run(job, writer, held, Options())


def partial_folder(folder: Path) -> Path:
    """Where the preparation of a prepared folder is under way."""
    return folder.with_name(f".partial-{folder.name}")


def _describe(
    job: Job, writer: Writer, kept: Sequence[int], losses: Sequence[Loss], remarks: Mapping[str, str]
) -> None:
    table = job.table.take(np.asarray(kept, dtype=np.int64))
    writer.samples(table.samples())
    said = {
        **job.parameters,
        "counts": counts(job, kept),
        "lists": {name: table.digest(name) for name in table.columns if name.startswith(("split.", "fold."))},
        "dropped": [asdict(loss) for loss in losses],
        "lost_by_class": lost_by_class(job, kept),
        "remarks": dict(sorted(remarks.items())),
        "problems": [asdict(loss) for loss in job.problems],
    }
    for name, value in said.items():
        writer.parameter(name, value)


def _check_space(job: Job, clips: int, folder: Path) -> None:
    needed, free = clips * job.row_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free; set CLCR_CACHE to a larger disk"
        )


class _Progress:
    def __init__(self, name: str, total: int, tell: Callable[[str], None]) -> None:
        self._name, self._total, self._tell = name, total, tell
        self._done, self._began = 0, time.monotonic()
        self._told = self._began

    def step(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._told >= TELL_EVERY_S or self._done == self._total:
            rate = self._done / max(now - self._began, 1e-9)
            left = (self._total - self._done) / rate
            self._tell(
                f"{self._name}: {self._done} of {self._total} clips, {rate:.1f} clips/s, about {left:.0f} s left"
            )
            self._told = now


Outcome = tuple[dict[str, np.ndarray], dict[str, Any]]


def _attempt(extract: Callable[[Clip], Extracted], arrays: Mapping[str, ArrayPlan], clip: Clip) -> Outcome:
    """One clip, in a worker: its arrays, or the reason why not."""
    try:
        values, remark = extract(clip)
    except MediaFault as error:
        return {}, {"reason": error.reason, "detail": error.detail}
    except (OSError, MemoryError) as error:
        return {}, {"reason": "damaged", "detail": f"{type(error).__name__}: {getattr(error, 'strerror', '')}"}
    for name, array in arrays.items():
        if values[name].shape != array.shape or values[name].dtype != np.dtype(array.dtype):
            raise AssertionError(f"{name}: {values[name].dtype} {values[name].shape}, planned {array}")
    return values, {"remark": remark}


def _results(
    job: Job, todo: Sequence[tuple[int, int]], workers: int
) -> Iterator[tuple[int, dict[str, np.ndarray], dict[str, Any]]]:
    if workers == 0:
        for row, index in todo:
            yield row, *_attempt(job.extract, job.arrays, job.clips[index])
        return
    left = list(todo)
    while left:
        left = yield from _pooled(job, left, min(workers, len(left)))
        if not left:
            return
        for row, index in left[: workers * WINDOW]:  # a decoder crashed: each clip under way gets a process of its own
            crashed = yield from _pooled(job, [(row, index)], 1)
            if crashed:
                yield row, {}, {"reason": "damaged", "detail": "the decoder crashed"}
        left = left[workers * WINDOW :]


def _pooled(
    job: Job, todo: Sequence[tuple[int, int]], workers: int
) -> Generator[tuple[int, dict[str, np.ndarray], dict[str, Any]], None, list[tuple[int, int]]]:
    """Yields results as they come; returns, where a worker crashed, the clips that did not come back."""
    queue = deque(todo)
    pending: dict[Future[Outcome], tuple[int, int]] = {}
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(os.getpid(),))
    try:
        while queue or pending:
            while queue and len(pending) < workers * WINDOW:
                row, index = queue.popleft()
                pending[pool.submit(_attempt, job.extract, job.arrays, job.clips[index])] = row, index
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield pending.pop(future)[0], *result
    except BrokenProcessPool:
        return [*pending.values(), *queue]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return []


def _begin(parent: int) -> None:
    """A worker leaves interrupts to its parent and ends with it, even if that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
