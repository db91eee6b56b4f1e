"""Runs an analysis on finished runs whose weights were kept, team by team, and keeps a line of each run.

A line is current while the run's digest and the analysis' source are what they were; those runs are left alone.
"""

from __future__ import annotations

import ast
import importlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from benchmarks import archive
from benchmarks.analysed import Line, path_of, read, rounded, text
from benchmarks.analyses import ANALYSES, Analysis
from benchmarks.analyses.team import Shared, Team
from benchmarks.errors import InputError, one_line
from benchmarks.methods import METHODS
from benchmarks.record import RunKey, RunRecord, digest_of
from benchmarks.runner import claims, execute, store
from benchmarks.runner.config import protocol_of
from benchmarks.runner.execute import Options
from benchmarks.runner.launch import Event, Listener, Result
from benchmarks.runner.names import base_of
from benchmarks.runner.source import ROOT, source_digest

HOME = "benchmarks.analyses"
Found = tuple[RunRecord, ...]  # runs that trained together


@dataclass(frozen=True)
class Work:
    """An analysis and what there is to do for it. teams: whole, with companions that have a line already. to_do: the
    runs that need a line. current: those that have one. bare: finished runs without the weights it needs. stale: runs
    of another configuration, data or code than today's, or which cannot be judged, and why."""

    analysis: Analysis
    teams: tuple[Found, ...] = ()
    to_do: tuple[RunKey, ...] = ()
    current: tuple[RunKey, ...] = ()
    bare: tuple[RunKey, ...] = ()
    stale: dict[RunKey, str] = field(default_factory=dict)

    @property
    def remedy(self) -> str:
        """How the first of the runs without weights gets them."""
        key = self.bare[0]
        seeds = ",".join(str(other.seed) for other in self.bare if replace(other, seed=key.seed) == key)
        where = f"--benchmark {key.benchmark} --protocol {key.protocol} --data {key.data} --profile {key.profile}"
        which = f"--method {key.method} --variant {key.variant} --seeds {seeds}"
        return f"clcr run {where} {which} --keep {self.analysis.keep}"


def row(name: str) -> Analysis:
    """The analysis of that name. KeyError where there is none."""
    return ANALYSES[name]


@cache
def source(name: str) -> str:
    """The digest of an analysis' source: its module and all of this package that it imports, with what these rest on in
    ``clcr``, in the sense of ``runner.source``."""
    found: set[str] = set()
    waiting = [row(name).target.partition(":")[0]]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _of_this_package(module)
    return digest_of({module: source_digest(module) for module in sorted(found)})


def _of_this_package(module: str) -> list[str]:
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [name for name in names if name.startswith(f"{HOME}.")]


def plan(name: str, records: Iterable[RunRecord], options: Options, matches: Callable[[RunKey], bool]) -> Work:
    """What an analysis of the runs of a folder has to do. InputError where its lines cannot be trusted."""
    analysis, lines = row(name), read(path_of(options.out, name))
    done = [record for record in records if record.status == "done" and _wanted(analysis, record.key)]
    mine = [record for record in done if matches(record.key)]
    current = [record.key for record in mine if _is_current(lines.get(record.key), record, name)]
    rest = [record for record in mine if record.key not in set(current)]
    bare = [record.key for record in rest if not _has_weights(analysis, record.key, options)]
    stale = {r.key: why for r in rest if r.key not in set(bare) and (why := _why_stale(r, options))}
    to_do = [record.key for record in rest if record.key not in {*bare, *stale}]
    able = [r for r in done if _has_weights(analysis, r.key, options) and r.key not in stale]
    teams = tuple(team for team in _teams(able) if any(record.key in to_do for record in team))
    return Work(analysis, teams, tuple(sorted(to_do)), tuple(sorted(current)), tuple(sorted(bare)), stale)


def _wanted(analysis: Analysis, key: RunKey) -> bool:
    method = METHODS.get(base_of(key.method))
    if method is None or (method.fitted and not analysis.fitted) or not analysis.wants(key):
        return False
    return not analysis.selection or protocol_of(key).selection == analysis.selection


def _is_current(line: Line | None, record: RunRecord, name: str) -> bool:
    return line is not None and (line.digest, line.source) == (record.digest, source(name))


def _has_weights(analysis: Analysis, key: RunKey, options: Options) -> bool:
    """Whether a run needs no weights, or has a file of them; whether it can be trusted is seen when it is read."""
    return not store.lacks_weights(store.folder_of(options.out, key), key, analysis.keep)


def _why_stale(record: RunRecord, options: Options) -> str:
    try:
        now = digest_of(execute.describe(record.key, options))
    except InputError as error:
        return str(error)
    return "" if now == record.digest else "its configuration, data or code is not today's; run it again"


def _teams(records: Iterable[RunRecord]) -> list[Found]:
    """Those that trained together, as far as they are here."""
    found: dict[tuple[RunKey, tuple[int, ...]], list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: record.key):
        seeds = tuple(record.provenance.get("together", ())) or (record.key.seed,)
        found.setdefault((replace(record.key, seed=0), seeds), []).append(record)
    return [tuple(team) for team in found.values()]


def execute_all(work: Work, options: Options, listen: Listener) -> list[Result]:
    """Analyse the teams, tell the listener how it goes and keep the lines, whatever ends it: KeyboardInterrupt is
    passed on. A run that cannot be analysed is "failed" and has no line. InputError for weights that cannot be
    trusted."""
    lines: list[Line] = []
    results: list[Result] = []
    shared = Shared()
    try:
        for team in work.teams:
            for result, line in _analyse(work, team, options, listen, shared):
                lines += [] if line is None else [line]
                results.append(result)
                listen(Event("end", result.key, result=result))
    finally:
        keep(options, work.analysis.name, lines)
    return results


def _analyse(
    work: Work, records: Found, options: Options, listen: Listener, shared: Shared
) -> list[tuple[Result, Line | None]]:
    """What came of the runs of a team that need a line."""
    keys = [record.key for record in records if record.key in work.to_do]
    for key in keys:
        listen(Event("start", key, together=len(keys)))

    def tell(share: float) -> None:
        for key in keys:
            listen(Event("progress", key, share))

    name, began = work.analysis.name, time.perf_counter()
    module, _, function = work.analysis.target.partition(":")
    found = getattr(importlib.import_module(module), function)(Team(records, options, tell, shared))
    seconds = (time.perf_counter() - began) / len(keys)
    ended: list[tuple[Result, Line | None]] = []
    for record, values in zip(records, found, strict=True):
        if record.key in keys and isinstance(values, Exception):
            ended.append((Result(record.key, "failed", seconds, one_line(str(values))), None))
        elif record.key in keys:
            line = Line(name, record.key, record.digest, source(name), rounded(values))
            ended.append((Result(record.key, "done", seconds), line))
    return ended


def keep(options: Options, name: str, lines: Sequence[Line]) -> None:
    """Merge lines into <out>/analyses/<name>.jsonl in one write: a new line of a run replaces its old one, lines of
    runs that are not here stay."""
    if not lines:
        return
    path = path_of(options.out, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with claims.locked(store.runs_folder(options.out)):
        merged = read(path) | {line.key: line for line in lines}
        archive.write_bytes(path, text(merged.values()).encode())
