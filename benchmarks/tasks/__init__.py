"""One file a benchmark: SPEC (what it is), TWIN (its synthetic stand-in or None), prepare and arrange. No torch."""

from __future__ import annotations

from pathlib import Path

from benchmarks.errors import InputError
from benchmarks.spec import BenchmarkSpec


def raw_files_unavailable(spec: BenchmarkSpec, needed: str, source: Path | None = None) -> InputError:
    """The error of a benchmark whose published files cannot be read yet: says which they would be and what works."""
    where = f"{source}: " if source is not None else ""
    return InputError(
        f"{where}{spec.name}: preparing the published files ({needed}; from {spec.source}) is not available yet; "
        f"use its synthetic twin: --benchmark {spec.name} --data twin"
    )
