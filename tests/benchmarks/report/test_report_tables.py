"""The tables' content: hand-checked numbers, marks, words, and what is never mixed. All records are synthetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_records import TOY, Sweep, Write, toy

from benchmarks import archive
from benchmarks.record import RunRecord
from benchmarks.report import tables_of
from benchmarks.report.ablation import ablation_table
from benchmarks.report.collect import Collected, collect
from benchmarks.report.costs import cost_table
from benchmarks.report.examples import Examples
from benchmarks.report.layout import Section, Table
from benchmarks.report.published import Number, Published
from benchmarks.report.render import markdown
from benchmarks.report.significance import significance_table
from benchmarks.report.tables import main_table

GOLDEN = Path(__file__).with_name("golden_main.md")
OURS, RIVAL, WEAK = (0.70, 0.72, 0.71), (0.71, 0.72, 0.73), (0.90, 0.93, 0.93)


def gathered(write: Write, records: list[RunRecord]) -> Collected:
    return collect(write(records) / "records", specs={"toy": TOY})


def three() -> list[RunRecord]:
    rows = {"clcr": OURS, "misa": RIVAL, "linear": WEAK}
    return [toy(m, s, v) for m, values in rows.items() for s, v in enumerate(values)]


def section(table: Table, data: str, title: str) -> Section:
    return next(s for s in table.parts[data] if title in s.title)


def cells(found: Section) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in found.rows}


def test_the_main_table_is_the_golden_one(write: Write) -> None:
    assert markdown(main_table(gathered(write, three()))) == GOLDEN.read_text(encoding="utf-8")


def test_the_golden_marks_follow_from_scipy() -> None:
    """The only significant comparison of MAE in the golden table is the one with the linear floor."""
    p = [stats.ttest_rel(OURS, rival).pvalue for rival in (RIVAL, WEAK)]
    assert p[0] > 0.05
    assert 2 * p[1] < 0.05


def test_marks_and_bold_know_the_better_direction(write: Write) -> None:
    """A rival with the smaller error is the best, and CLCR is marked as worse than it."""
    better = [toy("misa", s, v - 0.2 + 0.001 * s) for s, v in enumerate(OURS)]
    mine = [r for r in three() if r.key.method != "misa"] + better
    found = section(main_table(gathered(write, mine)), "twin", "Toy")
    rows = cells(found)
    assert (rows["MISA"][0][-1], rows["Linear"][0][-1], rows["CLCR"][0][-1]) == ("‡", "†", ")")
    assert {row[0].text: row[1].bold for row in found.rows} == {"CLCR": False, "MISA": True, "Linear": False}
    assert any("CLCR is significantly worse than MISA" in note for note in found.notes)


def test_low_power_is_said_in_words(write: Write) -> None:
    notes = " ".join(section(main_table(gathered(write, three())), "twin", "Toy").notes)
    assert "power was too low to conclude on MISA" in notes
    assert "does not show that they are equal" in notes
    assert "Not run here: Late fusion, OGM-GE and Unimodal." in notes


def test_every_section_names_data_protocol_profile_n_and_test(write: Write) -> None:
    records = [r for s in (Sweep(variants={"no_reg": 0.6}), Sweep(data="real")) for r in s.records()]
    for table in tables_of(collect(write(records) / "records"), Published(), Examples(Path("nowhere"))):
        for data, kind in (("real", "Real data"), ("twin", "Synthetic twin")):
            for found in table.parts[data]:
                facts = " ".join(found.facts)
                assert kind in facts
                assert "protocol paper" in facts
                assert "profile tiny" in facts
                assert "n = 5 seeds (0-4)" in facts
                if table.name in ("main", "ablation", "significance"):
                    assert "paired t by seed" in facts
                    assert "amily: the" in facts
                    assert "Holm" in facts


def test_real_and_synthetic_are_never_in_one_table(write: Write) -> None:
    sweeps = (Sweep(), Sweep(data="real", levels={"clcr": 0.9, "misa": 0.8}))
    table = main_table(collect(write([r for s in sweeps for r in s.records()]) / "records"))
    assert "90." in str(cells(section(table, "real", "CREMA-D"))["CLCR"])
    assert "Linear" not in cells(section(table, "real", "CREMA-D"))
    assert "70." in str(cells(section(table, "twin", "CREMA-D"))["CLCR"])
    assert set(table.frame["data"]) == {"real", "twin"}


def test_test_selected_and_leaky_protocols_are_marked(write: Write) -> None:
    records = [replace(r, key=replace(r.key, protocol="leaky", data="real")) for r in three()]
    facts = " ".join(section(main_table(gathered(write, records)), "real", "leaky").facts)
    assert "CAUTION: epochs were selected on the test set" in facts
    assert "CAUTION: the same videos occur in several splits" in facts


def test_the_ceiling_of_a_twin_is_shown(write: Write) -> None:
    told = {**toy("clcr", 0, 0.5).provenance, "ceiling": {"mae": 0.31}}
    table = main_table(gathered(write, [replace(r, provenance=told) for r in three()]))
    assert cells(section(table, "twin", "Toy"))["Best reachable (known)"] == ["0.310", "—"]


def test_one_seed_is_shown_without_a_test(write: Write) -> None:
    table = significance_table(gathered(write, [r for r in three() if r.key.seed == 0]))
    rows = cells(section(table, "twin", "Toy"))
    assert rows["MISA"][-1] == "not tested: 1 shared seed, a test needs two"
    main = section(main_table(gathered(write, [])), "twin", "Toy")
    assert cells(main)["CLCR"][0] == "0.700 (1)"


def test_without_our_method_nothing_is_compared(write: Write) -> None:
    found = gathered(write, [r for r in three() if r.key.method != "clcr"])
    assert "CLCR has no result here" in " ".join(section(main_table(found), "twin", "Toy").facts)
    assert section(significance_table(found), "twin", "Toy").rows == ()


def test_a_method_whose_runs_all_failed_keeps_its_row(write: Write) -> None:
    failed = [toy("ogm_ge", s, 1.0, status="failed", error="loss is not finite", metrics={}) for s in (0, 1, 2)]
    found = section(main_table(gathered(write, three() + failed)), "twin", "Toy")
    assert cells(found)["OGM-GE"] == ["—", "—"]
    assert any("MISSING: OGM-GE seed 0: failed (loss is not finite); OGM-GE seed 1" in note for note in found.notes)


def test_significance_agrees_with_scipy_and_holm(write: Write) -> None:
    table = significance_table(gathered(write, three()))
    rows = table.frame.set_index("method")
    theirs = stats.ttest_rel(OURS, WEAK)
    assert rows.loc["linear", "p"] == pytest.approx(theirs.pvalue)
    assert rows.loc["linear", "statistic"] == pytest.approx(theirs.statistic)
    assert rows.loc["linear", "p_holm"] == pytest.approx(2 * theirs.pvalue)
    assert rows.loc["linear", "correlation"] == pytest.approx(np.corrcoef(OURS, WEAK)[0, 1])
    assert rows.loc["linear", "conclusion"] == "CLCR better"
    assert rows.loc["misa", "conclusion"] == "undecided, power too low"
    assert cells(section(table, "twin", "Toy"))["Linear"][0] == "3"


def test_all_benchmarks_are_tested_together(write: Write) -> None:
    sweeps = [Sweep(benchmark=b) for b in ("crema_d", "ave", "kinetics_sounds")]
    sweeps.append(Sweep(protocol="speaker_disjoint"))
    table = significance_table(collect(write([r for s in sweeps for r in s.records()]) / "records"))
    found = section(table, "twin", "Across benchmarks")
    assert cells(found)["Late fusion"][0] == "3"
    assert "speaker_disjoint" not in " ".join(found.facts)
    assert any("CLCR is significantly better than Late fusion" in note for note in found.notes)
    ranks = cells(section(table, "twin", "Ranks"))
    assert ranks["CLCR"][0] == "1.00"
    assert ranks["CLCR"][1].startswith("70.")


def test_the_ablation_table_keeps_the_papers_order_and_shared_seeds(write: Write) -> None:
    records = [toy("clcr", s, v) for s, v in enumerate((0.70, 0.72, 0.71, 0.90))]
    for variant, gap in (("no_reg", 0.1), ("no_hierarchy", 0.2), ("full_mix", 0.0)):
        records += [toy("clcr", s, 0.70 + gap + 0.02 * s, variant=variant) for s in (0, 1)]
    found = section(ablation_table(gathered(write, records), Published()), "twin", "Toy")
    assert [row[0].text for row in found.rows] == ["full", "no_hierarchy", "full_mix", "no_reg"]
    rows = cells(found)
    assert rows["full"][0] == "0.710 ± 0.014 (2)"
    assert rows["full_mix"][1] == "—"
    notes = " ".join(found.notes)
    assert "not tested against no_hierarchy (the same difference at every seed)" in notes
    assert "full_mix (the same value at every seed)" in notes
    assert "Not run here: no_intraced" in " ".join(found.notes)


def test_published_differences_stand_beside_comparable_runs_only(write: Write) -> None:
    known = tuple(
        Number("toy", ("main",), "clcr", "mae", value, "clcr", variant)
        for variant, value in (("full", 0.678), ("no_reg", 0.725))
    )
    published = Published({"mae": 0.02}, ("tiny",), {}, {}, known)
    runs = [toy("clcr", s, 0.7 + 0.03 * s * k, variant=v) for k, v in enumerate(("full", "no_reg")) for s in (0, 1)]
    real = [replace(r, key=replace(r.key, data="real")) for r in runs]
    table = ablation_table(gathered(write, runs + real), published)
    assert "Published" not in section(table, "twin", "Toy").columns
    rows = cells(section(table, "real", "Toy"))
    assert rows["no_reg"][-2:] == ["0.725", "+0.047"]
    assert rows["full"][-2:] == ["0.678", "—"]


def test_costs(write: Write) -> None:
    table = cost_table(gathered(write, three()))
    assert cells(section(table, "twin", "Toy"))["CLCR"] == ["full", "1,004", "2.5 ± 1.0", "256", "cpu", "3"]
    assert list(table.frame["n"]) == [3, 3, 3]


def test_one_pair_of_runs_example_by_example(write: Write, tmp_path: Path) -> None:
    records = Sweep(levels={"clcr": 0.9, "misa": 0.6}, seeds=(3, 4)).records()
    found = collect(write(records) / "records")
    rng = np.random.default_rng(0)
    target, members = rng.integers(0, 6, size=120), {}
    for record in records:
        right = rng.random(120) < (0.9 if record.key.method == "clcr" else 0.6)
        scores = np.eye(6)[np.where(right, target, (target + 1) % 6)]
        arrays = {"index": np.arange(120), "target": target, "group": np.arange(120) // 5, "prediction": scores}
        members |= archive.members(record.key, record.predictions, arrays)
    archive.write_npz(tmp_path / "crema_d.npz", members)
    table = significance_table(found, Examples(tmp_path))
    one = section(table, "twin", "One pair of runs")
    row = cells(one)["MISA"]
    assert row[:2] == ["120", "24"]
    assert row[2].startswith("+")
    assert row[3:] == ["< 0.001", "0.002", "0.002", "CLCR better"]
    assert "seed 3" in one.facts[0]
    assert "whole actors" in one.facts[1]
    assert "labels of the two models swapped within whole actors" in one.facts[1]
    assert "conclude from p by actor" in one.notes[0]


def test_no_section_on_examples_without_predictions(write: Write, tmp_path: Path) -> None:
    found = collect(write(Sweep().records()) / "records")
    assert Examples(tmp_path)(found.groups[0]) == []
