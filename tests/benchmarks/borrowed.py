"""A submission for tests: the committed runs of late fusion, under another method's name. Its numbers are real ones."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import archive, curves
from benchmarks.curves import identity
from benchmarks.record import RunKey, RunRecord, canonical, digest_of

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
TWIN, OPEN = ("crema_d", "twin", "paper"), ("ravdess", "real", "actor_disjoint")
PACKAGE = {
    "label": "Borrowed",
    "citation": "Nobody, Nothing, 2026",
    "year": 2026,
    "package": "borrowed-method",
    "version": "0.1.0",
    "url": "https://example.org/borrowed",
    "commit": "0123456789" * 4,
    "dirty": False,
}
Raw = dict[str, Any]


def committed(benchmark: str, into: Path = RESULTS) -> list[RunRecord]:
    lines = (into / "records" / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()
    return [RunRecord.from_json(json.loads(line), f"{benchmark}:{n}") for n, line in enumerate(lines, 1)]


def target(into: Path, benchmarks: Sequence[str] = ("crema_d", "ravdess")) -> Path:
    """A copy of the committed results of some benchmarks."""
    for part, suffix in (("records", "jsonl"), ("predictions", "npz"), ("curves", "jsonl")):
        (into / part).mkdir(parents=True)
        for name in benchmarks:
            shutil.copy(RESULTS / part / f"{name}.{suffix}", into / part)
    return into


def borrow(record: RunRecord, name: str) -> RunRecord:
    what = {**record.what, "source_digest": "ab" * 32}
    return replace(record, key=replace(record.key, method=name), what=what,
                   provenance={**record.provenance, "method": PACKAGE})  # fmt: skip


def submission(folder: Path, groups: Sequence[tuple[str, str, str]] = (TWIN, OPEN)) -> Path:
    """What `clcr report` would have left of late fusion, had it been another's method."""
    return Path(shutil.copytree(_made(tuple(groups)), folder))


@cache
def _made(groups: tuple[tuple[str, str, str], ...]) -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    for part in ("records", "predictions", "curves"):
        (folder / part).mkdir(parents=True)
    for benchmark, data, protocol in groups:
        source = archive.read_npz(RESULTS / "predictions" / f"{benchmark}.npz")
        known = curves.read(RESULTS / "curves" / f"{benchmark}.jsonl")
        lines, arrays, kept = [], dict[str, np.ndarray](), {}
        for record in committed(benchmark):
            if (record.key.method, record.key.data, record.key.protocol) == ("late_fusion", data, protocol):
                mine = borrow(record, "borrowed")
                lines.append(f"{canonical(mine.to_json())}\n")
                found = archive.predictions_of(source, record.key, record.predictions)
                arrays |= archive.members(mine.key, mine.predictions, found)
                kept[identity(mine)] = known[identity(record)]
        (folder / "records" / f"{benchmark}.jsonl").write_text("".join(lines))
        archive.write_npz(folder / "predictions" / f"{benchmark}.npz", arrays)
        (folder / "curves" / f"{benchmark}.jsonl").write_text(curves.text(kept, kept))
    return folder


def rewrite(folder: Path, benchmark: str, change: Callable[[list[Raw], list[Raw]], None]) -> None:
    """Change the parsed lines of records and curves. The digest of ``what`` is computed anew, and curves follow."""
    paths = [folder / part / f"{benchmark}.jsonl" for part in ("records", "curves")]
    records, courses = ([json.loads(line) for line in path.read_text().splitlines()] for path in paths)
    owners = {canonical([curve["key"], curve["digest"], curve["predictions"]]): curve for curve in courses}
    pairs = [(r, owners[canonical([r["key"], r["digest"], r["predictions"]])]) for r in records]
    change(records, courses)
    for record, curve in pairs:
        record["digest"] = digest_of(record["what"])
        curve |= {name: record[name] for name in ("key", "digest", "predictions")}
    for path, lines in zip(paths, (records, courses), strict=True):
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def repredict(
    folder: Path, benchmark: str, change: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]],
    score: Callable[[Mapping[str, np.ndarray]], Mapping[str, float]] | None = None,
) -> None:  # fmt: skip
    """Change the arrays of the first run, with digests, and metrics where ``score`` makes them, to match."""
    path = folder / "predictions" / f"{benchmark}.npz"
    members = archive.read_npz(path)

    def edit(records: list[Raw], _: list[Raw]) -> None:
        record = RunRecord.from_json(dict(records[0]), "test")
        arrays = dict(change(archive.predictions_of(members, record.key, record.predictions)))
        digest = archive.predictions_digest(arrays)
        records[0]["predictions"] = digest
        if score:
            records[0]["metrics"]["test"] = dict(score(arrays))
        archive.write_npz(path, members | archive.members(record.key, digest, arrays))

    rewrite(folder, benchmark, edit)


def rekey(folder: Path, benchmark: str, change: Callable[[RunKey], RunKey]) -> None:
    """Give runs other keys: records, curves and predictions alike."""
    path = folder / "predictions" / f"{benchmark}.npz"
    members = archive.read_npz(path)

    def edit(records: list[Raw], _: list[Raw]) -> None:
        for raw in records:
            old = RunKey(**raw["key"])
            found = archive.predictions_of(members, old, raw["predictions"])
            raw["key"] = asdict(change(old))
            raw["provenance"]["together"] = [raw["key"]["seed"]]
            members.update(archive.members(change(old), raw["predictions"], found))

    rewrite(folder, benchmark, edit)
    archive.write_npz(path, members)


def state(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
