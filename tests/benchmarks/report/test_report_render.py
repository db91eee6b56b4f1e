"""Tables as text: escapes, equal bytes, and LaTeX that a TeX engine accepts."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from benchmarks.report.layout import Cell, Section, Table, number, ranges, shown, signed
from benchmarks.report.render import csv, escape_latex, escape_markdown, latex, markdown, terminal

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
    assert r"\begin{tabular}{lrl}" in latex(TABLE)


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


def test_the_terminal_shows_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(terminal(SECTION))
    assert "[second]" in console.export_text()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX engine: install pdflatex to compile the tables")
def test_latex_compiles(tmp_path: Path) -> None:
    (tmp_path / "nasty.tex").write_text(latex(TABLE), encoding="utf-8")
    main = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{nasty}\end{document}"
    (tmp_path / "main.tex").write_text(main, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")


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
