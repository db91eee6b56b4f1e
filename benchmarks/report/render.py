"""Tables as Markdown, csv, LaTeX (booktabs) and for the terminal. Equal tables give equal bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pandas as pd
from rich.markup import escape as escape_markup
from rich.table import Table as RichTable

from benchmarks.report.layout import DATA, Cell, Section, Table

MADE = "Made by `clcr report` from results/records; edits are overwritten."
TWIN_WARNING = "Synthetic twins: data made by the suite. Scores say nothing about the real data sets."

MARKDOWN = {character: f"\\{character}" for character in "\\`*_{}[]|~$#"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "`": r"\`{}",
    "±": r"$\pm$",
    "−": "$-$",
    "—": "---",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "·": r"$\cdot$",
}


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
        lines = [head, ["---:" if right else "---" for right in _numeric(section)]]
        lines += [[_markdown_cell(cell) for cell in row] for row in section.rows]
        yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if section.notes:
        yield "\n".join(f"- {escape_markdown(line)}" for line in section.notes)


def _numeric(section: Section) -> list[bool]:
    """Which columns hold numbers and are set flush right."""
    return [all(row[i].text[:1] in set("0123456789+−—<>") for row in section.rows) for i in range(len(section.columns))]


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return f"**{text}**" if cell.bold else text


def escape_markdown(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line."""
    return _mapped(MARKDOWN)(text)


def latex(table: Table) -> str:
    """A file to \\input: one table environment per section; the preamble needs booktabs and graphicx."""
    lines = [f"% {table.title}. {MADE} Needs \\usepackage{{booktabs,graphicx}}."]
    for data, title in DATA.items():
        lines += ["", f"% {title}"]
        if not table.parts.get(data):
            lines.append(f"% {table.empty[data]}")
        for section in table.parts.get(data, ()):
            lines += _latex_section(section)
    return "\n".join(lines) + "\n"


def _latex_section(section: Section) -> list[str]:
    facts = " ".join(escape_latex(line) for line in section.facts)
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\small",
        rf"\caption{{{escape_latex(section.title)}. {facts}}}",
    ]
    if section.rows:
        lines += [
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{''.join('r' if right else 'l' for right in _numeric(section))}}}",
            r"\toprule",
            " & ".join(escape_latex(name) for name in section.columns) + r" \\",
            r"\midrule",
            *(" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in section.rows),
            r"\bottomrule",
            r"\end{tabular}}",
        ]
    lines += [rf"\par\smallskip\footnotesize {escape_latex(note)}" for note in section.notes]
    return [*lines, r"\end{table}"]


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.bold else text


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is, on one line."""
    return _mapped(LATEX)(text)


def _mapped(table: dict[str, str]) -> Callable[[str], str]:
    pattern = re.compile("|".join(re.escape(character) for character in table))
    return lambda text: pattern.sub(lambda found: table[found[0]], " ".join(text.split()))


def csv(table: Table) -> str:
    """The numbers behind the table, one row each, unrounded to ten digits; column ``data`` is real or twin."""
    frame: pd.DataFrame = table.frame
    return frame.to_csv(index=False, float_format="%.10g", lineterminator="\n") if len(frame.columns) else "data\n"


def terminal(section: Section, title: str = "") -> RichTable:
    """A section for ``rich.console.Console.print``; what it is and what can be concluded stand below it."""
    said = "\n".join((" ".join(section.facts), *section.notes))
    shown = RichTable(
        title=escape_markup(f"{title}{section.title}"), caption=escape_markup(said), caption_justify="left"
    )
    for name, right in zip(section.columns, _numeric(section), strict=True):
        shown.add_column(escape_markup(name), justify="right" if right else "left")
    for row in section.rows:
        shown.add_row(*(f"[bold]{escape_markup(c.text)}[/bold]" if c.bold else escape_markup(c.text) for c in row))
    return shown


RENDERERS: dict[str, Callable[[Table], str]] = {"md": markdown, "csv": csv, "tex": latex}
