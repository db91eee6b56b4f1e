"""What a training step launches: a figure that does not depend on the machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.runner.opcount import OperationCount
from clcr.api import Batch, Modality, Task
from clcr.config import VARIANTS, CLCRConfig, EncoderConfig
from clcr.layers import Draws, drawing, fold
from clcr.method import CLCR

LIMIT = 700
TOKENS, BATCH = 50, 64


def full_size(variant: str = "full", modalities: int = 3, **config: int) -> tuple[CLCR, Batch]:
    """Width 128, ranks 32, 50 tokens, batch 64; text 768, audio 74, vision 35 wide; ragged lengths."""
    widths = {"text": 768, "audio": 74, "vision": 35}
    chosen = tuple(Modality(name, width, TOKENS) for name, width in widths.items())[:modalities]
    torch.manual_seed(0)
    settings = replace(CLCRConfig(), **VARIANTS[variant], **config)
    model = CLCR(Task(chosen, None, "l1"), EncoderConfig(), settings)
    masks = tuple(torch.arange(TOKENS) < torch.randint(10, TOKENS + 1, (BATCH, 1)) for _ in chosen)
    inputs = tuple(torch.randn(BATCH, TOKENS, modality.width) for modality in chosen)
    return model, Batch(inputs, masks, torch.randn(BATCH))


def launched(model: CLCR, batch: Batch) -> OperationCount:
    with OperationCount() as count:
        losses = model.losses(model(batch), batch)
        sum(losses.values()).backward()
    return count


def test_the_counter_tells_views_from_work() -> None:
    x = torch.ones(4, 6, requires_grad=True)
    with OperationCount() as count:
        y = x.view(2, 12).transpose(0, 1)[1:3].detach().unsqueeze(0)
        z = (x @ x.T).relu()
    assert y.shape == (1, 2, 2)
    assert dict(count.operations) == {"mm": 1, "relu": 1}
    assert sum(count.views.values()) >= 5
    with OperationCount() as count:
        z.sum().backward()
    assert count.total >= 3


def test_a_full_step_stays_within_the_limit() -> None:
    assert launched(*full_size()).total <= LIMIT


@pytest.mark.parametrize("seeds", [1, 2])
def test_dropout_optimiser_and_seeds_stay_within_the_limit(seeds: int) -> None:
    """All that a training step launches: forward in training mode, masks, backward, AdamW."""
    model, batch = full_size()
    folded = fold([model] * seeds).train()
    group = Batch(
        tuple(x.expand(seeds, *x.shape) for x in batch.inputs),
        tuple(x.expand(seeds, *x.shape) for x in batch.masks),
        batch.target.expand(seeds, -1),
    )
    optimiser, draws = torch.optim.AdamW(folded.parameters(), fused=True), Draws(range(seeds))
    for _ in range(2):  # the first step also fills the streams and makes the optimiser's state
        with OperationCount() as count:
            with drawing(draws):
                losses = folded.losses(folded(group), group)
            torch.stack(list(losses.values())).sum().backward()
            optimiser.step()
    assert count.total <= LIMIT


@pytest.mark.parametrize("variant", ["no_hierarchy", "no_intraced", "no_intercad", "full_mix"])
def test_variants_stay_within_the_limit(variant: str) -> None:
    model, batch = full_size(variant)
    small = Batch(tuple(x[:16] for x in batch.inputs), tuple(x[:16] for x in batch.masks), batch.target[:16])
    assert launched(model, small).total <= LIMIT


def test_modalities_and_ranks_are_axes_not_loops() -> None:
    """A modality more costs its own input projection, little else."""
    counts = [launched(*full_size(modalities=n, shared_rank=8, private_rank=8)).total for n in (2, 3)]
    assert counts[1] - counts[0] <= 10
