"""Prepared folders: complete or absent, checked when read, closed against names that lead elsewhere."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import prepared
from benchmarks.errors import InputError
from benchmarks.prepared import Prepared, Writer, contents, digest_array, load, with_digests


def write(folder: Path, seed: int = 0) -> Path:
    """A small folder with every kind of column and a ragged array."""
    rng = np.random.default_rng(seed)
    with Writer(folder, "toy") as writer:
        writer.add(
            "audio", rng.integers(0, 255, (6, 5, 3)).astype(np.uint8), np.array([5, 1, 0, 3, 2, 5]), {"scale": 2}
        )
        writer.add("vision", rng.normal(size=(6, 4)).astype(np.float32))
        ids = [f"clip-{i}" for i in range(6)]
        texts = ["", ' "quoted", ', "two\nlines\r\n", "\r", "é 漢", "plain"]
        scores = (rng.normal(size=6) / 3).astype(np.float32)
        writer.samples({"id": ids, "text": texts, "label": np.arange(6), "score": scores, "kept": scores > 0})
        writer.parameter("made_by", "a test")
    return folder


def test_what_is_written_is_read_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = load(write(tmp_path / "toy"), verify=True)
    assert data.origin == "real"
    assert data.name == "toy"
    np.testing.assert_array_equal(data.array("audio"), rng.integers(0, 255, (6, 5, 3)))
    assert data.array("audio").dtype == np.uint8
    np.testing.assert_array_equal(data.lengths["audio"], [5, 1, 0, 3, 2, 5])
    assert data.meta["audio"] == {"scale": 2.0}
    assert data.column("text").tolist() == ["", ' "quoted", ', "two\nlines\r\n", "\r", "é 漢", "plain"]
    assert data.column("score").dtype == np.float32
    np.testing.assert_array_equal(data.column("kept"), data.column("score") > 0)


def test_the_arrays_are_memory_mapped_and_read_only(tmp_path: Path) -> None:
    array = load(write(tmp_path / "toy")).array("vision")
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_digests_are_those_of_the_same_data_in_memory(tmp_path: Path) -> None:
    data = load(write(tmp_path / "toy"))
    arrays = {name: np.array(array) for name, array in data.arrays.items()}
    assert with_digests(Prepared("toy", arrays, data.samples, data.lengths)).digests == data.digests
    assert load(write(tmp_path / "again")).digests == data.digests
    assert load(write(tmp_path / "other", seed=1)).digests != data.digests


def test_a_digest_sees_values_shape_and_type() -> None:
    array = np.arange(6000, dtype=np.int32).reshape(3000, 2)
    changed = array.copy()
    changed[-1, -1] += 1
    others: list[np.ndarray] = [changed, array.reshape(2000, 3), array.astype(np.int64), array.view(np.uint32)]
    assert len({digest_array(other) for other in [array, *others]}) == 5
    assert digest_array(np.asfortranarray(array)) == digest_array(array)


def test_a_failed_preparation_leaves_nothing_or_what_was_there(tmp_path: Path) -> None:
    for folder in (tmp_path / "new", write(tmp_path / "old")):
        before = contents(folder)
        with pytest.raises(InputError, match="lengths"), Writer(folder, "toy") as writer:
            writer.add("audio", np.zeros((2, 2)), np.array([9, 9]))
        assert contents(folder) == before
    assert load(tmp_path / "old", verify=True).array("audio").shape == (6, 5, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_without_samples_nothing_is_published(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"samples\.csv"), Writer(tmp_path / "toy", "toy") as writer:
        writer.add("audio", np.zeros((2, 2)))
    assert not list(tmp_path.iterdir())


def test_preparing_again_replaces_other_data_and_keeps_equal_data(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy")
    inode = (folder / "vision.npy").stat().st_ino
    opened = load(folder).array("vision")
    before = np.array(opened)
    assert (write(folder) / "vision.npy").stat().st_ino == inode
    write(folder, seed=1)
    assert not np.array_equal(load(folder, verify=True).array("vision"), before)
    np.testing.assert_array_equal(opened, before)  # an open reader keeps what it opened
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_damaged_folder_is_mended_by_preparing_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy")
    raw = bytearray((folder / "vision.npy").read_bytes())
    raw[-1] ^= 1
    (folder / "vision.npy").write_bytes(raw)
    load(write(folder), verify=True)


def test_concurrent_writers_leave_one_complete_folder(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for _ in range(10):
                write(tmp_path / "toy", seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed % 3,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    expected = [load(write(tmp_path / f"alone{seed}", seed)).digests for seed in range(3)]
    assert load(tmp_path / "toy", verify=True).digests in expected
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "samples.csv", "x" * 65])
def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="plain name"), Writer(tmp_path / "toy", "toy") as writer:
        writer.add(name, np.zeros((2, 2)))
    folder = write(tmp_path / "good")
    edit(folder, lambda manifest: manifest["arrays"].update({name: manifest["arrays"]["vision"]}))
    with pytest.raises(InputError, match="plain name"):
        load(folder)


@pytest.mark.parametrize(
    ("array", "lengths", "message"),
    [
        (np.array([[1.0], [np.nan]]), None, "row 1 holds a value that is not finite"),
        (np.array([{}, {}], dtype=object), None, "dtype object"),
        (np.zeros((2, 3, 1)), np.array([1, 4]), r"row 1 is 4, not in 0\.\.3"),
        (np.zeros((2, 3, 1)), np.array([-1, 2]), "row 0 is -1"),
        (np.zeros((2, 3, 1)), np.array([1, 2, 3]), "one integer per row"),
        (np.zeros((2, 3, 1)), np.array([1.0, 2.0]), "one integer per row"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(
    tmp_path: Path, array: np.ndarray, lengths: np.ndarray | None, message: str
) -> None:
    with pytest.raises(InputError, match=message), Writer(tmp_path / "toy", "toy") as writer:
        writer.add("audio", array, lengths)


def test_lengths_of_levels_count_tokens(tmp_path: Path) -> None:
    with Writer(tmp_path / "toy", "toy") as writer:
        writer.add("states", np.zeros((2, 3, 9, 4)), np.array([9, 4]))
        writer.samples({"id": ["a", "b"]})
    assert load(tmp_path / "toy").lengths["states"].tolist() == [9, 4]


def test_columns_of_different_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="differ in length"), Writer(tmp_path / "toy", "toy") as writer:
        writer.samples({"id": ["a", "b"], "label": [1]})


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), r"manifest\.json: missing"),
    "manifest cut": (lambda f: truncate(f / "manifest.json"), r"manifest\.json: cannot be read"),
    "manifest of another format": (lambda f: edit(f, lambda m: m.update(format=2)), "field 'format' is 2"),
    "not an object": (lambda f: (f / "manifest.json").write_text("[]"), "field 'format'"),
    "no samples": (lambda f: edit(f, lambda m: m.pop("samples")), r"manifest\.json: .*samples"),
    "no rows": (lambda f: edit(f, lambda m: m["samples"].pop("rows")), "field 'rows'"),
    "no dtype": (lambda f: edit(f, lambda m: m["arrays"]["audio"].pop("dtype")), r"field 'arrays\.audio'"),
    "array gone": (lambda f: (f / "vision.npy").unlink(), r"vision\.npy: missing"),
    "array cut": (lambda f: truncate(f / "vision.npy"), r"vision\.npy: truncated"),
    "array empty": (lambda f: (f / "vision.npy").write_bytes(b""), r"vision\.npy: truncated"),
    "array not npy": (lambda f: (f / "vision.npy").write_bytes(b"PK" * 99), r"vision\.npy: truncated or not"),
    "array of another shape": (lambda f: np.save(f / "vision.npy", np.zeros((6, 5), np.float32)), "manifest says"),
    "lengths changed": (lambda f: np.save(f / "audio.lengths.npy", np.zeros(6, np.int64)), r"audio\.lengths\.npy: sha"),
    "samples gone": (lambda f: (f / "samples.csv").unlink(), r"samples\.csv: missing"),
    "samples cut": (lambda f: truncate(f / "samples.csv"), r"samples\.csv: sha256 differs"),
    "another column": (
        lambda f: edit(f, lambda m: m["samples"]["columns"].update(x={"dtype": "<i8", "digest": ""})),
        r"samples\.csv: does not fit",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_file_and_remedy(tmp_path: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    folder = write(tmp_path / "toy")
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert "clcr prepare toy --source DIR" in str(caught.value)


def test_pickles_are_refused_not_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy")
    np.save(folder / "vision.npy", np.array([{}] * 6), allow_pickle=True)
    with pytest.raises(InputError, match=r"vision\.npy"):
        load(folder)


def test_a_flipped_bit_is_found_by_verification_only(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy")
    raw = bytearray((folder / "audio.npy").read_bytes())
    raw[-1] ^= 1
    (folder / "audio.npy").write_bytes(raw)
    load(folder)
    with pytest.raises(InputError, match=r"audio\.npy: sha256 differs"):
        load(folder, verify=True)


def test_contents_of_a_folder(tmp_path: Path) -> None:
    assert contents(tmp_path) is None
    found = contents(write(tmp_path / "toy"))
    assert found is not None
    assert {"audio", "vision", "samples.text"} <= found


def test_unknown_names_are_met_with_the_nearest(tmp_path: Path) -> None:
    data = load(write(tmp_path / "toy"))
    with pytest.raises(InputError, match="did you mean 'audio'"):
        data.array("audi")
    with pytest.raises(InputError, match="did you mean 'label'"):
        data.column("labels")


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("texts") / "toy"
    with Writer(folder, "toy") as writer:
        writer.samples({"text": texts, "number": np.arange(len(texts)) / 7})
    data = load(folder)
    assert data.column("text").tolist() == texts
    np.testing.assert_array_equal(data.column("number"), np.arange(len(texts)) / 7)
    with (folder / prepared.SAMPLES).open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == len(texts) + 1
