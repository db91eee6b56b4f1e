"""Weights from a file that nobody has to trust: .safetensors by a strict reader of our own, anything else by torch's
reader of plain tensors (``weights_only=True``), which refuses whatever could run code. Nothing here knows a model.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.errors import InputError

HEADER = 8  # bytes that hold the header's length, little-endian
LONGEST_HEADER = 100_000_000
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}


class _Wrong(ValueError):
    """What is wrong with a file, without its name."""


def read_checkpoint(path: str | Path) -> Mapping[str, Tensor]:
    """The tensors of a file by name, on the host. InputError, in one line, for a file that is missing, damaged or more
    than tensors; such a file runs nothing."""
    return _read(_file(path))


def checkpoint_digest(path: str | Path) -> str:
    """SHA-256 of the file's content: the same weights at another path have the same."""
    return _digest(_file(path))


@dataclass(frozen=True)
class _File:
    """What a file is known by in the caches below: one that is written anew is read anew."""

    path: Path
    changed: int
    size: int


def _file(path: str | Path) -> _File:
    where = Path(path)
    if not where.is_file():
        raise InputError(f"encoder.checkpoint={path}: no such file; give the path of a .safetensors or torch file")
    status = where.stat()
    return _File(where.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _digest(file: _File) -> str:
    with file.path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@lru_cache(maxsize=2)
def _read(file: _File) -> Mapping[str, Tensor]:
    path = file.path
    try:
        return parse_safetensors(path.read_bytes()) if path.suffix == ".safetensors" else _read_torch(path)
    except OSError as error:
        raise InputError(f"encoder.checkpoint={path}: cannot be read ({error}); check the file") from None
    except _Wrong as error:
        raise InputError(f"encoder.checkpoint={path}: {error}; get the file again") from None


def _read_torch(path: Path) -> Mapping[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is told in one line
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a zip's, a pickle's or torch's own, by what is wrong with the file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _Wrong(f"damaged, or holds more than tensors ({reason[:120]})") from None
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise _Wrong("not a mapping of names to tensors, as a model's state_dict is")
    return found


def parse_safetensors(content: bytes) -> dict[str, Tensor]:
    """The tensors of a .safetensors file: 8 bytes of length, a JSON header {name: {dtype, shape, data_offsets}} and the
    values. ValueError unless the values are described completely, once, and nothing else follows."""
    length = int.from_bytes(content[:HEADER], "little")
    if len(content) < HEADER or length > min(LONGEST_HEADER, len(content) - HEADER):
        raise _Wrong(f"truncated: a header of {length} bytes in a file of {len(content)}")
    try:
        header = json.loads(content[HEADER : HEADER + length].decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"its header is not plain JSON ({str(error)[:120]})") from None
    if not isinstance(header, dict):
        raise _Wrong("its header is not a mapping of names")
    header.pop("__metadata__", None)
    values = memoryview(content)[HEADER + length :]
    spans = {name: _span(name, entry, len(values)) for name, entry in header.items()}
    end = 0
    for name, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
        if start != end:
            raise _Wrong(f"tensor {name!r} starts at byte {start} of the values, where {end} is expected")
        end = stop
    if end != len(values):
        raise _Wrong(f"{len(values)} bytes of values, {end} described")
    return {name: _tensor(header[name], values[start:stop]) for name, (start, stop) in spans.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Wrong("a name stands twice")
    return found


def _span(name: str, entry: object, available: int) -> tuple[int, int]:
    """First and last byte of a tensor, checked against its type and shape."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Wrong(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _Wrong(f"tensor {name!r} is of type {str(dtype)[:20]!r}, not one of {', '.join(DTYPES)}")
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2 and len(shape) <= 8):
        raise _Wrong(f"tensor {name!r} has no plain shape and data_offsets")
    start, stop = offsets
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if not start <= stop <= available or stop - start != expected:
        raise _Wrong(f"tensor {name!r} of {expected} bytes is said to lie in {start}..{stop} of {available}")
    return start, stop


def _counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _tensor(entry: Mapping[str, Any], values: memoryview) -> Tensor:
    dtype = DTYPES[entry["dtype"]]
    if not len(values):
        return torch.empty(entry["shape"], dtype=dtype)
    return torch.frombuffer(bytearray(values), dtype=dtype).view(entry["shape"])
