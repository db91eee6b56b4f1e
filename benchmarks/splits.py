"""Seeded splits: stratified by class or whole by group. Pure functions of name and seed, the same on any machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def stream(name: str, seed: int) -> np.random.Generator:
    """The random stream of one purpose at one seed: another purpose never moves it."""
    digest = hashlib.sha256(f"{name}/{seed}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def stratified(labels: np.ndarray, parts: Sequence[float], rng: np.random.Generator) -> list[np.ndarray]:
    """Cut the samples into parts of the given shares, class by class; each part is sorted."""
    cuts = np.cumsum(np.asarray(parts, dtype=float))[:-1] / sum(parts)
    pieces: list[list[np.ndarray]] = [[] for _ in parts]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        for piece, chosen in zip(pieces, np.split(members, np.rint(cuts * len(members)).astype(int)), strict=True):
            piece.append(chosen)
    return [np.sort(np.concatenate(piece)) for piece in pieces]


def held_out(groups: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """True for the samples of whole groups, drawn at random until they hold at least ``share`` of all samples; at least
    one group is drawn and one is left."""
    names, counts = np.unique(groups, return_counts=True)
    order = rng.permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    chosen = order[before < share * len(groups)][: len(names) - 1]
    return np.isin(groups, names[chosen])


def grouped_folds(groups: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """The test fold of each sample, groups kept whole: in random order, each goes to the fold that is smallest so far,
    larger groups first so that folds end alike."""
    names, counts = np.unique(groups, return_counts=True)
    order = rng.permutation(len(names))
    order = order[np.argsort(-counts[order], kind="stable")]
    sizes, fold_of = np.zeros(folds, dtype=int), np.empty(len(names), dtype=int)
    for group in order:
        fold_of[group] = int(np.argmin(sizes))
        sizes[fold_of[group]] += counts[group]
    return np.asarray(fold_of[np.searchsorted(names, groups)])


def fewer(samples: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the samples, at least two, sorted: the first of a random order, so that smaller shares of one stream
    lie inside larger ones."""
    return np.sort(rng.permutation(samples)[: max(2, round(share * len(samples)))])
