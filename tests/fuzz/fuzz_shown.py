"""Targets: what the report writes of hostile names, errors and notes. Markdown, csv, LaTeX, terminal, page and figures.

The oracle of a target is a reader of the format that knows what benign text would have given: as many rows and cells,
the same elements and commands, and no sign that a terminal obeys.
"""

from __future__ import annotations

import csv
import io
import json
import re
import xml.parsers.expat
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
from fuzz_files import put, seeded
from fuzz_material import Choices
from fuzz_oracle import Target
from synthetic_records import Sweep, write_records

from benchmarks import drawing, report
from benchmarks.report import latex, render, site, terminal
from benchmarks.report.layout import Cell, Section, Table

COMMANDS = frozenset(
    [
        "begin",
        "end",
        "toprule",
        "midrule",
        "bottomrule",
        "caption",
        "centering",
        "par",
        "smallskip",
        "footnotesize",
        "raggedright",
        "textbf",
        "parbox",
        "strut",
        "small",
        "scriptsize",
        "setlength",
        "tabcolsep",
        "addtocounter",
        "allowbreak",
        "textbackslash",
        "textasciitilde",
        "textasciicircum",
        "textless",
        "textgreater",
        "textbar",
        "pm",
        "times",
        "ldots",
        "dagger",
        "ddagger",
        "uparrow",
        "downarrow",
        "rightarrow",
        "cdot",
        "leq",
        "geq",
        "ss",
        "o",
        "O",
        "ae",
        "AE",
        "oe",
        "OE",
        "l",
        "L",
        "u",
        "r",
        "H",
        "v",
        "c",
    ]
)
SIGNS = frozenset("&%$#_{}`'^~=.\"\\-")  # behind a backslash: escapes, accents and the end of a row
SHAPE = (2, 3)


def tables(choices: Choices) -> tuple[Table, Table]:
    """A table with hostile texts in every place that a stranger's word can reach, and the same with plain ones."""
    rows, columns = SHAPE

    def made(text: Sequence[str]) -> Table:
        words = iter(text)
        title = next(words)
        cells = tuple(tuple(Cell(next(words)) for _ in range(columns)) for _ in range(rows))
        head = tuple(next(words) for _ in range(columns))
        section = Section(title, head, cells, (next(words),), (next(words),))
        frame = pd.DataFrame([[cell.text for cell in row] for row in cells], columns=["a", "b", "c"])
        return Table("main", "Table", ("intro",), {"real": (section,), "twin": ()}, frame)

    count = 1 + rows * columns + columns + 2
    return made([choices.text() + choices.text() for _ in range(count)]), made(["word"] * count)


def _clean(text: str) -> None:
    """Only what can be printed, and can be written as UTF-8."""
    bad = sorted({sign for sign in text if not sign.isprintable() and sign != "\n"})
    assert not bad, f"unprintable {bad!a}"
    text.encode("utf-8")


def feed_markdown(data: bytes, folder: Path) -> object:
    """Markdown keeps its blocks and cells, and holds no live markup."""
    hostile, benign = tables(Choices(data))
    text, expected = render.markdown(hostile), render.markdown(benign)
    _clean(text)
    assert len(text.split("\n")) == len(expected.split("\n"))
    for line, other in zip(text.split("\n"), expected.split("\n"), strict=True):
        assert _bars(line) == _bars(other), line
        for live in ("<", "`"):
            bare = re.sub(r"\\.", "", line)
            assert bare.count(live) == re.sub(r"\\.", "", other).count(live), line
        assert not re.search(r"(?<!\\)\]\(", line), line
    return put(folder / "main.md", text)


def _bars(line: str) -> int:
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))


def feed_csv(data: bytes, folder: Path) -> object:
    """csv keeps its rows and columns, and no cell is a formula."""
    hostile, _ = tables(Choices(data))
    text = render.csv(hostile)
    text.encode("utf-8")
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert [len(row) for row in found] == [SHAPE[1]] * (SHAPE[0] + 1)
    for row in found[1:]:
        assert not any(re.match(r"[=+\-@\t\r]", cell) and not _is_number(cell) for cell in row), row
        assert not any("\x1b" in cell for cell in row), row
    return put(folder / "main.csv", text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def feed_latex(data: bytes, folder: Path) -> object:
    """LaTeX holds the report's own commands alone, in pairs of braces, and plain letters."""
    hostile, benign = tables(Choices(data))
    text, expected = latex.latex(hostile), latex.latex(benign)
    _clean(text)
    assert text.isascii() or all(sign.isprintable() for sign in text.replace("\n", ""))
    check_latex(text)
    for command in (r"\toprule", r"\caption", r"\begin{table}", r"\end{table}"):
        assert text.count(command) >= expected.count(command)
    return put(folder / "main.tex", text)


def check_latex(text: str) -> None:
    """Every command is one of ours, every brace has its partner, every comment is ours."""
    assert "^^" not in text, "a character by its number"
    depth = 0
    for line in text.split("\n"):
        body = line if not line.startswith("% ") else ""
        for name, sign in re.findall(r"\\(?:([a-zA-Z]+)|(.))", body):
            assert not name or name in COMMANDS, rf"\{name}"
            assert not sign or sign in SIGNS, rf"\{sign!r}"
        bare = re.sub(r"\\.", "", body)
        assert "%" not in bare.rstrip("%"), line
        assert "#" not in bare
        assert "_" not in bare
        assert "~" not in bare
        depth += bare.count("{") - bare.count("}")
    assert depth == 0, "braces"


def feed_terminal_section(data: bytes, folder: Path) -> object:
    """A section on a terminal of any width holds nothing that it would obey, but the colours that are ours."""
    from rich.console import Console

    del folder
    choices = Choices(data)
    width = choices.pick((80, 20, 40, 200, 1))
    hostile, _ = tables(choices)
    out = io.StringIO()
    screen = Console(file=out, width=width, force_terminal=False, highlight=False, markup=False)
    for part in terminal.section(hostile.parts["real"][0], "Table: ", width):
        screen.print(part)
    _clean(out.getvalue())
    return out


class _Elements(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[f"{tag} {' '.join(sorted(name for name, _ in attrs))}"] += 1

    def handle_comment(self, data: str) -> None:
        self.found["comment"] += 1


def elements(page: str) -> Counter[str]:
    """How often each element stands in a page."""
    parser = _Elements()
    parser.feed(page)
    parser.close()
    return parser.found


@cache
def _plain_elements() -> Counter[str]:
    return elements(site.page(site.embedded({"a": "word"}), site.embedded([])))


def feed_page(data: bytes, folder: Path) -> object:
    """The page keeps its elements whatever the records say, and its data comes back as it was."""
    choices = Choices(data)
    told = {choices.text(): [choices.text(), {"error": choices.text()}] for _ in range(4)}
    text = site.page(site.embedded(told), site.embedded([choices.text()]))
    assert elements(text) == _plain_elements()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    assert json.loads(found[1]) == told
    assert text.count("</script") == 3
    text.encode("utf-8")
    return put(folder / "index.html", text)


def feed_figure(data: bytes, folder: Path) -> object:
    """A figure with hostile names is drawn, and its SVG is a picture alone: no script, no handler, no reference out."""
    choices = Choices(data)
    with drawing.style():
        figure = drawing.page(1.5, 3.0)
        axes = figure.subplots()
        drawing.rows(axes, [choices.text(), choices.text()])
        axes.legend(handles=drawing.keys({choices.text(): drawing.look(choices.text())}))
        axes.set_title(drawing.name(choices.text()))
        drawing.title(figure, drawing.name(choices.text()), (drawing.name(choices.text()),))
        content = drawing.save(figure, "svg")
    check_svg(content)
    return put(folder / "figure.svg", content)


DRAWN = frozenset(
    [
        "svg",
        "metadata",
        "RDF",
        "Work",
        "type",
        "format",
        "creator",
        "Agent",
        "title",
        "date",
        "defs",
        "style",
        "g",
        "path",
        "use",
        "rect",
        "clipPath",
        "image",
        "text",
        "tspan",
        "linearGradient",
        "stop",
        "symbol",
        "marker",
        "pattern",
        "mask",
    ]
)


def check_svg(content: bytes) -> None:
    """Only elements that draw, no handlers of events, references to the file's own parts alone, no entities."""
    parser = xml.parsers.expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        assert name.rpartition(":")[2] in DRAWN, name
        for key, value in attributes.items():
            local = key.rpartition(":")[2].lower()
            assert not local.startswith("on"), key
            assert local != "href" or value.startswith(("#", "data:image/png;base64,")), value
            assert "javascript" not in value.lower(), value
            assert "url(" not in value or "url(#" in value, value

    def entity(*_: object) -> None:
        raise AssertionError("an entity is declared")

    parser.StartElementHandler, parser.EntityDeclHandler = start, entity
    parser.Parse(content, True)


def feed_report(data: bytes, folder: Path) -> object:
    """Tables and page of records whose methods, variants, errors and provenance are hostile, made by the report."""
    choices = Choices(data)
    hostile = choices.text() or "x"
    good = Sweep(seeds=(0, 1, 2), levels={"clcr": 0.7, "late_fusion": 0.6}).records()
    sweep = Sweep(seeds=(0, 1, 2), levels={"misa": 0.65}, variants={"no_hierarchy": 0.5}).records()
    names = {"misa": hostile, "no_hierarchy": choices.text() or "x"}
    keys = [
        replace(r.key, method=names.get(r.key.method, "clcr"), variant=names.get(r.key.variant, "full")) for r in sweep
    ]
    bad = [replace(record, key=key) for record, key in zip(sweep, keys, strict=True)]
    told = {"label": choices.text(), "citation": choices.text(), "url": choices.text()}
    bad = [
        replace(record, provenance={**record.provenance, "method": told, "device": choices.text()}) for record in bad
    ]
    failed = replace(bad[0], key=replace(bad[0].key, seed=7), status="failed", error=choices.text(), metrics={})
    write_records(folder, [*good, *bad, failed])
    built = report.build(folder, choices.pick(("tables", "site")), partial=True)
    for path in built.files:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            assert elements(text) == _plain_elements()
        else:
            _clean(text)
            if path.suffix == ".tex":
                check_latex(text)
    return built


TARGETS = (
    Target("markdown", feed_markdown, seeded(), named=False),
    Target("csv", feed_csv, seeded(), named=False),
    Target("latex", feed_latex, seeded(), named=False),
    Target("terminal_section", feed_terminal_section, seeded(), named=False),
    Target("page", feed_page, seeded(), named=False),
    Target("report", feed_report, seeded(), named=False),
    Target("figure", feed_figure, seeded(), named=False),
)
