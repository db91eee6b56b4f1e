"""Small synthetic tasks, models and batches for the tests of the method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clcr.api import Batch, Modality, Task
from clcr.config import VARIANTS, CLCRConfig, EncoderConfig
from clcr.method import CLCR

WIDTH = 12
TOY = {"shared_rank": 4, "private_rank": 3, "heads": 2}
MODALITIES = (Modality("text", 7, 5, levelled=True), Modality("audio", 5, 6), Modality("vision", 3, 4))


def toy_task(modalities: int = 3, classes: int | None = 3, levelled: bool = True) -> Task:
    """A task on the first modalities of three, classification or regression."""
    chosen = MODALITIES[:modalities]
    if not levelled:
        chosen = tuple(Modality(x.name, x.width, x.tokens) for x in chosen)
    return Task(chosen, classes, "l1" if classes is None else "cross_entropy")


def toy_model(
    variant: str = "full", task: Task | None = None, seed: int = 0, encoder: dict[str, Any] | None = None, **config: Any
) -> CLCR:
    """A CLCR of width 12, in double precision and evaluation mode."""
    torch.manual_seed(seed)
    settings = CLCRConfig(**{**TOY, **VARIANTS[variant], **config})
    shared = EncoderConfig(width=WIDTH, **(encoder or {}))
    return CLCR(task or toy_task(), shared, settings).double().eval()


def toy_batch(
    task: Task, size: int = 10, seed: int = 0, full: bool = False, dtype: torch.dtype = torch.float64
) -> Batch:
    """Random tokens; sample 1 has one real token and lacks modality 0, 2 has holes, 3 has modality 0 alone."""
    draw = torch.Generator().manual_seed(seed)
    inputs, masks = [], []
    for m, modality in enumerate(task.modalities):
        levels = (3,) if modality.levelled else ()
        inputs.append(torch.randn(size, *levels, modality.tokens, modality.width, generator=draw, dtype=dtype))
        real = torch.randint(1, modality.tokens + 1, (size, 1), generator=draw)
        mask = torch.arange(modality.tokens) < real
        if size >= 4:
            mask[1] = (torch.arange(modality.tokens) == 0) & (m > 0)
            mask[2] = torch.arange(modality.tokens) != 1
            mask[3] = m == 0
        masks.append(torch.ones_like(mask) if full else mask)
    classes = task.n_classes
    target = (
        torch.randn(size, generator=draw, dtype=dtype)
        if classes is None
        else torch.randint(classes, (size,), generator=draw)
    )
    return Batch(tuple(inputs), tuple(masks), target)


def total_loss(model: CLCR, batch: Batch) -> Tensor:
    """Sum of the losses of a batch."""
    return torch.stack(list(model.losses(model(batch), batch).values())).sum()


def gradients(model: CLCR, loss: Tensor) -> dict[str, Tensor]:
    """Gradient of each parameter by name, zeros where it takes no part."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def train(model: CLCR, batches: Sequence[Batch], steps: int, lr: float = 1e-2) -> list[float]:
    """Plain SGD with momentum; the losses of the steps."""
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    history = []
    for step in range(steps):
        optimiser.zero_grad()
        loss = total_loss(model, batches[step % len(batches)])
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
    return history
