"""Where the tests of the report keep their synthetic records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from synthetic_records import Write, write_records

from benchmarks.record import RunRecord


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Appends records to <out>/records/<benchmark>.jsonl and returns <out>."""

    def writer(records: Iterable[RunRecord]) -> Path:
        return write_records(tmp_path / "out", records)

    return writer
