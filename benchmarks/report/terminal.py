"""Tables for a terminal of any width: columns that do not fit go on below, sentences are wrapped, nothing is cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.errors import plain
from benchmarks.report.layout import Section, blocks, numeric

WORDS = 28  # letters of a column of words that is wrapped beyond
READABLE = 100  # letters in a line of sentences
GAP = 2  # letters between two columns


def section(shown: Section, title: str = "", width: int = 80) -> Iterator[RenderableType]:
    """What to print for a terminal of ``width`` letters: title, table in as many blocks as it takes, then its notes."""
    yield _text(f"{title}{shown.title}", "bold")
    if shown.rows:
        widths = [_width(shown, i, right) for i, right in enumerate(numeric(shown))]
        found = blocks(widths, width, GAP)
        for number, block in enumerate(found, 1):
            if len(found) > 1:
                yield Text(f"columns {number} of {len(found)}", style="dim")
            yield _table(shown, block, widths)
    said = RichTable.grid(padding=(0, 1, 0, 0))
    said.width = min(width, READABLE)
    for line in shown.facts:
        said.add_row(" ", _text(line, "dim"))
    for line in shown.notes:
        said.add_row("•", _text(line))
    yield said
    yield Text()


def _text(text: str, style: str = "") -> Text:
    """A text in a style, without what a terminal would obey."""
    return Text(plain(" ".join(text.split())), style=style, overflow="fold")


def _width(shown: Section, column: int, right: bool) -> int:
    """Letters that a column takes: its longest value, or what a column of words is wrapped to."""
    cells = max(_text(row[column].text).cell_len for row in shown.rows)
    words = max((Text(word).cell_len for word in shown.columns[column].split()), default=1)
    return max(cells if right else min(cells, WORDS), words)


def _table(shown: Section, block: list[int], widths: list[int]) -> RichTable:
    drawn = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    right = numeric(shown)
    for i in block:
        justify: Literal["right", "left"] = "right" if right[i] else "left"
        drawn.add_column(_text(shown.columns[i]), justify=justify, width=widths[i], overflow="fold")
    for row in shown.rows:
        drawn.add_row(*(_text(row[i].text, "bold" if row[i].bold else "") for i in block))
    return drawn
