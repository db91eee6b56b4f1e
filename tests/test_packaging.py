"""The pins agree wherever they stand, the top level is the agreed one, and every table row resolves."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from baselines import METHODS, MethodRow
from benchmarks import BENCHMARKS

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {
    "README.md", "REPRODUCE.md", "LICENSE", "CITATION.cff", "CONTRIBUTING.md", "Makefile", "environment.yml",
    "pyproject.toml", "constraints.txt", ".gitignore", ".gitattributes", ".ci", "clcr", "baselines", "benchmarks",
    "docs", "examples", "results", "tests",
}  # fmt: skip


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def bare(name: str) -> str:
    return re.split(r"[<>=\[ ]", name)[0].lower().replace("_", "-")


def test_conda_and_pip_pin_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = dict(line.split("==") for line in environment["dependencies"][-1]["pip"] if "==" in line)
    assert listed
    for name, version in listed.items():
        assert pins()[name] == version, name


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    known = {bare(name) for name in pins()}
    assert not [name for name in wanted if bare(name) not in known]


def test_conda_lists_every_core_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = {bare(line) for line in environment["dependencies"][-1]["pip"]}
    extras = project["optional-dependencies"]
    wanted = {bare(name) for name in project["dependencies"] + extras["language"] + extras["media"] + extras["figures"]}
    assert wanted <= listed


def test_the_top_level_is_the_agreed_one() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    assert {line.split("/")[0] for line in tracked.splitlines()} <= TOP_LEVEL


@pytest.mark.parametrize("row", METHODS.values(), ids=lambda row: row.name)
def test_every_method_row_resolves_with_its_variants(row: MethodRow) -> None:
    module, _, name = row.target.partition(":")
    method = getattr(importlib.import_module(module), name)
    if not row.fitted:
        assert tuple(method.VARIANTS) == row.every_variant
        for changes in method.VARIANTS.values():
            method.Config(**changes)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_row_resolves_and_has_a_script(name: str) -> None:
    assert importlib.import_module(BENCHMARKS[name]).SPEC.name == name
    script = ROOT / "benchmarks" / f"{name}.sh"
    assert script.stat().st_mode & 0o100, f"{script} cannot be executed"
    assert f" {name} " in script.read_text(encoding="utf-8")
