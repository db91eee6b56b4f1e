"""Prepared data: memory-mappable arrays, a table of samples and a manifest with checksums. numpy, no torch.

A prepared folder holds manifest.json, samples.csv, <array>.npy and, for ragged arrays, <array>.lengths.npy. The
manifest is written last, by rename: a folder without one does not count. Synthetic twins use the same class in memory.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import InputError, unknown

FORMAT = 1


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
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def with_digests(prepared: Prepared) -> Prepared:
    """The same data with the digest of everything in it (for data made in memory)."""
    digests = {name: digest_array(array) for name, array in prepared.arrays.items()}
    digests |= {f"{name}.lengths": digest_array(array) for name, array in prepared.lengths.items()}
    digests |= {f"samples.{name}": digest_array(column) for name, column in prepared.samples.items()}
    return Prepared(**{**prepared.__dict__, "digests": digests})
