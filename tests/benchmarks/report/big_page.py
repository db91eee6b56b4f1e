"""A page of thousands of synthetic runs, and how fast a browser shows and sorts it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from browser import Browser, browser
from synthetic_records import METHODS, Sweep, write_curves, write_records

from benchmarks.record import RunRecord
from benchmarks.report import build

GROUPS = (("ravdess", "actor_disjoint"), ("av_digits", "paired"), ("ucf101", "subset3"), ("cmu_mosi", "transcripts"))
VARIANTS = dict.fromkeys(("no_reg", "no_hierarchy", "no_intraced", "no_intercad", "full_mix"), 0.69)
# Run before the page's own script: sorts as soon as the runs are drawn, while the rest of the file is still read, and
# keeps the milliseconds since the load began. "sorted" is after the layout of the sorted table.
SORT_AT_ONCE = """
const attempt = () => {
  const drawn = performance.getEntriesByName("drawn")[0];
  if (!drawn) return setTimeout(attempt, 1);
  const start = performance.now();
  [...document.querySelectorAll(".sort")].find((button) => button.textContent.startsWith("Time")).click();
  document.querySelector("main").getBoundingClientRect();
  window.first = { drawn_ms: drawn.startTime, sort_ms: performance.now() - start, sorted_ms: performance.now(),
    rows: document.querySelectorAll("main tbody tr").length,
    sorted: document.querySelector("th[aria-sort=ascending]").textContent };
};
if (location.protocol === "file:") attempt();
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
        window.call(
            "goog/cdp/execute", {"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": {"source": SORT_AT_ONCE}}
        )
        for _ in range(repetitions):
            window.open(page, "#view=runs")
            found.append(await_sort(window))
    if any(not one["rows"] or one["sorted"] != "Time (s)" for one in found):
        raise RuntimeError(f"the runs were not sorted: {found}")
    return found


def await_sort(window: Browser) -> dict[str, Any]:
    """What the page kept, once it has."""
    for _ in range(200):
        if first := window.run("return window.first ?? null"):
            return dict(first)
        time.sleep(0.05)
    raise RuntimeError("the page did not sort")


def write(out: Path, runs: int, epochs: int) -> int:
    """Records and learning curves of so many runs below ``out``; returns how many there are."""
    made = list(records(runs))
    write_curves(write_records(out, made), made, epochs)
    return len(made)


def make(out: Path) -> Path:
    """The page of the records below ``out``."""
    build(out, only="site")
    return out / "site" / "index.html"
