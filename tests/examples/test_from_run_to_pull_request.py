"""The whole way of docs/submit.md, with the example package: run, report, submit, tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from installing import install

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


def clcr(words: Sequence[str], path: Path | None, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CLCR_CACHE": str(cache), "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-m", "benchmarks.cli", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def as_if_committed(folder: Path) -> None:
    """These tests also run on a checkout with changes, whose records say so."""
    for path in (folder / "records").glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            assert line["provenance"]["method"]["dirty"] is False
            line["provenance"] |= {"dirty": False, "commit": line["provenance"]["commit"] or "0" * 40}
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.mark.slow
def test_another_packages_method_goes_from_its_repository_into_the_tables(tmp_path: Path) -> None:
    package, out, into = install("lmf", tmp_path / "repository"), tmp_path / "out", tmp_path / "into"
    for part, suffix in (("records", "jsonl"), ("predictions", "npz"), ("curves", "jsonl")):
        (into / part).mkdir(parents=True)
        (into / part / f"crema_d.{suffix}").write_bytes((RESULTS / part / f"crema_d.{suffix}").read_bytes())
    sweep = ["--benchmark", "crema_d", "--method", "lmf", "--data", "twin", "--seeds", "0-9", "--workers", "1"]
    cache = tmp_path / "cache"

    absent = clcr(["run", *sweep, "--out", str(out)], None, cache)
    assert (absent.returncode, "unknown method 'lmf'" in absent.stderr) == (2, True)
    done = clcr(["run", *sweep, "--out", str(out), "--json"], package, cache)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 10
    again = clcr(["status", "--out", str(out), "--json"], package, cache)
    assert json.loads(again.stdout)["done"] == 10
    assert clcr(["report", "--out", str(out)], package, cache).returncode == 0
    as_if_committed(out)

    told = clcr(["submit", str(out), "--into", str(into)], None, cache)
    assert told.returncode == 0, told.stderr
    assert "crema_d.paper.twin.tiny/lmf/full  0-9    https://github.com/example/clcr-lmf" in told.stdout
    report = clcr(["report", "--out", str(into)], None, cache)
    assert report.returncode == 0, report.stderr
    text = (into / "tables" / "main.md").read_text()
    assert "| lmf (external) |" in text
    assert "lmf (external): LMF, Liu et al." in text
    tables = {path.name: path.read_bytes() for path in (into / "tables").iterdir()}
    assert clcr(["report", "--out", str(into)], package, cache).returncode == 0
    assert tables == {path.name: path.read_bytes() for path in (into / "tables").iterdir()}  # installed or not
