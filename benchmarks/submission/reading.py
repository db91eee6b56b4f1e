"""A folder of results from elsewhere, read without trust: sizes bounded, links not followed, no pickles, types checked.

What comes out is plain: records, curves and arrays in memory, and a line for each thing that cannot be read. Nothing is
written, and nothing outside of <folder>/records, /predictions and /curves is opened.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from benchmarks import BENCHMARKS
from benchmarks.curves import Course, Curve, Identity, identity
from benchmarks.errors import InputError, unknown
from benchmarks.record import RunKey, RunRecord, canonical
from benchmarks.submission import fields

PARTS = {"records": ".jsonl", "predictions": ".npz", "curves": ".jsonl"}
MOST_TEXT, MOST_LINE, MOST_LINES = 64 * 2**20, 2**20, 20_000  # bytes, bytes, lines of a file
MOST_BINARY, MOST_MEMBERS = 512 * 2**20, 50_000  # bytes and arrays of a file
KINDS = "fiuU"  # of arrays: numbers and text, never objects


@dataclass(frozen=True)
class Line:
    """One record and where it stands, "file:line", with its curve where it has one."""

    where: str
    record: RunRecord
    curve: Curve | None


@dataclass
class Submission:
    """What a folder holds. arrays: by benchmark. files: each record's file of predictions. faults: a line each."""

    folder: Path
    lines: list[Line] = field(default_factory=list)
    arrays: dict[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def file(self, part: str, benchmark: str) -> str:
        """The path of a benchmark's file, for messages."""
        return str(self.folder / part / f"{benchmark}{PARTS[part]}")


def read(folder: Path) -> Submission:
    """Read a folder that ``clcr report`` made. InputError where there is no such folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one that `clcr run --out` and `clcr report --out` made")
    found = Submission(folder)
    files = {part: dict(_files(folder, part, found.faults)) for part in PARTS}
    if not files["records"] and not found.faults:
        found.faults.append(f"{folder / 'records'}: no records; make them with `clcr report --partial --out {folder}`")
    for benchmark, path in files["predictions"].items():
        with _told(found.faults):
            found.arrays[benchmark] = _arrays(_content(path, MOST_BINARY), path)
    for benchmark, path in files["records"].items():
        beside, before = files["curves"].pop(benchmark, None), len(found.faults)
        curves = dict(_curves(beside, found.faults)) if beside else {}
        found.lines += _records(path, curves, found.faults)
        mine = {identity(line.record) for line in found.lines}
        for whose in sorted(curves.keys() - mine) if len(found.faults) == before else ():
            found.faults.append(f"{beside}: the curve of {whose[0]} belongs to no record; leave it out")
    found.faults += [f"{path}: curves without {path.stem} records; leave them out" for path in files["curves"].values()]
    return found


@contextmanager
def _told(faults: list[str]) -> Iterator[None]:
    """Turns an InputError inside into a line of the list."""
    try:
        yield
    except InputError as error:
        faults.append(str(error))


def _files(folder: Path, part: str, faults: list[str]) -> Iterator[tuple[str, Path]]:
    """(benchmark, path) of each file of a part; links and strangers are faults."""
    place = folder / part
    if place.is_symlink() or not place.is_dir():
        faults.append(f"{place}: no such folder; submit what `clcr report --out {folder}` leaves")
        return
    for path in sorted(place.iterdir()):
        with _told(faults):
            if path.suffix != PARTS[part]:
                raise InputError(f"{path}: not one of a submission's files; take it out of the folder")
            if path.stem not in BENCHMARKS:
                raise unknown("benchmark", path.stem, BENCHMARKS, str(path))
            yield path.stem, path


def _content(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most ``most`` bytes."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); put a plain file there") from None
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: not a plain file; put one there")
        content = file.read(most + 1) if found.st_size <= most else b""
    if found.st_size > most or len(content) > most:
        raise InputError(f"{path}: {found.st_size} bytes, at most {most} are read; submit fewer runs at once")
    return content


def _lines(path: Path, faults: list[str]) -> Iterator[tuple[str, Any]]:
    """("file:line", parsed JSON) of a file with one document a line."""
    with _told(faults):
        try:
            texts = _content(path, MOST_TEXT).decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 ({error.reason}); make it again with `clcr report`") from None
        if len(texts) > MOST_LINES:
            raise InputError(f"{path}: {len(texts)} lines, at most {MOST_LINES} are read; submit fewer runs at once")
        for number, text in enumerate(texts, 1):
            if text.strip():
                with _told(faults):
                    yield f"{path}:{number}", _json(text, f"{path}:{number}")


def _json(text: str, where: str) -> Any:
    if len(text) > MOST_LINE:
        raise InputError(f"{where}: {len(text)} characters, at most {MOST_LINE} are read; make it again")
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); make it again with `clcr report`") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _records(path: Path, curves: Mapping[Identity, Curve], faults: list[str]) -> Iterator[Line]:
    for where, raw in _lines(path, faults):
        with _told(faults):
            fields.check(raw, where)
            record = RunRecord.from_json(raw, where)
            canonical(record.to_json())
            yield Line(where, record, curves.get(identity(record)))


def _curves(path: Path, faults: list[str]) -> Iterator[tuple[Identity, Curve]]:
    seen: set[Identity] = set()
    for where, raw in _lines(path, faults):
        with _told(faults):
            whose, curve = _curve(raw, where)
            if whose in seen:
                raise InputError(f"{where}: a second curve of {whose[0]}; one run has one, leave the other out")
            seen.add(whose)
            yield whose, curve


def _curve(raw: Any, where: str) -> tuple[Identity, Curve]:
    fields.check_curve(raw, where)
    folds = tuple(Course(tuple(fold["loss"]), tuple(fold["score"])) for fold in raw["folds"])
    return (RunKey(**raw["key"]), raw["digest"], raw["predictions"]), Curve(raw["metric"], raw["split"], folds)


def _arrays(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz as ``archive.npz_bytes`` writes it: stored, not compressed, so that no file grows."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
                raise ValueError("a member is compressed or encrypted")
            if len(members) > MOST_MEMBERS or sum(member.file_size for member in members) > len(content):
                raise ValueError("more arrays than it has room for")
            if len({member.filename for member in members}) < len(members):
                raise ValueError("two members have one name")
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except (ValueError, TypeError, SyntaxError, OverflowError, OSError, EOFError, NotImplementedError) as error:
        told = " ".join(str(error).split())[:200]
    except (zipfile.BadZipFile, RecursionError, MemoryError, RuntimeError) as error:
        told = " ".join(f"{type(error).__name__} {error}".split())[:200]
    raise InputError(f"{path}: not a plain .npz of arrays without pickles ({told}); make it again with `clcr report`")


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("a member is not an array of format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=4096)
    if dtype.kind not in KINDS or fortran:
        raise ValueError(f"a member holds {dtype}, not rows of numbers or text")
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError("a member's shape does not fit its bytes")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)
