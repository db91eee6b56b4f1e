"""The findings: sentences follow from their tables, verdicts from declared tests, and broken inputs are refused. All
records are synthetic, but for those that are committed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_records import Sweep, write_records
from synthetic_studies import main_keys, record, searched, written

from benchmarks import studies
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.report import MADE, build, generated, read_published
from benchmarks.report.collect import FULL, OURS, collect
from benchmarks.report.compare import Contrast, contrasts
from benchmarks.report.sections import SECTIONS, analyses, compose, load, rule
from benchmarks.report.sections.budget import participation
from benchmarks.report.sections.data import Data, Source, gather, group_of, keys_of_study
from benchmarks.report.sections.frame import NUMBER, WORDS, none_better, unsupported, verdict
from benchmarks.report.sections.screening import aliases, effects_of, lenth
from benchmarks.report.statistics import paired_t

pytest.importorskip("matplotlib")

RESULTS = Path(__file__).resolve().parents[3] / "results"
LINK = re.compile(r"\[table\]\((findings/[\w-]+\.md)\)")
KEY = RunKey("cmu_mosi", "transcripts", "real", "open", "clcr", "full", 0)


def gathered(out: Path) -> Data:
    return gather(out, collect(out / "records"), read_published(out))


def sentences(out: Path) -> Iterator[tuple[str, str]]:
    """Every line of REPORT.md that says something, and the text of the tables that it links."""
    for line in (out / "REPORT.md").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "!", "<!--", "Tables:", "| ---")):
            names = LINK.findall(line)
            text = LINK.sub("", re.sub(r"`[^`]*`", "", line)).replace("\\", "")
            yield text, "\n".join((out / name).read_text(encoding="utf-8") for name in names).replace("\\", "")


def check_sentences(out: Path) -> int:
    checked = 0
    for text, table in sentences(out):
        if NUMBER.search(text):
            assert table, f"no table stands behind: {text}"
            assert unsupported(text, table) == [], text
            checked += 1
    return checked


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An out folder with all studies, made once; tests only read it."""

    def shift(key: RunKey) -> float:
        worse = {"sgd-published": -0.08, "data-10": -0.1, "share-10": -0.05}
        told = sum(by for name, by in worse.items() if key.profile.endswith(f"+{name}"))
        return told + 0.03 * ("pooling-attention" in key.profile) + 0.06 * (key.protocol == "clip_random")

    out = searched(written(tmp_path_factory.mktemp("full"), shift=shift, curves=True))
    build(out, only="findings", partial=True)
    return out


@pytest.mark.slow
def test_every_number_of_the_report_stands_in_the_table_that_it_links(full: Path) -> None:
    assert check_sentences(full) > 60


def test_the_report_of_the_committed_records_says_what_its_tables_say(tmp_path: Path) -> None:
    for name in ("records", "search"):
        (tmp_path / name).symlink_to(RESULTS / name)
    build(tmp_path, only="findings", partial=True)
    assert check_sentences(tmp_path) >= 10
    text = (tmp_path / "REPORT.md").read_text(encoding="utf-8")
    assert "The full form is better than no\\_hierarchy" in text
    assert "The runs of study screening do not exist yet; `clcr run --study screening` makes them." in text


def test_a_number_without_its_table_would_be_seen() -> None:
    assert unsupported("0.913 in 5 runs, UCF101, share-30", "| 0.913 ± 0.036 (5) |") == []
    assert unsupported("0.914 in 5 runs", "| 0.913 ± 0.036 (5) |") == ["0.914"]
    assert unsupported("−0.032", "0.032") == ["−0.032"]


@pytest.mark.slow
def test_every_link_and_every_picture_is_there(full: Path) -> None:
    text = (full / "REPORT.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([^)]+)\)", text))
    assert all((full / name).is_file() for name in named)
    pictures = {f"findings/{path.name}" for path in (full / "findings").glob("*.png")}
    assert pictures == {name for name in named if name.endswith(".png")} != set()


@pytest.mark.slow
def test_every_section_speaks_and_every_verdict_is_one_of_three(full: Path) -> None:
    data = gathered(full)
    text = (full / "REPORT.md").read_text(encoding="utf-8")
    for name in SECTIONS:
        section = load(name)
        assert section.name == name
        assert f"## {section.title}\n" in text
        made = section.build(data) if name in ("claims", "budget") else None
        for claim in made.claims if made else ():
            assert {part.partition(":")[0] for part in claim.verdict.split("; ")} <= set(WORDS)


def test_the_same_bytes_every_time_in_any_order(tmp_path: Path) -> None:
    full, out = written(tmp_path / "first", ["leak"], curves=True), tmp_path / "again"
    build(full, only="findings", partial=True)
    shutil.copytree(full, out)
    for path in [*(out / "records").glob("*.jsonl"), *(out / "studies" / "records").glob("*.jsonl")]:
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    shutil.rmtree(out / "findings")
    build(out, only="findings", partial=True)
    for path in [*(full / "findings").iterdir(), full / "REPORT.md"]:
        assert (out / path.relative_to(full)).read_bytes() == path.read_bytes(), path.name


def test_check_compares_the_findings_and_sees_an_edit(tmp_path: Path) -> None:
    out = write_records(tmp_path / "out", Sweep("cmu_mosi", "transcripts", "real", "open").records())
    build(out, partial=True)
    assert generated.compare(out).failures == ()
    (out / "REPORT.md").write_text("# Findings\n\nAll claims held.\n", encoding="utf-8")
    assert any("REPORT.md" in failure.what for failure in generated.compare(out).failures)


def test_files_of_findings_that_no_section_makes_any_more_go(tmp_path: Path) -> None:
    out = write_records(tmp_path / "out", Sweep("cmu_mosi", "transcripts", "real", "open").records())
    (out / "findings").mkdir()
    (out / "findings" / "budget_shares.md").write_text("old")
    (out / "findings" / "mine.md").write_text("mine")
    build(out, only="findings", partial=True)
    assert MADE.fullmatch("budget_shares.md")
    assert not (out / "findings" / "budget_shares.md").exists()
    assert (out / "findings" / "mine.md").read_text() == "mine"


def test_a_study_that_is_partly_run_says_so(tmp_path: Path) -> None:
    out = written(tmp_path, ["leak"])
    path = out / "studies" / "records" / "ravdess.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    made = load("leak").build(gathered(out))
    assert made.sentences[0].text.startswith("PARTIAL: 3 runs of ")
    assert made.sentences[0].text in made.tables[0].intro


# Verdicts


def contrast(gap: float, spread: float, metric: str = "accuracy", seeds: int = 5) -> Contrast:
    """Row a minus row b: about ``gap``, with differences that spread by ``spread``."""
    wobble = spread * np.array([1, -1, 0.5, -0.5, 0] * 4)[:seeds]
    place = "ravdess.actor_disjoint" if metric == "accuracy" else "cmu_mosi.transcripts"
    scores = {
        ("a", FULL): {metric: {seed: 0.5 + gap + float(wobble[seed]) for seed in range(seeds)}},
        ("b", FULL): {metric: dict.fromkeys(range(seeds), 0.5)},
    }
    return contrasts(group_of(place, scores), metric, [(("a", FULL), ("b", FULL))])[0]


@pytest.mark.parametrize(
    ("gap", "spread", "metric", "better", "word"),
    [
        (0.05, 0.002, "accuracy", 1, "held"),
        (0.05, 0.002, "accuracy", -1, "did not hold"),
        (-0.05, 0.002, "mae", 1, "held"),
        (0.05, 0.002, "mae", 1, "did not hold"),
        (0.0001, 0.001, "accuracy", 1, "did not hold"),  # not significant, and no room for a point
        (0.0001, 0.001, "mae", -1, "did not hold"),
        (0.005, 0.05, "accuracy", 1, "undecided"),
        (0.005, 0.05, "mae", -1, "undecided"),
    ],
)
def test_a_verdict_follows_from_the_test(gap: float, spread: float, metric: str, better: int, word: str) -> None:
    assert verdict(contrast(gap, spread, metric), better) == word


def test_one_seed_decides_nothing() -> None:
    assert verdict(contrast(0.2, 0.0, seeds=1)) == "undecided"


def test_that_none_is_better_holds_only_where_there_is_no_room_for_it() -> None:
    close, far, better = contrast(0.0, 0.001), contrast(0.005, 0.05), contrast(0.05, 0.001)
    assert none_better("x", [("set", [close])], "t").verdict == "held"
    assert none_better("x", [("set", [close, far])], "t").verdict == "undecided"
    assert none_better("x", [("set", [close, far, better])], "t").verdict == "did not hold"


# Sections


def test_a_planted_effect_is_found_and_nothing_else_in_the_screening() -> None:
    names = [f"f{n}" for n in range(16)]
    levels = np.array(studies.design(), dtype=float)
    rng = np.random.default_rng(3)
    scores = (0.7 + 0.02 * levels[:, 4])[:, None] + 0.01 * rng.standard_normal((32, 2)) + np.array([[0.0, 0.1]])
    effects, told = effects_of(names, levels, scores)
    mains = {effect.name: effect for effect in effects if effect.main}
    assert "31 degrees of freedom" in told
    assert [name for name, effect in mains.items() if effect.p_holm < 0.05] == ["f4"]
    assert mains["f4"].value == pytest.approx(0.04, abs=0.01)
    for place, name in enumerate(names):  # the textbook's: mean at high minus mean at low
        column = levels[:, place]
        assert mains[name].value == pytest.approx(scores[column > 0].mean() - scores[column < 0].mean())


def test_pairs_share_columns_with_pairs_but_never_with_a_factor() -> None:
    levels = np.array(studies.design(), dtype=float)
    groups = aliases([f"f{n}" for n in range(16)], levels)
    assert sum(map(len, groups)) == 16 * 15 // 2
    assert len(groups) == 15
    for group in groups:
        columns = [levels[:, int(a[1:])] * levels[:, int(b[1:])] for a, b in group]
        assert all((column == columns[0]).all() for column in columns)
        assert not any((columns[0] == levels[:, n]).all() for n in range(16))


def test_lenths_error_is_that_of_his_paper() -> None:
    effects = [0.5, -0.5, 0.25, 1.0, -0.75, 30.0, 0.6]
    first = 1.5 * np.median(np.abs(effects))
    assert lenth(effects) == pytest.approx(1.5 * np.median([abs(e) for e in effects if abs(e) < 2.5 * first]))


def test_the_rule_counts_what_gains_everywhere_and_nothing_else(tmp_path: Path) -> None:
    def shift(key: RunKey) -> float:
        if key.profile.endswith(("+heads-8", "+heads-1")):
            return 0.03 if key.profile.endswith("8") else 0.02
        return (-0.03 if key.benchmark == "ravdess" else 0.05) * key.profile.endswith("+rho-60")

    data = gathered(written(tmp_path, ["choices"], shift))
    table = next(table for table in load("choices").build(data).tables if table.name == "rule")
    told = dict(zip(table.frame["setting"], table.frame["verdict"], strict=True))
    assert told["heads-8"] == "counts"
    assert told["heads-1"] == "does not count: heads-8 moves the same field"
    assert told["rho-60"] == "does not count"
    assert not set(told) & {"kernel-5", "batch-64", "pooling-attention"}  # not CLCR's own


def test_a_gain_of_the_rule_is_in_standard_deviations_of_the_default(tmp_path: Path) -> None:
    data = gathered(written(tmp_path, ["choices"]))
    place, changed, default = "cmu_mosi.transcripts", Source("open+heads-1", OURS), Source("open", OURS)
    found = rule.judged(data, "heads-1", [("mosi", place, changed, default)])
    new, old = (data.values(place, source, "valid")["mae"] for source in (changed, default))
    gains = [(old[seed] - new[seed]) / np.std(list(old.values()), ddof=1) for seed in new]
    assert found is not None
    assert found.mean == pytest.approx(np.mean(gains))
    assert found.p == pytest.approx(paired_t(gains, [0.0] * len(gains)).p)


def test_participation_leaves_out_modalities_of_one_token(tmp_path: Path) -> None:
    key = replace(KEY, benchmark="cmu_mosi")
    told = {f"participation.{level}.0": 0.2 * (level + 1) for level in range(3)}
    diagnostics = {**told, **{f"participation.{level}.1": 1.0 for level in range(3)}, "pi.0": 0.5}
    out = write_records(tmp_path, [record(key, diagnostics=diagnostics)])
    assert participation(gathered(out), "cmu_mosi.transcripts", Source("open", OURS)) == {0: pytest.approx(0.4)}


def test_before_and_after_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [record(key) for key in main_keys("choices") if key.variant == FULL]
    rivals = [record(replace(one.key, method="late_fusion")) for one in before]
    after = [record(replace(one.key, profile="open+revised"), 0.05) for one in (*before, *rivals)]
    monkeypatch.setattr(studies, "after", lambda: "open+revised")
    made = load("before_after").build(gathered(write_records(tmp_path, [*before, *rivals, *after])))
    assert [table.name for table in made.tables] == ["methods", "rivals_before", "rivals_after"]
    assert next(claim for claim in made.claims if claim.claim == "The change makes CLCR better").verdict == "held"


def test_the_runs_of_a_study_are_those_that_are_planned() -> None:
    plan = pytest.importorskip("benchmarks.runner.plan")
    for name, study in studies.declared()[1].items():
        parts = plan.of_study(study)
        keys = keys_of_study(study)
        assert {key.profile for key in keys} == {part.profile for part in parts}, name
        assert sorted({key.seed for key in keys}) == sorted(parts[0].seeds)
        assert len(keys) == len(set(keys))


# Inputs


def line(**changes: Any) -> str:
    key = {name: getattr(KEY, name) for name in KEY.__dataclass_fields__}
    raw = {"schema": 1, "analysis": "gates", "key": key, "digest": "a" * 64, "source": "b" * 64, "values": {"x": 1.0}}
    return json.dumps({**raw, **changes})


def test_an_analysis_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "gates.jsonl"
    path.write_text(line() + "\n")
    (found,) = analyses.read(path)
    assert (found.key, analyses.number(found.values, "x"), analyses.number(found.values, "y")) == (KEY, 1.0, None)
    path.write_text(found.line + "\n")
    assert analyses.read(path) == (found,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an analysis of schema 1"),
        (line(schema=2), "not an analysis of schema 1"),
        (line(more=1), "field 'more' is missing or unknown"),
        (line(analysis="other"), "field 'analysis' is 'other', expected 'gates'"),
        (line(digest="../../etc"), "field 'digest' is not a sha256"),
        (line(values=[]), "field 'key' or 'values' is not a mapping"),
        (line(values={"x": {"y": float("nan")}}), "field 'values.x.y' is not a finite number"),
        (line(values={"x": [1, True]}), "field 'values.x.1' is not a finite number"),
        (line(values={"x": "\x1b[2J"}), "field 'values.x' is not a finite number or a name"),
        (line(key={"benchmark": "../x"}), "field 'key'"),
        (line() + "\n" + line(), "stands there already"),
    ],
)
def test_a_broken_analysis_is_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "gates.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(told)) as refused:
        analyses.read(path)
    assert str(refused.value).startswith(f"{path}:")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [{"time_s": -1}, {"time_s": "x"}, {"method": "<b>"}, {"profile": 3}])
def test_a_broken_trial_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    out = searched(write_records(tmp_path, [record(KEY)]), 1)
    path = out / "search" / "open.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text().splitlines()[0]), **change}) + "\n")
    with pytest.raises(InputError, match=r"open\.jsonl:1: field"):
        build(out, only="findings", partial=True)


def test_compute_sums_runs_studies_and_searches(tmp_path: Path) -> None:
    out = searched(write_records(tmp_path, [record(KEY, time_s=3600.0)]), 50)
    write_records(out / "studies", [record(replace(KEY, profile="open+share-10"), time_s=7200.0)])
    rows = compose.compute_table(gathered(out)).parts["real"][0].rows
    assert [row[2].text for row in rows] == ["1.00", "2.00", "1.00", "4.00"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [("a_b `clcr run` <i>", "a\\_b `clcr run` &lt;i&gt;"), ("one ` more", "one \\` more"), ("a\n# b", "a \\# b")],
)
def test_what_is_said_is_shown_as_it_is(said: str, shown: str) -> None:
    assert compose.text(said) == shown


def test_the_profile_after_is_read_and_checked(tmp_path: Path) -> None:
    def after(text: str) -> Callable[[], str]:
        path = tmp_path / f"{abs(hash(text))}.yaml"
        path.write_text(text)
        return lambda: studies.after(path)

    assert after("after: {profile: open+revised}")() == "open+revised"
    assert after("settings: {}")() == ""
    for broken in ("after: {profiles: x}", "after: {profile: 3}", "after: []"):
        with pytest.raises(InputError, match="after"):
            after(broken)()
