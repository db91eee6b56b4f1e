"""Whether a committed record still is what today's code, configuration and data give, entry by entry of its ``what``.

Without the data of a real set everything but the digest of the data is judged.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import catalog
from benchmarks.errors import InputError
from benchmarks.record import RunRecord, canonical
from benchmarks.runner.plan import ENGINE, Place, options

DATA = "data_digest"


@dataclass(frozen=True)
class Change:
    """An entry of ``what``, by its path, as the record has it and as it is today."""

    entry: str
    then: str
    now: str


def changes(record: RunRecord, place: Place, engine: str = ENGINE) -> list[Change]:
    """What makes a record stale; none where it is not. InputError where today's side cannot be told, because data that
    is here or a language model cannot be read."""
    module, chosen = importlib.import_module(engine), options(place, engine)
    if judges_data(record, place):
        now = module.describe(record.key, chosen)
    else:
        now = {**module.rules(record.key, chosen), DATA: record.what.get(DATA)}
    then = dict(_entries(record.what))
    today = dict(_entries(now))
    return [
        Change(entry, then.get(entry, "nothing"), today.get(entry, "nothing"))
        for entry in sorted({*then, *today})
        if then.get(entry) != today.get(entry)
    ]


def judges_data(record: RunRecord, place: Place) -> bool:
    """Whether the data of a record's run is here."""
    key = record.key
    try:
        return key.data == "twin" or catalog.is_prepared(
            key.benchmark, catalog.spec(key.benchmark).protocol(key.protocol), place.cache
        )
    except InputError:  # a protocol that is no more: describing the run will say so
        return False


def _entries(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every entry of nested mappings by its dotted path, as canonical JSON."""
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _entries(entry, f"{path}{name}.")
        else:
            yield f"{path}{name}", canonical(entry)
