"""Baselines of several seeds in one program: each seed trains as it would alone."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from packed import PackedReader
from torch import Tensor
from torch.testing import assert_close

from baselines import METHODS
from baselines.misa import MISA
from clcr.api import Batch, Method, Modality, Step, Task
from clcr.config import EncoderConfig
from clcr.layers import Draws, drawing, fold

SEEDS = (3, 11, 4)
STEPS = 20
MODALITIES = (Modality("text", 7, 5, levelled=True), Modality("audio", 5, 6), Modality("vision", 3, 4))
ENCODER = EncoderConfig(width=8, dropout=0.3, pooling="attention")
TRAINED = [(row.name, variant) for row in METHODS.values() if row.name != "clcr" and not row.fitted
           for variant in row.variants]  # fmt: skip
PRECISIONS = [(torch.float32, 1e-4), (torch.float64, 1e-9)]


def task_of(name: str, classes: int | None) -> Task:
    modalities = MODALITIES[:1] if name == "unimodal" else MODALITIES
    return Task(modalities, classes, "l1" if classes is None else "cross_entropy")


def build(name: str, variant: str, task: Task, seed: int) -> Any:
    """A method with dropout; in regression each seed has a spread of targets of its own."""
    module, _, attribute = METHODS[name].target.partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    torch.manual_seed(seed)
    own = task if task.n_classes is not None else replace(task, target_scale=1 + seed / 4)
    return cls(own, ENCODER, cls.Config(**cls.VARIANTS[variant]))


def ragged(task: Task, seed: int, dtype: torch.dtype, size: int = 9) -> Batch:
    """Random tokens; sample 1 lacks modality 0, sample 2 has a gap, sample 3 nothing at all."""
    draw = torch.Generator().manual_seed(seed)
    inputs, masks = [], []
    for m, modality in enumerate(task.modalities):
        levels = (3,) if modality.levelled else ()
        inputs.append(torch.randn(size, *levels, modality.tokens, modality.width, generator=draw, dtype=dtype))
        mask = torch.arange(modality.tokens) < torch.randint(1, modality.tokens + 1, (size, 1), generator=draw)
        mask[1] &= m > 0
        mask[2] = torch.arange(modality.tokens) != 1
        mask[3] = False
        masks.append(mask)
    if task.n_classes is None:
        return Batch(tuple(inputs), tuple(masks), torch.randn(size, generator=draw, dtype=dtype))
    return Batch(tuple(inputs), tuple(masks), torch.randint(task.n_classes, (size,), generator=draw))


def together(batches: list[Batch]) -> Batch:
    """One batch with a leading seed axis."""
    inputs, masks = (tuple(torch.stack(x) for x in zip(*parts, strict=True))
                     for parts in ([b.inputs for b in batches], [b.masks for b in batches]))  # fmt: skip
    return Batch(inputs, masks, torch.stack([batch.target for batch in batches]))


def train(model: Method, batches: list[Batch], draws: Draws, noise: Draws) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Steps of AdamW as the trainer does them: the losses, and the diagnostics of the last step."""
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    history, diagnostics = [], {}
    for step in range(STEPS):
        batch = batches[step % len(batches)]
        with drawing(draws):
            output = model(batch)
            total = torch.stack(list(model.losses(output, batch).values())).sum(0)
        optimiser.zero_grad()
        total.sum().backward()
        model.adjust_gradients(output, batch, Step(step, STEPS, noise))
        optimiser.step()
        history.append(total.detach())
        diagnostics = dict(output.diagnostics)
    return history, diagnostics


@pytest.mark.parametrize(("dtype", "near"), PRECISIONS)
@pytest.mark.parametrize("classes", [3, None])
@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_seeds_together_train_as_they_would_alone(
    name: str, variant: str, classes: int | None, dtype: torch.dtype, near: float
) -> None:
    task = task_of(name, classes)
    batches = [[ragged(task, seed + step, dtype) for step in range(3)] for seed in SEEDS]
    alone = [build(name, variant, task, seed).to(dtype) for seed in SEEDS]
    assert alone[0].FOLDS
    folded = fold(alone)
    groups = [together(list(group)) for group in zip(*batches, strict=True)]
    losses, seen = train(folded, groups, Draws(SEEDS), Draws(SEEDS))
    for place, (seed, model, own) in enumerate(zip(SEEDS, alone, batches, strict=True)):
        solo, expected = train(model, own, Draws(seed), Draws(seed))
        assert_close(torch.stack(losses)[:, place], torch.stack(solo), rtol=near, atol=near)
        for key, value in folded.state_dict().items():
            assert_close(
                value[place], model.state_dict()[key], rtol=0, atol=near, msg=lambda text, n=key: f"{n}: {text}"
            )
        assert seen.keys() == expected.keys()
        for key, value in seen.items():
            assert_close(value[place], expected[key], rtol=near, atol=near)


def test_no_seed_reaches_another() -> None:
    """The others' data may be anything: their gradients move, those of the first seed do not."""
    task = task_of("misa", 3)
    folded: Any = fold([build("misa", "full", task, seed) for seed in SEEDS]).eval()
    found = []
    for other in (5, 6):
        batch = together([ragged(task, seed, torch.float32) for seed in (0, other, other)])
        losses = folded.losses(folded(batch), batch)
        found.append(torch.autograd.grad(torch.stack(list(losses.values())).sum(), list(folded.parameters())))
    for first, second in zip(*found, strict=True):
        assert torch.equal(first[0], second[0])
    assert any(not torch.equal(first[1], second[1]) for first, second in zip(*found, strict=True))


def launches(model: Method, batch: Batch) -> int:
    """Operators called in the forward and the backward pass."""
    with torch.autograd.profiler.profile() as found:
        torch.stack(list(model.losses(model(batch), batch).values())).sum().backward()
    return sum(event.name.startswith("aten::") for event in found.function_events)


@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_the_number_of_seeds_launches_nothing_more(name: str, variant: str) -> None:
    task = task_of(name, 3)
    few, many = (
        launches(fold([build(name, variant, task, 0)] * n).eval(), together([ragged(task, 0, torch.float32)] * n))
        for n in (2, 5)
    )
    assert many <= few


def steps_of(model: Any, batch: Batch, draws: Draws) -> Callable[[], float]:
    """A function that makes a step of training and gives its seconds."""
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=1e-3, fused=True)

    def step() -> float:
        start = time.process_time()
        with drawing(draws):
            total = torch.stack(list(model.losses(model(batch), batch).values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        return time.process_time() - start

    return step


@pytest.mark.slow
def test_eight_seeds_of_misa_together_beat_eight_of_packed_sequences() -> None:
    widths, seeds = {"text": 300, "audio": 74, "vision": 35}, range(8)
    task = Task(tuple(Modality(name, width, 20) for name, width in widths.items()), None, "l1")
    models: list[Any] = [MISA(task, EncoderConfig(width=32)) for _ in seeds]
    batches = [ragged(task, seed, torch.float32, 32) for seed in seeds]
    for batch in batches:
        for mask in batch.masks:
            mask[:, 0] = True  # packed sequences must have a token
            mask[2] = True
    folded = steps_of(fold(models), together(batches), Draws(seeds))
    models[0].utterance.reader = PackedReader(models[0].utterance.reader)
    packed = steps_of(models[0], batches[0], Draws(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = [(folded(), min(packed() for _ in range(4))) for _ in range(12)]
    finally:
        torch.set_num_threads(threads)
    eight, one = (min(each) for each in zip(*times, strict=True))
    assert 8 * one / eight >= 1.5


@pytest.mark.parametrize("seeds", [(3,), (3, 11, 4)])
def test_which_gradients_are_modulated_does_not_depend_on_the_number_of_seeds(seeds: tuple[int, ...]) -> None:
    task = task_of("ogm_ge", 3)
    alone: Any = build("ogm_ge", "full", task, 3)
    folded: Any = fold([build("ogm_ge", "full", task, seed) for seed in seeds])
    changed = []
    for model, draws, batch in (
        (alone, Draws(3), ragged(task, 0, torch.float32)),
        (folded, Draws(seeds), together([ragged(task, 0, torch.float32)] * len(seeds))),
    ):
        output = model(batch)
        model.losses(output, batch)["task"].sum().backward()
        before = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.adjust_gradients(output, batch, Step(0, 10, draws))
        changed.append({name for name, p in model.named_parameters() if not torch.equal(p.grad, before[name])})
    assert changed[0] == changed[1]
    assert changed[0]
