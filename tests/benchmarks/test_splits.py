"""Seeded splits and the reading of published files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.errors import InputError
from benchmarks.published import read_npz, read_table, require
from benchmarks.splits import grouped_folds, held_out, stratified, stream


def test_streams_are_fixed_by_name_and_seed() -> None:
    assert stream("a", 0).integers(0, 2**31, 3).tolist() == stream("a", 0).integers(0, 2**31, 3).tolist()
    firsts = {int(stream(name, seed).integers(0, 2**62)) for name in "abc" for seed in range(3)}
    assert len(firsts) == 9
    assert int(stream("ravdess/clip_random", 0).integers(0, 1000)) == 985  # the same on every machine and version


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_stratified_parts_are_a_partition_in_proportion(seed: int, values: list[int]) -> None:
    labels = np.array(values)
    parts = stratified(labels, (4, 1, 1), np.random.default_rng(seed))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for label in set(values):
        counts = [int((labels[part] == label).sum()) for part in parts]
        total = sum(counts)
        for count, share in zip(counts, (4 / 6, 1 / 6, 1 / 6), strict=True):
            assert abs(count - share * total) <= 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(0, 9), min_size=2, max_size=60), st.floats(0.01, 0.99))
def test_held_out_groups_are_whole(seed: int, values: list[int], share: float) -> None:
    groups = np.array(values)
    held = held_out(groups, share, np.random.default_rng(seed))
    assert not set(groups[held]) & set(groups[~held])
    if len(set(values)) > 1:
        assert 0 < held.sum() < len(groups)
        assert held.sum() >= share * len(groups) or len(set(groups[~held])) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(0, 20), min_size=30, max_size=90))
def test_grouped_folds_keep_groups_whole_and_sizes_alike(seed: int, values: list[int]) -> None:
    groups = np.array(values)
    fold = grouped_folds(groups, 3, np.random.default_rng(seed))
    assert all(len(set(fold[groups == group])) == 1 for group in set(values))
    sizes = np.bincount(fold, minlength=3)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_require_names_what_is_missing_and_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set/a\.npz: missing; put the set there"):
        require(tmp_path, "set/a.npz", "0" * 64, "the set")
    (tmp_path / "a.npz").write_bytes(b"something")
    with pytest.raises(InputError, match=rf"a\.npz: sha256 is {digest(tmp_path / 'a.npz')}, expected 0000"):
        require(tmp_path, "a.npz", "0" * 64, "the set")
    assert require(tmp_path, "a.npz", digest(tmp_path / "a.npz"), "the set") == tmp_path / "a.npz"


def test_npz_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((2, 3)), y=np.array([{}], dtype=object))
    assert read_npz(path, {"x": (2, 3)})["x"].shape == (2, 3)
    for shapes, message in (
        ({"z": (1,)}, "array 'z' is missing, found x, y"),
        ({"x": (3, 2)}, r"'x' has shape \(2, 3\), expected \(3, 2\)"),
        ({"y": (1,)}, "not a plain"),
    ):
        with pytest.raises(InputError, match=message):
            read_npz(path, shapes)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="truncated"):
        read_npz(path, {"x": (2, 3)})


def test_table_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"a, b"\n2,c\n')
    assert read_table(path, ("text",), 2) == {"text": ["a, b", "c"]}
    with pytest.raises(InputError, match="column 'label' is missing"):
        read_table(path, ("label",), 2)
    with pytest.raises(InputError, match="2 rows, expected 3"):
        read_table(path, ("id",), 3)
    path.write_bytes(b"id\n\xff\xfe\n")
    with pytest.raises(InputError, match="not a readable table"):
        read_table(path, ("id",), 1)
    path.write_text("id,text\n1,a\n2\n")
    with pytest.raises(InputError, match="row 3"):
        read_table(path, ("id", "text"), 2)
