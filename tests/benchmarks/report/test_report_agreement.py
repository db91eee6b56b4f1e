"""A retrained run against the committed one: bits on one machine, tolerances on another. All runs are made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.record import RunKey, RunRecord
from benchmarks.report.agreement import LEAST_RUNS, Pair, compare, distance

HERE = {"cpu": "A", "cpu_kind": "1", "versions": {"torch": "2"}, "device": "cpu", "threads": 1}
KEY = RunKey("ave", "paper", "twin", "tiny", "clcr", "full", 0)


def pair(classes: bool = True, there: Mapping[str, Any] = HERE) -> Pair:
    """A run and itself."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(50, 4) if classes else 50).astype(np.float32)
    target = random.integers(0, 4, 50) if classes else random.normal(size=50)
    arrays = {"index": np.arange(50), "target": target, "prediction": scores}
    record = RunRecord(KEY, {}, "done", provenance=HERE)
    main = "accuracy" if classes else "mae"
    return Pair(record, arrays, replace(record, provenance=there), arrays, main)


def moved(which: Pair, by: float, samples: int = 50) -> Pair:
    """The same with some predictions moved in the new run."""
    prediction = which.now["prediction"].copy()
    noise = np.random.default_rng(1).normal(size=prediction.shape).astype(np.float32)
    prediction[:samples] += by * noise[:samples]
    return replace(which, now={**which.now, "prediction": prediction})


OTHERS = [{**HERE, "cpu": "B"}, {**HERE, "cpu_kind": "2"}, {**HERE, "versions": {"torch": "3"}}, {**HERE, "threads": 2}]


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("there", [HERE, *OTHERS])
def test_equal_runs_agree_everywhere(classes: bool, there: Mapping[str, Any]) -> None:
    assert compare([pair(classes, there)]) == []


@pytest.mark.parametrize("classes", [True, False])
def test_one_bit_counts_on_one_machine_and_not_on_another(classes: bool) -> None:
    (failure,) = compare([moved(pair(classes), 1e-6, samples=1)])
    assert str(failure).startswith(f"golden {KEY}: predictions: expected equal bits")
    assert "1 of 50 samples predicted otherwise" in str(failure)
    for there in OTHERS:
        assert compare([moved(pair(classes, there), 1e-6, samples=1)]) == []


def test_a_record_that_does_not_tell_the_kind_of_processor_is_from_another_machine() -> None:
    older = {name: value for name, value in HERE.items() if name != "cpu_kind"}
    base = pair()
    old = replace(base, committed=replace(base.committed, provenance=older))
    assert compare([moved(old, 1e-6, samples=1)]) == []


@pytest.mark.parametrize(("before", "here"), [("1", True), ("2", False)])
def test_a_run_that_was_taken_up_elsewhere_is_from_another_machine(before: str, here: bool) -> None:
    told = {**HERE, "resumed": [{"epoch": 2, "fold": 1, "cpu_kind": "1", "cpu_kind_before": before, "at": "now"}]}
    base = pair()
    resumed = replace(base, committed=replace(base.committed, provenance=told))
    assert bool(compare([moved(resumed, 1e-6, samples=1)])) is here


@pytest.mark.parametrize("field", ["metrics", "selection"])
def test_the_rest_of_the_record_counts_on_one_machine(field: str) -> None:
    base = pair()
    changed = replace(base, again=replace(base.again, **{field: {"valid": {"accuracy": 0.5}}}))
    (failure,) = compare([changed])
    assert failure.what.endswith(f": {field}")


@pytest.mark.parametrize(("classes", "named"), [(True, "agreement"), (False, "change of the main metric")])
def test_another_model_is_seen_on_another_machine(classes: bool, named: str) -> None:
    failures = compare([moved(pair(classes, OTHERS[0]), 4.0)])
    assert any(named in failure.what and "on another machine" in failure.what for failure in failures)


def test_many_runs_that_moved_a_little_are_seen_in_their_mean() -> None:
    one = moved(pair(there=OTHERS[0]), 0.3)
    assert compare([one]) == []
    failures = compare([one] * LEAST_RUNS)
    assert failures
    assert all("mean of 20 runs of classification" in failure.what for failure in failures)


def test_other_samples_are_no_comparison() -> None:
    base = pair(there=OTHERS[0])
    (failure,) = compare([replace(base, now={**base.now, "target": base.now["target"][::-1]})])
    assert failure.what.endswith(": target")
    (failure,) = compare([replace(base, now={**base.now, "prediction": base.now["prediction"][:, :3]})])
    assert "shape" in failure.what


def test_distances_of_a_case_by_hand() -> None:
    then = {"target": np.array([1.0, -1.0]), "prediction": np.array([1.0, -1.0])}
    record = pair().committed
    found = distance(Pair(record, then, record, {**then, "prediction": np.array([2.0, 1.0])}, "mae"))
    assert (found.agreement, found.score, found.change) == (0.5, 1.5, 1.5)
