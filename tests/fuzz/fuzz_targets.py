"""Every target by name. One more reader of what strangers write is one more row in one of the three tables."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for place in (HERE, HERE.parent / "benchmarks", HERE.parent / "benchmarks" / "report", HERE.parents[1]):
    if str(place) not in sys.path:
        sys.path.append(str(place))

import fuzz_files  # noqa: E402
import fuzz_shown  # noqa: E402
import fuzz_texts  # noqa: E402
from fuzz_oracle import Target  # noqa: E402

TARGETS: dict[str, Target] = {
    target.name: target for target in (*fuzz_files.TARGETS, *fuzz_texts.TARGETS, *fuzz_shown.TARGETS)
}
SLOW = ("report", "figure", "submission")  # tens of inputs a second: fewer of them in the test suite
