"""OGM-GE against its equations written out in numpy, float64, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.ogm_ge import (
    OGMGE,
    OGMGEConfig,
    class_scores,
    coefficients,
    discrepancy_ratios,
    modulate,
    value_scores,
)
from clcr.api import Step
from clcr.layers import Draws

Array = NDArray[np.float64]
RNG = np.random.default_rng(1)


def step(epoch: int = 0, epochs: int = 100, seed: int = 0) -> Step:
    return Step(epoch, epochs, Draws(seed))


def scores_in_numpy(outputs: Array, target: NDArray[np.int64]) -> Array:
    """Equation 8, one sample after the other."""
    scores = np.zeros(len(outputs))
    for u, logits in enumerate(outputs):
        for row, label in zip(logits, target, strict=True):
            scores[u] += np.exp(row[label]) / np.exp(row).sum()
    return scores


def coefficients_in_numpy(scores: Array, alpha: float) -> list[float]:
    """Equations 9 and 10, with the mean over the other modalities."""
    found = []
    for u, own in enumerate(scores):
        ratio = np.mean([own / other for v, other in enumerate(scores) if v != u])
        found.append(1 - math.tanh(alpha * ratio) if ratio > 1 else 1.0)
    return found


def gradients(model: OGMGE, case: Any) -> tuple[Any, dict[str, Tensor]]:
    """Output, and the gradient of every parameter as backward leaves it."""
    model.zero_grad()
    output = model(case.batch)
    model.losses(output, case.batch)["task"].backward()
    return output, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def adjusted(model: OGMGE, case: Any, at: Step) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Gradients before and after the hook, and the coefficients."""
    output, before = gradients(model, case)
    model.adjust_gradients(output, case.batch, at)
    after = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return before, after, output.parts["coefficients"]


def test_scores_of_classes_and_values() -> None:
    outputs, target = RNG.normal(size=(3, 7, 5)), RNG.integers(0, 5, 7)
    found = class_scores(torch.from_numpy(outputs), torch.from_numpy(target))
    np.testing.assert_allclose(found.numpy(), scores_in_numpy(outputs, target), rtol=1e-12)
    values, wanted = RNG.normal(size=(2, 6)), RNG.normal(size=6)
    expected = [sum(math.exp(-abs(v - w) / 0.7) for v, w in zip(row, wanted, strict=True)) for row in values]
    scale = torch.tensor(0.7, dtype=torch.float64)
    np.testing.assert_allclose(value_scores(torch.from_numpy(values), torch.from_numpy(wanted), scale), expected)


def test_ratios_of_two_are_each_others_inverse_and_of_three_means() -> None:
    two = discrepancy_ratios(torch.tensor([3.0, 2.0], dtype=torch.float64))
    np.testing.assert_allclose(two, [1.5, 1 / 1.5])
    three = discrepancy_ratios(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(three, [(2 + 4) / 2, (0.5 + 2) / 2, (0.25 + 0.5) / 2])
    k = coefficients(three, 0.3)
    np.testing.assert_allclose(k, [1 - math.tanh(0.9), 1 - math.tanh(0.375), 1.0])


@pytest.mark.parametrize(("alpha", "after"), [(0.1, 0.900), (0.3, 0.709), (0.5, 0.538), (0.8, 0.336), (1.0, 0.238)])
def test_the_coefficient_jumps_where_a_modality_takes_the_lead(alpha: float, after: float) -> None:
    """As published: tanh(alpha * rho), not tanh(alpha * (rho - 1)); at rho = 1 nothing is modulated."""
    ratios = torch.tensor([1 - 1e-6, 1.0, 1 + 1e-6, 2.0], dtype=torch.float64)
    k = coefficients(ratios, alpha)
    assert k[0] == k[1] == 1
    assert float(k[2]) == pytest.approx(1 - math.tanh(alpha * (1 + 1e-6)), abs=1e-12)
    assert float(k[2]) == pytest.approx(after, abs=6e-4)
    assert float(k[3]) == pytest.approx(1 - math.tanh(2 * alpha), abs=1e-12)


def test_hopeless_scores_give_finite_coefficients() -> None:
    for scores in ([0.0, 0.0], [64.0, 0.0], [0.0, 1e-40, 32.0]):
        k = coefficients(discrepancy_ratios(torch.tensor(scores)), 0.8)
        assert torch.isfinite(k).all()
        assert ((k >= 0) & (k <= 1)).all()
    assert (coefficients(discrepancy_ratios(torch.zeros(2)), 0.8) == 1).all()


def test_noise_has_the_spread_of_each_modalitys_unscaled_gradient() -> None:
    gradient = torch.randn(2, 4, 30, dtype=torch.float64) * torch.tensor([1.0, 100.0])[:, None, None]
    k = torch.tensor([0.25, 1.0], dtype=torch.float64)
    found = modulate(gradient, k, Draws(5))
    draw = Draws(5).normal(2, 4, 30).double().numpy()
    for u in range(2):
        own = gradient[u].numpy()
        spread = np.sqrt(((own - own.mean()) ** 2).sum() / (own.size - 1)) + 1e-8
        np.testing.assert_allclose(found[u].numpy(), float(k[u]) * own + spread * draw[u], rtol=1e-12)
    np.testing.assert_array_equal(modulate(gradient, k, None), gradient * k[:, None, None])


def test_a_gradient_without_spread_stays_finite() -> None:
    for gradient in (torch.zeros(2, 3, 3), torch.ones(1, 1, 1)):
        assert torch.isfinite(modulate(gradient, torch.ones(len(gradient)), Draws(0))).all()


@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_modulation_end_to_end_as_the_paper_writes_it(make_case: Callable[..., Any], fusion: str) -> None:
    """Features and weights are taken out of the model; everything from the split outputs on is done in numpy."""
    case = make_case(("vision", "audio"), 4)
    model = case.build(OGMGE, fusion=fusion, modulation="ogm", alpha=0.8).double()
    case = replace(case, batch=replace(case.batch, inputs=tuple(x.double() for x in case.batch.inputs)))
    before, after, _ = adjusted(model, case, step())
    hidden, mask = model.hierarchy(case.batch.inputs, case.batch.masks)
    v, a = model.pooling(hidden[0], mask[0]).detach().numpy()
    w_v, w_a = (w.detach().numpy() for w in model.head.weight)
    bias = model.head.bias.detach().numpy()[:, 0]
    b_v, b_a = (bias[0] / 2, bias[0] / 2) if fusion == "concat" else bias
    out_v, out_a = v @ w_v + b_v, a @ w_a + b_a
    np.testing.assert_allclose(model(case.batch).prediction.detach().numpy(), out_v + out_a, rtol=1e-10)
    score_v, score_a = scores_in_numpy(np.stack((out_v, out_a)), case.batch.target.numpy())
    ratio = score_v / score_a
    k_v = 1 - math.tanh(0.8 * ratio) if ratio > 1 else 1.0
    k_a = 1 - math.tanh(0.8 / ratio) if ratio < 1 else 1.0
    assert {k_v, k_a} > {1.0}
    for name in ("hierarchy.convolutions.stages.0.first", "hierarchy.convolutions.weight"):
        np.testing.assert_allclose(after[name][0], k_v * before[name][0], rtol=1e-10)
        np.testing.assert_allclose(after[name][1], k_a * before[name][1], rtol=1e-10)
    for m, k in enumerate((k_v, k_a)):
        name = f"hierarchy.convolutions.inputs.{m}.weight"
        np.testing.assert_allclose(after[name], k * before[name], rtol=1e-10)


@pytest.mark.parametrize(("names", "classes"), [(("text", "audio", "vision"), 3), (("text", "audio", "vision"), None)])
def test_three_modalities_and_regression(
    make_case: Callable[..., Any], names: tuple[str, ...], classes: int | None
) -> None:
    case = make_case(names, classes)
    model = case.build(OGMGE, alpha=0.4)
    output, _ = gradients(model, case)
    outputs = output.parts["outputs"].detach().double().numpy()
    if classes is None:
        target = case.batch.target.double().numpy()
        scores = np.exp(-np.abs(outputs[..., 0] - target) / case.task.target_scale).sum(1)
    else:
        scores = scores_in_numpy(outputs, case.batch.target.numpy())
    expected = coefficients_in_numpy(scores, 0.4)
    np.testing.assert_allclose(output.parts["coefficients"], expected, rtol=1e-5)
    assert [float(output.diagnostics[f"coefficient_{n}"]) for n in names] == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(output.prediction, output.parts["outputs"].sum(0).squeeze(-1) if classes is None
                               else output.parts["outputs"].sum(0))  # fmt: skip


def test_only_weights_of_encoder_and_backbone_are_touched(make_case: Callable[..., Any]) -> None:
    """Text has levels, so audio stands alone in the folded encoder: its biases have the shape (1, d) there."""
    case = make_case(("text", "audio"), 4)
    torch.manual_seed(0)
    backbones = [torch.nn.Identity(), Biased(4)]
    backbones[0].forward = lambda x, mask: (x, mask)
    model = OGMGE(case.task, case.encoder, OGMGEConfig(), backbones)
    before, after, _ = adjusted(model, case, step())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    stages = {f"hierarchy.convolutions.stages.{i}.{which}" for i in range(3) for which in ("first", "second")}
    maps = {"hierarchy.projections.0.weight", "hierarchy.convolutions.inputs.0.weight", "hierarchy.convolutions.weight"}
    assert changed == stages | maps | {"backbones.1.layer.weight"}


class Biased(torch.nn.Module):
    """A linear backbone with a bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), mask


def test_full_adds_noise_to_every_modality_and_ogm_to_none(make_case: Callable[..., Any]) -> None:
    case = make_case(("audio", "vision"), 4)
    name = "hierarchy.convolutions.stages.1.first"
    for modulation, noisy in (("ogm_ge", True), ("ogm", False)):
        model = case.build(OGMGE, modulation=modulation)
        before, after, k = adjusted(model, case, step())
        assert sorted(k == 1) == [False, True]
        for m in range(2):
            rest = after[name][m] - k[m] * before[name][m]
            ratio = float(rest.std() / before[name][m].std())
            assert ratio == pytest.approx(1.0 if noisy else 0.0, abs=0.12)


def test_noise_comes_from_the_runs_own_stream(make_case: Callable[..., Any]) -> None:
    case = make_case()
    name = "hierarchy.convolutions.weight"
    found = []
    for seed, foreign in ((0, 1), (0, 2), (1, 1)):
        model = case.build(OGMGE)
        torch.manual_seed(foreign)
        found.append(adjusted(model, case, step(seed=seed))[1][name])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_window_holds_both_ends(make_case: Callable[..., Any]) -> None:
    config = OGMGEConfig()
    assert [e for e in range(100) if config.active(step(e))] == list(range(51))
    assert [e for e in range(10) if OGMGEConfig(starts=0.3, ends=0.7).active(step(e, 10))] == [3, 4, 5, 6, 7]
    assert OGMGEConfig(starts=0.29, ends=0.29).active(step(29, 100))
    case = make_case()
    for model, at in ((case.build(OGMGE), step(51)), (case.build(OGMGE, modulation="none"), step(0))):
        before, after, _ = adjusted(model, case, at)
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_variants_change_what_they_say(make_case: Callable[..., Any]) -> None:
    case = make_case()
    full, ogm, added = (case.build(OGMGE, **OGMGE.VARIANTS[v]) for v in ("full", "ogm", "sum"))
    assert full.config == OGMGEConfig()
    assert replace(full.config, modulation="ogm") == ogm.config
    assert full.head.bias.shape == (1, 1, 4)
    assert added.head.bias.shape == (2, 1, 4)
    with torch.no_grad():
        for model in (full, added):
            model.head.weight.zero_()
    torch.testing.assert_close(full(case.batch).parts["outputs"][0, 0], full.head.bias[0, 0] / 2)
    torch.testing.assert_close(added(case.batch).parts["outputs"][1, 0], added.head.bias[1, 0])


def test_concat_is_one_linear_layer(make_case: Callable[..., Any]) -> None:
    case = make_case()
    model = case.build(OGMGE).eval()
    hidden, mask = model.hierarchy(case.batch.inputs, case.batch.masks)
    joint = torch.cat(list(model.pooling(hidden[0], mask[0])), 1)
    weight = torch.cat(list(model.head.weight)).T
    expected = torch.nn.functional.linear(joint, weight, model.head.bias[0, 0])
    torch.testing.assert_close(model(case.batch).prediction, expected)
    assert not model(case.batch).diagnostics  # outside training the target is never read


@pytest.mark.parametrize(
    "fields", [{"alpha": -1.0}, {"fusion": "film"}, {"modulation": "on"}, {"starts": 0.6}, {"starts": -0.1}]
)
def test_senseless_configs_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"config: method\."):
        OGMGEConfig(**fields)


def test_constant_targets_are_refused(make_case: Callable[..., Any]) -> None:
    case = make_case(("audio", "vision"), None)
    with pytest.raises(ValueError, match="target_scale"):
        OGMGE(replace(case.task, target_scale=0.0), case.encoder)
