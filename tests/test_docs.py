"""What the documents tell a reader to type works as written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cli import main

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "REPRODUCE.md", "CONTRIBUTING.md")


def blocks(language: str) -> list[str]:
    return [
        block
        for name in DOCUMENTS
        for block in re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    ]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def commands(program: str) -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return sorted({line for line in lines if re.search(rf"(^|/| ){program} ", line + " ")})


@pytest.mark.parametrize("line", commands("clcr"))
def test_clcr_lines_name_what_exists(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A run is planned instead of executed; what only reads is executed."""
    words = line[line.index("clcr ") :].split()[1:]
    assert "report" in words or words
    if words[0] == "run":
        words = ["plan", *[w for i, w in enumerate(words[1:]) if "--workers" not in (w, words[i])]]
    if words[0] in ("plan", "list", "status"):
        assert main(words) == 0, capsys.readouterr().err
    else:
        with pytest.raises(SystemExit) as done:
            main([words[0], "--help"])
        assert done.value.code == 0


@pytest.mark.parametrize("line", commands("make"))
def test_make_lines_name_targets(line: str) -> None:
    targets = [word for word in line[line.index("make ") :].split()[1:] if "=" not in word]
    done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["README.md", "REPRODUCE.md"])
def test_result_tables_in_the_documents_are_the_generated_ones(name: str) -> None:
    rows = re.findall(
        r"^\| (?:CLCR|Late fusion|OGM-GE|MISA|Unimodal|Linear)\b.*±.*\|$", (ROOT / name).read_text(), re.M
    )
    assert rows
    made = (ROOT / "results/tables/main.md").read_text(encoding="utf-8").splitlines()
    assert set(rows) <= set(made)


def test_documents_link_to_files_that_exist() -> None:
    for name in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{name}: {target}"
