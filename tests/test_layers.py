"""The floors of the house: a file imports only from lower floors, late imports included; some files load no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("clcr", "baselines", "benchmarks")

# Longest prefix wins. REPORT is the wing: it sees floors 0 and 1, the task specs and the table of methods.
REPORT = "benchmarks.report"
FLOORS = {
    "benchmarks": 0,
    "baselines": 0,
    "clcr": 0,
    "benchmarks.errors": 0,
    "benchmarks.record": 0,
    "benchmarks.metrics": 0,
    "benchmarks.analysed": 1,
    "benchmarks.archive": 1,
    "benchmarks.csd": 1,
    "benchmarks.curves": 1,
    "benchmarks.safe_pickle": 1,
    "benchmarks.sdk": 1,
    "benchmarks.arrange": 1,
    "benchmarks.drawing": 1,
    "benchmarks.engine": 1,
    "benchmarks.lists": 1,
    "benchmarks.media": 1,
    "benchmarks.methods": 1,
    "benchmarks.plain_yaml": 1,
    "benchmarks.pool": 1,
    "benchmarks.sources": 1,
    "benchmarks.unpack": 1,
    "benchmarks.published": 1,
    "benchmarks.studies": 1,
    "benchmarks.splits": 1,
    "clcr.layers": 1,
    "clcr.api": 1,
    "clcr.config": 1,
    "benchmarks.spec": 1,
    "benchmarks.prepared": 1,
    "benchmarks.twin": 1,
    "clcr.hierarchy": 2,
    "clcr.attention": 1,
    "clcr.intraced": 2,
    "clcr.intercad": 2,
    "clcr.recurrence": 2,
    "clcr.regularizers": 2,
    "benchmarks.tasks": 2,
    "clcr.method": 3,
    "baselines.": 3,
    "benchmarks.catalog": 3,
    "benchmarks.fetch": 3,
    "benchmarks.augment": 3,
    "benchmarks.checkpoint": 3,
    "benchmarks.storage": 3,
    "benchmarks.data": 3,
    "benchmarks.encoders": 3,
    "benchmarks.language": 3,
    "benchmarks.word_pieces": 3,
    "benchmarks.runner": 4,
    REPORT: 4,
    "benchmarks.analyses": 5,
    "benchmarks.analysing": 5,
    "benchmarks.benching": 5,
    "benchmarks.console": 5,
    "benchmarks.listing": 5,
    "benchmarks.planning": 5,
    "benchmarks.preparation": 5,
    "benchmarks.fetching": 5,
    "benchmarks.checking": 5,
    "benchmarks.submission": 5,
    "benchmarks.sweeping": 5,
    "benchmarks.cli": 5,
}
# Inside these, files of the same floor may build on each other (a cycle is refused below).
SIBLINGS = ("clcr.", "benchmarks.runner", REPORT, "benchmarks.tasks", "benchmarks.", "baselines.")
NO_TORCH = (
    *("benchmarks.spec", "benchmarks.prepared", "benchmarks.twin", "benchmarks.catalog", "benchmarks.metrics"),
    *("benchmarks.record", "benchmarks.tasks", "baselines.linear", "clcr.config", REPORT, "benchmarks.cli"),
)


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> set[str]:
    """Every project module that a file names in an import statement, at the top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            hit = name if name in MODULES else name.rpartition(".")[0]
            if hit in MODULES:
                found.add(hit)
    return found - {module}


def floor(module: str) -> int:
    prefixes = [p for p in FLOORS if module == p or module.startswith(p if p.endswith(".") else p + ".")]
    assert prefixes, f"{module} stands on no floor: name it in FLOORS"
    return FLOORS[max(prefixes, key=len)]


def is_sibling(module: str, other: str) -> bool:
    return any(module.startswith(s) and other.startswith(s) for s in SIBLINGS)


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_only_from_lower_floors(module: str) -> None:
    for other in imports(module):
        below = floor(other) < floor(module)
        assert below or (floor(other) == floor(module) and is_sibling(module, other)), f"{module} imports {other}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("clcr")])
def test_the_method_stands_alone(module: str) -> None:
    assert all(other.split(".")[0] == "clcr" for other in imports(module))


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("baselines.")])
def test_baselines_know_only_the_method_package(module: str) -> None:
    assert all(other.split(".")[0] == "clcr" for other in imports(module))


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(REPORT)])
def test_the_report_wing_sees_floors_0_and_1_and_task_specs(module: str) -> None:
    for other in imports(module):
        allowed = floor(other) <= 1 or other.startswith((REPORT, "benchmarks.tasks"))
        assert allowed, f"{module} imports {other}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("benchmarks.runner")])
def test_the_runner_reaches_methods_and_tasks_through_the_tables_only(module: str) -> None:
    for other in imports(module):
        assert not other.startswith(("baselines.", "benchmarks.tasks.", "clcr.method")), f"{module} imports {other}"


def test_there_are_no_import_cycles() -> None:
    graph = {module: imports(module) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_tables_specs_and_reports_load_no_torch() -> None:
    names = [m for m in MODULES if m.startswith(NO_TORCH) or m in PACKAGES]
    code = f"import importlib, sys; [importlib.import_module(n) for n in {names}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
