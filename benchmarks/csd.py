"""Computational sequences: the .csd files of CMU-MOSI and CMU-MOSEI, read with h5py, and their alignment. No mmsdk.

A file holds, below one root group, data/<video>/{intervals (n, 2) seconds, features (n, D)} and metadata. Alignment
gives the numbers of the CMU-MultimodalSDK's own ``mmdataset.align`` (commit 4f2eadcd): every row of one sequence whose
interval meets a reference interval belongs to it, and is averaged with the others, or kept as it is.
"""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.errors import InputError

EPSILON = 10e-6  # seconds: what is shorter is no interval, as the SDK has it
MOST_RATIO = 1100  # values to stored bytes: deflate, the strongest of HDF5's usual filters, reaches 1032
_SMALL = 1 << 20  # bytes
LARGEST_HEAP = 1 << 30  # bytes
_REFERENCE, _HEAP, _PIECE = struct.Struct("<IQI"), struct.Struct("<4sIQ"), struct.Struct("<H6xQ")
_MARGIN = 1e-3  # of the search window around an interval; the exact comparison follows


@dataclass(frozen=True)
class Entry:
    """One video of one sequence: intervals (n, 2) float seconds, features (n, D) numbers or bytes."""

    intervals: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.intervals)

    def take(self, rows: np.ndarray) -> Entry:
        """Some of the rows."""
        return Entry(self.intervals[rows], self.features[rows])


@dataclass
class Sequences:
    """One open .csd file. ``entry`` reads one video at a time: COVAREP of CMU-MOSEI is larger than most memories."""

    path: Path
    root: str
    ids: tuple[str, ...]
    metadata: Mapping[str, Any]
    _file: Any = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def entry(self, video: str) -> Entry:
        """Intervals and features of a video; InputError where they are missing, damaged or do not fit each other."""
        where = f"{self.path}: {self.root}/data/{video}"
        try:
            group = self._file[self.root]["data"][video]
            intervals, features = (_values(group[name]) for name in ("intervals", "features"))
        except (KeyError, OSError, RuntimeError, TypeError, AttributeError, ValueError, MemoryError) as error:
            raise InputError(
                f"{where}: intervals or features cannot be read ({_line(error)}); fetch it again"
            ) from None
        features = features[:, None] if features.ndim == 1 else features
        if intervals.ndim != 2 or intervals.shape[1] != 2 or features.ndim != 2 or len(features) != len(intervals):
            shapes = f"intervals {list(intervals.shape)}, features {list(features.shape)}"
            raise InputError(f"{where}: {shapes}; expected [n, 2] and [n, D] of one n; fetch it again")
        if intervals.dtype.kind not in "iuf":
            raise InputError(f"{where}: intervals are {intervals.dtype}, not seconds; fetch it again")
        return Entry(intervals.astype(np.float64, copy=False), features)

    def numbers(self, video: str) -> Entry:
        """The same, of features that must be numbers."""
        return self._of_kind(video, "iuf", "numbers")

    def texts(self, video: str) -> Entry:
        """The same, of features that must be words."""
        return self._of_kind(video, "SOU", "words")

    def _of_kind(self, video: str, kinds: str, what: str) -> Entry:
        entry = self.entry(video)
        if entry.features.dtype.kind not in kinds or entry.features.shape[1] == 0:
            found = f"features are {entry.features.dtype} {list(entry.features.shape)}, not {what}"
            raise InputError(f"{self.path}: {self.root}/data/{video}: {found}; it is another computational sequence")
        return entry


def open_csd(path: Path) -> Sequences:
    """Open a .csd file, in a ``with`` statement. InputError where it is missing, no HDF5 or of another layout."""
    path, h5py = Path(path), _h5py()
    if not path.is_file():
        raise InputError(f"{path}: missing; put the computational sequence of that name there")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: truncated or no HDF5 file ({_line(error)}); fetch it again") from None
    try:
        root = next(iter(file), "")
        _check_own(file, (root,) if root else (), path)
        group = file[root] if root else {}
        _check_own(group, ("data", "metadata"), path)
        if "data" not in group:
            raise InputError(f"{path}: no <root>/data group, so it is no computational sequence; fetch it again")
        _check_own(group["data"], group["data"], path)
        _check_own(group.get("metadata"), group.get("metadata", ()), path)
        for video in group["data"].values():
            _check_own(video, ("intervals", "features"), path)
        return Sequences(path, root, tuple(group["data"]), _metadata(group), file)
    except (InputError, OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, MemoryError) as error:
        file.close()
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged HDF5 file ({_line(error)}); fetch it again") from None


def _check_own(group: Any, names: Iterable[str], path: Path) -> None:
    """InputError where a member is a link or keeps its values elsewhere: such a file could read any other one."""
    h5py = _h5py()
    for name in names if isinstance(group, h5py.Group) else ():
        link = group.get(name, getlink=True)
        own = link is None or isinstance(link, h5py.HardLink)
        found = group[name] if own and link is not None else None
        if not own or (isinstance(found, h5py.Dataset) and (found.external or found.is_virtual)):
            where = f"{group.name.rstrip('/')}/{name}"
            raise InputError(f"{path}: {where} points out of the data or out of the file; fetch it again")


def _values(dataset: Any) -> np.ndarray:
    """All values of a dataset. ValueError where it declares more than its part of the file can hold: HDF5 keeps values
    that were never written as a mere number, and a file of a kilobyte could ask for terabytes."""
    declared, held = (dataset.size or 0) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if declared > max(_SMALL, MOST_RATIO * held):
        raise ValueError(f"{declared} bytes are declared, {held} are there")
    if dataset.dtype.kind == "O" and dataset.size and held:
        _check_heap(dataset)
    return np.asarray(dataset[()])


def _check_heap(dataset: Any) -> None:
    """ValueError unless the heaps that values of variable length lie in can be walked to their ends: libhdf5 itself
    walks for ever over a free piece of no length (H5HGcache.c). Layout: HDF5 File Format Specification 3.0, III.E."""
    start = dataset.id.get_offset()
    if start is None or dataset.file.userblock_size or dataset.dtype.itemsize > _REFERENCE.size:
        raise ValueError("texts are laid out in an unusual way")
    with Path(dataset.file.filename).open("rb") as file:
        file.seek(start)
        references = file.read(dataset.size * _REFERENCE.size)
        for place in {place for _, place, _ in _REFERENCE.iter_unpack(references)} - {0}:
            file.seek(place)
            signature, _, size = _HEAP.unpack(file.read(_HEAP.size).ljust(_HEAP.size, b"\0"))
            body = file.read(min(size - _HEAP.size, LARGEST_HEAP)) if size > _HEAP.size else b""
            if signature != b"GCOL" or len(body) != size - _HEAP.size:
                raise ValueError("texts lie where none are")
            _walk_heap(body)


def _walk_heap(body: bytes) -> None:
    at = 0
    while at + _PIECE.size <= len(body):
        index, length = _PIECE.unpack_from(body, at)
        step = _PIECE.size + -(-length // 8) * 8 if index else length  # a free piece counts its own header
        if not 0 < step <= len(body) - at:
            raise ValueError("a heap of texts is damaged")
        at += step


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise InputError(f"computational sequences: {error}; install it with pip install '.[sdk]'") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _metadata(group: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in group.get("metadata", ()):
        value = _values(group["metadata"][name]).reshape(-1)
        text = value[0].decode("utf-8", "replace") if len(value) and isinstance(value[0], bytes) else str(value[:1])
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


Collapse = Callable[[np.ndarray], np.ndarray]


def average(features: np.ndarray) -> np.ndarray:
    """(n, D) -> (D,): the plain mean over rows, in the features' own precision; not a number where one row is not."""
    with np.errstate(invalid="ignore", over="ignore"):
        mean: np.ndarray = features.mean(axis=0)
    return mean


class Ordered:
    """A video's rows sorted by start, ready to be asked which of them meet an interval."""

    def __init__(self, entry: Entry) -> None:
        order = np.argsort(entry.intervals[:, 0], kind="stable")  # equal starts keep the order of the file
        self.entry = entry.take(order)
        self._starts = self.entry.intervals[:, 0]
        ends = self.entry.intervals.max(axis=1, initial=-np.inf)
        self._latest_end = np.maximum.accumulate(np.where(np.isnan(ends), -np.inf, ends))

    def meeting(self, interval: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows that meet an interval for longer than EPSILON, in order of start, and their common parts (k, 2)."""
        start, end = interval
        first = int(np.searchsorted(self._latest_end, start - _MARGIN, "left"))
        last = int(np.searchsorted(self._starts, end + _MARGIN, "right"))
        near = self.entry.intervals[first:last]
        meets = (end - near[:, 0] > -EPSILON) & (near[:, 1] - start > -EPSILON)
        common = np.stack([np.maximum(near[:, 0], start), np.minimum(near[:, 1], end)], axis=1)
        kept = np.flatnonzero(meets & (np.abs(common[:, 0] - common[:, 1]) > EPSILON))
        return first + kept, common[kept]


Parts = dict[int, Entry]  # what an alignment gives: by row of the reference, what of a sequence belongs to it


def align_entry(reference: np.ndarray, entry: Entry, collapse: Collapse | None = None) -> Parts:
    """One video of one sequence, cut along reference intervals (n, 2).

    With ``collapse`` each part is one row: the collapsed features, over the interval from the first common start to
    the last common end. Reference intervals shorter than EPSILON, and those that nothing meets, have no part.
    """
    ordered, parts = Ordered(entry), Parts()
    for row, interval in enumerate(reference):
        if abs(interval[0] - interval[1]) < EPSILON:
            continue
        rows, common = ordered.meeting(interval)
        if len(rows) == 0:
            continue
        features = ordered.entry.features[rows]
        if collapse is not None:
            common, features = np.array([[common.min(), common.max()]]), collapse(features)[None]
        parts[row] = Entry(common, features)
    return parts


def align_reference(entry: Entry) -> Parts:
    """The reference aligned to itself with collapse: a row for each interval that is not too short, turned round where
    it ends before it begins."""
    spans = np.abs(entry.intervals[:, 0] - entry.intervals[:, 1])
    rows = np.flatnonzero(~(spans < EPSILON))
    turned = Entry(np.sort(entry.intervals, axis=1), entry.features)
    return {int(row): turned.take(np.array([row])) for row in rows}


def impute(parts: Parts, reference: Entry, width: int) -> Parts:
    """Zeros for every reference interval that has no part, as the SDK's ``impute`` gives them, after all others."""
    present = dict(parts)
    for row, part in align_reference(reference).items():
        present.setdefault(row, Entry(part.intervals, np.zeros((1, width))))
    return present


def joined(parts: Parts) -> Entry:
    """The parts one after the other, in the order in which they were made, with the reference row of each as a last
    feature: the sequence that a second alignment starts from, and that still knows which word each row belongs to."""
    if not parts:
        return Entry(np.zeros((0, 2)), np.zeros((0, 1)))
    rows = np.repeat(np.fromiter(parts, np.int64), [len(part) for part in parts.values()])
    features = np.concatenate([part.features for part in parts.values()])
    return Entry(np.concatenate([part.intervals for part in parts.values()]), np.column_stack([features, rows]))


def segments(reference: Entry, others: Mapping[str, Entry], labels: np.ndarray) -> dict[str, Parts]:
    """One video as the SDK's examples make it: aligned to the words by averaging, words that nothing meets imputed with
    zeros, then cut along the labels' intervals (n, 2).

    Per sequence and row of the labels an Entry whose last feature is the row of the word; of the words themselves
    (key ``words``) it is the only one.
    """
    rows = {row: Entry(part.intervals, np.zeros((1, 0))) for row, part in align_reference(reference).items()}
    tagged = {"words": joined(rows)}
    for name, entry in others.items():
        width = entry.features.shape[1]
        tagged[name] = joined(impute(align_entry(reference.intervals, entry, average), reference, width))
    return {name: align_entry(labels, entry) for name, entry in tagged.items()}


def shared(files: Iterable[Sequences]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Videos that every file has, in the order of the first, and for each other the files that lack it: the SDK's
    ``unify``, without its habit of also removing videos whose id merely begins like that of a removed one."""
    opened = list(files)
    known = [frozenset(file.ids) for file in opened]
    everywhere = frozenset.intersection(*known)
    lacking = {
        video: ", ".join(file.path.name for file, ids in zip(opened, known, strict=True) if video not in ids)
        for video in sorted(frozenset.union(*known) - everywhere)
    }
    return tuple(video for video in opened[0].ids if video in everywhere), lacking


def words(features: np.ndarray) -> list[str]:
    """The words of a sequence of (n, 1) byte strings."""
    return [_decoded(row) for row in features.reshape(len(features), -1)[:, :1].reshape(-1)]


def _decoded(word: Any) -> str:
    text = word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
    return "".join(text.split())  # a word stays one word of the text that it becomes part of


def write_csd(path: Path, root: str, entries: Mapping[str, Entry], metadata: Mapping[str, Sequence[str] | str]) -> None:
    """Write a .csd file of the owners' layout: for tests and for those who make features of their own."""
    h5py = _h5py()
    with h5py.File(path, "w") as file:
        for video, entry in entries.items():
            group = file.create_group(f"{root}/data/{video}")
            group.create_dataset("intervals", data=entry.intervals)
            group.create_dataset("features", data=entry.features)
        kept = file.require_group(f"{root}/metadata")
        for name, value in {"root name": root, **metadata}.items():
            kept.create_dataset(name, (1,), dtype=h5py.string_dtype())[0] = json.dumps(value)
