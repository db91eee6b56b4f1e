"""How fast the leaderboard page is at 5,000 synthetic runs, in a headless Chromium: opening it, and its first sort.

    python tests/bench_page.py --out results/bench/page.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks" / "report"))
from browser import browser, chromium, missing
from synthetic_records import METHODS, Sweep, write_curves, write_records

from benchmarks.record import RunRecord
from benchmarks.report import build

GROUPS = (("ravdess", "actor_disjoint"), ("av_digits", "paired"), ("ucf101", "subset3"), ("cmu_mosi", "transcripts"))
VARIANTS = dict.fromkeys(("no_reg", "no_hierarchy", "no_intraced", "no_intercad", "full_mix"), 0.69)
# Seconds since the page began to load: the runs view drawn, and the sort that follows at once, laid out on the screen.
SORT = """
const drawn = performance.getEntriesByName("drawn")[0].startTime;
const start = performance.now();
[...document.querySelectorAll(".sort")].find((b) => b.textContent.startsWith("Time")).click();
document.querySelector("main").getBoundingClientRect();
const took = performance.now() - start;
return {drawn_ms: drawn, sort_ms: took, runs: document.querySelector("main .said").textContent};
"""


def records(runs: int) -> Iterator[RunRecord]:
    """Synthetic runs on real sets by name, as heavy as those of a full sweep: configuration, folds, diagnostics."""
    seeds = range(runs // (len(GROUPS) * (len(METHODS) + len(VARIANTS))))
    told = {"metric": "accuracy", "epoch": 60, "value": 0.7123456789}
    for benchmark, protocol in GROUPS:
        for record in Sweep(benchmark, protocol, "real", "open", variants=VARIANTS, seeds=seeds).records():
            config = {"method": {f"field_{n}": n / 10 for n in range(25)} | {"variant": record.key.variant}}
            what = {**record.what, "config": config, "data_digest": "0" * 64}
            depths = {f"participation.{n}": (record.key.seed + 1) / (n + 2) for n in range(20)}
            yield replace(record, what=what, selection=told, diagnostics=depths, folds=(record.metrics,) * 6)


def measure(page: Path, repetitions: int) -> list[dict[str, Any]]:
    """One fresh load and first sort after the other."""
    found = []
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as window:
        for _ in range(repetitions):
            window.open(page, "#view=runs")
            found.append(window.run(SORT))
    return found


def bench(runs: int, epochs: int, repetitions: int) -> dict[str, Any]:
    """The page of so many runs: how long it takes to make, its size, and what the browser measures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        made = list(records(runs))
        write_curves(write_records(out, made), made, epochs, folds=1)
        start = time.perf_counter()
        build(out, only="site")
        took = time.perf_counter() - start
        page = out / "site" / "index.html"
        found = measure(page, repetitions)
        size = page.stat().st_size
    firsts = [one["drawn_ms"] + one["sort_ms"] for one in found]
    return {
        "runs": len(made),
        "epochs_per_run": epochs,
        "made_in_s": round(took, 2),
        "page_bytes": size,
        "repetitions": repetitions,
        "drawn_ms": round(statistics.median(one["drawn_ms"] for one in found), 1),
        "sort_ms": round(statistics.median(one["sort_ms"] for one in found), 1),
        "first_sort_ms": {"median": round(statistics.median(firsts), 1), "worst": round(max(firsts), 1)},
        "machine": platform.machine(),
        "browser": Path(chromium() or "").name,
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
