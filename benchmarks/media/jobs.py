"""The preparations of the four benchmarks of sight and sound: named presets, and what is done with one clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.engine import ArrayPlan, Clip, Extracted, Job
from benchmarks.errors import unknown
from benchmarks.lists import Table
from benchmarks.media import audio, flow, video
from benchmarks.media.files import Loss, Tree, one_of
from benchmarks.spec import BenchmarkSpec

VIDEO = (".flv", ".mp4", ".avi", ".mkv", ".webm", ".mov")
AUDIO = (".wav", ".mp3")
FRAME_META = {"scale": 1 / 255, "offset": 0.0}


@dataclass(frozen=True)
class Preset:
    """A named way to prepare: ``audio`` is a key of RECIPES, ``flow`` one of flow.ALGORITHMS or "published"."""

    reason: str
    sampling: video.Sampling
    audio: str | None = None
    flow: str | None = None


def choose(presets: Mapping[str, Preset], name: str | None, benchmark: str) -> tuple[str, Preset]:
    """The preset of that name, or the first; InputError for an unknown one."""
    if name is not None and name not in presets:
        raise unknown("preset", name, presets, benchmark)
    chosen = name or next(iter(presets))
    return chosen, presets[chosen]


@dataclass(frozen=True)
class Sources:
    """Which file holds which part of each clip, by clip id, and what is wrong with the others."""

    files: Mapping[str, Mapping[str, Path]]
    losses: Mapping[str, Loss]
    problems: Sequence[Loss] = ()


def locate(
    table: Table, tree: Tree, parts: Mapping[str, Sequence[str]], stems: Callable[[int], Sequence[str]]
) -> Sources:
    """Look for each part (name -> suffixes, preferred ones first) of each clip under its possible stems."""
    files: dict[str, dict[str, Path]] = {}
    losses: dict[str, Loss] = {}
    for index, id in enumerate(table.id.tolist()):
        files[id] = {}
        for part, suffixes in parts.items():
            paths = next(filter(None, (tree.find(stem, suffixes) for stem in stems(index))), [])
            chosen, loss = one_of(id, paths, tree.root) if paths else (None, None)
            if chosen is not None:
                files[id][part] = chosen
            if loss is not None:
                losses[id] = loss
    return Sources(files, losses, tree.problems)


def wrongly_named(tree: Tree, suffixes: Sequence[str], fits: Callable[[str], object]) -> list[Loss]:
    """Media files whose name is none of the data set's: perhaps renamed, in any case not read."""
    stems = [stem for stem in tree.stems(suffixes) if not fits(stem)]
    return [Loss(stem, "wrong_name", "no clip of the data set has such a name") for stem in stems]


def sound_and_sight(
    spec: BenchmarkSpec, table: Table, sources: Sources, preset: tuple[str, Preset], **more: Any
) -> Job:
    """Arrays ``spectrogram`` (time, bins) float16 and ``frames`` (count, 224, 224, 3) uint8.

    more: ``spans`` (seconds per clip), ``silence`` (silent clips are kept, with a remark), ``max_loss``, ``parts``."""
    name, chosen = preset
    recipe = audio.RECIPES[str(chosen.audio)]
    arrays = {
        "spectrogram": ArrayPlan((recipe.frames, recipe.bins), "<f2"),
        "frames": ArrayPlan((chosen.sampling.count, video.SIZE, video.SIZE, 3), "|u1", FRAME_META),
    }
    extract = partial(_sound_and_sight, recipe=recipe, sampling=chosen.sampling, silence=more.pop("silence", False))
    described = {"audio": {"recipe": chosen.audio, **asdict(recipe)}, "frames": _frames_described(chosen.sampling)}
    return _job(spec, table, sources, (name, chosen, described), arrays=arrays, extract=extract, **more)


def sight_and_motion(
    spec: BenchmarkSpec, table: Table, sources: Sources, preset: tuple[str, Preset], **more: Any
) -> Job:
    """Arrays ``rgb`` (count, 224, 224, 3) and ``flow`` (count, 224, 224, 2), both uint8, of the same places."""
    name, chosen = preset
    shape = (chosen.sampling.count, video.SIZE, video.SIZE)
    arrays = {"rgb": ArrayPlan((*shape, 3), "|u1", FRAME_META), "flow": ArrayPlan((*shape, 2), "|u1", flow.META)}
    extract = partial(_sight_and_motion, sampling=chosen.sampling, algorithm=str(chosen.flow))
    described = {
        "flow": {"algorithm": chosen.flow, "bound_pixels": flow.BOUND},
        "rgb": _frames_described(chosen.sampling),
    }
    return _job(spec, table, sources, (name, chosen, described), arrays=arrays, extract=extract, **more)


def _frames_described(sampling: video.Sampling) -> dict[str, Any]:
    return {**asdict(sampling), "short_side": video.SHORT_SIDE, "size": video.SIZE}


def _job(
    spec: BenchmarkSpec, table: Table, sources: Sources, preset: tuple[str, Preset, dict[str, Any]], **more: Any
) -> Job:
    name, chosen, described = preset
    spans = more.pop("spans", [None] * len(table))
    clips = [Clip(id, sources.files[id], span) for id, span in zip(table.id.tolist(), spans, strict=True)]
    parameters = {"preset": name, "reason": chosen.reason, **described, "tools": _tools()}
    official = {protocol.name: protocol.counts for protocol in spec.protocols if f"{protocol.name}" in _served(table)}
    return Job(
        name=spec.name, clips=clips, table=table, parameters=parameters, official=official,
        losses=sources.losses, problems=sources.problems, **more,
    )  # fmt: skip


def _served(table: Table) -> set[str]:
    return {name.partition(".")[2] for name in table.columns if name.startswith(("split.", "fold."))}


def _tools() -> dict[str, str]:
    found = {}
    for package in ("av", "opencv-contrib-python-headless", "opencv-contrib-python", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _sound_and_sight(clip: Clip, recipe: audio.Recipe, sampling: video.Sampling, silence: bool) -> Extracted:
    samples = audio.waveform(clip.files["audio"], recipe.rate, clip.span, silence)
    arrays = {"spectrogram": audio.spectrogram(samples, recipe)}
    arrays["frames"] = video.frames(clip.files["video"], sampling, clip.span)
    return arrays, "" if samples.any() else "silent: kept, as in the literature"


def _sight_and_motion(clip: Clip, sampling: video.Sampling, algorithm: str) -> Extracted:
    if algorithm == "published":
        motion = flow.published(clip.files["u"], clip.files["v"], sampling)
        return {"rgb": video.frames(clip.files["video"], sampling), "flow": motion}, ""
    rgb, motion = flow.frames_and_flow(clip.files["video"], sampling, algorithm)
    return {"rgb": rgb, "flow": motion}, ""
