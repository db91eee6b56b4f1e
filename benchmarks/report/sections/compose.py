"""REPORT.md and results/findings: every section's tables, figures and sentences in one report. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.drawing import style
from benchmarks.errors import plain
from benchmarks.record import RunRecord
from benchmarks.report import layout, render
from benchmarks.report.collect import Collected
from benchmarks.report.layout import Cell, Table, listed, number
from benchmarks.report.published import Published
from benchmarks.report.sections import SECTIONS, load
from benchmarks.report.sections.data import Data, gather, keys_of
from benchmarks.report.sections.frame import MEANING, Claim, Made, Section, Sentence, real
from benchmarks.report.sections.trials import trials

Parts = tuple[Section, Made]
REPORT = "REPORT.md"
FOLDER = "findings"
HOUR = 3600.0
DIGITS = 2
MADE = "Made by `clcr report` from results/records, results/studies and results/analyses; edits are overwritten."
PLAN = "Seeds or arrangements, in total, that would find the observed difference with a power of 80 %: a plan."
SUMMARY, COMPUTE = "summary", "compute"


def contents(out: Path, main: Collected, published: Published) -> dict[str, bytes]:
    """REPORT.md, and by name the files of results/findings. InputError names an input that cannot be read."""
    data = gather(out, main, published)
    with style():
        made = [(section := load(name), section.build(data)) for name in SECTIONS]
    own = (summary_table(made), compute_table(data))
    files = {name: content for section, parts in made for name, content in _files(section, parts)}
    files |= {name: content for table in own for name, content in _rendered(table.name, table).items()}
    return {REPORT: report(made, own[1]).encode(), **files}


def _files(section: Section, made: Made) -> Iterator[tuple[str, bytes]]:
    for table in made.tables:
        yield from _rendered(f"{section.name}_{table.name}", table).items()
    for name, content in made.figures.items():
        yield f"{section.name}_{name}", content


def _rendered(stem: str, table: Table) -> dict[str, bytes]:
    return {f"{stem}.{suffix}": render.RENDERERS[suffix](table).encode() for suffix in ("md", "csv")}


def report(made: Sequence[Parts], spent: Table) -> str:
    """The whole of REPORT.md."""
    blocks = ["# Findings", f"<!-- {MADE} -->", "## Summary", f"{text(MEANING)} ({link(None, SUMMARY)})"]
    blocks += _summary(made)
    for section, parts in made:
        blocks += _section(section, parts)
    blocks += ["## What is not settled", *_open(made), "## Compute"]
    blocks += [f"{text(fact)} ({link(None, COMPUTE)})" for fact in spent.parts["real"][0].facts]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _claims(made: Sequence[Parts]) -> list[tuple[Section, Claim]]:
    return [(section, claim) for section, parts in made for claim in parts.claims]


def _summary(made: Sequence[Parts]) -> Iterator[str]:
    if not (rows := _claims(made)):
        yield "No claim could be looked at yet."
        return
    lines = ["| Claim | Verdict | Numbers | Table |", "| --- | --- | --- | --- |"]
    for section, claim in rows:
        cells = (claim.claim, claim.verdict, claim.number)
        lines.append(f"| {' | '.join(text(cell) for cell in cells)} | {link(section, claim.table)} |")
    yield "\n".join(lines)


def _section(section: Section, made: Made) -> Iterator[str]:
    yield f"## {text(section.title)}"
    if made.sentences:
        yield "\n".join(f"- {sentence_line(section, sentence)}" for sentence in made.sentences)
    for name in made.figures:
        stem, _, suffix = name.rpartition(".")
        if suffix == "png":
            caption = made.captions.get(stem, stem.replace("_", " "))
            yield f"![{text(caption)}]({FOLDER}/{section.name}_{name})"
    if made.tables:
        yield f"Tables: {', '.join(f'{text(t.title)} ({link(section, t.name)})' for t in made.tables)}."


def sentence_line(section: Section, sentence: Sentence) -> str:
    """A sentence with the link to its table."""
    where = f" ({link(section, sentence.table)})" if sentence.table else ""
    return f"{text(sentence.text)}{where}"


def link(section: Section | None, table: str) -> str:
    """To a table of a section, or of the report itself."""
    return f"[table]({FOLDER}/{f'{section.name}_' if section else ''}{table}.md)"


def text(words: str) -> str:
    """Plain text as Markdown shows it; what stands between two backticks is shown as code."""
    parts = plain(" ".join(words.split())).split("`")
    if len(parts) % 2 == 0:  # one backtick too many: it is a backtick
        parts[-2:] = ["`".join(parts[-2:])]
    return "".join(f"`{part}`" if place % 2 else _escaped(part) for place, part in enumerate(parts))


def _escaped(part: str) -> str:
    """Escaped, with the blanks at its ends."""
    inner = part.strip()
    if not inner:
        return part
    before, _, after = part.partition(inner)
    return f"{before}{render.escape_markdown(inner)}{after}"


def _open(made: Sequence[Parts]) -> Iterator[str]:
    rows = [(section, claim) for section, claim in _claims(made) if claim.settle]
    if not rows:
        yield "Nothing that was looked at is open."
        return
    yield f"{text(PLAN)} ({link(None, SUMMARY)})"
    yield "\n".join(f"- {text(f'{claim.claim}: {claim.settle}.')} ({link(s, claim.table)})" for s, claim in rows)


def summary_table(made: Sequence[Parts]) -> Table:
    """Every claim with its verdict, its numbers and what would settle it."""
    rows = _claims(made)
    columns = ("Claim", "Verdict", "Numbers", "What would settle it", "Table")
    cells = [
        (claim.claim, claim.verdict, claim.number, claim.settle or layout.DASH, f"{section.name}_{claim.table}")
        for section, claim in rows
    ]
    told = layout.Section("Claims", columns, tuple(tuple(Cell(x) for x in row) for row in cells))
    frame = pd.DataFrame(cells, columns=["claim", "verdict", "numbers", "settled_by", "table"])
    return real(SUMMARY, "Claims and verdicts", (MEANING, PLAN), (told,), frame)


def compute_table(data: Data) -> Table:
    """Core-hours of the runs that are committed here: main tables, studies, searches."""
    main = {key for group in data.main.groups for key in keys_of(group)}
    spent = [
        ("Runs of the main tables", [_hours(r) for key, r in data.records.items() if key in main]),
        ("Runs of the studies", [_hours(r) for key, r in data.records.items() if key not in main]),
        ("Searches", [trial.seconds / HOUR for trial in trials(data.out)]),
    ]
    total = sum(hours for _, some in spent for hours in some)
    rows = [(name, str(len(some)), number(sum(some), DIGITS)) for name, some in spent]
    rows.append(("All", str(sum(len(some) for _, some in spent)), number(total, DIGITS)))
    parts = listed([f"{number(sum(some), DIGITS)} by {name.lower()} ({len(some)})" for name, some in spent])
    facts = (
        f"{number(total, DIGITS)} core-hours are in what is committed here: {parts}.",
        "Seeds that trained together share their program's time in equal parts; superseded runs are not counted.",
    )
    columns = ("What", "Runs", "Core-hours")
    told = layout.Section("Compute", columns, tuple(tuple(Cell(x) for x in row) for row in rows), facts)
    frame = pd.DataFrame([(name, len(some), sum(some)) for name, some in spent], columns=["what", "runs", "core_hours"])
    return real(
        COMPUTE,
        "Compute",
        ("Seconds of training and evaluation that records and trials state, on the device that each names.",),
        (told,),
        frame,
    )


def _hours(record: RunRecord) -> float:
    return record.time_s / HOUR
