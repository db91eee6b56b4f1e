"""Computational sequences: alignment against a plain reference of the SDK's documented semantics, and damaged files."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_sentiment as synthetic

from benchmarks import csd, sdk
from benchmarks.errors import InputError

EPSILON = 1e-5
Rows = list[tuple[float, float, list[float]]]


def reference_cut(interval: tuple[float, float], rows: Rows) -> Rows:
    """Every row that meets an interval, one by one, in order of start (stable), cut to the common part."""
    kept = []
    for start, end, values in sorted(rows, key=lambda row: row[0]):
        if interval[1] - start > -EPSILON and end - interval[0] > -EPSILON:
            cut = max(start, interval[0]), min(end, interval[1])
            if abs(cut[0] - cut[1]) > EPSILON:
                kept.append((*cut, values))
    return kept


def reference_segments(words: Rows, other: Rows, labels: Rows, width: int) -> dict[int, Rows]:
    """The SDK's examples in loops: average over each word, zeros for words without, then cut along the labels."""
    found: dict[int, Rows] = {}
    spoken = [(k, w) for k, w in enumerate(words) if abs(w[0] - w[1]) >= EPSILON]
    with_rows, without = [], []
    for k, word in spoken:
        cut = reference_cut((word[0], word[1]), other)
        ends = [t for start, end, _ in cut for t in (start, end)]
        if cut:
            columns = zip(*(values for *_, values in cut), strict=True)
            mean = [math.fsum(c) / len(c) if all(map(math.isfinite, c)) else float(np.sum(c)) for c in columns]
            with_rows.append((min(ends), max(ends), [*mean, float(k)]))
        else:
            without.append((min(word[:2]), max(word[:2]), [0.0] * width + [float(k)]))
    for row, label in enumerate(labels):
        if abs(label[0] - label[1]) >= EPSILON and (cut := reference_cut((label[0], label[1]), with_rows + without)):
            found[row] = cut
    return found


def irregular(rng: np.random.Generator, count: int, mean: float) -> np.ndarray:
    """Unsorted intervals: overlapping, some empty, some shorter than EPSILON, some repeated, some turned round."""
    start = rng.uniform(0, 20, count)
    intervals = np.stack([start, start + rng.exponential(mean, count)], axis=1)
    intervals[::11, 1] = intervals[::11, 0]
    intervals[1::13, 1] = intervals[1::13, 0] + 4e-6
    intervals[2::17] = intervals[2]
    intervals[3::19] = intervals[3::19, ::-1]
    return intervals


def case(seed: int) -> tuple[csd.Entry, csd.Entry, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(120, 4))
    features[rng.random((120, 4)) < 0.02] = np.nan
    features[rng.random((120, 4)) < 0.02] = -np.inf
    features[:, 3] = np.inf
    words = csd.Entry(irregular(rng, 40, 0.5), rng.choice(synthetic.VOCABULARY[:, 0], (40, 1)))
    labels = np.sort(rng.uniform(0, 20, (8, 2)), axis=1)
    labels[0] = labels[0, 0]  # empty
    labels[1] = words.intervals[[4, 9]].min(), words.intervals[[4, 9]].max()  # borders on a word's border
    return words, csd.Entry(irregular(rng, 120, 0.2), features), labels


def as_rows(entry: csd.Entry) -> Rows:
    return [
        (float(s), float(e), [float(v) for v in f]) for (s, e), f in zip(entry.intervals, entry.features, strict=True)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_alignment_is_that_of_the_reference(seed: int) -> None:
    words, audio, labels = case(seed)
    found = csd.segments(words, {"audio": audio}, labels)["audio"]
    spoken = [(float(s), float(e), [0.0]) for s, e in words.intervals]
    expected = reference_segments(spoken, as_rows(audio), [(s, e, []) for s, e in labels.tolist()], 4)
    assert set(found) == set(expected)
    for row, part in found.items():
        assert part.intervals.tolist() == [[start, end] for start, end, _ in expected[row]]
        values = np.array([values for *_, values in expected[row]])
        nonfinite = ~np.isfinite(values)
        assert np.array_equal(np.isfinite(part.features), ~nonfinite)
        np.testing.assert_allclose(part.features[~nonfinite], values[~nonfinite], rtol=1e-12)


@pytest.mark.skipif(importlib.util.find_spec("mmsdk") is None, reason="mmsdk is not installed (see benchmarks/sdk.py)")
@pytest.mark.parametrize("seed", range(3))
def test_alignment_is_bit_for_bit_that_of_mmsdk(seed: int, tmp_path: Path) -> None:
    words, audio, labels = case(seed)
    vision = case(seed + 100)[1]
    entries = {"words": words, "audio": audio, "vision": vision, "labels": csd.Entry(labels, np.ones((len(labels), 1)))}
    paths = {role: tmp_path / f"{role}.csd" for role in entries}
    for role, entry in entries.items():
        csd.write_csd(paths[role], role, {"synthetic": entry}, {})
    theirs, ours = sdk.aligned(paths)["synthetic"], csd.segments(words, {"audio": audio, "vision": vision}, labels)
    for name, parts in ours.items():
        assert set(parts) == set(theirs[name])
        for row, part in parts.items():
            assert np.array_equal(part.intervals, theirs[name][row].intervals)
            assert np.array_equal(part.features, theirs[name][row].features, equal_nan=True)


def test_averages_are_those_that_can_be_checked_by_hand() -> None:
    words = csd.Entry(np.array([[0.0, 1.0], [1.0, 2.0], [5.0, 6.0]]), np.array([[b"a"], [b"b"], [b"c"]]))
    audio = csd.Entry(np.array([[0.5, 1.5], [0.0, 0.5], [1.5, 2.0]]), np.array([[2.0], [4.0], [10.0]]))
    part = csd.segments(words, {"audio": audio}, np.array([[0.0, 6.0]]))["audio"][0]
    assert part.features.tolist() == [[3.0, 0.0], [6.0, 1.0], [0.0, 2.0]]
    assert part.intervals.tolist() == [[0.0, 1.0], [1.0, 2.0], [5.0, 6.0]]


def test_what_only_touches_an_interval_does_not_meet_it() -> None:
    audio = csd.Entry(np.array([[0.0, 1.0], [2.0, 3.0], [1.0, 1.0]]), np.ones((3, 1)))
    assert csd.align_entry(np.array([[1.0, 2.0]]), audio, csd.average) == {}
    assert csd.align_entry(np.array([[1.0, 1.0]]), audio) == {}
    assert csd.align_entry(np.array([[0.5, 2.5]]), csd.Entry(np.zeros((0, 2)), np.zeros((0, 1)))) == {}
    nothing = csd.Entry(np.array([[np.nan, 1.0], [0.0, np.nan], [0.5, 1.5]]), np.array([[1.0], [2.0], [3.0]]))
    assert csd.align_entry(np.array([[0.0, 2.0]]), nothing, csd.average)[0].features.tolist() == [[3.0]]


def test_a_file_comes_back_as_written_and_is_read_video_by_video(tmp_path: Path) -> None:
    made = synthetic.sequences()
    csd.write_csd(tmp_path / "a.csd", "root", made["words"], {"dataset name": "synthetic"})
    with csd.open_csd(tmp_path / "a.csd") as opened:
        assert opened.root == "root"
        assert opened.metadata == {"root name": "root", "dataset name": "synthetic"}
        assert set(opened.ids) == set(made["words"])
        entry = opened.entry("synth-t1")
    assert csd.words(entry.features) == csd.words(made["words"]["synth-t1"].features)
    assert np.array_equal(entry.intervals, made["words"]["synth-t1"].intervals)


def test_videos_that_begin_alike_are_not_removed_together(tmp_path: Path) -> None:
    entry = csd.Entry(np.array([[0.0, 1.0]]), np.ones((1, 1)))
    for name, videos in {"one": ("12", "123", "4"), "two": ("123", "4")}.items():
        csd.write_csd(tmp_path / f"{name}.csd", name, dict.fromkeys(videos, entry), {})
    with csd.open_csd(tmp_path / "one.csd") as one, csd.open_csd(tmp_path / "two.csd") as two:
        assert csd.shared([one, two]) == (("123", "4"), {"12": "two.csd"})  # the SDK also loses "123"


def refused(path: Path, video: str | None = None) -> str:
    with pytest.raises(InputError) as caught, csd.open_csd(path) as opened:
        opened.entry(video or opened.ids[0])
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def write(path: Path, intervals: Any, features: Any) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("root/data/video")
        for name, value in {"intervals": intervals, "features": features}.items():
            if value is not None:
                group.create_dataset(name, data=value)
    return path


@pytest.mark.parametrize(
    ("intervals", "features", "word"),
    [
        (None, np.ones((2, 1)), "cannot be read"),
        (np.ones((2, 2)), None, "cannot be read"),
        (np.ones((2, 3)), np.ones((2, 1)), "intervals [2, 3]"),
        (np.ones((2, 2)), np.ones((3, 1)), "features [3, 1]"),
        (np.ones((2, 2)), np.ones((2, 1, 1)), "features [2, 1, 1]"),
        (np.ones(4), np.ones((2, 1)), "intervals [4]"),
        (np.array([[b"a", b"b"]]), np.ones((1, 1)), "not seconds"),
    ],
)
def test_a_video_of_the_wrong_form(intervals: Any, features: Any, word: str, tmp_path: Path) -> None:
    assert word in refused(write(tmp_path / "x.csd", intervals, features))


def test_files_that_are_no_sequences(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "x.csd"
    assert "missing" in refused(path)
    path.write_bytes(b"no hdf5 at all")
    assert "no HDF5 file" in refused(path)
    path.write_bytes(b"")
    assert "no HDF5 file" in refused(path)
    whole = write(tmp_path / "whole.csd", np.ones((2000, 2)), np.ones((2000, 8))).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(path)
    with h5py.File(path, "w") as file:
        file["something"] = 1
    assert "no <root>/data group" in refused(path) or "damaged" in refused(path)
    with h5py.File(path, "w"):
        pass
    assert "no <root>/data group" in refused(path)
    assert "cannot be read" in refused(write(path, np.ones((1, 2)), np.ones((1, 1))), "another")


def test_corrupt_compressed_blocks_are_an_input_error(tmp_path: Path) -> None:
    import h5py

    path, values = tmp_path / "x.csd", np.random.default_rng(0).normal(size=(500, 20))
    with h5py.File(path, "w") as file:
        file.create_dataset("root/data/video/features", data=values, compression="gzip", fletcher32=True)
        file.create_dataset("root/data/video/intervals", data=np.ones((500, 2)))
        at = file["root/data/video/features"].id.get_chunk_info(0).byte_offset
    body = bytearray(path.read_bytes())
    body[at + 20 : at + 60] = b"\xff" * 40
    path.write_bytes(body)
    assert "cannot be read" in refused(path)


def test_absent_libraries_are_named_with_the_way_to_install_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install '\.\[sdk\]'"):
        csd.open_csd(tmp_path / "x.csd")
    monkeypatch.setitem(sys.modules, "mmsdk", None)
    monkeypatch.setitem(sys.modules, "mmsdk.mmdatasdk", None)
    with pytest.raises(InputError, match=r"setuptools<81.*requests.*no-build-isolation"):
        sdk.library()
