"""What a check found: failures, one line each, and what it looked at. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold: what, what was expected, what was found, what to do about it."""

    what: str
    expected: str
    found: str
    remedy: str

    def __str__(self) -> str:
        text = f"{self.what}: expected {self.expected}, found {self.found}; {self.remedy}"
        return " ".join(text.split())


@dataclass(frozen=True)
class Part:
    """What one part of the check came to. looked_at: in words, such as "618 records"; rows: for programs."""

    looked_at: str
    failures: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = field(default=())
