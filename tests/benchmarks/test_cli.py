from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import BENCHMARKS, cli, console, sweeping
from benchmarks.record import RunKey
from benchmarks.runner import launch, store
from benchmarks.runner.launch import Event, Result
from benchmarks.runner.plan import Planned

KEY = RunKey("crema_d", "paper", "twin", "tiny", "linear", "full", 0)
SWEEP = ["--benchmark", "crema_d", "--data", "twin", "--seeds", "0-1"]
LINEAR = [*SWEEP, "--method", "linear"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLCR_CACHE", str(place / "cache"))
    monkeypatch.delenv("CLCR_DATA", raising=False)


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = cli.main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def document(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    code, out, _ = call(capsys, *argv, "--json")
    assert code == 0
    read: dict[str, Any] = json.loads(out)
    return read


@pytest.fixture(scope="module")
def swept(place: Path) -> Mapping[str, Any]:
    """A sweep of two fitted runs; returns what `run --json` printed."""
    command = [sys.executable, "-m", "benchmarks.cli", "run", *LINEAR, "--out", str(place / "out"), "--json"]
    environment = {**os.environ, "CLCR_CACHE": str(place / "cache")}
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return {**printed, "stderr": done.stderr}


def spent() -> float:
    """Processor time of the children that have ended, in seconds: other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    times = []
    for _ in range(5):
        began = spent()
        subprocess.run([sys.executable, "-m", "benchmarks.cli", "--help"], check=True, capture_output=True)
        times.append(spent() - began)
    assert min(times) < 0.3
    code = "import sys, benchmarks.cli; sys.exit(bool({'torch', 'numpy', 'pandas', 'rich', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    for command in ("list", "fetch", "prepare", "plan", "run", "status", "report", "search"):
        assert command in out


def test_list_has_the_agreed_shape(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "list")
    assert list(found) == list(cli.SECTIONS)
    for row in found["benchmarks"]:
        assert {"name", "title", "task", "modalities", "n_classes", "protocols", "main_metric", "data"} <= set(row)
        assert isinstance(row["n_classes"], int) == (row["task"] == "classification")
    assert [row["name"] for row in found["benchmarks"]] == list(BENCHMARKS)
    data = {row["name"]: row["data"] for row in found["benchmarks"]}
    assert data["cmu_mosi"] == "twin"
    assert data["ravdess"] == "missing"
    assert all({"name", "label", "year", "citation"} <= set(row) for row in found["methods"])
    assert {"clcr", "misa", "linear", "unimodal_audio"} <= {row["name"] for row in found["methods"]}
    assert found["variants"]["clcr"][:2] == ["full", "no_hierarchy"]
    assert set(found["variants"]) == {row["name"] for row in found["methods"]}
    assert "local" in found["launchers"]
    assert {"name": "mae", "direction": "min", "unit": "", "title": "MAE"} in found["metrics"]
    assert list(document(capsys, "list", "metrics")) == ["metrics"]


def test_list_for_people_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no_orthogonality" in call(capsys, "list", "variants")[1]
    assert call(capsys, "list", "variants", "--quiet") == (0, "", "")


def test_plan_lists_runs_with_state_and_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = document(capsys, "plan", *SWEEP, "--method", "clcr", "--variant", "all", "--out", str(tmp_path / "new"))
    assert (found["count"], found["to_do"], found["predicted_s"]) == (20, 20, None)
    assert found["runs"][0]["key"] == {**vars(KEY), "method": "clcr"}
    assert {run["state"] for run in found["runs"]} == {"missing"}
    assert not (tmp_path / "new").exists()
    assert "20 runs, 20 to do" in call(capsys, "plan", *SWEEP, "--method", "clcr", "--variant", "all")[1]


def test_plan_measures_what_was_never_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    arguments = ["plan", *SWEEP, "--method", "late_fusion", "--out", str(tmp_path / "new"), "--workers", "1"]
    found = document(capsys, *arguments, "--measure", "100")
    assert found["sources"] == {"bench": len(found["runs"])}
    assert found["predicted_s"] > 0
    assert found["wall_s"] > found["predicted_s"]
    assert not (tmp_path / "new").exists()
    assert document(capsys, *arguments)["runs"] == found["runs"]
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    assert "on one worker" in out
    assert "with 1 worker, from their start on" in out
    assert f"{len(found['runs'])} by bench" in out


@pytest.mark.parametrize("wrong", [("--measure", "0"), ("--measure", "nan"), ("--measure", "soon"), ("--workers", "0")])
def test_plan_refuses_what_makes_no_sense(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "plan", *SWEEP, *wrong)
    assert (code, out) == (2, "")
    assert wrong[0] in err
    assert len(err.splitlines()) == 1


def test_run_says_how_each_run_ended(swept: Mapping[str, Any], place: Path) -> None:
    assert {name: swept[name] for name in ("done", "kept", "failed", "refused")} == {
        "done": 2,
        "kept": 0,
        "failed": 0,
        "refused": 0,
    }
    assert [run["state"] for run in swept["runs"]] == ["done", "done"]
    assert "crema_d: synthetic twin, protocol paper" in swept["stderr"]
    folder = store.folder_of(place / "out", KEY)
    assert {path.name for path in folder.iterdir()} == {"record.json", "predictions.npz", "curves.jsonl", "log.txt"}


def test_running_again_executes_nothing(
    swept: Mapping[str, Any], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = store.folder_of(place / "out", KEY) / store.RECORD
    before = record.stat().st_mtime_ns
    found = document(capsys, "run", *LINEAR, "--out", str(place / "out"))
    assert (found["done"], found["kept"], found["runs"]) == (0, 2, [])
    assert record.stat().st_mtime_ns == before
    code, out, err = call(capsys, "run", *LINEAR, "--out", str(place / "out"), "--quiet")
    assert (code, out, err) == (0, "", "")


def test_what_is_damaged_is_put_aside_told_and_run_again(
    swept: Mapping[str, Any], place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(place / "out", out)
    folders = [store.folder_of(out, replace(KEY, seed=seed)) for seed in (0, 1)]
    whole = [(folder / store.PREDICTIONS).read_bytes() for folder in folders]
    (folders[0] / store.RECORD).write_text('{"key": 1')
    (folders[1] / store.PREDICTIONS).write_bytes(whole[1][:-9])
    code, said, told = call(capsys, "run", *LINEAR, "--out", str(out), "--workers", "1")
    assert (code, said.splitlines()[-1]) == (0, "2 executed, 0 done before, 0 not done")
    for folder, name in zip(folders, (store.RECORD, store.PREDICTIONS), strict=True):
        (line,) = [line for line in told.splitlines() if f"{folder / name}: truncated" in line]
        assert line.endswith(f"(put aside as .{folder.name}.corrupt; its run starts anew)")
        assert (folder.with_name(f".{folder.name}.corrupt") / name).exists()
    assert [(folder / store.PREDICTIONS).read_bytes() for folder in folders] == whole


def test_a_checkpoint_that_is_damaged_is_put_aside_told_and_the_one_before_is_gone_on_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ["--method", "late_fusion", "--set", "training.epochs=30", "--checkpoint-epochs", "1", "--workers", "1"]
    line = [*SWEEP[:4], "--seeds", "0", *flags, "--out", str(tmp_path)]
    runner = subprocess.Popen([sys.executable, "-m", "benchmarks.cli", "run", *line], cwd=Path(__file__).parents[2])
    while not (found := list(tmp_path.rglob("checkpoint.previous.pt"))):
        assert runner.poll() is None
        time.sleep(0.01)
    runner.terminate()
    assert runner.wait(60) == cli.INTERRUPTED
    newest = next(tmp_path.rglob("checkpoint.pt"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert newest.parent == found[0].parent
    assert call(capsys, "run", *line)[0] == 0
    log = next(tmp_path.rglob("seed-000/log.txt")).read_text()
    assert "checkpoint.pt is not used: changed or cut short since it was written; put aside" in log
    assert "resumed at epoch" in log
    assert not list(tmp_path.rglob("*checkpoint*"))


def test_status_tells_of_each_failed_run_in_one_line_with_its_remedy(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = [*SWEEP[:4], "--seeds", "0", "--method", "late_fusion", "--set", "training.lr=1e30"]
    assert call(capsys, "run", *flags, "--out", str(tmp_path), "--workers", "1")[0] == sweeping.FAILED
    code, said, _ = call(capsys, "status", *flags, "--out", str(tmp_path))
    log = store.folder_of(tmp_path, replace(KEY, method="late_fusion")) / "log.txt"
    (line,) = [line for line in said.splitlines() if "late_fusion" in line]
    assert (code, "failed" in line, "finite" in line) == (0, True, True)
    assert line.endswith(f"; read {log}, then try again with `clcr run --retry-failed`")
    assert log.is_file()


def test_status_with_and_without_a_selection(
    swept: Mapping[str, Any], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(place / "out")
    everything = document(capsys, "status", "--out", out)
    assert {name: everything[name] for name in ("done", "running", "failed", "stale", "missing")} == {
        "done": 2,
        "running": 0,
        "failed": 0,
        "stale": 0,
        "missing": 0,
    }
    assert {run["folder"] for run in everything["runs"]} == {KEY.folder, KEY.folder[:-1] + "1"}
    more = document(capsys, "status", *SWEEP[:4], "--method", "linear", "--seeds", "0-4", "--out", out)
    assert (more["done"], more["missing"]) == (2, 3)
    assert "2 done, 0 running" in call(capsys, "status", "--out", out)[1]
    assert document(capsys, "status", "--out", str(place / "nothing"))["runs"] == []


def test_plan_predicts_from_what_was_run(
    swept: Mapping[str, Any], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, "plan", *SWEEP[:4], "--method", "linear", "--seeds", "0-3", "--out", str(place / "out"))
    assert [run["state"] for run in found["runs"]] == ["done", "done", "missing", "missing"]
    assert found["to_do"] == 2
    assert 0 < found["predicted_s"] < 60
    assert found["runs"][3]["predicted_memory_bytes"] > 2**20


def test_report_merges_and_writes_tables(
    swept: Mapping[str, Any], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place / "out"
    found = document(capsys, "report", "--only", "tables", "--partial", "--out", str(out))
    assert (out / "tables" / "main.md").is_file()
    assert str(out / "tables" / "main.csv") in found["files"]
    assert len((out / "records" / "crema_d.jsonl").read_text().splitlines()) == 2
    before = {path: path.read_bytes() for path in (*out.glob("tables/*"), *out.glob("records/*"))}
    code, printed, _ = call(
        capsys, "report", "--only", "tables", "--partial", "--benchmark", "crema_d", "--out", str(out)
    )
    assert code == 0
    assert "Linear" in printed
    assert before == {path: path.read_bytes() for path in before}


def test_failed_runs_give_exit_code_1_and_are_listed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(keys, place, crew, listen):  # type: ignore[no-untyped-def]
        results = [Result(key, "failed", 1.0, "RuntimeError: broke") for key in keys]
        for result in results:
            listen(Event("end", result.key, 1.0, result=result))
        return results

    monkeypatch.setattr(launch, "local", failing)
    code, out, err = call(capsys, "run", *LINEAR, "--out", str(tmp_path))
    assert code == 1
    assert "RuntimeError: broke" in out
    assert "[2/2] FAILED" in err
    code, out, _ = call(capsys, "run", *LINEAR, "--out", str(tmp_path), "--json")
    assert (code, json.loads(out)["failed"]) == (1, 2)


def test_an_interrupted_run_says_what_is_done_and_exits_130(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(teams, place, crew, listen):  # type: ignore[no-untyped-def]
        (key,) = teams[0]
        listen(Event("end", key, 1.0, result=Result(key, "done", 1.0)))
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "local", interrupted)
    code, _, err = call(capsys, "run", *LINEAR, "--out", str(tmp_path))
    assert code == 130
    assert err.splitlines()[-1] == "clcr: interrupted with 1 of 2 runs done; the same command goes on"


def test_search_gives_every_method_the_same_budget(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.runner import search

    asked: dict[str, Any] = {}

    def fake(keys, options, budget, workers, report):  # type: ignore[no-untyped-def]
        asked.update(keys=keys, options=options, budget=budget, workers=workers)
        report({"benchmark": "crema_d", "method": "misa", "trial": 1, "metric": "accuracy", "value": 0.5, "error": ""})
        return {"crema_d.paper": {"misa": {"training.lr": 0.1}, "clcr": {}}}

    monkeypatch.setattr(search, "search", fake)
    arguments = ["search", *SWEEP, "--method", "misa,clcr", "--trials", "3", "--workers", "2", "--out", str(tmp_path)]
    code, out, err = call(capsys, *arguments)
    assert code == 0
    assert (asked["budget"], asked["workers"], asked["options"].out) == (search.Budget(3, 1), 2, tmp_path)
    assert {key.method for key in asked["keys"]} == {"misa", "clcr"}
    assert "crema_d misa trial 1: accuracy 0.5000" in err
    assert "training.lr=0.1" in out
    adopted: list[tuple[str, Any]] = []
    monkeypatch.setattr(search, "adopt", lambda *found: adopted.append(found))
    assert document(capsys, *arguments)["tuned"]["crema_d.paper"]["clcr"] == {}
    assert not adopted
    document(capsys, *arguments, "--adopt")
    assert adopted == [("tiny", {"crema_d.paper": {"misa": {"training.lr": 0.1}, "clcr": {}}})]


def test_why_runs_were_refused_is_said_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(teams, place, crew, listen):  # type: ignore[no-untyped-def]
        results = [
            Result(key, "refused", error="x.yaml: field 'y' is wrong; mend it") for team in teams for key in team
        ]
        for result in results:
            listen(Event("end", result.key, 1.0, result=result))
        return results

    monkeypatch.setattr(launch, "launcher", lambda name: refuse)
    code, out, err = call(capsys, "run", *LINEAR, "--out", str(tmp_path))
    assert code == 2
    assert (out + err).count("mend it") == 1
    assert err.splitlines()[-1] == "clcr: x.yaml: field 'y' is wrong; mend it"
    assert [f"[{n}/2] REFUSED {KEY.folder[:-1]}{n - 1}" in err for n in (1, 2)] == [True, True]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m benchmarks.cli list | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("benchmarks\n", "")


def test_the_cache_is_where_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cli.cache_folder() != tmp_path
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path))
    assert cli.cache_folder() == tmp_path
    monkeypatch.delenv("CLCR_CACHE")
    assert cli.cache_folder() == Path(__file__).resolve().parents[2] / ".cache"


def test_the_time_left_is_known_once_something_was_measured() -> None:
    keys = [RunKey("b", "p", "twin", "tiny", "m", "full", seed) for seed in range(4)]
    clock = console.Clock([Planned(key, "missing") for key in keys], workers=2)
    assert clock.left_s(0.0) is None
    for key in keys[:2]:
        clock.hear(Event("start", key), 0.0)
    assert clock.left_s(1.0) is None
    clock.hear(Event("end", keys[0], 1.0, result=Result(keys[0], "done", 10.0)), 10.0)
    assert clock.left_s(10.0) == pytest.approx((0 + 10 + 10) / 2)
    clock.hear(Event("progress", keys[1], 0.5), 10.0)
    assert clock.left_s(10.0) == pytest.approx((10 + 10 + 10) / 2)
    for key in keys[1:]:
        clock.hear(Event("end", key, 1.0, result=Result(key, "done", 10.0)), 20.0)
    assert clock.left_s(20.0) == 0.0


def test_the_longest_run_bounds_the_time_left() -> None:
    keys = [RunKey("b", "p", "twin", "tiny", name, "full", 0) for name in ("long", "short")]
    runs = [Planned(keys[0], "missing", 100.0), Planned(keys[1], "missing", 2.0)]
    assert console.Clock(runs, workers=8).left_s(0.0) == 100.0


def test_the_plan_is_corrected_by_the_pace_of_the_sweep() -> None:
    """Predicted 2 s each, the first took 6: the others will take three times the plan, whatever their method."""
    keys = [RunKey("b", "p", "twin", "tiny", name, "full", seed) for name in ("a", "b") for seed in range(2)]
    predicted = [2.0, 2.0, 5.0, 5.0]
    runs = [Planned(key, "missing", s, together=2) for key, s in zip(keys, predicted, strict=True)]
    clock = console.Clock(runs, workers=1)
    assert clock.left_s(0.0) == 14.0
    clock.hear(Event("end", keys[0], 1.0, result=Result(keys[0], "done", 6.0)), 6.0)
    assert clock.left_s(6.0) == 6.0 + 15.0 + 15.0  # the second as the first one of its kind did
    alone = console.Clock(runs, workers=8)
    assert alone.left_s(0.0) == 10.0  # two seeds that train as one end together
    for key in keys[2:]:
        alone.hear(Event("start", key, together=2), 0.0)
    assert alone.left_s(4.0) == 10.0 - 4.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (0.4, "0.4 s"), (59, "59 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations_are_said_as_people_say_them(seconds: float | None, text: str) -> None:
    assert console.duration(seconds) == text


def test_a_watch_counts_and_tells_retries(capsys: pytest.CaptureFixture[str]) -> None:
    with console.Watch(console.Console(), [Planned(KEY, "missing")], 1) as watch:
        watch(Event("retry", KEY, note="the worker was killed by SIGKILL"))
        watch(Event("wait", KEY))
        watch(Event("wait", KEY))
        watch(Event("end", KEY, 1.0, result=Result(KEY, "done", 3.0)))
    lines = capsys.readouterr().err.splitlines()
    assert "SIGKILL; trying once more" in lines[0]
    assert len(lines) == 3
    assert lines[2].startswith("[1/1] done crema_d")
    assert watch.ended["done"] == 1
