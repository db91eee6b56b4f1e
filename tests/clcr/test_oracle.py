"""The folded program against the naive one: predictions, losses and gradients in double precision."""

from __future__ import annotations

import pytest
import torch
from naive import naive
from torch.testing import assert_close
from toys import gradients, toy_batch, toy_model, toy_task

from clcr.config import VARIANTS

CASES = [(variant, {}, 3, 3) for variant in VARIANTS]
CASES += [
    ("full", {"budget": "fixed", "fixed_budget": 0.4}, 3, 3),
    ("full", {"budget": "fixed", "fixed_budget": 1.0}, 2, None),
]
CASES += [("full", {"budget_rate": 5.0}, 3, 3), ("full", {"exchange_scale": 3.0}, 3, None)]
CASES += [("full", {"level_floor": 0.3}, 3, 3), ("full", {"conflict": "apart", "level_floor": 0.1}, 2, None)]
CASES += [
    ("full", {"detach_whitening": True, "shared_rank": 4, "private_rank": 4}, 3, 3),
    ("full", {"detach_whitening": True}, 2, None),
]
CASES += [("full", {"variance_floor": 0.7}, 3, 3), ("no_intraced", {"variance_floor": 0.7}, 2, 3)]
CASES += [("full", {}, 2, None), ("full", {}, 1, 3), ("full_mix", {}, 2, 3)]
CASES += [("full", {"shared_rank": 4, "private_rank": 4}, 3, 3), ("full", {"private_rank": 6}, 3, 3)]
CASES += [("full", {"gamma": 3.0}, 3, None), ("full", {"threshold_start": 3.0, "scale_start": 5.0}, 2, 3)]


@pytest.mark.parametrize(("variant", "config", "modalities", "classes"), CASES)
def test_agrees_with_the_naive_program(variant: str, config: dict, modalities: int, classes: int | None) -> None:
    task = toy_task(modalities, classes)
    model, batch = toy_model(variant, task, **config), toy_batch(task)
    compare(model, batch)


@pytest.mark.parametrize("variant", ["full", "no_intraced"])
def test_agrees_with_attention_pooling_and_no_levelled_modality(variant: str) -> None:
    task = toy_task(levelled=False)
    model, batch = toy_model(variant, task, encoder={"pooling": "attention"}), toy_batch(task)
    with torch.no_grad():
        model.summarise.pool_shared.query.normal_(0, 2)
        model.summarise.pool_private.query.normal_(0, 2)
    compare(model, batch)


@pytest.mark.parametrize("size", [1, 4, 7])
def test_agrees_on_batches_too_small_for_the_correlations(size: int) -> None:
    task = toy_task()
    compare(toy_model("full", task), toy_batch(task, size))


def compare(model: torch.nn.Module, batch: object) -> None:
    output, expected = model(batch), naive(model, batch)
    losses = model.losses(output, batch)
    assert_close(output.prediction, expected.prediction, rtol=1e-9, atol=1e-10)
    assert losses.keys() == expected.losses.keys()
    for name, loss in losses.items():
        assert_close(loss, expected.losses[name], rtol=1e-9, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    if "alpha" in output.diagnostics:
        for level, row in enumerate(expected.alpha):
            for m, alpha in enumerate(row):
                assert_close(output.diagnostics["alpha"][level, m, :, : alpha.shape[1]], alpha.detach())
    ours = gradients(model, sum(losses.values()))
    theirs = gradients(model, sum(expected.losses.values()))
    for name, gradient in ours.items():
        assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
