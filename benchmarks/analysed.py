"""What analyses of trained weights leave, <out>/analyses/<analysis>.jsonl: a line a run, sorted by key. No torch.

A line is the analysis, whose it is (key and digest of the run's record), the digest of the source that made it, and its
values: names, texts, lists and finite numbers, rounded to seven significant digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import InputError
from benchmarks.record import RunKey, canonical, key_from, parsed

SCHEMA = 1
DIGITS = 7
FIELDS = ("schema", "analysis", "key", "digest", "source", "values")
DIGEST = re.compile(r"[0-9a-f]{64}")
DEEPEST = 16


@dataclass(frozen=True)
class Line:
    """What one analysis found of one run. digest: the run's. source: ``analyses.engine.source`` when it was made."""

    analysis: str
    key: RunKey
    digest: str
    source: str
    values: Mapping[str, Any]

    def text(self) -> str:
        """As it is committed."""
        return canonical({"schema": SCHEMA, **asdict(self)})


def path_of(out: Path, analysis: str) -> Path:
    """<out>/analyses/<analysis>.jsonl."""
    return out / "analyses" / f"{analysis}.jsonl"


def read(path: Path) -> dict[RunKey, Line]:
    """The lines of an analysis by run, none where there is no file. InputError names the line and the field that cannot
    be trusted."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); restore it from version control") from None
    found: dict[RunKey, Line] = {}
    for number, row in enumerate(text.splitlines(), 1):
        where = f"{path}:{number}"
        try:
            line = _line(parsed(row), path.stem, where)
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{where}: not the line of an analysis ({error}); {_remedy(path.stem)}") from None
        if line.key in found:
            raise InputError(f"{where}: field 'key' stands in an earlier line; {_remedy(path.stem)}")
        found[line.key] = line
    return found


def _remedy(analysis: str) -> str:
    return f"delete the line and run `clcr analyse {analysis}` again"


def _line(raw: object, analysis: str, where: str) -> Line:
    if not isinstance(raw, dict):
        raise ValueError("no JSON object")
    if wrong := sorted(raw.keys() ^ set(FIELDS)):
        raise ValueError(f"field {wrong[0][:40]!r} is missing or unknown")
    if raw["schema"] != SCHEMA or raw["analysis"] != analysis:
        raise ValueError(f"schema {raw['schema']!r} of analysis {str(raw['analysis'])[:40]!r}")
    for name in ("digest", "source"):
        if not isinstance(raw[name], str) or not DIGEST.fullmatch(raw[name]):
            raise ValueError(f"field {name!r} is no digest")
    if not isinstance(raw["values"], dict):
        raise ValueError("field 'values' is no mapping")
    _check(raw["values"], "values", 0)
    if not isinstance(raw["key"], dict):
        raise ValueError("field 'key' is no mapping")
    return Line(analysis, key_from(raw["key"], where), raw["digest"], raw["source"], raw["values"])


def _check(value: object, field: str, depth: int) -> None:
    """Texts, whole and finite numbers, lists and mappings of them."""
    if depth > DEEPEST:
        raise ValueError(f"field {field[:60]!r} is nested more than {DEEPEST} deep")
    if isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            _check(part, f"{field}.{name}", depth + 1)
    elif not (isinstance(value, str) or (type(value) in (int, float) and abs(value) < math.inf)):  # type: ignore[arg-type]
        raise ValueError(f"field {field[:60]!r} is {repr(value)[:40]}, neither a text nor a finite number")


def rounded(value: Any) -> Any:
    """Values as a line holds them: plain mappings and lists, numbers of seven significant digits."""
    if isinstance(value, Mapping):
        return {str(name): rounded(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def text(lines: Iterable[Line]) -> str:
    """The file of these lines."""
    return "".join(f"{line.text()}\n" for line in sorted(lines, key=lambda line: line.key))
