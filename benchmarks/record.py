"""Who a run is (RunKey), what it was (digest), how it ended (RunRecord). Standard library only.

The path of a run says who, its digest says what: the canonical config, protocol, data digest and method source.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from benchmarks.errors import InputError

SCHEMA = 1
STATUSES = ("done", "failed")
KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("key", "what", "provenance"), (dict,)),
    **dict.fromkeys(("status", "predictions", "error"), (str,)),
    "folds": (list,),
}
DONE_KINDS: Mapping[str, tuple[type, ...]] = {  # a failed run's are shown where they can be, and counted nowhere
    **KINDS,
    **dict.fromkeys(("selection", "metrics", "diagnostics"), (dict,)),
    **dict.fromkeys(("n_parameters", "peak_memory_bytes"), (int,)),
    "time_s": (int, float),
}
PLAIN_NAME = re.compile(r"\w[\w+-]{0,79}")
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, order=True)
class RunKey:
    """The identity of a run. ``data`` is "twin" (synthetic) or "real"."""

    benchmark: str
    protocol: str
    data: str
    profile: str
    method: str
    variant: str
    seed: int

    @property
    def folder(self) -> str:
        """Path below <out>/runs."""
        group = f"{self.benchmark}.{self.protocol}.{self.data}.{self.profile}"
        return f"{group}/{self.method}/{self.variant}/seed-{self.seed:03d}"

    def __str__(self) -> str:
        return self.folder


@dataclass(frozen=True)
class RunRecord:
    """One run, as record.json and as a line of results/records/<benchmark>.jsonl. Metrics are never rounded.

    what: {config, protocol, data_digest, source_digest, ...}; digest = digest_of(what).
    selection: {metric, epoch, value}, or for a cross-validated run {metric, epochs: [...], values: [...], value: mean}.
    metrics: {split: {name: value}}; folds: [{split: {name: value}}] for cross-validated runs.
    predictions: sha256 of the run's test predictions (index, target, prediction, group as raw bytes).
    """

    key: RunKey
    what: Mapping[str, Any]
    status: str
    selection: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    folds: tuple[Mapping[str, Mapping[str, float]], ...] = ()
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    n_parameters: int = 0
    time_s: float = 0.0
    peak_memory_bytes: int = 0
    predictions: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """Digest of ``what``."""
        return digest_of(self.what)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with the digest spelt out."""
        return {**asdict(self), "folds": [dict(fold) for fold in self.folds], "digest": self.digest}

    @classmethod
    def from_json(cls, raw: object, where: str) -> RunRecord:
        """Read back what ``to_json`` wrote; InputError names ``where`` and the field that is wrong."""
        if not isinstance(raw, dict):
            raise InputError(f"{where}: not a JSON object; delete it and run again")
        data = dict(raw)
        digest = data.pop("digest", None)
        if data.get("schema") != SCHEMA:
            raise InputError(f"{where}: field 'schema' is {data.get('schema')!r}, expected {SCHEMA}; run again")
        wrong = sorted(data.keys() ^ cls.__dataclass_fields__.keys())
        if wrong:
            raise InputError(f"{where}: field {wrong[0]!r} is missing or unknown; delete the record and run again")
        for name, kinds in (DONE_KINDS if data["status"] == "done" else KINDS).items():
            if type(data[name]) not in kinds:
                told = f"field {name!r} is of type {type(data[name]).__name__}"
                raise InputError(f"{where}: {told}; delete the record and run again")
        data["key"] = key_from(data["key"], where)
        data["folds"] = tuple(data["folds"])
        record = cls(**data)
        _check(record, digest, where)
        return record


def key_from(raw: Mapping[str, Any], where: str) -> RunKey:
    """The key of a record or a curve, of names and a number; InputError where it is another thing."""
    try:
        key = RunKey(**raw)
    except TypeError as error:
        raise InputError(f"{where}: field 'key': {error}; delete the record and run again") from None
    for name, value in raw.items():
        if type(value) is not (int if name == "seed" else str):
            raise InputError(f"{where}: field 'key.{name}' is {type(value).__name__}; delete the record and run again")
    if wrong := _odd(key.benchmark, key.protocol, key.data, key.profile):
        raise InputError(f"{where}: field 'key' holds {wrong!r}, not a plain name; delete it and run again")
    return key


@lru_cache(maxsize=1024)
def _odd(*names: str) -> str:
    """The first of the names of a group that is not a plain one: they become parts of the names of files."""
    return next((name for name in names if not PLAIN_NAME.fullmatch(name)), "")


def _check(record: RunRecord, digest: object, where: str) -> None:
    try:
        own = record.digest
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: field 'what' cannot be read ({error}); delete the record and run again") from None
    if own != digest:
        raise InputError(f"{where}: field 'digest' does not fit field 'what': it was edited; run again")
    if record.status not in STATUSES:
        raise InputError(f"{where}: field 'status' is {record.status!r}, expected one of {', '.join(STATUSES)}")
    if record.status == "done":
        _check_scores(record.metrics, "metrics", where)
        for number, fold in enumerate(record.folds):
            _check_scores(fold, f"folds.{number}", where)
    _check_scores({"ceiling": record.provenance.get("ceiling", {})}, "provenance", where)


def _check_scores(splits: object, field: str, where: str) -> None:
    """Finite numbers by name by split."""
    if not isinstance(splits, dict):
        raise InputError(f"{where}: field '{field}' is not a mapping; run again")
    for split, values in splits.items():
        if not isinstance(values, dict):
            raise InputError(f"{where}: field '{field}.{split}' is not a mapping; run again")
        for name, value in values.items():
            if not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
                wrong = f"field '{field}.{split}.{name}' is {repr(value)[:40]}, not a finite number"
                raise InputError(f"{where}: {wrong}; run again")


def parsed(text: str | bytes) -> Any:
    """The value of a JSON document. ValueError where it is none, also where it is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text on every machine."""
    return ENCODER.encode(value)


def digest_of(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
