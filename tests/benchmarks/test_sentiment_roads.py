"""CMU-MOSI and CMU-MOSEI from their owners' files, on synthetic files of the true layouts: what is prepared, what is
dropped and why, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_sentiment as synthetic

from benchmarks import catalog, cli, safe_pickle
from benchmarks.csd import Entry
from benchmarks.errors import InputError
from benchmarks.prepared import MANIFEST, Prepared, load
from benchmarks.tasks import cmu_mosei, cmu_mosi, sentiment, sentiment_csd, sentiment_pickles, sentiment_roads

TAKEN = cmu_mosi.CORPUS


@pytest.fixture(autouse=True)
def _small_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The synthetic videos take the place of the official ones."""
    for module in (cmu_mosi, cmu_mosei):
        monkeypatch.setattr(module, "CORPUS", synthetic.small(module.CORPUS))


def prepare(source: Path, name: str = "cmu_mosi") -> tuple[Prepared, dict[str, Any]]:
    folder = catalog.prepare(name, source, source.parent / "cache")
    manifest = json.loads((folder / MANIFEST).read_text())
    return load(folder, verify=True), manifest["parameters"]


def refused(source: Path, name: str = "cmu_mosi") -> str:
    with pytest.raises(InputError) as caught:
        prepare(source, name)
    message = str(caught.value)
    assert "\n" not in message
    assert not (source.parent / "cache" / "prepared" / name).exists()
    return message


def edited(made: synthetic.Sequences, role: str, video: str, **changes: np.ndarray) -> synthetic.Sequences:
    made[role][video] = replace(made[role][video], **changes)
    return made


# --- sequences ---


def test_sequences_become_segments_of_words(tmp_path: Path) -> None:
    made = synthetic.sequences()
    made["words"]["synth-t1"].features[1] = b"sp"  # a pause: no token, in no modality
    synthetic.write_sequences(tmp_path / "source", made)
    data, told = prepare(tmp_path / "source")
    assert told["road"] == "csd"
    assert told["counts"]["standard"] == {"train": [8, 1284], "valid": [4, 229], "test": [8, 686], "all": [20, 2199]}
    assert "20 samples; the SDK's own files hold 2183: -2163" in told["notes"]
    assert told["dropped"] == []
    first = list(data.column("id")).index("synth-t1[0]")
    words = [w.decode() for w in made["words"]["synth-t1"].features[:5, 0]]
    assert data.column("text")[first] == " ".join(words[:1] + words[2:])
    assert data.column("words")[first] == data.lengths["covarep"][first] == data.lengths["facet"][first] == 4
    audio = made["audio"]["synth-t1"].features
    expected = np.stack([audio[10 * k : 10 * k + 10].mean(0) for k in (0, 2, 3, 4)])
    np.testing.assert_allclose(data.array("covarep")[first, :4], expected, rtol=1e-6)
    assert not data.array("covarep")[first, 4:].any()
    assert data.array("word_times")[first, :4].tolist() == [[0, 0.5], [1, 1.5], [1.5, 2], [2, 2.5]]
    assert data.column("sentiment")[first] == np.float32(made["labels"]["synth-t1"].features[0, 0])


def test_prepared_sequences_serve_the_standard_protocol(tmp_path: Path) -> None:
    synthetic.write_sequences(tmp_path / "source", synthetic.sequences())
    data, _ = prepare(tmp_path / "source")
    protocol, kind = catalog.choose("cmu_mosi", None, "auto", tmp_path / "cache")
    assert (protocol.name, kind) == ("standard", "real")
    arrangement = catalog.arrange(data, protocol, 0)
    (fold,) = arrangement.folds
    for split in ("train", "valid", "test"):
        videos = {str(arrangement.group[row]) for row in getattr(fold, split)}
        assert videos == set(synthetic.VIDEOS[split])
    assert not catalog.is_prepared("cmu_mosi", catalog.spec("cmu_mosi").protocol("transcripts"), tmp_path / "cache")


def test_preparing_sequences_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    synthetic.write_sequences(tmp_path / "source", synthetic.sequences())
    one = catalog.prepare("cmu_mosi", tmp_path / "source", tmp_path / "a")
    other = catalog.prepare("cmu_mosi", tmp_path / "source", tmp_path / "b")
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path: Path) -> None:
    made = synthetic.sequences()
    for role, entries in made.items():
        entries["stranger"] = (
            made[role]["synth-t1"] if role != "labels" else Entry(np.array([[0.0, 9.0]]), np.ones((1, 1)))
        )
    labels = made["labels"]["synth-t2"]
    labels.intervals[0] = [1.0, 1.0]
    labels.features[1] = np.nan
    synthetic.write_sequences(tmp_path / "source", made)
    source = tmp_path / "source"
    with pytest.raises(InputError, match=r"3 of 21 samples would be lost, more than 10%.* with --max-loss 0\.143$"):
        prepare(source)
    labels.features[1] = 0.5
    synthetic.write_sequences(source, made)
    _, told = prepare(source)
    assert [(row["id"], row["reason"]) for row in told["dropped"]] == [
        ("stranger[0]", "no_fold"),
        ("synth-t2[0]", "no_interval"),
    ]
    assert all(row["detail"] for row in told["dropped"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda made: made["labels"]["synth-v1"].features.__setitem__(2, np.nan), "no_label"),
        (lambda made: made["labels"]["synth-v1"].intervals.__setitem__(2, [50.0, 60.0]), "no_words"),
        (lambda made: made["labels"]["synth-v1"].intervals.__setitem__(2, np.nan), "no_interval"),
        (lambda made: made["words"]["synth-v1"].features.__setitem__(slice(10, 15), b"sp"), "no_words"),
    ],
)
def test_each_loss_has_its_reason(change: Callable[[Any], None], reason: str, tmp_path: Path) -> None:
    made = synthetic.sequences()
    change(made)
    synthetic.write_sequences(tmp_path / "source", made)
    _, told = prepare(tmp_path / "source")
    assert [(row["id"], row["reason"]) for row in told["dropped"]] == [("synth-v1[2]", reason)]
    assert told["counts"]["standard"]["valid"] == [3, 229]


@pytest.mark.parametrize("how", [[], ["--dry-run"]])
def test_the_share_that_may_be_lost_is_what_the_command_says(
    how: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    made = synthetic.sequences()
    labels = made["labels"]["synth-t2"]
    labels.features[:3] = np.nan
    synthetic.write_sequences(tmp_path / "source", made)
    command = ["prepare", "cmu_mosi", "--source", str(tmp_path / "source"), "--json", *how]
    for share, code in (([], 2), (["--max-loss", "0.14"], 2), (["--max-loss", "0.15"], 0)):
        assert cli.main([*command, *share]) == code, share
        told = capsys.readouterr().err
        assert ("3 of 20 samples would be lost" in told) == (code == 2)


def test_a_video_that_a_file_lacks_is_lost_and_named(tmp_path: Path) -> None:
    made = synthetic.sequences()
    made["labels"]["synth-t2"] = Entry(np.array([[0.0, 5.0]]), np.ones((1, 1)))
    del made["audio"]["synth-t2"]
    synthetic.write_sequences(tmp_path / "source", made)
    _, told = prepare(tmp_path / "source")
    assert [row["reason"] for row in told["dropped"]] == ["missing"]
    assert "CMU_MOSI_COVAREP.csd" in told["dropped"][0]["detail"]


def test_values_that_are_not_finite_become_zeros_and_are_counted(tmp_path: Path) -> None:
    made = synthetic.sequences()
    made["audio"]["synth-t1"].features[0:10, 3] = -np.inf
    made["vision"]["synth-t1"].features[0:5, 0] = np.nan
    made["vision"]["synth-t1"].features[5:10] = 0  # a word without a face
    synthetic.write_sequences(tmp_path / "source", made)
    data, told = prepare(tmp_path / "source")
    first = list(data.column("id")).index("synth-t1[0]")
    assert data.array("covarep")[first, 0, 3] == data.array("facet")[first, 0, 0] == 0
    tally = told["tally"]
    assert (tally["values_not_finite_audio"], tally["values_not_finite_vision"]) == (1, 1)
    assert tally["words_without_vision"] == 1
    assert any("values not finite audio" in note for note in told["notes"])


def test_long_segments_are_cut_at_fifty_words_and_counted(tmp_path: Path) -> None:
    made = synthetic.sequences()
    starts = np.arange(60) / 6
    words = Entry(np.stack([starts, starts + 1 / 6], 1), synthetic.VOCABULARY[np.arange(60) % 3 + 1])
    made["words"]["synth-t1"], made["labels"]["synth-t1"] = words, Entry(np.array([[0.0, 10.0]]), np.ones((1, 1)))
    synthetic.write_sequences(tmp_path / "source", made)
    data, told = prepare(tmp_path / "source")
    row = list(data.column("id")).index("synth-t1[0]")
    assert (data.lengths["covarep"][row], data.column("words")[row], told["tally"]["segments_cut"]) == (50, 60, 1)
    assert len(data.column("text")[row].split()) == 60


def test_mosei_takes_the_sentiment_of_its_seven_labels(tmp_path: Path) -> None:
    made = synthetic.sequences(widths=(74, 35))
    for video, entry in made["labels"].items():
        made["labels"][video] = Entry(entry.intervals, np.column_stack([entry.features, np.full((4, 6), 9.0)]))
    synthetic.write_sequences(tmp_path / "source", made, cmu_mosei.CORPUS)
    data, told = prepare(tmp_path / "source", "cmu_mosei")
    assert data.array("facet").shape == (20, 50, 35)
    assert told["counts"]["standard"]["all"] == [20, 22856]
    assert np.abs(data.column("sentiment")).max() <= 3


def test_the_sdk_s_own_fold_lists_are_parsed_and_never_run(tmp_path: Path) -> None:
    source = tmp_path / "source"
    synthetic.write_sequences(source, synthetic.sequences())
    (source / "mosi_mosei_std_folds.json").unlink()
    assert "no standard folds" in refused(source)
    lists = "".join(f"standard_{split}_fold = {list(videos)!r}\n" for split, videos in synthetic.VIDEOS.items())
    path, mark = source / "cmu_mosi_std_folds.py", tmp_path / "executed"
    path.write_text(f"open({str(mark)!r}, 'w')\n{lists}")
    assert prepare(source)[1]["folds_file"] == path.name
    assert not mark.exists()
    path.write_text(lists.replace("['synth-v1']", "__import__('os').listdir()"))
    with pytest.raises(InputError, match="not the SDK's fold lists"):
        prepare(source)
    path.write_text("standard_train_fold = ['a']\n")
    with pytest.raises(InputError, match="lacks standard_train_fold"):
        prepare(source)


@pytest.mark.parametrize(
    ("lists", "word"),
    [
        ({"train": ["synth-t1"], "valid": ["synth-v1"], "test": ["synth-s1", "synth-s2"]}, "1 different videos"),
        ({"train": ["synth-t1", "synth-t1"], "valid": ["synth-v1"], "test": ["synth-s1", "synth-s2"]}, "of 2 in train"),
        ({"train": ["synth-t1", "synth-s1"], "valid": ["synth-v1"], "test": ["synth-s1", "synth-s2"]}, "in two folds"),
        ({"train": ["synth-t1", "other"], "valid": ["synth-v1"], "test": ["synth-s1", "synth-s2"]}, "standard folds"),
        ({"train": ["synth-t1", "synth-t2"]}, "fold lists"),
    ],
)
def test_wrong_fold_lists_are_refused(lists: dict[str, list[str]], word: str, tmp_path: Path) -> None:
    synthetic.write_sequences(tmp_path / "source", synthetic.sequences())
    path = tmp_path / "source" / "mosi_mosei_std_folds.json"
    path.write_text(json.dumps({"CMU_MOSI": lists}))
    message = refused(tmp_path / "source")
    assert word in message
    assert str(path) in message


def test_the_official_fold_lists_have_the_digest_that_is_asked_for() -> None:
    assert TAKEN.folds_sha256 != synthetic.small().folds_sha256
    assert (sum(TAKEN.videos.values()), sum(TAKEN.counts.values())) == (93, 2199)


@pytest.mark.skipif(
    not os.environ.get("CLCR_DATA"), reason="CLCR_DATA is not set: it names the folder of published files"
)
@pytest.mark.parametrize("corpus", [TAKEN, cmu_mosei.CORPUS], ids=lambda corpus: corpus.name)
def test_the_true_fold_lists_are_taken(corpus: sentiment.Corpus) -> None:
    folds, name = sentiment.std_folds(Path(os.environ["CLCR_DATA"]), corpus)
    assert Counter(folds.values()) == corpus.videos
    assert name == "mosi_mosei_std_folds.json"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda made: made["labels"]["synth-t1"].features.__setitem__(0, 3.5), "label 3.5 is not in [-3, 3]"),
        (lambda made: edited(made, "labels", "synth-t1", features=np.full((4, 1), np.inf)), "label inf"),
        (
            lambda made: edited(made, "audio", "synth-t1", features=np.ones((200, 5), np.float32)),
            "5 features, expected 74",
        ),
        (lambda made: edited(made, "vision", "synth-t1", features=np.ones((99, 47))), "features [99, 47]"),
        (lambda made: edited(made, "vision", "synth-t1", features=np.full((100, 47), b"x")), "not numbers"),
        (lambda made: edited(made, "labels", "synth-t1", features=np.ones((4, 0))), "not numbers"),
        (lambda made: edited(made, "words", "synth-t1", features=np.ones((20, 300))), "not words"),
    ],
)
def test_sequences_of_another_kind_are_refused(change: Callable[[Any], Any], word: str, tmp_path: Path) -> None:
    made = synthetic.sequences()
    change(made)
    synthetic.write_sequences(tmp_path / "source", made)
    assert word in refused(tmp_path / "source")


def test_a_missing_or_damaged_sequence_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    paths = synthetic.write_sequences(source, synthetic.sequences())
    whole = paths["audio"].read_bytes()
    paths["audio"].write_bytes(whole[: len(whole) // 3])
    assert "CMU_MOSI_COVAREP.csd: truncated" in refused(source)
    paths["audio"].unlink()
    assert "missing CMU_MOSI_COVAREP.csd" in refused(source)


# --- pickles ---


def test_mmsa_files_keep_their_true_lengths(tmp_path: Path) -> None:
    source = tmp_path / "source"
    aligned, unaligned = synthetic.mmsa(), synthetic.mmsa("unaligned")
    aligned["train"]["audio"][0, 3, 2] = -np.inf
    synthetic.dump(source / "MOSI/Processed/aligned_50.pkl", aligned)
    synthetic.dump(source / "MOSI/Processed/unaligned_50.pkl", unaligned, protocol=2)
    synthetic.dump(source / "MOSEI/Processed/aligned_50.pkl", {"another": "corpus"})
    data, told = prepare(source)
    assert told["road"] == "mmsa"
    assert set(told["counts"]) == {"mmsa_aligned", "mmsa_unaligned"}
    assert data.array("audio5_unaligned").shape == (18, 500, 5)
    stated = np.concatenate([unaligned[split]["audio_lengths"] for split in sentiment.SPLITS])
    assert data.lengths["audio5_unaligned"].tolist() == stated.tolist()
    assert stated.max() > 50  # MMSA's MISA would have read 50 of them
    row = int(stated.argmax())
    theirs = np.concatenate([unaligned[split]["audio"] for split in sentiment.SPLITS])[row].astype(np.float32)
    assert np.array_equal(data.array("audio5_unaligned")[row, : stated[row]], theirs[: stated[row]])
    assert data.array("audio5")[0, 3, 2] == 0
    assert any("1 values are not finite" in note for note in told["notes"])
    assert np.array_equal(data.lengths["audio5"], data.lengths["vision20"])
    assert data.column("id")[0] == "synth-t1_0"
    assert data.column("text")[0] == "synthetic text 0 of train"
    for name in ("mmsa_aligned", "mmsa_unaligned"):
        protocol = catalog.spec("cmu_mosi").protocol(name)
        catalog.arrange(data, protocol, 0)
        assert catalog.choose("cmu_mosi", name, "real", tmp_path / "cache") == (protocol, "real")


def test_lengths_that_contradict_the_values_are_repaired_and_listed(tmp_path: Path) -> None:
    content = synthetic.mmsa("unaligned")
    truth = content["test"]["audio_lengths"][2]
    content["test"]["audio_lengths"][2] = 7
    synthetic.dump(tmp_path / "source/unaligned_50.pkl", content)
    data, told = prepare(tmp_path / "source")
    assert data.lengths["audio5_unaligned"][14] == truth
    assert told["lengths repaired, unaligned_50.pkl: audio"] == {"count": 1, "first": [["synth-s1_2", 7, truth]]}


def test_mult_files_are_padded_in_front_and_stay_aligned(tmp_path: Path) -> None:
    content = synthetic.mult()
    content["train"]["audio"][0, -1] = 0  # a word without sound stays a word
    synthetic.dump(tmp_path / "source/mosi_data.pkl", content, protocol=2)
    synthetic.dump(tmp_path / "source/mosi_data_noalign.pkl", synthetic.mult("unaligned"), protocol=0)
    data, told = prepare(tmp_path / "source")
    assert told["road"] == "mult"
    count = int((content["train"]["text"][0] != 0).any(1).sum())
    assert data.lengths["glove"][0] == data.lengths["audio5"][0] == data.lengths["vision20"][0] == count
    for array, name in (("glove", "text"), ("audio5", "audio"), ("vision20", "vision")):
        assert np.array_equal(data.array(array)[0, :count], content["train"][name][0, -count:])
    assert data.column("id")[0] == "synth-t1_0_1"
    assert "text" not in data.samples
    protocol = catalog.spec("cmu_mosi").protocol("mult_aligned")
    assert catalog.arrange(data, protocol, 0).target.shape == (18,)


def test_mmsa_s_mosei_serves_the_standard_protocol(tmp_path: Path) -> None:
    synthetic.dump(tmp_path / "source/aligned_50.pkl", synthetic.mmsa(widths=(74, 35)))
    data, told = prepare(tmp_path / "source", "cmu_mosei")
    assert told["counts"] == {
        "standard": {"train": [6, 16326], "valid": [6, 1871], "test": [6, 4659], "all": [18, 22856]}
    }
    assert catalog.choose("cmu_mosei", None, "auto", tmp_path / "cache")[0].name == "standard"
    assert data.array("covarep").shape == (18, 50, 74)


def test_ids_that_stand_twice_are_kept_apart_and_told(tmp_path: Path) -> None:
    content = synthetic.mmsa()
    content["test"]["id"][2] = content["test"]["id"][0]
    synthetic.dump(tmp_path / "source/aligned_50.pkl", content)
    data, told = prepare(tmp_path / "source")
    assert Counter(data.column("id").tolist()).most_common(1)[0][1] == 1
    assert "synth-s1_0#2" in data.column("id")
    assert any("1 ids stood twice" in note for note in told["notes"])


def test_a_video_in_two_splits_is_a_leak_and_refused(tmp_path: Path) -> None:
    content = synthetic.mmsa()
    content["test"]["id"][0] = content["train"]["id"][0]
    synthetic.dump(tmp_path / "source/aligned_50.pkl", content)
    assert "one video is in both train and test" in refused(tmp_path / "source")


def _set(split: str, field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[split].__setitem__(field, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("test"), ["splits train, valid and test"]),
        (lambda content: content["valid"].pop("regression_labels"), ["valid", "'regression_labels' is missing"]),
        (lambda content: content["valid"].pop("audio"), ["valid", "'audio' is missing"]),
        (lambda content: content["valid"].pop("raw_text"), ["'raw_text' is missing"]),
        (_set("train", "regression_labels", np.array([0, 1, 2, 3, 4, 0.0])), ["train: synth-t1_4", "label 4"]),
        (_set("train", "regression_labels", np.full(6, np.nan)), ["label nan"]),
        (_set("train", "regression_labels", np.zeros(5)), ["6 ids but 5 regression_labels"]),
        (_set("train", "regression_labels", np.array(["a"] * 6)), ["not numbers"]),
        (_set("train", "raw_text", np.array(["a"] * 5, dtype=object)), ["5 texts but 6 ids"]),
        (_set("test", "audio", np.zeros((4, 50, 5))), ["audio has 4 rows but there are 6 ids"]),
        (_set("test", "audio", np.zeros((6, 50, 74))), ["audio is float64 [6, 50, 74]"]),
        (_set("test", "audio", np.zeros((6, 51, 5))), ["at most 50"]),
        (_set("test", "vision", np.zeros((6, 40, 20))), ["vision differs in length"]),
        (_set("test", "vision", np.array([["x"]])), ["vision is <U1"]),
        (_set("test", "vision", [[1.0], [1.0, 2.0]]), ["'vision' is ragged"]),
        (_set("test", "id", ["$_$1"] * 6), ["'$_$1' is neither"]),
        (_set("test", "id", "one"), ["'id' is one str"]),
    ],
)
def test_pickles_of_another_content_are_refused(change: Callable[[Any], Any], words: list[str], tmp_path: Path) -> None:
    content = synthetic.mmsa()
    change(content)
    path = synthetic.dump(tmp_path / "source/aligned_50.pkl", content)
    message = refused(tmp_path / "source")
    assert all(word in message for word in [str(path), *words]), message


class _Payload:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        import os

        return os.system, (self.command,)


def test_a_pickle_with_a_payload_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    mark, content = tmp_path / "executed", synthetic.mmsa()
    content["train"]["annotations"] = _Payload(f"touch {mark}")
    synthetic.dump(tmp_path / "source/aligned_50.pkl", content)
    assert "posix.system" in refused(tmp_path / "source")
    assert not mark.exists()


def test_files_of_another_order_are_joined_by_id(tmp_path: Path) -> None:
    aligned, unaligned = synthetic.mmsa(), synthetic.mmsa("unaligned")
    for split, part in unaligned.items():
        unaligned[split] = {name: np.asarray(value)[::-1] for name, value in part.items()}
    synthetic.dump(tmp_path / "source/aligned_50.pkl", aligned)
    synthetic.dump(tmp_path / "source/unaligned_50.pkl", unaligned)
    data, _ = prepare(tmp_path / "source")
    stated = np.concatenate([unaligned[split]["vision_lengths"][::-1] for split in sentiment.SPLITS])
    assert data.lengths["vision20_unaligned"].tolist() == stated.tolist()


def test_files_of_different_releases_are_not_joined(tmp_path: Path) -> None:
    synthetic.dump(tmp_path / "source/aligned_50.pkl", synthetic.mmsa())
    synthetic.dump(tmp_path / "source/unaligned_50.pkl", synthetic.mmsa("unaligned", seed=9))
    assert "take both files from one release" in refused(tmp_path / "source")


# --- looking beforehand ---


def with_losses(made: synthetic.Sequences) -> synthetic.Sequences:
    made["labels"]["synth-v1"].features[2] = np.nan
    made["words"]["synth-t1"].features[5:10] = b"sp"
    return made


def both_pickles(source: Path) -> None:
    synthetic.dump(source / "aligned_50.pkl", synthetic.mmsa())
    synthetic.dump(source / "unaligned_50.pkl", synthetic.mmsa("unaligned"))


@pytest.mark.parametrize(
    "make",
    [
        lambda source: synthetic.write_sequences(source, with_losses(synthetic.sequences())),
        lambda source: synthetic.write_sequences(source / "mmsdk", synthetic.sequences()),
        both_pickles,
        lambda source: synthetic.dump(source / "mosi_data.pkl", synthetic.mult()),
    ],
    ids=["csd", "mmsdk", "mmsa", "mult"],
)
def test_a_dry_run_finds_what_prepare_finds_and_makes_no_array(
    make: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    make(tmp_path / "source")
    with monkeypatch.context() as without:
        without.setattr(sentiment_pickles, "_filled", lambda *_: pytest.fail("an array was made"))
        without.setattr(sentiment_csd, "_padded", lambda *_: pytest.fail("an array was made"))
        without.setattr(sentiment_csd, "sdk", None)
        assert cli.main(["prepare", "cmu_mosi", "--source", str(tmp_path / "source"), "--dry-run", "--json"]) == 0
    (looked,) = json.loads(capsys.readouterr().out)["found"]
    assert not (tmp_path / "cache").exists()
    if looked["road"] != "mmsdk":  # which needs mmsdk itself
        data, told = prepare(tmp_path / "source")
        assert looked["samples"] == len(data.column("id"))
        assert (looked["counts"], looked["dropped"]) == (told["counts"], told["dropped"])


def test_a_dry_run_refuses_what_prepare_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    content = synthetic.mmsa()
    content["test"]["id"][0] = content["train"]["id"][0]
    synthetic.dump(source / "aligned_50.pkl", content)
    with pytest.raises(InputError, match="one video is in both train and test: synth-t1"):
        cmu_mosi.survey(source)
    (source / "aligned_50.pkl").unlink()
    assert cmu_mosi.survey(source) is None
    made = synthetic.sequences(widths=(5, 47))
    synthetic.write_sequences(source, made)
    with pytest.raises(InputError, match="5 features, expected 74"):
        cmu_mosi.survey(source)


def test_large_arrays_stay_in_the_file_and_end_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_pickles(tmp_path / "small" / "source")
    both_pickles(tmp_path / "mapped" / "source")
    small, _ = prepare(tmp_path / "small" / "source")
    monkeypatch.setattr(safe_pickle, "MAPPED", 1)
    monkeypatch.setattr(sentiment_pickles, "_ROWS_AT_ONCE", 4)
    mapped, _ = prepare(tmp_path / "mapped" / "source")
    assert mapped.digests == small.digests


# --- which road ---


def test_an_empty_folder_is_told_what_would_be_read(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    message = refused(tmp_path / "source")
    for name in ("CMU_MOSI_COVAREP.csd", "aligned_50.pkl", "mosi_data.pkl", "mosi/mosi_segments.csv"):
        assert name in message
    assert "--data twin" in refused(tmp_path / "source", "cmu_mosei")


def test_sequences_are_taken_before_pickles_and_the_rest_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    synthetic.write_sequences(source, synthetic.sequences())
    synthetic.dump(source / "aligned_50.pkl", synthetic.mmsa())
    told = prepare(source)[1]
    assert told["road"] == "csd"
    assert any("also here, not read: mmsa (aligned_50.pkl)" in note for note in told["notes"])


def test_ch_sims_and_copies_are_not_mistaken_for_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    synthetic.dump(source / "unaligned_39.pkl", {})
    assert "holds CH-SIMS" in refused(source)
    synthetic.dump(source / "a/aligned_50.pkl", synthetic.mmsa())
    synthetic.dump(source / "b/aligned_50.pkl", synthetic.mmsa())
    assert "keep one of them" in refused(source)


def test_the_sdk_s_road_asks_for_the_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.write_sequences(tmp_path / "source/mmsdk", synthetic.sequences())
    assert list(sentiment_roads.offered(tmp_path / "source", cmu_mosi.CORPUS)) == ["mmsdk"]
    monkeypatch.setitem(sys.modules, "mmsdk.mmdatasdk", None)
    assert "no-build-isolation" in refused(tmp_path / "source")


@pytest.mark.skipif(importlib.util.find_spec("mmsdk") is None, reason="mmsdk is not installed (see benchmarks/sdk.py)")
def test_the_sdk_s_road_ends_in_the_same_arrays(tmp_path: Path) -> None:
    made = synthetic.sequences()
    made["vision"]["synth-t1"].features[7] = np.nan
    made["labels"]["synth-v1"].intervals[2] = [50.0, 60.0]
    synthetic.write_sequences(tmp_path / "ours/source", made)
    synthetic.write_sequences(tmp_path / "theirs/source/mmsdk", made)
    (ours, _), (theirs, told) = prepare(tmp_path / "ours/source"), prepare(tmp_path / "theirs/source")
    assert told["road"] == "mmsdk"
    assert len(told["dropped"]) == 1
    assert ours.digests == theirs.digests


def test_the_road_and_the_protocols_of_the_open_files_stay_what_they_were() -> None:
    names = [protocol.name for protocol in catalog.spec("cmu_mosi").protocols]
    assert names[:3] == ["standard", "transcripts", "utterance"]
    assert set(names[3:]) == {"mmsa_aligned", "mmsa_unaligned", "mult_aligned", "mult_unaligned"}
    assert {p.name for p in catalog.spec("cmu_mosei").protocols} == {
        *("standard", "mmsa_unaligned", "mult_aligned", "mult_unaligned")
    }
