"""The engine of analyses and ``clcr analyse``: what is done, what is left alone, what is kept and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cli
from benchmarks.analysed import Line, path_of, read, text
from benchmarks.analyses import ANALYSES, Analysis, engine
from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import store
from benchmarks.runner.execute import Options
from benchmarks.runner.launch import Event

ROOT = Path(__file__).resolve().parents[3]
TWIN = RunKey("crema_d", "paper", "twin", "tiny", "late_fusion", "full", 0)
RUNS = 7  # of the fixture ``trained``
LINEAR, TRAINED = 2, 5
DIGEST = "ab" * 32


def planned(options: Options, name: str = "missing", **only: str) -> engine.Work:
    found = [record for _, record in store.records(options.out)]
    return engine.plan(name, found, options, lambda key: all(getattr(key, n) == value for n, value in only.items()))


def ignore(event: Event) -> None:
    """Listen to nothing."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunKey, ...]]:
    """``missing`` says which runs it saw and computes nothing."""
    from benchmarks.analyses import missing

    seen: list[tuple[RunKey, ...]] = []

    def instead(team: Any) -> list[Any]:
        seen.append(team.keys)
        return [{"zero": {"": {"accuracy": key.seed / 3}}} for key in team.keys]

    monkeypatch.setattr(missing, "missing", instead)
    return seen


def test_what_has_a_line_is_left_alone_until_the_run_or_the_analysis_changes(
    place: Options, quick: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = engine.execute_all(planned(place), place, ignore)
    assert len(results) == RUNS
    assert {result.state for result in results} == {"done"}
    work = planned(place)
    assert (work.teams, work.to_do, len(work.current)) == ((), (), RUNS)
    path = path_of(place.out, "missing")
    before = path.read_bytes()
    assert engine.execute_all(work, place, ignore) == []
    assert path.read_bytes() == before
    lines = read(path)
    changed = lines | {TWIN: replace(lines[TWIN], digest=DIGEST)}
    path.write_text(text(changed.values()))
    assert planned(place).to_do == (TWIN,)
    monkeypatch.setattr(engine, "source", lambda name: DIGEST)
    assert len(planned(place).to_do) == RUNS


def test_a_run_is_analysed_in_the_company_it_was_trained_in(place: Options, quick: list[Any]) -> None:
    work = planned(place, method="late_fusion")
    one = replace(work, to_do=work.to_do[:1])
    engine.execute_all(one, place, ignore)
    assert quick == [(TWIN, replace(TWIN, seed=1))]
    assert list(read(path_of(place.out, "missing"))) == [TWIN]


def test_lines_are_sorted_replace_older_ones_and_keep_those_of_runs_that_are_not_here(
    place: Options, quick: list[Any]
) -> None:
    foreign = Line("missing", replace(TWIN, benchmark="aaa"), DIGEST, DIGEST, {"zero": {}})
    old = Line("missing", TWIN, DIGEST, DIGEST, {"zero": {"": {"accuracy": 0.5}}})
    path = path_of(place.out, "missing")
    path.parent.mkdir(parents=True)
    path.write_text(text([old, foreign]))
    engine.execute_all(planned(place), place, ignore)
    lines = read(path)
    assert list(lines) == sorted(lines)
    assert len(lines) == RUNS + 1
    assert lines[foreign.key] == foreign
    assert lines[TWIN].values == {"zero": {"": {"accuracy": 0.0}}}
    assert lines[replace(TWIN, seed=1)].values["zero"][""]["accuracy"] == 0.3333333
    assert [path.name for path in path.parent.iterdir()] == [path.name]


def test_an_interruption_keeps_what_is_finished(place: Options, quick: list[Any]) -> None:
    def stop(event: Event) -> None:
        if event.kind == "start" and event.key and event.key.method == "linear":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.execute_all(planned(place), place, stop)
    assert {key.method for key in read(path_of(place.out, "missing"))} == {"clcr", "late_fusion"}
    assert len(planned(place).to_do) == RUNS - 3


def test_a_run_that_cannot_be_analysed_is_told_and_has_no_line(place: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.analyses import missing

    monkeypatch.setattr(missing, "missing", lambda team: [ValueError("not\nfinite"), *[{"a": 1}] * (len(team) - 1)])
    results = engine.execute_all(planned(place, method="late_fusion"), place, ignore)
    assert [(result.state, result.error) for result in results] == [("failed", "not finite"), ("done", "")]
    assert list(read(path_of(place.out, "missing"))) == [replace(TWIN, seed=1)]


def test_runs_without_weights_are_told_with_the_command_that_makes_them(place: Options) -> None:
    for seed in (0, 1):
        (store.folder_of(place.out, replace(TWIN, seed=seed)) / store.WEIGHTS["epochs"]).unlink()
    work = planned(place)
    assert work.bare == (TWIN, replace(TWIN, seed=1))
    assert len(work.to_do) == RUNS - 2
    assert work.remedy == (
        "clcr run --benchmark crema_d --protocol paper --data twin --profile tiny --method late_fusion --variant full "
        "--seeds 0,1 --keep best"
    )


def test_every_epoch_is_asked_for_where_an_analysis_needs_it(place: Options) -> None:
    folder = store.folder_of(place.out, TWIN)
    (folder / store.WEIGHTS["epochs"]).rename(folder / store.WEIGHTS["best"])
    assert planned(place).bare == ()
    work = planned(place, "habits")
    assert work.bare == (TWIN,)
    assert work.remedy.endswith("--keep epochs")
    assert len(work.to_do) == TRAINED - 1  # rows without a training loop have no epochs


def test_a_stale_run_is_left_out(place: Options) -> None:
    other = replace(place, overrides=("training.epochs=5",))
    work = planned(other)
    assert len(work.stale) == TRAINED
    assert "not today's; run it again" in work.stale[TWIN]
    assert {key.method for key in work.to_do} == {"linear"}


def test_an_analysis_is_for_the_runs_that_its_row_names() -> None:
    row = Analysis("a", "m:f", "A", methods=("clcr",), variants=("full",), seeds=(0,), data=("twin",))
    mine = replace(TWIN, method="clcr")
    assert row.wants(mine)
    others = ({"method": "misa"}, {"variant": "no_reg"}, {"seed": 1}, {"data": "real"})
    assert not any(row.wants(replace(mine, **other)) for other in others)  # type: ignore[arg-type]


def test_protocols_that_select_on_the_test_split_have_no_habits(trained: Options) -> None:
    def of(protocol: str) -> RunRecord:
        record = store.read_record(store.folder_of(trained.out, TWIN))
        assert record is not None
        return replace(record, key=replace(TWIN, data="real", protocol=protocol))

    from benchmarks import catalog

    for protocol in catalog.spec("crema_d").protocols:
        work = engine.plan("habits", [of(protocol.name)], trained, lambda _: True)
        assert bool(work.bare) == (protocol.selection == "validation")


def test_the_source_of_an_analysis_is_all_that_makes_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.source.cache_clear()
    before = {name: engine.source(name) for name in ANALYSES}
    real = engine.source_digest
    engine.source.cache_clear()
    monkeypatch.setattr(engine, "source_digest", lambda m: "other" if m.endswith(".changes") else real(m))
    after = {name: engine.source(name) for name in ANALYSES}
    engine.source.cache_clear()
    assert all(before[name] != after[name] for name in ("robustness", "missing", "habits"))
    assert len(set(before.values())) == len(ANALYSES)


def test_the_table_of_analyses_loads_no_torch() -> None:
    code = "import benchmarks.analyses, benchmarks.analysed, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


GOOD = json.loads(Line("missing", TWIN, DIGEST, DIGEST, {"zero": {"": {"accuracy": 0.5}}}).text())


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    raw = json.loads(json.dumps(GOOD))
    change(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("not json", "Expecting value"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "nested too deep"),
        (edited(lambda raw: raw.pop("source")), "'source' is missing"),
        (edited(lambda raw: raw.update(more=1)), "'more' is missing or unknown"),
        (edited(lambda raw: raw.update(schema=2)), "schema 2"),
        (edited(lambda raw: raw.update(analysis="robustness")), "analysis 'robustness'"),
        (edited(lambda raw: raw.update(digest="../x")), "'digest' is no digest"),
        (edited(lambda raw: raw.update(source=7)), "'source' is no digest"),
        (edited(lambda raw: raw.update(values=[])), "'values' is no mapping"),
        (edited(lambda raw: raw["values"].update(zero=None)), "'values.zero' is None"),
        (edited(lambda raw: raw["values"].update(zero=True)), "'values.zero' is True"),
        (edited(lambda raw: raw["values"].update(zero=float("nan"))), "'values.zero' is nan"),
        (edited(lambda raw: raw["values"].update(zero=[float("inf")])), "'values.zero.0' is inf"),
        (edited(lambda raw: raw["values"].update(zero=json.loads("[" * 40 + "]" * 40))), "nested more than"),
        (edited(lambda raw: raw.update(key=5)), "'key' is no mapping"),
        (edited(lambda raw: raw["key"].update(benchmark="../../etc")), "not a plain name"),
        (edited(lambda raw: raw["key"].update(seed="0")), "key.seed"),
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD), "'key' stands in an earlier line"),
    ],
)
def test_a_line_that_cannot_be_trusted_is_refused_and_nothing_is_written(
    line: str, field: str, place: Options, quick: list[Any]
) -> None:
    path = path_of(place.out, "missing")
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    with pytest.raises(InputError) as caught:
        planned(place)
    told = str(caught.value)
    assert field in told
    assert str(path) in told
    assert "\n" not in told
    assert path.read_text() == line + "\n"


def test_a_file_that_is_no_text_is_refused(place: Options) -> None:
    path = path_of(place.out, "missing")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="restore it from version control"):
        planned(place)


@pytest.fixture
def call(place: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """``clcr analyse`` on the runs of the fixture: exit code, stdout, stderr."""
    monkeypatch.setenv("CLCR_CACHE", str(place.cache))

    def analyse(*argv: str) -> tuple[int, str, str]:
        common = ("--out", str(place.out), "--device", "cpu", *(f"--set={value}" for value in place.overrides))
        code = cli.main(["analyse", *argv, *common])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return analyse


def test_the_command_lists_does_and_says(call: Callable[..., Any], place: Options) -> None:
    code, out, _ = call()
    assert code == 0
    assert all(name in out for name in ANALYSES)
    code, out, err = call("missing", "--method", "unimodal", "--dry-run")
    assert (code, out.count("unimodal_vision")) == (0, 2)
    assert "2 runs to do" in err
    assert not path_of(place.out, "missing").exists()
    code, out, err = call("missing", "--method", "unimodal")
    assert (code, len(read(path_of(place.out, "missing")))) == (0, 2)
    assert "2 runs analysed, 0 before" in out
    assert "[2/2] done" in err
    code, out, _ = call("missing", "--method", "unimodal", "--json")
    found = json.loads(out)
    assert (code, found["current"], found["done"], found["failed"], found["bare"]) == (0, 2, 0, [], [])
    code, out, err = call("missing", "--method", "unimodal", "--quiet")
    assert (code, out, err) == (0, "", "")
    code, out, _ = call("--json")
    rows = {row["section"]: row for row in json.loads(out)["sections"]}
    assert rows["missing"]["analysed"] == 2
    assert rows["missing"]["to do"] == RUNS - 2


def test_the_command_refuses_what_is_not_there(call: Callable[..., Any], tmp_path: Path) -> None:
    code, out, err = call("mising")
    assert (code, out) == (2, "")
    assert "unknown section 'mising'; did you mean 'missing'?" in err
    code, _, err = call("missing", "--method", "nothing")
    assert (code, err.count("\n")) == (2, 1)
    assert cli.main(["analyse", "missing", "--out", str(tmp_path / "nowhere")]) == 2


def test_the_command_is_interrupted_with_what_is_finished(
    call: Callable[..., Any], place: Options, quick: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.analyses import missing

    kept = missing.missing

    def stop(team: Any) -> list[Any]:
        if len(quick) == 2:
            raise KeyboardInterrupt
        found: list[Any] = kept(team)
        return found

    monkeypatch.setattr(missing, "missing", stop)
    code, _, err = call("missing")
    assert code == 130
    assert "interrupted with 3 of 7 runs analysed; the same command goes on" in err
    assert len(read(path_of(place.out, "missing"))) == 3


def test_weights_that_cannot_be_trusted_end_the_command_in_one_line(call: Callable[..., Any], place: Options) -> None:
    (store.folder_of(place.out, TWIN) / store.WEIGHTS["epochs"]).write_bytes(b"nothing")
    code, _, err = call("missing", "--method", "late_fusion", "--quiet")
    assert (code, err.count("\n")) == (2, 1)
    assert "not the weights of a run" in err
    assert not path_of(place.out, "missing").exists()
