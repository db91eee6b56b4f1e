"""Seeds from identity: one stream per purpose, so that adding a stream moves no other.

No stream knows the method: on one benchmark, at one seed, every method sees the same order of samples and the same
starting point for the layers that methods share. How a seed splits the data is the task's (benchmarks/splits.py,
where the same holds).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

PURPOSES = ("init", "order", "dropout", "noise", "augment")


def stream(purpose: str, *identity: str | int) -> int:
    """The seed (63 bits) of one purpose at one identity: a hash, so neighbours share nothing."""
    text = "\x1f".join((purpose, *map(str, identity)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Streams:
    """The seeds of one fold of one run.

    init: parameters. order: the order of the training samples. dropout: everything random in the forward pass.
    noise: what ``adjust_gradients`` receives. augment: crops and flips of training pictures.
    """

    init: int
    order: int
    dropout: int
    noise: int
    augment: int


def streams(benchmark: str, protocol: str, seed: int, fold: int) -> Streams:
    """All streams of a fold."""
    identity = (benchmark, protocol, seed, fold)
    return Streams(**{purpose: stream(purpose, *identity) for purpose in PURPOSES})
