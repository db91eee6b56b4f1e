"""Reading published files: they must be where they are expected, be the expected ones and hold what they should.

numpy files are read without pickles, tables with the csv module. Every fault is an InputError that names the file, what
was expected and what was found.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.archive import UNREADABLE
from benchmarks.errors import InputError


def require(source: Path, name: str, sha256: str, what: str) -> Path:
    """The file ``name`` below ``source``, checked against the sha256 of the release that is expected."""
    path = Path(source) / name
    if not path.is_file():
        raise InputError(f"{path}: missing; put {what} there, or pass --source the folder that holds {name}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise InputError(f"{path}: sha256 is {found}, expected {sha256}; fetch {what} again")
    return path


def read_npz(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The named arrays of an .npz file, each of the expected shape."""
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name, shape in shapes.items():
                if name not in file.files:
                    raise InputError(
                        f"{path}: array {name!r} is missing, found {', '.join(file.files)}; fetch it again"
                    )
                arrays[name] = np.asarray(file[name])
                if arrays[name].shape != shape:
                    found = arrays[name].shape
                    raise InputError(f"{path}: array {name!r} has shape {found}, expected {shape}; fetch it again")
    except UNREADABLE as error:
        raise InputError(f"{path}: truncated or not a plain .npz file ({error}); fetch it again") from None
    return arrays


def read_table(path: Path, columns: Sequence[str], rows: int) -> dict[str, list[str]]:
    """The named columns of a .csv file with a header and ``rows`` rows, as text."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            header, table = reader.fieldnames or [], list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a readable table ({error}); fetch it again") from None
    for name in columns:
        if name not in header:
            raise InputError(f"{path}: column {name!r} is missing; fetch it again")
    if len(table) != rows:
        raise InputError(f"{path}: {len(table)} rows, expected {rows}; fetch it again")
    for line, row in enumerate(table, start=2):
        if any(row[name] is None for name in columns):
            raise InputError(f"{path}: row {line} is too short; fetch it again")
    return {name: [row[name] for row in table] for name in columns}
