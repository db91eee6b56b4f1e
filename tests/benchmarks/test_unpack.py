"""Archives that try to leave their folder, or are damaged: refused before anything is written."""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from benchmarks.errors import InputError
from benchmarks.unpack import unpack


def packed(path: Path, *names: str, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, b"content")
    return path


def bundled(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = 7 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"content"))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def refused(archive: Path, words: str) -> None:
    before = sorted(path.name for path in archive.parent.parent.rglob("*"))
    with pytest.raises(InputError, match=words) as caught:
        unpack(archive, archive.parent / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in archive.parent.parent.rglob("*")) == before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "inner"
    made.mkdir()
    return made


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_good_archive(folder: Path, kind: str) -> None:
    if kind == "zip":
        archive = packed(folder / "a.zip", "top/", "top/a..b.txt", "b.txt", mode=0o755)
    else:
        archive = bundled(folder / "a.tar.gz", member("top", tarfile.DIRTYPE), member("top/a..b.txt"), member("b.txt"))
    assert unpack(archive, folder / "out")
    assert (folder / "out" / "top" / "a..b.txt").read_bytes() == b"content"
    assert not (folder / "out" / "b.txt").stat().st_mode & stat.S_IXUSR
    assert not unpack(archive, folder / "out")
    assert sorted(path.name for path in folder.iterdir()) == [archive.name, "out"]


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:/evil", "C:\\evil", "a/\\..\\..\\evil", "."]
)
def test_a_name_that_leaves_the_folder(folder: Path, name: str) -> None:
    refused(packed(folder / "a.zip", "good.txt", name), "a name that leaves the folder; nothing was unpacked")
    refused(bundled(folder / "a.tar.gz", member("good.txt"), member(name)), "a name that leaves the folder")


def test_links_and_devices(folder: Path) -> None:
    refused(packed(folder / "a.zip", "link", mode=stat.S_IFLNK | 0o777), "'link' is a link or device")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        refused(bundled(folder / "a.tar.gz", member("link", kind, "/etc/passwd")), "'link' is a link or device")


def test_a_name_that_stands_twice(folder: Path) -> None:
    refused(bundled(folder / "a.tar.gz", member("a"), member("./a")), "a name that stands twice")
    refused(bundled(folder / "b.tar.gz", member("a"), member("a/b")), "cannot be unpacked")


def test_damaged_archives(folder: Path) -> None:
    whole = packed(folder / "whole.zip", *(f"{number}.txt" for number in range(50))).read_bytes()
    tar = bundled(folder / "whole.tar.gz", *(member(f"{number}.txt") for number in range(50))).read_bytes()
    flipped = bytearray(whole)
    flipped[40] ^= 255  # inside the first member: its checksum no longer holds
    for content in (whole[:1000], bytes(flipped), tar[: len(tar) // 2], b"", b"plain text"):
        (folder / "bad").write_bytes(content)
        refused(folder / "bad", "damaged or not an archive")


def test_more_than_the_disk_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 90, 10))
    refused(packed(folder / "a.zip", "a", "b"), "unpacks to 14 bytes, 10 are free")
