"""The tables of very many synthetic records: time, memory, and that nothing is let through. Run it by hand.

    python tests/bench_report.py [--records 100000] [--rounds 3] [--out results/bench/report.json]

The records are made up (never results of a model), in the size and shape of the committed ones: every protocol of every
benchmark, all methods and variants of the suite, methods from elsewhere, and as many seeds as it takes. Each round is a
process of its own that reads the records and writes all tables. Prints JSON: seconds on the clock and of the processor
(all in one thread: they differ by what else the machine does), its load, peak memory in MiB, and the commit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402

from baselines import METHODS  # noqa: E402
from benchmarks import BENCHMARKS  # noqa: E402
from benchmarks.record import RunKey, RunRecord, digest_of  # noqa: E402
from benchmarks.report import build  # noqa: E402
from benchmarks.report.collect import load_spec  # noqa: E402
from benchmarks.spec import BenchmarkSpec, Protocol  # noqa: E402

ELSEWHERE = ("emoe", "arl", "d_and_r", "dlf", "acme_fusion", "acme_fusion_large")
Rows = list[tuple[str, str]]


def rows_of(protocol: Protocol) -> Rows:
    """(method, variant) of every row: those of the suite with their variants, then methods from elsewhere."""
    rows: Rows = []
    for row in METHODS.values():
        names = [f"{row.name}_{m.name}" for m in protocol.modalities] if row.per_modality else [row.name]
        rows += [(name, variant) for name in names for variant in row.every_variant]
    return rows + [(name, "full") for name in ELSEWHERE]


def groups() -> list[tuple[BenchmarkSpec, Protocol, str, str]]:
    """Every protocol on real data, and every twin."""
    found = []
    for spec in map(load_spec, BENCHMARKS):
        found += [(spec, protocol, "real", "paper") for protocol in spec.protocols]
        if spec.twin_protocol:
            found.append((spec, spec.protocol(spec.twin_protocol), "twin", "tiny"))
    return found


def template() -> dict[str, object]:
    """``what`` and ``provenance`` of a committed record, for their size."""
    with (ROOT / "results" / "records" / "cmu_mosi.jsonl").open(encoding="utf-8") as file:
        committed: dict[str, object] = json.loads(file.readline())
    return committed


def made(number: int) -> Iterator[RunRecord]:
    """The first ``number`` records, seed after seed."""
    committed, rng = template(), np.random.default_rng(0)
    tables = [(group, rows_of(group[1])) for group in groups()]
    total, seed = 0, 0
    while True:
        for (spec, protocol, data, profile), rows in tables:
            shared = rng.normal(0, 0.005)
            for place, (method, variant) in enumerate(rows):
                if total == number:
                    return
                key = RunKey(spec.name, protocol.name, data, profile, method, variant, seed)
                values = {name: 0.6 + 0.005 * place + shared + float(rng.normal(0, 0.01)) for name in spec.metrics}
                yield record(key, values, committed)
                total += 1
        seed += 1


def record(key: RunKey, values: dict[str, float], committed: dict) -> RunRecord:
    """One finished run; the seeds of a row share their settings, the rows of a group their data."""
    config = {**committed["what"]["config"], "made_up": f"{key.method}/{key.variant}"}
    what = {**committed["what"], "config": config, "source_digest": key.method, "data_digest": key.benchmark}
    what["metrics"] = {"names": list(values), "main": next(iter(values))}
    return RunRecord(
        key, what, "done", committed["selection"], {"test": values, "valid": values}, n_parameters=100_000 + key.seed,
        time_s=1.5, peak_memory_bytes=2**28, predictions=digest_of(str(key)), provenance=committed["provenance"],
    )  # fmt: skip


def write(out: Path, number: int) -> int:
    """<out>/records/<benchmark>.jsonl; the size in bytes."""
    (out / "records").mkdir(parents=True)
    files = {name: (out / "records" / f"{name}.jsonl").open("w", encoding="utf-8") for name in BENCHMARKS}
    for each in made(number):
        files[each.key.benchmark].write(json.dumps(each.to_json(), sort_keys=True) + "\n")
    for file in files.values():
        file.close()
    return sum(path.stat().st_size for path in (out / "records").iterdir())


def measure(out: Path) -> dict[str, float]:
    """Build all tables here and now; the peak is that of this whole process."""
    start, used = time.perf_counter(), time.process_time()
    built = build(out, partial=True)
    return {
        "wall_s": time.perf_counter() - start,
        "processor_s": time.process_time() - used,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "groups": len(built.collected.groups),
        "holes": len(built.holes),
        "files": len(built.files),
    }


def commit() -> str:
    """The commit of the code that was measured, with a + where it was edited since."""
    say = lambda *args: subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()  # noqa: E731
    return say("rev-parse", "HEAD") + ("+" if say("status", "--porcelain", "--untracked-files=no") else "")


def cpu() -> str:
    """The processor's name, where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument("--measure", type=Path, help="one round on a folder that is there (used by the rounds)")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        size = write(out, args.records)
        command = [sys.executable, __file__, "--measure", str(out)]
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        rounds = [
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=alone).stdout)
            for _ in range(args.rounds)
        ]
    found = {
        "records": args.records,
        "megabytes": round(size / 1e6, 1),
        **{name: rounds[0][name] for name in ("groups", "holes", "files")},
        "median_wall_s": round(statistics.median(r["wall_s"] for r in rounds), 2),
        "largest_wall_s": round(max(r["wall_s"] for r in rounds), 2),
        "median_processor_s": round(statistics.median(r["processor_s"] for r in rounds), 2),
        "peak_mib": round(max(r["peak_mib"] for r in rounds)),
        "rounds": args.rounds,
        "load": round(os.getloadavg()[0], 1),
        "processors": os.cpu_count(),
        "cpu": cpu(),
        "python": platform.python_version(),
        "commit": commit(),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
