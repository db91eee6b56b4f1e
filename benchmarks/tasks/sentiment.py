"""CMU-MOSI and CMU-MOSEI from their owners' files: which road a folder offers, and what all roads have in common.

Roads: ``csd`` (computational sequences, read here), ``mmsdk`` (the same files below a folder mmsdk/, aligned by the
CMU-MultimodalSDK itself), ``mmsa`` and ``mult`` (the pickles of thuiar/MMSA and of yaohungt/Multimodal-Transformer).
Every road ends in the same table: id, video, std_fold, sentiment, text; what was lost, repaired or differs from the
official counts is in the manifest.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Fold, Prepared, Writer
from benchmarks.record import parsed
from benchmarks.spec import Protocol

SPLITS = ("train", "valid", "test")
RANGE = (-3.0, 3.0)
MOST_LOST = 0.1  # share of samples; above it prepare stops, unless it is told another one
_DEPTHS = ("", "*/", "*/*/", "*/*/*/")
_FOLDS_JSON = "mosi_mosei_std_folds.json"


@dataclass(frozen=True)
class Corpus:
    """What distinguishes the two. ``words``... ``labels``: accepted names of the .csd files; audio and vision: (array,
    width); ``narrow``: (array, width) of the same in MMSA's and MulT's pickles; mult: stem of MulT's pickles.
    videos: per split; folds_sha256: see folds_digest; counts: official samples per split; sdk_total: samples that the
    SDK's own files are known to hold, or None; renamed: protocols of the pickles that are another one here."""

    name: str
    tag: str
    files: Mapping[str, tuple[str, ...]]
    audio: tuple[str, int]
    vision: tuple[str, int]
    narrow: Mapping[str, tuple[str, int]]
    mult: str
    videos: Mapping[str, int]
    folds_sha256: str
    counts: Mapping[str, int]
    sdk_total: int | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)


Late = Callable[..., np.ndarray]  # makes an array when it is asked for, so that no two of them are in memory at once


@dataclass
class Samples:
    """What a road has read. arrays: name -> (rows first, or how to make them late, lengths or None). dropped: (id,
    reason, detail). protocols: whose counts are compared. notes: lines on what was repaired; details: for the manifest.
    """

    ids: list[str]
    videos: list[str]
    folds: list[str]
    sentiment: list[float]
    texts: list[str] | None
    arrays: dict[str, tuple[np.ndarray | Late, np.ndarray | None]]
    protocols: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)


Road = Callable[[Corpus, Mapping[str, Path], Path], Samples]


def locate(source: Path, names: Sequence[str], corpus: Corpus) -> Path | None:
    """The file of one of these names in ``source`` or up to three folders below it. Both corpora publish files of the
    same name: a folder on the way that names the other one rules a file out, one that names this one prefers it."""
    found = [path for depth in _DEPTHS for name in names for path in sorted(Path(source).glob(depth + name))]
    found = [path for path in found if path.is_file() and _folder_tag(path, source) in (corpus.tag, "")]
    named = [path for path in found if _folder_tag(path, source)] or found
    distinct = {path.resolve() for path in named}
    if len(distinct) > 1:
        both = " and ".join(sorted(str(path) for path in named)[:2])
        raise InputError(f"{source}: {corpus.name}: {both} both are {names[0]}; keep one of them below the source")
    return named[0] if named else None


def _folder_tag(path: Path, source: Path) -> str:
    """ "mosei" or "mosi" where a folder between source and file says so."""
    text = "/".join(path.relative_to(source).parts[:-1]).lower()
    return next((tag for tag in ("mosei", "mosi") if tag in text), "")


def std_folds(source: Path, corpus: Corpus) -> tuple[dict[str, str], str]:
    """The standard fold of each video, from mosi_mosei_std_folds.json or the SDK's own <corpus>_std_folds.py (which is
    parsed, never run), and the file's name. InputError where the lists are not the official ones."""
    own = f"{corpus.name}_std_folds.py"
    path = locate(source, (own,), corpus) or locate(source, (_FOLDS_JSON,), corpus)
    if path is None:
        raise InputError(
            f"{source}: {corpus.name}: no standard folds; put {own} of CMU-MultimodalSDK (mmsdk/mmdatasdk/dataset/"
            f"standard_datasets/{corpus.name.upper()}) or {_FOLDS_JSON} there"
        )
    lists = _folds_of_module(path) if path.suffix == ".py" else _folds_of_json(path, corpus)
    _check_folds(lists, corpus, path)
    return {video: split for split in SPLITS for video in lists[split]}, path.name


def _folds_of_json(path: Path, corpus: Corpus) -> dict[str, list[str]]:
    try:
        lists = parsed(path.read_text(encoding="utf-8"))[corpus.name.upper()]
        return {split: [str(video) for video in lists[split]] for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: holds no {corpus.name.upper()} fold lists ({error!r}); fetch it again") from None


def _folds_of_module(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                split = node.targets[0].id.removeprefix("standard_").removesuffix("_fold")
                if split in SPLITS:
                    found[split] = [str(video) for video in ast.literal_eval(node.value)]
    except (OSError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not the SDK's fold lists ({reason}); fetch it again") from None
    if set(found) != set(SPLITS):
        raise InputError(f"{path}: lacks standard_train_fold, _valid_fold or _test_fold; fetch it again")
    return found


def folds_digest(lists: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of the fold lists as sets."""
    text = "\n".join(f"{split} {' '.join(sorted(lists[split]))}" for split in SPLITS)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_folds(lists: Mapping[str, Sequence[str]], corpus: Corpus, path: Path) -> None:
    for split, expected in corpus.videos.items():
        if len(set(lists[split])) != expected or len(lists[split]) != expected:
            found = f"{len(set(lists[split]))} different videos of {len(lists[split])}"
            raise InputError(f"{path}: {corpus.name}: {found} in {split}, officially {expected}; fetch it again")
    shared = Counter(video for split in SPLITS for video in lists[split]).most_common(1)[0]
    if shared[1] > 1:
        raise InputError(f"{path}: {corpus.name}: video {shared[0]} is in two folds; fetch it again")
    if folds_digest(lists) != corpus.folds_sha256:
        raise InputError(f"{path}: {corpus.name}: the videos are not those of the standard folds; fetch it again")


def check_label(value: float, where: str) -> float:
    """A label in [-3, 3]; a rounding of float32 beyond is cut off."""
    if not RANGE[0] - 1e-4 <= value <= RANGE[1] + 1e-4:
        raise InputError(f"{where}: label {value:g} is not in [-3, 3]; the file is not the published one")
    return float(min(max(value, RANGE[0]), RANGE[1]))


def finite(array: np.ndarray) -> tuple[np.ndarray, int]:
    """The array as float32 with zeros where it was not finite (as MulT and MMSA put them for -inf), and how many."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.asarray(array, dtype=np.float32)
    wrong = ~np.isfinite(narrow)
    count = int(wrong.sum())
    return (np.where(wrong, np.float32(0), narrow) if count else narrow), count


def check(samples: Samples, corpus: Corpus, max_loss: float = MOST_LOST) -> None:
    """InputError where more than that share of samples is lost or one video is in two folds."""
    total = len(samples.ids) + len(samples.dropped)
    if not samples.ids or len(samples.dropped) > max_loss * total:
        reasons = Counter(detail for *_, detail in samples.dropped).most_common(3)
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        lost = f"{len(samples.dropped)} of {total} samples would be lost, more than {100 * max_loss:g}%"
        share = np.ceil(1000 * len(samples.dropped) / max(total, 1)) / 1000
        allow = f", or allow it with --max-loss {share:g}" if samples.ids else ""
        raise InputError(f"{corpus.name}: {lost}: {listed or 'there are none'}; check the files{allow}")
    fold_of: dict[str, str] = {}
    for video, fold in zip(samples.videos, samples.folds, strict=True):
        if fold_of.setdefault(video, fold) != fold:
            both = f"one video is in both {fold_of[video]} and {fold}: {video}"
            raise InputError(f"{corpus.name}: {both}; take the published file")


def write(road: str, samples: Samples, corpus: Corpus, files: Mapping[str, Path], writer: Writer) -> None:
    """Hand what a road has read to the writer, with everything that a reader of the manifest must know."""
    for name, (array, lengths) in samples.arrays.items():
        writer.add(name, array() if callable(array) else array, lengths)
    columns: dict[str, Any] = {"id": samples.ids, "video": samples.videos, "std_fold": samples.folds}
    columns["sentiment"] = np.array(samples.sentiment, dtype=np.float32)
    texts = {} if samples.texts is None else {"text": samples.texts}
    writer.samples(columns | texts | samples.columns)
    for name, value in {**described(road, samples, corpus, files), "source_sha256": _digests(files)}.items():
        writer.parameter(name, value)


def described(road: str, samples: Samples, corpus: Corpus, files: Mapping[str, Path]) -> dict[str, Any]:
    """What the manifest says of a reading: road, counts, what was lost, notes."""
    counts = compared(corpus, samples)
    notes = [f"road {road}, from {', '.join(sorted(path.name for path in files.values()))}", *samples.notes]
    if corpus.sdk_total is not None and road in ("csd", "mmsdk"):
        found = len(samples.ids)
        notes.append(f"{found} samples; the SDK's own files hold {corpus.sdk_total}: {found - corpus.sdk_total:+d}")
    notes += [f"dropped {n}: {why}" for why, n in sorted(Counter(detail for *_, detail in samples.dropped).items())]
    dropped = [dict(zip(("id", "reason", "detail"), row, strict=True)) for row in sorted(samples.dropped)]
    told = {"road": road, "counts": dict.fromkeys(samples.protocols, counts), "dropped": dropped, "notes": notes}
    return {**told, "lost_by_class": {}, **samples.details}  # the targets are no classes


def compared(corpus: Corpus, samples: Samples) -> dict[str, list[int]]:
    """Per split, and for all of them, [found, official]."""
    found = Counter(samples.folds)
    counts = {split: [found[split], official] for split, official in corpus.counts.items()}
    return {**counts, "all": [len(samples.ids), sum(corpus.counts.values())]}


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    found = {}
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def arrange(prepared: Prepared, protocol: Protocol) -> Arrangement:
    """The standard folds as the prepared table has them; every modality has one row per sample."""
    fold = prepared.column("std_fold")
    parts = Fold(*(np.flatnonzero(fold == part) for part in SPLITS))
    rows = np.arange(len(fold))
    by_modality = {modality.name: rows for modality in protocol.modalities}
    target, ids, video = (prepared.column(name) for name in ("sentiment", "id", "video"))
    return Arrangement(by_modality, target, ids, (parts,), video)
