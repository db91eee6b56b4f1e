"""Fuzz readers for a bounded time: ``python tests/fuzz/run.py --seconds 60 [target ...]``, one JSON document on stdout.

Each target runs in a process of its own: by coverage with atheris where that is installed, else near its seeds with a
random number generator that knows nothing of coverage. Exit code 1 where an input was taken as none may be
(fuzz_oracle); the shortest input of each fault is kept below --keep.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LONGEST_INPUT = 16_384
GRACE_S = 180  # seconds that a process may take to its first input, and from one to the next
ROOM = 3 << 30  # bytes of address space beyond what the imports take
SEED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("target", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each target (default: 10)")
    parser.add_argument("--engine", choices=("auto", "atheris", "random"), default="auto")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="targets at a time (default: 1)")
    parser.add_argument("--keep", type=Path, help="folder for the inputs of faults")
    parser.add_argument("--out", type=Path, help="also write the document there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        _child(args.child, args.seconds, args.engine, Path(args.keep))
        return 0
    from fuzz_targets import TARGETS

    unknown = [name for name in args.target if name not in TARGETS]
    if unknown:
        parser.error(f"no target {unknown[0]!r}; known: {', '.join(TARGETS)}")
    commit, dirty = _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "--untracked-files=no"))
    engine = args.engine if args.engine != "auto" else "atheris" if has_atheris() else "random"
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(lambda name: run(name, args.seconds, engine, args.keep), args.target or TARGETS))
    document = {"commit": commit, "dirty": dirty, **_document(rows, engine, args.seconds)}
    text = json.dumps(document, indent=1) + "\n"
    sys.stdout.write(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")
    return 1 if document["faults"] else 0


def has_atheris() -> bool:
    """Whether the coverage-guided engine can be used here."""
    return importlib.util.find_spec("atheris") is not None


def _document(rows: list[dict[str, Any]], engine: str, seconds: float) -> dict[str, Any]:
    return {
        "engine": engine,
        "python": platform.python_version(),
        "cpu_kind": platform.machine(),
        "seconds_a_target": seconds,
        "inputs": sum(row["inputs"] for row in rows),
        "faults": sum(len(row["faults"]) for row in rows),
        "targets": rows,
    }


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run(name: str, seconds: float, engine: str, keep: Path | None) -> dict[str, Any]:
    """One target in a process of its own, which is killed where it hangs."""
    with tempfile.TemporaryDirectory(dir=_fast()) as scratch:
        command = [sys.executable, str(Path(__file__).resolve()), "--child", name, "--seconds", str(seconds)]
        command += ["--engine", engine, "--keep", scratch]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        errors = Path(scratch) / "errors"
        with errors.open("wb") as file:
            child = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment)
            ended = _watched(child, Path(scratch) / "current")
        told = errors.read_text(errors="replace")
        row = _row(name, Path(scratch), told, ended, keep)
    print(f"{name}: {row['inputs']} inputs in {row['seconds']} s, {len(row['faults'])} faults", file=sys.stderr)
    return row


def _watched(child: subprocess.Popen[bytes], current: Path) -> str:
    """Wait for a process as long as it goes from input to input; "hang" where it had to be killed."""
    moved = time.monotonic()
    before = 0
    while True:
        try:
            child.wait(1.0)
            return ""
        except subprocess.TimeoutExpired:
            now = current.stat().st_mtime_ns if current.exists() else 0
            if now != before:
                moved, before = time.monotonic(), now
            elif time.monotonic() - moved > GRACE_S:
                child.kill()
                child.wait()
                return "hang"


def _row(name: str, scratch: Path, told: str, ended: str, keep: Path | None) -> dict[str, Any]:
    """What a process left: its last count, its faults, and how it ended where it did not end by itself."""
    last = scratch / "log.json"
    row: dict[str, Any] = {"target": name, "inputs": 0, "accepted": 0, "seconds": 0.0, "faults": []}
    row |= json.loads(last.read_text()) if last.exists() else {}
    done = re.findall(r"^Done (\d+) runs in", told, re.MULTILINE)  # libFuzzer ends the process itself
    row["inputs"] = max(row["inputs"], *map(int, done)) if done else row["inputs"]
    if not row.pop("whole", False) and not done:
        reason = ended or "the process died: " + " ".join(told.split())[-300:]
        row["faults"].append({"site": ended or "process died", "told": reason})
    covered = re.findall(r"cov: (\d+)", told)
    if covered:
        row["coverage"] = int(covered[-1])
    if keep is not None and row["faults"]:
        keep.mkdir(parents=True, exist_ok=True)
        ended_badly = row["faults"][-1]["site"] in ("hang", "process died")
        for path in [*scratch.glob("fault-*"), *scratch.glob("current" if ended_badly else "none")]:
            (keep / f"{name}-{path.name}").write_bytes(path.read_bytes())
    return row


def _fast() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# ------------------------------------------------------------------------------------------------------ in the process


def _child(name: str, seconds: float, engine: str, scratch: Path) -> None:
    target = _instrumented(name) if engine == "atheris" else None
    if target is None:
        from fuzz_targets import TARGETS

        target = TARGETS[name]
    from fuzz_oracle import Log, guarded

    with guarded(scratch / "guarded") as guard:
        seeds = target.seeds()
        for seed in seeds:  # what is imported late is imported now, without the guard
            _warm(target, seed, guard.folder / "input")
        _bound_memory()
        session = Session(target, guard, Log(), scratch, seconds)
        for seed in seeds:
            session.feed(seed)
        if engine == "atheris":
            session.by_coverage(seeds)
        else:
            session.by_chance(seeds)
    session.write(whole=True)


def _instrumented(name: str) -> Any:
    """The target, with the modules that it is about instrumented as they are imported."""
    import atheris

    sys.path[:0] = [str(HERE)]
    with atheris.instrument_imports(include=[f"benchmarks.{part}" for part in _READERS], enable_loader_override=False):
        from fuzz_targets import TARGETS
    return TARGETS[name]


_READERS = (
    *(
        "safe_pickle",
        "csd",
        "archive",
        "published",
        "checkpoint",
        "unpack",
        "prepared",
        "record",
        "curves",
        "analysed",
        "plain_yaml",
    ),
    *("lists", "methods", "word_pieces", "console", "errors", "submission", "report", "tasks", "runner.config", "cli"),
)


def _warm(target: Any, seed: bytes, work: Path) -> None:
    import shutil

    from benchmarks.errors import InputError

    work.mkdir()
    try:
        target.run(seed, work)
    except (InputError, AssertionError, Exception):  # judged when it is fed under guard
        pass
    finally:
        shutil.rmtree(work)


def _bound_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))


class Session:
    """One target being fuzzed. The input under way and the counts are in files, for whoever finds the process dead."""

    def __init__(self, target: Any, guard: Any, log: Any, scratch: Path, seconds: float) -> None:
        self.target, self.guard, self.log, self.scratch = target, guard, log, scratch
        self.began = time.monotonic()
        self.end, self._written = self.began + seconds, 0.0

    def feed(self, data: bytes) -> None:
        """One input."""
        (self.scratch / "current").write_bytes(data)
        known = len(self.log.faults)
        self.log.add(self.target, data, self.guard)
        now = time.monotonic()
        if len(self.log.faults) > known or now - self._written > 0.5:
            self._written = now
            self.write(whole=False)

    def write(self, whole: bool) -> None:
        """The counts so far, and the input of each fault."""
        from fuzz_oracle import label_of

        faults = []
        kept = {f"fault-{label_of(data)}" for _, data in self.log.faults.values()}
        for path in self.scratch.glob("fault-*"):
            if path.name not in kept:
                path.unlink()
        for fault, data in self.log.faults.values():
            path = self.scratch / f"fault-{label_of(data)}"
            path.write_bytes(data)
            faults.append({"site": fault.site, "told": fault.told[:300], "input": path.name, "bytes": len(data)})
        row = {
            "target": self.target.name,
            "inputs": self.log.inputs,
            "accepted": self.log.accepted,
            "seconds": round(time.monotonic() - self.began, 1),
            "faults": faults,
            "whole": whole,
        }
        part = self.scratch / "log.json.tmp"
        part.write_text(json.dumps(row))
        part.replace(self.scratch / "log.json")

    def by_chance(self, seeds: Sequence[bytes]) -> None:
        """Inputs near the seeds until the time is up."""
        from fuzz_material import mutated, random_inputs

        dice = random_inputs(seeds, SEED)
        while time.monotonic() < self.end:
            self.feed(mutated(seeds, dice))

    def by_coverage(self, seeds: Sequence[bytes]) -> None:
        """Inputs that libFuzzer makes, which keeps those that reach new places. It ends the process itself."""
        import atheris

        corpus = self.scratch / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(seed[:LONGEST_INPUT])
        left = max(1, round(self.end - time.monotonic()))
        options = [
            f"-max_total_time={left}",
            f"-max_len={LONGEST_INPUT}",
            f"-timeout={GRACE_S // 2}",
            f"-artifact_prefix={self.scratch}/",
            "-rss_limit_mb=0",
            f"-seed={SEED}",
        ]
        atheris.Setup(["fuzz", *options, "-detect_leaks=0", "-handle_term=0", str(corpus)], self.feed)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(ROOT)]
    sys.exit(main())
