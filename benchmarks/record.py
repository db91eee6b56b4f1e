"""Who a run is (RunKey), what it was (digest), how it ended (RunRecord). Standard library only.

The path of a run says who, its digest says what: the canonical config, protocol, data digest and method source.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.errors import InputError

SCHEMA = 1
STATUSES = ("done", "failed")
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
        try:
            data["key"] = RunKey(**data["key"])
            data["folds"] = tuple(data["folds"])
            record = cls(**data)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: field 'key': {error}; delete the record and run again") from error
        _check(record, digest, where)
        return record


def _check(record: RunRecord, digest: object, where: str) -> None:
    if record.digest != digest:
        raise InputError(f"{where}: field 'digest' does not fit field 'what': it was edited; run again")
    if record.status not in STATUSES:
        raise InputError(f"{where}: field 'status' is {record.status!r}, expected one of {', '.join(STATUSES)}")
    if record.status == "done":
        for split, values in record.metrics.items():
            for name, value in values.items():
                if not isinstance(value, int | float) or not math.isfinite(value):
                    wrong = f"field 'metrics.{split}.{name}' is {value!r}, not a finite number"
                    raise InputError(f"{where}: {wrong}; run again")


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text on every machine."""
    return ENCODER.encode(value)


def digest_of(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
