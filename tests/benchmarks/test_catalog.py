"""The catalog: names to modules, which data a run reads, arrangements that hold no leak. Data here is synthetic."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import BENCHMARKS, catalog
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Fold, Prepared, Writer, with_digests
from benchmarks.spec import Protocol
from benchmarks.tasks import av_digits, cmu_mosi, ravdess, ucf101


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_row_resolves_to_a_complete_module(name: str) -> None:
    module = catalog.task_module(name)
    assert module.SPEC.name == name
    assert callable(module.prepare)
    assert callable(module.arrange)
    assert (module.TWIN is None) == (module.SPEC.twin_protocol is None)
    names = [protocol.name for protocol in module.SPEC.protocols]
    assert len(set(names)) == len(names)
    for protocol in module.SPEC.protocols:
        assert (protocol.n_classes is None) == (module.SPEC.task == "regression")
        assert protocol.n_classes in (None, len(protocol.classes)) or not protocol.classes


def test_an_unknown_benchmark_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'ravdess'"):
        catalog.task_module("ravdes")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_preparing_from_an_empty_folder_says_what_is_expected(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(InputError) as caught:
        catalog.prepare(name, source, tmp_path / "cache")
    assert str(source) in str(caught.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    with pytest.raises(InputError, match="no such folder"):
        catalog.prepare(name, tmp_path / "nowhere", tmp_path / "cache")


def test_a_wrong_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    (tmp_path / "ravdess_av").mkdir()
    (tmp_path / "ravdess_av/ravdess_av.npz").write_bytes(b"other")
    with pytest.raises(InputError, match=r"ravdess_av\.npz: sha256 is d9298a10.*expected 253c0dc7"):
        catalog.prepare("ravdess", tmp_path, tmp_path / "cache")


def prepare_toy_mosi(cache: Path) -> None:
    """A synthetic folder that serves protocol ``transcripts`` of cmu_mosi and no other."""
    with Writer(catalog.prepared_folder(cache, "cmu_mosi"), "cmu_mosi") as writer:
        writer.add("audio73", np.zeros((3, 73), np.float32))
        fold = ["train", "valid", "test"]
        writer.samples({"text": ["a", "b", "c"], "id": fold, "video": fold, "std_fold": fold, "sentiment": [0.0, 1, 2]})


def test_auto_takes_the_first_prepared_protocol_else_the_twin(tmp_path: Path) -> None:
    protocol, data = catalog.choose("cmu_mosi", None, "auto", tmp_path)
    assert (protocol.name, data) == ("standard", "twin")
    prepare_toy_mosi(tmp_path)
    protocol, data = catalog.choose("cmu_mosi", None, "auto", tmp_path)
    assert (protocol.name, data) == ("transcripts", "real")
    protocol, data = catalog.choose("cmu_mosi", "standard", "auto", tmp_path)
    assert (protocol.name, data) == ("standard", "twin")
    protocol, data = catalog.choose("cmu_mosi", None, "twin", tmp_path)
    assert (protocol.name, data) == ("standard", "twin")
    assert catalog.choose("cmu_mosi", None, "real", tmp_path)[0].name == "transcripts"


def test_where_there_is_nothing_to_run_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `clcr prepare ravdess --source DIR`"):
        catalog.choose("ravdess", None, "auto", tmp_path)
    with pytest.raises(InputError, match="no synthetic twin"):
        catalog.choose("ravdess", None, "twin", tmp_path)
    with pytest.raises(InputError, match="it stands for protocol standard alone"):
        catalog.choose("cmu_mosi", "utterance", "twin", tmp_path)
    with pytest.raises(InputError, match="clcr prepare cmu_mosi"):
        catalog.choose("cmu_mosi", "utterance", "auto", tmp_path)
    with pytest.raises(InputError, match="did you mean 'transcripts'"):
        catalog.choose("cmu_mosi", "transcript", "auto", tmp_path)
    with pytest.raises(InputError, match="did you mean 'twin'"):
        catalog.choose("cmu_mosi", None, "twins", tmp_path)
    with pytest.raises(InputError, match="clcr prepare ravdess"):
        catalog.open_prepared("ravdess", "real", tmp_path)


@pytest.mark.parametrize("name", [n for n in BENCHMARKS if catalog.task_module(n).TWIN is not None])
def test_the_twin_of_a_benchmark_can_be_arranged(name: str, tmp_path: Path) -> None:
    protocol, data = catalog.choose(name, None, "twin", tmp_path)
    prepared = catalog.open_prepared(name, data, tmp_path)
    assert prepared.origin == "twin"
    assert catalog.open_prepared(name, data, tmp_path) is prepared
    arrangement = catalog.arrange(prepared, protocol, 0)
    assert len(catalog.data_digest(prepared, protocol, arrangement)) == 64


def toy(protocol: Protocol, samples: dict[str, np.ndarray], rows: int) -> Prepared:
    """Synthetic arrays of one value for all that a protocol reads, and the given samples."""
    arrays = {m.array: np.zeros((rows, 1), np.uint8) for m in protocol.modalities if m.layout != "text"}
    return with_digests(Prepared("toy", arrays, samples))


def toy_ravdess(protocol: Protocol) -> Prepared:
    """Every actor says every emotion of the eight twice."""
    actor, emotion = (part.ravel() for part in np.mgrid[1:25, 0:16])
    names = np.array(ravdess.SPEC.protocol("actor_disjoint_8").classes)[emotion % 8]
    ids = np.array([f"{a}-{e}" for a, e in zip(actor, emotion, strict=True)])
    return toy(protocol, {"actor": actor, "emotion": names, "id": ids}, len(actor))


def test_ravdess_rotations_hold_actors_apart_and_test_each_clip_once() -> None:
    protocol = ravdess.SPEC.protocol("actor_disjoint")
    data = toy_ravdess(protocol)
    arrangement = ravdess.arrange(data, protocol, 0)
    catalog.check_arrangement(arrangement, data, protocol)
    assert len(arrangement.target) == 24 * 12
    assert arrangement.group is not None
    for fold in arrangement.folds:
        actors = [set(arrangement.group[part].tolist()) for part in (fold.train, fold.valid, fold.test)]
        assert [len(part) for part in actors] == [16, 4, 4]
        assert all(sum(actor % 2 for actor in part) == len(part) // 2 for part in actors)
    assert set(data.column("emotion")[arrangement.rows["audio"]]) == set(protocol.classes)
    again = ravdess.arrange(data, protocol, 7)
    np.testing.assert_array_equal(again.folds[0].test, arrangement.folds[0].test)


def test_ravdess_random_clips_share_actors_and_move_with_the_seed() -> None:
    protocol = ravdess.SPEC.protocol("clip_random_8")
    data = toy_ravdess(protocol)
    one, two = (ravdess.arrange(data, protocol, seed) for seed in (0, 1))
    catalog.check_arrangement(one, data, protocol)
    assert one.group is not None
    assert set(one.group[one.folds[0].test]) <= set(one.group[one.folds[0].train])
    assert set(one.folds[0].test) != set(two.folds[0].test)
    assert len(one.folds[0].test) * 6 == len(one.target)


def toy_mosi() -> Prepared:
    rng = np.random.default_rng(0)
    video = np.array([f"v{i}" for i in rng.integers(0, 40, 400)])
    unseen = np.isin(video, [f"v{i}" for i in range(14)])
    samples = {
        "video": video,
        "id": np.array([f"u{i}" for i in range(400)]),
        "sentiment": rng.normal(size=400).astype(np.float32),
        "unseen_row": np.where(unseen, np.cumsum(unseen) - 1, -1),
    }
    return toy(cmu_mosi.SPEC.protocol("utterance"), samples, 400)


def test_mosi_utterance_folds_never_touch_rows_the_extractors_have_seen() -> None:
    protocol, data = cmu_mosi.SPEC.protocol("utterance"), toy_mosi()
    arrangement = cmu_mosi.arrange(data, protocol, 3)
    catalog.check_arrangement(arrangement, data, protocol)
    unseen = np.flatnonzero(data.column("unseen_row") >= 0)
    np.testing.assert_array_equal(arrangement.rows["audio"], unseen)
    np.testing.assert_array_equal(arrangement.rows["vision"], np.arange(len(unseen)))
    np.testing.assert_array_equal(arrangement.target, data.column("sentiment")[unseen])
    tested = np.sort(np.concatenate([fold.test for fold in arrangement.folds]))
    np.testing.assert_array_equal(tested, np.arange(len(unseen)))
    other = cmu_mosi.arrange(data, protocol, 4)
    assert any(set(a.test) != set(b.test) for a, b in zip(arrangement.folds, other.folds, strict=True))


def test_av_digits_take_the_pairing_of_the_seed() -> None:
    protocol = av_digits.SPEC.protocol("paired")
    pairing = np.repeat(np.arange(5), 30)
    split = np.tile(np.repeat(["train", "valid", "test"], 10), 5)
    samples = {"pairing": pairing, "split": split, "label": np.tile(np.arange(10), 15), "speaker": split}
    samples |= {"id": np.array([f"s{i}" for i in range(150)]), "audio_row": np.arange(150) // 3}
    samples |= {"image_row": np.arange(150)[::-1]}
    data = toy(protocol, samples, 150)
    arrangement = av_digits.arrange(data, protocol, 7)
    catalog.check_arrangement(arrangement, data, protocol)
    np.testing.assert_array_equal(arrangement.rows["audio"], np.arange(60, 90) // 3)
    np.testing.assert_array_equal(arrangement.rows["image"], np.arange(89, 59, -1))
    np.testing.assert_array_equal(arrangement.folds[0].test, np.arange(20, 30))


def test_ucf101_subset_validates_on_whole_groups_and_refuses_other_protocols() -> None:
    protocol = ucf101.SPEC.protocol("subset3")
    group, action = (part.ravel() for part in np.mgrid[1:26, 0:3])
    samples = {"group": group, "action": np.array(protocol.classes)[action], "test1": group <= 7}
    data = toy(protocol, {**samples, "id": np.arange(75).astype(str)}, 75)
    arrangement = ucf101.arrange(data, protocol, 0)
    catalog.check_arrangement(arrangement, data, protocol)
    assert len(arrangement.folds[0].test) == 21
    assert len(arrangement.folds[0].valid) == 12
    with pytest.raises(InputError, match="split1"):
        ucf101.arrange(data, ucf101.SPEC.protocol("split1"), 0)


def small() -> tuple[Arrangement, Prepared, Protocol]:
    protocol = replace(ravdess.SPEC.protocol("actor_disjoint"), folds=1, counts={"train+valid": 4, "test": 2})
    fold = Fold(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    group = np.array([1, 1, 2, 2, 3, 3])
    rows = {"audio": np.arange(6), "vision": np.arange(6)}
    arrangement = Arrangement(rows, np.array([0, 1, 2, 3, 4, 5]), np.array(list("abcdef")), (fold,), group)
    return arrangement, toy(protocol, {"id": np.array(list("abcdef"))}, 6), protocol


LEAKS = {
    "a sample is in both train and test": {"folds": (Fold(np.array([0, 1]), np.array([2, 3]), np.array([1])),)},
    "one actor is in both train and valid": {"group": np.array([1, 2, 2, 2, 3, 3])},
    "no sample in valid": {"folds": (Fold(np.array([0, 1]), np.array([], int), np.array([4])),)},
    "ids are not one unique name": {"ids": np.array(list("abcdea"))},
    "rows of modality vision lie outside": {"rows": {"audio": np.arange(6), "vision": np.arange(1, 7)}},
    r"a target is not in 0\.\.5": {"target": np.array([0, 1, 2, 3, 4, 6])},
    "expected 1": {"folds": ()},
}


@pytest.mark.parametrize("message", LEAKS)
def test_leaks_and_holes_are_refused(message: str) -> None:
    arrangement, data, protocol = small()
    catalog.check_arrangement(arrangement, data, protocol)
    with pytest.raises(InputError, match=message):
        catalog.check_arrangement(replace(arrangement, **LEAKS[message]), data, protocol)  # type: ignore[arg-type]


def test_a_cross_validated_protocol_tests_every_sample_once() -> None:
    arrangement, data, protocol = small()
    fold = arrangement.folds[0]
    twice = replace(arrangement, folds=(fold, replace(fold, train=fold.valid, valid=fold.train)))
    with pytest.raises(InputError, match="tested twice or never"):
        catalog.check_arrangement(twice, data, replace(protocol, folds=2))


def test_test_selected_protocols_may_validate_on_the_test_set() -> None:
    arrangement, data, protocol = small()
    fold = arrangement.folds[0]
    habit = replace(arrangement, folds=(replace(fold, valid=fold.test),))
    with pytest.raises(InputError, match="valid and test"):
        catalog.check_arrangement(habit, data, protocol)
    catalog.check_arrangement(habit, data, replace(protocol, selection="test"))


def test_official_counts_are_held() -> None:
    arrangement, _, protocol = small()
    catalog.check_counts(protocol, arrangement, "toy")
    with pytest.raises(InputError, match="2 samples in train, officially 3"):
        catalog.check_counts(replace(protocol, counts={"train": 3}), arrangement, "toy")


def test_the_data_digest_sees_all_that_determines_the_numbers() -> None:
    arrangement, data, protocol = small()
    fold = arrangement.folds[0]
    digest = catalog.data_digest(data, protocol, arrangement)
    assert digest == catalog.data_digest(data, protocol, arrangement)
    arrays = dict(data.arrays)
    arrays["logmel"] = arrays["logmel"] + 1
    others = [
        (with_digests(replace(data, arrays=arrays)), protocol, arrangement),
        (with_digests(replace(data, lengths={"logmel": np.ones(6, int)})), protocol, arrangement),
        (replace(data, meta={"logmel": {"scale": 2.0}}), protocol, arrangement),
        (data, protocol, replace(arrangement, target=arrangement.target[::-1])),
        (data, protocol, replace(arrangement, group=arrangement.target)),
        (data, protocol, replace(arrangement, ids=arrangement.ids[::-1])),
        (data, protocol, replace(arrangement, rows={**arrangement.rows, "audio": np.arange(6)[::-1]})),
        (data, protocol, replace(arrangement, folds=(replace(fold, train=fold.train[::-1]),))),
    ]
    assert len({digest, *(catalog.data_digest(*other) for other in others)}) == len(others) + 1
    unread = with_digests(replace(data, arrays={**data.arrays, "mfcc": np.ones((6, 2))}))
    assert catalog.data_digest(unread, protocol, arrangement) == digest
    narrow = replace(arrangement, target=arrangement.target.astype(np.int32))
    assert catalog.data_digest(data, protocol, narrow) == digest


def test_the_catalog_loads_no_torch() -> None:
    code = "import sys, benchmarks.catalog as c; [c.spec(n) for n in c.BENCHMARKS]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
