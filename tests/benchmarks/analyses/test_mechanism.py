"""Probes of networks on twins: planted parts are found where they are, and only there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from grouped import Grouped, grouped

from baselines import CLCR_VARIANTS
from benchmarks.analyses.inside import Inside, collect
from benchmarks.analyses.mechanism import Truth, analyse, measure
from benchmarks.errors import InputError
from clcr.method import CLCR

SPLITS = ("train", "test")
FACTORS = {"shared", "private", "foreign"}


@cache
def planted(benchmark: str) -> tuple[Truth, dict[str, Any], dict[str, np.ndarray], tuple[str, ...]]:
    """Truth of a twin, its plain factors, the rows of the splits and the modalities."""
    _, runs, data = grouped(benchmark=benchmark, seeds=(0,))
    modalities = tuple(modality.name for modality in runs[0].protocol.modalities)
    truth = Truth(runs[0], data[0])
    return truth, runs[0].prepared.truth, {split: data[0].indices[split] for split in SPLITS}, modalities


def shown(benchmark: str, slots: np.ndarray | None = None, **parts: str) -> dict[str, Any]:
    """The probes of networks whose parts are invertible maps of one factor: "shared", "private" or "noise"."""
    truth, raw, rows, modalities = planted(benchmark)
    rng = np.random.default_rng(1)
    levels = np.arange(3)[:, None].repeat(len(modalities), 1) if slots is None else slots
    maps: dict[tuple[str, int, int], np.ndarray] = {}

    def part(split: str, name: str, factor: str) -> np.ndarray:
        columns = []
        for level, m in np.ndindex(levels.shape):
            own = raw["factors"]["shared" if factor == "shared" else f"private_{modalities[m]}"]
            x = own[rows[split]][:, levels[level, m]]
            x = rng.standard_normal(x.shape) if factor == "noise" else x
            columns.append(x @ maps.setdefault((name, level, m), rng.standard_normal((x.shape[1], 5))))
        return np.stack(columns, 1).reshape(len(x), *levels.shape, 5)

    insides = [
        Inside(np.zeros(1), modalities, parts={n: part(s, n, f) for n, f in parts.items()}, slots=levels)
        for s in SPLITS
    ]
    return measure(truth, *insides)


@pytest.mark.parametrize("benchmark", ["cmu_mosi", "crema_d"])
def test_a_part_holds_what_it_was_made_of(benchmark: str) -> None:
    found = shown(benchmark, shared="shared", private="private")
    for kind in ("probe", "cca"):
        for part in ("shared", "private"):
            assert found[kind][part][part]["levels"] == pytest.approx([1] * 3, abs=0.01)
            for factor in FACTORS - {part}:
                assert found[kind][part][factor]["levels"] == pytest.approx([0] * 3, abs=0.12)
                assert found[kind][part][factor]["mean"] == pytest.approx(0, abs=0.06)


def test_the_direction_that_moves_the_label_is_told_apart() -> None:
    truth, raw, rows, modalities = planted("cmu_mosi")
    clean, factors = raw["clean"], raw["factors"]
    flat = np.concatenate([x.reshape(len(x), -1) for x in factors.values()], axis=1)
    fitted = np.linalg.lstsq(flat, clean - clean.mean(), rcond=None)[0]
    weights = fitted[: factors["shared"][0].size].reshape(3, 3)
    insides = []
    for split in SPLITS:
        x = np.einsum("nlk,lk->nl", factors["shared"][rows[split]], weights)
        part = np.broadcast_to(x[:, :, None, None], (len(x), 3, 3, 1))
        insides.append(Inside(np.zeros(1), modalities, parts={"shared": part}))
    cells = measure(truth, *insides)["probe"]["shared"]
    assert cells["shared_label"]["levels"] == pytest.approx([1] * 3, abs=0.01)
    assert cells["shared"]["levels"] == pytest.approx([1 / 3] * 3, abs=0.1)
    assert cells["private_label"]["levels"] == pytest.approx([0] * 3, abs=0.05)


def test_a_private_stream_leaks_and_a_shared_one_does_not() -> None:
    leak = shown("cmu_mosi", sent="private", received="shared")["leakage"]
    assert leak["sent"]["private"]["mean"] > 0.99
    assert abs(leak["sent"]["shared"]["mean"]) < 0.05
    assert leak["received"]["shared"]["mean"] > 0.99
    assert abs(leak["received"]["private"]["mean"]) < 0.05


def test_noise_holds_nothing() -> None:
    found = shown("crema_d", shared="noise", private="noise")["probe"]
    assert all(abs(cell["mean"]) < 0.03 for part in found.values() for cell in part.values())


def test_moved_levels_are_probed_for_what_stands_there() -> None:
    slots = np.array([[1, 0, 2], [2, 1, 0], [0, 2, 1]])
    found = shown("cmu_mosi", slots, private="private")["probe"]["private"]
    assert found["private"]["levels"] == pytest.approx([1] * 3, abs=0.01)


def test_knowing_the_class_is_not_knowing_a_factor() -> None:
    truth, raw, rows, modalities = planted("crema_d")
    insides = []
    for split in SPLITS:
        classes = np.eye(6)[raw["clean"][rows[split]]]
        insides.append(Inside(np.zeros(1), modalities, parts={"shared": np.tile(classes[:, None, None], (1, 3, 2, 1))}))
    cells = measure(truth, *insides)["probe"]["shared"]
    assert all(abs(x) < 0.02 for cell in cells.values() for x in cell["levels"])


def selecting(how: str) -> dict[str, Any]:
    """The areas of a network that weighs the planted tokens in some way."""
    truth, _, rows, modalities = planted("cmu_mosi")
    longest, n = 20, len(rows["test"])
    rng = np.random.default_rng(2)
    alpha, real = np.zeros((n, 3, 3, longest)), np.zeros((n, 3, longest), dtype=bool)
    for m, name in enumerate(modalities):
        informative = truth.planted["informative"][name]
        tokens = informative.shape[-1]
        real[:, m, :tokens] = np.arange(tokens) < tokens - 2
        ways = {"all": informative, "none": ~informative, "noise": rng.random(informative.shape), "even": 0.3}
        alpha[:, :, m, :tokens] = ways[how]
    inside = Inside(np.zeros(1), modalities, real, slots=np.arange(3)[:, None].repeat(3, 1), alpha=alpha)
    inside = replace(inside, binds=np.ones((n, 3, 3), dtype=bool))
    found: dict[str, Any] = measure(truth, inside, inside)["auroc"]
    return found


def test_areas_of_constructed_weights() -> None:
    assert selecting("all")["informative"]["modalities"]["audio"] == [1, 1, 1]
    assert selecting("none")["informative"]["levels"] == [0, 0, 0]
    assert selecting("even")["informative"]["levels"] == [0.5, 0.5, 0.5]
    assert selecting("noise")["informative"]["levels"] == pytest.approx([0.5] * 3, abs=0.03)
    kept_out = selecting("all")["distractor"]["levels"]
    assert kept_out[2] == pytest.approx(0, abs=0.1)  # nearly every other token shows the deep level
    assert max(kept_out) < 0.5


def leaking(grouped_: Grouped) -> None:
    """Turn the shared bases of language towards its private factors, as far as the encoder's tokens show them."""
    group, runs, data = grouped_
    train = collect(group, data, "train")[0]
    assert isinstance(group.method, CLCR)
    private = runs[0].prepared.truth["factors"]["private_language"][data[0].indices["train"]]
    for level in range(3):
        x = train.parts["features"][:, level, 0].astype(float)
        x = x - x.mean(0)
        weight = np.linalg.solve(x.T @ x + 1e-2 * np.eye(32) * np.trace(x.T @ x) / 32, x.T @ private[:, level])
        with torch.no_grad():
            group.method.intraced.subspaces.shared[0, level, :, :2] = torch.from_numpy(weight / np.linalg.norm(weight))


def test_a_shared_basis_turned_to_private_factors_leaks_them() -> None:
    honest = grouped("clcr", "dense_budget", seeds=(0,))
    before = analyse(*honest)[0]["leakage"]["trained"]["sent"]["private"]["mean"]
    leaking(honest)
    found = analyse(*honest)[0]
    assert found["leakage"]["untrained"]["sent"]["private"]["mean"] == pytest.approx(before)
    assert found["leakage"]["trained"]["sent"]["private"]["mean"] > before + 0.05


@pytest.mark.parametrize(
    ("method", "variant"),
    [("clcr", variant) for variant in CLCR_VARIANTS]
    + [("misa", "full"), ("late_fusion", "full"), ("ogm_ge", "full"), ("unimodal_audio", "full")],
)
def test_every_method_has_its_probes_and_an_untrained_one_stands_beside(method: str, variant: str) -> None:
    found = analyse(*grouped(method, variant))[1]
    split = method in ("clcr", "misa")
    assert found["probe"]["trained"].keys() == ({"features", "shared", "private"} if split else {"features"})
    assert found["cca"]["trained"].keys() == found["probe"]["trained"].keys()
    assert all(cells.keys() == FACTORS for cells in found["cca"]["trained"].values())
    label = {"shared_label", "private_label"}
    assert all(cells.keys() == FACTORS | label for cells in found["probe"]["trained"].values())
    assert ("leakage" in found) == (method == "clcr")
    assert ("auroc" in found) == (method == "clcr" and variant not in ("no_intraced", "dense_budget"))
    for kind in found.keys() - {"gap"}:
        assert found[kind]["trained"] == found[kind]["untrained"]  # the group here has its first values
    assert found["probe"]["trained"]["features"]["private"]["mean"] > 0.2
    assert abs(found["probe"]["trained"]["features"]["foreign"]["mean"]) < 0.02  # nothing came over yet


def test_seeds_together_are_what_each_is_alone() -> None:
    (alone,) = analyse(*grouped("clcr", seeds=(1,)))
    assert analyse(*grouped("clcr"))[1] == alone


def test_the_gap_is_what_lacks_to_the_ceiling() -> None:
    group, runs, data = grouped("late_fusion", benchmark="crema_d", seeds=(0,))
    gap = analyse(group, runs, data)[0]["gap"]
    (evaluation,) = group.evaluate("test")
    accuracy = (evaluation.prediction.argmax(1) == data[0].targets("test")).mean()  # type: ignore[union-attr]
    assert gap["metric"] == "accuracy"
    assert gap["score"] == pytest.approx(accuracy)
    assert gap["gap"] == pytest.approx(gap["score"] - runs[0].prepared.truth["ceiling"]["accuracy"])
    assert gap["gap"] < 0


def test_data_whose_factors_are_not_known_are_refused() -> None:
    group, runs, data = grouped(seeds=(0,))
    real = [replace(run, prepared=replace(run.prepared, truth={})) for run in runs]
    with pytest.raises(InputError, match=r"cmu_mosi.*factors.*--data twin"):
        analyse(group, real, data)
