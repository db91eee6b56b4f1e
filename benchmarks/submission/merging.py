"""Accepted runs into the committed results: predictions, then curves, then records, each file in one step.

A record is written last, when all that belongs to it is there: whoever is killed in between leaves results that hang
together, and the same command completes them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks import archive, curves
from benchmarks.curves import Curve, Identity, identity
from benchmarks.errors import InputError
from benchmarks.record import canonical
from benchmarks.runner import claims, store
from benchmarks.submission.reading import Line, Submission


def merge(into: Path, lines: Sequence[Line], found: Submission) -> list[Path]:
    """Add lines that are not there yet to <into>/records, /predictions and /curves; the files that were written.

    All new bytes are made before the first file is replaced. InputError where the folder cannot be written.
    """
    by_benchmark: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_benchmark[line.record.key.benchmark].append(line)
    try:
        for name in ("predictions", "curves"):
            (into / name).mkdir(exist_ok=True)
        with claims.locked(into / "records"):
            made = [_made(into, name, mine, found) for name, mine in sorted(by_benchmark.items())]
            files = [file for step in zip(*made, strict=True) for file in step]
            changed = [(path, content) for path, content in files if _differs(path, content)]
            for path, content in changed:
                archive.write_bytes(path, content)
    except OSError as error:
        raise InputError(f"--into {into}: cannot be written ({error.strerror}); choose another folder") from None
    return [path for path, _ in changed]


def _made(into: Path, benchmark: str, lines: Sequence[Line], found: Submission) -> tuple[tuple[Path, bytes], ...]:
    """The three files of a benchmark with the new lines, in the order in which they are written."""
    records = {identity(record): record for record in store.committed(into, benchmark)}
    records |= {identity(line.record): line.record for line in lines}
    path = into / "predictions" / f"{benchmark}.npz"
    arrays = dict(archive.read_npz(path)) if path.exists() else {}
    known: dict[Identity, Curve] = curves.read(into / "curves" / f"{benchmark}.jsonl")
    for line in lines:
        key, digest = line.record.key, line.record.predictions
        arrays |= archive.members(key, digest, archive.predictions_of(found.arrays[benchmark], key, digest))
        if line.curve is not None:
            known[identity(line.record)] = line.curve
    text = "".join(f"{canonical(records[whose].to_json())}\n" for whose in sorted(records))
    return (
        (path, archive.npz_bytes(arrays)),
        (into / "curves" / f"{benchmark}.jsonl", curves.text(known, records).encode()),
        (into / "records" / f"{benchmark}.jsonl", text.encode()),
    )


def _differs(path: Path, content: bytes) -> bool:
    return not path.exists() or path.read_bytes() != content
