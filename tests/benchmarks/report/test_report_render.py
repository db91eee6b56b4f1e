"""Tables as text: escapes, equal bytes, and LaTeX that a TeX engine accepts."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from benchmarks.report.latex import escape_latex, latex
from benchmarks.report.layout import Cell, Section, Table, blocks, number, ranges, shown, signed
from benchmarks.report.render import csv, escape_markdown, markdown
from benchmarks.report.terminal import section as on_terminal

NASTY = r"50%_of #1 & <b>x|y</b> $a^2~{\o} [1] *bold* `code` \\ ± −1 “é"
SECTION = Section(
    f"Title {NASTY}",
    ("Method", "Accuracy ↑ (%)", "Verdict"),
    (
        (Cell(NASTY), Cell("71.20 ± 0.80 (5) †", bold=True), Cell("not run")),
        (Cell("[second]\nline"), Cell("−0.10"), Cell("—")),
    ),
    (f"Facts {NASTY}.",),
    (f"Notes {NASTY}.",),
)
TABLE = Table(
    "nasty",
    f"Nasty {NASTY}",
    (f"Intro {NASTY}.",),
    {"real": (SECTION,), "twin": ()},
    pd.DataFrame([{"data": "real", "label": NASTY, "mean": 1 / 3, "sd": None}]),
)


def test_markdown_cannot_be_broken_by_a_name() -> None:
    text = markdown(TABLE)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert all(len(row.replace(r"\|", "").split("|")) == 5 for row in rows)
    assert "<b>" not in text
    assert "&lt;b&gt;x\\|y&lt;/b&gt;" in text
    assert "**71.20 ± 0.80 (5) †**" in text
    assert r"\[second\] line" in text


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("a_b", r"a\_b"),
        ("*x*", r"\*x\*"),
        ("a|b", r"a\|b"),
        ("<i>&", "&lt;i&gt;&amp;"),
        ("$x$", r"\$x\$"),
        ("# 1", r"\# 1"),
    ],
)
def test_markdown_escapes(raw: str, escaped: str) -> None:
    assert escape_markdown(raw) == escaped


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("50%_of", r"50\%\_of"),
        ("a & b #1 $", r"a \& b \#1 \$"),
        ("\\{~^", r"\textbackslash{}\{\textasciitilde{}\textasciicircum{}"),
        ("< .001", r"\textless{} .001"),
        ("±−†", r"$\pm$$-$$^\dagger$"),
    ],
)
def test_latex_escapes(raw: str, escaped: str) -> None:
    assert escape_latex(raw) == escaped


def test_columns_of_numbers_are_set_flush_right() -> None:
    assert "| --- | ---: | --- |" in markdown(TABLE)
    assert r"\begin{tabular}{@{}lrl@{}}" in latex(TABLE)


def test_real_and_synthetic_stand_under_their_own_headings() -> None:
    text = markdown(Table("t", "T", (), {"real": (SECTION,), "twin": (SECTION,)}))
    assert text.index("## Real data") < text.index("### Title") < text.index("## Synthetic twins")
    assert text.count("### Title") == 2
    assert "No runs on synthetic twins." in markdown(TABLE)


def test_csv_reads_back_unrounded() -> None:
    frame = pd.read_csv(io.StringIO(csv(TABLE)))
    assert frame.loc[0, "label"] == NASTY
    assert frame.loc[0, "mean"] == pytest.approx(1 / 3, rel=1e-9)
    assert pd.isna(frame.loc[0, "sd"])
    assert csv(Table("t", "T", (), {})) == "data\n"


def on_screen(section: Section, width: int) -> str:
    screen = Console(file=io.StringIO(), width=width, record=True, highlight=False)
    for part in on_terminal(section, "Main: ", width):
        screen.print(part)
    return screen.export_text()


def test_the_terminal_shows_names_as_they_are() -> None:
    assert "[second]" in on_screen(SECTION, 200)


WIDE = Section(
    "Wide",
    ("Method", *(f"Accuracy of set {i} ↑ (%)" for i in range(9)), "Conclusion"),
    tuple(
        (Cell(f"Unimodal (set {m})"), *(Cell(f"{10 * m + i}.25 ± 10.00 (5) ‡", bold=i == 3) for i in range(9)),
         Cell("undecided, as the power was far too low to conclude on anything at all"))
        for m in range(3)
    ),
    ("What it shows. " * 20,),
    ("What can be concluded. " * 20,),
)  # fmt: skip


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_shows_every_value_whole_and_no_line_is_too_long(width: int) -> None:
    text = on_screen(WIDE, width)
    assert max(map(len, text.splitlines())) <= width
    for row in WIDE.rows:
        assert all(cell.text in text for cell in row[:-1])
    assert text.count("undecided") == 3
    assert "…" not in text
    assert text.index("Main: Wide") < text.index("Method") < text.index("What it shows") < text.index("What can")
    assert ("columns 1 of" in text) == (width < 200 or "columns 2 of" in text)
    assert text.count("Method") == max(1, text.count("columns "))


def test_blocks_hold_every_column_once_and_the_first_one_in_each() -> None:
    assert blocks([10, 5, 5], 24, 2) == [[0, 1, 2]]
    assert blocks([10, 5, 5, 5, 5], 30, 2) == [[0, 1, 2], [0, 3, 4]]  # even, not 2 + 2 + 1
    assert blocks([10, 50, 5], 30, 2) == [[0, 1], [0, 2]]
    assert blocks([10], 30, 2) == [[0]]


def compiled(folder: Path, names: Sequence[str]) -> str:
    """What pdflatex says of an article that needs booktabs alone and takes these files in; it must not stop."""
    body = r"\clearpage".join(rf"\input{{{name}}}" for name in names)
    main = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    (folder / "article.tex").write_text(main, encoding="utf-8")
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "article.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")
    return (folder / "article.log").read_text(encoding="utf-8", errors="replace")


def too_wide(log: str) -> list[str]:
    """Boxes that stick out by more than two points, and floats taller than a page."""
    over = [line for line in re.findall(r"Overfull \\hbox \((.+?)pt too wide\)", log) if float(line) > 2]
    return over + re.findall(r"Float too large for page by .*", log)


NEEDS_TEX = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX engine: install pdflatex")
ROOT = Path(__file__).resolve().parents[3]
HOSTILE = (
    r"\input{/etc/passwd}",
    r"\write18{touch harm}\immediate\openout",
    "}" * 9 + "{" * 9,
    "".join(map(chr, range(32, 127))),
    "^^5cinput{/etc/passwd}",
    "a" * 300,
    "many words in one name " * 12,
    "%comment $x_1^2$ #1 ~ & \\\\ [x]",
    "Ångström Łódź Çа 中文 🙂 \u202e \x00\x07 ﬁ ª ß “q” … →",
    "",
)


@NEEDS_TEX
def test_latex_compiles(tmp_path: Path) -> None:
    (tmp_path / "nasty.tex").write_text(latex(TABLE), encoding="utf-8")
    (tmp_path / "wide.tex").write_text(latex(Table("w", "W", (), {"real": (WIDE,)})), encoding="utf-8")
    assert not too_wide(compiled(tmp_path, ["nasty", "wide"]))


@NEEDS_TEX
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_is_set_and_never_obeyed(tmp_path: Path, name: str) -> None:
    rows = tuple((Cell(name), Cell("0.10 ± 0.01 (5)", bold=True), Cell(name)) for _ in range(3))
    section = Section(name or "x", ("Method", "MAE", name), rows, (name,), (name,))
    text = latex(Table("t", name, (name,), {"real": (section,)}))
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    log = compiled(tmp_path, ["t"])
    assert "passwd" not in "".join(re.findall(r"\([^()]*", log))  # TeX names each file that it opens
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "article.aux",
        "article.log",
        "article.pdf",
        "article.tex",
        "t.tex",
    ]


@NEEDS_TEX
def test_the_committed_tables_compile_with_booktabs_alone_and_fit_the_page(tmp_path: Path) -> None:
    paths = sorted((ROOT / "results" / "tables").glob("*.tex"))
    assert len(paths) >= 5
    for path in paths:
        shutil.copy(path, tmp_path)
        assert not too_wide(compiled(tmp_path, [path.stem])), path.name


def test_long_tables_go_on_under_the_same_number() -> None:
    rows = tuple((Cell(f"m{i}"), Cell(f"{i}.5")) for i in range(200))
    text = latex(Table("t", "T", (), {"real": (Section("Long", ("Method", "MAE"), rows),)}))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") > 1
    assert text.count("(continued)") == text.count(r"\addtocounter{table}{-1}") == text.count(r"\begin{table}") - 1
    assert all(f"m{i} & {i}.5" in text for i in range(200))


def test_latex_is_balanced_and_escaped_without_an_engine() -> None:
    text = latex(TABLE)
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1
    rows = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert [row.count(" & ") for row in rows] == [2, 2]
    assert all(row.endswith(r"\\") for row in rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(-0.0004, 3), "0.000"),
        (number(-1.5, 1), "−1.5"),
        (number(float("nan"), 2), "—"),
        (shown("accuracy", 0.75414), "75.41"),
        (shown("mae", -0.0125), "−0.013"),
        (signed("accuracy", 0.012), "+1.20"),
        (signed("accuracy", -0.000001), "0.00"),
        (signed("mae", float("inf")), "—"),
        (ranges([0, 1, 2, 5, 7, 8]), "0-2,5,7-8"),
        (ranges([]), "none"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text == expected
