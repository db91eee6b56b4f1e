"""`clcr submit`: a good submission is merged whole, a tampered one is told in one line and touches nothing."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import zipfile
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from borrowed import OPEN, RESULTS, TWIN, Raw, committed, rekey, repredict, rewrite, state, submission, target

from benchmarks import archive, catalog, cli, curves
from benchmarks.curves import identity
from benchmarks.metrics import compute
from benchmarks.record import RunKey
from benchmarks.report import build
from benchmarks.report.collect import collect
from benchmarks.submission import reading

Tamper = Callable[[Path], None]
RUNS = 10  # seeds of each row that is borrowed


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))


def submit(folder: Path, into: Path, *flags: str) -> int:
    return cli.main(["submit", str(folder), "--into", str(into), *flags])


def hangs_together(into: Path) -> None:
    """Every record has its predictions and, where it was trained, its curve; metrics follow."""
    for path in sorted((into / "records").glob("*.jsonl")):
        arrays = archive.read_npz(into / "predictions" / f"{path.stem}.npz")
        known = curves.read(into / "curves" / f"{path.stem}.jsonl")
        for record in committed(path.stem, into):
            found = archive.predictions_of(arrays, record.key, record.predictions)
            assert archive.predictions_digest(found) == record.predictions
            if record.key.method != "linear":
                assert not curves.fault(record, known[identity(record)])


def test_a_good_submission_is_merged_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, into = submission(tmp_path / "dir"), target(tmp_path / "into")
    before, given = state(into), state(folder)
    assert submit(folder, into, "--check", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["accepted"], told["known"], told["written"]) == (2 * RUNS, 0, [])
    assert [row["seeds"] for row in told["rows"]] == [f"0-{RUNS - 1}"] * 2
    assert state(into) == before
    assert submit(folder, into) == 0
    assert f"{2 * RUNS} runs accepted, 0 there already; 6 files written" in capsys.readouterr().out
    merged = state(into)
    for name, content in before.items():
        if name.endswith(".jsonl"):  # what was there stays, byte for byte
            assert set(content.splitlines()) < set(merged[name].splitlines())
    hangs_together(into)
    assert submit(folder, into) == 0
    assert f"0 runs accepted, {2 * RUNS} there already; 0 files written" in capsys.readouterr().out
    assert state(into) == merged
    assert state(folder) == given
    assert submit(folder, into, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_tables_show_a_strangers_row_as_such_without_its_package(tmp_path: Path) -> None:
    folder, into = submission(tmp_path / "dir", [TWIN]), target(tmp_path / "into")
    every(provenance__method__label="<b>B_|&$")(folder)
    assert submit(folder, into) == 0
    build(into)
    text = (into / "tables" / "main.md").read_text()
    rows = {line.split(" |")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert rows["| borrowed (external)"].replace("borrowed (external)", "Late fusion") in text
    assert "&lt;b&gt;B\\_\\|&amp;\\$, Nobody, Nothing, 2026; run from borrowed-method 0.1.0" in text
    assert "borrowed (external) &" in (into / "tables" / "main.tex").read_text()
    assert "borrowed" in (into / "tables" / "significance.csv").read_text()


def first(**changes: Any) -> Tamper:
    """Set fields of the first record of the twin's runs, by dotted name."""
    return at("crema_d", **changes)


def at(benchmark: str, **changes: Any) -> Tamper:
    def tamper(folder: Path) -> None:
        rewrite(folder, benchmark, lambda records, _: assign(records[0], changes))

    return tamper


def assign(raw: Raw, changes: dict[str, Any]) -> None:
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        place: Any = raw
        for name in path:
            place = place[int(name) if isinstance(place, list) else name]
        if value is ABSENT:
            del place[last]
        else:
            place[last] = value


ABSENT = object()


def every(**changes: Any) -> Tamper:
    """Set fields of all records of the twin's runs, so that they still agree among themselves."""

    def tamper(folder: Path) -> None:
        rewrite(folder, "crema_d", lambda records, _: [assign(record, changes) for record in records])

    return tamper


def text_of(benchmark: str, part: str, change: Callable[[list[str]], list[str]]) -> Tamper:
    def tamper(folder: Path) -> None:
        path = folder / part / f"{benchmark}.jsonl"
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return tamper


def curve(change: Callable[[Raw], None]) -> Tamper:
    return lambda folder: rewrite(folder, "crema_d", lambda _, courses: change(courses[0]))


def predicted(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], score: bool = True) -> Tamper:
    """Change the first run's arrays and make all digests, and the metrics, agree with the change."""
    names = catalog.spec("crema_d").metrics
    scored = (lambda x: compute(names, x["prediction"], x["target"])) if score else None
    return lambda folder: repredict(folder, "crema_d", change, scored)


def relabelled(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**arrays, "target": arrays["prediction"].argmax(1).astype(arrays["target"].dtype)}


def easier(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Only the samples that were predicted rightly."""
    kept = arrays["prediction"].argmax(1) == arrays["target"]
    return {name: array[kept] for name, array in arrays.items()}


def npz(make: Callable[[Path], None]) -> Tamper:
    return lambda folder: make(folder / "predictions" / "crema_d.npz")


def compressed(path: Path) -> None:
    arrays = archive.read_npz(path)
    np.savez_compressed(path, **arrays)


def pickled(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object), allow_pickle=True)


def boasting(path: Path) -> None:
    """A header that promises far more numbers than there are bytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path, "a") as into:
        into.writestr("big.npy", file.getvalue())


def linked(part: str) -> Tamper:
    def tamper(folder: Path) -> None:
        path = next((folder / part).glob("crema_d.*"))
        path.rename(folder.parent / path.name)
        path.symlink_to(folder.parent / path.name)

    return tamper


def nothing_to_compare(folder: Path) -> None:
    for part in ("records", "predictions", "curves"):
        next((folder.parent / "into" / part).glob("ravdess.*")).unlink()


def picked(records: list[Raw], courses: list[Raw]) -> None:
    """The second best epoch, value and metrics all made to agree."""
    scores = courses[0]["folds"][0]["score"]
    value = sorted(set(scores))[-2]
    records[0]["selection"].update(epoch=scores.index(value) + 1, value=value)
    records[0]["metrics"]["valid"]["accuracy"] = value


def cut(course: Raw) -> None:
    for name in ("loss", "score"):
        course["folds"][0][name] = course["folds"][0][name][:-1]


def keyed(change: Callable[[RunKey], RunKey]) -> Tamper:
    return lambda folder: rekey(folder, "crema_d", change)


def failed(folder: Path) -> None:
    first(status="failed", error="RuntimeError: diverged", predictions="", selection={}, metrics={})(folder)
    text_of("crema_d", "curves", lambda lines: lines[1:])(folder)


def copied(lines: list[str]) -> list[str]:
    return [*lines, lines[0].replace('"time_s":', '"time_s":1')]


def without(seed: int) -> Tamper:
    return text_of("crema_d", "records", lambda lines: [line for line in lines if f'"seed":{seed},' not in line])


def both(*tampers: Tamper) -> Tamper:
    return lambda folder: [tamper(folder) for tamper in tampers] and None


RECORDS, ARRAYS = "records/crema_d.jsonl", "predictions/crema_d.npz"
REJECTED: dict[str, tuple[Tamper, tuple[str, ...]]] = {
    # What the lines say of themselves.
    "what was edited": (
        text_of("crema_d", "records", lambda lines: [lines[0].replace('"epochs":8', '"epochs":80'), *lines[1:]]),
        (f"{RECORDS}:1", "'digest'", "edited"),
    ),
    "no JSON": (text_of("crema_d", "records", lambda lines: [*lines, "{"]), (f"{RECORDS}:{RUNS + 1}", "not JSON")),
    "endless brackets": (
        text_of("crema_d", "records", lambda lines: [*lines, "[" * 200_000]), (f"{RECORDS}:{RUNS + 1}", "not JSON")),
    "NaN": (first(time_s=float("nan")), (f"{RECORDS}:1", "NaN is not a number")),
    "a number too large": (
        text_of("crema_d", "records", lambda lines: [re.sub('"time_s":[^,]*', '"time_s":1e999', x) for x in lines]),
        (f"{RECORDS}:1", "'time_s'", "expected seconds"),
    ),
    "an unknown field": (first(comment="best"), (f"{RECORDS}:1", "'comment'", "unknown")),
    "a field missing": (first(folds=ABSENT), (f"{RECORDS}:1", "'folds'", "missing")),
    "a path for a name": (every(key__method="../../x"), (f"{RECORDS}:1", "'key'", "small letters")),
    "a seed that is no number": (first(key__seed=True), (f"{RECORDS}:1", "'key'", "small letters")),
    "a terminal's orders": (
        every(provenance__method__label="\x1b[2Jhello"), (f"{RECORDS}:1", "'provenance.method.label'", "\\x1b")),
    # Which runs there are.
    "a seed left out": (without(1), ("curves/crema_d.jsonl", "belongs to no record")),
    "a seed and its curve left out": (
        both(without(1), text_of("crema_d", "curves", lambda lines: [x for x in lines if '"seed":1,' not in x])),
        (f"{RECORDS}:1", "'key.seed'", "lacks 1", "run those too"),
    ),
    "seeds with a gap": (
        keyed(lambda key: replace(key, seed=12) if key.seed == 9 else key), (RECORDS, "'key.seed'", "lacks 9-11")),
    "several tries": (
        text_of("crema_d", "records", copied), (f"{RECORDS}:{RUNS + 1}", "a second line", "tried more than once")),
    "a failed run": (
        failed,
        (f"{RECORDS}:1", "'status'", "RuntimeError: diverged", "a failed seed is a result too"),
    ),
    "a variant alone": (
        keyed(lambda key: replace(key, variant="small")), ("the tables would have a hole", "borrowed/full", "submit")),
    "a suite's method": (every(key__method="misa"), ("'key'", "misa", "committed with another result")),
    "a suite's name for another's code": (
        every(key__method="clcr", key__variant="no_l_pr"),
        (f"{RECORDS}:1", "'what.source_digest'", "not the suite's clcr", "a name of its own"),
    ),
    # Where it was made.
    "changed code": (every(provenance__dirty=True), (f"{RECORDS}:1", "'provenance.dirty'", "run again")),
    "no commit": (every(provenance__commit=""), (f"{RECORDS}:1", "'provenance.commit'", "checkout")),
    "no package": (every(provenance__method=ABSENT), (f"{RECORDS}:1", "'provenance.method'", "docs/submit.md")),
    "no commit of the package": (
        every(provenance__method__commit=""), (f"{RECORDS}:1", "'provenance.method.commit'", "commit the package")),
    "an address that is a script": (
        every(provenance__method__url="javascript:x"), (f"{RECORDS}:1", "'provenance.method.url'", "[project.urls]")),
    "other samples": (
        every(provenance__not_official="42 samples in test"), (f"{RECORDS}:1", "'provenance.not_official'", "prepare")),
    "a better ceiling": (
        every(provenance__ceiling={"accuracy": 0.1}), (f"{RECORDS}:1", "'provenance.ceiling'", "run it again")),
    # By which rules.
    "selection on the test set": (
        every(what__protocol__selection="test"), (f"{RECORDS}:1", "'what.protocol'", "selection is 'test'")),
    "another trainer": (every(what__trainer=1), (f"{RECORDS}:1", "'what.trainer'", "1, here")),
    "more epochs": (
        every(what__config__training__epochs=80),
        (f"{RECORDS}:1", "'what.config.training.epochs'", "80, profile tiny says 8", "--set"),
    ),
    "a rate beyond the search": (
        every(what__config__training__lr=0.5), (f"{RECORDS}:1", "'what.config.training.lr'", "says 0.002")),
    "other data": (first(what__data_digest="cd" * 32), (f"{RECORDS}:1", "'what.data_digest'", "the synthetic twin")),
    "an unknown profile": (every(key__profile="huge"), (f"{RECORDS}:1", "'key'", "profile 'huge'")),
    "nothing to compare with": (nothing_to_compare, ("records/ravdess.jsonl:1", "clcr prepare ravdess")),
    # What the numbers rest on.
    "a better metric": (
        first(metrics__test__accuracy=0.99), (f"{RECORDS}:1", "'metrics.test.accuracy'", "0.99, the predictions give")),
    "better predictions": (
        predicted(lambda x: {**x, "prediction": x["prediction"][::-1].copy()}, score=False),
        (f"{RECORDS}:1", "'metrics.test.", "the predictions give"),
    ),
    "predictions of another run": (first(predictions="ef" * 32), (ARRAYS, "no predictions", "run it again")),
    "infinite predictions": (
        predicted(lambda x: {**x, "prediction": x["prediction"] / np.float32(0)}, score=False),
        (ARRAYS, "'prediction'", "not finite", "mend"),
    ),
    "a class that is not there": (
        predicted(lambda x: {**x, "prediction": np.pad(x["prediction"], ((0, 0), (0, 1)))}),
        (ARRAYS, "'prediction'", "float32 [256, 7], expected float32 [256, 6]"),
    ),
    "easy samples only": (predicted(easier), (ARRAYS, "'index'", "officially 256", "test on all of them")),
    "labels to taste": (predicted(relabelled), (ARRAYS, "'target'", "the synthetic twin", "prepare crema_d")),
    "other groups": (predicted(lambda x: {**x, "group": x["group"] + 1}), (ARRAYS, "'group'", "not that of")),
    "a fold to taste": (
        at("ravdess", folds__3__valid__accuracy=0.99),
        ("records/ravdess.jsonl:1", "'metrics.valid.accuracy'", "the mean over the folds is"),
    ),
    "folds that cannot be": (
        lambda folder: rewrite(folder, "ravdess", lambda rs, _: [
            fold["test"].update(accuracy=0.99) for fold in rs[0]["folds"]] and None),
        ("records/ravdess.jsonl:1", "'folds'", "accuracy"),
    ),
    # How the epoch was chosen.
    "an epoch to taste": (
        lambda folder: rewrite(folder, "crema_d", picked), (f"{RECORDS}:1", "'selection.epoch'", "the curve says")),
    "a value to taste": (first(selection__value=0.99), (f"{RECORDS}:1", "'selection.value'", "on valid")),
    "no curve": (
        text_of("crema_d", "curves", lambda lines: lines[1:]), (f"{RECORDS}:1", "no curve", "clcr report")),
    "a curve cut short": (curve(cut), (f"{RECORDS}:1", "7 epochs, the budget is 8", "the whole curve")),
    "a curve of the test set": (
        curve(lambda c: c.update(split="test")), (f"{RECORDS}:1", "selects on test, the protocol on valid")),
    "two curves": (
        text_of("crema_d", "curves", lambda lines: [*lines, lines[0]]),
        (f"curves/crema_d.jsonl:{RUNS + 1}", "a second curve")),
    "a curve of words": (
        curve(lambda c: c["folds"][0].update(score=["a"])), ("curves/crema_d.jsonl:1", "not a learning curve")),
    # What the files are.
    "a pickle": (npz(pickled), (ARRAYS, "without pickles", "clcr report")),
    "a bomb": (npz(compressed), (ARRAYS, "compressed", "clcr report")),
    "a boast": (npz(boasting), (ARRAYS, "does not fit its bytes")),
    "no archive": (npz(lambda path: path.write_bytes(b"PK")), (ARRAYS, "not a plain .npz")),
    "a link for records": (linked("records"), (RECORDS, "cannot be opened", "plain file")),
    "a link for predictions": (linked("predictions"), (ARRAYS, "cannot be opened", "plain file")),
    "a stranger's file": (
        lambda folder: (folder / "records" / "run.sh").write_text("true") and None, ("records/run.sh", "take it out")),
    "a file whose name gives orders": (
        lambda folder: (folder / "records" / "\x1b[2J.sh").write_text("") and None, ("records/?[2J.sh", "take it out")),
    "two sources": (
        lambda folder: rewrite(folder, "crema_d", lambda rs, _: rs[2]["what"].update(source_digest="cd" * 32)),
        (f"{RECORDS}:3", "'what.source_digest'", "another source or package", "at one commit"),
    ),
    "an unknown benchmark": (
        lambda folder: (folder / "records" / "ravdes.jsonl").write_text("{}") and None, ("did you mean 'ravdess'?",)),
    "no curves folder": (
        lambda folder: (folder / "curves").rename(folder / "graphs") and None, ("curves", "no such folder")),
}  # fmt: skip


NEEDS_FOLDS = ("nothing to compare with", "a fold to taste", "folds that cannot be")


@pytest.mark.parametrize("name", REJECTED)
def test_a_tampered_submission_is_refused_in_lines_and_touches_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tamper, words = REJECTED[name]
    folds = name in NEEDS_FOLDS
    folder = submission(tmp_path / "dir", [TWIN, OPEN] if folds else [TWIN])
    into = target(tmp_path / "into", ("crema_d", "ravdess") if folds else ("crema_d",))
    tamper(folder)
    before = state(tmp_path)
    assert submit(folder, into) == 1
    out, err = capsys.readouterr()
    assert not out
    lines = err.splitlines()
    assert all(line.startswith("clcr: ") and line.isprintable() for line in lines), err
    assert any(all(word in line for word in words) for line in lines), err
    assert state(tmp_path) == before
    assert submit(folder, into, "--json", "--quiet") == 1
    assert json.loads(capsys.readouterr().out)["rejected"] == [line.removeprefix("clcr: ") for line in lines]


def test_one_fault_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(
        ("a better metric", "a failed run", "an epoch to taste", "a pickle", "several tries")
    ):
        folder, into = submission(tmp_path / f"{number}" / "dir", [TWIN]), target(tmp_path / f"{number}" / "into")
        REJECTED[name][0](folder)
        assert submit(folder, into) == 1
        mine = capsys.readouterr().err.splitlines()
        assert len(mine) == 1, mine


def test_a_result_that_is_committed_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, into = submission(tmp_path / "dir", [TWIN]), target(tmp_path / "into")
    assert submit(folder, into) == 0
    before = state(into)
    predicted(lambda x: {**x, "prediction": x["prediction"] * np.float32(0.5)})(folder)
    assert submit(folder, into) == 1
    assert "is committed with another result, which stands" in capsys.readouterr().err
    assert state(into) == before


def test_a_name_that_another_package_has_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = target(tmp_path / "into", ("ravdess", "cmu_mosi"))
    assert submit(submission(tmp_path / "one", [("cmu_mosi", "real", "transcripts")]), into) == 0
    other = submission(tmp_path / "two", [OPEN])
    rewrite(other, "ravdess", lambda rs, _: [r["provenance"]["method"].update(package="mine") for r in rs] and None)
    assert submit(other, into) == 1
    assert "a method of package borrowed-method has this name; rename yours" in capsys.readouterr().err


def test_numbers_that_a_search_found_are_accepted(tmp_path: Path) -> None:
    """The open sets' late fusion has a rate, a decay and a dropout of its own: inside the bounds of the search."""
    config = next(r for r in committed("ravdess") if r.key.method == "late_fusion").what["config"]
    assert config["training"]["lr"] != 0.002
    assert submit(submission(tmp_path / "dir", [OPEN]), target(tmp_path / "into")) == 0


def test_files_too_large_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, into = submission(tmp_path / "dir"), target(tmp_path / "into")
    monkeypatch.setattr(reading, "MOST_TEXT", 1000)
    monkeypatch.setattr(reading, "MOST_BINARY", 1000)
    assert submit(folder, into) == 1
    err = capsys.readouterr().err
    assert err.count("at most 1000 are read") == 6


@pytest.mark.parametrize(("folder", "into"), [("nowhere", "into"), ("dir", "nowhere"), ("into", "into")])
def test_folders_that_will_not_do_are_bad_input(
    folder: str, into: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submission(tmp_path / "dir", [TWIN])
    target(tmp_path / "into")
    assert submit(tmp_path / folder, tmp_path / into) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def killed_at(writes: int, folder: Path, into: Path) -> None:
    """Submit, and die by kill -9 in the middle of a write."""
    real, left = archive.write_bytes, [writes]

    def write(path: Path, content: bytes) -> None:
        if left[0] == 0:
            (path.parent / f".{path.name}.0.tmp").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        real(path, content)

    archive.write_bytes = write
    submit(folder, into, "--quiet")


def test_killed_at_any_write_the_results_hang_together_and_the_same_command_completes_them(tmp_path: Path) -> None:
    folder, calm = submission(tmp_path / "dir"), target(tmp_path / "calm")
    assert submit(folder, calm) == 0
    for writes in range(6):
        into = target(tmp_path / f"into-{writes}")
        process = get_context("fork").Process(target=killed_at, args=(writes, folder, into))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        hangs_together(into)
        assert collect(into / "records").holes == ()
        assert submit(folder, into) == 0
        merged = {name: x for name, x in state(into).items() if not name.endswith(".tmp")}
        assert merged == state(calm)


def test_the_committed_results_would_be_accepted_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but CLCR, as if they came from elsewhere: the rules ask nothing that the suite lacks."""
    into = target(tmp_path / "into")
    for part in ("records", "curves"):
        path = into / part / "crema_d.jsonl"
        kept = [line for line in path.read_text().splitlines(True) if '"method":"clcr"' in line]
        path.write_text("".join(kept))
    folder = tmp_path / "dir"
    for part, suffix in (("records", "jsonl"), ("predictions", "npz"), ("curves", "jsonl")):
        (folder / part).mkdir(parents=True)
        (folder / part / f"crema_d.{suffix}").write_bytes((RESULTS / part / f"crema_d.{suffix}").read_bytes())
    assert submit(folder, into) == 0, capsys.readouterr().err
    assert state(into)["records/crema_d.jsonl"] == state(RESULTS)["records/crema_d.jsonl"]
