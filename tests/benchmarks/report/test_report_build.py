"""From records on disk to fifteen files: refusals, equal bytes, no torch, speed. All records are synthetic."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic_records import Sweep, Write

from benchmarks.errors import InputError
from benchmarks.report import build
from benchmarks.report.collect import Incomplete

NAMES = [f"{n}.{s}" for n in ("main", "ablation", "significance", "published", "cost") for s in ("md", "csv", "tex")]
SWEEPS = (
    Sweep(variants={"no_reg": 0.69, "no_hierarchy": 0.68}),
    Sweep(benchmark="cmu_mosi", protocol="standard"),
    Sweep(data="real", profile="paper", protocol="paper_test_selected"),
)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "tables").iterdir()}


def test_fifteen_files_the_same_bytes_every_time(write: Write) -> None:
    records = [r for s in SWEEPS for r in s.records()]
    out = write(records)
    built = build(out, only="tables")
    first = contents(out)
    assert sorted(first) == sorted(NAMES)
    assert sorted(path.name for path in built.files) == sorted(NAMES)
    assert built.holes == ()
    build(out, only="tables")
    assert contents(out) == first
    for path in (out / "records").glob("*.jsonl"):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    build(out, only="tables")
    assert contents(out) == first


def test_every_csv_keeps_real_and_twin_apart(write: Write) -> None:
    out = write(r for s in SWEEPS for r in s.records())
    build(out, only="tables")
    for name in ("main", "ablation", "significance", "published", "cost"):
        with (out / "tables" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert {row["data"] for row in rows} <= {"real", "twin"}


def test_holes_are_refused_and_no_file_is_touched(write: Write) -> None:
    out = write(r for r in Sweep().records() if r.key.seed < 3 or r.key.method != "misa")
    with pytest.raises(Incomplete, match=r"2 results missing.*misa/full/seed-003: not run"):
        build(out)
    assert not (out / "tables").exists()


def test_a_partial_table_says_so_and_names_what_lacks(write: Write) -> None:
    out = write(r for r in Sweep().records() if r.key.seed < 3 or r.key.method != "misa")
    built = build(out, "tables", partial=True)
    assert len(built.holes) == 2
    for name in ("main", "ablation", "significance", "cost", "published"):
        assert "PARTIAL: 2 results missing, in crema\\_d.paper.twin.tiny" in contents(out)[f"{name}.md"].decode()
    text = contents(out)["main.md"].decode()
    assert "MISSING: MISA seed 3: not run, other rows have it; MISA seed 4: not run" in text
    assert "(3)" in next(line for line in text.splitlines() if line.startswith("| MISA"))


def test_nothing_to_report_and_unknown_parts_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no records of these runs"):
        build(tmp_path / "empty")
    with pytest.raises(InputError, match="--only pictures: unknown part"):
        build(write(Sweep().records()), only="pictures")


def test_published_numbers_beside_the_records_come_first(write: Write) -> None:
    out = write(Sweep().records())
    (out / "published.yaml").write_text("schema: 3\n")
    with pytest.raises(InputError, match=r"published\.yaml"):
        build(out)


def test_a_selection_and_stale_runs(write: Write) -> None:
    records = Sweep().records()
    out = write(records)
    assert len(build(out, select=lambda key: key.method == "clcr").collected.groups[0].methods) == 1
    shown = build(out, select=lambda key: key.benchmark == "crema_d").tables[3]
    assert [section.title for section in shown.parts["real"]] == ["CREMA-D"]
    with pytest.raises(Incomplete, match="stale"):
        build(out, stale=[records[0].key])


def test_the_report_loads_no_torch() -> None:
    code = "import sys, benchmarks.report, benchmarks.report.render; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ten_thousand_records_take_seconds(write: Write) -> None:
    variants = dict.fromkeys(("no_reg", "no_hierarchy", "no_intraced", "no_intercad", "full_mix"), 0.69)
    names = ("crema_d", "kinetics_sounds", "ave")
    sweeps = [Sweep(benchmark=b, data=d, profile=p, variants=variants, seeds=range(84))
              for b in names for d in ("real", "twin") for p in ("tiny", "paper")]  # fmt: skip
    out = write(r for s in sweeps for r in s.records())
    assert sum(len(path.read_text().splitlines()) for path in (out / "records").iterdir()) > 10_000
    start = time.process_time()
    build(out, only="tables")
    assert time.process_time() - start < 12


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX engine: install pdflatex to compile the tables")
def test_all_latex_tables_compile_together(write: Write, tmp_path: Path) -> None:
    out = write(r for s in SWEEPS for r in s.records())
    build(out, only="tables")
    names = ("main", "ablation", "significance", "published", "cost")
    body = "\\clearpage".join(rf"\input{{{out / 'tables' / name}}}" for name in names)
    head = r"\documentclass{article}\usepackage{booktabs}"
    (tmp_path / "all.tex").write_text(rf"{head}\begin{{document}}{body}\end{{document}}")
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:].decode(errors="replace")


def test_records_are_only_read(write: Write) -> None:
    out = write(Sweep().records())
    path = out / "records" / "crema_d.jsonl"
    before = path.read_bytes()
    build(out, only="tables")
    assert path.read_bytes() == before
    assert all(json.loads(line) for line in before.splitlines())
