"""Scoring refuses holes: what a set of records lacks is found, counted and named. All records are synthetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_records import TOY, Sweep, Write, toy

from benchmarks.errors import InputError
from benchmarks.record import RunRecord
from benchmarks.report.collect import COLUMNS, Collected, Incomplete, collect, label, require_complete

SPECS = {"toy": TOY}


def whole() -> list[RunRecord]:
    """Two methods, three seeds, and two variants on two of the seeds: complete."""
    records = [toy(m, s, 0.7 + 0.01 * s) for m in ("clcr", "misa") for s in (0, 1, 2)]
    return records + [toy("clcr", s, 0.8, variant=v) for v in ("no_reg", "full_mix") for s in (0, 1)]


def gathered(write: Write, records: list[RunRecord]) -> Collected:
    return collect(write(records) / "records", specs=SPECS)


def test_one_row_per_run_and_metric(write: Write) -> None:
    found = gathered(write, whole())
    assert list(found.frame.columns) == list(COLUMNS)
    assert len(found.frame) == 10 * 2
    assert found.holes == ()
    row = found.frame.query("method == 'misa' and seed == 2 and metric == 'mae'").iloc[0]
    assert row["value"] == 0.72
    require_complete(found, Path("records"))


def test_the_newest_line_of_a_key_speaks_whatever_the_order(write: Write) -> None:
    new, old = toy("clcr", 0, 0.5, minute=9), toy("clcr", 0, 0.9, minute=3)
    found = gathered(write, [new, old, toy("clcr", 1, 0.6)])
    assert found.groups[0].values(("clcr", "full"), "mae") == {0: 0.5, 1: 0.6}
    assert found.groups[0].superseded == 1
    assert found.holes == ()


def test_a_newer_failure_speaks_over_an_older_result(write: Write) -> None:
    failed = toy("clcr", 0, 0.5, minute=9, status="failed", error="loss is\n not finite", metrics={})
    found = gathered(write, [toy("clcr", 0, 0.9), failed])
    assert found.groups[0].values(("clcr", "full"), "mae") == {}
    assert [str(hole) for hole in found.holes] == ["toy.main.twin.tiny/clcr/full/seed-000: failed (loss is not finite)"]


def test_two_different_lines_of_one_moment_are_a_duplicate(write: Write) -> None:
    found = gathered(write, [toy("clcr", 0, 0.5), replace(toy("clcr", 0, 0.6), predictions="other")])
    assert "two different records" in found.holes[0].why


def test_the_same_line_twice_is_no_duplicate(write: Write) -> None:
    assert gathered(write, [toy("clcr", 0, 0.5), toy("clcr", 0, 0.5)]).holes == ()


@pytest.mark.parametrize(
    ("method", "variant", "seed", "lacking"),
    [
        ("misa", "full", 1, "misa/full/seed-001"),
        ("clcr", "full", 2, "clcr/full/seed-002"),
        ("clcr", "no_reg", 1, "clcr/no_reg/seed-001"),
        ("clcr", "full", 0, "clcr/full/seed-000"),
    ],
)
def test_a_missing_seed_is_named(write: Write, method: str, variant: str, seed: int, lacking: str) -> None:
    kept = [r for r in whole() if (r.key.method, r.key.variant, r.key.seed) != (method, variant, seed)]
    found = gathered(write, kept)
    assert [str(hole) for hole in found.holes] == [f"toy.main.twin.tiny/{lacking}: not run, other rows have it"]


def test_a_missing_metric_is_named(write: Write) -> None:
    found = gathered(write, [toy("clcr", 0, 0.5, metrics={"test": {"mae": 0.5}})])
    assert "no value for acc2_non0" in str(found.holes[0])


def test_stale_runs_are_left_out_and_named(write: Write) -> None:
    records = whole()
    found = collect(write(records) / "records", stale=[records[0].key], specs=SPECS)
    assert 0 not in found.groups[0].values(("clcr", "full"), "mae")
    assert "stale" in found.holes[0].why


def test_seeds_of_different_settings_are_not_averaged(write: Write) -> None:
    other = {**toy("misa", 1, 0.7).what, "source_digest": "edited"}
    found = gathered(write, [toy("misa", 0, 0.7), toy("misa", 1, 0.7, what=other)])
    assert [str(h) for h in found.holes] == [
        "toy.main.twin.tiny/misa/full: seeds of 2 different settings; run them again"
    ]


def test_methods_on_different_data_are_not_compared(write: Write) -> None:
    other = {**toy("misa", 0, 0.7).what, "data_digest": "other data"}
    found = gathered(write, [toy("clcr", 0, 0.7), toy("misa", 0, 0.7, what=other)])
    assert "different data at seeds [0]" in found.holes[0].why
    assert found.holes[0].run == "all methods"


def test_methods_under_different_rules_are_not_compared(write: Write) -> None:
    other = {**toy("misa", 0, 0.7).what, "trainer": 2}
    found = gathered(write, [toy("clcr", 0, 0.7), toy("misa", 0, 0.7, what=other)])
    assert [str(h) for h in found.holes] == [
        "toy.main.twin.tiny: rows differ in protocol or metrics or trainer; run them again"
    ]


def test_holes_are_refused_in_one_line_with_the_list(write: Write) -> None:
    records = [r for r in Sweep().records() if r.key.method == "clcr" or r.key.seed > 1]
    found = collect(write(records) / "records")
    with pytest.raises(Incomplete) as error:
        require_complete(found, Path("results/records"))
    assert len(error.value.holes) == 8
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("results/records: 8 results missing")
    assert "late_fusion/full/seed-000: not run" in text
    assert "and 2 more" in text
    assert "--partial" in text


def test_other_groups_do_not_lend_their_seeds(write: Write) -> None:
    records = Sweep(seeds=(0, 1)).records() + Sweep(profile="paper", seeds=range(5)).records()
    assert collect(write(records) / "records").holes == ()


def test_groups_stand_in_the_order_of_the_tables(write: Write) -> None:
    sweeps = (
        Sweep(benchmark="cmu_mosi", protocol="standard"),
        Sweep(profile="paper"),
        Sweep(protocol="speaker_disjoint"),
        Sweep(),
    )
    found = collect(write([r for s in sweeps for r in s.records()]) / "records")
    assert [str(group.key) for group in found.groups] == [
        "crema_d.paper.twin.paper",
        "crema_d.paper.twin.tiny",
        "crema_d.speaker_disjoint.twin.tiny",
        "cmu_mosi.standard.twin.tiny",
    ]
    assert found.groups[0].methods == ["clcr", "late_fusion", "misa", "unimodal_audio", "linear"]


def test_a_selection_hides_the_rest(write: Write) -> None:
    found = collect(write(whole()) / "records", lambda key: key.variant == "full" and key.seed < 2, specs=SPECS)
    assert set(found.frame["seed"]) == {0, 1}
    assert set(found.frame["variant"]) == {"full"}


def test_a_broken_line_is_named(write: Write) -> None:
    out = write(whole())
    path = out / "records" / "toy.jsonl"
    path.write_text(path.read_text() + '{"schema": 1, "key"\n')
    with pytest.raises(InputError, match=r"toy\.jsonl:11: not JSON"):
        collect(out / "records", specs=SPECS)


def test_a_value_that_is_not_finite_is_refused(write: Write) -> None:
    out = write([toy("clcr", 0, float("nan"))])
    with pytest.raises(InputError, match=r"toy\.jsonl:1: field 'metrics\.test\.\w+' is nan, not a finite number"):
        collect(out / "records", specs=SPECS)


def test_an_edited_record_is_refused(write: Write) -> None:
    out = write(whole())
    path = out / "records" / "toy.jsonl"
    path.write_text(path.read_text().replace('"source_digest": "clcr"', '"source_digest": "edited"'))
    with pytest.raises(InputError, match="does not fit field 'what'"):
        collect(out / "records", specs=SPECS)


def test_an_unknown_benchmark_is_refused_with_the_nearest_name(write: Write) -> None:
    record = toy("clcr", 0, 0.5)
    with pytest.raises(InputError, match="did you mean 'crema_d'"):
        collect(write([replace(record, key=replace(record.key, benchmark="cremad"))]) / "records")


def test_labels() -> None:
    assert [label(m) for m in ("clcr", "unimodal_audio", "later_method")] == [
        "CLCR",
        "Unimodal (audio)",
        "later_method (external)",
    ]
