"""What ``clcr fetch`` does and shows: files as they come, then the steps that a person must take. No torch."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import fetch, sdk
from benchmarks.console import Console, duration
from benchmarks.errors import InputError
from benchmarks.fetch import Fetched, Policy, Progress
from benchmarks.sources import SOURCES, ByHand, Sources

_EVERY_S = 2.0


@dataclass(frozen=True)
class How:
    """large: also large files without a published checksum. sdk: the sequences by mmsdk itself. dry: tell alone."""

    large: bool = False
    sdk: bool = False
    dry: bool = False


def run(name: str, to: Path, console: Console, how: How = How()) -> int:
    """Fetch a benchmark, or "all" of them into a folder each; 1 where a file could not be had."""
    names = list(SOURCES) if name == "all" else [name]
    told: list[dict[str, Any]] = []
    for each in names:
        found = fetch.through_sdk(each) if how.sdk else fetch.sources(each)
        if how.sdk and not how.dry:
            sdk.library()  # the recipe is told before anything is made
        folder = _writable(to / each if name == "all" else to, how.dry)
        ended = fetch.planned(found, folder) if how.dry else _fetched(each, folder, how, _Watch(each, console))
        told.append(_row(each, found, folder, ended))
        _show(told[-1], console)
    console.data({"benchmarks": told})
    for file in (file for row in told for file in row["files"] if file["state"] == "failed" and "url" not in file):
        raise InputError(file["error"])  # not a transfer that failed, but an archive that was put there
    return int(any(file["state"] == "failed" for row in told for file in row["files"]))


def _fetched(name: str, folder: Path, how: How, watch: _Watch) -> list[Fetched]:
    if how.sdk:
        return fetch.fetch_through_sdk(name, folder, Policy(), watch)
    return fetch.fetch(name, folder, how.large, Policy(), watch)


def _writable(folder: Path, dry: bool) -> Path:
    data = os.environ.get("CLCR_DATA")
    if data and folder.resolve().is_relative_to(Path(data).resolve()):
        raise InputError(
            f"--to {folder}: lies in CLCR_DATA, which is only read; choose another folder, for --source of prepare"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--to {folder}: not a folder; choose another one")
    try:
        if not dry:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--to {folder}: cannot be made ({error.strerror}); choose another folder") from None
    return folder


def _row(name: str, found: Sources, folder: Path, ended: Sequence[Fetched]) -> dict[str, Any]:
    known = {file.path: asdict(file) for file in found.files}
    files = [{**known.get(end.path, {}), **asdict(end)} for end in ended]
    by_hand = [{**asdict(part), "found": _count(folder, part.pattern)} for part in found.by_hand]
    return {"name": name, "folder": str(folder), "files": files, "by_hand": by_hand}


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern)) if folder.is_dir() else 0


def _show(row: dict[str, Any], console: Console) -> None:
    name, folder = row["name"], row["folder"]
    if row["files"]:
        columns = ("file", "state", "size", "licence", "sha256", "from or why not")
        console.table(f"{name}: {folder}", columns, [_cells(file) for file in row["files"]])
    for part in row["by_hand"]:
        for line in _explained(part, folder):
            console.say(line)
    if any(file["state"] == "skipped" for file in row["files"]):
        console.say("  Large files without a published checksum are fetched with --large alone.")
    console.say(f"Then: clcr prepare {name} --source {folder}")


def _cells(file: dict[str, Any]) -> tuple[str, ...]:
    said = file["error"] or file.get("url", "")
    known = file["sha256"][:12] or "not published"
    return file["path"], file["state"], amount(file["size"] or None), file.get("licence", ""), known, said


def _explained(part: dict[str, Any], folder: str) -> list[str]:
    source = ByHand(**{name: value for name, value in part.items() if name != "found"})
    lines = [f"By hand: {source.what}; here: {part['found']} of {source.count}"]
    lines += [f"  {text}" for text in (source.url, f"Licence: {source.licence}", source.terms) if text]
    lines += [f"  {number}. {step}" for number, step in enumerate(source.steps, start=1)]
    lines += ["  It must look like this:", *(f"    {line}" for line in source.layout)]
    return [line.replace("DIR/", f"{folder}/").replace("DIR", folder) for line in lines]


def amount(count: int | None) -> str:
    """Bytes in the unit that suits them."""
    if count is None:
        return "unknown"
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


class _Watch:
    """Tells how a transfer goes, every two seconds at most; what went wrong always."""

    def __init__(self, name: str, console: Console) -> None:
        self._name, self._console = name, console
        self._path, self._began, self._start, self._told = "", 0.0, 0, 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.path != self._path or progress.done < self._start:
            self._path, self._began, self._start, self._told = progress.path, now, progress.done, now
        if progress.note:
            self._console.note(f"{self._name}: {progress.path}: {progress.note}")
        elif now - self._told >= _EVERY_S:
            self._told = now
            self._console.note(f"{self._name}: {progress.path}: {self._so_far(progress, now)}")

    def _so_far(self, progress: Progress, now: float) -> str:
        rate = (progress.done - self._start) / max(now - self._began, 1e-9)
        if progress.total is None:
            return f"{amount(progress.done)}, {amount(int(rate))}/s, total unknown"
        left = duration((progress.total - progress.done) / rate) if rate > 0 else "unknown time"
        return f"{amount(progress.done)} of {amount(progress.total)}, {amount(int(rate))}/s, about {left} left"
