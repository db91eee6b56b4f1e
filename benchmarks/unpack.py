"""Unpacking archives inside one folder, wholly or not at all. Standard library only.

Every member's name and kind is checked before the first byte is written: absolute names, names that leave the folder,
links, devices and names that stand twice are refused. Nothing of an archive is ever executed or made executable.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from benchmarks.errors import InputError

_BAD = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError),
    *(NotImplementedError, ValueError, OverflowError, KeyError, IndexError, TypeError, MemoryError),
)


MOST_RATIO = 100  # videos and sound hardly shrink: what grows more than this was made to fill a disk
_SMALL = 1 << 20


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str  # "file", "folder" or what it is else
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path) -> bool:
    """Unpack a .zip or .tar(.gz|.bz2|.xz) into ``folder``, which appears when all of it is there; False where the
    folder exists. InputError names the archive and the member that is refused."""
    if folder.exists():
        return False
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with _members(archive) as members:
            _check(archive, members, shutil.disk_usage(folder.parent).free)
            for member in members:
                _write(member, temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except _BAD as error:
        why = " ".join(str(error).split())
        raise InputError(f"{archive}: damaged or not an archive ({why}); get it again") from None
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked ({error.strerror or error}); make room or repair") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


@contextmanager
def _members(archive: Path) -> Iterator[Sequence[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield [_of_zip(packed, info) for info in packed.infolist()]
    else:
        with tarfile.open(archive) as bundle:
            yield [_of_tar(bundle, info) for info in bundle.getmembers()]


def _of_zip(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    plain = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
    kind = ("folder" if info.filename.endswith("/") else "file") if plain else "link or device"
    return _Member(info.orig_filename, kind, info.file_size, lambda: packed.open(info))


def _of_tar(bundle: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    kind = "file" if info.isreg() else "folder" if info.isdir() else "link or device"
    return _Member(info.name, kind, info.size, lambda: bundle.extractfile(info))


def _check(archive: Path, members: Sequence[_Member], free: int) -> None:
    seen: set[PurePosixPath] = set()
    for member in members:
        path = PurePosixPath(member.name)
        outside = path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name.split("/")[0]
        if outside or "\0" in member.name or not path.parts:
            raise _refused(archive, member, "a name that leaves the folder")
        if member.kind not in ("file", "folder"):
            raise _refused(archive, member, f"a {member.kind}")
        if member.kind == "file" and path in seen:
            raise _refused(archive, member, "a name that stands twice")
        seen.add(path)
    total, packed = sum(member.size for member in members), archive.stat().st_size
    if total > max(MOST_RATIO * packed, _SMALL):
        raise InputError(f"{archive}: {packed} bytes unpack to {total}, no media do; get the owner's archive")
    if total > free:
        raise InputError(f"{archive}: unpacks to {total} bytes, {free} are free; make room or get another archive")


def _refused(archive: Path, member: _Member, why: str) -> InputError:
    return InputError(f"{archive}: member {member.name!r} is {why}; nothing was unpacked, get the owner's archive")


def _write(member: _Member, folder: Path) -> None:
    path = folder / member.name
    if member.kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    if source is None:
        raise EOFError(f"{member.name} holds nothing")
    with source, path.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        if target.tell() != member.size:
            raise EOFError(f"{member.name}: {target.tell()} of {member.size} bytes")
