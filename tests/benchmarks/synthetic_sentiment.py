"""Synthetic files of the true layouts of CMU-MOSI: .csd sequences, fold lists and pickles. Nothing in them is real."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.csd import Entry, write_csd
from benchmarks.tasks.cmu_mosi import CORPUS
from benchmarks.tasks.sentiment import SPLITS, Corpus, folds_digest

VIDEOS = {"train": ("synth-t1", "synth-t2"), "valid": ("synth-v1",), "test": ("synth-s1", "synth-s2")}
VOCABULARY = np.array([[b"sp"], [b"good"], [b"bad"], [b"movie"]])
Sequences = dict[str, dict[str, Entry]]


def small(corpus: Corpus = CORPUS) -> Corpus:
    """The corpus with the synthetic fold lists as its official ones."""
    videos = {split: len(names) for split, names in VIDEOS.items()}
    return replace(corpus, videos=videos, folds_sha256=folds_digest(VIDEOS))


def sequences(seed: int = 0, widths: tuple[int, int] = (74, 47)) -> Sequences:
    """Five videos of ten seconds: 20 words, 4 segments of 2.5 s, audio at 20 Hz and vision at 10 Hz."""
    rng = np.random.default_rng(seed)
    made: Sequences = {role: {} for role in ("words", "audio", "vision", "labels")}
    for video in (video for names in VIDEOS.values() for video in names):
        for role, count in (("words", 20), ("audio", 200), ("vision", 100), ("labels", 4)):
            starts = np.arange(count) * 10.0 / count
            intervals = np.stack([starts, starts + 10.0 / count], axis=1)
            made[role][video] = Entry(intervals, _features(rng, role, count, widths))
    return made


def _features(rng: np.random.Generator, role: str, count: int, widths: tuple[int, int]) -> np.ndarray:
    if role == "words":
        return VOCABULARY[1 + rng.integers(3, size=count)]
    if role == "labels":
        return rng.uniform(-3, 3, (count, 1))
    return rng.normal(size=(count, widths[role == "vision"])).astype(np.float32)


def write_sequences(folder: Path, made: Sequences, corpus: Corpus = CORPUS) -> dict[str, Path]:
    """The four files and the fold lists in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {role: folder / corpus.files[role][0] for role in made}
    for role, entries in made.items():
        write_csd(paths[role], f"synthetic {role}", entries, {"dataset name": "synthetic"})
    folds = {corpus.name.upper(): {split: list(names) for split, names in VIDEOS.items()}}
    (folder / "mosi_mosei_std_folds.json").write_text(json.dumps(folds))
    return paths


def mmsa(kind: str = "aligned", seed: int = 0, widths: tuple[int, int] = (5, 20), count: int = 6) -> dict[str, Any]:
    """An MMSA file: padded at the end, lengths stated where it is not aligned."""
    rng, content = np.random.default_rng(seed), {}
    labels = np.random.default_rng(seed + 1)
    steps = {"audio": 50, "vision": 50} if kind == "aligned" else {"audio": 375, "vision": 500}
    for split in SPLITS:
        part: dict[str, Any] = {"raw_text": np.array([f"synthetic text {k} of {split}" for k in range(count)], object)}
        part["id"] = [f"{VIDEOS[split][k % len(VIDEOS[split])]}$_${k}" for k in range(count)]
        part["regression_labels"] = labels.uniform(-3, 3, count)
        part["text"] = rng.normal(size=(count, 50, 768)).astype(np.float32)
        part["text_bert"] = np.ones((count, 3, 50))
        for name, width in zip(("audio", "vision"), widths, strict=True):
            lengths = rng.integers(10, 40, count) if kind == "aligned" else rng.integers(60, steps[name], count)
            array = rng.normal(size=(count, steps[name], width))
            array[np.arange(steps[name])[None] >= lengths[:, None]] = 0
            part[name] = array
            if kind == "unaligned":
                part[f"{name}_lengths"] = lengths.tolist()
        content[split] = part
    return content


def mult(kind: str = "aligned", seed: int = 0, count: int = 6) -> dict[str, Any]:
    """A MulT file: padded in front, ids (video, start, end) as bytes."""
    rng, content = np.random.default_rng(seed), {}
    labels = np.random.default_rng(seed + 1)
    for split in SPLITS:
        lengths = rng.integers(5, 30, count)
        ids = [
            (VIDEOS[split][k % len(VIDEOS[split])].encode(), str(k).encode(), str(k + 1).encode()) for k in range(count)
        ]
        part: dict[str, Any] = {"id": np.array(ids), "labels": labels.uniform(-3, 3, (count, 1, 1))}
        for name, width, longest in (("text", 300, 50), ("audio", 5, 375), ("vision", 20, 500)):
            steps = 50 if kind == "aligned" or name == "text" else longest
            array = rng.normal(size=(count, steps, width)).astype(np.float32)
            array[np.arange(steps)[None] < (steps - lengths)[:, None]] = 0
            part[name] = array
        content[split] = part
    return content


def dump(path: Path, content: Any, protocol: int = 4) -> Path:
    """Write a pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path
