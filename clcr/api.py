"""The contract every method fulfils, ours and its rivals alike. Shapes are said once, here.

Letters used in all packages: B batch, M modalities, L levels (3), T tokens (the longest modality of a batch),
d common width, C classes. Axes always come in the order (level, modality, batch, token, width).

A folded method (see ``clcr.layers``) trains S seeds in one program: whatever is said here to be (B, ...), every loss
and every diagnostic then has a leading axis S, and nothing of one seed reaches another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from clcr.layers import Draws

LEVELS = 3
LOSSES = ("cross_entropy", "l1", "mse")


@dataclass(frozen=True)
class Modality:
    """One modality as a method sees it: the tokens that leave its backbone.

    ``levelled`` says that the tokens arrive with a level axis of their own, (B, 3, T, width): the early, middle and
    late hidden states of a pretrained transformer. Otherwise they are (B, T, width) and the encoder makes the levels.
    """

    name: str
    width: int
    tokens: int
    levelled: bool = False


@dataclass(frozen=True)
class Task:
    """What is predicted: ``n_classes`` classes, or one value where it is None.

    ``target_scale`` is the mean absolute deviation of the training targets (regression only); ``loss`` one of LOSSES.
    """

    modalities: tuple[Modality, ...]
    n_classes: int | None
    loss: str = "cross_entropy"
    target_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"task: loss {self.loss!r} is not one of {', '.join(LOSSES)}")
        if (self.n_classes is None) == (self.loss == "cross_entropy"):
            raise ValueError(f"task: loss {self.loss!r} does not fit n_classes {self.n_classes}")
        if not self.modalities:
            raise ValueError("task: needs at least one modality")

    @property
    def outputs(self) -> int:
        """Width of the head: C, or 1 for regression."""
        return 1 if self.n_classes is None else self.n_classes


@dataclass(frozen=True)
class Batch:
    """A batch as it enters the backbones.

    ``inputs[m]``: (B, T_m, D_m), (B, 3, T_m, D_m), or whatever the backbone of modality m reads (frames, token ids).
    ``masks[m]``: bool (B, T_m), True where the token is real. ``target``: int64 (B,) or float (B,).
    """

    inputs: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    target: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            inputs=tuple(x.to(device) for x in self.inputs),
            masks=tuple(x.to(device) for x in self.masks),
            target=self.target.to(device),
        )


@dataclass(frozen=True)
class Output:
    """``prediction``: logits (B, C) or values (B,). ``diagnostics``: detached, for people and curves; each entry is
    averaged over its elements when logged. ``parts``: what the method's own losses and gradient hook need again."""

    prediction: Tensor
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """Where training stands when the gradient hook is called; ``noise`` is the run's own random stream (or streams)."""

    epoch: int
    epochs: int
    noise: Draws


class Passthrough(nn.Module):
    """The backbone of a modality that already comes as tokens."""

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x`` and ``mask`` unchanged."""
        return x, mask


class Method(nn.Module, ABC):
    """A fusion method: backbones in, a prediction and named losses out.

    A subclass is built as ``cls(task, encoder, config, backbones)`` where ``encoder`` is the
    ``clcr.config.EncoderConfig`` that all methods of a run share and ``config`` an instance of ``cls.Config``
    (a frozen dataclass). ``cls.VARIANTS`` maps each named variant to the config fields it changes.
    A backbone maps (input, mask) to (tokens, mask of the tokens); it is built by the harness, alike for all methods.
    """

    Config: ClassVar[type[Any]]
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"full": {}}
    FOLDS: ClassVar[bool] = False  # whether ``clcr.layers.fold`` may make one program of several seeds

    def __init__(self, task: Task, backbones: Sequence[nn.Module] | None = None) -> None:
        super().__init__()
        self.task = task
        modules = [Passthrough() for _ in task.modalities] if backbones is None else list(backbones)
        if len(modules) != len(task.modalities):
            raise ValueError(f"method: {len(modules)} backbones for {len(task.modalities)} modalities")
        self.backbones = nn.ModuleList(modules)

    def tokens(self, batch: Batch) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Tokens and token masks of each modality, after its backbone."""
        pairs = [backbone(x, mask) for backbone, x, mask in zip(self.backbones, batch.inputs, batch.masks, strict=True)]
        return tuple(x for x, _ in pairs), tuple(mask for _, mask in pairs)

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Predict a batch."""

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Named losses, one number (a seed) each, already weighted; the trainer minimises their sum. ``task`` is always
        among them."""
        return {"task": task_loss(output.prediction, batch.target, self.task.loss)}

    def adjust_gradients(self, output: Output, batch: Batch, step: Step) -> None:
        """Change ``.grad`` in place between backward and the optimiser's step."""

    def modality_parameters(self) -> Iterator[tuple[nn.Parameter, tuple[int, ...]]]:
        """The parameters that serve single modalities, for methods that treat modalities unequally.

        Yields (parameter, modalities): one modality index means the whole tensor is that modality's; several mean
        that the leading axis of the tensor (after that of the seeds) runs over exactly these modalities.
        """
        for m, backbone in enumerate(self.backbones):
            for parameter in backbone.parameters():
                yield parameter, (m,)


def task_loss(prediction: Tensor, target: Tensor, loss: str) -> Tensor:
    """Mean loss of a batch: cross entropy of logits (B, C), or L1 / squared error of values (B,)."""
    if loss == "cross_entropy":
        each = functional.cross_entropy(prediction.flatten(0, -2), target.flatten(), reduction="none").view(
            target.shape
        )
    else:
        error = prediction - target.to(prediction.dtype)
        each = error.abs() if loss == "l1" else error.square()
    return each.mean(-1)


def shape_prediction(raw: Tensor, n_classes: int | None) -> Tensor:
    """Head output (B, outputs) as a prediction: logits stay, a single value loses its last axis."""
    return raw if n_classes is not None else raw.squeeze(-1)
