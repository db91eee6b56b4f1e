"""The shared encoder: levels, masks, modalities as axes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from toys import MODALITIES, WIDTH, toy_batch, toy_task

from clcr.api import Modality
from clcr.config import EncoderConfig
from clcr.hierarchy import Pooling, SemanticHierarchy


def encoder(modalities: tuple[Modality, ...] = MODALITIES, levels: tuple[int, ...] = (1, 2, 3)) -> SemanticHierarchy:
    torch.manual_seed(0)
    return SemanticHierarchy(modalities, EncoderConfig(width=WIDTH), levels).double().eval()


def test_shapes_and_zero_padding() -> None:
    batch = toy_batch(toy_task())
    h, mask = encoder()(batch.inputs, batch.masks)
    assert h.shape == (3, 3, 10, 6, WIDTH)
    assert mask.shape == (1, 3, 10, 6)
    mask = mask.squeeze(0)
    assert_close(mask[0, :, :5], batch.masks[0])
    assert not mask[0, :, 5:].any()
    assert not h[:, ~mask].any()
    assert_close(h[:, mask].mean(-1), torch.zeros_like(h[:, mask][..., 0]))  # normalised


@pytest.mark.parametrize("levels", [(3,), (1,), (2, 3), (3, 3, 1)])
def test_a_level_is_the_same_whatever_others_are_wanted(levels: tuple[int, ...]) -> None:
    batch = toy_batch(toy_task())
    whole, _ = encoder()(batch.inputs, batch.masks)
    state = torch.get_rng_state()
    part, _ = encoder(levels=levels)(batch.inputs, batch.masks)
    assert_close(part, whole[[level - 1 for level in levels]])
    assert torch.equal(torch.get_rng_state(), state)  # what is drawn next is the same, too


def test_the_receptive_field_grows_by_stage() -> None:
    modality = Modality("audio", 2, 41)
    model = encoder((modality,))
    x = torch.randn(1, 41, 2, dtype=torch.float64, requires_grad=True)
    h, _ = model([x], [torch.ones(1, 41, dtype=torch.bool)])
    for level, reach in enumerate((2, 6, 14)):
        (gradient,) = torch.autograd.grad(h[level, 0, 0, 20, 0], x, retain_graph=True)
        touched = gradient[0].abs().sum(-1).nonzero()[:, 0]
        assert (touched.min(), touched.max()) == (20 - reach, 20 + reach)


def test_padding_changes_nothing() -> None:
    batch, model = toy_batch(toy_task()), encoder()
    h, _ = model(batch.inputs, batch.masks)
    garbage = []
    for x, real in zip(batch.inputs, batch.masks, strict=True):
        real = real[:, None, :, None] if x.dim() == 4 else real[..., None]
        garbage.append(torch.where(real, x, 1e3 * torch.randn_like(x)))
    other, _ = model(garbage, batch.masks)
    assert torch.equal(h, other)


def test_modalities_do_not_mix_and_own_their_parameters() -> None:
    batch, model = toy_batch(toy_task(), full=True), encoder()
    before, _ = model(batch.inputs, batch.masks)
    for chosen in range(3):
        changed = encoder()
        with torch.no_grad():
            for parameter, indices in changed.modality_parameters():
                if chosen in indices:
                    part = parameter if len(indices) == 1 else parameter[indices.index(chosen)]
                    part += 0.1 * torch.randn_like(part)
        after, _ = changed(batch.inputs, batch.masks)
        moved = (after - before).abs().amax((0, 2, 3, 4)) > 1e-6
        assert moved.tolist() == [m == chosen for m in range(3)]


def test_every_parameter_but_the_norm_belongs_to_modalities() -> None:
    model = encoder()
    owned = {id(parameter) for parameter, _ in model.modality_parameters()}
    left = [name for name, parameter in model.named_parameters() if id(parameter) not in owned]
    assert left == ["norm.weight", "norm.bias"]


def test_refuses_what_does_not_fit() -> None:
    batch, model = toy_batch(toy_task()), encoder()
    wrong = [batch.inputs[0][:, 0], *batch.inputs[1:]]
    with pytest.raises(ValueError, match=r"text: tokens .* are not \(B, 3, T, width\)"):
        model(wrong, batch.masks)
    with pytest.raises(ValueError, match="levels among"):
        SemanticHierarchy(MODALITIES, EncoderConfig(), levels=(4,))
    long = encoder(tuple(replace(modality, tokens=4) for modality in MODALITIES))
    with pytest.raises(ValueError, match="text: 5 tokens, but at most 4"):
        long(batch.inputs, batch.masks)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_pooling(pooling: str) -> None:
    torch.manual_seed(0)
    h = torch.randn(3, 2, 4, 5, WIDTH, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 4, 5) > 0.4
    mask[0, 0], mask[1, 1] = False, True
    pool = Pooling(EncoderConfig(width=WIDTH, pooling=pooling), (3, 2)).double()
    pooled = pool(h, mask)
    assert not pooled[:, 0, 0].any()
    assert_close(pooled[:, 1, 1], h[:, 1, 1].mean(-2))  # attention starts as the mean
    if pool.query is not None:
        with torch.no_grad():
            pool.query.normal_(0, 3)
        assert not torch.allclose(pool(h, mask)[:, 1, 1], h[:, 1, 1].mean(-2))
    pool(h, mask).square().sum().backward()
    assert h.grad is not None
    assert h.grad.isfinite().all()
    assert not h.grad[:, ~mask].any()
