"""Trials of the committed searches, <out>/search/*.jsonl and those of studies, read and checked. No torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import studies
from benchmarks.errors import InputError
from benchmarks.record import PLAIN_NAME, parsed

NAMES = ("benchmark", "protocol", "profile", "method")
REMEDY = "restore the line from git or search again"


@dataclass(frozen=True)
class Trial:
    """One trial of a search: whose it was, and its seconds. place: "benchmark.protocol"."""

    place: str
    profile: str
    method: str
    seconds: float


def trials(out: Path) -> Iterator[Trial]:
    """Every trial below ``out``, file by file; InputError names a line that is none."""
    for folder in (out / "search", out / studies.FOLDER / "search"):
        for path in sorted(folder.glob("*.jsonl")):
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
                if line.strip():
                    yield _trial(line, f"{path}:{number}")


def _trial(line: str, where: str) -> Trial:
    try:
        raw = parsed(line)
        names = {name: raw[name] for name in NAMES}
        seconds = raw["time_s"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{where}: not a trial of a search ({type(error).__name__}); {REMEDY}") from None
    for name, value in names.items():
        if not isinstance(value, str) or not PLAIN_NAME.fullmatch(value):
            raise InputError(f"{where}: field {name!r} is {str(value)[:60]!r}, not a plain name; {REMEDY}")
    if type(seconds) not in (int, float) or not 0 <= seconds <= sys.float_info.max:
        raise InputError(f"{where}: field 'time_s' is not a time; {REMEDY}")
    place = f"{names['benchmark']}.{names['protocol']}"
    return Trial(place, names["profile"], names["method"], float(seconds))
