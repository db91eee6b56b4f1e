"""Lines of results/analyses/<analysis>.jsonl, read and checked: what trained weights gave. No torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import InputError
from benchmarks.record import PLAIN_NAME, RunKey, canonical, key_from, parsed

SCHEMA = 1
FIELDS = ("schema", "analysis", "key", "digest", "source", "values")
FOLDER = "analyses"
HEX = frozenset("0123456789abcdef")
REMEDY = "restore the line from git or make it again with `clcr analyse`"


@dataclass(frozen=True)
class Analysis:
    """What one analysis found in one run. digest: the run's; source: of the analysis' code. values: as the analysis
    states them, finite numbers and texts in mappings and lists."""

    analysis: str
    key: RunKey
    digest: str
    source: str
    values: Mapping[str, Any]

    @property
    def line(self) -> str:
        """As it is committed."""
        return canonical({"schema": SCHEMA, **asdict(self)})


def read(path: Path) -> tuple[Analysis, ...]:
    """The lines of <analysis>.jsonl by key; none where there is no file. InputError names the line and the field."""
    found: dict[RunKey, Analysis] = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            one = checked(line, path.stem, where)
            if one.key in found:
                raise InputError(f"{where}: {one.key} stands there already; delete one of the two lines")
            found[one.key] = one
    return tuple(found[key] for key in sorted(found))


def checked(line: str, name: str, where: str) -> Analysis:
    """One line of the analysis ``name``; InputError says what is wrong."""
    try:
        raw = parsed(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); {REMEDY}") from None
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise InputError(f"{where}: not an analysis of schema {SCHEMA}; {REMEDY}")
    if wrong := sorted(raw.keys() ^ set(FIELDS)):
        raise InputError(f"{where}: field {wrong[0][:60]!r} is missing or unknown; {REMEDY}")
    if raw["analysis"] != name or not PLAIN_NAME.fullmatch(name):
        raise InputError(f"{where}: field 'analysis' is {str(raw['analysis'])[:60]!r}, expected {name!r}; {REMEDY}")
    for field in ("digest", "source"):
        if not isinstance(raw[field], str) or len(raw[field]) != 64 or not HEX.issuperset(raw[field]):
            raise InputError(f"{where}: field {field!r} is not a sha256; {REMEDY}")
    if not isinstance(raw["key"], dict) or not isinstance(raw["values"], dict):
        raise InputError(f"{where}: field 'key' or 'values' is not a mapping; {REMEDY}")
    if wrong_place := _unfit(raw["values"], "values"):
        raise InputError(f"{where}: field {wrong_place[:200]!r} is not a finite number or a name; {REMEDY}")
    return Analysis(name, key_from(raw["key"], where), raw["digest"], raw["source"], raw["values"])


def _unfit(value: object, place: str) -> str:
    """Where a value is what no analysis gives, "" where nowhere. JSON's parser has bounded the depth."""
    if isinstance(value, dict):
        return next((found for key, item in value.items() if (found := _unfit(item, f"{place}.{key}"))), "")
    if isinstance(value, list):
        return next((found for n, item in enumerate(value) if (found := _unfit(item, f"{place}.{n}"))), "")
    if isinstance(value, str):
        return "" if value.isprintable() and len(value) <= 200 else place
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return "" if fits else place


def number(values: object, *path: str) -> float | None:
    """The number at values[path[0]][path[1]]..., None where it is absent; InputError where it is something else."""
    for step in path:
        if not isinstance(values, Mapping) or step not in values:
            return None
        values = values[step]
    if not isinstance(values, int | float):
        raise InputError(f"analyses: field {'.'.join(path)[:200]!r} is not a number; {REMEDY}")
    return float(values)
