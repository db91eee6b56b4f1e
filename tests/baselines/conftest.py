"""Small synthetic tasks for the baselines: ragged sequences, a vector modality, a levelled one, missing samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from clcr.api import Batch, Modality, Task
from clcr.config import EncoderConfig

WIDTHS = {"text": 5, "audio": 4, "vision": 6, "tabular": 3}
TOKENS = {"text": 6, "audio": 9, "vision": 7, "tabular": 1}


@dataclass(frozen=True)
class Case:
    """A task, an encoder and one batch, all synthetic."""

    task: Task
    encoder: EncoderConfig
    batch: Batch

    def build(self, method: type[Any], seed: int = 0, **fields: Any) -> Any:
        torch.manual_seed(seed)
        return method(self.task, self.encoder, method.Config(**fields))


def synthetic_inputs(names: tuple[str, ...], size: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    inputs, masks = [], []
    for name in names:
        shape = (size, 3, TOKENS[name], WIDTHS[name]) if name == "text" else (size, TOKENS[name], WIDTHS[name])
        length = torch.randint(1, TOKENS[name] + 1, (size, 1))
        length[0] = TOKENS[name]
        mask = torch.arange(TOKENS[name]) < length
        real = mask[:, None, :, None] if name == "text" else mask[:, :, None]
        inputs.append(torch.randn(shape) * real)
        masks.append(mask)
    return inputs, masks


def synthetic_case(names: tuple[str, ...] = ("audio", "vision"), n_classes: int | None = 4, size: int = 8) -> Case:
    torch.manual_seed(7)
    inputs, masks = synthetic_inputs(names, size)
    target = 2 * torch.randn(size) if n_classes is None else torch.arange(size) % n_classes
    # room for more tokens than the batch has, so that a test can append padding
    modalities = tuple(
        Modality(n, WIDTHS[n], TOKENS[n] + 4 * (TOKENS[n] > 1), levelled=n == "text") for n in names
    )  # fmt: skip
    task = Task(modalities, n_classes, "l1" if n_classes is None else "cross_entropy", target_scale=1.6)
    encoder = EncoderConfig(width=16, dropout=0.0)
    return Case(task, encoder, Batch(tuple(inputs), tuple(masks), target))


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """``make_case(names, n_classes, size, encoder fields...)``."""

    def make(
        names: tuple[str, ...] = ("audio", "vision"), n_classes: int | None = 4, size: int = 8, **encoder: Any
    ) -> Case:
        case = synthetic_case(names, n_classes, size)
        return replace(case, encoder=replace(case.encoder, **encoder))

    return make
