"""How fast the leaderboard page is at 5,000 synthetic runs, in a headless Chromium: opening it, and its first sort.

python tests/bench_page.py --out results/bench/page.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "benchmarks" / "report"), str(ROOT)]

import big_page  # noqa: E402
from browser import chromium, missing  # noqa: E402


def version() -> str:
    """The browser's name and version."""
    done = subprocess.run([chromium() or "", "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def bench(runs: int, epochs: int, repetitions: int) -> dict[str, Any]:
    """The page of so many runs: how long it takes to make, its size, and what the browser measures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        number = big_page.write(out, runs, epochs)
        start = time.process_time()
        page = big_page.make(out)
        took = time.process_time() - start
        found = big_page.measure(page, repetitions)
        size = page.stat().st_size
    firsts = [one["sorted_ms"] for one in found]
    return {
        "runs": number,
        "epochs_per_run": epochs,
        "made_in_cpu_s": round(took, 2),
        "page_bytes": size,
        "repetitions": repetitions,
        "drawn_ms": round(statistics.median(one["drawn_ms"] for one in found), 1),
        "sort_ms": round(statistics.median(one["sort_ms"] for one in found), 1),
        "first_sort_ms": {"median": round(statistics.median(firsts), 1), "worst": round(max(firsts), 1)},
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
        "browser": version(),
    }


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if why := missing():
        print(why, file=sys.stderr)
        return 2
    text = json.dumps(bench(args.runs, args.epochs, args.repetitions), indent=1) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
