"""The eager program is the same method, written in loops: it may serve as the yardstick for speed."""

from __future__ import annotations

import pytest
import torch
from eager import Eager
from test_clcr_cost import LIMIT, full_size
from torch.testing import assert_close
from toys import gradients, toy_batch, toy_model, toy_task

from benchmarks.runner.opcount import OperationCount


@pytest.mark.parametrize(("modalities", "classes"), [(2, 3), (2, None), (3, 3), (3, None)])
@pytest.mark.parametrize(
    "config", [{}, {"private_rank": 4}, {"gamma": 3.0}, {"shared_rank": 2, "threshold_start": 3.0}]
)
def test_the_eager_program_is_the_same_method(modalities: int, classes: int | None, config: dict) -> None:
    task = toy_task(modalities, classes, levelled=False)
    model, batch = toy_model("full", task, **config), toy_batch(task)
    eager = Eager(model).eval()
    output = model(batch)
    losses = model.losses(output, batch)
    prediction, found = eager(batch)
    assert_close(prediction, output.prediction, rtol=1e-9, atol=1e-10)
    assert found.keys() == losses.keys()
    for name, loss in losses.items():
        assert_close(found[name], loss, rtol=1e-9, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    sum(found.values()).backward()
    seen = set()
    for own, gradient in eager.places(gradients(model, sum(losses.values()))):
        assert_close(own.grad, gradient, rtol=1e-9, atol=1e-9)
        seen.add(own)
    assert seen == set(eager.parameters())
    assert sum(own.numel() for own in seen) == sum(x.numel() for x in model.parameters()) - padding(model)


def padding(model: torch.nn.Module) -> int:
    """Positions beyond the end of the shorter modalities, which only the folded program has."""
    longest = max(modality.tokens for modality in model.task.modalities)
    width = model.hierarchy.position.shape[-1]
    return sum(3 * width * (longest - modality.tokens) for modality in model.task.modalities)


def test_loops_launch_several_times_the_operations() -> None:
    model, batch = full_size()
    eager = Eager(model)
    with OperationCount() as count:
        sum(eager(batch)[1].values()).backward()
    assert count.total > 4 * LIMIT
