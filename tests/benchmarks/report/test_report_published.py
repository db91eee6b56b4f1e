"""Published numbers: the committed file is sound, bad files are refused, verdicts stand where they may.

The runs beside them are synthetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_records import Sweep, Write

from benchmarks.errors import InputError
from benchmarks.report import PROJECT
from benchmarks.report.collect import collect, load_spec
from benchmarks.report.published import SCHEMA, beside, load, published_table
from benchmarks.report.statistics import VERDICTS

COMMITTED = load(PROJECT)


def test_the_papers_numbers_are_all_there() -> None:
    ours = {(n.benchmark, n.variant, n.metric): n.value for n in COMMITTED.numbers if n.method == "clcr"}
    full = {b: ours.pop((b, "full", "accuracy")) for b in ("crema_d", "kinetics_sounds", "ave", "ucf101")}
    assert full == pytest.approx({"crema_d": 0.7792, "kinetics_sounds": 0.7541, "ave": 0.7382, "ucf101": 0.8364})
    ablated = {"full": 0.678, "no_hierarchy": 0.720, "no_intraced": 0.703, "no_intercad": 0.699, "full_mix": 0.743}
    for variant, value in {**ablated, "no_reg": 0.725}.items():
        assert ours["cmu_mosi", variant, "mae"] == value
    assert ours["kinetics_sounds", "full_mix", "accuracy"] == pytest.approx(0.703)
    assert ours["cmu_mosei", "full", "acc2_non0"] == pytest.approx(0.8796)


@pytest.mark.parametrize("number", COMMITTED.numbers, ids=lambda n: f"{n.benchmark}-{n.method}-{n.metric}-{n.source}")
def test_every_number_names_what_exists(number: Any) -> None:
    spec = load_spec(number.benchmark)
    assert number.metric in spec.metrics
    for protocol in number.protocols:
        spec.protocol(protocol)
    assert COMMITTED.margin(number) in (pytest.approx(0.01), pytest.approx(0.02))
    assert number.protocols or number.note, "a number without a comparable protocol says why"


def minimal() -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "margins": {"accuracy": 1.0},
        "profiles": ["paper"],
        "labels": {},
        "sources": {"clcr": {"title": "t", "selection": "unknown", "seeds": "unknown"}},
        "numbers": [
            {
                "benchmark": "crema_d",
                "protocols": ["paper"],
                "method": "clcr",
                "metric": "accuracy",
                "value": 77.92,
                "source": "clcr",
            }
        ],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema: 2, expected 1"),
        ({"margin": {}}, "unknown key 'margin'; did you mean 'margins'?"),
        ({"margins": {}}, "margins.accuracy: missing"),
        ({"margins": {"acuracy": 1.0}}, "unknown metric 'acuracy'"),
        ({"sources": {}}, "numbers[0].source: unknown source 'clcr'"),
        ({"sources": {"clcr": {"title": "t", "selection": "tset", "seeds": 1}}}, "did you mean 'test'?"),
        ({"sources": {"clcr": {"title": "t", "selection": "test", "seeds": 0}}}, "seeds: 0"),
        ({"sources": {"clcr": {"title": "t", "selection": "test"}}}, "sources.clcr.seeds: missing"),
        ({"numbers": [{}]}, "numbers[0].benchmark: missing"),
        ({"numbers": ["x"]}, "numbers[0]: not a mapping"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump({**minimal(), **change}))
    with pytest.raises(InputError) as error:
        load(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("value", "77,92", "numbers[0].value: '77,92' is not a number"),
        ("benchmark", "cremad", "did you mean 'crema_d'?"),
        ("protocols", "paper", "protocols: 'paper'; expected a list"),
        ("metric", "acc", "unknown metric 'acc'"),
        ("valeu", 1, "did you mean 'value'?"),
    ],
)
def test_a_bad_number_is_refused(tmp_path: Path, field: str, value: Any, message: str) -> None:
    raw = minimal()
    raw["numbers"][0][field] = value
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError) as error:
        load(path)
    assert message in str(error.value)


def test_what_is_not_yaml_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    with pytest.raises(InputError, match="cannot be read"):
        load(path)
    path.write_text("a: [1\nb: {")
    with pytest.raises(InputError, match="cannot be read"):
        load(path)
    path.write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(InputError, match="cannot be read"):
        load(path)


def real(level: float, **changes: Any) -> Sweep:
    return Sweep(data="real", profile="paper", levels={"clcr": level}, seeds=range(10), **changes)


def verdict(write: Write, sweep: Sweep) -> str:
    found = collect(write(sweep.records()) / "records")
    mine = [
        row for row in beside(COMMITTED, found) if row.number.method == "clcr" and row.number.benchmark == "crema_d"
    ]
    assert len(mine) == 1
    assert mine[0].verdict in VERDICTS
    return mine[0].verdict


@pytest.mark.parametrize(
    ("level", "spread", "expected"),
    [(0.779, 0.004, "reproduced"), (0.70, 0.004, "not reproduced"), (0.785, 0.03, "inconclusive")],
)
def test_verdicts_of_real_runs(write: Write, level: float, spread: float, expected: str) -> None:
    assert verdict(write, real(level, spread=spread)) == expected


def test_one_seed_is_inconclusive(write: Write) -> None:
    assert verdict(write, Sweep(data="real", profile="paper", levels={"clcr": 0.7792}, seeds=(0,))) == "inconclusive"


@pytest.mark.parametrize(
    "sweep",
    [
        Sweep(data="twin", profile="paper", levels={"clcr": 0.779}),
        Sweep(data="real", profile="tiny", levels={"clcr": 0.779}),
        Sweep(data="real", profile="open", levels={"clcr": 0.779}),
        Sweep(data="real", profile="paper", protocol="speaker_disjoint", levels={"clcr": 0.779}),
    ],
    ids=["twin", "tiny", "open", "other protocol"],
)
def test_what_may_not_be_compared_is_not_run(write: Write, sweep: Sweep) -> None:
    assert verdict(write, sweep) == "not run"


def test_the_table_shows_every_number_and_never_a_twin(write: Write) -> None:
    found = collect(write(real(0.779).records() + Sweep().records()) / "records")
    table = published_table(found, COMMITTED)
    assert len(table.frame) == len(COMMITTED.numbers)
    assert set(table.frame["data"]) == {"real"}
    assert table.parts["twin"] == ()
    assert "never compared" in table.empty["twin"]
    crema = table.parts["real"][0]
    verdicts = {row[0].text: row[7].text for row in crema.rows if row[8].text == "clcr"}
    assert verdicts == {
        "CLCR": "reproduced",
        "ARL": "not run (not a method of this suite)",
        "D&R": "not run (not a method of this suite)",
    }
    assert any("another" in note.lower() or "split" in note for note in crema.notes)
