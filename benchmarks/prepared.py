"""Prepared data: memory-mappable arrays, a table of samples and a manifest with checksums. numpy, no torch.

A prepared folder holds manifest.json, samples.csv, <array>.npy and, for ragged arrays, <array>.lengths.npy. The
manifest is written last, by rename: a folder without one does not count. Synthetic twins use the same class in memory.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.archive import UNREADABLE
from benchmarks.errors import InputError, unknown
from benchmarks.record import parsed

FORMAT = 1
LEVELS = 3
MANIFEST = "manifest.json"
SAMPLES = "samples.csv"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_COLUMN = re.compile(rf"{_PLAIN.pattern}(\.{_PLAIN.pattern})?")  # split.paper: never the name of a file
_DTYPE = re.compile(r"[<>|=][iufbU][0-9]{1,6}")
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Prepared:
    """Arrays by name, first axis = row; ``lengths``: real tokens per row where an array is ragged (axis 1).

    samples: columns by name, as numpy arrays. meta: per array, e.g. {"scale": s, "offset": o} meaning that a stored
    uint8 or int8 value v stands for offset + scale * v. digests: sha256 of each array and of the samples.
    truth: what only a synthetic twin knows (its factors, the best reachable score). origin: "real" or "twin".
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    samples: Mapping[str, np.ndarray]
    lengths: Mapping[str, np.ndarray] = field(default_factory=dict)
    meta: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    truth: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "real"

    def array(self, name: str) -> np.ndarray:
        """The array of that name, or InputError."""
        if name not in self.arrays:
            raise unknown("array", name, self.arrays, f"prepared data {self.name}")
        return self.arrays[name]

    def column(self, name: str) -> np.ndarray:
        """The sample column of that name, or InputError."""
        if name not in self.samples:
            raise unknown("column", name, self.samples, f"prepared data {self.name}, samples.csv")
        return self.samples[name]


@dataclass(frozen=True)
class Fold:
    """Indices into an Arrangement's samples. Training, validation and test never share an index."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Arrangement:
    """A protocol at a seed: which row of each modality's array belongs to each sample, targets, groups and folds.

    rows[modality]: int64 (n,). target: int64 or float32 (n,). group: (n,) or None. ids: (n,) unique names.
    """

    rows: Mapping[str, np.ndarray]
    target: np.ndarray
    ids: np.ndarray
    folds: tuple[Fold, ...]
    group: np.ndarray | None = None


def digest_array(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and bytes."""
    total = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for start in range(0, len(array), _ROWS_AT_ONCE):  # a memory-mapped array is never copied whole
        total.update(np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def with_digests(prepared: Prepared) -> Prepared:
    """The same data with the digest of everything in it (for data made in memory)."""
    digests = {name: digest_array(array) for name, array in prepared.arrays.items()}
    digests |= {f"{name}.lengths": digest_array(array) for name, array in prepared.lengths.items()}
    digests |= {f"samples.{name}": digest_array(column) for name, column in prepared.samples.items()}
    return replace(prepared, digests=digests)


class Writer:
    """Writes a prepared folder so that it is complete or absent: everything goes to a temporary sibling, the manifest
    last, and one rename publishes it. Two writers of the same folder do not disturb each other.

    >>> with Writer(folder, "ravdess") as writer:   # doctest: +SKIP
    ...     writer.add("audio", spectrograms, lengths=frames, meta={"scale": 0.05, "offset": -10.0})
    ...     writer.samples({"id": ids, "label": labels})
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = Path(folder)
        self._manifest: dict[str, Any] = {"format": FORMAT, "name": name, "arrays": {}, "samples": None}
        self._manifest["versions"] = {"numpy": np.__version__, "python": platform.python_version()}
        self._manifest["parameters"] = {}

    def __enter__(self) -> Self:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
        self._temporary.chmod(0o755)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self.seal()
                _publish(self._temporary, self.folder)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def add(
        self,
        name: str,
        array: np.ndarray,
        lengths: np.ndarray | None = None,
        meta: Mapping[str, float] | None = None,
    ) -> None:
        """Add an array (rows first). ``lengths``: real tokens per row, axis 1. ``meta``: {"scale", "offset"} of stored
        integers. InputError where a value is not finite, a length does not fit or the name is not a plain one."""
        _check_name(name, self.folder)
        _check_values(array, f"{self.folder / name}.npy")
        entry = {**self._save(name, array), "meta": {key: float(value) for key, value in (meta or {}).items()}}
        if lengths is not None:
            _check_lengths(lengths, array.shape, f"{self.folder / name}.lengths.npy")
            entry["lengths"] = self._save(f"{name}.lengths", lengths.astype(np.int64))
        self._manifest["arrays"][name] = entry

    def adopt(self, name: str, path: Path, meta: Mapping[str, float] | None = None) -> None:
        """Add an array that lies in a .npy file already: by a link where the disk allows it, else by a copy."""
        _check_name(name, self.folder)
        target = self._temporary / f"{name}.npy"
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)
        array = np.load(target, mmap_mode="r", allow_pickle=False)
        with ThreadPoolExecutor(1) as beside:  # hashing holds no lock
            whole = beside.submit(_file_digest, target)
            _check_values(array, f"{self.folder / name}.npy")
            described = {"shape": list(array.shape), "dtype": array.dtype.str, "digest": digest_array(array)}
        meta = {key: float(value) for key, value in (meta or {}).items()}
        self._manifest["arrays"][name] = {**described, "sha256": whole.result(), "meta": meta}

    def samples(self, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        """Write the table of samples: columns of one length, of integers, floats, booleans or strings."""
        table = {name: np.asarray(column) for name, column in columns.items()}
        where = self.folder / SAMPLES
        for name, column in table.items():
            _check_name(name, where, _COLUMN)
            _check_values(column, f"{where}: field {name!r}")
        if len({column.shape for column in table.values()}) != 1:
            raise InputError(f"{where}: columns differ in length; every column needs one value per sample")
        path = self._temporary / SAMPLES
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)  # ends lines by RFC 4180, so that both of its characters are quoted in a text
            rows.writerow(table)
            rows.writerows(zip(*([_text(value) for value in column] for column in table.values()), strict=True))
        described = {name: {"dtype": c.dtype.str, "digest": digest_array(c)} for name, c in table.items()}
        count = len(next(iter(table.values())))
        self._manifest["samples"] = {"sha256": _file_digest(path), "rows": count, "columns": described}

    def parameter(self, name: str, value: Any) -> None:
        """Note in the manifest how the data was made, e.g. the sha256 of a source file."""
        self._manifest["parameters"][name] = value

    def seal(self) -> Prepared:
        """Write the manifest and read everything back: the data as it will be, not yet published."""
        if self._manifest["samples"] is None:
            raise InputError(f"{self.folder / SAMPLES}: no samples were written; the preparation must add them")
        self._manifest["digest"] = manifest_digest(self._manifest)
        path = self._temporary / MANIFEST
        path.write_text(json.dumps(self._manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return load(self._temporary)

    def _save(self, name: str, array: np.ndarray) -> dict[str, Any]:
        path = self._temporary / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        described = {"shape": list(array.shape), "dtype": array.dtype.str}
        return {**described, "sha256": _file_digest(path), "digest": digest_array(array)}


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """One digest of all arrays, lengths, stored units and samples that a manifest describes."""
    arrays = {
        n: [e["digest"], e.get("lengths", {}).get("digest"), e.get("meta", {})] for n, e in manifest["arrays"].items()
    }
    columns = {name: entry["digest"] for name, entry in manifest["samples"]["columns"].items()}
    return hashlib.sha256(json.dumps([arrays, columns], sort_keys=True).encode()).hexdigest()


def verify(folder: Path) -> dict[str, str]:
    """Read a prepared folder again, all of it: InputError where a file is not what the manifest says; the digests."""
    data, manifest = load(folder, verify=True), _manifest(Path(folder))
    again = {name: digest_array(array) for name, array in data.arrays.items()}
    again |= {f"samples.{name}": digest_array(column) for name, column in data.samples.items()}
    for name, digest in again.items():
        if digest != data.digests[name]:
            raise InputError(f"{folder}: {name}: digest differs from the manifest; {_again(data.name)}")
    whole = manifest_digest(manifest)
    if manifest.get("digest", whole) != whole:
        raise InputError(f"{Path(folder) / MANIFEST}: field 'digest' is not that of its parts; {_again(data.name)}")
    return {**data.digests, "all": whole}


def parameters(folder: Path) -> dict[str, Any]:
    """How a prepared folder was made: presets, counts, dropped samples, as its manifest says."""
    return dict(_manifest(Path(folder)).get("parameters", {}))


def _text(value: Any) -> str:
    if isinstance(value, np.bool_):
        return str(int(value))
    return repr(float(value)) if isinstance(value, np.floating) else str(value)


def _check_name(name: str, where: Path, pattern: re.Pattern[str] = _PLAIN) -> None:
    if not pattern.fullmatch(name):
        raise InputError(f"{where}: field {name!r} is not a plain name; use letters, digits and underscores")


def _check_values(array: np.ndarray, where: str) -> None:
    if array.ndim == 0 or array.dtype.kind not in "iufbU":
        raise InputError(f"{where}: dtype {array.dtype}, shape {array.shape}; store numbers or strings, rows first")
    if array.dtype.kind == "f":
        for start in range(0, len(array), _ROWS_AT_ONCE):
            finite = np.isfinite(array[start : start + _ROWS_AT_ONCE])
            if not finite.all():
                row = start + int(np.argwhere(~finite)[0][0])
                raise InputError(f"{where}: row {row} holds a value that is not finite; repair or drop that row")


def _check_lengths(lengths: np.ndarray, shape: Sequence[int], where: str) -> None:
    if lengths.shape != (shape[0],) or lengths.dtype.kind not in "iu" or len(shape) < 2:
        raise InputError(f"{where}: dtype {lengths.dtype}, shape {lengths.shape}; expected one integer per row")
    longest = shape[token_axis(shape)]
    wrong = (lengths < 0) | (lengths > longest)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{where}: row {row} is {lengths[row]}, not in 0..{longest}; repair that row's length")


def token_axis(shape: Sequence[int]) -> int:
    """The axis that lengths count along: 1, or 2 in (rows, 3 levels, tokens, width)."""
    return 2 if len(shape) == 4 and shape[1] == LEVELS else 1


def _publish(temporary: Path, folder: Path) -> None:
    for path in [*temporary.iterdir(), temporary]:
        _sync(path)
    while True:
        try:
            temporary.rename(folder)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _same_manifest(temporary, folder):
            return  # what is there is what we made: readers keep their files
        _remove(folder)
    _sync(folder.parent)


def _same_manifest(one: Path, other: Path) -> bool:
    try:
        return (one / MANIFEST).read_bytes() == (other / MANIFEST).read_bytes() and bool(load(other, verify=True))
    except (OSError, InputError):
        return False


def _remove(folder: Path) -> None:
    """Remove a folder in one step for readers: rename it away first. Another writer may have been faster."""
    trash = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        folder.rename(trash)
    except FileNotFoundError:
        pass
    finally:
        shutil.rmtree(trash, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(folder: Path) -> set[str] | None:
    """Names of the arrays and ``samples.<column>`` of a prepared folder; None where there is no manifest."""
    if not (Path(folder) / MANIFEST).is_file():
        return None
    manifest = _manifest(Path(folder))
    return set(manifest["arrays"]) | {f"samples.{name}" for name in manifest["samples"]["columns"]}


def load(folder: Path, verify: bool = False) -> Prepared:
    """Open a prepared folder; arrays are memory-mapped, read-only. The small files (samples, lengths) are always
    checked against their sha256, the arrays with ``verify``. InputError names file, field and remedy."""
    folder = Path(folder)
    manifest = _manifest(folder)
    arrays, lengths, digests = {}, {}, {}
    for name, entry in manifest["arrays"].items():
        arrays[name], digests[name] = _open(folder, name, entry, manifest, verify), entry["digest"]
        if "lengths" in entry:
            ragged = f"{name}.lengths"
            lengths[name] = np.array(_open(folder, ragged, entry["lengths"], manifest, True))
            _check_lengths(lengths[name], arrays[name].shape, str(folder / f"{ragged}.npy"))
            digests[ragged] = entry["lengths"]["digest"]
    samples = _samples(folder, manifest)
    digests |= {f"samples.{name}": entry["digest"] for name, entry in manifest["samples"]["columns"].items()}
    meta = {name: entry.get("meta", {}) for name, entry in manifest["arrays"].items()}
    return Prepared(manifest["name"], arrays, samples, lengths, meta, digests)


def _again(name: object) -> str:
    return f"run `clcr prepare {name} --source DIR` again"


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing, the data is not prepared; {_again(folder.name)}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_again(folder.name)}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise InputError(f"{path}: field 'format' is {found!r}, expected {FORMAT}; {_again(folder.name)}")
    _check_manifest(manifest, path, _again(folder.name))
    return dict(manifest)


def _check_manifest(manifest: dict[str, Any], path: Path, remedy: str) -> None:
    try:
        entries = {f"arrays.{name}": entry for name, entry in manifest["arrays"].items()}
        entries |= {f"{name}.lengths": entry["lengths"] for name, entry in entries.items() if "lengths" in entry}
        lacking = [f for f, entry in entries.items() if not {"shape", "dtype", "sha256", "digest"} <= set(entry)]
        lacking += [f for f in ("sha256", "rows", "columns") if f not in manifest["samples"]]
        columns = manifest["samples"].get("columns", {})
        lacking += [f"samples.columns.{f}" for f, column in columns.items() if not {"dtype", "digest"} <= set(column)]
        lacking += [] if isinstance(manifest["name"], str) else ["name"]
        lacking += [field for field, entry in entries.items() if not _is_shape(entry.get("shape"))]
        lacking += [
            f"arrays.{n}.meta" for n, e in manifest["arrays"].items() if not isinstance(e.get("meta", {}), dict)
        ]
        lacking += [] if isinstance(manifest.get("parameters", {}), dict) else ["parameters"]
        described = {**entries, **{f"samples.columns.{name}": column for name, column in columns.items()}}
        lacking += [field for field, entry in described.items() if not _is_described(entry)]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: a field is missing or wrong ({error!r}); {remedy}") from None
    if lacking:
        raise InputError(f"{path}: field {lacking[0]!r} is incomplete; {remedy}")
    for name in manifest["arrays"]:
        if not _PLAIN.fullmatch(name):  # an array's name is its file's name: nothing may escape the folder
            raise InputError(f"{path}: field 'arrays' holds {name!r}, which is not a plain name; {remedy}")


def _is_described(entry: Mapping[str, Any]) -> bool:
    """Whether dtype and digest, of an array or a column, are such."""
    dtype, digest = entry.get("dtype"), entry.get("digest")
    return isinstance(dtype, str) and bool(_DTYPE.fullmatch(dtype)) and isinstance(digest, str)


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in value)


def _open(folder: Path, name: str, entry: Mapping[str, Any], manifest: Mapping[str, Any], verify: bool) -> np.ndarray:
    path, remedy = folder / f"{name}.npy", _again(manifest["name"])
    try:
        mode = "r" if np.prod(entry["shape"]) else None
        array: np.ndarray = np.load(path, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]
    except FileNotFoundError:
        raise InputError(f"{path}: missing though the manifest lists it; {remedy}") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: truncated or not a plain .npy file ({error}); {remedy}") from None
    if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
        found, expected = f"{array.dtype.str} {list(array.shape)}", f"{entry['dtype']} {entry['shape']}"
        raise InputError(f"{path}: holds {found}, the manifest says {expected}; {remedy}")
    if verify and _file_digest(path) != entry["sha256"]:
        raise InputError(f"{path}: sha256 differs from the manifest: the file was changed; {remedy}")
    return array


def _samples(folder: Path, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    path, remedy, described = folder / SAMPLES, _again(manifest["name"]), manifest["samples"]
    try:
        if _file_digest(path) != described["sha256"]:
            raise InputError(f"{path}: sha256 differs from the manifest: truncated or changed; {remedy}")
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        return {name: _column(columns[name], entry["dtype"]) for name, entry in described["columns"].items()}
    except FileNotFoundError:
        raise InputError(f"{path}: missing though the manifest lists it; {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, csv.Error) as error:
        raise InputError(f"{path}: does not fit the manifest ({error}); {remedy}") from None


def _column(texts: Sequence[str], dtype: str) -> np.ndarray:
    kind = np.dtype(dtype).kind
    values: Sequence[Any] = [int(text) for text in texts] if kind in "iub" else texts
    return np.array(values).astype(dtype)
