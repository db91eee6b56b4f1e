"""Tables as Markdown and csv, and the list of all formats of a file. Equal tables give equal bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from benchmarks.errors import plain
from benchmarks.report.latex import latex
from benchmarks.report.layout import DATA, MADE, Cell, Section, Table, mapped, numeric

TWIN_WARNING = "Synthetic twins: data made by the suite. Scores say nothing about the real data sets."

FORMULA = ("=", "+", "-", "@")

MARKDOWN = {character: f"\\{character}" for character in "\\`*_{}[]|~$#"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(table: Table) -> str:
    """The whole file: real and synthetic data under headings of their own."""
    return "\n\n".join(_markdown_blocks(table)) + "\n"


def _markdown_blocks(table: Table) -> Iterator[str]:
    yield f"# {escape_markdown(table.title)}"
    yield f"<!-- {MADE} -->"
    yield "\n".join(f"- {escape_markdown(line)}" for line in table.intro)
    for data, title in DATA.items():
        yield f"## {title}"
        if not table.parts.get(data):
            yield table.empty[data]
            continue
        if data == "twin":
            yield f"**{TWIN_WARNING}**"
        for section in table.parts[data]:
            yield from _markdown_section(section)


def _markdown_section(section: Section) -> Iterator[str]:
    yield f"### {escape_markdown(section.title)}"
    if section.facts:
        yield " ".join(escape_markdown(line) for line in section.facts)
    if section.rows:
        head = [escape_markdown(title) for title in section.columns]
        lines = [head, ["---:" if right else "---" for right in numeric(section)]]
        lines += [[_markdown_cell(cell) for cell in row] for row in section.rows]
        yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if section.notes:
        yield "\n".join(f"- {escape_markdown(line)}" for line in section.notes)


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return f"**{text}**" if cell.bold else text


def escape_markdown(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line."""
    return mapped(MARKDOWN)(text)


def csv(table: Table) -> str:
    """The numbers behind the table, one row each, unrounded to ten digits; column ``data`` is real or twin."""
    frame: pd.DataFrame = table.frame.map(_csv_cell)
    return frame.to_csv(index=False, float_format="%.10g", lineterminator="\n") if len(frame.columns) else "data\n"


def _csv_cell(value: object) -> object:
    """A text on one line; one that a spreadsheet would take for a formula gets an apostrophe before it, as on the page.
    Everything else as it is."""
    if not isinstance(value, str):
        return value
    text = plain(" ".join(value.split()))
    return f"'{text}" if text.startswith(FORMULA) else text


RENDERERS: dict[str, Callable[[Table], str]] = {"md": markdown, "csv": csv, "tex": latex}
