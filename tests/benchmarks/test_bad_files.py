"""Files of strangers that are wrong, each through the command itself: exit code 2 and one line that names what is wrong
and the remedy, or a row of the manifest with its reason; nothing in them is executed, nothing half-written stays.

``REFUSED`` and ``NOTED`` are the list; tests/benchmarks/test_prepare_media.py has another one for media (``BAD``).
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_sentiment as synthetic
from synthetic_media import crema_d
from test_prepare_media import BAD as BAD_MEDIA

from benchmarks import cli, prepared
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import names, store
from benchmarks.sources import SOURCES, Sources
from benchmarks.tasks import cmu_mosi

ROOT = Path(__file__).resolve().parents[2]
MARK = "executed"  # a file that a payload would leave in the source folder
PICKLE, ZIP, COVAREP = "aligned_50.pkl", "AVE_Dataset.zip", "CMU_MOSI_COVAREP.csd"
Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """How a source folder is made, the command that reads it, and what its one line must say."""

    make: Spoil
    words: tuple[str, ...]
    command: tuple[str, ...] = ("prepare", "cmu_mosi", "--source", "SOURCE")


# ------------------------------------------------------------------------------------------------------------ pickles


class Runs:
    """Pickled as a call of a function: what an attacker would publish."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def edited(change: Callable[[dict[str, Any]], object], name: str = PICKLE) -> Spoil:
    def make(source: Path) -> None:
        content = synthetic.mmsa("unaligned" if name.startswith("un") else "aligned")
        change(content)
        synthetic.dump(source / name, content)

    return make


def having(field: str, value: Any, split: str = "test") -> Spoil:
    return edited(lambda content: content[split].__setitem__(field, value))


def payload(function: Any, *args: str) -> Spoil:
    """A good file whose ``extra`` field calls a function when a plain reader opens it; MARK is where it would show."""

    def make(source: Path) -> None:
        filled = [arg.replace("MARK", str(source / MARK)) for arg in args]
        edited(lambda content: content["train"].__setitem__("extra", Runs(function, *filled)))(source)

    return make


def written(name: str, content: bytes | str) -> Spoil:
    def make(source: Path) -> None:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def cut(source: Path) -> None:
    path = synthetic.dump(source / PICKLE, synthetic.mmsa())
    path.write_bytes(path.read_bytes()[:-5000])


def twice(source: Path) -> None:
    for folder in ("a", "b"):
        synthetic.dump(source / folder / PICKLE, synthetic.mmsa())


def other_release(source: Path) -> None:
    synthetic.dump(source / PICKLE, synthetic.mmsa())
    synthetic.dump(source / "unaligned_50.pkl", synthetic.mmsa("unaligned", seed=9))


SHELL = "touch MARK"
PYTHON = "__import__('pathlib').Path('MARK').touch()"
PICKLES = {
    "pickle that calls os.system": Case(payload(os.system, SHELL), (PICKLE, "posix.system", "nothing was executed")),
    "pickle that calls eval": Case(payload(eval, PYTHON), (PICKLE, "builtins.eval", "nothing was executed")),
    "pickle that opens a file to write": Case(payload(open, "MARK", "w"), (PICKLE, "io.open", "nothing was executed")),
    "pickle that starts a process": Case(
        payload(subprocess.check_output, "touch"), (PICKLE, "subprocess.check_output", "nothing was executed")
    ),
    "pickle that reads a file through numpy.fromfile": Case(
        payload(np.fromfile, "/etc/passwd"), (PICKLE, "fromfile", "nothing was executed")
    ),
    "pickle that loads another one through numpy.load": Case(
        written(PICKLE, b"cnumpy\nload\n(S'x.npy'\ntR."), (PICKLE, "numpy.load", "nothing was executed")
    ),
    "pickle that imports a module": Case(
        written(PICKLE, b"cantigravity\nfly\n."), (PICKLE, "antigravity.fly", "fetch the published file again")
    ),
    "pickle with a state for numpy's own functions": Case(
        written(PICKLE, b"cnumpy\ndtype\n}S'__call__'\nNsb."), (PICKLE, "changes a function")
    ),
    "pickle with a forged array of objects": Case(
        having("audio", np.zeros(2, dtype=[("a", "O")])), (PICKLE, "array of records")
    ),
    "pickle that asks for a petabyte": Case(
        written(PICKLE, b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x."), (PICKLE, "truncated", "again")
    ),
    "pickle nested a hundred thousand deep": Case(written(PICKLE, b"]" * 100_000 + b"a" * 99_999 + b"."), ("nested",)),
    "pickle cut near its end": Case(cut, (PICKLE, "truncated", "fetch the published file again")),
    "pickle of zero bytes": Case(written(PICKLE, b""), (PICKLE, "truncated", "fetch the published file again")),
    "text named .pkl": Case(written(PICKLE, "<html>sign in</html>"), (PICKLE, "not a pickle")),
    "label 3.5": Case(having("regression_labels", np.full(6, 3.5)), (PICKLE, "test: synth-s1_0: label 3.5", "[-3, 3]")),
    "label that is no number": Case(having("regression_labels", np.full(6, np.nan)), (PICKLE, "label nan")),
    "labels that are words": Case(having("regression_labels", np.array(["good"] * 6)), (PICKLE, "not numbers")),
    "fewer labels than ids": Case(having("regression_labels", np.zeros(5)), (PICKLE, "6 ids but 5 regression_labels")),
    "features of another width": Case(having("audio", np.zeros((6, 50, 74))), (PICKLE, "audio is float64 [6, 50, 74]")),
    "features that are ragged": Case(having("vision", [[1.0], [1.0, 2.0]]), (PICKLE, "'vision' is ragged")),
    "fewer feature rows than ids": Case(having("audio", np.zeros((4, 50, 5))), (PICKLE, "4 rows but there are 6 ids")),
    "a field that is missing": Case(edited(lambda content: content["valid"].pop("raw_text")), (PICKLE, "'raw_text'")),
    "a split that is missing": Case(edited(lambda content: content.pop("valid")), (PICKLE, "train, valid and test")),
    "ids of another form": Case(having("id", ["$_$1"] * 6), (PICKLE, "'$_$1' is neither")),
    "a video in train and in test": Case(
        having("id", [f"synth-t1$_${k}" for k in range(6)]), ("both train and test: synth-t1", "published file")
    ),
    "two files of one name": Case(twice, ("a/" + PICKLE, "b/" + PICKLE, "keep one of them")),
    "two files of different releases": Case(other_release, ("unaligned_50.pkl", "one release")),
    "another corpus's pickle": Case(written("unaligned_39.pkl", pickle.dumps({})), ("CH-SIMS, not cmu_mosi",)),
}

# ---------------------------------------------------------------------------------------------------------- sequences


def sequences(change: Callable[[synthetic.Sequences], object] = lambda _: None) -> Spoil:
    def make(source: Path) -> None:
        made = synthetic.sequences()
        change(made)
        synthetic.write_sequences(source, made)

    return make


def part(role: str, **changes: Any) -> Spoil:
    """One video of one sequence with other intervals or features."""
    return sequences(lambda made: made[role].__setitem__("synth-t1", replace(made[role]["synth-t1"], **changes)))


def in_hdf5(change: Callable[[Any, Any], object]) -> Spoil:
    """A good COVAREP file, then edited: the video's group, and h5py."""

    def make(source: Path) -> None:
        import h5py

        sequences()(source)
        with h5py.File(source.parent / "secret.h5", "w") as secret:
            secret["features"] = np.ones((200, 74), np.float32)
        (source.parent / "secret.bin").write_bytes(np.ones((200, 74), np.float32).tobytes())
        with h5py.File(source / COVAREP, "r+") as file:
            group = file["synthetic audio/data/synth-t1"]
            del group["features"]
            change(group, h5py)

    return make


def external_values(group: Any, _: Any) -> None:
    place = str(Path(group.file.filename).parent.parent / "secret.bin")
    group.create_dataset("features", (200, 74), "f4", external=[(place, 0, 200 * 74 * 4)])


def virtual_values(group: Any, h5py: Any) -> None:
    layout = h5py.VirtualLayout((200, 74), "f4")
    layout[:] = h5py.VirtualSource("../secret.h5", "features", (200, 74))
    group.create_virtual_dataset("features", layout)


def external_link(group: Any, h5py: Any) -> None:
    group["features"] = h5py.ExternalLink("../secret.h5", "/features")


def linked_video(group: Any, h5py: Any) -> None:
    group.parent["synth-t2-linked"] = h5py.ExternalLink("../secret.h5", "/")
    group["features"] = np.ones((200, 74), np.float32)


def soft_loop(group: Any, h5py: Any) -> None:
    group["features"] = h5py.SoftLink(f"{group.name}/features")


def halved(source: Path) -> None:
    sequences()(source)
    path = source / COVAREP
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def without(name: str) -> Spoil:
    return lambda source: (sequences()(source), (source / name).unlink())


def folds(content: str, name: str = "mosi_mosei_std_folds.json") -> Spoil:
    def make(source: Path) -> None:
        sequences()(source)
        (source / "mosi_mosei_std_folds.json").unlink()
        (source / name).write_text(content.replace("MARK", str(source / MARK)))

    return make


def fold_lists(**changes: list[str]) -> str:
    return json.dumps({"CMU_MOSI": {split: list(names) for split, names in synthetic.VIDEOS.items()} | changes})


LINKED = (COVAREP, "points out of the data or out of the file", "fetch it again")
SEQUENCES = {
    "csd cut": Case(halved, (COVAREP, "truncated", "fetch it again")),
    "text named .csd": Case(lambda s: (sequences()(s), written(COVAREP, "no")(s)), (COVAREP, "no HDF5 file")),
    "csd of zero bytes": Case(lambda s: (sequences()(s), written(COVAREP, "")(s)), (COVAREP, "no HDF5 file")),
    "one csd of four missing": Case(without(COVAREP), (COVAREP, "put all four sequences there")),
    "intervals of three columns": Case(part("audio", intervals=np.ones((200, 3))), (COVAREP, "intervals [200, 3]")),
    "intervals that are words": Case(part("audio", intervals=np.full((200, 2), b"x")), (COVAREP, "not seconds")),
    "fewer features than intervals": Case(part("audio", features=np.ones((99, 74))), (COVAREP, "features [99, 74]")),
    "features that are words": Case(part("vision", features=np.full((100, 47), b"x")), ("Facet_41.csd", "not numbers")),
    "another feature set": Case(part("audio", features=np.ones((200, 5))), ("5 features, expected 74",)),
    "label inf": Case(part("labels", features=np.full((4, 1), np.inf)), ("synth-t1[0]: label inf", "[-3, 3]")),
    "hdf5 link to another file": Case(in_hdf5(external_link), LINKED),
    "hdf5 link to another file in place of a video": Case(in_hdf5(linked_video), LINKED),
    "hdf5 values in another file": Case(in_hdf5(external_values), LINKED),
    "hdf5 virtual values of another file": Case(in_hdf5(virtual_values), LINKED),
    "hdf5 link to itself": Case(in_hdf5(soft_loop), LINKED),
    "no fold lists": Case(without("mosi_mosei_std_folds.json"), ("no standard folds", "put cmu_mosi_std_folds.py")),
    "fold lists that name unknown videos": Case(
        folds(fold_lists(test=["synth-s1", "stranger"])), ("std_folds.json", "not those of the standard folds")
    ),
    "fold lists that name a video twice": Case(
        folds(fold_lists(valid=["synth-t1"])), ("std_folds.json", "synth-t1 is in two folds")
    ),
    "fold lists that are no json": Case(folds("{"), ("std_folds.json", "holds no CMU_MOSI fold lists")),
    "fold lists of python that runs code": Case(
        folds("standard_train_fold = [open('MARK', 'w')]", "cmu_mosi_std_folds.py"),
        ("cmu_mosi_std_folds.py", "not the SDK's fold lists"),
    ),
}

# ---------------------------------------------------------------------------------------------- lists of raw benchmarks

TRAIN, TEST = "1001_IEO_NEU_XX,NEU\n1002_IEO_HAP_XX,HAP\n", "1003_IEO_SAD_XX,SAD\n"


def crema(train: str | bytes, test: str | bytes = TEST) -> Spoil:
    return lambda source: (written("train.csv", train)(source), written("test.csv", test)(source))


def looped(source: Path) -> None:
    crema(TRAIN)(source)
    (source / "train.csv").unlink()
    (source / "train.csv").symlink_to("train.csv")


def on(name: str, *more: str) -> tuple[str, ...]:
    return ("prepare", name, "--source", "SOURCE", *more)


LISTS = {
    "csv that is not utf-8": Case(
        crema(b"\xff\xfe\xe4,NEU\n"), ("train.csv", "not a readable text file"), on("crema_d")
    ),
    "csv of zero bytes": Case(crema(""), ("train.csv: holds no row", "clcr fetch"), on("crema_d")),
    "csv without its second column": Case(crema("1001_IEO_NEU_XX\n"), ("train.csv: line 1", "emotion"), on("crema_d")),
    "csv of another table": Case(crema("id,label\n1,2\n"), ("train.csv: line 1: 'id,label'",), on("crema_d")),
    "csv with NUL bytes": Case(crema(b"\0\0\0\n"), ("train.csv: line 1",), on("crema_d")),
    "label outside the classes": Case(crema("1001_IEO_JOY_XX,JOY\n"), ("train.csv: line 1: 'JOY'",), on("crema_d")),
    "label of another clip": Case(crema("1001_IEO_NEU_XX,HAP\n"), ("train.csv: line 1: 'HAP'",), on("crema_d")),
    "clip in train and in test": Case(
        crema(TRAIN, TRAIN), ("test.csv: line 1: 1001_IEO_NEU_XX stands there again", "remove one"), on("crema_d")
    ),
    "actor that does not exist": Case(
        crema("1099_IEO_NEU_XX,NEU\n"), ("train.csv: line 1", "1001 to 1091"), on("crema_d")
    ),
    "list that links to itself": Case(looped, ("train.csv: missing", "clcr fetch crema_d"), on("crema_d")),
    "list that names files elsewhere": Case(
        crema("../../1001,NEU\n"), ("train.csv: line 1: '../../1001",), on("crema_d")
    ),
    "kinetics list of the longer lineage": Case(
        lambda s: (
            written("my_train.txt", "abcdefghijk_1_11,10,33\n")(s),
            written("my_test.txt", "abcdefghijk_1,10,0\n")(s),
        ),
        ("my_train.txt: line 1", "lineage of ARL"),
        on("kinetics_sounds"),
    ),
    "ave list that is missing": Case(written("x", ""), ("trainSet.txt: missing", "clcr fetch ave"), on("ave")),
    "ucf101 list of no class": Case(
        written("ucfTrainTestlist/classInd.txt", "1 Archery\n"),
        ("classInd.txt", "1 classes, expected 101"),
        on("ucf101"),
    ),
    "open set with other bytes": Case(
        written("avdigits/avdigits.npz", b"PK"), ("avdigits.npz: sha256 is", "again"), on("av_digits")
    ),
    "open set with a pickled payload": Case(
        written("ravdess_av/ravdess_av.npz", pickle.dumps(Runs(os.system, "true"))),
        ("ravdess_av.npz: sha256",),
        on("ravdess"),
    ),
}

# ----------------------------------------------------------------------------------------------------------- archives


def zipped(*names: str, mode: int = 0, content: bytes = b"film") -> Spoil:
    def make(source: Path) -> None:
        with zipfile.ZipFile(source / ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                info = zipfile.ZipInfo(name)
                info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
                archive.writestr(info, content)

    return make


def tarred(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Spoil:
    def make(source: Path) -> None:
        with tarfile.open(source / ZIP, "w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"film"))

    return make


def liar(source: Path) -> None:
    """A member that says it has 4 bytes and unpacks to a million."""
    zipped("AVE/a.mp4", content=bytes(1_000_000))(source)
    body = (source / ZIP).read_bytes()
    (source / ZIP).write_bytes(body.replace(struct.pack("<I", 1_000_000), struct.pack("<I", 4)))


def gzip_bomb(source: Path) -> None:
    with tarfile.open(source / ZIP, "w:gz", compresslevel=9) as archive:
        info = tarfile.TarInfo("AVE/a.mp4")
        info.size = 30_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))


def half_zip(source: Path) -> None:
    zipped(*(f"AVE/{number}.mp4" for number in range(60)))(source)
    (source / ZIP).write_bytes((source / ZIP).read_bytes()[:2000])


FETCH = ("fetch", "ave", "--to", "SOURCE")
OUT, LINK = (ZIP, "leaves the folder; nothing was unpacked"), (ZIP, "'AVE/a.mp4' is a link or device", "nothing was")
ARCHIVES = {
    "zip that leaves its folder": Case(zipped("AVE/a.mp4", "../../evil"), OUT, FETCH),
    "zip with an absolute name": Case(zipped("/tmp/evil"), OUT, FETCH),
    "zip with a name of another system": Case(zipped("..\\evil"), OUT, FETCH),
    "zip with a link": Case(zipped("AVE/a.mp4", mode=stat.S_IFLNK | 0o777, content=b"/etc/passwd"), LINK, FETCH),
    "zip bomb": Case(zipped("AVE/a.mp4", content=bytes(30_000_000)), (ZIP, "unpack to 30000000", "owner's"), FETCH),
    "zip that lies about a length": Case(liar, (ZIP, "damaged or not an archive", "get it again"), FETCH),
    "zip cut": Case(half_zip, (ZIP, "damaged or not an archive", "get it again"), FETCH),
    "text named .zip": Case(written(ZIP, "quota exceeded"), (ZIP, "damaged or not an archive"), FETCH),
    "tar with an absolute name": Case(tarred("/tmp/evil"), OUT, FETCH),
    "tar that leaves its folder": Case(tarred("AVE/../../evil"), OUT, FETCH),
    "tar with a device": Case(tarred("AVE/a.mp4", tarfile.CHRTYPE), LINK, FETCH),
    "tar with a pipe": Case(tarred("AVE/a.mp4", tarfile.FIFOTYPE), LINK, FETCH),
    "tar with a hard link outside": Case(tarred("AVE/a.mp4", tarfile.LNKTYPE, "/etc/passwd"), LINK, FETCH),
    "tar with a link outside": Case(tarred("AVE/a.mp4", tarfile.SYMTYPE, "../../evil"), LINK, FETCH),
    "gzip bomb": Case(gzip_bomb, (ZIP, "unpack to 30000000"), FETCH),
}

REFUSED = {**PICKLES, **SEQUENCES, **LISTS, **ARCHIVES}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty source; synthetic fold lists count as the official ones, and nothing is downloaded."""
    monkeypatch.setattr(cmu_mosi, "CORPUS", synthetic.small())
    monkeypatch.setitem(SOURCES, "ave", Sources((), SOURCES["ave"].by_hand))
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLCR_DATA", raising=False)
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def there(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refusal(capsys: pytest.CaptureFixture[str], command: Sequence[str], source: Path) -> str:
    """The one line of a command that is refused and leaves nothing behind."""
    before, outside = there(source), set(os.listdir(source.parent)) | {"cache"}
    assert cli.main([str(source) if word == "SOURCE" else word for word in command]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("clcr: ")] == lines[-1:]
    assert "Traceback" not in "".join(lines)
    assert there(source) == before, "nothing was executed, nothing unpacked"
    assert set(os.listdir(source.parent)) <= outside
    left = source.parent / "cache" / "prepared"
    assert not left.is_dir() or there(left) == [], "no half-written folder"
    return lines[-1]


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line(name: str, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = REFUSED[name]
    case.make(source)
    line = refusal(capsys, case.command, source)
    assert all(word in line for word in case.words), line


@pytest.mark.parametrize(
    "name", ["pickle that calls os.system", "pickle that calls eval", "pickle that opens a file to write"]
)
def test_a_plain_reader_would_have_run_it(name: str, source: Path) -> None:
    REFUSED[name].make(source)
    (source / MARK).unlink(missing_ok=True)
    with (source / PICKLE).open("rb") as file:
        pickle.load(file)
    assert (source / MARK).exists()


# -------------------------------------------------------------------------------------- rows and notes of the manifest

NOTED: dict[str, tuple[Spoil, str]] = {
    "an id that stands twice": (
        having("id", ["synth-s1$_$1"] * 2 + [f"synth-s2$_${k}" for k in range(4)]),
        "ids stood twice",
    ),
    "features that are inf": (
        edited(lambda content: content["train"]["audio"].__setitem__((0, 3, 2), -np.inf)),
        "audio: 1 values are not finite",
    ),
    "features that are nan": (
        edited(lambda content: content["valid"]["vision"].__setitem__((0, slice(2), 2), np.nan)),
        "vision: 2 values are not finite",
    ),
    "a length that contradicts the values": (
        edited(lambda content: content["test"]["audio_lengths"].__setitem__(2, 7), "unaligned_50.pkl"),
        "1 stated lengths contradict",
    ),
    "a label that is no number, in a sequence": (
        sequences(lambda made: made["labels"]["synth-v1"].features.__setitem__(2, np.nan)),
        "no_label",
    ),
    "an interval that is no number": (
        sequences(lambda made: made["labels"]["synth-v1"].intervals.__setitem__(2, np.nan)),
        "no_interval",
    ),
    "an interval where nobody speaks": (
        sequences(lambda made: made["labels"]["synth-v1"].intervals.__setitem__(2, [50.0, 60.0])),
        "no_words",
    ),
    "a sequence with values that are not finite": (
        sequences(lambda made: made["audio"]["synth-t1"].features.__setitem__((slice(10), 3), np.nan)),
        "values not finite audio",
    ),
    "a video of no fold": (
        sequences(lambda made: [role.update(other=role["synth-v1"].take(np.arange(2))) for role in made.values()]),
        "no_fold",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTED)
def test_it_is_noted_in_the_manifest(name: str, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, word = NOTED[name]
    make(source)
    assert cli.main(["prepare", "cmu_mosi", "--source", str(source)]) == 0
    told = prepared.parameters(source.parent / "cache" / "prepared" / "cmu_mosi")
    assert word in json.dumps([told["notes"], told["dropped"]])
    data = prepared.load(source.parent / "cache" / "prepared" / "cmu_mosi", verify=True)
    assert all(np.isfinite(array).all() for array in data.arrays.values())
    assert len(set(data.column("id").tolist())) == len(data.column("id"))


# --------------------------------------------------------------------------------- disk, processes, results, profiles


def clcr(*arguments: str, cache: Path, limit: int | None = None) -> subprocess.Popen[str]:
    """The command as a process of its own; ``limit``: bytes that a file may have, as on a disk that is full."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "CLCR_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None,
    )


@pytest.mark.parametrize("limit", [100, 4096, 60_000])
def test_a_disk_that_is_full(limit: int, source: Path) -> None:
    synthetic.dump(source / PICKLE, synthetic.mmsa())
    process = clcr("prepare", "cmu_mosi", "--source", str(source), cache=source.parent / "cache", limit=limit)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.count("\n") == 1
    assert f"{source.parent / 'cache'}: no space left" in err
    assert "CLCR_CACHE" in err
    assert there(source.parent / "cache") == ["prepared"]


def test_a_disk_that_is_full_keeps_what_was_prepared_before(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.dump(source / PICKLE, synthetic.mmsa())
    command = ["prepare", "cmu_mosi", "--source", str(source)]
    assert cli.main(command) == 0
    folder = source.parent / "cache" / "prepared" / "cmu_mosi"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    synthetic.dump(source / PICKLE, synthetic.mmsa(seed=3))

    def fails(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(prepared, "_sync", fails)
    assert cli.main(command) == 2
    assert "no space left (No space left on device)" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_cache_that_is_a_file(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.dump(source / PICKLE, synthetic.mmsa())
    (source.parent / "cache").write_text("mine")
    assert cli.main(["prepare", "cmu_mosi", "--source", str(source)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert (source.parent / "cache").read_text() == "mine"


def test_two_prepares_of_published_files_at_once(source: Path) -> None:
    synthetic.dump(source / PICKLE, synthetic.mmsa())
    cache = source.parent / "cache"
    both = [clcr("prepare", "cmu_mosi", "--source", str(source), cache=cache) for _ in range(2)]
    assert [process.communicate(timeout=120) and process.returncode for process in both] == [0, 0]
    assert len(prepared.load(cache / "prepared" / "cmu_mosi", verify=True).column("id")) == 18
    assert there(cache / "prepared")[0] == "cmu_mosi"
    assert os.listdir(cache / "prepared") == ["cmu_mosi"]


def test_two_prepares_of_media_at_once(source: Path) -> None:
    crema_d(source, 2)
    cache = source.parent / "cache"
    command = ("prepare", "crema_d", "--source", str(source), "--workers", "1")
    both = [clcr(*command, cache=cache) for _ in range(2)]
    ended = sorted((process.communicate(timeout=120)[1].splitlines()[-1], process.returncode) for process in both)
    codes = sorted(code for _, code in ended)
    assert codes in ([0, 2], [0, 0])
    for line, code in ended:
        assert code == 0 or "another `clcr prepare` is at work there; wait for it" in line
    assert len(prepared.load(cache / "prepared" / "crema_d", verify=True).column("id")) == 12
    assert os.listdir(cache / "prepared") == ["crema_d"]


def run_of(out: Path) -> Path:
    """The folder of one finished run."""
    key = RunKey("crema_d", "paper", "twin", "tiny", "linear", "full", 0)
    folder = store.folder_of(out, key)
    folder.mkdir(parents=True)
    store.write_record(folder, RunRecord(key, {}, "done", predictions="0" * 64))
    return folder


@pytest.mark.parametrize("kind", ["payload", "empty", "cut", "text"])
def test_predictions_of_a_stranger(kind: str, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, payload = source.parent / "out", pickle.dumps(Runs(os.mkdir, str(source / MARK)))
    content = {"payload": payload, "empty": b"", "cut": b"PK\x03\x04", "text": b"text"}[kind]
    (run_of(out) / "predictions.npz").write_bytes(content)
    assert cli.main(["report", "--out", str(out)]) == 2
    assert "predictions.npz" in capsys.readouterr().err.splitlines()[-1]
    assert not (out / "tables").exists()
    assert there(source) == []


def test_predictions_with_objects(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source.parent / "out"
    path = run_of(out) / "predictions.npz"
    objects = np.array([Runs(os.mkdir, str(source / MARK))], dtype=object)
    np.savez(path, index=objects, target=objects, prediction=objects)
    assert cli.main(["report", "--out", str(out)]) == 2
    assert "predictions.npz" in capsys.readouterr().err.splitlines()[-1]
    assert there(source) == []


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [MARK]", "!!python/name:os.system ''", "[", "a: b: c"])
def test_a_profile_of_a_stranger(
    tag: str, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"training: {tag.replace('MARK', str(source / MARK))}\n"
    (source.parent / "mine.yaml").write_text(text)
    monkeypatch.setattr(names, "PROFILES", source.parent)
    arguments = [
        "--benchmark",
        "crema_d",
        "--method",
        "linear",
        "--profile",
        "mine",
        "--out",
        str(source.parent / "out"),
    ]
    assert cli.main(["run", *arguments]) == 2
    assert "mine.yaml" in capsys.readouterr().err.splitlines()[-1]
    assert there(source) == []
    assert not (source.parent / "out").exists()


def test_there_are_enough_of_them_and_no_two_are_the_same() -> None:
    assert len(REFUSED) == len(PICKLES) + len(SEQUENCES) + len(LISTS) + len(ARCHIVES)
    every = [*REFUSED, *NOTED, *BAD_MEDIA]
    assert len(set(every)) == len(every) >= 100
    assert len(REFUSED) >= 40
    assert len({id(case.make) for case in REFUSED.values()}) == len(REFUSED)
