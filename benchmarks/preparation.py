"""``clcr prepare``: prepare, look beforehand (--dry-run) or read again afterwards (--verify). No torch."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import catalog, engine, prepared
from benchmarks.console import Console
from benchmarks.engine import Job, Options
from benchmarks.errors import InputError
from benchmarks.media.files import Loss

FAILED = 1
SHOWN = 20  # losses that a dry run shows by name


def options(
    workers: int | None,
    preset: str | None,
    max_loss: float | None,
    tell: Callable[[str], None],
    clip_timeout: float | None = None,
) -> Options:
    """The options of a command line, checked."""
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be at least 1")
    if max_loss is not None and not 0 <= max_loss <= 1:
        raise InputError(f"--max-loss {max_loss}: must be a share, 0 to 1")
    limit_s = engine.CLIP_TIMEOUT_S if clip_timeout is None else clip_timeout
    if not limit_s > 0:
        raise InputError(f"--clip-timeout {limit_s:g}: must be above 0 seconds")
    return Options(workers or len(os.sched_getaffinity(0)), preset, max_loss, tell, limit_s)


def _each(
    wanted: Sequence[str], source: Path, act: Callable[[str], dict[str, Any]], console: Console
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Results and refusals; with one benchmark, and where all are refused, that is the command's error."""
    if not source.is_dir():
        what = "not a folder" if source.exists() else "no such folder"
        raise InputError(f"{source}: {what}; set CLCR_DATA or pass --source to the folder of published files")
    done: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    for name in wanted:
        try:
            done.append(act(name))
        except InputError as error:
            if len(wanted) == 1:
                raise
            refused.append({"benchmark": name, "error": str(error)})
            console.note(f"{name}: not prepared: {error}")
    if not done:
        raise InputError(f"{source}: holds none of the benchmarks' files; see the lines above")
    return done, refused


def prepare(wanted: Sequence[str], source: Path, cache: Path, chosen: Options, console: Console) -> int:
    """Prepare benchmarks from the files below ``source``; returns the exit code."""

    def act(name: str) -> dict[str, Any]:
        try:
            folder = catalog.prepare(name, source, cache, chosen)
        except OSError as error:
            raise _unusable(error, source, cache) from None
        data, made = prepared.load(folder), prepared.parameters(folder)
        rows = len(next(iter(data.samples.values())))
        shapes = {array: list(values.shape) for array, values in data.arrays.items()}
        console.say(f"{name}: prepared, {rows} samples, arrays {', '.join(shapes)}")
        _tell_made(name, made, console)
        told: dict[str, Any] = {key: made[key] for key in ("counts", "dropped", "remarks") if key in made}
        return {"benchmark": name, "samples": rows, "arrays": shapes, **told}

    done, refused = _each(wanted, source, act, console)
    console.data({"prepared": done, "refused": refused})
    return 0


def _unusable(error: OSError, source: Path, cache: Path) -> InputError:
    """What the disk said, with the place: files are read below the source and written below the cache."""
    place, reason = error.filename or cache, " ".join(str(error.strerror or error).split())
    if Path(place).absolute().is_relative_to(source.absolute()):
        return InputError(f"{place}: cannot be read ({reason}); repair it or its permissions")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None):  # None: numpy, whose file ended early
        return InputError(f"{cache}: no space left ({reason}); make room or set CLCR_CACHE to a larger disk")
    return InputError(f"{place}: cannot be written ({reason}); set CLCR_CACHE to a folder that can")


def _tell_made(name: str, made: dict[str, Any], console: Console) -> None:
    console.notes([f"{name}: {note}" for note in made.get("notes", ())])
    if not isinstance(made.get("counts"), dict) or "dropped" not in made:
        return
    _tell_counts(made["counts"], console)
    if made["dropped"]:
        reasons = engine.by_reason([Loss(**loss) for loss in made["dropped"]])
        console.say(f"{name}: {len(made['dropped'])} clips dropped: {reasons} (each with its reason in manifest.json)")
    _tell_classes(made["lost_by_class"], console)


def _tell_counts(counts: dict[str, dict[str, list[int]]], console: Console) -> None:
    rows = [(p, part, *both, both[0] - both[1]) for p, parts in counts.items() for part, both in parts.items()]
    console.table("counts", ("protocol", "part", "found", "official", "difference"), rows)


def _tell_classes(lost: dict[str, list[int]], console: Console) -> None:
    if lost:
        rows = [(name, gone, listed, f"{gone / listed:.0%}") for name, (gone, listed) in lost.items()]
        console.table("lost by class", ("class", "lost", "listed", "share"), rows)


def dry_run(wanted: Sequence[str], source: Path, chosen: Options, console: Console) -> int:
    """Say what a preparation would find and miss; nothing is written."""

    def act(name: str) -> dict[str, Any]:
        job = catalog.job_of(name, source, chosen.preset)
        return _surveyed(job, console) if job is not None else _tried(name, source, chosen, console)

    done, refused = _each(wanted, source, act, console)
    console.data({"found": done, "refused": refused})
    return 0


def _tried(name: str, source: Path, chosen: Options, console: Console) -> dict[str, Any]:
    """What the benchmark's own survey finds; published files without one are small: they are prepared into a folder
    that is thrown away."""
    survey = getattr(catalog.task_module(name), "survey", None)
    made = survey(source, **catalog.loss_limit(name, chosen.max_loss)) if survey is not None else None
    if made is not None:
        console.say(f"{name}: {made['samples']} samples, {len(made['dropped'])} lost; nothing was written")
        _tell_made(name, made, console)
        told = {key: made[key] for key in ("road", "samples", "counts", "dropped")}
        return {"benchmark": name, **told, "missing": len(made["dropped"])}
    with tempfile.TemporaryDirectory() as folder:
        data = prepared.load(catalog.prepare(name, source, Path(folder), replace(chosen, tell=console.note)))
        rows = len(next(iter(data.samples.values())))
    console.say(f"{name}: the published files are complete and read well, {rows} samples; nothing was kept")
    return {"benchmark": name, "samples": rows, "missing": 0}


def _surveyed(job: Job, console: Console) -> dict[str, Any]:
    found, losses = engine.survey(job)
    counts, size = engine.counts(job, found), len(found) * job.row_bytes
    preset = job.parameters["preset"]
    console.say(f"{job.name}: {len(found)} of {len(job.clips)} clips found, preset {preset}, {size / 2**30:.2f} GiB")
    _tell_counts(counts, console)
    if losses:
        console.say(f"{job.name}: {len(losses)} clips would be lost: {engine.by_reason(losses)}")
        shown = [(loss.id, loss.reason, loss.detail) for loss in losses[:SHOWN]]
        console.table(f"the first {len(shown)}", ("clip", "reason", "detail"), shown)
    lost = engine.lost_by_class(job, found)
    _tell_classes(lost, console)
    for problem in job.problems:
        console.note(f"{job.name}: {problem.id}: {problem.reason}: {problem.detail}")
    described = {"clips": len(job.clips), "found": len(found), "missing": len(losses), "bytes": size}
    return {"benchmark": job.name, **described, "preset": preset, "counts": counts, "lost_by_class": lost}


def verify(wanted: Sequence[str], cache: Path, console: Console) -> int:
    """Read prepared folders again and compare every digest; 1 where one differs."""
    folders = {name: catalog.prepared_folder(cache, name) for name in wanted}
    if len(wanted) > 1:
        folders = {name: folder for name, folder in folders.items() if (folder / prepared.MANIFEST).is_file()}
    if not folders:
        raise InputError(f"{cache}: nothing is prepared there; run `clcr prepare BENCHMARK --source DIR`")
    good: dict[str, str] = {}
    bad: dict[str, str] = {}
    for name, folder in folders.items():
        catalog.spec(name)
        if not (folder / prepared.MANIFEST).is_file():
            raise InputError(f"{folder}: nothing is prepared there; run `clcr prepare {name} --source DIR`")
        try:
            good[name] = prepared.verify(folder)["all"]
            console.say(f"{name}: every file is what its manifest says, digest {good[name]}")
        except InputError as error:
            bad[name] = str(error)
            console.note(f"{name}: {error}")
    console.data({"verified": good, "failed": bad})
    return FAILED if bad else 0
