"""The example method against the explicit tensor that it never makes, and against the contract."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "lmf"))

from clcr_lmf import LMF, ROW, LMFConfig, LowRankFusion

from clcr.api import Batch, Modality, Task
from clcr.config import EncoderConfig
from clcr.layers import Draws, drawing, fold

MODALITIES = (Modality("text", 7, 5, levelled=True), Modality("audio", 5, 6), Modality("vision", 3, 4))
SEEDS = (3, 11, 4)


def batch_of(task: Task, seed: int, size: int = 9) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    inputs, masks = [], []
    for modality in task.modalities:
        levels = (3,) if modality.levelled else ()
        inputs.append(torch.randn(size, *levels, modality.tokens, modality.width, generator=draw))
        masks.append(torch.arange(modality.tokens) < torch.randint(1, modality.tokens + 1, (size, 1), generator=draw))
    classes = task.n_classes
    target = torch.randn(size, generator=draw) if classes is None else torch.arange(size) % classes
    return Batch(tuple(inputs), tuple(masks), target)


def build(classes: int | None, seed: int, modalities: int = 3, **changes: Any) -> Any:
    torch.manual_seed(seed)
    task = Task(MODALITIES[:modalities], classes, "l1" if classes is None else "cross_entropy")
    return LMF(task, EncoderConfig(width=8, dropout=0.3), LMFConfig(**changes))


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(("rank", "outputs"), [(1, 1), (4, 1), (4, 5)])
def test_fusion_is_the_contraction_of_the_outer_product_with_a_low_rank_tensor(
    modalities: int, rank: int, outputs: int
) -> None:
    """Zadeh et al.'s tensor fusion, spelt out in numpy, with the weight tensor of section 3.2 of Liu et al."""
    torch.manual_seed(0)
    fusion = LowRankFusion(modalities, 4, rank, outputs).double()
    torch.nn.init.normal_(fusion.bias)
    vectors = torch.randn(modalities, 6, 4, dtype=torch.float64)
    factors, weight = fusion.factors.detach().numpy(), fusion.weight.detach().numpy().ravel()
    letters = "abc"[:modalities]
    tensor = np.zeros((5,) * modalities + (outputs,))
    for r in range(rank):
        terms = [factors[m, r] for m in range(modalities)]
        tensor += weight[r] * np.einsum(f"{','.join(f'{x}o' for x in letters)}->{letters}o", *terms)
    expected = []
    for b in range(6):
        with_one = [np.append(vectors[m, b].numpy(), 1.0) for m in range(modalities)]
        outer = np.einsum(f"{','.join(letters)}->{letters}", *with_one)
        expected.append(np.einsum(f"{letters},{letters}o->o", outer, tensor) + fusion.bias.detach().numpy()[0])
    np.testing.assert_allclose(fusion(vectors).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("classes", [3, None])
def test_seeds_together_train_as_they_would_alone(classes: int | None) -> None:
    def train(model: Any, batch: Batch, draws: Draws) -> Tensor:
        optimiser = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
        losses = []
        for _ in range(15):
            with drawing(draws):
                total = torch.stack(list(model.losses(model(batch), batch).values())).sum(0)
            optimiser.zero_grad()
            total.sum().backward()
            optimiser.step()
            losses.append(total.detach())
        return torch.stack(losses)

    alone = [build(classes, seed) for seed in SEEDS]
    batches = [batch_of(model.task, seed) for model, seed in zip(alone, SEEDS, strict=True)]
    pairs = (zip(*parts, strict=True) for parts in ([b.inputs for b in batches], [b.masks for b in batches]))
    inputs, masks = (tuple(torch.stack(x) for x in pair) for pair in pairs)
    folded = fold(alone)
    losses = train(folded, Batch(inputs, masks, torch.stack([b.target for b in batches])), Draws(SEEDS))
    for place, (seed, model, batch) in enumerate(zip(SEEDS, alone, batches, strict=True)):
        torch.testing.assert_close(losses[:, place], train(model, batch, Draws(seed)), rtol=1e-4, atol=1e-4)
        for name, value in folded.state_dict().items():
            torch.testing.assert_close(value[place], model.state_dict()[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("classes", [3, None])
def test_every_modality_counts_and_padding_does_not(classes: int | None) -> None:
    model = build(classes, 0).double().eval()
    batch = batch_of(model.task, 0)
    inputs = [x.double() for x in batch.inputs]
    expected = model(Batch(tuple(inputs), batch.masks, batch.target)).prediction
    assert expected.shape == ((9,) if classes is None else (9, classes))
    for m in range(3):
        mask = batch.masks[m][:, None, :, None] if inputs[m].dim() == 4 else batch.masks[m][:, :, None]
        for noise, moves in ((mask * 1.0, True), (~mask * 9.0, False)):
            changed = [x + noise if i == m else x for i, x in enumerate(inputs)]
            found = model(Batch(tuple(changed), batch.masks, batch.target)).prediction
            assert bool((found - expected).abs().max() > 1e-6) == moves


def test_it_learns_a_product_that_no_sum_of_modalities_can() -> None:
    """The class is the sign of a product: late fusion's first layer would have to learn it, here it is built in."""
    torch.manual_seed(0)
    fusion = LowRankFusion(2, 1, 4, 1)
    vectors = torch.randn(2, 256, 1)
    target = vectors[0, :, 0] * vectors[1, :, 0]
    optimiser = torch.optim.Adam(fusion.parameters(), lr=0.02)
    for _ in range(300):
        loss = (fusion(vectors)[:, 0] - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.01 * float(target.var())


def test_bad_numbers_and_a_single_modality_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.rank"):
        LMFConfig(rank=0)
    with pytest.raises(ValueError, match="two or more modalities"):
        build(3, 0, modalities=1)
    assert tuple(LMF.VARIANTS) == ROW["variants"]
    owned = {id(p) for p, _ in build(3, 0).modality_parameters()}
    assert owned
