"""What people see: tables, notes, and how a sweep goes. Results go to stdout, everything else to stderr. No torch.

rich is loaded only where a terminal shows it; elsewhere plain lines are printed, and nothing with --quiet.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from benchmarks.errors import one_line, plain
from benchmarks.record import RunKey
from benchmarks.runner.launch import Event, Result
from benchmarks.runner.plan import Planned

if TYPE_CHECKING:
    from benchmarks.report.layout import Table as ReportTable

ENDED = {"done": "done", "kept": "done elsewhere", "failed": "FAILED", "refused": "REFUSED"}


class Console:
    """Where a command prints. With ``as_json`` stdout holds one JSON document and nothing else."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet

    def data(self, value: Mapping[str, Any]) -> None:
        """The result for programs; printed with --json alone."""
        if self.as_json:
            print(json.dumps(value, indent=1))

    def say(self, text: str) -> None:
        """A line of the result for people."""
        if not self.as_json and not self.quiet:
            print("\n".join(map(plain, text.split("\n"))))

    def note(self, text: str) -> None:
        """What is good to know beside the result."""
        if not self.quiet:
            print(one_line(text), file=sys.stderr)

    def error(self, text: str) -> None:
        """What went wrong, in one line: told even with --quiet."""
        print(one_line(text), file=sys.stderr)

    def notes(self, texts: Sequence[str]) -> None:
        """Several notes, a line each."""
        for text in texts:
            self.note(text)

    def fault(self, text: str) -> None:
        """What is wrong, in one line; also where nothing else is said."""
        print(f"clcr: {one_line(text)}", file=sys.stderr)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for people: drawn on a terminal, aligned text elsewhere."""
        if self.as_json or self.quiet:
            return
        texts = [[one_line(str(cell)) for cell in row] for row in rows]  # a record's error is anyone's text
        if sys.stdout.isatty():
            _draw(title, columns, texts)
        else:
            print(title)
            for line in _aligned([list(columns), *texts]):
                print(line)

    def sections(self, tables: Sequence[ReportTable]) -> None:
        """The sections of report tables that have rows: drawn on a terminal, Markdown elsewhere."""
        if self.as_json or self.quiet:
            return
        from rich.console import Console as RichConsole

        from benchmarks.report import render, terminal

        screen = RichConsole(highlight=False)
        for table in tables:
            filled = [section for part in table.parts.values() for section in part if section.rows]
            if sys.stdout.isatty():
                for section in filled:
                    for part in terminal.section(section, f"{table.title}: ", screen.width):
                        screen.print(part)
            elif filled:
                print(render.markdown(table))


def _draw(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console as RichConsole
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row))
    RichConsole().print(table)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: int | None) -> str:
    """Bytes as people say them."""
    return "unknown" if count is None else f"{count / 2**20:.0f} MiB"


class Clock:
    """How long a sweep still takes: by runs of the same kind in this sweep, else as the plan predicts them, times the
    pace of this sweep against the plan so far, else by other runs of this sweep; None until known."""

    def __init__(self, planned: Sequence[Planned], workers: int) -> None:
        self._left = {run.key: run for run in planned}
        self._alike = {run.key: replace(run.key, seed=0) for run in planned}
        self._workers = max(1, workers)
        self._began: dict[RunKey, float] = {}
        self._shares: dict[RunKey, float] = {}
        self._together: dict[RunKey, int] = {}
        self._times: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self._pace: list[tuple[float, float]] = []

    def hear(self, event: Event, now: float) -> None:
        """Take notice of an event at a time in seconds."""
        if event.kind == "start" and event.key:
            self._began[event.key], self._shares[event.key], self._together[event.key] = now, 0.0, event.together
        elif event.kind == "progress" and event.key:
            self._shares[event.key] = event.share
        elif event.kind == "retry" and event.key:
            self._began.pop(event.key, None)
        elif event.result:
            self._end(event.result)

    def _end(self, result: Result) -> None:
        key = result.key
        run = self._left.pop(key, None)
        self._began.pop(key, None)
        if result.state == "done":
            for row in _rows(key):
                self._times[row].append(result.seconds)
            if run is not None and run.predicted_s:
                self._pace.append((result.seconds, run.predicted_s))

    def left_s(self, now: float) -> float | None:
        """Seconds until the last run ends, with all workers busy; None while a run's time cannot be told."""
        parts = {key: self._run_left(key, now) for key in self._left}
        known = {key: part for key, part in parts.items() if part is not None}
        if len(known) < len(parts):
            return None
        teams: dict[tuple[RunKey, float | None], list[float]] = defaultdict(list)
        sizes: dict[tuple[RunKey, float | None], int] = {}
        for key, part in known.items():
            team = self._alike[key], self._began.get(key)
            teams[team].append(part)
            sizes[team] = self._together.get(key, self._left[key].together)
        longest = max((sum(team[: sizes[place]]) for place, team in teams.items()), default=0.0)
        return max(sum(known.values()) / self._workers, longest)

    def _run_left(self, key: RunKey, now: float) -> float | None:
        total = self._total(key)
        if key not in self._began:
            return total
        spent, share = (now - self._began[key]) / self._together[key], self._shares[key]
        if share > 0:
            total = spent / share
        return None if total is None else max(total - spent, 0.0)

    def _total(self, key: RunKey) -> float | None:
        same, *others = _rows(key)
        predicted = self._left[key].predicted_s
        if same not in self._times and predicted is not None:
            spent, foreseen = (sum(each) for each in zip(*self._pace, strict=True)) if self._pace else (1.0, 1.0)
            return predicted * spent / foreseen
        return next((statistics.median(self._times[row]) for row in (same, *others) if row in self._times), None)


def _rows(key: RunKey) -> tuple[tuple[str, ...], ...]:
    """Runs that take about as long, the most alike first: same benchmark, then same method elsewhere, then any."""
    sweep, alike = (key.data, key.profile), (key.method, key.variant)
    group = (key.benchmark, key.protocol, *sweep)
    return (*group, *alike), (*group, key.method), (*sweep, key.method), sweep


class Watch:
    """Shows how a sweep goes: bars on a terminal, a line per ended run elsewhere, nothing with --quiet."""

    def __init__(self, console: Console, planned: Sequence[Planned], workers: int) -> None:
        self.ended: Counter[str] = Counter()
        self._total = len(planned)
        self._console, self._clock = console, Clock(planned, workers)
        self._waiting = False
        self._bars = _Bars(self._total) if sys.stderr.isatty() and not console.quiet else None

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars:
            self._bars.progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        now = time.monotonic()
        self._clock.hear(event, now)
        if event.result:
            self.ended[event.result.state] += 1
            self._tell(event.result, now)
        elif event.kind == "retry":
            self._line(f"{event.key}: {event.note}; trying once more")
        elif event.kind == "note":
            self._line(event.note)
        elif event.kind == "wait" and not self._waiting:
            self._waiting = True
            self._line("another runner works on this folder; its runs are waited for, not repeated")
        elif event.kind == "stop":
            self._line("stopping: workers keep what they can go on from; interrupt again to end them at once")
        if self._bars:
            self._bars.show(event, self._left(now))

    def _left(self, now: float) -> str:
        left = self._clock.left_s(now)
        return "time left not known yet" if left is None else f"about {duration(left)} left"

    def _tell(self, result: Result, now: float) -> None:
        count = f"[{self.ended.total()}/{self._total}]"
        if result.state == "stopped":
            self._line(f"{count} stopped {result.key}")
            return
        line = f"{count} {ENDED[result.state]} {result.key} {duration(result.seconds)}"
        if result.error and result.state != "refused":  # what was refused is told at the end, once
            self._line(f"{line}: {result.error}")
        elif not self._bars or result.error:
            self._line(f"{line}, {self._left(now)}" if self.ended.total() < self._total else line)

    def _line(self, text: str) -> None:
        if self._bars:
            self._bars.progress.console.print(one_line(text), markup=False, highlight=False)
        else:
            self._console.note(text)


class _Bars:
    """One bar for the sweep and one for each run that is being executed."""

    def __init__(self, total: int) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}")
        self.progress = Progress(*columns, console=RichConsole(stderr=True))
        self._sweep = self.progress.add_task("all runs", total=total, note="")
        self._runs: dict[RunKey, Any] = {}
        self._total, self._count, self._failed = total, 0, 0

    def show(self, event: Event, left: str) -> None:
        """Move the bars."""
        key = event.key
        if event.kind == "start" and key:
            self._runs[key] = self.progress.add_task(str(key), total=1.0, note="")
        elif event.kind == "progress" and key in self._runs:
            self.progress.update(self._runs[key], completed=event.share)
        elif event.kind in ("end", "retry") and key in self._runs:
            self.progress.remove_task(self._runs.pop(key))
        if event.result:
            self._count += 1
            self._failed += event.result.state in ("failed", "refused")
        failed = f", {self._failed} failed" if self._failed else ""
        note = f"{self._count} of {self._total}{failed}, {left}"
        self.progress.update(self._sweep, completed=self._count, note=note)
