"""The ratchet of reproduced numbers: what was reproduced once must stay so. No torch.

<out>/accepted.yaml lists the published cells that our records reproduced when it was accepted, a line each. Value and
margin are part of a cell: who changes one has another cell, and the change shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from benchmarks import plain_yaml
from benchmarks.archive import write_bytes
from benchmarks.errors import InputError, unknown
from benchmarks.report.findings import Finding
from benchmarks.report.published import Beside, Number, Published

ACCEPTED = "accepted.yaml"
SCHEMA = 1
REPRODUCED = "reproduced"
DROP = "restore the cell, or drop it with `clcr check --accept`"
UNDO = "find what changed since (records, metrics, runs left out) and undo it, or run the row again"
HEAD = """\
# Published cells that the committed records reproduce. `clcr check` fails when one of them is no longer reproduced;
# `clcr check --accept` adds the new ones. Values and margins as records have them, 0.01 being one point.
"""


@dataclass(frozen=True, order=True)
class Accepted:
    """A published cell, as far as it decides a verdict, and the protocol and profile of the runs that reproduced it."""

    benchmark: str
    metric: str
    method: str
    variant: str
    source: str
    published: float
    margin: float
    protocol: str
    profile: str

    def __str__(self) -> str:
        named = f"{self.benchmark}.{self.protocol}.{self.profile}/{self.method}/{self.variant} {self.metric}"
        return f"{named} (published {self.published:g} ± {self.margin:g}, source {self.source})"


def cells(rows: Iterable[Beside], published: Published) -> dict[Accepted, str]:
    """The verdict on every published number beside which runs of ours stand."""
    found = {}
    for row in rows:
        if row.group is not None:
            key = row.group.key
            found[_cell_of(row.number, published, key.protocol, key.profile)] = row.verdict
    return found


def _cell_of(number: Number, published: Published, protocol: str, profile: str) -> Accepted:
    return Accepted(
        benchmark=number.benchmark,
        metric=number.metric,
        method=number.method,
        variant=number.variant,
        source=number.source,
        published=round(number.value, 12),
        margin=round(published.margin(number), 12),
        protocol=protocol,
        profile=profile,
    )


def left(accepted: Sequence[Accepted], published: Published) -> list[Accepted]:
    """Accepted cells that the file of published numbers does not have any more, or not with this value and margin, or
    not for this protocol and profile."""
    there = {
        _cell_of(number, published, protocol, profile)
        for number in published.numbers
        for protocol in number.protocols
        for profile in published.profiles
    }
    return [cell for cell in accepted if cell not in there]


def regressions(accepted: Sequence[Accepted], verdicts: dict[Accepted, str], published: Published) -> list[Finding]:
    """A failure for each cell that was reproduced and is no longer."""
    gone = left(accepted, published)
    return [
        Finding(str(cell), REPRODUCED, "no such cell in published.yaml", DROP)
        if cell in gone
        else Finding(str(cell), REPRODUCED, verdicts.get(cell, "not run"), UNDO)
        for cell in accepted
        if verdicts.get(cell) != REPRODUCED
    ]


def new(accepted: Sequence[Accepted], verdicts: dict[Accepted, str]) -> list[Accepted]:
    """Cells that are reproduced and not accepted yet."""
    return sorted(cell for cell, verdict in verdicts.items() if verdict == REPRODUCED and cell not in accepted)


def load(path: Path) -> tuple[Accepted, ...]:
    """The accepted cells; none where the file is missing. InputError names the field and the remedy."""
    if not path.exists():
        return ()
    raw = plain_yaml.read(path, "restore it from version control")
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA or not isinstance(raw.get(REPRODUCED), list):
        raise InputError(f"{path}: not schema {SCHEMA} with a list {REPRODUCED!r}; restore it from version control")
    return tuple(_cell(entry, f"{path}: {REPRODUCED}[{place}]") for place, entry in enumerate(raw[REPRODUCED]))


def _cell(entry: object, where: str) -> Accepted:
    names = {field.name: float if field.name in ("published", "margin") else str for field in fields(Accepted)}
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not a mapping; restore the file from version control")
    for name in (name for name in entry if name not in names):
        raise unknown("key", str(name), names, where)
    for name, kind in names.items():
        if not isinstance(entry.get(name), kind) and not (kind is float and isinstance(entry.get(name), int)):
            raise InputError(f"{where}.{name}: {entry.get(name)!r}; restore the file from version control")
    return Accepted(**entry)


def save(path: Path, accepted: Iterable[Accepted]) -> None:
    """Write the cells, sorted, a line each."""
    lines = [yaml.safe_dump(asdict(cell), default_flow_style=True, sort_keys=False, width=10_000).strip()
             for cell in sorted(accepted)]  # fmt: skip
    body = f"{REPRODUCED}:\n" + "".join(f"  - {line}\n" for line in lines) if lines else f"{REPRODUCED}: []\n"
    write_bytes(path, f"{HEAD}schema: {SCHEMA}\n{body}".encode())
