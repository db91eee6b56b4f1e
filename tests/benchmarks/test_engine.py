"""The engine: the same bytes in any order and after any death, one holder at a time, a stated share of losses."""

from __future__ import annotations

import errno
import functools
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from benchmarks import engine, prepared
from benchmarks.engine import ArrayPlan, Clip, Extracted, Job, Options
from benchmarks.errors import InputError
from benchmarks.lists import Table
from benchmarks.media import MediaFault
from benchmarks.prepared import Writer

COUNT = 12


def extract(clip: Clip, log: str = "", pause: float = 0.0) -> Extracted:
    """A synthetic decoder: the clip's bytes tell what becomes of it."""
    text = clip.files["video"].read_text()
    if log:
        with open(log, "a") as file:
            file.write(f"{clip.id}\n")
    time.sleep(pause)
    if text.startswith("crash") and os.environ.get("CLCR_TEST_MAIN") != str(os.getpid()):
        os.kill(os.getpid(), signal.SIGSEGV)
    if text.startswith("hang") and not Path(text[5:]).exists():
        os.read(os.pipe()[0], 1)
    if text.startswith("bad"):
        raise MediaFault("damaged", "no picture")
    seed = int(clip.id.removeprefix("clip"))
    values = np.random.default_rng(seed).integers(0, 255, (3, 4)).astype(np.uint8)
    return {"frames": values, "sound": values.astype("<f2")[0]}, "odd" if text.startswith("odd") else ""


def job(root: Path, count: int = COUNT, max_loss: float = 0.5, **more: object) -> Job:
    """A job over small text files; those that exist keep what they say."""
    root.mkdir(exist_ok=True)
    ids = [f"clip{number}" for number in range(count)]
    for name in ids:
        if not (root / f"{name}.avi").exists():
            (root / f"{name}.avi").write_text("good")
    part = np.array(["train", "test"] * (count // 2))
    table = Table(np.array(ids), np.arange(count) % 3, np.arange(count), {"split.paper": part})
    clips = [Clip(name, {"video": root / f"{name}.avi"} if (root / f"{name}.avi").read_text() else {}) for name in ids]
    arrays = {"frames": ArrayPlan((3, 4), "|u1", {"scale": 1 / 255, "offset": 0.0}), "sound": ArrayPlan((4,), "<f2")}
    return Job(
        "toy", clips, ("video",), arrays, functools.partial(extract, **more), table, {"preset": "plain"},
        {"paper": {"train": 6, "test": 6}}, classes=("a", "b", "c"), max_loss=max_loss,
    )  # fmt: skip


def prepare(folder: Path, what: Job, **options: object) -> Path:
    with engine.area(engine.partial_folder(folder)) as held, Writer(folder, what.name) as writer:
        engine.run(what, writer, held, Options(**options))  # type: ignore[arg-type]
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "clip5.avi").write_text("bad")
    found = [everything(prepare(tmp_path / str(n), job(tmp_path / "src"), workers=n)) for n in (0, 1, 3)]
    assert found[0] == found[1] == found[2]
    assert not list(tmp_path.glob(".*"))


def test_lost_clips_leave_no_rows_and_stand_in_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for number, text in ((3, "bad"), (7, ""), (8, "odd")):
        (tmp_path / "src" / f"clip{number}.avi").write_text(text)
    folder = prepare(tmp_path / "toy", job(tmp_path / "src"))
    data, made = prepared.load(folder, verify=True), prepared.parameters(folder)
    assert data.column("id").tolist() == [f"clip{n}" for n in range(COUNT) if n not in (3, 7)]
    for row, name in enumerate(data.column("id").tolist()):
        expected, _ = extract(Clip(name, {"video": tmp_path / "src" / f"{name}.avi"}))
        np.testing.assert_array_equal(data.array("frames")[row], expected["frames"])
        np.testing.assert_array_equal(data.array("sound")[row], expected["sound"])
    assert [(loss["id"], loss["reason"]) for loss in made["dropped"]] == [("clip3", "damaged"), ("clip7", "missing")]
    assert made["counts"] == {"paper": {"train": [6, 6], "test": [4, 6]}}
    assert made["lost_by_class"] == {"a": [1, 4], "b": [1, 4]}
    assert made["remarks"] == {"clip8": "odd"}
    assert data.meta["frames"] == {"scale": 1 / 255, "offset": 0.0}
    assert prepared.verify(folder)["all"]


def test_above_the_allowed_share_nothing_is_published_and_the_list_says_why(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for number in range(4):
        (tmp_path / "src" / f"clip{number}.avi").write_text("bad")
    with pytest.raises(InputError, match=r"4 of 12 clips lost \(damaged 4\), at most 20.0% allowed"):
        prepare(tmp_path / "toy", job(tmp_path / "src", max_loss=0.2))
    assert not (tmp_path / "toy").exists()
    assert (tmp_path / "toy.losses.txt").read_text().count("\n") == 4
    assert prepare(tmp_path / "toy", job(tmp_path / "src", max_loss=0.2), max_loss=0.4)


def test_missing_files_stop_it_before_anything_is_decoded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "src").mkdir()
    for number in range(9):
        (tmp_path / "src" / f"clip{number}.avi").write_text("")
    with pytest.raises(InputError, match="missing 9"):
        prepare(tmp_path / "toy", job(tmp_path / "src", log=str(log)))
    assert not log.exists()


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, src = tmp_path / "log", tmp_path / "src"
    whole = everything(prepare(tmp_path / "whole" / "toy", job(src, log=str(log))))
    log.unlink()
    put, calls = engine.Area.put, []

    def dies(self: engine.Area, *args: object) -> None:
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        put(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.Area, "put", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "toy", job(src, log=str(log)))
    monkeypatch.setattr(engine.Area, "put", put)
    assert not (tmp_path / "toy").exists()
    log.unlink()
    told: list[str] = []
    assert everything(prepare(tmp_path / "toy", job(src, log=str(log)), tell=told.append)) == whole
    assert len(log.read_text().split()) == COUNT - 5
    assert told[0] == "toy: 5 of 12 clips are done already"


def leave(folder: Path, what: Job, rows: dict[int, dict[str, np.ndarray]]) -> None:
    """An interrupted preparation with these rows done."""
    with suppress(KeyboardInterrupt), engine.area(folder / ".partial-toy") as held:
        held.open(what, range(COUNT))
        for row, values in rows.items():
            held.put({"row": row, "crc": held.rows.write(row, values), "remark": ""})
        raise KeyboardInterrupt


def test_a_row_that_was_spoilt_on_the_disk_is_done_again(tmp_path: Path) -> None:
    what = job(tmp_path / "src")
    leave(tmp_path, what, {row: extract(what.clips[row])[0] for row in range(COUNT)})
    path = tmp_path / ".partial-toy" / "frames.npy"
    body = bytearray(path.read_bytes())
    body[-5] ^= 255
    path.write_bytes(bytes(body))
    with (tmp_path / ".partial-toy" / engine.JOURNAL).open("a") as file:
        file.write('{"row": 3, "cr')  # the line that a killed process was writing
    expected = everything(prepare(tmp_path / "other" / "toy", what))
    assert everything(prepare(tmp_path / "toy", what)) == expected


def test_another_job_does_not_go_on_with_these_rows(tmp_path: Path) -> None:
    leave(tmp_path, job(tmp_path / "src"), {0: {"frames": np.full((3, 4), 9, np.uint8), "sound": np.zeros(4, "<f2")}})
    (tmp_path / "src" / "clip0.avi").write_text("good, and changed since")
    assert prepared.load(prepare(tmp_path / "toy", job(tmp_path / "src"))).array("frames")[0].tolist() != [[9] * 4] * 3


def test_a_killed_preparation_goes_on(tmp_path: Path) -> None:
    log, src = tmp_path / "log", tmp_path / "src"
    expected = everything(prepare(tmp_path / "whole" / "toy", job(src)))
    code = (
        "import sys; from pathlib import Path; import test_engine as t\n"
        f"t.prepare(Path({str(tmp_path / 'toy')!r}), t.job(Path({str(src)!r}), log={str(log)!r}, pause=0.2), workers=2)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.getcwd()])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    journal = tmp_path / ".partial-toy" / engine.JOURNAL
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not journal.exists() or journal.read_bytes().count(b"remark") < 3):
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "toy").exists()
    done = journal.read_bytes().count(b"remark")
    assert 3 <= done < COUNT
    log.unlink()
    assert everything(prepare(tmp_path / "toy", job(src, log=str(log)))) == expected
    time.sleep(1.2)  # the killed process's workers end with it
    assert COUNT - done <= len(set(log.read_text().split())) < COUNT


def test_two_at_once_the_second_is_refused_in_one_line(tmp_path: Path) -> None:
    with engine.area(tmp_path / ".partial-toy"):
        with pytest.raises(InputError, match="another `clcr prepare` is at work there") as caught:
            prepare(tmp_path / "toy", job(tmp_path / "src"))
        assert "\n" not in str(caught.value)
    assert prepare(tmp_path / "toy", job(tmp_path / "src")).is_dir()


def test_a_crash_of_the_decoder_costs_that_clip_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLCR_TEST_MAIN", str(os.getpid()))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "clip4.avi").write_text("crash")
    folder = prepare(tmp_path / "toy", job(tmp_path / "src", count=6), workers=1)
    assert prepared.parameters(folder)["dropped"] == [
        {"id": "clip4", "reason": "damaged", "detail": "the decoder crashed"}
    ]
    assert len(prepared.load(folder, verify=True).array("frames")) == 5


def test_a_decoder_that_hangs_costs_that_clip_alone_and_more_time_is_another_chance(tmp_path: Path) -> None:
    log, src, freed = tmp_path / "log", tmp_path / "src", tmp_path / "freed"
    src.mkdir()
    (src / "clip1.avi").write_text(f"hang {freed}")
    strict = job(src, count=6, max_loss=0.0, log=str(log))
    with pytest.raises(InputError, match=r"1 of 6 clips lost \(too_slow 1\)"):
        prepare(tmp_path / "toy", strict, workers=2, clip_timeout=1.0)
    assert (tmp_path / "toy.losses.txt").read_text() == "clip1\ttoo_slow\tno result after 1 s\n"
    log.unlink()
    with pytest.raises(InputError, match=r"too_slow 1"):
        prepare(tmp_path / "toy", strict, workers=2, clip_timeout=1.0)
    assert not log.exists()  # the loss is known
    freed.touch()
    data = prepared.load(prepare(tmp_path / "toy", strict, workers=2, clip_timeout=60.0), verify=True)
    assert log.read_text() == "clip1\n"
    assert data.column("id").tolist() == [f"clip{n}" for n in range(6)]


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = os.pwrite, []

    def full(*args: object) -> int:
        calls.append(args)
        if len(calls) > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InputError, match="no space left on the disk; free some and run the same command"):
        prepare(tmp_path / "toy", job(tmp_path / "src"))
    monkeypatch.setattr(os, "pwrite", write)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".partial")] == ["src"]
    told: list[str] = []
    prepare(tmp_path / "toy", job(tmp_path / "src"), tell=told.append)
    assert told[0] == "toy: 5 of 12 clips are done already"


def test_a_disk_that_is_too_small_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(engine.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"GiB free; set CLCR_CACHE to a larger disk"):
        prepare(tmp_path / "toy", job(tmp_path / "src"))
