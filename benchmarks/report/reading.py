"""Lines of records, read and checked; of each, what tables need. No torch.

A hundred thousand lines fit into memory because a reading keeps no settings: where those must be equal for all rows of
a group, it keeps their digests.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from sys import intern
from typing import Any
from typing import Protocol as Shape

from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord, canonical, parsed

KEY = ("benchmark", "protocol", "data", "profile", "method", "variant")
RULES = ("protocol", "metrics", "trainer")
TOLD = ("finished_at", "device", "ceiling", "method")


class Line(Shape):
    """What says which record of a run is the newest, and whether two are the same."""

    @property
    def key(self) -> RunKey: ...
    @property
    def digest(self) -> str: ...
    @property
    def predictions(self) -> str: ...
    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def provenance(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What tables need of a record that has been checked: of a hundred thousand the whole would not fit into memory.

    provenance: its fields ``TOLD``. data: the data digest; rules: digest of what must be equal for all rows of a group
    (``RULES``); settings: digest of all of ``what`` but the data.
    """

    key: RunKey
    status: str
    error: str
    metrics: Mapping[str, Mapping[str, float]]
    digest: str
    predictions: str
    provenance: Mapping[str, Any]
    n_parameters: int
    time_s: float
    peak_memory_bytes: int
    data: str | None
    rules: bytes
    settings: bytes


@contextmanager
def no_cycles() -> Iterator[None]:
    """No search for cycles meanwhile: parsed JSON has none, and looking through all of it again and again takes a fifth
    of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def lines(folder: Path) -> Iterator[tuple[RunRecord, str]]:
    """Every record below the folder, file by file, line by line, checked; and its digest, which the check has made."""
    for path in sorted(Path(folder).glob("*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:  # what is no text is no JSON or not of its digest
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}:{number}"
                    try:
                        raw = parsed(line)
                    except ValueError as error:
                        raise InputError(
                            f"{where}: not JSON ({error}); restore the line from git and report again"
                        ) from error
                    yield RunRecord.from_json(raw, where), raw["digest"]


def readings(folder: Path, select: Callable[[RunKey], bool] | None) -> Iterator[Reading]:
    """What tables need of every record below the folder that is looked at."""
    facets: dict[str, tuple[str | None, bytes, bytes]] = {}  # by digest: many records say the same
    for record, digest in lines(folder):
        if select is None or select(record.key):
            if digest not in facets:
                facets[digest] = _facets(record.what)
            yield _reading(record, digest, *facets[digest])


def _facets(what: Mapping[str, Any]) -> tuple[str | None, bytes, bytes]:
    """``data``, ``rules`` and ``settings`` of a Reading."""
    parts = {name: canonical(value) for name, value in sorted(what.items())}
    data = parts.pop("data_digest", None)
    rules = _fingerprint(f"{name}:{parts.get(name)}" for name in RULES)
    return data, rules, _fingerprint(f"{name}:{text}" for name, text in parts.items())


def _reading(record: RunRecord, digest: str, data: str | None, rules: bytes, settings: bytes) -> Reading:
    benchmark, protocol, data_kind, profile, method, variant = map(intern, attrgetter(*KEY)(record.key))
    scored = record.metrics if record.status == "done" else {}
    metrics = {intern(split): {intern(n): v for n, v in values.items()} for split, values in scored.items()}
    return Reading(
        key=RunKey(benchmark, protocol, data_kind, profile, method, variant, record.key.seed),
        status=intern(record.status),
        error=record.error,
        metrics=metrics,
        digest=digest,
        predictions=record.predictions,
        provenance={name: record.provenance[name] for name in TOLD if name in record.provenance},
        n_parameters=record.n_parameters,
        time_s=record.time_s,
        peak_memory_bytes=record.peak_memory_bytes,
        data=data,
        rules=rules,
        settings=settings,
    )


def _fingerprint(texts: Iterable[str]) -> bytes:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).digest()


def finished_at(record: Line) -> float:
    """Seconds since 1970 of ``provenance.finished_at`` (a number or ISO 8601, UTC where it says nothing); 0 without."""
    value = record.provenance.get("finished_at", 0.0)
    if isinstance(value, int | float):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise InputError(f"{record.key}: field 'provenance.finished_at' is {value!r}; expected ISO 8601") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
