"""``clcr fetch --sdk``: mmsdk's own downloads, by a module that behaves as it does: a file that is there is refused,
errors are RuntimeErrors of several lines after much printing, and what was written of a broken transfer stays."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import synthetic_sentiment as synthetic

from benchmarks import catalog, cli, sdk
from benchmarks.errors import InputError
from benchmarks.sources import SOURCES, Sources
from benchmarks.tasks import cmu_mosi, sentiment_roads

HOST = "http://synthetic/CMU-MOSI"
NAMES = {
    "raw": {"words": "language/CMU_MOSI_TimestampedWords.csd", "phonemes": "language/CMU_MOSI_TimestampedPhones.csd"},
    "highlevel": {"COVAREP": "acoustic/CMU_MOSI_COVAREP.csd", "FACET_4.1": "visual/CMU_MOSI_Visual_Facet_41.csd"},
    "labels": {"Opinion Segment Labels": "labels/CMU_MOSI_Opinion_Labels.csd"},
}
WANTED = "CMU_MOSI_COVAREP.csd"


class Mmsdk:
    """mmsdk.mmdatasdk and its read_URL; ``spoil``: what goes wrong with a URL, after the bytes that it returns."""

    def __init__(self, published: Path) -> None:
        self.published, self.asked = published, list[str]()
        self.spoil: Callable[[str], bytes | None] = lambda _: None

    def read_url(self, url: str, destination: str) -> bool:
        folder = destination.rsplit(os.sep, 1)[-2]
        if not os.path.isdir(folder):
            os.mkdir(folder)
        if os.path.isfile(destination):
            raise RuntimeError(f"{destination} file already exists ...")
        self.asked.append(url)
        print(f"Downloading from {url} to {destination}...")
        half = self.spoil(url)
        if half is not None:
            Path(destination).write_bytes(half)
            raise RuntimeError(f"Error downloading the data\nto {destination} ...")
        Path(destination).write_bytes((self.published / url.rsplit("/", 1)[1]).read_bytes())
        return True

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        base = "mmsdk.mmdatasdk"
        for name in ("mmsdk", base, f"{base}.computational_sequence", f"{base}.computational_sequence.download_ops"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules[f"{base}.computational_sequence.download_ops"].read_URL = self.read_url  # type: ignore[attr-defined]
        tables = ModuleType("cmu_mosi")
        for part, urls in NAMES.items():
            setattr(tables, part, {key: f"{HOST}/{name}" for key, name in urls.items()})
        sys.modules[base].cmu_mosi = tables  # type: ignore[attr-defined]


@pytest.fixture
def mmsdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mmsdk:
    """An installed mmsdk, an owner's folder to download from and synthetic fold lists as the official ones."""
    monkeypatch.setattr(cmu_mosi, "CORPUS", synthetic.small())
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLCR_DATA", raising=False)
    monkeypatch.setitem(SOURCES, "cmu_mosi", Sources(SOURCES["cmu_mosi"].files[1:], SOURCES["cmu_mosi"].by_hand))
    synthetic.write_sequences(tmp_path / "owner", synthetic.sequences())
    made = Mmsdk(tmp_path / "owner")
    made.install(monkeypatch)
    return made


def fetched(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    code = cli.main(["fetch", *arguments, "--sdk", "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out)["benchmarks"][0] if out else {}, err


def test_sequences_come_where_prepare_lets_mmsdk_align_them(
    mmsdk: Mmsdk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "new" / "source"
    code, told, err = fetched(capsys, "cmu_mosi", "--to", str(to))
    assert code == 0
    assert "mmsdk downloads it" in err
    assert "Downloading from" not in err
    assert {(file["path"], file["state"]) for file in told["files"]} == {
        (f"mmsdk/{names[0]}", "fetched") for names in cmu_mosi.CORPUS.files.values()
    }
    for file in told["files"]:
        assert (to / file["path"]).read_bytes() == (mmsdk.published / Path(file["path"]).name).read_bytes()
        assert len(file["sha256"]) == 64
    assert len(list((to / "mmsdk").iterdir())) == 4
    assert list(sentiment_roads.offered(to, cmu_mosi.CORPUS)) == ["mmsdk"]
    assert [file["state"] for file in fetched(capsys, "cmu_mosi", "--to", str(to))[1]["files"]] == ["kept"] * 4
    assert len(mmsdk.asked) == 4, "what is there stays"


def test_a_relative_folder_and_the_default_one(
    mmsdk: Mmsdk, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fetched(capsys, "cmu_mosi", "--to", ".")[0] == 0
    assert (tmp_path / "mmsdk" / WANTED).is_file()
    assert fetched(capsys, "cmu_mosi")[0] == 0
    assert (tmp_path / "cache" / "sources" / "cmu_mosi" / "mmsdk" / WANTED).is_file()


def test_a_dry_run_needs_no_mmsdk_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mmsdk.mmdatasdk", None)
    code, told, _ = fetched(capsys, "cmu_mosei", "--to", str(tmp_path / "to"), "--dry-run")
    assert code == 0
    assert "mmsdk/CMU_MOSEI_COVAREP.csd" in {file["path"] for file in told["files"]}
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cmu_mosi", ["setuptools<81", "--no-build-isolation", "CMU-MultimodalSDK"]),
        ("crema_d", ["--sdk: crema_d has no computational sequences", "cmu_mosi and cmu_mosei"]),
    ],
)
def test_without_mmsdk_or_sequences_it_is_refused_in_one_line(
    name: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mmsdk.mmdatasdk", None)
    code, _, err = fetched(capsys, name, "--to", str(tmp_path / "to"))
    assert code == 2
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("half", [b"half", b"", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_a_broken_transfer_leaves_nothing_and_the_others_come(
    half: bytes, mmsdk: Mmsdk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mmsdk.spoil = lambda url: half if url.endswith(WANTED) else None
    code, told, _ = fetched(capsys, "cmu_mosi", "--to", str(tmp_path / "to"))
    assert code == 1
    (failed,) = [file for file in told["files"] if file["state"] == "failed"]
    assert f"{HOST}/acoustic/{WANTED}: Error downloading the data to {WANTED} ..." in failed["error"]
    assert "by hand" in failed["error"]
    left = {path.name for path in (tmp_path / "to" / "mmsdk").iterdir()}
    assert left == {Path(file["path"]).name for file in told["files"]} - {WANTED}
    mmsdk.spoil = lambda _: None
    assert fetched(capsys, "cmu_mosi", "--to", str(tmp_path / "to"))[0] == 0


def test_an_error_page_never_becomes_a_sequence(mmsdk: Mmsdk, tmp_path: Path) -> None:
    (mmsdk.published / WANTED).write_text("<html>moved</html>")
    with pytest.raises(InputError, match=rf"{WANTED}: .*no HDF5 file.*by hand"):
        sdk.download("cmu_mosi", tmp_path / "to", WANTED)
    assert not list((tmp_path / "to").iterdir())


def test_what_a_killed_process_left_is_replaced(mmsdk: Mmsdk, tmp_path: Path) -> None:
    (tmp_path / f".{WANTED}.part").write_bytes(b"half")
    assert sdk.download("cmu_mosi", tmp_path, WANTED)
    assert (tmp_path / WANTED).read_bytes() == (mmsdk.published / WANTED).read_bytes()


def test_an_interrupt_leaves_nothing(mmsdk: Mmsdk, tmp_path: Path) -> None:
    def interrupt(_: str) -> bytes:
        (tmp_path / "to" / f".{WANTED}.part").write_bytes(b"half")
        raise KeyboardInterrupt

    mmsdk.spoil = interrupt
    with pytest.raises(KeyboardInterrupt):
        sdk.download("cmu_mosi", tmp_path / "to", WANTED)
    assert not list((tmp_path / "to").iterdir())


def test_another_fetch_or_a_folder_that_takes_nothing_is_told(mmsdk: Mmsdk, tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another process is fetching into it"):
        sdk.download("cmu_mosi", tmp_path, WANTED)
    os.close(held)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        sdk.download("cmu_mosi", tmp_path / "file", WANTED)
    assert not mmsdk.asked


def test_names_that_mmsdk_does_not_know_are_told(mmsdk: Mmsdk, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="knows no cmu_mosei"):
        sdk.download("cmu_mosei", tmp_path, "CMU_MOSEI_COVAREP.csd")
    with pytest.raises(InputError, match=r"cmu_mosi: knows no CMU_MOSI_Other\.csd"):
        sdk.download("cmu_mosi", tmp_path, "CMU_MOSI_Other.csd")


@pytest.mark.parametrize("name", ["cmu_mosi", "cmu_mosei"])
def test_the_sequences_of_the_table_are_those_that_prepare_reads(name: str) -> None:
    listed = {file.path for file in SOURCES[name].files if file.path.endswith(".csd")}
    corpus = catalog.task_module(name).CORPUS  # type: ignore[attr-defined]
    assert listed == {names[0] for names in corpus.files.values()}
