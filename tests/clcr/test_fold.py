"""Seeds trained together: each finds the random numbers, the values and the gradients that it would find alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_clcr_cost import LIMIT, full_size
from torch.testing import assert_close
from toys import toy_batch, toy_model, toy_task

from benchmarks.runner.opcount import OperationCount
from clcr.api import Batch
from clcr.config import VARIANTS
from clcr.layers import CHUNK, Draws, Dropout, LayerNorm, Linear, drawing, fold, kept
from clcr.method import CLCR

SEEDS = (3, 11, 4)


def together(batches: list[Batch]) -> Batch:
    """One batch with a leading seed axis."""
    inputs = zip(*(batch.inputs for batch in batches), strict=True)
    masks = zip(*(batch.masks for batch in batches), strict=True)
    target = torch.stack([batch.target for batch in batches])
    return Batch(tuple(map(torch.stack, inputs)), tuple(map(torch.stack, masks)), target)


def train(model: CLCR, batches: list[Batch], draws: Draws) -> list[torch.Tensor]:
    """20 steps of AdamW with dropout; the total loss of each step, one a seed."""
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    history = []
    for step in range(20):
        batch = batches[step % len(batches)]
        with drawing(draws):
            total = torch.stack(list(model.losses(model(batch), batch).values())).sum(0)
        optimiser.zero_grad()
        total.sum().backward()
        optimiser.step()
        history.append(total.detach())
    return history


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize(
    ("variant", "config"),
    [
        *((name, {}) for name in VARIANTS),
        ("full", {"budget": "fixed", "fixed_budget": 0.4}),
        ("full", {"budget_rate": 5.0, "level_floor": 0.3, "conflict": "apart", "variance_floor": 0.5}),
    ],
)
def test_seeds_together_train_as_they_would_alone(variant: str, config: dict, dtype: torch.dtype, near: float) -> None:
    task = toy_task(3, 3)
    batches = [[toy_batch(task, 10, seed + step, dtype=dtype) for step in range(3)] for seed in SEEDS]
    alone = [
        toy_model(variant, task, seed, {"dropout": 0.3, "pooling": "attention"}, **config).to(dtype) for seed in SEEDS
    ]
    folded = fold(alone)
    losses = train(folded, [together(list(group)) for group in zip(*batches, strict=True)], Draws(SEEDS))
    for place, (seed, model, own) in enumerate(zip(SEEDS, alone, batches, strict=True)):
        solo = train(model, own, Draws(seed))
        assert_close(torch.stack(losses)[:, place], torch.stack(solo), rtol=near, atol=near)
        for name, value in folded.state_dict().items():
            assert_close(
                value[place], model.state_dict()[name], rtol=0, atol=near, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_number_of_seeds_launches_nothing_more(seeds: int) -> None:
    model, batch = full_size()
    small = Batch(tuple(x[:8] for x in batch.inputs), tuple(x[:8] for x in batch.masks), batch.target[:8])
    folded, group = fold([model] * seeds), together([small] * seeds)
    with OperationCount() as count:
        torch.stack(list(folded.losses(folded(group), group).values())).sum().backward()
    assert count.total <= LIMIT


def test_streams_are_those_of_each_seed_alone_and_go_on_past_a_chunk() -> None:
    group, alone = Draws(SEEDS), [Draws(seed) for seed in SEEDS]
    for shape in ((5,), (3, 4), (CHUNK - 10,), (CHUNK + 1,), (2,)):
        for kind in ("uniform", "normal"):
            drawn = getattr(group, kind)(*shape)
            assert drawn.shape == (len(SEEDS), *shape)
            for place, own in enumerate(alone):
                assert torch.equal(drawn[place], getattr(own, kind)(*shape))
    first, second = Draws(1).uniform(1000), Draws(2).uniform(1000)
    assert not torch.equal(first, second)
    assert 0 <= first.min() < 0.01 < 0.99 < first.max() < 1


def test_dropout_keeps_the_mean_and_is_off_in_evaluation() -> None:
    x = torch.ones(200, 500)
    dropped = Dropout(0.3)(x)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert abs(float(dropped.mean()) - 1) < 0.01
    assert Dropout(0.3).eval()(x) is x
    assert kept(x.bfloat16(), (4, 5), 0.5).dtype == torch.bfloat16


def test_layers_equal_those_of_torch_and_fold() -> None:
    for ours, theirs in ((Linear(5, 3), torch.nn.Linear(5, 3)), (LayerNorm(5), torch.nn.LayerNorm(5))):
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(2, 4, 7, 5)
        assert torch.equal(ours(x), theirs(x))
        assert_close(fold([ours, ours])(x), theirs(x))
    with pytest.raises(ValueError, match="more than the values"):
        fold([Linear(5, 3), Linear(5, 4)])


def test_misaligned_levels_are_those_of_each_seed() -> None:
    task = toy_task(3, 3)
    models = [toy_model("full_mix", task, seed) for seed in range(6)]
    batch = toy_batch(task)
    prediction = fold(models)(together([batch] * 6)).prediction
    assert len({tuple(model.level_of.flatten().tolist()) for model in models}) > 1
    for place, model in enumerate(models):
        assert_close(prediction[place], model(replace(batch)).prediction)
