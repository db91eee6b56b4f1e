"""What every trained baseline owes the contract: shapes, padding, seeds, gradients, learning."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import METHODS
from baselines.late_fusion import LateFusion, Unimodal
from baselines.misa import MISA
from baselines.ogm_ge import OGMGE
from clcr.api import Batch, Method, Step
from clcr.layers import Draws
from clcr.method import CLCR

TRAINED = [(row.name, variant) for row in METHODS.values() if row.name != "clcr" and not row.fitted
           for variant in row.variants]  # fmt: skip
KINDS = [
    (("audio", "vision"), 4),
    (("audio", "vision"), None),
    (("text", "audio", "vision"), 3),
    (("text", "audio", "tabular"), None),
]


def build(case: Any, name: str, variant: str, seed: int = 0) -> Any:
    cls = load(name)
    return case.build(cls, seed, **cls.VARIANTS[variant])


def load(name: str) -> Any:
    module, _, attribute = METHODS[name].target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def kinds_of(name: str) -> list[tuple[tuple[str, ...], int | None]]:
    return [(("audio",), 4), (("text",), None)] if name == "unimodal" else KINDS


EVERY = [(name, variant, names, classes) for name, variant in TRAINED for names, classes in kinds_of(name)]
every = pytest.mark.parametrize(("name", "variant", "names", "classes"), EVERY)
each_method = pytest.mark.parametrize(("name", "variant"), TRAINED)


def train(model: Method, batch: Batch, steps: int, lr: float) -> list[float]:
    """Steps of Adam on one batch, as the trainer does them; returns the task loss before each step."""
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    noise = Draws(3)
    history = []
    for step in range(steps):
        optimiser.zero_grad()
        output = model(batch)
        losses = model.losses(output, batch)
        torch.stack(list(losses.values())).sum().backward()
        model.adjust_gradients(output, batch, Step(step, steps, noise))
        optimiser.step()
        history.append(float(losses["task"].detach()))
    return history


def repad(batch: Batch, extra: int, fill: float) -> Batch:
    """``fill`` wherever there is no real token, and ``extra`` more such steps (a modality of one token stays)."""
    inputs, masks = [], []
    for x, mask in zip(batch.inputs, batch.masks, strict=True):
        more = extra if mask.shape[1] > 1 else 0
        mask = torch.cat((mask, mask.new_zeros(len(mask), more)), 1)
        x = torch.cat((x, x.new_zeros(*x.shape[:-2], more, x.shape[-1])), -2)
        real = mask[:, None, :, None] if x.dim() == 4 else mask[:, :, None]
        inputs.append(torch.where(real, x, torch.full_like(x, fill)))
        masks.append(mask)
    return replace(batch, inputs=tuple(inputs), masks=tuple(masks))


@every
def test_prediction_losses_and_gradients(
    make_case: Callable[..., Any], name: str, variant: str, names: tuple[str, ...], classes: int | None
) -> None:
    case = make_case(names, classes)
    model = build(case, name, variant)
    output = model(case.batch)
    assert output.prediction.shape == ((8,) if classes is None else (8, classes))
    losses = model.losses(output, case.batch)
    assert "task" in losses
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


@every
def test_padding_changes_nothing(
    make_case: Callable[..., Any], name: str, variant: str, names: tuple[str, ...], classes: int | None
) -> None:
    case = make_case(names, classes)
    model = build(case, name, variant).double().eval()
    batch = replace(case.batch, inputs=tuple(x.double() for x in case.batch.inputs))
    expected = model(batch).prediction
    for extra, fill in ((0, 50.0), (3, -9.0)):
        torch.testing.assert_close(model(repad(batch, extra, fill)).prediction, expected, rtol=0, atol=1e-12)


@every
def test_a_sample_does_not_depend_on_its_batch(
    make_case: Callable[..., Any], name: str, variant: str, names: tuple[str, ...], classes: int | None
) -> None:
    case = make_case(names, classes)
    model = build(case, name, variant).double().eval()
    inputs = tuple(x.double() for x in case.batch.inputs)
    expected = model(replace(case.batch, inputs=inputs)).prediction
    for b in range(3):
        one = Batch(tuple(x[b : b + 1] for x in inputs), tuple(m[b : b + 1] for m in case.batch.masks),
                    case.batch.target[b : b + 1])  # fmt: skip
        torch.testing.assert_close(model(one).prediction, expected[b : b + 1], rtol=0, atol=1e-12)


@each_method
def test_every_modality_counts(make_case: Callable[..., Any], name: str, variant: str) -> None:
    names, classes = kinds_of(name)[-1]
    case = make_case(names, classes)
    model = build(case, name, variant).eval()
    expected = model(case.batch).prediction
    for m in range(len(names)):
        inputs = [x + (m == i) * mask.unsqueeze(-1).expand(mask.shape + x.shape[-1:]).view(
            mask.shape[:1] + (1,) * (x.dim() - 3) + mask.shape[1:] + x.shape[-1:])
            for i, (x, mask) in enumerate(zip(case.batch.inputs, case.batch.masks, strict=True))]  # fmt: skip
        changed = model(replace(case.batch, inputs=tuple(inputs))).prediction
        assert (changed - expected).abs().max() > 1e-4, names[m]


@each_method
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_missing_samples_and_a_batch_of_one_stay_finite(
    make_case: Callable[..., Any], name: str, variant: str, pooling: str
) -> None:
    names, classes = kinds_of(name)[-1]
    for size in (1, 4):
        case = make_case(names, classes, size, pooling=pooling)
        masks = tuple(mask & (torch.arange(size) != m)[:, None] for m, mask in enumerate(case.batch.masks))
        batch = replace(case.batch, masks=masks)
        model = build(case, name, variant)
        history = train(model, batch, 3, 1e-2)
        assert all(torch.isfinite(torch.tensor(history)))
        assert all(torch.isfinite(p).all() for p in model.parameters())


@each_method
def test_a_seed_decides_everything(make_case: Callable[..., Any], name: str, variant: str) -> None:
    names, classes = kinds_of(name)[0]
    case = make_case(names, classes, dropout=0.3)

    def trained(seed: int) -> dict[str, Tensor]:
        model = build(case, name, variant, seed)
        train(model, case.batch, 3, 1e-3)
        return dict(model.named_parameters())

    first, again, other = trained(0), trained(0), trained(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@each_method
@pytest.mark.parametrize("kind", [0, -1])
def test_overfits_a_tiny_batch(make_case: Callable[..., Any], name: str, variant: str, kind: int) -> None:
    case = make_case(*kinds_of(name)[kind])
    model = build(case, name, variant)
    start = train(model, case.batch, 1, 0.0)[0]
    train(model, case.batch, 90, 2e-3 if name == "misa" else 5e-3)
    end = model.eval().losses(model(case.batch), case.batch)["task"].detach()
    assert float(end) < 0.25 * start


@each_method
def test_modality_parameters_are_those_of_backbones_and_encoder(
    make_case: Callable[..., Any], name: str, variant: str
) -> None:
    names, classes = kinds_of(name)[-1]
    case = make_case(names, classes)
    torch.manual_seed(0)
    cls = load(name)
    backbones = [TokenBackbone(modality.width) for modality in case.task.modalities]
    model = cls(case.task, case.encoder, cls.Config(**cls.VARIANTS[variant]), backbones)
    found = {id(p): modalities for p, modalities in model.modality_parameters()}
    shared = {id(p) for p in model.hierarchy.norm.parameters()}  # the one part of the encoder that no modality owns
    owned = {id(p) for p in (*model.backbones.parameters(), *model.hierarchy.parameters())} - shared
    assert set(found) == owned
    for m, backbone in enumerate(model.backbones):
        assert all(found[id(p)] == (m,) for p in backbone.parameters())
    for parameter, modalities in model.modality_parameters():
        assert len(modalities) == 1 or parameter.shape[0] == len(modalities)


class TokenBackbone(torch.nn.Module):
    """A backbone with a weight and a bias that keeps the shape of its tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), mask


def test_all_methods_of_a_seed_start_from_one_encoder(make_case: Callable[..., Any]) -> None:
    case = make_case(("text", "audio", "vision"), 3)
    models = [case.build(cls) for cls in (LateFusion, OGMGE, MISA)]
    models.append(case.build(CLCR, shared_rank=4, private_rank=4, heads=2))
    first, *others = (dict(model.hierarchy.named_parameters()) for model in models)
    assert "convolutions.stages.2.first" in first
    for other in others:
        assert set(other) == set(first)
        same_shape = [name for name in first if other[name].shape == first[name].shape]
        assert len(same_shape) >= len(first) - 3  # CLCR has all levels of the projections and positions
        assert all(torch.equal(other[name], first[name]) for name in same_shape)


def test_too_few_or_too_many_modalities_are_refused(make_case: Callable[..., Any]) -> None:
    one, two = make_case(("audio",)), make_case(("audio", "vision"))
    for method in (OGMGE, MISA):
        with pytest.raises(ValueError, match="two or more modalities"):
            one.build(method)
    with pytest.raises(ValueError, match="2 modalities"):
        two.build(Unimodal)


def test_late_fusion_concatenates_pooled_tokens(make_case: Callable[..., Any]) -> None:
    case = make_case(("text", "audio", "vision"), 3)
    model = case.build(LateFusion).eval()
    hidden, mask = model.hierarchy(case.batch.inputs, case.batch.masks)
    rows = []
    for b in range(8):
        rows.append(torch.cat([hidden[0, m, b][mask[0, m, b]].mean(0) for m in range(3)]))
    torch.testing.assert_close(model(case.batch).prediction, model.head(torch.stack(rows)))


def test_every_row_of_the_table_resolves_to_its_variants() -> None:
    for row in METHODS.values():
        assert row.label
        assert row.citation
        if row.name == "clcr":  # its file has its own tests
            continue
        cls = load(row.name)
        assert tuple(cls.VARIANTS) == row.variants
        for fields in cls.VARIANTS.values():
            cls.Config(**fields)


def test_the_table_and_the_linear_floor_load_no_torch() -> None:
    code = "import baselines, baselines.linear, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
