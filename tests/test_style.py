"""The house style as far as a machine can see it: linters, types, lengths, repeated code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(p for package in ("clcr", "baselines", "benchmarks") for p in (ROOT / package).rglob("*.py"))
FUNCTIONS = [
    (path, node)
    for path in SOURCES
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    run("ruff", "format", "--check", ".")


def test_mypy_strict_finds_nothing() -> None:
    run("mypy")


def test_functions_and_files_are_short() -> None:
    long = [f"{p}:{f.lineno} {f.name}" for p, f in FUNCTIONS if (f.end_lineno or 0) - f.lineno >= 60]
    assert not long
    assert not [p for p in SOURCES if len(p.read_text(encoding="utf-8").splitlines()) >= 500]


def test_public_things_say_what_they_are() -> None:
    silent = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            silent.append(str(path))
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                silent.append(f"{path}:{node.lineno}")
    assert not silent


def test_at_most_three_percent_of_the_lines_stand_twice() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from pylint.checkers.symilar import Run; import sys; Run(sys.argv[1:])",
         "--duplicates=6", "--ignore-imports", "--ignore-docstrings", *map(str, SOURCES)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"TOTAL lines=(\d+) duplicates=(\d+) percent=([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[3]) <= 3.0, done.stdout[-4000:]
