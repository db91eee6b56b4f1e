"""Downloading published files: whole, checked and resumable, or not there at all. Standard library only.

A file grows in a hidden ``.<name>.part`` beside its place and moves there in one step when its length and sha256 are
right. A cut or a stall is tried again from where it stopped; a part with a known sha256 also outlives the process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from benchmarks import sdk
from benchmarks.errors import InputError, unknown
from benchmarks.sources import SOURCES, File, Sources
from benchmarks.unpack import unpack

_AT_ONCE = 1 << 16
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Policy:
    """stall_s: longest silence of a server. tries: in a row without a new byte. pause_s: before the second one; it
    doubles each time."""

    stall_s: float = 30.0
    tries: int = 5
    pause_s: float = 1.0


@dataclass(frozen=True)
class Progress:
    """How far a file is. total: bytes, None where nobody knows. note: what went wrong, if it did."""

    path: str
    done: int
    total: int | None
    note: str = ""


@dataclass(frozen=True)
class Fetched:
    """How a file ended. state: "fetched", "kept" (it was there), "unpacked", "skipped" (large), "failed" or,
    before anything is done, "missing"."""

    path: str
    state: str
    size: int = 0
    sha256: str = ""
    error: str = ""


Tell = Callable[[Progress], None]


class _Again(Exception):
    """The transfer broke in a way that may pass; ``wait_s``: what the server asks for."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def sources(name: str) -> Sources:
    """The sources of a benchmark, or InputError with the nearest name."""
    if name not in SOURCES:
        raise unknown("benchmark", name, SOURCES)
    return SOURCES[name]


def fetch(name: str, folder: Path, large: bool, policy: Policy, tell: Tell) -> list[Fetched]:
    """Download the files of a benchmark into ``folder`` and unpack the archives that lie there. A file that cannot be
    had does not keep the others away."""
    found = sources(name)
    ended = [_end(file, Path(folder), policy, tell) if large or not file.large else _skip(file) for file in found.files]
    for part in found.by_hand:
        archive = Path(folder) / part.archive
        if part.archive and archive.is_file():
            ended.append(_unpacked(archive, archive.with_suffix("")))
    return ended


def through_sdk(name: str) -> Sources:
    """The sources of a benchmark with its sequences where mmsdk will put them. InputError where it has none."""
    found = sources(name)
    if not any(_of_sdk(file) for file in found.files):
        known = [each for each, other in SOURCES.items() if any(_of_sdk(file) for file in other.files)]
        raise InputError(f"--sdk: {name} has no computational sequences, only {' and '.join(known)} have; leave it out")
    files = (replace(file, path=f"{sdk.FOLDER}/{file.path}") if _of_sdk(file) else file for file in found.files)
    return replace(found, files=tuple(files))


def _of_sdk(file: File) -> bool:
    return file.path.endswith(".csd")


def fetch_through_sdk(name: str, folder: Path, policy: Policy, tell: Tell) -> list[Fetched]:
    """The same with the computational sequences downloaded by mmsdk itself, into ``folder``/mmsdk, which ``clcr
    prepare`` lets mmsdk align."""
    found = through_sdk(name)
    ended = []
    for file in found.files:
        if _of_sdk(file) and not (Path(folder) / file.path).is_file():
            tell(Progress(file.path, 0, None, "mmsdk downloads it, which may take long and tells nothing meanwhile"))
        ended.append(_sdk_end(name, file, folder) if _of_sdk(file) else _end(file, Path(folder), policy, tell))
    return ended


def _sdk_end(name: str, file: File, folder: Path) -> Fetched:
    target = Path(folder) / file.path
    try:
        state = "fetched" if sdk.download(name, target.parent, target.name) else "kept"
    except InputError as error:
        return Fetched(file.path, "failed", error=str(error))
    with target.open("rb") as stored:
        return Fetched(file.path, state, target.stat().st_size, hashlib.file_digest(stored, "sha256").hexdigest())


def planned(found: Sources, folder: Path) -> list[Fetched]:
    """What ``fetch`` would find and do, without a connection: "kept", "missing", or "failed" for another file."""
    return [_planned(file, Path(folder) / file.path) for file in found.files]


def _planned(file: File, target: Path) -> Fetched:
    if not target.exists():
        return Fetched(file.path, "missing", file.size, file.sha256)
    try:
        return _kept(file, target) if file.sha256 else Fetched(file.path, "kept", target.stat().st_size)
    except InputError as error:
        return Fetched(file.path, "failed", file.size, file.sha256, str(error))


def _skip(file: File) -> Fetched:
    return Fetched(file.path, "skipped", file.size, file.sha256)


def _end(file: File, folder: Path, policy: Policy, tell: Tell) -> Fetched:
    try:
        return download(file, folder, policy, tell)
    except InputError as error:
        return Fetched(file.path, "failed", file.size, file.sha256, str(error))


def _unpacked(archive: Path, folder: Path) -> Fetched:
    size = archive.stat().st_size
    try:
        return Fetched(archive.name, "unpacked" if unpack(archive, folder) else "kept", size)
    except InputError as error:
        return Fetched(archive.name, "failed", size, error=str(error))


def download(file: File, folder: Path, policy: Policy, tell: Tell) -> Fetched:
    """Get one file, or keep it where it is there already and right. InputError says why it cannot be had; then nothing
    lies under its name that did not lie there before."""
    if urlsplit(file.url).scheme not in ("http", "https"):
        raise InputError(f"{file.url}: not an http address; correct the table of sources")
    target = folder / file.path
    if target.exists():
        return _kept(file, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part(target) as part:
            if not file.sha256:
                part.truncate(0)  # what an earlier process left cannot be told from another file
            digest = _Transfer(file, part, policy, tell).run()
            os.fsync(part.fileno())
            os.replace(part.name, target)
        _sync(target.parent)
    except OSError as error:
        raise _disk(error, target) from None
    return Fetched(file.path, "fetched", target.stat().st_size, digest)


def _kept(file: File, target: Path) -> Fetched:
    if not target.is_file():
        raise InputError(f"{target}: not a file; move it away, then fetch again")
    with target.open("rb") as stored:
        digest = hashlib.file_digest(stored, "sha256").hexdigest()
    if file.sha256 and digest != file.sha256:
        raise InputError(f"{target}: sha256 is {digest}, expected {file.sha256}; move it away, then fetch again")
    return Fetched(file.path, "kept", target.stat().st_size, digest)


@contextmanager
def _part(target: Path) -> Iterator[IO[bytes]]:
    path = target.with_name(f".{target.name}.part")
    with path.open("ab+") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{target}: another process is fetching it; wait for that one to end") from None
        try:
            yield part
        finally:
            if path.exists() and part.seek(0, os.SEEK_END) == 0:
                path.unlink()  # nothing came: leave nothing


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk(error: OSError, target: Path) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{target}: the disk is full; make room, then the same command goes on")
    return InputError(f"{target}: cannot be written ({error.strerror or error}); choose another folder with --to")


class _Transfer:
    """One file on its way into an open part."""

    def __init__(self, file: File, part: IO[bytes], policy: Policy, tell: Tell) -> None:
        self.file, self.part, self.policy, self.tell = file, part, policy, tell
        self.total: int | None = file.size or None
        self.tag = ""  # what the server calls the content that the part holds
        self.resumed = part.seek(0, os.SEEK_END) > 0

    def run(self) -> str:
        """Fill the part; returns its sha256."""
        fails, pause = 0, self.policy.pause_s
        while True:
            before = self.part.tell()
            try:
                self._try()
                return self._check()
            except _Again as error:
                moved = self.part.tell() > before
                fails, pause = (1, self.policy.pause_s) if moved else (fails + 1, pause * (2 if fails else 1))
                if fails >= self.policy.tries:
                    raise InputError(f"{self.file.url}: {error}, {fails} times in a row; try again later") from None
                self._say(f"{error}; trying again")
                time.sleep(min(max(pause, error.wait_s), _LONGEST_WAIT_S))

    def _say(self, note: str = "") -> None:
        self.tell(Progress(self.file.path, self.part.tell(), self.total, note))

    def _try(self) -> None:
        offset = self.part.tell()
        if offset and offset == self.file.size:
            return
        headers = {"User-Agent": "clcr-bench", "Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-"} | ({"If-Range": self.tag} if self.tag else {})
        request = urllib.request.Request(self.file.url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self.policy.stall_s) as response:
                self._receive(response, offset)
        except urllib.error.HTTPError as error:
            self._refused(error)
        except TimeoutError:
            raise _Again(f"no byte for {self.policy.stall_s:g} s") from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
            raise _Again(f"the connection broke ({getattr(error, 'reason', error)})") from None

    def _refused(self, error: urllib.error.HTTPError) -> None:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._restart()
            raise _Again("the server has no such range") from None
        if error.code in _AGAIN:
            asked = error.headers.get("Retry-After", "")
            raise _Again(f"the server answers {error.code}", float(asked) if asked.isdecimal() else 0.0) from None
        why = f"the server answers {error.code} {error.reason}"
        raise InputError(f"{self.file.url}: {why}; the address may be dead, get the file by hand") from None

    def _restart(self) -> None:
        self.part.truncate(0)
        self.part.seek(0)
        self.resumed, self.tag = False, ""

    def _receive(self, response: http.client.HTTPResponse, offset: int) -> None:
        if offset and response.status != http.client.PARTIAL_CONTENT:
            self._restart()  # the server sends everything from the start
            offset = 0
        announced = self._announced(response, offset)
        self.tag = response.headers.get("ETag", "") if not response.headers.get("ETag", "").startswith("W/") else ""
        self.total = self.file.size or announced
        while block := response.read1(_AT_ONCE):
            if self.file.size and self.part.tell() + len(block) > self.file.size:
                raise self._wrong(f"the server sends more than {self.file.size} bytes")
            self.part.write(block)
            self._say()
        found = self.part.tell()
        if self.total is not None and found < self.total:
            raise _Again(f"the transfer ended after {found} of {self.total} bytes")

    def _announced(self, response: http.client.HTTPResponse, offset: int) -> int | None:
        """The length of the whole file as the server states it."""
        if offset:
            stated = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
            if stated is None or int(stated[1]) != offset:
                self._restart()
                raise _Again("the server sends another range than asked for")
            return None if stated[2] == "*" else int(stated[2])
        length = response.headers.get("Content-Length", "")
        return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None

    def _check(self) -> str:
        self.part.flush()
        with open(self.part.name, "rb") as stored:
            digest = hashlib.file_digest(stored, "sha256").hexdigest()
        if digest == self.file.sha256 or not self.file.sha256:
            return digest
        if self.resumed:  # what an earlier process left may be to blame: once more from the start
            self._restart()
            raise _Again("the resumed file has a wrong sha256")
        raise self._wrong(f"sha256 is {digest}, expected {self.file.sha256}")

    def _wrong(self, why: str) -> InputError:
        self._restart()
        Path(self.part.name).unlink(missing_ok=True)
        return InputError(
            f"{self.file.url}: {why}: the server sends another file; get it by hand and compare its sha256"
        )
