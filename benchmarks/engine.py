"""From a list of clips to prepared arrays: many processes, resumable clip by clip, the same bytes in any order.

A worker writes a clip's rows to their place in ``.partial-<benchmark>/<array>.npy``, then the parent a line with their
checksums to its journal: whatever kills it, the next one checks the rows that the journal names and does the others.
A clip that cannot be used is listed with its reason; above a stated share of losses nothing is published.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import InputError
from benchmarks.lists import Table
from benchmarks.media import MediaFault
from benchmarks.media.files import Loss, fault
from benchmarks.pool import Lost, Pool
from benchmarks.prepared import Writer

JOURNAL, LOCK, PLAN = "journal.jsonl", "lock", "plan.json"
CLIP_TIMEOUT_S = 120.0
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
    """How to prepare: processes (0: this one), preset and share of losses (None: as the benchmark says).
    clip_timeout: seconds after which a clip is given up; they hold in processes that can be ended, not in this one."""

    workers: int = 0
    preset: str | None = None
    max_loss: float | None = None
    tell: Callable[[str], None] = lambda _: None
    clip_timeout: float = CLIP_TIMEOUT_S


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


class Rows:
    """The array files of a preparation under way, row by row. Pickled for a new process it takes its open files along:
    a worker that outlives its parent cannot write to the files of the next preparation."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, int, int]] = {}  # name -> handle, where rows begin, bytes of a row

    def open(self, path: Path, name: str, array: ArrayPlan, rows: int) -> None:
        """Open an array's file; a new one has its full size at once."""
        self._files[name] = _array_file(path, array, rows)

    def write(self, row: int, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Write a clip's arrays to their places; returns their checksums."""
        checksums = {}
        for name, array in arrays.items():
            handle, start, size = self._files[name]
            body = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            _write_all(handle, body, start + row * size)
            checksums[name] = zlib.crc32(body)
        return checksums

    def read(self, name: str, row: int) -> bytes:
        """The bytes of a row."""
        handle, start, size = self._files[name]
        return os.pread(handle, size, start + row * size)

    def close(self) -> None:
        """Let go of the files."""
        for handle, _, _ in self._files.values():
            os.close(handle)
        self._files = {}

    def __getstate__(self) -> dict[str, tuple[Any, int, int]]:
        return {name: (DupFd(handle), start, size) for name, (handle, start, size) in self._files.items()}

    def __setstate__(self, state: dict[str, tuple[Any, int, int]]) -> None:
        self._files = {name: (copy.detach(), start, size) for name, (copy, start, size) in state.items()}


class Area:
    """The folder of a preparation under way, held by one process at a time. results: what the journal has, by row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = Rows()
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
            self.rows.open(self.folder / f"{name}.npy", name, array, len(rows))
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
            if all(zlib.crc32(self.rows.read(name, row)) == value for name, value in result["crc"].items()):
                yield row, result

    def put(self, result: dict[str, Any]) -> None:
        """Note what became of a clip: ``row``, ``crc`` of the rows that are written, and what _attempt says."""
        line = b"\n" + json.dumps(result).encode() + b"\n"
        if os.write(self._journal, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.results[result["row"]] = result

    def file(self, name: str, array: ArrayPlan, rows: Sequence[int], total: int) -> Path:
        """The array's file with these rows alone; the very file where no row was lost."""
        path = self.folder / f"{name}.npy"
        if len(rows) == total:
            return path
        compact = self.folder / f"{name}.kept.npy"
        compact.unlink(missing_ok=True)
        with compact.open("wb") as file:
            _header(file, array, len(rows))
            for row in rows:
                file.write(self.rows.read(name, row))
        return compact

    def close(self) -> None:
        """Let go of the files."""
        self.rows.close()
        if self._journal >= 0:
            os.close(self._journal)
        self._journal = -1


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


def _write_all(handle: int, view: memoryview, offset: int) -> None:
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
    todo = [row for row in range(len(rows)) if _is_due(held.results.get(row), options.clip_timeout)]
    _check_space(job, len(todo), held.folder)
    if len(todo) < len(rows):
        options.tell(f"{job.name}: {len(rows) - len(todo)} of {len(rows)} clips are done already")
    progress = _Progress(job.name, len(todo), options.tell)
    for result in _results(job, {row: job.clips[rows[row]] for row in todo}, held.rows, options):
        held.put(result)
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


def _is_due(result: Mapping[str, Any] | None, limit_s: float) -> bool:
    """Whether a clip has no result, or was given up sooner than it would be now."""
    return result is None or result.get("limit_s", math.inf) < limit_s


def _attempt(
    extract: Callable[[Clip], Extracted], arrays: Mapping[str, ArrayPlan], rows: Rows, task: tuple[int, Clip]
) -> dict[str, Any]:
    """One clip, in a worker: writes its rows and says so, or says the reason why not."""
    row, clip = task
    lost: dict[str, Any] = {"row": row, "crc": {}}
    try:
        values, remark = extract(clip)
    except MediaFault as error:
        return {**lost, "reason": error.reason, "detail": error.detail}
    except (OSError, MemoryError) as error:
        return {**lost, "reason": "damaged", "detail": f"{type(error).__name__}: {getattr(error, 'strerror', '')}"}
    for name, array in arrays.items():
        if values[name].shape != array.shape or values[name].dtype != np.dtype(array.dtype):
            raise AssertionError(f"{name}: {values[name].dtype} {values[name].shape}, planned {array}")
    return {"row": row, "crc": rows.write(row, values), "remark": remark}


def _results(job: Job, todo: Mapping[int, Clip], rows: Rows, options: Options) -> Iterator[dict[str, Any]]:
    work = partial(_attempt, job.extract, job.arrays, rows)
    tasks = {row: (row, clip) for row, clip in todo.items()}
    if options.workers == 0:
        yield from map(work, tasks.values())
        return
    for row, result in Pool(work, options.workers, options.clip_timeout).run(tasks):
        if not isinstance(result, Lost):
            yield result
        elif result.slow:
            limit_s = options.clip_timeout
            slow = {"reason": "too_slow", "detail": f"no result after {limit_s:g} s", "limit_s": limit_s}
            yield {"row": row, "crc": {}, **slow}
        else:
            yield {"row": row, "crc": {}, "reason": "damaged", "detail": "the decoder crashed"}
