"""``clcr prepare`` on small synthetic trees of the four layouts, and on all that is wrong with people's files."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_media import crema_d, place, sounding, tone, write_video, write_wav

from benchmarks import catalog, cli, lists, prepared
from benchmarks.errors import InputError
from benchmarks.preparation import options
from benchmarks.prepared import Prepared
from benchmarks.tasks import ave, kinetics_sounds, ucf101

DATA = os.environ.get("CLCR_DATA", "")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic CREMA-D of 24 clips; tests work on copies."""
    root = tmp_path_factory.mktemp("crema")
    crema_d(root)
    return root


@pytest.fixture
def source(clips: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clips, tmp_path / "source"))


def made(name: str, source: Path, tmp_path: Path, **more: Any) -> tuple[Prepared, dict[str, Any], list[str]]:
    """Prepared in this process: the data, the manifest's parameters and what was told."""
    told: list[str] = []
    chosen = catalog.Options(0, more.get("preset"), more.get("max_loss", 0.5), told.append)
    folder = catalog.prepare(name, source, tmp_path / "cache", chosen)
    return prepared.load(folder, verify=True), prepared.parameters(folder), told


def published(tmp_path: Path) -> list[str]:
    """What lies in the cache, but for the list of losses and the folder under way."""
    found = tmp_path / "cache" / "prepared"
    names = (path.name for path in found.iterdir()) if found.is_dir() else iter(())
    return [name for name in names if not name.startswith(".partial") and not name.endswith(".losses.txt")]


# ----------------------------------------------------------------------------------------------------- four layouts


def test_crema_d_from_flv_and_wav(source: Path, tmp_path: Path) -> None:
    data, parameters, told = made("crema_d", source, tmp_path)
    assert data.array("frames").shape == (24, 3, 224, 224, 3)
    assert data.array("spectrogram").shape == (24, 188, 257)
    assert data.array("spectrogram").dtype == np.float16
    np.testing.assert_allclose(
        [place(frame) for frame in data.array("frames")[5]], [2 / 11, 6 / 11, 10 / 11], atol=0.05
    )
    assert data.column("label")[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert parameters["preset"] == "ogm_ge"
    assert parameters["audio"]["rate"] == 22050
    assert parameters["audio"]["hop"] == 353
    assert parameters["counts"]["paper"] == {"train+valid": [18, 6698], "test": [6, 744]}
    assert any(line.startswith("crema_d: protocol paper: ") for line in told)  # not what the protocol officially is
    assert {"av", "numpy"} <= set(parameters["tools"])
    assert not parameters["dropped"]


def test_mp4_beside_flat_wav_gives_the_same_clips(tmp_path: Path) -> None:
    ids = crema_d(tmp_path / "source", 2, ".mp4")
    for path in [*(tmp_path / "source").rglob("*.wav"), *(tmp_path / "source").rglob("*.mp4")]:
        path.rename(tmp_path / "source" / path.name)
    data, _, _ = made("crema_d", tmp_path / "source", tmp_path)
    assert data.column("id").tolist() == ids


@pytest.mark.parametrize(("preset", "shape"), [("fbank", (1024, 128)), ("pmr", (299, 257)), ("logmel", (298, 128))])
def test_presets_of_crema_d(preset: str, shape: tuple[int, int], source: Path, tmp_path: Path) -> None:
    data, parameters, told = made("crema_d", source, tmp_path, preset=preset)
    assert data.array("spectrogram").shape[1:] == shape
    assert any("its runs read [188, 257]; to run it prepare the default preset" in line for line in told)
    assert parameters["preset"] == preset
    assert parameters["reason"]


def kinetics(root: Path, layout: Callable[[int, str], str]) -> None:
    """Two clips of each of the 31 classes; the second of each class tests."""
    train, test = [], []
    video = sounding(root / "one.mp4", 4.0)
    for label in range(31):
        for number, rows in enumerate((train, test)):
            name = f"vid{label:03d}{number}-_aB_"[:11]
            start = 7 * label
            rows.append(f"{name}_{start}_{start + 10},10,{label}" if rows is train else f"{name}_{start},10,{label}")
            path = root / layout(label, f"{name}_{start:06d}_{start + 10:06d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(video, path)
    video.unlink()
    (root / "my_train.txt").write_text("\n".join(train) + "\n")
    (root / "my_test.txt").write_text("\n".join(test) + "\n")


@pytest.mark.parametrize(
    "layout",
    [
        lambda label, clip: f"train/{kinetics_sounds.CLASSES[label].replace('_', ' ')}/{clip}.mp4",
        lambda _, clip: f"{clip}.mp4",
        lambda _, clip: "_".join([clip[:11], *(str(int(part)) for part in clip[12:].split("_"))]) + ".mp4",
    ],
    ids=["kinetics-400 tree", "flat", "without leading zeros"],
)
def test_kinetics_sounds_in_the_usual_layouts(layout: Callable[[int, str], str], tmp_path: Path) -> None:
    kinetics(tmp_path / "source", layout)
    next((tmp_path / "source").rglob("vid0120*.mp4")).unlink()
    chosen = options(None, None, None, lambda _: None)
    job = catalog.job_of("kinetics_sounds", tmp_path / "source")
    assert job is not None
    from benchmarks import engine

    found, losses = engine.survey(job)
    assert len(found) == 61
    assert [loss.reason for loss in losses] == ["missing"]
    assert engine.lost_by_class(job, found) == {"playing_harmonica"[:0] + kinetics_sounds.CLASSES[12]: [1, 2]}
    assert chosen.workers >= 1
    values, remark = job.extract(job.clips[found[0]])
    assert values["spectrogram"].shape == (1024, 128)
    assert values["frames"].shape == (3, 224, 224, 3)
    assert remark == ""


def test_the_longer_lineage_of_kinetics_sounds_is_refused(tmp_path: Path) -> None:
    kinetics(tmp_path / "source", lambda _, clip: f"{clip}.mp4")
    with (tmp_path / "source" / "my_train.txt").open("a") as file:
        file.write("abcdefghijk_1_11,10,33\n")
    with pytest.raises(InputError, match="lineage of ARL"):
        catalog.job_of("kinetics_sounds", tmp_path / "source")


def test_ave_takes_the_event_alone(tmp_path: Path) -> None:
    root, rows = tmp_path / "source", []
    for label, name in enumerate(ave.CLASSES):
        for number in range(3):
            video = f"{label:02d}{number}video---"[:11]
            rows.append((number, f"{name}&{video}&good&2&6"))
            if label < 4:
                quiet_then_loud = np.concatenate([0.02 * tone(2.0, 44100), tone(4.0, 44100), 0.02 * tone(4.0, 44100)])
                write_video(root / "AVE" / f"{video}.mp4", 10.0, quiet_then_loud)
    (root / "Annotations.txt").write_text("\n".join(row for _, row in rows) + "\n")
    for number, part in enumerate(("train", "val", "test")):
        (root / f"{part}Set.txt").write_text("\n".join(row for k, row in rows if k == number) + "\n")
    data, parameters, _ = made("ave", root, tmp_path, max_loss=0.9)
    assert data.array("spectrogram").shape == (12, 1004, 257)
    assert data.array("frames").shape == (12, 4, 224, 224, 3)
    np.testing.assert_allclose([place(frame) for frame in data.array("frames")[0]], [0.25, 0.35, 0.45, 0.55], atol=0.04)
    assert parameters["counts"]["paper"]["train"] == [4, 3339]
    loud = data.array("spectrogram")[0].astype(float)[:, 14]  # the tone's bin: as loud at the end as at the start
    assert abs(loud[100:300].mean() - loud[-300:-100].mean()) < 0.5
    assert len(parameters["dropped"]) == 72
    assert set(parameters["lists"]) == {"split.paper", "split.deduplicated"}


def ucf_lists(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    """ucfTrainTestlist for clips of (class, clip, split-1 part 0/1), the three splits alike."""
    names = sorted({action for action, _, _ in rows})
    names += [f"Other{number}" for number in range(101 - len(names))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classInd.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(names, 1)))
    for k in (1, 2, 3):
        train = [f"{action}/{clip}.avi {names.index(action) + 1}\n" for action, clip, part in rows if part == 0]
        test = [f"{action}/{clip}.avi\n" for action, clip, part in rows if part == 1]
        (folder / f"trainlist{k:02d}.txt").write_text("".join(train))
        (folder / f"testlist{k:02d}.txt").write_text("".join(test))


def ucf(root: Path) -> None:
    rows = [(a, f"v_{a}_g{g:02d}_c01", int(g > 3)) for a in ("Archery", "Basketball") for g in range(1, 6)]
    for action, clip, _ in rows:
        write_video(root / "UCF-101" / action / f"{clip}.avi", 1.5, size=(96, 72))
    ucf_lists(root / "ucfTrainTestlist", rows)


@pytest.mark.parametrize("preset", ["farneback", "tvl1"])
def test_ucf101_frames_and_flow(preset: str, tmp_path: Path) -> None:
    ucf(tmp_path / "source")
    if preset == "tvl1":
        for path in sorted((tmp_path / "source").rglob("*.avi"))[1:]:
            path.unlink()
        job = ucf101.plan(tmp_path / "source", preset)
        assert job is not None
        values, _ = job.extract(job.clips[0])
        assert values["flow"].shape == (3, 224, 224, 2)
        assert values["flow"].std() > 1
        return
    data, parameters, _ = made("ucf101", tmp_path / "source", tmp_path, preset=preset)
    assert data.array("rgb").shape == (10, 3, 224, 224, 3)
    assert data.array("flow").shape == (10, 3, 224, 224, 2)
    assert parameters["flow"] == {"algorithm": preset, "bound_pixels": 20.0}
    assert parameters["counts"]["split1"] == {"train+valid": [6, 9537], "test": [4, 3783]}


def test_ucf101_with_published_flow(tmp_path: Path) -> None:
    import cv2

    ucf(tmp_path / "source")
    with pytest.raises(InputError, match="no folder u of published flow"):
        made("ucf101", tmp_path / "source", tmp_path, preset="published")
    clips = sorted(path.stem for path in (tmp_path / "source").rglob("*.avi"))
    for clip in clips[1:]:
        for axis in ("u", "v"):
            folder = tmp_path / "source" / "tvl1_flow" / axis / clip
            folder.mkdir(parents=True)
            for number in range(1, 6):
                cv2.imwrite(str(folder / f"frame{number:06d}.jpg"), np.full((256, 342), 127, np.uint8))
    data, parameters, _ = made("ucf101", tmp_path / "source", tmp_path, preset="published")
    assert len(data.array("flow")) == 9
    assert abs(data.array("flow").astype(int) - 128).max() <= 1
    assert parameters["dropped"] == [{"id": clips[0], "reason": "missing", "detail": "u and v"}]


@pytest.mark.skipif(not DATA, reason="CLCR_DATA is not set: it names the folder of published files")
def test_ucf101_on_true_clips_and_the_official_lists(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with gzip.open(Path(DATA) / "splits" / "ucf101.csv.gz", "rt") as file:
        table = [line.rstrip().split(",") for line in file][1:]
    folder = source / "ucfTrainTestlist"
    folder.mkdir(parents=True)
    names = {row[3]: int(row[5]) for row in table}
    (folder / "classInd.txt").write_text("".join(f"{names[n] + 1} {n}\n" for n in sorted(names, key=names.__getitem__)))
    for split in "123":
        for part in ("train", "test"):
            rows = [row for row in table if row[0] == split and row[1] == part]
            text = "".join(
                f"{row[3]}/{row[2]}.avi" + (f" {int(row[5]) + 1}\n" if part == "train" else "\n") for row in rows
            )
            (folder / f"{part}list0{split}.txt").write_text(text)
    (source / "UCF-101").symlink_to(Path(DATA).resolve() / "ucf101_raw")  # CLCR_DATA may be relative
    data, parameters, told = made("ucf101", source, tmp_path, preset="farneback", max_loss=1.0)
    assert len(data.array("rgb")) == 80
    assert sum(found for found, _ in parameters["counts"]["split1"].values()) == 80
    assert {part: both[1] for part, both in parameters["counts"]["split1"].items()} == {
        "train+valid": 9537,
        "test": 3783,
    }
    assert len(parameters["dropped"]) == 13320 - 80
    assert data.array("rgb").std(axis=(1, 2, 3, 4)).min() > 5
    assert any("officially 9537" in line for line in told)
    arrangement = catalog.arrange(data, catalog.spec("ucf101").protocol("split1"), 0)
    assert set(arrangement.group[arrangement.folds[0].train]).isdisjoint(arrangement.group[arrangement.folds[0].test])  # type: ignore[index]


# ---------------------------------------------------------------------------------------------------- bad media files

CLIP = "1001_IEO_NEU_XX"


def cut(path: Path, share: float) -> None:
    body = path.read_bytes()
    path.write_bytes(body[: int(len(body) * share)])


def wav(root: Path) -> Path:
    return root / "AudioWAV" / f"{CLIP}.wav"


def flv(root: Path) -> Path:
    return root / "VideoFlash" / f"{CLIP}.flv"


def as_mp4(root: Path, share: float) -> None:
    flv(root).unlink()
    cut(write_video(root / "VideoFlash" / f"{CLIP}.mp4", 2.0), share)


def fast_start(root: Path, share: float) -> None:
    import av

    flv(root).unlink()
    whole = write_video(root / "whole.mp4", 4.0)
    path = root / "VideoFlash" / f"{CLIP}.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        track = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = track
                out.mux(packet)
    whole.unlink()
    cut(path, share)


def as_avi(root: Path, share: float) -> None:
    flv(root).unlink()
    cut(write_video(root / "VideoFlash" / f"{CLIP}.avi", 4.0), share)


def header_of(root: Path, at: int, value: bytes) -> None:
    body = bytearray(wav(root).read_bytes())
    body[at : at + len(value)] = value
    wav(root).write_bytes(bytes(body))


def as_socket(path: Path) -> None:
    path.unlink()
    place = Path(os.path.relpath(path))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place) if len(str(place)) < 100 else f"/tmp/{os.getpid()}.sock")
        if len(str(place)) >= 100:
            Path(f"/tmp/{os.getpid()}.sock").rename(path)


def rewire(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "mp4 cut before its index": (lambda root: as_mp4(root, 0.5), "damaged"),
    "flv cut in the middle": (lambda root: cut(flv(root), 0.4), "damaged"),
    "flv cut near its end": (lambda root: cut(write_video(flv(root), 4.0), 0.6), "damaged"),
    "mp4 with its index first, cut": (lambda root: fast_start(root, 0.6), "damaged"),
    "avi cut in the middle": (lambda root: as_avi(root, 0.5), "damaged"),
    "wav cut in the middle": (lambda root: cut(wav(root), 0.5), "damaged"),
    "zero-byte flv": (lambda root: flv(root).write_bytes(b""), "empty"),
    "zero-byte wav": (lambda root: wav(root).write_bytes(b""), "empty"),
    "text named .flv": (lambda root: flv(root).write_text("not a video\n" * 50), "damaged"),
    "text named .wav": (lambda root: wav(root).write_text("not a sound\n" * 50), "damaged"),
    "html error page named .flv": (lambda root: flv(root).write_text("<html>404 Not Found</html>"), "damaged"),
    "random bytes named .flv": (lambda root: flv(root).write_bytes(np.random.default_rng(0).bytes(5000)), "damaged"),
    "git-lfs pointer in place of the flv": (
        lambda root: flv(root).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "damaged",
    ),
    "wav of a header alone": (lambda root: cut(wav(root), 44 / wav(root).stat().st_size), "damaged or too_short"),
    "wav with sample rate zero": (lambda root: header_of(root, 24, b"\0\0\0\0"), "damaged"),
    "wav with no channels": (lambda root: header_of(root, 22, b"\0\0"), "damaged"),
    "wav too short for one window": (lambda root: write_wav(wav(root), tone(0.01)), "too_short"),
    "video without a sound where sound is asked": (
        lambda root: (wav(root).unlink(), flv(root).rename(root / "AudioWAV" / f"{CLIP}.wav")),
        "missing",
    ),
    "sound named .flv": (lambda root: shutil.copy(wav(root), flv(root)), "no_video"),
    "video named .wav": (lambda root: shutil.copy(flv(root), wav(root)), "no_audio"),
    "video of one frame": (lambda root: write_video(flv(root), 0.1), "too_short"),
    "video of two frames": (lambda root: write_video(flv(root), 0.2), "too_short"),
    "missing flv": (lambda root: flv(root).unlink(), "missing"),
    "missing wav": (lambda root: wav(root).unlink(), "missing"),
    "name in lower case": (lambda root: flv(root).rename(flv(root).with_name(f"{CLIP.lower()}.flv")), "missing"),
    "name with a space": (lambda root: flv(root).rename(flv(root).with_name(f"{CLIP} (1).flv")), "missing"),
    "link to nothing": (lambda root: rewire(flv(root), "nowhere.flv"), "not_a_file"),
    "link to itself": (lambda root: rewire(flv(root), flv(root).name), "not_a_file"),
    "folder named as the flv": (lambda root: (flv(root).unlink(), flv(root).mkdir()), "missing"),
    "pipe in place of the wav": (lambda root: (wav(root).unlink(), os.mkfifo(wav(root))), "not_a_file"),
    "socket in place of the wav": (lambda root: as_socket(wav(root)), "not_a_file"),
    "two different files of one name": (
        lambda root: write_video(root / "again" / f"{CLIP}.flv", 0.9),
        "duplicate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_costs_one_clip_and_stands_in_the_manifest(fault: str, source: Path, tmp_path: Path) -> None:
    spoil, reasons = BAD[fault]
    spoil(source)
    data, parameters, _ = made("crema_d", source, tmp_path)
    assert [loss["id"] for loss in parameters["dropped"]] == [CLIP]
    assert parameters["dropped"][0]["reason"] in reasons.split(" or ")
    assert parameters["dropped"][0]["detail"]
    assert str(tmp_path) not in json.dumps(parameters)
    assert len(data.array("frames")) == len(data.array("spectrogram")) == 23
    assert CLIP not in data.column("id").tolist()


GOOD: dict[str, tuple[Callable[[Path], object], str]] = {
    "another sample rate": (lambda root: write_wav(wav(root), tone(1.2, 44100), 44100), ""),
    "stereo": (lambda root: write_wav(wav(root), np.stack([tone(1.2)] * 2, 1)), ""),
    "8-bit and upper-case suffix": (lambda root: wav(root).rename(wav(root).with_suffix(".WAV")), ""),
    "the same file twice": (lambda root: shutil.copytree(root / "VideoFlash", root / "copy"), ""),
    "a folder that links to its parent": (lambda root: (root / "VideoFlash" / "loop").symlink_to(".."), "not_a_file"),
    "resource forks of macOS": (lambda root: (root / "VideoFlash" / f"._{CLIP}.flv").write_bytes(b"\0"), ""),
    "a file of another name": (lambda root: write_wav(root / "AudioWAV" / "noise.wav", tone(1)), "wrong_name"),
    "a portrait video": (lambda root: write_video(flv(root), 1.2, size=(48, 64)), ""),
    "silence": (lambda root: write_wav(wav(root), np.zeros(20000, np.float32)), "silent: kept"),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_odd_but_usable_is_used(case: str, source: Path, tmp_path: Path) -> None:
    change, noted = GOOD[case]
    change(source)
    data, parameters, _ = made("crema_d", source, tmp_path)
    assert len(data.array("frames")) == 24
    assert not parameters["dropped"]
    assert noted in json.dumps([parameters["problems"], parameters["remarks"]])


def test_silence_is_a_loss_where_the_list_has_none(tmp_path: Path) -> None:
    kinetics(tmp_path / "source", lambda _, clip: f"{clip}.mp4")
    job = kinetics_sounds.plan(tmp_path / "source")
    write_video(tmp_path / "silent.mp4", 4.0, np.zeros(4 * 44100, np.float32))
    from benchmarks.engine import Clip
    from benchmarks.media import MediaFault

    with pytest.raises(MediaFault, match="silent"):
        job.extract(Clip("x", {"audio": tmp_path / "silent.mp4", "video": tmp_path / "silent.mp4"}))


def test_a_folder_that_may_not_be_read_is_noted(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "locked").mkdir()
    scan = os.scandir

    def refuse(folder: object) -> Any:  # root, who runs this in containers, may read everything
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    _, parameters, _ = made("crema_d", source, tmp_path)
    assert parameters["problems"] == [{"id": "locked", "reason": "unreadable", "detail": "Permission denied"}]


# ------------------------------------------------------------------------------------------------- the command itself


def clcr(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["prepare", *arguments])
    return code, *capsys.readouterr()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_dry_run_tells_and_writes_nothing(source: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flv(source).unlink()
    code, out, _ = clcr(capsys, "crema_d", "--source", str(source), "--dry-run")
    assert code == 0
    assert "23 of 24 clips found, preset ogm_ge" in out
    assert f"{CLIP}  missing  video" in out
    assert not cache.exists()
    code, out, _ = clcr(capsys, "crema_d", "--source", str(source), "--dry-run", "--json")
    assert json.loads(out)["found"][0]["counts"]["paper"] == {"train+valid": [17, 6698], "test": [6, 744]}


def test_prepare_then_verify_then_spoil(source: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = clcr(capsys, "crema_d", "--source", str(source), "--workers", "2")
    assert code == 0
    assert "24 samples" in out
    assert "24 of 24 clips" in err
    code, out, _ = clcr(capsys, "crema_d", "--verify")
    assert code == 0
    assert "every file is what its manifest says" in out
    path = cache / "prepared" / "crema_d" / "frames.npy"
    path.chmod(0o644)
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(bytes(body))
    code, _, err = clcr(capsys, "crema_d", "--verify")
    assert code == 1
    assert "sha256 differs" in err


REFUSED = {
    "no source": ([], "no source"),
    "a source that is not there": (["--source", "nowhere"], "no such folder"),
    "no lists": (["--source", "EMPTY"], "train.csv: missing"),
    "an unknown preset": (["--source", "SOURCE", "--preset", "ogmge"], "did you mean 'ogm_ge'"),
    "no workers": (["--source", "SOURCE", "--workers", "0"], "at least 1"),
    "no time": (["--source", "SOURCE", "--clip-timeout", "0"], "above 0 seconds"),
    "a share above one": (["--source", "SOURCE", "--max-loss", "5"], "0 to 1"),
    "nothing to verify": (["--verify"], "nothing is prepared there"),
    "no media": (["--source", "LISTS"], "24 of 24 clips lost (missing 24)"),
    "no media allowed": (["--source", "LISTS", "--max-loss", "1"], "24 of 24 clips lost"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_in_one_line(
    case: str,
    source: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CLCR_DATA", raising=False)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "LISTS").mkdir()
    for name in ("train.csv", "test.csv"):
        shutil.copy(source / name, tmp_path / "LISTS" / name)
    arguments, expected = REFUSED[case]
    places = {"SOURCE": source, "EMPTY": tmp_path / "EMPTY", "LISTS": tmp_path / "LISTS"}
    code, out, err = clcr(capsys, "crema_d", *(str(places.get(a, a)) for a in arguments))
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1
    assert out == ""
    assert published(tmp_path) == []


def test_without_the_extra_the_remedy_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'clcr-bench\[media\]'"):
        made("crema_d", source, tmp_path)
    assert published(tmp_path) == []


def test_a_folder_where_a_loss_list_is_wrong_is_not_half_replaced(source: Path, tmp_path: Path) -> None:
    before, _, _ = made("crema_d", source, tmp_path)
    digests = dict(before.digests)
    shutil.rmtree(source / "VideoFlash")
    with pytest.raises(InputError, match="24 of 24 clips lost"):
        made("crema_d", source, tmp_path)
    assert prepared.load(tmp_path / "cache" / "prepared" / "crema_d", verify=True).digests == digests


def test_official_counts_come_from_the_specs() -> None:
    assert catalog.spec("crema_d").protocol("speaker_disjoint").folds == lists.FOLDS
