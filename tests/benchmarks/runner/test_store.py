from __future__ import annotations

import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_engine
import numpy as np
import pytest

from benchmarks import archive, curves
from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import claims, store

KEY = RunKey("cmu_mosi", "aligned", "twin", "tiny", "clcr", "full", 0)


def finish(out: Path, key: RunKey = KEY, second: int = 0, like: RunKey | None = None, config: int = 0) -> RunRecord:
    """A finished run on disk, with the predictions of the run ``like``."""
    folder = store.folder_of(out, key)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = fake_engine.predictions(like or key)
    archive.write_npz(folder / store.PREDICTIONS, arrays)
    record = RunRecord(
        key,
        {"config": config},
        "done",
        metrics={"test": {"mae": 0.1 + 0.2}},
        predictions=archive.predictions_digest(arrays),
        provenance={"finished_at": f"2026-01-01T00:00:{second:02d}+00:00"},
    )
    store.write_record(folder, record)
    return record


def files(out: Path) -> dict[str, bytes]:
    paths = [path for name in ("records", "predictions") for path in (out / name).iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = finish(tmp_path)
    assert store.read_record(store.folder_of(tmp_path, KEY)) == record
    assert store.read_record(tmp_path / "nothing") is None
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    path, other = tmp_path / "records.jsonl", tmp_path / ".others.jsonl.1.tmp"
    dead, alive = tmp_path / ".records.jsonl.1.tmp", tmp_path / ".records.jsonl.2.tmp"
    for each in (dead, other):
        each.write_bytes(b"half")
    with alive.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        archive.write_bytes(path, b"whole")
        assert sorted(tmp_path.iterdir()) == sorted([path, other, alive])
    archive.write_bytes(path, b"again")
    assert sorted(tmp_path.iterdir()) == sorted([path, other])
    assert path.read_bytes() == b"again"


def test_a_record_that_is_not_a_number_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    record = finish(tmp_path)
    folder = store.folder_of(tmp_path, KEY)
    with pytest.raises(ValueError, match="JSON"):
        store.write_record(folder, replace(record, time_s=float("nan")))
    assert store.read_record(folder) == record


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda raw: raw[: len(raw) // 2], "truncated"),
        (lambda raw: b"[]", "not a JSON object"),
        (lambda raw: b"\xff\xfe", "cannot be read"),
        (lambda raw: raw.replace(b'"schema": 1', b'"schema": 99'), "'schema'"),
        (lambda raw: raw.replace(b'"status": "done"', b'"status": "fine"'), "'status'"),
        (lambda raw: raw.replace(b'"config": 0', b'"config": 1'), "'digest'"),
        (lambda raw: raw.replace(b'"seed": 0', b'"seed": 1'), "'key'"),
        (lambda raw: raw.replace(b'"seed"', b'"grain"'), "'key'"),
        (lambda raw: raw.replace(b'"mae": 0.30000000000000004', b'"mae": "low"'), "'metrics.test.mae'"),
        (lambda raw: raw.replace(b'"time_s"', b'"time"'), "'time"),
        (lambda raw: json.dumps({**json.loads(raw), "metrics": 3}).encode(), "field 'metrics'"),
    ],
)
def test_a_damaged_record_is_refused_by_name_field_and_remedy(tmp_path: Path, damage, word: str) -> None:  # type: ignore[no-untyped-def]
    finish(tmp_path)
    path = store.folder_of(tmp_path, KEY) / store.RECORD
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        store.read_record(path.parent)
    text = str(caught.value)
    assert str(path) in text
    assert word in text
    assert "run again" in text or "expected" in text
    assert "\n" not in text
    with pytest.raises(InputError):
        store.merge(tmp_path)


def attempt_of(out: Path, **changes: Any) -> Path:
    """A finished attempt at KEY, beside its place."""
    made = finish(out / "elsewhere", config=changes.pop("config", 0))
    own = claims.attempt(store.folder_of(out, KEY))
    own.parent.mkdir(parents=True, exist_ok=True)
    store.folder_of(out / "elsewhere", KEY).rename(own)
    store.write_record(own, replace(made, **changes))
    return own


def test_an_attempt_becomes_the_run_whole_and_once(tmp_path: Path) -> None:
    folder = store.folder_of(tmp_path, KEY)
    assert store.publish(attempt_of(tmp_path), folder)
    assert sorted(path.name for path in folder.iterdir()) == [store.PREDICTIONS, store.RECORD]
    second = attempt_of(tmp_path, time_s=7.0)
    assert not store.publish(second, folder)
    assert second.is_dir()
    assert [record.time_s for _, record in store.records(tmp_path)] == [0.0]


@pytest.mark.parametrize("before", ["stale", "failed", "corrupt", "cut short"])
def test_what_does_not_speak_any_more_is_replaced(tmp_path: Path, before: str) -> None:
    folder = store.folder_of(tmp_path, KEY)
    changes = {"stale": {"config": 1}, "failed": {"status": "failed"}}.get(before, {})
    assert store.publish(attempt_of(tmp_path, **changes), folder)
    if before in ("corrupt", "cut short"):
        path = folder / (store.RECORD if before == "corrupt" else store.PREDICTIONS)
        path.write_bytes(path.read_bytes()[:-5])
    assert store.publish(attempt_of(tmp_path, time_s=7.0), folder)
    assert [record.time_s for _, record in store.records(tmp_path)] == [7.0]
    assert not [path for path in folder.parent.iterdir() if path.name not in (folder.name, claims.LOCK)]


def test_a_run_that_was_finished_while_it_was_put_aside_comes_back(tmp_path: Path) -> None:
    """Two that were both taken for the owner meet in the middle of a publication."""
    folder = store.folder_of(tmp_path, KEY)
    store.publish(attempt_of(tmp_path), folder)
    assert not store._put_aside(folder, folder.with_name(".aside"), lambda found: store.is_whole(found, folder))
    assert store.read_run(folder) is not None


def test_quarantine_keeps_the_corrupt_run_under_another_name(tmp_path: Path) -> None:
    finish(tmp_path)
    folder = store.folder_of(tmp_path, KEY)
    (folder / store.RECORD).write_text("{")
    aside = store.quarantine(folder)
    assert (aside / store.RECORD).read_text() == "{"
    assert (aside / store.PREDICTIONS).exists()
    assert store.read_record(folder) is None
    assert store.run_folders(tmp_path) == []


def test_quarantine_gives_back_a_run_that_was_done_anew_in_the_meantime(tmp_path: Path) -> None:
    record = finish(tmp_path)
    folder = store.folder_of(tmp_path, KEY)
    store.quarantine(folder)
    assert store.read_run(folder) == record


def test_paths_and_keys_name_each_other(tmp_path: Path) -> None:
    finish(tmp_path)
    (folder,) = store.run_folders(tmp_path)
    assert store.key_of(folder) == KEY
    assert store.key_of(tmp_path / "a.b.c/m/v/seed-000") is None
    assert store.key_of(tmp_path / "a.b.c.d/m/v/seed-x") is None


def test_an_npz_is_the_same_bytes_for_the_same_arrays_and_numpy_reads_it(tmp_path: Path) -> None:
    arrays = {"b": np.arange(3), "a/x": np.array(["ä", "bb"]), "c": np.float32([[1, 2]]).T, "empty": np.zeros((0, 2))}
    archive.write_npz(tmp_path / "one.npz", arrays)
    archive.write_npz(tmp_path / "two.npz", dict(reversed(arrays.items())))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz", allow_pickle=False) as read:
        assert all(
            np.array_equal(read[name], array) and read[name].dtype == array.dtype for name, array in arrays.items()
        )
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        archive.write_npz(tmp_path / "three.npz", {"o": np.array([{}])})
    assert not (tmp_path / "three.npz").exists()


@pytest.mark.parametrize("damage", [lambda raw: raw[:100], lambda raw: b"", lambda raw: b"PK\x03\x04 no archive"])
def test_a_damaged_npz_is_refused(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    archive.write_npz(tmp_path / "one.npz", {"a": np.arange(50)})
    (tmp_path / "one.npz").write_bytes(damage((tmp_path / "one.npz").read_bytes()))
    with pytest.raises(InputError, match=r"one\.npz.*run again"):
        archive.read_npz(tmp_path / "one.npz", "run again")


def test_merging_twice_changes_nothing_and_order_does_not_matter(tmp_path: Path) -> None:
    keys = [replace(KEY, seed=seed, method=method) for seed in (1, 0) for method in ("misa", "clcr")]
    one, two = tmp_path / "one", tmp_path / "two"
    for key in keys:
        finish(one, key)
    assert store.merge(one) == store.Merged(added=4, refreshed=0, total=4)
    before = files(one)
    times = {path: path.stat().st_mtime_ns for path in one.rglob("*") if path.is_file()}
    assert store.merge(one) == store.Merged(added=0, refreshed=0, total=4)
    assert times == {path: path.stat().st_mtime_ns for path in one.rglob("*") if path.is_file()}
    for key in reversed(keys):
        finish(two, key)
        store.merge(two)
    assert files(two) == before
    assert [record.key for record in store.committed(one, "cmu_mosi")] == sorted(keys)


def test_merging_drops_nothing_that_is_there(tmp_path: Path) -> None:
    first = finish(tmp_path)
    store.merge(tmp_path)
    shutil.rmtree(store.runs_folder(tmp_path))
    other = finish(tmp_path, second=5, like=replace(KEY, seed=7), config=1)
    third = finish(tmp_path, replace(KEY, seed=1))
    store.merge(tmp_path)
    assert store.committed(tmp_path, "cmu_mosi") == sorted(
        [first, other, third], key=lambda r: (r.key, r.digest, r.predictions)
    )
    stored = archive.read_npz(tmp_path / "predictions" / "cmu_mosi.npz")
    for record, like in ((first, KEY), (other, replace(KEY, seed=7)), (third, replace(KEY, seed=1))):
        found = archive.predictions_of(stored, record.key, record.predictions)
        expected = fake_engine.predictions(like)
        assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in expected.items()}


def test_what_runs_share_is_stored_once(tmp_path: Path) -> None:
    for seed in range(3):
        finish(tmp_path, replace(KEY, seed=seed))
    store.merge(tmp_path)
    names = list(archive.read_npz(tmp_path / "predictions" / "cmu_mosi.npz"))
    assert sum(name.startswith("twin/aligned/tiny/samples/") for name in names) == 3
    assert sum(name.startswith("twin/aligned/tiny/clcr/full/seed-00") for name in names) == 3


def test_an_equal_rerun_leaves_its_line_as_it_is(tmp_path: Path) -> None:
    finish(tmp_path)
    store.merge(tmp_path)
    before = files(tmp_path)
    finish(tmp_path, second=30)
    store.merge(tmp_path)
    assert files(tmp_path) == before


def test_a_result_that_was_made_again_after_another_speaks_again(tmp_path: Path) -> None:
    finish(tmp_path, second=1)
    store.merge(tmp_path)
    finish(tmp_path, second=2, config=1)
    store.merge(tmp_path)
    again = finish(tmp_path, second=3)
    assert store.merge(tmp_path) == store.Merged(added=0, refreshed=1, total=2)
    assert max(store.committed(tmp_path, "cmu_mosi"), key=store.finished_at) == again


def test_failures_are_merged_too_and_predictions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    failed = RunRecord(replace(KEY, seed=1), {}, "failed", error="RuntimeError: broke")
    folder = store.folder_of(tmp_path, failed.key)
    folder.mkdir(parents=True)
    store.write_record(folder, failed)
    store.merge(tmp_path)
    assert store.committed(tmp_path, "cmu_mosi") == [failed]
    finish(tmp_path)
    archive.write_npz(store.folder_of(tmp_path, KEY) / store.PREDICTIONS, fake_engine.predictions(failed.key))
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"'predictions' of record\.json; delete record\.json"):
        store.merge(tmp_path)
    (store.folder_of(tmp_path, KEY) / store.PREDICTIONS).unlink()
    with pytest.raises(InputError, match=r"predictions\.npz: missing; delete record\.json"):
        store.merge(tmp_path)
    assert files(tmp_path) == before


def test_a_corrupt_committed_line_is_refused_with_its_number(tmp_path: Path) -> None:
    finish(tmp_path)
    store.merge(tmp_path)
    path = tmp_path / "records" / "cmu_mosi.jsonl"
    path.write_text(path.read_text() + '{"schema": 1')
    finish(tmp_path, replace(KEY, seed=1))
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"cmu_mosi\.jsonl:2"):
        store.merge(tmp_path)
    assert files(tmp_path) == before


def test_an_out_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="--out"):
            store.check_out(out)
    store.check_out(tmp_path / "new")
    assert [p for p in (tmp_path / "new").rglob("*") if p.is_file()] == []


def rows(folds: int = 2, epochs: int = 3) -> list[dict[str, object]]:
    return [
        {"fold": f, "epoch": e, "loss": {"task": 1 / 3, "total": 1 / 3}, "valid": {"mae": e / 7}, "diagnostics": {}}
        for f in range(folds)
        for e in range(1, epochs + 1)
    ]


def trained(out: Path, lines: list[dict[str, object]]) -> RunRecord:
    """A finished run with learning curves."""
    record = replace(finish(out), selection={"metric": "mae", "epoch": 1, "value": 1 / 7})
    folder = store.folder_of(out, KEY)
    store.write_record(folder, record)
    (folder / curves.FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return record


def test_learning_curves_are_merged_once_with_the_scores_in_full(tmp_path: Path) -> None:
    record = trained(tmp_path, rows())
    store.merge(tmp_path)
    path = tmp_path / "curves" / "cmu_mosi.jsonl"
    course = curves.Course((0.333333,) * 3, (1 / 7, 2 / 7, 3 / 7))
    assert curves.read(path) == {curves.identity(record): curves.Curve("mae", "valid", (course, course))}
    before = path.read_bytes()
    store.merge(tmp_path)
    assert path.read_bytes() == before


def test_curves_that_were_lost_come_back_as_long_as_the_run_is_here(tmp_path: Path) -> None:
    trained(tmp_path, rows())
    store.merge(tmp_path)
    path = tmp_path / "curves" / "cmu_mosi.jsonl"
    before = path.read_bytes()
    path.unlink()
    store.merge(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [rows()[1:], [{"fold": 0}], rows(1)[:1] + rows(1)[2:]])
def test_damaged_curves_are_refused_by_name(tmp_path: Path, damage: list[dict[str, object]]) -> None:
    trained(tmp_path, damage)
    with pytest.raises(InputError, match=r"curves\.jsonl: truncated"):
        store.merge(tmp_path)


@pytest.mark.parametrize(
    ("epoch", "value", "said"), [(1, 0.1, ""), (2, 0.3, "epoch 2"), (1, 0.11, "epoch 1"), (3, 0.1, "3")]
)
def test_an_epoch_that_the_curve_did_not_select_is_told(epoch: int, value: float, said: str) -> None:
    curve = curves.Curve("mae", "valid", (curves.Course((3.0, 2.0, 1.0), (0.1, 0.3, 0.1)),))
    record = RunRecord(KEY, {}, "done", selection={"metric": "mae", "epoch": epoch, "value": value})
    assert said in curves.fault(record, curve)
    assert bool(curves.fault(record, curve)) == bool(said)
