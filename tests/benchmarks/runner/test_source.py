"""The source digest changes with what a method does and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from baselines import METHODS
from benchmarks.runner.source import ROOT, closure, source_digest

METHOD = '''"""A method."""
from __future__ import annotations

import math

from clcr.layer import scale
from clcr import constants


def forward(x: float) -> float:
    """Double it."""
    return scale(x) * constants.FACTOR + math.pi  # why
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in ("clcr", "baselines"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "baselines/one.py").write_text(METHOD)
    (tmp_path / "baselines/other.py").write_text("FACTOR = 1\n")
    (tmp_path / "clcr/layer.py").write_text("def scale(x):\n    from clcr.deep import depth\n    return x * depth()\n")
    (tmp_path / "clcr/deep.py").write_text("def depth():\n    return 1\n")
    (tmp_path / "clcr/constants.py").write_text("FACTOR = 2\n")
    return tmp_path


def digest_of_copy(tree: Path, copy: Path, path: str, old: str, new: str) -> str:
    """The digest after one edit, in another folder (sources are read once per folder)."""
    for source in tree.rglob("*.py"):
        target = copy / source.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    text = (copy / path).read_text()
    assert old in text
    (copy / path).write_text(text.replace(old, new))
    return source_digest("baselines.one", copy)


def test_closure_follows_local_imports_late_ones_included(tree: Path) -> None:
    assert closure("baselines.one", tree) == {"baselines.one", "clcr.layer", "clcr.deep", "clcr.constants"}


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("baselines/one.py", "  # why", "  # because"),
        ("baselines/one.py", '"""Double it."""', '"""Twice."""'),
        ("baselines/one.py", '"""A method."""\n', ""),
        ("baselines/one.py", "scale(x) * constants", "scale( x )  *  constants"),
        ("baselines/other.py", "FACTOR = 1", "FACTOR = 3"),
        ("baselines/__init__.py", "", "ROWS = 1\n"),
    ],
)
def test_what_does_not_count(tree: Path, tmp_path: Path, path: str, old: str, new: str) -> None:
    assert digest_of_copy(tree, tmp_path / "copy", path, old, new) == source_digest("baselines.one", tree)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("baselines/one.py", "math.pi", "math.e"),
        ("clcr/constants.py", "2", "3"),
        ("clcr/deep.py", "return 1", "return -1"),
        ("clcr/layer.py", "x * depth()", "x / depth()"),
    ],
)
def test_what_counts(tree: Path, tmp_path: Path, path: str, old: str, new: str) -> None:
    assert digest_of_copy(tree, tmp_path / "copy", path, old, new) != source_digest("baselines.one", tree)


def test_every_method_has_a_digest_without_being_imported() -> None:
    modules = sorted({row.target.partition(":")[0] for row in METHODS.values()})
    digests = {module: source_digest(module) for module in modules}
    assert len(set(digests.values())) == len(modules)
    assert "clcr.api" in closure("baselines.late_fusion")
    assert "baselines.misa" not in closure("baselines.late_fusion")


def test_the_digest_needs_no_torch() -> None:
    code = "import sys; sys.path.insert(0, '.'); from benchmarks.runner.source import source_digest;"
    code += " source_digest('baselines.linear'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
