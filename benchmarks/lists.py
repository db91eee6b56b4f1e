"""Official lists of clips, as their owners publish them, read into one table of samples per benchmark. numpy, no media.

A table has the columns that go into samples.csv: id, label, group and, per protocol, ``split.<protocol>`` ("train",
"valid", "test" or "" for a clip that the protocol leaves out) or ``fold.<protocol>`` (the fold that tests it).
A bad row is an InputError that names file and line. The lists are never part of this project: ``clcr fetch`` gets them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks import splits
from benchmarks.errors import InputError

PARTS = ("train", "valid", "test")
FOLDS = 5

# The 43 women among CREMA-D's actors 1001..1091, from its VideoDemographics.csv: used where that file is not at hand.
WOMEN = frozenset(
    1000 + number
    for number in (
        *(2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 18, 20, 21, 24, 25, 28, 29, 30, 37, 43, 46, 47),
        *(49, 52, 53, 54, 55, 56, 58, 60, 61, 63, 72, 73, 74, 75, 76, 78, 79, 82, 84, 89, 91),
    )
)
ACTORS = range(1001, 1092)

_CREMA_D = re.compile(r"(?P<actor>1\d{3})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_(?:LO|MD|HI|XX|X)")
_KINETICS = re.compile(r"(?P<video>[\w-]{11})_(?P<start>\d+)(?:_(?P<end>\d+))?")
_YOUTUBE = re.compile(r"[\w-]{11}")
_UCF101 = re.compile(r"(?P<action>\w+)/(?P<clip>v_\w+_(?P<group>g\d\d)_c\d\d)\.avi")


@dataclass(frozen=True)
class Table:
    """Samples of one benchmark. id (n,) unique; label int64 (n,); group (n,): actor, video or source group.

    columns: ``split.*`` and ``fold.*`` and what a reader of media needs (the name of the clip, seconds), each (n,).
    """

    id: np.ndarray
    label: np.ndarray
    group: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id)

    def samples(self) -> dict[str, np.ndarray]:
        """All columns, for samples.csv."""
        return {"id": self.id, "label": self.label, "group": self.group, **self.columns}

    def take(self, rows: np.ndarray) -> Table:
        """The samples at these indices or under this mask, for instance those whose media could be read."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Table(self.id[rows], self.label[rows], self.group[rows], columns)

    def digest(self, column: str) -> str:
        """SHA-256 of a protocol's list as it stands here, whatever its order: says which clips were present."""
        rows = zip(self.id.tolist(), self.label.tolist(), self.columns[column].tolist(), strict=True)
        return hashlib.sha256("\n".join(sorted(f"{i},{k},{part}" for i, k, part in rows)).encode()).hexdigest()


def shared_groups(group: np.ndarray, part: np.ndarray) -> dict[str, int]:
    """How many groups occur in both of two parts, for every pair of parts that have samples, as {"train/test": 91}."""
    found = {name: set(group[part == name].tolist()) for name in PARTS}
    return {
        f"{one}/{two}": len(found[one] & found[two]) for one, two in combinations(PARTS, 2) if found[one] and found[two]
    }


def locate(source: Path, name: str, benchmark: str, *others: str) -> Path:
    """The list ``name`` in a folder of published files, in its ``lists`` folder or under another of its names."""
    candidates = [Path(source) / place for place in (name, f"lists/{name}", *others)]
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(f"{candidates[0]}: missing; run `clcr fetch {benchmark} --to {source}`, which gets this list")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line that is not blank, with the place that an error about it names."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: missing; get it with `clcr fetch`") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable text file ({error}); get it again with `clcr fetch`") from None
    if not text.strip():
        raise InputError(f"{path}: holds no row; get it again with `clcr fetch`")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path}: line {number}", line.strip()


def _bad(where: str, found: str, expected: str) -> InputError:
    return InputError(f"{where}: {found!r} is not {expected}; get the list again with `clcr fetch`")


def _unique(ids: Sequence[str], places: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name, where in zip(ids, places, strict=True):
        if name in seen:
            raise InputError(f"{where}: {name} stands there again, first in {seen[name]}; remove one of the two rows")
        seen[name] = where


def _number(where: str, text: str, below: int, what: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= below:
        raise _bad(where, text, f"{what} in 0..{below - 1}")
    return int(text)


# ---------------------------------------------------------------------------------------------------------- CREMA-D


def read_crema_d(train: Path, test: Path, codes: Sequence[str], demographics: Path | None = None) -> Table:
    """CREMA-D by OGM-GE's train.csv and test.csv (no header, ``1088_IOM_NEU_XX,NEU``; officially 6,698 and 744 rows).

    codes: the emotion codes in index order. group: the actor. Columns ``split.paper``, ``split.paper_test_selected``
    and ``fold.speaker_disjoint``; the folds need the actors' sexes (``demographics``: VideoDemographics.csv).
    """
    ids, labels, actors, parts, places = [], [], [], [], []
    for part, path in (("train", train), ("test", test)):
        for where, line in _lines(path):
            clip, _, code = line.partition(",")
            match = _CREMA_D.fullmatch(clip)
            if match is None or int(match["actor"]) not in ACTORS:
                raise _bad(where, line, "a clip such as 1088_IOM_NEU_XX,NEU of an actor 1001 to 1091")
            if code not in codes or code != match["emotion"]:
                raise _bad(where, code, f"the emotion that the clip {clip} is named for ({', '.join(codes)})")
            ids.append(clip)
            labels.append(codes.index(code))
            actors.append(int(match["actor"]))
            parts.append(part)
            places.append(where)
    _unique(ids, places)
    actor, split = np.array(actors), np.array(parts)
    fold = actor_folds(read_women(demographics) if demographics is not None else WOMEN)
    folds = np.array([fold[number] for number in actors], dtype=np.int64)
    columns = {"split.paper": split, "split.paper_test_selected": split, "fold.speaker_disjoint": folds}
    return Table(np.array(ids), np.array(labels, dtype=np.int64), actor, columns)


def read_women(demographics: Path) -> frozenset[int]:
    """The numbers of the female actors in VideoDemographics.csv, which must tell the sex of all 91."""
    sexes: dict[int, str] = {}
    for where, line in list(_lines(demographics))[1:]:
        actor, _, sex = [part.strip('"') for part in [*line.split(","), "", "", ""][:3]]
        number = _number(where, actor, ACTORS.stop, "an actor's number")
        if number not in ACTORS or sex not in ("Male", "Female"):
            raise _bad(where, line, "an actor 1001 to 1091 with sex Male or Female in column 3")
        sexes[number] = sex
    missing = sorted(set(ACTORS) - set(sexes))
    if missing:
        raise InputError(f"{demographics}: actor {missing[0]} is missing; get it again with `clcr fetch crema_d`")
    return frozenset(number for number, sex in sexes.items() if sex == "Female")


def actor_folds(women: frozenset[int]) -> dict[int, int]:
    """The fold that tests each actor, fixed for all seeds: men and women are shuffled once and dealt out in turn, so
    that every fold has 18 or 19 actors, 9 or 10 of them men."""
    rng = splits.stream("crema_d/speaker_disjoint", 0)
    order = [number for sex in (False, True) for number in rng.permutation([a for a in ACTORS if (a in women) == sex])]
    return {int(number): place % FOLDS for place, number in enumerate(order)}


# -------------------------------------------------------------------------------------------------- Kinetics-Sounds


def read_kinetics_sounds(train: Path, test: Path, n_classes: int = 31) -> Table:
    """Kinetics-Sounds by OGM-GE's my_train.txt and my_test.txt (``YouTubeID_start_end,frames,label``; 14,799 / 2,597).

    group: the YouTube id. Columns ``split.paper`` and ``split.available`` (the same list)
    and ``clip``: the name in a Kinetics-400 tree. Test rows give the start alone; the end is ten seconds later.
    """
    rows: list[tuple[str, int, str, str, str]] = []
    places: list[str] = []
    for part, path in (("train", train), ("test", test)):
        for where, line in _lines(path):
            fields = line.split(",")
            match = _KINETICS.fullmatch(fields[0])
            if match is None or len(fields) != 3:
                raise _bad(where, line, "a row such as --4-0ihtnBU_000058_000068,10,4")
            start = int(match["start"])
            end = int(match["end"] or start + 10)
            clip = f"{match['video']}_{start:06d}_{end:06d}"
            rows.append((fields[0], _kinetics_label(where, fields[2], n_classes), match["video"], part, clip))
            places.append(where)
    _unique([row[4] for row in rows], places)
    names, labels, videos, parts, clips = (np.array(column) for column in zip(*rows, strict=True))
    lacking = sorted(set(range(n_classes)) - set(labels.tolist()))
    if lacking:
        raise InputError(
            f"{train}: {n_classes - len(lacking)} classes, expected {n_classes} (label {lacking[0]} has no row); "
            f"get the list again with `clcr fetch kinetics_sounds`"
        )
    return Table(
        names, labels.astype(np.int64), videos, {"split.paper": parts, "split.available": parts, "clip": clips}
    )


def _kinetics_label(where: str, text: str, n_classes: int) -> int:
    if text.isascii() and text.isdigit() and n_classes <= int(text) < 34:
        raise InputError(
            f"{where}: label {text}: more than {n_classes} classes: the lineage of ARL (33 or 34, with finger_snapping "
            "and tying_tie), whose numbers are not comparable; take `clcr fetch kinetics_sounds`"
        )
    return _number(where, text, n_classes, "a label")


# ------------------------------------------------------------------------------------------------------------- AVE


def read_ave(annotations: Path, lists: Mapping[str, Path], classes: Sequence[str]) -> Table:
    """AVE by Annotations.txt and the three lists (``lists``: part -> trainSet.txt, ...; 3,339 / 402 / 402 rows of
    ``Class&YouTubeID&quality&start&end``). A sample is an event: a video with two labels is two samples.

    group: the YouTube id. Columns ``split.paper`` (all rows), ``split.deduplicated`` and start and end in seconds.
    """
    known = {event for _, event in _events(annotations, classes)}
    rows: list[tuple[int, str, int, int]] = []
    parts, places = [], []
    for part in PARTS:
        for where, event in _events(lists[part], classes):
            if event not in known:
                raise _bad(where, "&".join(map(str, event)), f"an event of {annotations}")
            rows.append(event)
            parts.append(part)
            places.append(where)
    labels, videos, starts, ends = zip(*rows, strict=True)
    ids = [f"{video}_{label:02d}" for label, video in zip(labels, videos, strict=True)]
    _unique(ids, places)
    if len(known) != len(rows):
        raise InputError(
            f"{annotations}: {len(known)} events, the three lists hold {len(rows)}; get them with `clcr fetch ave`"
        )
    video, split = np.array(videos), np.array(parts)
    columns = {"split.paper": split, "split.deduplicated": deduplicated(video, split)}
    columns |= {"start": np.array(starts, dtype=np.int64), "end": np.array(ends, dtype=np.int64)}
    return Table(np.array(ids), np.array(labels, dtype=np.int64), video, columns)


def _events(path: Path, classes: Sequence[str]) -> Iterator[tuple[str, tuple[int, str, int, int]]]:
    for where, line in _lines(path):
        fields = line.split("&")
        if len(fields) != 5 or not _YOUTUBE.fullmatch(fields[1]):
            raise _bad(where, line, "a row such as Church bell&RUhOCu3LNXM&good&0&10")
        if fields[0] not in classes:
            raise _bad(where, fields[0], f"one of the {len(classes)} classes")
        start, end = (_number(where, text, 11, "a second") for text in fields[3:])
        if start > end:
            raise _bad(where, line, "an event that starts before it ends")
        yield where, (classes.index(fields[0]), fields[1], start, end)


def deduplicated(video: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Splits in which no video occurs twice. A video stays in one part, test before validation before training, and
    there with its first event alone; its other events get ""."""
    kept = np.full(len(split), "", dtype="U5")
    taken: set[str] = set()
    for part in reversed(PARTS):
        for row in np.flatnonzero(split == part):
            if video[row] not in taken:
                taken.add(video[row])
                kept[row] = part
    return kept


# ---------------------------------------------------------------------------------------------------------- UCF101


def read_ucf101(folder: Path, n_classes: int = 101) -> Table:
    """UCF101 by its ucfTrainTestlist folder: classInd.txt and three pairs of lists (9,537 / 3,783 in split 1).

    label: number in classInd.txt minus one. group: class and source group, ``ApplyEyeMakeup_g08``. Columns
    ``split.split1`` to ``split.split3`` ("" where a clip is in neither list of a pair) and ``action``, the folder.
    """
    labels = _classes(folder / "classInd.txt", n_classes)
    found: dict[str, tuple[str, str]] = {}
    part_of: list[dict[str, str]] = [{}, {}, {}]
    for number, parts in enumerate(part_of, start=1):
        for part in ("train", "test"):
            for where, line in _lines(folder / f"{part}list{number:02d}.txt"):
                name, action, group = _clip(where, line, labels, part)
                if name in parts:
                    raise InputError(f"{where}: {name} stands in this split already; remove one of the two rows")
                parts[name] = part
                found[name] = action, group
    ids = sorted(found)
    columns = {f"split.split{k}": np.array([parts.get(i, "") for i in ids]) for k, parts in enumerate(part_of, start=1)}
    columns["action"] = np.array([found[name][0] for name in ids])
    label = np.array([labels[found[name][0]] for name in ids], dtype=np.int64)
    return Table(np.array(ids), label, np.array(["_".join(found[name]) for name in ids]), columns)


def _classes(path: Path, n_classes: int) -> dict[str, int]:
    labels: dict[str, int] = {}
    for where, line in _lines(path):
        number, _, action = line.partition(" ")
        if number != str(len(labels) + 1) or not action.isidentifier() or action in labels:
            raise _bad(where, line, f"class number {len(labels) + 1} and its name")
        labels[action] = len(labels)
    if len(labels) != n_classes:
        raise InputError(
            f"{path}: {len(labels)} classes, expected {n_classes}; run `clcr fetch ucf101` for the whole lists"
        )
    return labels


def _clip(where: str, line: str, labels: Mapping[str, int], part: str) -> tuple[str, str, str]:
    name, _, number = line.partition(" ")
    match = _UCF101.fullmatch(name)
    if match is None or match["action"] not in labels:
        raise _bad(where, line, "a row such as Archery/v_Archery_g08_c01.avi of a class in classInd.txt")
    if (part == "train" or number) and number != str(labels[match["action"]] + 1):
        raise _bad(where, number, f"the number of class {match['action']}, {labels[match['action']] + 1}")
    return match["clip"], match["action"], match["group"]
