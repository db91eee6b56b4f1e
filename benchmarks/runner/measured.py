"""The bench of a sweep's own configurations: what some steps of each take here, kept below the cache. No torch.

A row belongs to a configuration (a run without its seed, and the overrides), the number of seeds together and the
processor or GPU; it is measured by ``clcr plan --measure`` in processes of benchmarks.runner.probe, as many at a time
as a sweep would have workers. A row whose profile or method source has changed since is measured again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from baselines import METHODS
from benchmarks import archive, studies
from benchmarks.errors import InputError
from benchmarks.record import RunKey, digest_of
from benchmarks.runner import processes
from benchmarks.runner.machine import cpu_model
from benchmarks.runner.names import PROFILES, base_of
from benchmarks.runner.source import source_digest
from benchmarks.runner.together import Choice

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = ("run_s", "opening_s", "memory")
START_S = 3.0  # a worker, where none was timed yet
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Crew:
    """How many processes measure at a time, where, and for how long: seconds in all, start-up included."""

    workers: int
    devices: tuple[str, ...]
    budget_s: float


def name_of(key: RunKey, overrides: Sequence[str] = ()) -> str:
    """The configuration of a run, whatever its seed."""
    return " ".join((key.folder.rpartition("/")[0], *overrides))


def stamp(key: RunKey) -> str:
    """Digest of what a configuration is made of: its profile's files and its method's source."""
    base, settings = studies.split(key.profile)
    files = [PROFILES / f"{profile}{end}" for profile in (base, key.profile) for end in (".yaml", ".tuned.yaml")]
    files += [studies.FILE] if settings else []
    texts = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in files]
    return digest_of([*texts, source_digest(METHODS[base_of(key.method)].target.partition(":")[0])])


class Table:
    """The rows of one kind of device, as <cache>/bench/<cpu|cuda>.json holds them."""

    def __init__(self, cache: Path, device: str) -> None:
        self.path = cache / "bench" / f"{device.partition(':')[0]}.json"
        self._rows: list[dict[str, Any]] = []
        self.start_s = START_S
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["cpu"] == cpu_model():
                self._rows = [row for row in kept["rows"] if _whole(row)]
                self.start_s = float(kept["start_s"])

    def of(self, name: str, seeds: int | None = None) -> Row | None:
        """The row of a configuration, of this many seeds together, else of the number that was measured last."""
        rows = [row for row in self._rows if row["name"] == name]
        return next((row for row in rows if row["seeds"] == seeds), None if seeds else rows[-1] if rows else None)

    def add(self, rows: Sequence[Row], start_s: float | None) -> None:
        """Keep new rows, in the place of older ones alike, and how long a worker takes to start."""
        new = {(row["name"], row["seeds"]): dict(row) for row in rows}
        self._rows = [row for row in self._rows if (row["name"], row["seeds"]) not in new] + list(new.values())
        self.start_s = self.start_s if start_s is None else start_s
        kept = {"cpu": cpu_model(), "start_s": self.start_s, "rows": self._rows}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        archive.write_bytes(self.path, (json.dumps(kept, indent=1) + "\n").encode())


def _whole(row: Any) -> bool:
    """Whether a row says what is asked of it; a table that was edited predicts nothing."""
    numbers = all(isinstance(row[name], int | float) and row[name] >= 0 for name in NUMBERS)
    return numbers and isinstance(row["name"], str) and isinstance(row["seeds"], int)


def lacking(teams: Sequence[tuple[RunKey, ...]], table: Table, overrides: Sequence[str]) -> list[tuple[RunKey, ...]]:
    """A team of each configuration and size that has no valid row yet; the ``full`` variants first."""
    found: dict[tuple[str, int], tuple[RunKey, ...]] = {}
    stamps: dict[RunKey, str] = {}
    for team in teams:
        group = replace(team[0], seed=0, variant="")
        if group not in stamps:
            stamps[group] = stamp(team[0])
        name = name_of(team[0], overrides)
        row = table.of(name, len(team))
        if row is None or row.get("stamp") != stamps[group]:
            found.setdefault((name, len(team)), team)
    return sorted(found.values(), key=lambda team: team[0].variant != "full")


def measure(
    teams: Sequence[tuple[RunKey, ...]], place: Any, crew: Crew, tell: Callable[[str], None]
) -> tuple[list[Row], float | None]:
    """Rows of as many teams as the budget allows, and how long a process took to start. ``place``: as plan.Place.

    InputError where nothing can be measured here.
    """
    began, workers = time.monotonic(), max(1, min(crew.workers, len(teams)))
    parts = [teams[number::workers] for number in range(workers)]
    stamps = {team: stamp(team[0]) for team in teams}  # not in the threads: they would share a parser
    found: list[Row] = []
    starts: list[float] = []
    errors: list[str] = []

    def work(number: int, part: Sequence[tuple[RunKey, ...]]) -> None:
        device = crew.devices[number % len(crew.devices)]
        lines = ask(request(part, replace(place, device=device), crew.budget_s), errors.append)
        for line, team in zip(lines[1:], part, strict=False):
            found.append({"name": name_of(team[0], place.overrides), "stamp": stamps[team], **line})
        starts.extend(line["start_s"] for line in lines[:1])

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors and not found:
        raise InputError(f"--measure: {errors[0]}")
    for row in found:
        if "skipped" in row:
            tell(f"not measured: {row['name']}: {row['skipped']}")
    rows = [row for row in found if "skipped" not in row]
    told = f"{len(rows)} of {len(teams)} configurations measured in {time.monotonic() - began:.0f} s"
    tell(told + ("" if len(found) == len(teams) else "; give --measure more seconds for the others"))
    return rows, max(starts, default=None)


def request(teams: Sequence[Sequence[RunKey]], place: Any, budget_s: float) -> dict[str, Any]:
    """What benchmarks.runner.probe is asked. ``place``: where and on which device, as plan.Place or engine options."""
    plain = {**asdict(place), "out": str(place.out), "cache": str(place.cache)}
    return {"teams": [[asdict(key) for key in team] for team in teams], "place": plain, "budget_s": budget_s}


def keep_choices(cache: Path, device: str, choices: Mapping[str, Choice]) -> None:
    """Write down how many seeds the configurations of a sweep train together and why, for their records to say."""
    path = _choices(cache, device)
    with suppress(OSError):  # a note beside the numbers, never an obstacle
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {**_read(path), **{name: asdict(choice) for name, choice in choices.items()}}
        archive.write_bytes(path, (json.dumps(kept, indent=1) + "\n").encode())


def choice_of(cache: Path, device: str, name: str) -> dict[str, Any]:
    """What was written down for a configuration: {"seeds", "why"}, or nothing."""
    found = _read(_choices(cache, device)).get(name)
    return found if isinstance(found, dict) else {}


def _choices(cache: Path, device: str) -> Path:
    return cache / "bench" / f"together_{device.partition(':')[0]}.json"


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept if isinstance(kept, dict) else {}
    return {}


def ask(request: Mapping[str, Any], fail: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """What benchmarks.runner.probe says to a request, in a process of its own in the environment of a worker: first
    what it runs on, then rows. ``fail`` hears why it did not end well; what it said before counts."""
    command = [sys.executable, "-m", "benchmarks.runner.probe"]
    asked, own = json.dumps({**request, "asked_at": time.time()}), processes.environment()
    done = subprocess.run(command, input=asked, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        fail((done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1])
    return [json.loads(line) for line in done.stdout.splitlines()]
