"""Sections made from analyses of trained weights: answers that are known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_lines import DIGITS, MOSI, UCF, cell, check, data_of, gathered, records, text, write_lines
from synthetic_records import noise, write_curves, write_records

from benchmarks.drawing import style
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.report.published import load
from benchmarks.report.sections import embedding, gates, habits, mechanism, missing
from benchmarks.report.sections.frame import FAILED, HELD, OPEN, Made
from benchmarks.report.sections.signs import signs

ROOT = Path(__file__).resolve().parents[3]
ROWS = {("clcr", "full"): 0.8, ("late_fusion", "full"): 0.7, ("misa", "full"): 0.75}
OURS = {("clcr", "full"): 0.8}


def test_shapley_values_of_additive_worth_are_the_parts() -> None:
    parts = {"a": 0.5, "b": 0.2, "c": -0.1}
    worth = {frozenset(s): 0.3 + sum(parts[x] for x in s) for n in range(4) for s in combinations(parts, n)}
    assert missing.shapley(worth, list(parts)) == pytest.approx(parts)


def test_shapley_values_share_a_gain_that_needs_both_and_are_efficient() -> None:
    worth = {frozenset[str](): 0.0, frozenset({"a"}): 0.0, frozenset({"b"}): 0.0, frozenset({"a", "b"}): 1.0}
    assert missing.shapley(worth, ["a", "b"]) == pytest.approx({"a": 0.5, "b": 0.5})
    rng = np.random.default_rng(0)
    players = ["a", "b", "c", "d"]
    any_worth = {frozenset(s): float(rng.normal()) for n in range(5) for s in combinations(players, n)}
    total = any_worth[frozenset(players)] - any_worth[frozenset()]
    assert sum(missing.shapley(any_worth, players).values()) == pytest.approx(total)
    with pytest.raises(KeyError):
        missing.shapley({frozenset[str](): 0.0}, ["a"])


def test_missing_modalities_of_an_error(tmp_path: Path) -> None:
    parts = {"clcr": (0.4, 0.1), "late_fusion": (0.6, 0.2), "misa": (0.7, 0.3)}

    def values(key: RunKey) -> Mapping[str, Any]:
        worth = dict(zip(("language", "audio"), parts[key.method], strict=True))
        subsets = [s for n in range(3) for s in combinations(worth, n)]
        jitter = 1e-3 * noise(str(key))
        line = {"+".join(s): {"mae": 1.5 + jitter * len(s) - sum(worth[x] for x in s)} for s in subsets}
        return {"zero": line, "mean": line}

    with style():
        made = missing.build(gathered(tmp_path, records(MOSI, ROWS), "missing", values))
    check(made)
    assert cell(made, "shapley", "Shapley value", "CLCR", "zeros", "language").startswith("+0.400")
    assert cell(made, "shapley", "Share (%)", "CLCR", "zeros", "audio") == "20"
    assert cell(made, "losses", "Loss", "CLCR").startswith("+0.25")
    assert made.claims[0].verdict == HELD
    assert cell(made, "scores", "none", "CLCR").startswith("1.500")


def gate_values(key: RunKey, language: float, spread: float, entropy: float) -> dict[str, Any]:
    pi = language + spread * noise(str(key))
    return {
        "pi": {"language": pi, "audio": 1 - pi},
        "eta": {"language": 0.5, "audio": 0.25},
        "omega": [0.2, 0.3, 0.5],
        "omega_entropy": entropy if key.seed else 0.01,
        "participation": {"language": [1.0, 0.5, 0.0], "audio": [0.5, 0.5, 0.5]},
        "rho": [0.2, 0.3, 0.4],
        "exchange_share": {"language": [0.1, 0.1, 0.1], "audio": [0.3, 0.3, 0.3]},
        "mix": 0.02 + 1e-4 * noise(str(key)),
        "gradient": {"hierarchy": 1e-2, "budget.rho": 3e-5, "budget.scale": 4e-5, "head": 1.0},
    }


@pytest.mark.parametrize(("language", "spread", "word"), [(0.7, 0.05, HELD), (0.3, 0.05, FAILED), (0.52, 0.2, OPEN)])
def test_which_modality_dominates(tmp_path: Path, language: float, spread: float, word: str) -> None:
    rows = records(MOSI, OURS)
    with style():
        made = gates.build(gathered(tmp_path, rows, "gates", lambda key: gate_values(key, language, spread, 1.0)))
    check(made)
    assert made.claims[0].verdict == word
    assert (made.claims[0].settle != "") == (word == OPEN)
    assert cell(made, "exchange", "Exchange", "CLCR").startswith("0.200")
    assert cell(made, "inert", "Collapsed", MOSI) == "1 of 5"
    assert cell(made, "inert", "Budget's gradient", MOSI).startswith("0.0035 [")


def test_a_term_is_inert_where_its_share_is_surely_small(tmp_path: Path) -> None:
    rows = [
        record.__class__(**{**vars(record), "what": {**record.what, "config": {"method": {"lambda_inter": 0.1}}}})
        for record in records(MOSI, OURS)
    ]
    write_records(tmp_path, rows)
    write_curves(tmp_path, rows, 5)  # the loss at epoch 2 is 1 / 2
    write_lines(tmp_path, "gates", rows, lambda key: gate_values(key, 0.7, 0.05, 1.0))
    with style():
        made = gates.build(data_of(tmp_path))
    assert cell(made, "inert", "L_mix (%)", MOSI).startswith("0.40 [")
    assert "that it is inert: held" in text(made)


def test_collapse_is_counted_below_the_declared_threshold() -> None:
    edge = gates.LOWEST * log(3)
    runs = {0: {"omega_entropy": edge - 1e-6}, 1: {"omega_entropy": edge + 1e-6}, 2: {}}
    assert gates.collapsed(runs) == (1, 2)


def test_signs_are_corrected_over_the_family() -> None:
    found = signs({"up": [1.0, 1.1, 0.9, 1.0], "down": [-1.0, -1.2, -0.9, -1.1], "none": [1.0, -1.0, 0.5, -0.6]})
    assert [one.word for one in found.values()] == [HELD, FAILED, OPEN]
    assert found["up"].p_holm >= 2 * found["up"].test.p  # type: ignore[union-attr]
    alone = signs({"one": [1.0]})["one"]
    assert (alone.word, alone.needed) == (OPEN, "two seeds at least")
    assert signs({"same": [0.5, 0.5]})["same"].needed == "no number of seeds"


def mechanism_values(key: RunKey) -> dict[str, Any]:
    def one(x: float) -> dict[str, Any]:
        return {"mean": x + 1e-3 * noise(f"{key}{x}"), "levels": [x, x, x]}

    def states(trained: float) -> dict[str, Any]:
        return {"shared": one(trained), "private": one(0.1), "foreign": one(0.05)}

    def parts(trained: float) -> dict[str, Any]:
        private = {"shared": one(0.1), "private": one(trained), "foreign": one(0.05)}
        return {"shared": states(trained), "private": private}

    return {
        "probe": {"trained": parts(0.8), "untrained": parts(0.4)},
        "cca": {"trained": parts(0.9), "untrained": parts(0.5)},
        "leakage": {"trained": {"sent": states(0.3)}, "untrained": {"sent": states(0.3)}},
        "auroc": {"trained": {"informative": one(0.6), "distractor": one(0.6)}},
        "gap": {"metric": "accuracy", "score": 0.6, "ceiling": 0.8, "gap": -0.2 + 1e-3 * noise(str(key))},
    }


def test_mechanism_claims_follow_from_the_probes(tmp_path: Path) -> None:
    rows = records("crema_d.paper", OURS, data="twin", profile="tiny")
    with style():
        made = mechanism.build(gathered(tmp_path, rows, "mechanism", mechanism_values))
    check(made)
    words = [claim.verdict for claim in made.claims]
    assert words == [HELD] * 6 + [FAILED]  # distractors get more weight here, not less
    assert cell(made, "probes", "Shared", "CLCR", "shared") == "0.80 ± 0.00 (0.40)"
    assert cell(made, "tokens", "AUROC, distractor", "CLCR").startswith("0.60")
    assert cell(made, "tokens", "Gap, Accuracy ↑ (%)", "CLCR").startswith("−20.0")
    assert not made.tables[0].parts.get("real")


def test_of_a_regression_the_directions_that_move_the_label_are_asked_for(tmp_path: Path) -> None:
    def values(key: RunKey) -> dict[str, Any]:
        found = mechanism_values(key)
        part = found["probe"]["trained"]["shared"]
        part |= {"shared_label": {"mean": 0.2 + 1e-3 * noise(f"{key}"), "levels": [0.2] * 3}}
        return found

    rows = records("cmu_mosi.standard", OURS, data="twin", profile="tiny")
    with style():
        made = mechanism.build(gathered(tmp_path, rows, "mechanism", values))
    check(made)
    assert made.claims[0].verdict == FAILED  # 0.2 trained, 0.4 untrained
    assert cell(made, "probes", "Shared, label", "CLCR", "shared") == "0.20 ± 0.00"


def test_the_worth_of_habits(tmp_path: Path) -> None:
    rows = records(UCF, ROWS) + records(DIGITS, ROWS, range(10))
    worths = {"test": 0.013, "last": -0.02, "drop_last": 0.0}

    def values(key: RunKey) -> Mapping[str, Any]:
        base = 0.7 + 0.01 * noise(str(key))
        gains = {name: base + x + 1e-4 * noise(f"{key}{name}") for name, x in worths.items()}
        return {name: {"accuracy": x} for name, x in {"valid": base, **gains}.items()}

    write_lines(tmp_path, "habits", rows, values)
    write_records(tmp_path, rows)
    with style():
        made = habits.build(data_of(tmp_path, load(ROOT / "results/published.yaml")))
    check(made)
    assert cell(made, "pooled", "Worth", habits.HABITS["test"]).startswith("+1.30")
    assert cell(made, "pooled", "Worth", habits.HABITS["last"]).startswith("−2.00")
    assert cell(made, "gains", "Worth as much", "AVE", "ARL") == HELD  # a gain of 1.21
    assert cell(made, "gains", "Worth as much", "CREMA-D", "D&R") == FAILED  # of 4.40
    assert cell(made, "gains", "Worth as much", "CMU-MOSI", "DLF") == OPEN  # no set with MAE here
    assert "The runs of study leak do not exist yet" in text(made)


def test_a_pool_adds_the_errors_of_its_sets() -> None:
    pool = habits.pooled("accuracy", {"a": [0.01, 0.03], "b": [0.04, 0.06]})
    assert pool.mean == pytest.approx(0.035)
    half = 4.302652729911275 * (2 * 0.01**2) ** 0.5 / 2  # t of 2 degrees of freedom; each mean has an error of 0.01
    assert (pool.low, pool.high) == pytest.approx((0.035 - half, 0.035 + half))
    assert not np.isfinite(habits.pooled("accuracy", {"a": [0.01]}).low)


def test_the_worth_of_a_leak_is_tested_without_pairs(tmp_path: Path) -> None:
    profile = "open+untuned"  # of the study
    clean = records(habits.CLEAN, {("clcr", "full"): 0.7, ("misa", "full"): 0.6}, profile=profile)
    leaky = records(habits.LEAKY, {("clcr", "full"): 0.8, ("misa", "full"): 0.6}, (1, 2, 3), profile=profile)
    write_records(tmp_path / "studies", clean + leaky)
    with style():
        made = habits.build(data_of(tmp_path))
    check(made)
    worth = habits.leak(data_of(tmp_path))
    assert worth is not None
    assert worth.mean == pytest.approx(0.05)  # a tenth for one of two methods
    error = (0.001**2 / 3 + 2.5 * 0.001**2 / 5) ** 0.5  # of seeds 1-3 and 0-4, a thousandth apart
    assert worth.high - worth.mean == pytest.approx(2.4469 * error, rel=0.03)  # t of about 6 degrees of freedom
    assert cell(made, "pooled", "Worth", habits.NAMES["leak"]).startswith("+5.00 [")
    assert "`clcr analyse habits`" in text(made)
    assert "PARTIAL: runs of study leak are missing" in text(made)


def test_neighbours_of_separate_clouds_are_pure() -> None:
    rng = np.random.default_rng(0)
    xy = np.concatenate([rng.normal(0, 1, (50, 2)), rng.normal(100, 1, (50, 2))])
    kind = np.repeat([0, 1], 50)
    share, chance = embedding.purity(xy, kind)
    assert (share, chance) == (1.0, pytest.approx(49 / 99))
    assert embedding.purity(xy, rng.permutation(kind))[0] == pytest.approx(0.5, abs=0.1)
    assert embedding.purity(np.zeros((30, 2)), np.arange(30) % 2)[0] < 0.7  # equal points are their own neighbours


def embedded(key: RunKey) -> dict[str, Any]:
    rng, n = np.random.default_rng(0), 40
    found: dict[str, Any] = {name: [] for name in ("points", "part", "modality", "level", "label")}
    for part in ("shared", "private"):
        for place, name in enumerate(("rgb", "flow")):
            for level in (1, 2, 3):
                centre = 100 * place if part == "private" else 0
                found["points"] += (centre + rng.normal(0, 1, (n, 2))).tolist()
                rows = {"part": part, "modality": name, "level": level}
                for field, value in rows.items():
                    found[field] += [value] * n
                found["label"] += [sample % 3 for sample in range(n)]
    return found


def test_an_embedding_becomes_a_picture_and_numbers(tmp_path: Path) -> None:
    rows = records(UCF, OURS, (0,))
    with style():
        made = embedding.build(gathered(tmp_path, rows, "embedding", embedded))
    check(made)
    assert set(made.figures) == {"ucf101_subset3.svg", "ucf101_subset3.png"}
    assert cell(made, "neighbours", "Same modality (%)", UCF, "private") == "100 (50)"
    assert cell(made, "neighbours", "Same modality (%)", UCF, "shared").endswith("(50)")


def test_an_embedding_that_does_not_fit_together_is_refused() -> None:
    with pytest.raises(InputError, match=r"values\.points"):
        embedding.points({**embedded(RunKey(*"abcdef", 0)), "points": [[0.0, 1.0]]})
    with pytest.raises(InputError, match="no embedding"):
        embedding.points({})


@pytest.mark.parametrize("section", [gates, mechanism, missing, habits, embedding])
def test_sections_without_lines_say_how_to_make_them(tmp_path: Path, section: Any) -> None:
    made: Made = section.build(gathered(tmp_path, records(UCF, ROWS), "other", lambda _: {}))
    assert f"`clcr analyse {section.SECTION.name}`" in text(made)
