"""Where runs lie and what their files say. A run's folder appears whole, by one rename of the attempt that was finished
(see claims.py), and is never changed; merging copies finished runs into the committed records and predictions and drops
nothing that is there."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import archive, curves
from benchmarks.curves import Identity, identity
from benchmarks.errors import InputError
from benchmarks.methods import METHODS
from benchmarks.record import RunKey, RunRecord, canonical, parsed
from benchmarks.runner import claims
from benchmarks.runner.names import base_of

RECORD = "record.json"
PREDICTIONS = "predictions.npz"
WEIGHTS = {"best": "weights.best.pt", "epochs": "weights.epochs.pt"}  # by what --keep was
CORRUPT = ".corrupt"
DEPTH = "*/*/*/seed-*"
CLAIMED = "*/*/*/.seed-*.claim"
PARTS = ("index", "target", "prediction")
REMEDY = f"delete {RECORD} beside it and run again"


def runs_folder(out: Path) -> Path:
    """<out>/runs."""
    return out / "runs"


def folder_of(out: Path, key: RunKey) -> Path:
    """The folder of a run."""
    return runs_folder(out) / key.folder


def check_out(out: Path) -> None:
    """InputError unless files can be written below ``out``. Nothing is left behind; missing folders are made."""
    try:
        runs_folder(out).mkdir(parents=True, exist_ok=True)
        probe = runs_folder(out) / ".probe"
        archive.write_bytes(probe, b"")
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot write there ({error.strerror}); choose another folder") from None


def write_record(folder: Path, record: RunRecord) -> None:
    """Write record.json, in one step and last of all; ``publish`` makes it count."""
    text = json.dumps(record.to_json(), sort_keys=True, indent=1, allow_nan=False) + "\n"
    archive.write_bytes(folder / RECORD, text.encode())


def read_record(folder: Path, place: Path | None = None) -> RunRecord | None:
    """The record of a run folder, or None where there is none. InputError where it cannot be trusted. ``place``: the
    run's folder, where the one that is read is not yet or no more it."""
    path = folder / RECORD
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it and run again") from None
    record = _parse(text, str(path))
    if not (place or folder).resolve().as_posix().endswith(f"/{record.key.folder}"):
        raise InputError(f"{path}: field 'key' belongs to {record.key.folder}; delete it and run again")
    return record


def read_run(folder: Path, place: Path | None = None) -> RunRecord | None:
    """``read_record``, and InputError where a finished run's predictions are missing or cut short. Who needs every byte
    of them reads them (``read_predictions``)."""
    record = read_record(folder, place)
    if record is not None and record.status == "done":
        archive.check_npz(folder / PREDICTIONS, PARTS, REMEDY)
    return record


def lacks_weights(folder: Path, key: RunKey, keep: str) -> bool:
    """Whether a finished run has not left the weights that ``--keep`` asks for. Fitted methods leave none."""
    row = METHODS.get(base_of(key.method))
    if not keep or (row is not None and row.fitted):
        return False
    enough = WEIGHTS.values() if keep == "best" else (WEIGHTS["epochs"],)
    return not any((folder / name).is_file() for name in enough)


def _parse(text: str, where: str) -> RunRecord:
    try:
        return RunRecord.from_json(parsed(text), where)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: truncated or not a run record ({error}); delete it and run again") from None


def publish(attempt: Path, folder: Path) -> bool:
    """Make a finished attempt the run: its folder with all its files, in one step. What stood there goes, unless it is
    a finished run of the same digest: of two that did the same, the first counts, or the one that kept its weights.
    False for the second."""
    mine = read_record(attempt, folder)
    assert mine is not None
    keep = next((keep for keep, name in reversed(WEIGHTS.items()) if (attempt / name).is_file()), "")

    def stays(found: Path) -> bool:
        with contextlib.suppress(InputError):
            theirs = read_run(found, folder)
            same = theirs is not None and theirs.status == "done" and theirs.digest == mine.digest
            return same and not lacks_weights(found, mine.key, keep)
        return False

    old = attempt.with_name(f"{attempt.name}{claims.OLD}")
    try:
        while not _rename(attempt, folder):
            if stays(folder) or not _put_aside(folder, old, stays):
                return False
        return True
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _rename(source: Path, folder: Path) -> bool:
    """Move a folder to a name that is free; False where it is not."""
    try:
        source.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    archive.sync_folder(folder.parent)
    return True


def _put_aside(folder: Path, aside: Path, stays: Callable[[Path], bool]) -> bool:
    """Move a run's folder away. False where it came in the meantime that it stays: then it is back in its place."""
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
        if stays(aside) and _rename(aside, folder):
            return False
    return True


def quarantine(folder: Path) -> Path:
    """Put a run that cannot be trusted aside, with all its files; returns where it lies now."""
    aside = folder.with_name(f".{folder.name}{CORRUPT}")
    _put_aside(folder, aside, lambda found: is_whole(found, folder))
    return aside


def tidy(out: Path, keys: Iterable[RunKey]) -> None:
    """Remove what killed processes left beside those of these runs that have ended."""
    for folder in (folder_of(out, key) for key in keys):
        if folder.exists():
            claims.tidy(folder)


def is_whole(folder: Path, place: Path) -> bool:
    """Whether a folder holds an ended run that can be trusted; place: where it belongs."""
    with contextlib.suppress(InputError):
        return read_run(folder, place) is not None
    return False


def is_done(folder: Path) -> bool:
    """Whether a run's folder holds a finished run that can be trusted, of whatever configuration."""
    with contextlib.suppress(InputError):
        record = read_run(folder)
        return record is not None and record.status == "done"
    return False


def written_at(folder: Path) -> float:
    """When the record was written, by the file system's clock (``claims.now``); 0 where there is none."""
    try:
        return (folder / RECORD).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def run_folders(out: Path) -> list[Path]:
    """The folder of every run below <out>/runs that has ended or that somebody works on, sorted."""
    ended = {path for path in runs_folder(out).glob(DEPTH) if path.is_dir()}
    claimed = runs_folder(out).glob(CLAIMED)
    return sorted(ended | {path.with_name(path.name.removeprefix(".").removesuffix(".claim")) for path in claimed})


def key_of(folder: Path) -> RunKey | None:
    """The run that a folder is for, by its path; None where the path is not one of a run."""
    group, method, variant, seed = folder.parts[-4:]
    parts, number = group.split("."), seed.removeprefix("seed-")
    if len(parts) != 4 or not number.isdecimal():
        return None
    benchmark, protocol, data, profile = parts
    return RunKey(benchmark, protocol, data, profile, method, variant, int(number))


def records(out: Path) -> Iterator[tuple[Path, RunRecord]]:
    """(folder, record) of every run that has ended. InputError for a record that cannot be trusted."""
    for folder in run_folders(out):
        record = read_record(folder)
        if record is not None:
            yield folder, record


def committed(out: Path, benchmark: str) -> list[RunRecord]:
    """The merged records of a benchmark, in the order of the file."""
    path = _lines_path(out, benchmark)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); restore it from version control") from None
    return [_parse(line, f"{path}:{n}") for n, line in enumerate(text.splitlines(), 1) if line.strip()]


@dataclass(frozen=True)
class Merged:
    """What merging did: lines added, lines of the same result refreshed, lines in all."""

    added: int = 0
    refreshed: int = 0
    total: int = 0


def merge(out: Path) -> Merged:
    """Copy the runs that have ended, failures too, from <out>/runs into <out>/records, /predictions and /curves.

    A line is identified by key, digest and digest of predictions. What is there stays; merging twice changes nothing.
    """
    by_benchmark: dict[str, list[tuple[Path, RunRecord]]] = defaultdict(list)
    for folder, record in records(out):
        by_benchmark[record.key.benchmark].append((folder, record))
    for name in ("records", "predictions", "curves"):
        (out / name).mkdir(parents=True, exist_ok=True)
    if not by_benchmark:
        return Merged()
    with claims.locked(runs_folder(out)):
        parts = [_merge_benchmark(out, name, found) for name, found in sorted(by_benchmark.items())]
    return Merged(*(sum(getattr(part, name) for part in parts) for name in ("added", "refreshed", "total")))


def _merge_benchmark(out: Path, benchmark: str, found: list[tuple[Path, RunRecord]]) -> Merged:
    lines = {identity(record): record for record in committed(out, benchmark)}
    added = {identity(record): (folder, record) for folder, record in found if identity(record) not in lines}
    refreshed = {identity(r): r for _, r in found if identity(r) in lines and _is_newer(r, lines)}
    if added:
        _merge_predictions(out, benchmark, added)
    if added or refreshed:
        lines |= {whose: record for whose, (_, record) in added.items()} | refreshed
        text = "".join(f"{canonical(lines[whose].to_json())}\n" for whose in sorted(lines))
        archive.write_bytes(_lines_path(out, benchmark), text.encode())
    _merge_curves(out / "curves" / f"{benchmark}.jsonl", found, lines)
    return Merged(len(added), len(refreshed), len(lines))


def _is_newer(record: RunRecord, lines: Mapping[Identity, RunRecord]) -> bool:
    """Whether the same result was made again after a different one of its key: then it speaks again, so its line takes
    the new time. Otherwise the line stays as it is, byte for byte."""
    mine = identity(record)
    others = [line for whose, line in lines.items() if whose[0] == record.key and whose != mine]
    latest = max((finished_at(line) for line in others), default="")
    return bool(others) and finished_at(lines[mine]) < latest < finished_at(record)


def finished_at(record: RunRecord) -> str:
    """When a run ended (ISO 8601, UTC), "" where it is not known."""
    return str(record.provenance.get("finished_at", ""))


def _merge_predictions(out: Path, benchmark: str, added: Mapping[Identity, tuple[Path, RunRecord]]) -> None:
    path = out / "predictions" / f"{benchmark}.npz"
    arrays: dict[str, np.ndarray] = archive.read_npz(path) if path.exists() else {}
    size = len(arrays)
    for folder, record in added.values():
        if record.status == "done" and archive.find(arrays, record.key, record.predictions) is None:
            arrays |= archive.members(record.key, record.predictions, read_predictions(folder, record))
    if len(arrays) > size:
        archive.write_npz(path, arrays)


def _merge_curves(path: Path, found: Iterable[tuple[Path, RunRecord]], known: Iterable[Identity]) -> None:
    lines = curves.read(path)
    added = {identity(record): (folder, record) for folder, record in found if identity(record) not in lines}
    fresh = {whose: curves.of_run(folder, record) for whose, (folder, record) in added.items() if record.selection}
    lines |= {whose: curve for whose, curve in fresh.items() if curve is not None}
    if any(fresh.values()):
        archive.write_bytes(path, curves.text(lines, known).encode())


def read_predictions(folder: Path, record: RunRecord) -> dict[str, np.ndarray]:
    """index, target, prediction (and group) of a run, checked against its record."""
    path = folder / PREDICTIONS
    archive.check_npz(path, PARTS, REMEDY)
    arrays = archive.read_npz(path, REMEDY)
    if archive.predictions_digest(arrays) != record.predictions:
        raise InputError(f"{path}: does not fit field 'predictions' of {RECORD}; {REMEDY}")
    return arrays


def _lines_path(out: Path, benchmark: str) -> Path:
    return out / "records" / f"{benchmark}.jsonl"
