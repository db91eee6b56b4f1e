"""OGM-GE: on-the-fly gradient modulation with generalisation enhancement.

Source: X. Peng, Y. Wei, A. Deng, D. Wang, D. Hu, Balanced Multimodal Learning via On-the-fly Gradient Modulation,
CVPR 2022 (equations 8-11); code GeWu-Lab/OGM-GE_CVPR2022 at 343dc1d9, main.py lines 79-153. The modality that is ahead
learns more slowly: its encoder's gradient is multiplied by k < 1, and Gaussian noise of the gradient's own spread
makes up for the noise that the smaller step has lost.

Deviations from the paper
- Encoder, pooling and backbones are the suite's, shared by all methods. The head is the published one, which can be
  split by modality: one linear layer on the concatenation (``concat``) or one per modality, added (``sum``), without
  dropout. The other methods have heads of two layers, and a comparison with OGM-GE includes that difference;
  ``modulation: none`` is the method's own baseline.
- k = 1 - tanh(alpha * rho) where rho > 1 is kept as published, with tanh(alpha * rho) and not tanh(alpha * (rho - 1)):
  k jumps from 1 to 1 - tanh(alpha) at rho = 1 (0.336 at alpha 0.8), however small the lead.
- Three modalities: rho_u is the mean of the ratios of u to each of the others, as the authors advise (issue 16).
- Regression is our extension, the paper has none: the score is the sum of exp(-|out_u - y| / s), s the mean absolute
  deviation of the training targets. out_u is the additive share of modality u in the prediction.
- Scores below the smallest normal float count as that, so that no ratio is 0 / 0.

Deviations from the released code
- Modulated are the weight tensors of each modality's encoder and backbone, that is those with two axes or more longer
  than one, close to BalanceBenchmark's "not one axis"; the original takes 4-axis convolution weights only, all that a
  ResNet has but its normalisation. Biases, normalisation, pooling queries and the head are never touched; nor are the
  learned positions, whose unused rows the noise would make wander.
- A parameter folded over modalities counts as one tensor per modality, also for the spread of the noise.
- rho = 1 exactly: k = 1 for all (equation 10); the code modulates the audio there.
- ``starts`` and ``ends`` are fractions of the epochs, both ends included: 0 and 0.5 of 100 are its epochs 0..50.
- The optimiser, its schedule and any clipping are the trainer's, common to all methods.
Kept: k multiplies before the noise; the noise has the spread of the *unscaled* gradient and reaches every modality,
also where k = 1; scores are sums over the batch; each modality's share of the ``concat`` bias is bias / M.
Not kept, being defects: film and gated fusion (they crash), half biases for ``sum`` in evaluation only, the best epoch
chosen on the test set, one arbitrary frame whatever the options say, softmax recomputed for every sample, and seeding
the noise from the global stream (here it has its own).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clcr.api import Batch, Method, Output, Step, Task, shape_prediction
from clcr.config import EncoderConfig
from clcr.hierarchy import Pooling, SemanticHierarchy
from clcr.layers import Draws

FUSIONS = ("concat", "sum")
MODULATIONS = ("ogm_ge", "ogm", "none")
NOISE_FLOOR = 1e-8  # the original's: a gradient without spread still gets a trace of noise


@dataclass(frozen=True)
class OGMGEConfig:
    """alpha: strength of the modulation [original: 0.8 for CREMA-D, 0.1 for VGGSound, none given for the others].
    fusion: one of FUSIONS. modulation: "ogm_ge", "ogm" (no noise) or "none" (the method's own baseline).
    starts, ends: first and last epoch with modulation, as fractions of all epochs [original: 0..50 of 100].
    """

    alpha: float = 0.8
    fusion: str = "concat"
    modulation: str = "ogm_ge"
    starts: float = 0.0
    ends: float = 0.5

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"config: method.alpha = {self.alpha!r}: must be a number >= 0")
        if self.fusion not in FUSIONS:
            raise ValueError(f"config: method.fusion = {self.fusion!r}: must be one of {', '.join(FUSIONS)}")
        if self.modulation not in MODULATIONS:
            raise ValueError(
                f"config: method.modulation = {self.modulation!r}: must be one of {', '.join(MODULATIONS)}"
            )
        if not 0 <= self.starts <= self.ends:
            raise ValueError(
                f"config: method.starts = {self.starts!r}: must be between 0 and method.ends {self.ends!r}"
            )

    def active(self, step: Step) -> bool:
        """Whether gradients are modulated in this epoch (counted from 0, both ends included)."""
        slack = 1e-9  # 0.29 * 100 is 28.999...
        within = self.starts * step.epochs - slack <= step.epoch <= self.ends * step.epochs + slack
        return within and self.modulation != "none"


def class_scores(outputs: Tensor, target: Tensor) -> Tensor:
    """Equation 8: the probability each modality alone gives the true class, summed over the batch.

    ``outputs`` (M, B, C) logits, ``target`` int64 (B,); returns (M,).
    """
    index = target[..., None, :, None].expand(*outputs.shape[:-1], 1)
    return outputs.softmax(-1).gather(-1, index).sum((-2, -1))


def value_scores(outputs: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """Our extension to regression: closeness exp(-|out - y| / scale) in (0, 1], summed over the batch.

    ``outputs`` (M, B) values, ``target`` (B,), ``scale`` one number; returns (M,).
    """
    return torch.exp(-(outputs - target.unsqueeze(-2)).abs() / scale[..., None, None]).sum(-1)


def discrepancy_ratios(scores: Tensor) -> Tensor:
    """Equation 9: rho (M,) from scores (M,): the mean ratio of each modality's score to those of the others."""
    scores = scores.clamp_min(torch.finfo(scores.dtype).tiny)
    pairs = scores.unsqueeze(-1) / scores.unsqueeze(-2)
    pairs.diagonal(dim1=-2, dim2=-1).zero_()
    return pairs.sum(-1) / (scores.shape[-1] - 1)


def coefficients(ratios: Tensor, alpha: float) -> Tensor:
    """Equation 10: k = 1 - tanh(alpha * rho) where rho > 1, else 1; it jumps at rho = 1. Shapes (M,)."""
    return torch.where(ratios > 1, 1 - torch.tanh(alpha * ratios), torch.ones_like(ratios))


def modulate(gradient: Tensor, k: Tensor, noise: Draws | None) -> Tensor:
    """Equation 11: k g + N(0, sd(g) + 1e-8) for each of K tensors; without ``noise``, k g.

    ``gradient`` (K, ...), one tensor of each of K modalities; ``k`` (K,). Folded, (S, K, ...) and (S, K).
    """
    per_tensor = (*k.shape, *(1,) * (gradient.ndim - k.ndim))
    scaled = gradient * k.view(per_tensor)
    if noise is None:
        return scaled
    correction = min(1, gradient.shape[k.ndim :].numel() - 1)  # one element has no sample spread: 0, not NaN
    spread = gradient.flatten(k.ndim).std(-1, correction=correction).view(per_tensor) + NOISE_FLOOR
    draw = noise.normal(*gradient.shape[len(noise.lead) :])
    return torch.addcmul(scaled, spread, draw.to(gradient.dtype))


class SplitLinear(nn.Module):
    """The linear head, by modality: (M, B, d) to each modality's share (M, B, C); the prediction is their sum.

    ``concat`` is ``nn.Linear(M * d, C)`` cut into its M blocks, with bias / M for each; ``sum`` is one
    ``nn.Linear(d, C)`` per modality with its whole bias. Initial values as in ``nn.Linear``.
    """

    def __init__(self, modalities: int, width: int, outputs: int, fusion: str) -> None:
        super().__init__()
        self.owners = modalities if fusion == "concat" else 1  # how many modalities share one bias
        bound = 1 / math.sqrt(self.owners * width)
        self.weight = nn.Parameter(torch.empty(modalities, width, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(modalities // self.owners, 1, outputs).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """(M, B, d) to (M, B, C)."""
        return features @ self.weight + self.bias / self.owners


class OGMGE(Method):
    """Linear fusion of pooled features, trained with modulated gradients.

    ``Output.parts["outputs"]``: (M, B, C or 1), each modality's additive share of the prediction. While training,
    ``diagnostics["coefficient_<modality>"]`` is the k of this batch.
    """

    Config: ClassVar[type[OGMGEConfig]] = OGMGEConfig
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "full": {},
        "ogm": {"modulation": "ogm"},
        "sum": {"fusion": "sum"},
    }
    FOLDS: ClassVar[bool] = True

    target_scale: Tensor

    def __init__(
        self,
        task: Task,
        encoder: EncoderConfig | None = None,
        config: OGMGEConfig | None = None,
        backbones: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__(task, backbones)
        encoder = encoder or EncoderConfig()
        self.config = config or OGMGEConfig()
        modalities, width = len(task.modalities), encoder.width
        if modalities < 2:
            raise ValueError("ogm_ge: needs two or more modalities, the task has one: use unimodal")
        if task.n_classes is None and not task.target_scale > 0:
            raise ValueError(f"ogm_ge: target_scale {task.target_scale} must be > 0: the training targets are constant")
        self.hierarchy = SemanticHierarchy(task.modalities, encoder, levels=(3,))
        self.pooling = Pooling(encoder, (modalities,))
        self.head = SplitLinear(modalities, width, task.outputs, self.config.fusion)
        self.register_buffer("target_scale", torch.tensor(task.target_scale))  # a buffer, for seeds may differ in it

    def forward(self, batch: Batch) -> Output:
        """Predict a batch: the sum of what each modality's slice of the head says."""
        hidden, mask = self.hierarchy(*self.tokens(batch))
        outputs = self.head(self.pooling(hidden.select(-5, 0), mask.select(-4, 0)))
        parts, diagnostics = {"outputs": outputs}, {}
        if self.training:
            parts["coefficients"] = k = self.batch_coefficients(outputs.detach(), batch.target)
            diagnostics = {f"coefficient_{m.name}": k[..., i] for i, m in enumerate(self.task.modalities)}
        return Output(shape_prediction(outputs.sum(-3), self.task.n_classes), diagnostics, parts)

    @torch.no_grad()
    def batch_coefficients(self, outputs: Tensor, target: Tensor) -> Tensor:
        """k (M,) of a batch, from each modality's share (M, B, C or 1) of the prediction."""
        if self.task.n_classes is not None:
            scores = class_scores(outputs, target)
        else:
            scores = value_scores(outputs.squeeze(-1), target.to(outputs.dtype), self.target_scale)
        return coefficients(discrepancy_ratios(scores), self.config.alpha)

    @torch.no_grad()
    def adjust_gradients(self, output: Output, batch: Batch, step: Step) -> None:  # noqa: ARG002
        """Modulate the weights of every modality's encoder and backbone, in the epochs configured."""
        if not self.config.active(step):
            return
        k = output.parts["coefficients"]
        lead = k.ndim - 1  # the axis of the seeds, if there is one
        noise = step.noise if self.config.modulation == "ogm_ge" else None
        for parameter, modalities in self.modality_parameters():
            if parameter.grad is None or parameter is self.hierarchy.position:
                continue
            gradient = parameter.grad if len(modalities) > 1 else parameter.grad.unsqueeze(lead)
            if sum(size > 1 for size in gradient.shape[lead + 1 :]) >= 2:
                own = torch.stack([k[..., m] for m in modalities], -1)
                parameter.grad.copy_(modulate(gradient, own, noise).view_as(parameter))

    def modality_parameters(self) -> Iterator[tuple[nn.Parameter, tuple[int, ...]]]:
        """Those of the backbones and of the encoder."""
        yield from super().modality_parameters()
        yield from self.hierarchy.modality_parameters()
