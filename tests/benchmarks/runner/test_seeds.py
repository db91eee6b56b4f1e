"""Streams come from identity: independent of each other, blind to the method, pinned to known values."""

from __future__ import annotations

import inspect
import itertools

from benchmarks.runner import seeds
from benchmarks.runner.seeds import PURPOSES, Streams, stream, streams


def test_every_purpose_and_identity_has_its_own_stream() -> None:
    identities = itertools.product(("crema_d", "ave"), ("standard", "fixed"), range(4), range(3))
    found = [stream(purpose, *identity) for identity in identities for purpose in PURPOSES]
    assert len(set(found)) == len(found)
    assert all(0 <= seed < 2**63 for seed in found)


def test_streams_are_pinned() -> None:
    """Adding a stream, or a change of the hash, must move none of these: committed runs rest on them."""
    expected = Streams(
        init=8607387213615682793,
        order=8222052003798790007,
        dropout=7105523382300182827,
        noise=8313377538520213164,
        augment=1368747349293297923,
    )
    assert streams("cmu_mosi", "standard", 3, 1) == expected


def test_parts_of_an_identity_do_not_run_together() -> None:
    assert stream("init", "ab", "c", 1, 1) != stream("init", "a", "bc", 1, 1)
    assert stream("init", "a", 11, 1) != stream("init", "a", 1, 11)


def test_no_stream_knows_the_method() -> None:
    assert "method" not in inspect.signature(seeds.streams).parameters
