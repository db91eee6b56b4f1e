"""Where the tests of the report keep their synthetic records."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from synthetic_records import Write

from benchmarks.record import RunRecord


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Appends records to <out>/records/<benchmark>.jsonl and returns <out>."""

    def writer(records: Iterable[RunRecord]) -> Path:
        folder = tmp_path / "out" / "records"
        folder.mkdir(parents=True, exist_ok=True)
        lines: dict[str, list[str]] = {}
        for record in records:
            lines.setdefault(record.key.benchmark, []).append(json.dumps(record.to_json(), sort_keys=True))
        for benchmark, some in lines.items():
            with (folder / f"{benchmark}.jsonl").open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in some))
        return tmp_path / "out"

    return writer
