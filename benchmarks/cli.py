"""The command ``clcr``: the composition root. Parses, calls, prints; everything heavy is imported inside a command.

Exit codes: 0 done, 1 runs failed or a check did not hold, 2 bad input (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from benchmarks.errors import InputError, halted_by, no_room, one_line

if TYPE_CHECKING:
    from benchmarks.console import Console
    from benchmarks.record import RunKey
    from benchmarks.runner.launch import Crew
    from benchmarks.runner.plan import Place, Selection

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = ("benchmarks", "methods", "variants", "launchers", "metrics", "protocols")
SELECTION = ("benchmark", "method", "variant", "seeds", "protocol", "profile", "data")
BAD_INPUT, INTERRUPTED = 2, 130

Handler = Callable[[argparse.Namespace, "Console"], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        args = _parser().parse_args(argv)
        from benchmarks.console import Console

        handler: Handler = args.handler
        with _terminated_like_interrupted():
            code = handler(args, Console(args.json, args.quiet))
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"clcr: {one_line(str(error))}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("clcr: interrupted; nothing that was finished is lost", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `clcr list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if not no_room(error):
            raise
        print(f"clcr: {halted_by(error, 'a file')}", file=sys.stderr)
        return BAD_INPUT


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGUSR1)}
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="clcr", description="Reproduction suite for CLCR: plan, run and report benchmarks.",
                     allow_abbrev=False)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.add_argument("--json", action="store_true", help="one JSON document on stdout, for programs")
        sub.add_argument("--quiet", action="store_true", help="print errors alone")
        sub.set_defaults(handler=handler)
        return sub

    listing = command("list", _list, "benchmarks, methods, variants, launchers, metrics, protocols")
    listing.add_argument("section", nargs="?", choices=SECTIONS, metavar="|".join(SECTIONS))
    fetching = command("fetch", _fetch, "download what may be downloaded, explain what must be got by hand")
    fetching.add_argument("benchmark", metavar="BENCHMARK|all")
    fetching.add_argument("--to", metavar="DIR", help="where the files go (default: $CLCR_CACHE/sources/BENCHMARK)")
    fetching.add_argument("--large", action="store_true", help="also large files without a published checksum")
    fetching.add_argument("--sdk", action="store_true", help="CMU-MOSI and -MOSEI: let mmsdk download its sequences")
    fetching.add_argument("--dry-run", action="store_true", help="tell sources and steps, download nothing")
    _add_prepare(command("prepare", _prepare, "published files -> prepared folder, checked against official counts"))
    planning = command("plan", _plan, "the runs, their state, predicted time and memory; runs nothing")
    planning.add_argument(
        "--measure", type=float, nargs="?", const=120.0, metavar="S",
        help="time steps of each configuration here first, for so many seconds at most (default: 120)",
    )  # fmt: skip
    _add_workers(planning)
    running = command("run", _run, "execute what is not done; running it again goes on where it stopped")
    _add_run(running)
    _add_workers(running)
    status = command("status", _status, "done, running, failed, stale, missing; without SELECTION: every run there is")
    reporting = command("report", _report, "merge finished runs into the records, then records -> tables, figures")
    reporting.add_argument("--only", metavar="PART", help="make one part alone, such as tables or figures")
    reporting.add_argument("--partial", action="store_true", help="show tables that lack runs and name what they lack")
    submitting = command("submit", _submit, "check a folder of results from elsewhere and merge it for a pull request")
    submitting.add_argument("folder", metavar="DIR", help="what `clcr run --out DIR` and `clcr report --out DIR` left")
    submitting.add_argument("--into", default="results", metavar="DIR", help="results to merge into (default: results)")
    submitting.add_argument("--check", action="store_true", help="only say whether it would be accepted")
    searching = command("search", _search, "hyper-parameter search on validation data, one budget for every method")
    searching.add_argument("--trials", type=int, default=12, metavar="N", help="trials a method (default: 12)")
    searching.add_argument("--folds", type=int, default=1, metavar="N", help="folds that score a trial (default: 1)")
    searching.add_argument(
        "--adopt", action="store_true", help="let runs use it: also write benchmarks/profiles/PROFILE.tuned.yaml"
    )
    _add_workers(searching)
    _add_check(
        command("check", _check, "hold what is committed against today's code: records, published, tables, golden")
    )
    _add_bench(command("bench", _bench, "time training steps of every method, of one seed and of many together"))
    analysing = command(
        "analyse", _analyse, "one section of the findings; without NAME: which there are, what they lack"
    )
    analysing.add_argument("name", nargs="?", metavar="NAME|all", help="e.g. robustness: of the runs that kept weights")
    analysing.add_argument("--dry-run", action="store_true", help="tell what would be done, do nothing")
    analysing.add_argument("--device", default="auto", metavar="auto|cpu|cuda:0", help="where to compute")
    for sub in (planning, running, status, reporting, searching, analysing):
        _add_selection(sub)
        sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. training.lr=0.001")
    return parser


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("benchmark", metavar="BENCHMARK|all")
    parser.add_argument("--source", metavar="DIR", help="folder of the published files (default: $CLCR_DATA)")
    parser.add_argument("--dry-run", action="store_true", help="say what is found and what is missing, write nothing")
    parser.add_argument("--verify", action="store_true", help="read the prepared folder again, compare all digests")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode media (default: one a core)")
    parser.add_argument("--preset", metavar="NAME", help="how to read raw media (default: as the benchmark says)")
    parser.add_argument("--max-loss", type=float, metavar="SHARE", help="share of clips that may be lost, 0 to 1")
    parser.add_argument("--clip-timeout", type=float, metavar="S", help="seconds a clip may take (default: 120)")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds-together", default="auto", metavar="auto|N", help="how many seeds train as one program (default: auto)"
    )
    parser.add_argument("--per-gpu", default="1", metavar="N|auto", help="workers on each GPU (default: 1)")
    parser.add_argument("--retry-failed", action="store_true", help="also try again what failed before")
    parser.add_argument(
        "--keep", default="", metavar="best|epochs", help="also leave weights, of the best or of all epochs"
    )
    parser.add_argument("--launcher", default="local", help="what executes the runs (default: local)")
    parser.add_argument("--launcher-config", metavar="FILE.yaml", help="how it does that, see docs/cluster.md")
    parser.add_argument("--dry-run", action="store_true", help="print what the launcher would submit, execute nothing")
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=5.0, metavar="M",
        help="keep a long run's state every so many minutes (default: 5; 0: not by time)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint-epochs", type=int, default=0, metavar="N", help="also after every N epochs (default: 0, not)"
    )


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", metavar="a,b|all", help="default: all that are trained")
    parser.add_argument("--size", metavar="small,full|all", help="default: all")
    parser.add_argument("--seeds-together", metavar="1,8", help="default: 1,2,4,8,16,32")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda:0", help="where to compute (default: auto)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="time at most so many steps (default: 20)")
    parser.add_argument(
        "--budget", type=float, default=150.0, metavar="S", help="seconds for all; what does not fit is skipped"
    )
    parser.add_argument(
        "--configurations", metavar="DIR", help="instead: the forward pass of each run of these records"
    )
    parser.add_argument("--out", metavar="FILE.json", help="keep the measurements")
    parser.add_argument("--figure", metavar="FILE.png", help="draw them; needs matplotlib")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="a,b|all", help="records, published, tables, golden (default: all)")
    parser.add_argument("--accept", action="store_true", help="keep the published cells that are reproduced now")
    parser.add_argument("--out", default="results", metavar="DIR", help="default: results")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one per core, or per GPU)")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda:0", help="where workers compute")


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("SELECTION")
    group.add_argument("--benchmark", metavar="a,b|all")
    group.add_argument("--method", metavar="a,b|all", help="`unimodal` means one row per modality")
    group.add_argument("--variant", metavar="a,b|full|all", help="default: full")
    group.add_argument("--seeds", metavar="0-4|0,3", help="default: 0-2")
    group.add_argument("--protocol", metavar="NAME", help="default: the first whose data is here")
    group.add_argument("--profile", metavar="tiny|open|paper|tuned", help="default: tiny")
    group.add_argument("--data", metavar="auto|twin|real", help="default: prepared real data, else the synthetic twin")
    group.add_argument("--study", metavar="a,b|all", help="the runs of a study (benchmarks/studies.yaml) instead")
    group.add_argument("--out", metavar="DIR", help="default: results; results/studies with --study")


def _names(text: str | None) -> tuple[str, ...]:
    """ "a,b" as names; nothing and "all" as (), which means all."""
    names = () if text is None else tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    return () if "all" in names else names


def _selection(args: argparse.Namespace) -> Selection:
    from benchmarks import studies
    from benchmarks.runner.plan import Selection, parse_seeds

    if args.study:
        return Selection(studies=_names(args.study) or tuple(studies.declared()[1]))
    asked = {name: getattr(args, name) for name in ("protocol", "profile", "data") if getattr(args, name) is not None}
    return Selection(
        benchmarks=_names(args.benchmark),
        methods=_names(args.method),
        variants=("full",) if args.variant is None else _names(args.variant),
        seeds=parse_seeds("0-2" if args.seeds is None else args.seeds),
        **asked,
    )


def _place(args: argparse.Namespace) -> Place:
    from benchmarks.runner.plan import Place

    return Place(_out(args), cache_folder(), overrides=tuple(args.set))


def _out(args: argparse.Namespace) -> Path:
    if args.out is None:
        return Path("results/studies" if args.study else "results")
    out = Path(args.out)
    if not args.out or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {args.out}: not a folder; choose another one")
    return out


def cache_folder() -> Path:
    """$CLCR_CACHE, else .cache in the checkout (in the current folder where the packages were installed)."""
    home = ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()
    return Path(os.environ.get("CLCR_CACHE") or home / ".cache")


def _list(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import listing

    sections = listing.sections((args.section,) if args.section else SECTIONS, cache_folder())
    console.data(sections)
    for name, rows in sections.items():
        console.table(name, *listing.as_table(name, rows))
    return 0


def _fetch(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import fetching

    sources = cache_folder() / "sources"
    to = Path(args.to) if args.to else sources if args.benchmark == "all" else sources / args.benchmark
    return fetching.run(args.benchmark, to, console, fetching.How(args.large, args.sdk, args.dry_run))


def _prepare(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import BENCHMARKS, catalog, preparation

    wanted = list(BENCHMARKS) if args.benchmark == "all" else [args.benchmark]
    for name in wanted:
        catalog.task_module(name)
    if args.verify:
        return preparation.verify(wanted, cache_folder(), console)
    source = args.source or os.environ.get("CLCR_DATA")
    if not source:
        raise InputError("prepare: no source; pass --source DIR or set CLCR_DATA to the folder of published files")
    options = preparation.options(args.workers, args.preset, args.max_loss, console.note, args.clip_timeout)
    if args.dry_run:
        return preparation.dry_run(wanted, Path(source), options, console)
    return preparation.prepare(wanted, Path(source), cache_folder(), options, console)


def _plan(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import planning
    from benchmarks.runner import plan

    crew, place = _crew(args), _place(args)
    how = planning.How(crew.workers, crew.devices, args.measure)
    keys, notes = plan.select(_selection(args), place.cache)
    if place.overrides:
        plan.check_configs(keys, place)
    return planning.run(keys, notes, place, how, console)


def _run(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import sweeping

    crew = replace(_crew(args), settings=Path(args.launcher_config) if args.launcher_config else None)
    place = replace(_place(args), device=crew.devices[0])
    place = sweeping.leaves(place, args.checkpoint_minutes, args.checkpoint_epochs, args.keep)
    how = sweeping.How(args.launcher, args.seeds_together, args.per_gpu, args.retry_failed, args.dry_run)
    return sweeping.run(_selection(args), place, crew, how, console)


def _crew(args: argparse.Namespace) -> Crew:
    from benchmarks.runner import launch

    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers {args.workers}: must be at least 1")
    devices = launch.devices(args.device)
    return launch.Crew(args.workers or launch.default_workers(devices), devices)


def _analyse(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import analysing
    from benchmarks.runner import launch, plan

    place, selection = replace(_place(args), device=launch.devices(args.device)[0]), _selection(args)
    plan.check_names(selection)
    matches = plan.matcher(selection, [name for name in SELECTION if getattr(args, name) is not None])
    if args.study:
        matches = set(plan.select(selection, place.cache)[0]).__contains__
    return analysing.run(args.name, place, matches, args.dry_run, console)


def _bench(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import benching
    from benchmarks.runner import bench, launch
    from benchmarks.runner.plan import Place

    together = bench.parse_together(args.seeds_together) if args.seeds_together else bench.TOGETHER
    methods, sizes = _names(args.method) or bench.trained(), _names(args.size) or tuple(bench.SIZES)
    device = launch.devices(args.device)[0]
    if args.configurations is not None:
        place = Place(Path(args.configurations), cache_folder(), device)
        return benching.run_forward(place, args.budget, args.out, console)
    grid = bench.Grid(methods, sizes, together, device, args.steps, args.budget)
    return benching.run(grid, args.out, args.figure, console)


def _check(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import checking

    return checking.run(_out(args), cache_folder(), _names(args.only), args.accept, console)


def _status(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import planning
    from benchmarks.runner import plan, store

    place = _place(args)
    if any(getattr(args, name) is not None for name in SELECTION):
        keys, notes = plan.select(_selection(args), place.cache)
        console.notes(notes)
    else:
        keys = [key for key in map(store.key_of, store.run_folders(place.out)) if key is not None]
    planned = plan.plan(keys, place)
    counts = plan.counts(planned)
    console.data({**counts, "runs": [planning.row(run) for run in planned]})
    rows = [(run.key, run.state, planning.why(run, place.out)) for run in planned if run.state != "done"]
    if rows:
        console.table("not done", ("run", "state", "why"), rows)
    console.say(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 0


def _report(args: argparse.Namespace, console: Console) -> int:
    from benchmarks import report
    from benchmarks.runner import plan, store

    place, selection = _place(args), _selection(args)
    plan.check_names(selection)
    if not place.out.is_dir():
        raise InputError(f"--out {place.out}: no such folder; make results with `clcr run` or name another one")
    given = [name for name in SELECTION if getattr(args, name) is not None]
    matches = plan.matcher(selection, given)
    merged = store.merge(place.out)
    console.note(f"{merged.added} new results merged, {merged.total} records of the benchmarks that were run here")
    select = matches if given else None
    built = report.build(place.out, args.only, args.partial, select, _stale(place, matches, console))
    files, holes = [str(path) for path in built.files], [str(hole) for hole in built.holes]
    console.data({"merged": asdict(merged), "files": files, "holes": holes})
    console.notes([*(f"missing: {hole}" for hole in holes), *built.notes])
    if given:
        console.sections(built.tables)
    console.say("the tables of a selection are not written" if given else f"wrote {len(files)} files below {place.out}")
    return 0


def _submit(args: argparse.Namespace, console: Console) -> int:
    from benchmarks.submission import command

    return command.run(Path(args.folder), Path(args.into), cache_folder(), args.check, console)


def _stale(place: Place, matches: Callable[[RunKey], bool], console: Console) -> set[RunKey]:
    from benchmarks.runner import plan

    try:
        return plan.stale(place, matches)
    except ImportError as error:
        console.note(f"stale runs are not looked for: {error.name} is not installed")
        return set()


def _search(args: argparse.Namespace, console: Console) -> int:
    from benchmarks.runner import plan, search, store

    crew, place = _crew(args), _place(args)
    keys, notes = plan.select(_selection(args), place.cache)
    plan.check_configs(keys, place)
    budget = search.Budget(args.trials, args.folds)
    store.check_out(place.out)
    console.notes(notes)

    def tell(line: Mapping[str, Any]) -> None:
        found = line["error"] or f"{line['metric']} {line['value']:.4f}"
        console.note(f"{line['benchmark']} {line['method']} trial {line['trial']}: {found}")

    options = plan.options(replace(place, device=crew.devices[0]))
    tuned = search.search(keys, options, budget, crew.workers, tell)
    if args.adopt:
        search.adopt(keys[0].profile, tuned)
    console.data({"tuned": tuned})
    for group, methods in tuned.items():
        rows = [
            (method, ", ".join(f"{k}={v}" for k, v in best.items()) or "as the profile")
            for method, best in methods.items()
        ]
        console.table(group, ("method", "best trial"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
