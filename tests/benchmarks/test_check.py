"""`clcr check` holds on what is committed, and fails, with the right line, on whatever is not as it was.

Each test works on a copy of the records of one twin, with tables of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import catalog, cli, curves, metrics, report
from benchmarks.archive import ARRAYS, members, predictions_digest, predictions_of, read_npz, run_of, write_npz
from benchmarks.record import RunKey, canonical, digest_of
from benchmarks.report.recount import recount
from benchmarks.runner import golden, judge
from benchmarks.runner.plan import Place

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
KEY = RunKey("ave", "paper", "twin", "tiny", "late_fusion", "full", 8)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed records of one twin, and the tables that follow from them."""
    out = tmp_path_factory.mktemp("check") / "results"
    for name in ("records/ave.jsonl", "predictions/ave.npz", "curves/ave.jsonl", "published.yaml", "accepted.yaml"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(RESULTS / name, out / name)
    report.build(out)
    return out


@pytest.fixture
def out(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "results"))


@pytest.fixture
def check(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `clcr check`: (exit code, stdout, stderr). One golden team, whatever the part."""
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    all_twins = golden.twins
    monkeypatch.setattr(golden, "twins", lambda newest: [g for g in all_twins(newest, 1e9) if KEY in g.team])

    def run(*argv: str) -> tuple[int, str, str]:
        code = cli.main(["check", "--out", str(out), *argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "records" / "ave.jsonl").read_text().splitlines()]


def rewrite(out: Path, key: RunKey, change: Callable[[dict[str, Any]], None]) -> None:
    """Change one line of the records, and let the run's curve go on belonging to it."""
    found = lines(out)
    line = next(line for line in found if RunKey(**line["key"]) == key)
    path = out / "curves" / "ave.jsonl"
    known = curves.read(path)
    curve = known.pop((key, line["digest"], line["predictions"]))
    change(line)
    known[key, line["digest"], line["predictions"]] = curve
    path.write_text(curves.text(known, known))
    (out / "records" / "ave.jsonl").write_text("".join(f"{canonical(line)}\n" for line in found))


def failures(stderr: str, part: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith(f"{part}: ") and ": expected " in line]


def test_an_untouched_tree_holds_in_every_part(check: Call) -> None:
    code, printed, told = check()
    assert code == 0, told
    assert "all holds" in printed
    for part in ("records", "published", "tables", "golden"):
        assert f"\n{part} " in printed
    assert " in 1 team, 0 of them on real data" in printed
    assert "] done ave.paper.twin.tiny/late_fusion/full/seed-008" in told  # progress


def test_json_and_quiet(check: Call, out: Path) -> None:
    code, printed, _ = check("--only", "records,published", "--json")
    document = json.loads(printed)
    assert (code, document["holds"], list(document["parts"])) == (0, True, ["records", "published"])
    assert {"looked_at", "failures", "notes", "rows", "seconds"} == set(document["parts"]["records"])
    assert {row["verdict"] for row in document["parts"]["published"]["rows"]} == {"not run"}
    assert check("--only", "published", "--quiet") == (0, "", "")
    (out / "tables" / "main.md").write_text("typed by hand\n")
    code, printed, told = check("--only", "tables", "--quiet")
    assert (code, printed, len(told.splitlines())) == (1, "", 1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--only", "tabels"), "did you mean 'tables'?"),
        (("--only", "tables", "--accept"), "--only leaves out"),
        (("--out", "nowhere"), "no such folder"),
    ],
)
def test_bad_input_is_one_line_and_code_2(check: Call, argv: tuple[str, ...], message: str) -> None:
    code, printed, told = check(*argv)
    assert (code, printed, len(told.splitlines())) == (2, "", 1)
    assert message in told


def test_an_edited_metric_is_seen(check: Call, out: Path) -> None:
    def edit(line: dict[str, Any]) -> None:
        line["metrics"]["test"]["accuracy"] += 1e-9

    rewrite(out, KEY, edit)
    code, _, told = check("--only", "records")
    (line,) = failures(told, "records")
    assert code == 1
    assert f"{KEY}: test accuracy: expected 0." in line


def test_an_edited_configuration_is_seen_with_its_digest_and_without(check: Call, out: Path) -> None:
    rewrite(out, KEY, lambda line: line["what"]["config"]["training"].update(lr=0.5))
    code, _, told = check("--only", "records")
    assert code == 1
    assert "field 'digest' does not fit field 'what'" in failures(told, "records")[0]

    def consistent(line: dict[str, Any]) -> None:
        line["digest"] = digest_of(line["what"])

    rewrite(out, KEY, consistent)
    code, _, told = check("--only", "records")
    (line,) = failures(told, "records")
    assert code == 1
    assert f"{KEY}: stale: expected config.training.lr 0.5" in line
    assert "rerun" in line


def alter(out: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the predictions of KEY and make digests and metrics fit."""
    path = out / "predictions" / "ave.npz"
    archive = read_npz(path)
    committed = next(line for line in lines(out) if RunKey(**line["key"]) == KEY)
    arrays = predictions_of(archive, KEY, committed["predictions"])
    arrays["prediction"] = change(arrays["prediction"])
    digest = predictions_digest({name: arrays[name] for name in ARRAYS if name in arrays})
    kept = {name: array for name, array in archive.items() if not name.startswith(f"{run_of(KEY)}/")}
    write_npz(path, {**kept, **members(KEY, digest, arrays)})
    scores = metrics.compute(catalog.spec("ave").metrics, arrays["prediction"], arrays["target"])

    def fit(line: dict[str, Any]) -> None:
        line["predictions"] = digest
        line["metrics"]["test"] = scores

    rewrite(out, KEY, fit)


def test_a_changed_golden_prediction_is_seen_though_its_digests_fit(check: Call, out: Path) -> None:
    alter(out, lambda scores: scores[:, ::-1].copy())
    code, _, told = check("--only", "records")
    assert code == 0, told
    code, _, told = check("--only", "golden")
    assert code == 1
    found = failures(told, "golden")
    assert found
    assert all(f"golden {KEY}" in line for line in found)


def test_an_epoch_that_the_curve_did_not_select_is_seen(check: Call, out: Path) -> None:
    def pick(line: dict[str, Any]) -> None:
        line["selection"]["epoch"] += 1

    rewrite(out, KEY, pick)
    code, _, told = check("--only", "records")
    (failure,) = failures(told, "records")
    assert (code, "curve: expected one that selects its epoch" in failure) == (1, True)


def test_changed_predictions_are_seen_where_digests_do_not_fit(check: Call, out: Path) -> None:
    path = out / "predictions" / "ave.npz"
    archive = read_npz(path)
    name = next(name for name in archive if name.startswith(f"{run_of(KEY)}/"))
    archive[name] = np.nextafter(archive[name], np.float32(9))
    write_npz(path, archive)
    code, _, told = check("--only", "records")
    (line,) = failures(told, "records")
    assert code == 1
    assert f"{KEY}: predictions: expected" in line


def test_another_definition_of_a_metric_is_seen(check: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = replace(metrics.METRICS["accuracy"], function=lambda p, t: float(np.mean(p.argmax(1)[1:] == t[1:])))
    monkeypatch.setitem(metrics.METRICS, "accuracy", strict)
    code, _, told = check("--only", "records")
    assert code == 1
    assert "today's definition of accuracy" in failures(told, "records")[0]
    assert "more; `clcr check --only records --json` lists all" in told


def test_changed_code_of_a_method_makes_its_records_stale(out: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("clcr", "baselines", "benchmarks"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = tree / "baselines" / "late_fusion.py"
    file.write_text(file.read_text() + "\n\nSLOPE = 0.02\n")
    command = [sys.executable, "-m", "benchmarks.cli", "check", "--only", "records", "--json", "--out", str(out)]
    environment = {**os.environ, "CLCR_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)["parts"]["records"]["failures"]
    assert {line["what"].split("/")[1] for line in found} == {"late_fusion", "unimodal_audio", "unimodal_vision"}
    assert all(line["what"].endswith(": stale") for line in found)
    assert all(line["expected"].startswith("source_digest ") for line in found)
    assert all("rerun" in line["remedy"] for line in found)


def test_a_stale_run_is_not_trained_again(check: Call, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "changes", lambda record, place: [judge.Change("trainer", "1", "2")])
    code, _, told = check("--only", "golden")
    assert code == 1
    assert f"{len(lines(out))} runs stale or not judged" in told
    assert "expected runs whose records are not stale, found none" in told


def test_an_edited_table_is_seen(check: Call, out: Path) -> None:
    path = out / "tables" / "main.csv"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    (out / "tables" / "extra.md").write_text("\n")
    (out / "tables" / "cost.md").unlink()
    code, _, told = check("--only", "tables")
    found = failures(told, "tables")
    assert (code, len(found)) == (1, 3)
    assert any("main.csv: expected line 2 " in line for line in found)
    assert any("extra.md: expected no such file" in line for line in found)
    assert any("cost.md: expected the report's file, found none" in line for line in found)


def test_a_record_of_another_benchmark_or_a_broken_line_is_seen(check: Call, out: Path) -> None:
    number = len(lines(out))
    with (out / "records" / "ave.jsonl").open("a") as file:
        file.write("{\n")
    (out / "records" / "crema_d.jsonl").write_text((out / "records" / "ave.jsonl").read_text().splitlines()[0] + "\n")
    code, _, told = check("--only", "records,tables")
    assert code == 1
    assert any(f"ave.jsonl:{number + 1}: expected a run's record" in line for line in failures(told, "records"))
    assert any("crema_d.jsonl:1: expected a run of crema_d" in line for line in failures(told, "records"))
    assert failures(told, "tables")


def test_what_today_gives_is_told_entry_by_entry() -> None:
    newest = recount(RESULTS).newest
    record = next(r for r in newest if r.key == KEY)
    assert judge.changes(record, Place(RESULTS, Path("nowhere"))) == []
    (change,) = judge.changes(record, Place(RESULTS, Path("nowhere"), overrides=("training.epochs=1",)))
    assert (change.entry, change.now) == ("config.training.epochs", "1")
    (change,) = judge.changes(replace(record, what={**record.what, "data_digest": "0"}), Place(RESULTS, Path()))
    assert change.entry == "data_digest"
    real = next(r for r in newest if r.key.data == "real")
    assert judge.changes(replace(real, what={**real.what, "data_digest": "0"}), Place(RESULTS, Path())) == []
    (change,) = judge.changes(replace(real, what={**real.what, "source_digest": "0"}), Place(RESULTS, Path()))
    assert change.entry == "source_digest"
