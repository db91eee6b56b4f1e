"""The official lists: bad rows are named, counts and leaks are those of the originals, arrangements follow them."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import catalog, cli, lists
from benchmarks.errors import InputError
from benchmarks.lists import Table
from benchmarks.prepared import Arrangement, Prepared
from benchmarks.tasks.crema_d import CODES

AVE = catalog.spec("ave").protocols[0].classes
FOUR = ("crema_d", "kinetics_sounds", "ave", "ucf101")


def write(path: Path, *rows: str, end: str = "\r\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(row + end for row in rows).encode())
    return path


# ------------------------------------------------------------------------ small lists in the form of the published ones


def crema_d(folder: Path, *extra: str, test: tuple[str, ...] = ("1003_IOM_ANG_HI,ANG",)) -> Table:
    train = write(folder / "train.csv", "1001_IOM_NEU_XX,NEU", "1002_DFA_SAD_XX,SAD", "1003_IOM_HAP_LO,HAP", *extra)
    return lists.read_crema_d(train, write(folder / "test.csv", *test), CODES)


def sounds(folder: Path, *extra: str, classes: int = 31) -> Table:
    rows = [f"{label:011d}_000002_000012,10,{label}" for label in range(classes)]
    train = write(folder / "my_train.txt", *rows, *extra)
    return lists.read_kinetics_sounds(train, write(folder / "my_test.txt", "-3Mwkq-7TV4_2,10,23"))


def ave(folder: Path, *train: str, valid: str = "", annotated: tuple[str, ...] = ()) -> Table:
    parts = {
        "train": [f"Bark&{'a' * 11}&good&0&10", f"Cat&{'a' * 11}&good&0&10", f"Bark&{'b' * 11}&good&2&5", *train],
        "valid": [valid or f"Cat&{'b' * 11}&good&2&5"],
        "test": [f"Goat&{'a' * 11}&good&0&10", f"Bark&{'c' * 11}&good&3&4"],
    }
    everything = annotated or tuple(row for rows in parts.values() for row in rows)
    paths = {part: write(folder / f"{part}Set.txt", *rows, end="\n") for part, rows in parts.items()}
    return lists.read_ave(write(folder / "Annotations.txt", *everything, end="\n"), paths, AVE)


def ucf101(
    folder: Path, *train: str, test: tuple[str, ...] = (), classes: tuple[str, ...] = ("1 Archery", "2 Diving")
) -> Table:
    write(folder / "classInd.txt", *classes, "")
    clips = [f"{name}/v_{name}_g{group:02d}_c01.avi" for name in ("Archery", "Diving") for group in range(1, 13)]
    for number in (1, 2, 3):
        held = [clip for clip in clips if f"g{number:02d}" in clip]
        rest = [f"{clip} {1 + ('Diving' in clip)}" for clip in clips if clip not in held]
        write(folder / f"trainlist{number:02d}.txt", *rest, *train)
        write(folder / f"testlist{number:02d}.txt", *held, *test)
    return lists.read_ucf101(folder, n_classes=2)


MAKERS = {"crema_d": crema_d, "kinetics_sounds": sounds, "ave": ave, "ucf101": ucf101}


def test_crema_d_rows(tmp_path: Path) -> None:
    table = crema_d(tmp_path)
    assert table.id.tolist() == ["1001_IOM_NEU_XX", "1002_DFA_SAD_XX", "1003_IOM_HAP_LO", "1003_IOM_ANG_HI"]
    assert table.label.tolist() == [0, 2, 1, 5]
    assert table.group.tolist() == [1001, 1002, 1003, 1003]
    assert table.columns["split.paper"].tolist() == ["train", "train", "train", "test"]
    assert lists.shared_groups(table.group, table.columns["split.paper"]) == {"train/test": 1}


def test_kinetics_sounds_rows(tmp_path: Path) -> None:
    table = sounds(tmp_path)
    assert (len(table), table.label.tolist()[-1], table.group.tolist()[-1]) == (32, 23, "-3Mwkq-7TV4")
    assert table.columns["clip"].tolist()[-1] == "-3Mwkq-7TV4_000002_000012"
    assert table.columns["clip"].tolist()[0] == "00000000000_000002_000012"


def test_ave_rows_and_the_rule_for_a_video_with_two_labels(tmp_path: Path) -> None:
    table = ave(tmp_path)
    a, b, c = ("a" * 11, "b" * 11, "c" * 11)
    assert table.id.tolist() == [f"{a}_04", f"{a}_06", f"{b}_04", f"{b}_06", f"{a}_14", f"{c}_04"]
    assert table.columns["split.paper"].tolist() == ["train"] * 3 + ["valid"] + ["test"] * 2
    # test keeps all its videos, validation what test has not; of two events in one part the first one stays
    assert table.columns["split.deduplicated"].tolist() == ["", "", "", "valid", "test", "test"]
    only = lists.deduplicated(np.array(["v", "v", "w"]), np.array(["train", "train", "train"]))
    assert only.tolist() == ["train", "", "train"]
    assert table.columns["start"].tolist()[2:4] == [2, 2]


def test_ucf101_rows(tmp_path: Path) -> None:
    table = ucf101(tmp_path)
    assert len(table) == 24
    assert set(zip(table.columns["action"].tolist(), table.label.tolist(), strict=True)) == {
        ("Archery", 0),
        ("Diving", 1),
    }
    row = table.id.tolist().index("v_Diving_g02_c01")
    assert table.group[row] == "Diving_g02"
    assert [table.columns[f"split.split{number}"][row] for number in (1, 2, 3)] == ["train", "test", "train"]


@pytest.mark.parametrize(
    ("make", "row", "words"),
    [
        (crema_d, "1088_IOM_NEU_XX,HAP", ["train.csv: line 4", "'HAP'", "1088_IOM_NEU_XX"]),
        (crema_d, "1088_IOM_JOY_XX,JOY", ["line 4", "'JOY'", "NEU, HAP"]),
        (crema_d, "1088_IOM_NEU_XX", ["line 4", "''"]),
        (crema_d, "clip,emotion", ["line 4", "1088_IOM_NEU_XX,NEU"]),
        (crema_d, "1099_IOM_NEU_XX,NEU", ["line 4", "actor 1001 to 1091"]),
        (crema_d, "../1001_IOM_NEU_XX,NEU", ["line 4"]),
        (crema_d, "1001_IOM_NEU_XX,NEU", ["line 4", "stands there again", "train.csv: line 1"]),
        (sounds, "abc,10,3", ["my_train.txt: line 32", "--4-0ihtnBU"]),
        (sounds, "abcdefghijk_000002_000012,10", ["line 32"]),
        (sounds, "abcdefghijk_000002_000012,10,-1", ["line 32", "'-1'", "a label in 0..30"]),
        (sounds, "abcdefghijk_000002_000012,10,99", ["line 32", "'99'"]),
        (sounds, "abcdefghijk_000002_000012,10,33", ["line 32", "more than 31 classes", "ARL", "not comparable"]),
        (sounds, "00000000003_2,10,3", ["line 32", "00000000003_000002_000012 stands there again"]),
        (ave, "Bark&short&good&0&10", ["Annotations.txt: line 4", "Church bell&RUhOCu3LNXM"]),
        (ave, "Woof&ddddddddddd&good&0&10", ["'Woof'", "28 classes"]),
        (ave, "Bark&ddddddddddd&good&0&11", ["'11'", "0..10"]),
        (ave, "Bark&ddddddddddd&good&7&3", ["starts before it ends"]),
        (ave, "Bark&ddddddddddd&good&0", ["line 4"]),
        (ave, f"Bark&{'a' * 11}&good&0&10", ["line 4", "stands there again"]),
        (ucf101, "Archery/v_Archery_g20_c01.avi", ["trainlist01.txt: line 23", "the number of class Archery, 1"]),
        (ucf101, "Archery/v_Archery_g20_c01.avi 2", ["line 23", "'2'"]),
        (ucf101, "Juggling/v_Juggling_g20_c01.avi 3", ["line 23", "class in classInd.txt"]),
        (ucf101, "Archery/v_Archery_20.avi 1", ["line 23"]),
        (ucf101, "Archery/v_Archery_g02_c01.avi 1", ["line 23", "stands in this split already"]),
    ],
)
def test_a_bad_row_is_named(make: type, row: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        make(tmp_path, row)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_lists_that_do_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an event of"):
        ave(tmp_path, valid=f"Cat&{'e' * 11}&good&0&1", annotated=(f"Bark&{'a' * 11}&good&0&10",))
    everything = [f"Bark&{'a' * 11}&good&0&10", f"Cat&{'a' * 11}&good&0&10", f"Bark&{'b' * 11}&good&2&5"]
    everything += [f"Cat&{'b' * 11}&good&2&5", f"Goat&{'a' * 11}&good&0&10", f"Bark&{'c' * 11}&good&3&4"]
    with pytest.raises(InputError, match="7 events, the three lists hold 6"):
        ave(tmp_path, annotated=(*everything, f"Bark&{'f' * 11}&good&0&1"))
    with pytest.raises(InputError, match=r"30 classes, expected 31 \(label 30 has no row\)"):
        sounds(tmp_path, classes=30)
    with pytest.raises(InputError, match="3 classes, expected 2"):
        ucf101(tmp_path, classes=("1 Archery", "2 Diving", "3 Punch"))
    with pytest.raises(InputError, match="line 2: '3 Diving' is not class number 2"):
        ucf101(tmp_path, classes=("1 Archery", "3 Diving"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = write(tmp_path / "good.csv", "1001_IOM_NEU_XX,NEU")
    (tmp_path / "empty.csv").write_text("\n\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name, words in (
        ("absent", "missing"),
        ("empty.csv", "holds no row"),
        ("binary.csv", "not a readable"),
        (".", "not a readable"),
    ):
        with pytest.raises(InputError, match=words):
            lists.read_crema_d(good, tmp_path / name, CODES)
    with pytest.raises(InputError, match=r"train\.csv: missing; run `clcr fetch crema_d --to .*`"):
        lists.locate(tmp_path, "train.csv", "crema_d", "cremad_train.csv")
    write(tmp_path / "lists" / "train.csv", "x")
    assert lists.locate(tmp_path, "train.csv", "crema_d") == tmp_path / "lists" / "train.csv"


def demographics(path: Path, women: frozenset[int] = lists.WOMEN, actors: range = lists.ACTORS) -> Path:
    rows = [f'{actor},30,"{"Female" if actor in women else "Male"}","-","-"' for actor in actors]
    return write(path, '"ActorID","Age","Sex","Race","Ethnicity"', *rows, end="\n")


def test_actor_folds_are_fixed_and_balanced_by_sex() -> None:
    folds = lists.actor_folds(lists.WOMEN)
    assert sorted(folds) == list(lists.ACTORS)
    assert sorted(Counter(folds.values()).values()) == [18, 18, 18, 18, 19]
    assert sorted(Counter(fold for actor, fold in folds.items() if actor in lists.WOMEN).values()) == [8, 8, 9, 9, 9]
    assert [actor for actor in range(1001, 1021) if folds[actor] == 0] == [1008, 1015, 1018, 1019]


def test_demographics_tell_the_sexes(tmp_path: Path) -> None:
    assert lists.read_women(demographics(tmp_path / "a.csv")) == lists.WOMEN
    with pytest.raises(InputError, match="actor 1091 is missing"):
        lists.read_women(demographics(tmp_path / "b.csv", actors=range(1001, 1091)))
    path = demographics(tmp_path / "c.csv")
    path.write_text(path.read_text().replace("Female", "F"))
    with pytest.raises(InputError, match=r"c\.csv: line 3: .* sex Male or Female"):
        lists.read_women(path)


def test_the_digest_of_a_list_says_what_is_present(tmp_path: Path) -> None:
    table = sounds(tmp_path)
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    assert shuffled.digest("split.available") == table.digest("split.available")
    assert table.take(np.arange(len(table) - 1)).digest("split.available") != table.digest("split.available")


# ------------------------------------------------------------------------------------------------------- arrangements


def prepared(name: str, table: Table) -> Prepared:
    arrays = {m.array: np.zeros((len(table), 1)) for p in catalog.spec(name).protocols for m in p.modalities}
    return Prepared(name, arrays, table.samples())


def synthetic(name: str, folder: Path) -> Table:
    """A list of a few hundred samples in the form that the readers give; every sex, class and part is there."""
    if name != "crema_d":
        table = MAKERS[name](folder)
        if name == "kinetics_sounds":
            rows = [
                f"{label:05d}{copy:06d}_000002_000012,10,{label}" for label in range(31) for copy in range(100, 120)
            ]
            table = MAKERS[name](folder, *rows)
        return table
    rows = [f"{actor}_{text}_{code}_XX,{code}" for actor in lists.ACTORS for text in ("IOM", "DFA") for code in CODES]
    return lists.read_crema_d(write(folder / "train.csv", *rows[::2]), write(folder / "test.csv", *rows[1::2]), CODES)


def arranged(name: str, table: Table, protocol: str, seed: int = 0) -> Arrangement:
    described = replace(catalog.spec(name).protocol(protocol), counts={})
    return catalog.arrange(prepared(name, table), described, seed)


@pytest.mark.parametrize("name", FOUR)
def test_arrangements_pass_the_check_of_leaks_and_keep_the_test_part(name: str, tmp_path: Path) -> None:
    table = synthetic(name, tmp_path)
    for protocol in catalog.spec(name).protocols:
        if protocol.name == "subset3" or protocol.folds > 1 or (name, protocol.name) == ("ave", "deduplicated"):
            continue
        one, other = (arranged(name, table, protocol.name, seed) for seed in (0, 1))
        part = table.columns[f"split.{protocol.name}"]
        for arrangement in (one, other):
            (fold,) = arrangement.folds
            assert set(arrangement.ids[fold.test]) == set(table.id[part == "test"])
            used = np.concatenate([fold.train, fold.valid])
            if protocol.selection == "validation":
                assert sorted(arrangement.ids[used]) == sorted(table.id[np.isin(part, ("train", "valid"))])
            else:
                assert fold.valid.tolist() == fold.test.tolist()
                assert len(fold.train) == (part == "train").sum()
        moves = "valid" not in part and protocol.selection == "validation"
        assert (one.folds[0].valid.tolist() != other.folds[0].valid.tolist()) == moves


def test_validation_of_crema_d_is_a_tenth_by_class(tmp_path: Path) -> None:
    table = synthetic("crema_d", tmp_path)
    (fold,) = arranged("crema_d", table, "paper").folds
    train, valid = (Counter(table.label[part].tolist()) for part in (fold.train, fold.valid))
    for label in train:
        assert valid[label] == round((train[label] + valid[label]) * 0.1)


def test_speaker_disjoint_tests_every_clip_once_and_every_actor_in_one_part(tmp_path: Path) -> None:
    table = synthetic("crema_d", tmp_path)
    one, other = (arranged("crema_d", table, "speaker_disjoint", seed) for seed in (0, 7))
    assert sorted(np.concatenate([fold.test for fold in one.folds]).tolist()) == list(range(len(table)))
    for fold, same in zip(one.folds, other.folds, strict=True):
        actors = [set(table.group[part].tolist()) for part in (fold.train, fold.valid, fold.test)]
        assert sum(map(len, actors)) == 91
        assert len(set.union(*actors)) == 91
        assert fold.valid.tolist() == same.valid.tolist()


def test_validation_of_ucf101_takes_the_same_groups_in_all_classes(tmp_path: Path) -> None:
    table = ucf101(tmp_path)
    (fold,) = arranged("ucf101", table, "split2").folds
    numbers = {name.rpartition("_")[2] for name in table.group[fold.valid]}
    assert 0 < len(numbers) < 6
    assert len(fold.valid) == 2 * len(numbers)


def test_the_paper_list_of_kinetics_sounds_must_be_whole(tmp_path: Path) -> None:
    data = prepared("kinetics_sounds", synthetic("kinetics_sounds", tmp_path))
    with pytest.raises(InputError, match=r"652 of 17396 clips are here.* use --protocol available"):
        catalog.arrange(data, catalog.spec("kinetics_sounds").protocol("paper"), 0)
    assert len(catalog.arrange(data, catalog.spec("kinetics_sounds").protocol("available"), 0).ids) == 652


def test_a_split_without_a_clip_is_refused(tmp_path: Path) -> None:
    table = crema_d(tmp_path)
    with pytest.raises(InputError, match="a split has no clip"):
        arranged("crema_d", table.take(np.arange(3)), "paper")


# -------------------------------------------------------------------------------------------------------- the originals


@pytest.fixture(scope="module")
def originals() -> dict[str, Table]:
    folder = Path(os.environ.get("CLCR_DATA", "nowhere")) / "splits" / "originals"
    if not folder.is_dir():
        pytest.skip("CLCR_DATA names no folder with splits/originals")
    names = {"train": "ave_trainSet.txt", "valid": "ave_valSet.txt", "test": "ave_testSet.txt"}
    return {
        "crema_d": lists.read_crema_d(folder / "cremad_train.csv", folder / "cremad_test.csv", CODES),
        "kinetics_sounds": lists.read_kinetics_sounds(folder / "ks_my_train.txt", folder / "ks_my_test.txt"),
        "ave": lists.read_ave(folder / "ave_Annotations.txt", {p: folder / n for p, n in names.items()}, AVE),
        "ucf101": lists.read_ucf101(folder / "ucfTrainTestlist", n_classes=3),  # an extract of three classes
    }


def test_official_counts_come_from_the_official_lists(originals: dict[str, Table]) -> None:
    for name in ("crema_d", "kinetics_sounds", "ave"):
        for protocol in catalog.spec(name).protocols:
            arrangement = catalog.arrange(prepared(name, originals[name]), protocol, 0)
            catalog.check_counts(protocol, arrangement, name)
    assert [len(originals[name]) for name in FOUR] == [7442, 17396, 4143, 394]
    splits = {number: Counter(originals["ucf101"].columns[f"split.split{number}"].tolist()) for number in (1, 2, 3)}
    assert splits == {1: {"train": 290, "test": 104}, 2: {"train": 283, "test": 111}, 3: {"train": 282, "test": 112}}


def whole_ucf101(folder: Path) -> Table:
    """The lists of all 101 classes, written again from the table that CLCR_DATA has of them."""
    path = Path(os.environ["CLCR_DATA"]) / "splits" / "ucf101.csv.gz"
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes = {row["cls"]: int(row["label"]) + 1 for row in rows}
    write(
        folder / "classInd.txt", *(f"{number} {name}" for name, number in sorted(classes.items(), key=lambda c: c[1]))
    )
    for number, part in ((number, part) for number in "123" for part in ("train", "test")):
        clips = [row for row in rows if (row["split"], row["part"]) == (number, part)]
        label = {clip["clip"]: f" {classes[clip['cls']]}" * (part == "train") for clip in clips}
        write(folder / f"{part}list0{number}.txt", *(f"{c['cls']}/{c['clip']}.avi{label[c['clip']]}" for c in clips))
    return lists.read_ucf101(folder)


def test_all_of_ucf101(originals: dict[str, Table], tmp_path: Path) -> None:
    assert len(originals) == 4
    table = whole_ucf101(tmp_path)
    assert (len(table), len(set(table.group.tolist())), len(set(table.label.tolist()))) == (13320, 2525, 101)
    data = prepared("ucf101", table)
    for protocol in catalog.spec("ucf101").protocols[:3]:
        arrangement = catalog.arrange(data, protocol, 0)
        catalog.check_counts(protocol, arrangement, "ucf101")
        (fold,) = arrangement.folds
        assert 0.1 <= len(fold.valid) / (len(fold.train) + len(fold.valid)) < 0.15
        assert set(np.unique(arrangement.target[fold.valid])) == set(range(101))
        assert lists.shared_groups(table.group, table.columns[f"split.{protocol.name}"]) == {"train/test": 0}


def test_the_leakage_report_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "protocols", "--json"]) == 0
    rows = {(row["benchmark"], row["name"]): row for row in json.loads(capsys.readouterr().out)["protocols"]}
    assert rows["crema_d", "paper"]["shared_groups"] == {"train/test": 91}
    assert rows["crema_d", "paper"]["group"] == "actor"
    assert rows["ave", "paper"]["shared_groups"]["train/valid"] == 10
    assert rows["ave", "deduplicated"]["shared_groups"]["train/test"] == 0
    assert rows["ravdess", "clip_random"]["shared_groups"] is None  # drawn by the seed
    assert cli.main(["list", "protocols"]) == 0
    assert "train/valid 10, train/test 8, valid/test 0" in capsys.readouterr().out


def test_recorded_leaks_are_those_of_the_official_lists(originals: dict[str, Table]) -> None:
    checked = []
    for name in FOUR:
        table = originals[name]
        for protocol, facts in catalog.spec(name).leaks.items():
            if f"split.{protocol}" in table.columns:
                assert lists.shared_groups(table.group, table.columns[f"split.{protocol}"]) == facts
                checked.append((name, protocol))
    assert len(checked) == 9
    assert catalog.spec("crema_d").leaks["paper"] == {"train/test": 91}
    assert catalog.spec("ave").leaks["paper"] == {"train/valid": 10, "train/test": 8, "valid/test": 0}


def test_classes_of_the_originals(originals: dict[str, Table]) -> None:
    table = originals["crema_d"]
    test = table.columns["split.paper"] == "test"
    assert Counter(CODES[label] for label in table.label[test]) == {
        "ANG": 105, "DIS": 129, "FEA": 133, "HAP": 123, "NEU": 114, "SAD": 140,
    }  # fmt: skip
    counts = np.bincount(
        originals["kinetics_sounds"].label[originals["kinetics_sounds"].columns["split.paper"] == "test"]
    )
    assert (len(counts), counts.min(), counts.max()) == (31, 63, 92)
    multiple = Counter(Counter(originals["ave"].group.tolist()).values())
    assert multiple == {1: 4052, 2: 44, 3: 1}
