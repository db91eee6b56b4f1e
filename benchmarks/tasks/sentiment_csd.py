"""The roads ``csd`` and ``mmsdk``: words, COVAREP, FACET and labels as computational sequences -> segments of words.

A segment's tokens are its words, pauses ("sp") left out as in MISA; audio and vision of a word are the averages that
the SDK's own alignment gives, zeros where it gives none. ``word_times`` keeps when each word was said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks import csd, sdk
from benchmarks.errors import InputError
from benchmarks.tasks.sentiment import Corpus, Samples, check_label, finite, locate, std_folds

TOKENS = 50
PAUSES = frozenset({"sp", ""})
ROLES = ("words", "audio", "vision", "labels")
MODALITIES = ("audio", "vision")
WORD_TIMES = "word_times"


@dataclass(frozen=True)
class Segment:
    """One labelled segment: times (n, 2) of its words, and per modality features (n, D); ``absent``: words without."""

    words: list[str]
    times: np.ndarray
    features: Mapping[str, np.ndarray]
    absent: Mapping[str, int]


@dataclass
class _Collected:
    samples: Samples = field(default_factory=lambda: Samples([], [], [], [], [], {}))
    times: list[np.ndarray] = field(default_factory=list)
    features: dict[str, list[np.ndarray]] = field(default_factory=lambda: {"audio": [], "vision": []})
    tally: Counter[str] = field(default_factory=Counter)


def files(source: Path, corpus: Corpus) -> dict[str, Path]:
    """The four .csd files of a corpus, or {} where there is none; InputError where only some of them are there."""
    found = {role: locate(source, names, corpus) for role, names in corpus.files.items()}
    present = {role: path for role, path in found.items() if path is not None}
    missing = [" or ".join(corpus.files[role]) for role in ROLES if role not in present]
    if present and missing:
        raise InputError(f"{source}: {corpus.name}: missing {'; '.join(missing)}; put all four sequences there")
    return present


def read(
    corpus: Corpus, paths: Mapping[str, Path], source: Path, official: bool = False, survey: bool = False
) -> Samples:
    """All segments. ``official``: aligned by mmsdk itself instead of here, with the same numbers. ``survey``: words and
    labels alone, without arrays; of audio and vision one video is looked at."""
    fold_of, folds_file = std_folds(source, corpus)
    collected = _Collected()
    collected.samples.protocols.append("standard")
    with ExitStack() as stack:
        opened = {role: stack.enter_context(csd.open_csd(paths[role])) for role in ROLES}
        videos, lacking = csd.shared([opened["labels"], *(opened[role] for role in ROLES[:3])])
        _lost(opened["labels"], lacking, collected.samples)
        if survey:
            _look(opened, videos[:1], corpus)
        modalities = () if survey else MODALITIES
        for video, labels, parts in _aligned(opened, videos, modalities, official and not survey):
            fold = fold_of.get(video)
            if fold is None:
                lost = ("no_fold", "its video is in none of the standard folds")
                collected.samples.dropped += [(f"{video}[{row}]", *lost) for row in range(len(labels))]
            else:
                _collect(video, fold, labels, (opened["words"].texts(video), parts), collected)
    return collected.samples if survey else _finished(corpus, collected, folds_file)


def _look(opened: Mapping[str, csd.Sequences], videos: tuple[str, ...], corpus: Corpus) -> None:
    for video, (name, (_, width)) in product(videos, zip(MODALITIES, (corpus.audio, corpus.vision), strict=True)):
        _check_width(opened[name].numbers(video).features.shape[1], width, f"{opened[name].path}: {video}")


def _lost(labels: csd.Sequences, lacking: Mapping[str, str], samples: Samples) -> None:
    """Segments of videos that some file lacks; videos without labels are no samples to lose."""
    for video in sorted(set(labels.ids) & set(lacking)):
        rows, lost = range(len(labels.entry(video))), ("missing", f"its video is missing in {lacking[video]}")
        samples.dropped += [(f"{video}[{row}]", *lost) for row in rows]


def _aligned(
    opened: Mapping[str, csd.Sequences], videos: tuple[str, ...], modalities: tuple[str, ...], official: bool
) -> Iterator[tuple[str, csd.Entry, Mapping[str, csd.Parts]]]:
    theirs = sdk.aligned({role: opened[role].path for role in ROLES}) if official else None
    for video in videos:
        labels = opened["labels"].numbers(video)
        if theirs is not None:
            yield video, labels, theirs.get(video, {})
            continue
        others = {role: opened[role].numbers(video) for role in modalities}
        yield video, labels, csd.segments(opened["words"].texts(video), others, labels.intervals)


def _collect(
    video: str, fold: str, labels: csd.Entry, spoken: tuple[csd.Entry, Mapping[str, csd.Parts]], into: _Collected
) -> None:
    reference, parts = spoken
    words = csd.words(reference.features)
    for row in range(len(labels)):
        name, value = f"{video}[{row}]", float(labels.features[row, 0])
        segment = _segment(row, words, parts)
        if segment is None or np.isnan(value):
            into.samples.dropped.append((name, *_unusable(segment, labels.intervals[row])))
            continue
        into.samples.ids.append(name)
        into.samples.videos.append(video)
        into.samples.folds.append(fold)
        into.samples.sentiment.append(check_label(value, f"labels: segment {name}"))
        _keep(segment, into)


def _unusable(segment: Segment | None, interval: np.ndarray) -> tuple[str, str]:
    if segment is not None:
        return "no_label", "its label is not a number"
    if not abs(interval[1] - interval[0]) >= csd.EPSILON:
        return "no_interval", "its interval is empty or not a number"
    return "no_words", "no word lies in its interval"


def _segment(row: int, words: list[str], parts: Mapping[str, csd.Parts]) -> Segment | None:
    entry = parts.get("words", {}).get(row)
    said = [] if entry is None else entry.features[:, -1].astype(int).tolist()
    kept = [k for k, word in enumerate(said) if words[word] not in PAUSES]
    if entry is None or not kept:
        return None
    features, absent = {}, {}
    for name in parts.keys() & set(MODALITIES):
        part = parts[name].get(row)
        by_word = {} if part is None else {int(line[-1]): line[:-1] for line in part.features}
        width = 0 if part is None else part.features.shape[1] - 1
        features[name] = np.stack([by_word.get(said[k], np.zeros(width)) for k in kept])
        absent[name] = sum(not by_word.get(said[k], np.zeros(1)).any() for k in kept)
    return Segment([words[said[k]] for k in kept], entry.intervals[kept], features, absent)


def _keep(segment: Segment, into: _Collected) -> None:
    assert into.samples.texts is not None
    into.samples.texts.append(" ".join(segment.words))
    into.times.append(segment.times)
    for name, values in segment.features.items():
        into.features[name].append(values)
        into.tally[f"words_without_{name}"] += segment.absent[name]
    into.tally["words"] += len(segment.words)
    into.tally["segments_cut"] += len(segment.words) > TOKENS


def _finished(corpus: Corpus, collected: _Collected, folds_file: str) -> Samples:
    samples, tally = collected.samples, collected.tally
    lengths = np.array([min(len(times), TOKENS) for times in collected.times], dtype=np.int64)
    for (array, width), name in ((corpus.audio, "audio"), (corpus.vision, "vision")):
        values, wrong = _padded(collected.features[name], width, f"{corpus.name}: {name}")
        samples.arrays[array] = (values, lengths)
        tally[f"values_not_finite_{name}"] = wrong
    samples.arrays[WORD_TIMES] = (_padded(collected.times, 2, WORD_TIMES)[0], lengths)
    samples.columns["words"] = np.array([len(times) for times in collected.times], dtype=np.int64)
    samples.details["tally"], samples.details["folds_file"] = dict(sorted(tally.items())), folds_file
    samples.notes += [f"{count} {name.replace('_', ' ')}" for name, count in sorted(tally.items()) if count]
    return samples


def _check_width(found: int, expected: int, where: str) -> None:
    if found != expected:
        raise InputError(f"{where}: {found} features, expected {expected}; the file is another feature set")


def _padded(sequences: list[np.ndarray], width: int, where: str) -> tuple[np.ndarray, int]:
    """(n, TOKENS, width) float32, zero beyond each sequence, and how many values were not finite."""
    out, wrong = np.zeros((len(sequences), TOKENS, width), dtype=np.float32), 0
    for row, sequence in enumerate(sequences):
        _check_width(sequence.shape[1] or width, width, where)
        if sequence.shape[1]:
            values, count = finite(sequence[:TOKENS])
            out[row, : len(values)] = values
            wrong += count
    return out, wrong
