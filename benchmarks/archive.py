"""Files that are the same bytes for the same content, written whole or not at all; the layout of committed predictions.

results/predictions/<benchmark>.npz holds, per committed run, its test predictions under
``<data>/<protocol>/<profile>/<method>/<variant>/seed-000/<predictions>-<samples>`` and, once for all runs that share
them, ``<data>/<protocol>/<profile>/samples/<samples>/{index,target,group}``; <predictions> and <samples> are the first
digits of the digest of the run's predictions and of these arrays. numpy, no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import io
import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.errors import InputError
from benchmarks.record import RunKey

SAMPLES = ("index", "target", "group")
ARRAYS = ("index", "target", "prediction", "group")
# what numpy and zipfile raise for files that are none of theirs
UNREADABLE = (
    *(OSError, ValueError, EOFError, AttributeError, KeyError, TypeError, SyntaxError, OverflowError, MemoryError),
    *(RuntimeError, tokenize.TokenError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
EPOCH = (1980, 1, 1, 0, 0, 0)
DIGITS = 12


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: a temporary file beside it, fsync, rename. A reader sees the old or the new one. What
    writers of the same file left that were killed goes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        _remove_left(left)
    try:
        with _own(temporary) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _own(path: Path) -> IO[bytes]:
    """A new file that is locked as long as its writer lives and has it open."""
    while True:
        file = path.open("wb")
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # somebody took it for a dead writer's before it was locked


def _remove_left(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its writer lives
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Let what was renamed in a folder survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz that np.load reads: members sorted, uncompressed (zlib versions differ), without the time of writing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            member.create_system, member.external_attr = 3, 0o644 << 16
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(arrays[name]), (1, 0), allow_pickle=False)
    return buffer.getvalue()


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays in one step; the same arrays give the same bytes."""
    write_bytes(path, npz_bytes(arrays))


def read_npz(path: Path, remedy: str = "restore it from version control") -> dict[str, np.ndarray]:
    """All arrays of an .npz without pickles; InputError, with the remedy, where it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: _plain(archive[name], name) for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {remedy}") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: truncated or not a plain .npz ({_told(error)}); {remedy}") from None


def _plain(found: object, name: str) -> np.ndarray:
    """A member that is an array; numpy gives the bytes of one that does not begin like an array."""
    if not isinstance(found, np.ndarray):
        raise ValueError(f"member {name!r} is no array")
    return found


def _told(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def check_npz(path: Path, names: Iterable[str], remedy: str) -> None:
    """InputError, with the remedy, unless an .npz is there to its end and holds these arrays. Its directory alone is
    read, which stands at that end: a byte that changed inside an array is not seen."""
    try:
        with zipfile.ZipFile(path) as archive:
            lacking = sorted({f"{name}.npy" for name in names} - set(archive.namelist()))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {remedy}") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: truncated or not a plain .npz ({_told(error)}); {remedy}") from None
    if lacking:
        raise InputError(f"{path}: array {lacking[0].removesuffix('.npy')!r} is missing; {remedy}")


def samples_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Digest of index, target and group: runs scored on the same samples share it."""
    return _digest(arrays, SAMPLES)


def predictions_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Digest of index, target, prediction and group: what ``RunRecord.predictions`` holds."""
    return _digest(arrays, ARRAYS)


def _digest(arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> str:
    total = hashlib.sha256()
    for name in names:
        if name in arrays:
            array = np.ascontiguousarray(arrays[name])
            total.update(f"{name}{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return total.hexdigest()


def group_of(key: RunKey) -> str:
    """The part of a member's name that says which sweep it belongs to."""
    return f"{key.data}/{key.protocol}/{key.profile}"


def run_of(key: RunKey) -> str:
    """The part of a member's name that says which run it belongs to."""
    return f"{group_of(key)}/{key.method}/{key.variant}/seed-{key.seed:03d}"


def members(key: RunKey, predictions: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a run adds to the committed predictions: its own array and the arrays that it shares with others."""
    samples = samples_digest(arrays)[:DIGITS]
    own = {f"{run_of(key)}/{predictions[:DIGITS]}-{samples}": arrays["prediction"]}
    shared = {f"{group_of(key)}/samples/{samples}/{name}": arrays[name] for name in SAMPLES if name in arrays}
    return own | shared


def find(names: Iterable[str], key: RunKey, predictions: str) -> str | None:
    """The member that holds the predictions with this digest of a run, or None."""
    start = f"{run_of(key)}/{predictions[:DIGITS]}-"
    return next((name for name in names if name.startswith(start)), None)


def predictions_of(archive: Mapping[str, np.ndarray], key: RunKey, predictions: str) -> dict[str, np.ndarray]:
    """index, target, prediction (and group) of a committed run; InputError where they are not there."""
    name = find(archive, key, predictions)
    if name is None:
        raise InputError(f"predictions/{key.benchmark}.npz: no predictions of {key}; run it and report again")
    start = f"{group_of(key)}/samples/{name.rpartition('-')[2]}/"
    shared = {part: archive[start + part] for part in SAMPLES if start + part in archive}
    return {"prediction": archive[name], **shared}
