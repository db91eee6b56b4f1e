"""CLCR: the semantic-hierarchy encoder, IntraCED, InterCAD and the losses put together (arXiv 2602.19605).

The ablations are fields of ``CLCRConfig``. Each part draws its initial values from a stream of its own, so that leaving
one part out, or putting another in its place, moves no value of the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clcr import regularizers
from clcr.api import LEVELS, Batch, Method, Output, Task, shape_prediction, task_loss
from clcr.config import VARIANTS, CLCRConfig, EncoderConfig
from clcr.hierarchy import SemanticHierarchy
from clcr.intercad import Aggregated, InterCAD, MeanAggregation, Summaries, Summarise
from clcr.intraced import DenseExchange, Exchanged, IntraCED
from clcr.layers import Dropout, Linear

PAIRWISE: Mapping[str, Callable[[regularizers.Correlations], Tensor]] = {
    "intra": regularizers.intra,
    "private_redundancy": regularizers.private_redundancy,
    "shared_private": regularizers.shared_private,
}


@contextmanager
def stream(root: int, part: str) -> Iterator[None]:
    """Draw from the stream of a part; the global generator is left as it was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(root + zlib.crc32(part.encode()))
    try:
        yield
    finally:
        torch.set_rng_state(state)


class CLCR(Method):
    """The method of the paper as described in REPRODUCE.md; any number of modalities, one has no partner to exchange.

    Raises:
        ValueError: ranks that fill the width, heads that do not divide it, or too many modalities to misalign.
    """

    Config: ClassVar[type[Any]] = CLCRConfig
    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    FOLDS: ClassVar[bool] = True

    level_of: Tensor

    def __init__(
        self,
        task: Task,
        encoder: EncoderConfig | None = None,
        config: CLCRConfig | None = None,
        backbones: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__(task, backbones)
        encoder, config = encoder or EncoderConfig(), config or CLCRConfig()
        config.check_width(encoder.width)
        self.config, self.terms = config, loss_weights(config)
        modalities, width = len(task.modalities), encoder.width
        ranks = (config.shared_rank, config.private_rank) if config.intraced else (width, width)
        # First and from the global generator, as every method does: all methods of a seed start from one encoder.
        levels = tuple(range(1, LEVELS + 1)) if config.hierarchy else (LEVELS,)
        self.hierarchy = SemanticHierarchy(task.modalities, encoder, levels)
        root = int(torch.randint(2**31, ()))
        with stream(root, "intraced"):
            self.intraced = (IntraCED if config.intraced else DenseExchange)(modalities, width, config)
        with stream(root, "summarise"):
            self.summarise = Summarise(modalities, ranks, encoder)
        with stream(root, "intercad"):
            self.intercad = InterCAD(width, config.level_floor) if config.intercad else MeanAggregation()
        with stream(root, "head"):
            self.head = nn.Sequential(
                Linear((1 + modalities) * width, width),
                nn.ReLU(),
                Dropout(encoder.dropout),
                Linear(width, task.outputs),
            )
        if config.misalign:
            with stream(root, "misalign"):
                self.register_buffer("level_of", misaligned_levels(modalities))

    def forward(self, batch: Batch) -> Output:
        """Predict a batch; ``parts`` holds the summaries, the diagnostics omega, pi, eta, alpha and what is logged."""
        h, mask = self.hierarchy(*self.tokens(batch))
        h = h.expand(*h.shape[:-5], LEVELS, *h.shape[-4:])
        if self.config.misalign:
            h = h.take_along_dim(self.level_of[..., None, None, None], -5)
        exchanged: Exchanged = self.intraced(h, mask)
        summaries: Summaries = self.summarise(exchanged, mask)
        aggregated: Aggregated = self.intercad(summaries)
        prediction = shape_prediction(self.head(aggregated.features), self.task.n_classes)
        with torch.no_grad():
            diagnostics = self._diagnose_tokens(exchanged, mask) | diagnose_levels(summaries, aggregated)
        return Output(prediction, diagnostics, {"summaries": summaries, "omega": aggregated.omega})

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The task's, lambda_intra L_Intra and, one by one, the terms of lambda_inter L_Inter that the variant has."""
        losses = {"task": task_loss(output.prediction, batch.target, self.task.loss)}
        summaries: Summaries = output.parts["summaries"]
        pairwise = [name for name in PAIRWISE if name in self.terms]
        if pairwise:
            coordinates = summaries.shared_coordinates, summaries.private_coordinates
            how = self.config.shrinkage, self.config.detach_whitening
            correlations = regularizers.Correlations.of(*coordinates, *how)
            losses |= {name: self.terms[name] * PAIRWISE[name](correlations) for name in pairwise}
        if "mix" in self.terms:
            cost = regularizers.mix(output.parts["omega"], summaries.shared, self.config.conflict)
            losses["mix"] = self.terms["mix"] * cost
        if "variance" in self.terms:
            lacking = map(regularizers.lacking_spread, (summaries.shared_coordinates, summaries.private_coordinates))
            losses["variance"] = self.terms["variance"] * sum(lacking, torch.zeros((), device=summaries.shared.device))
        return losses

    def modality_parameters(self) -> Iterator[tuple[nn.Parameter, tuple[int, ...]]]:
        """Those of the backbones and of the encoder."""
        yield from super().modality_parameters()
        yield from self.hierarchy.modality_parameters()

    def _diagnose_tokens(self, exchanged: Exchanged, mask: Tensor) -> dict[str, Tensor]:
        """alpha (L, M, B, T), participation and budget_binds (L, M), rho (L, 1): those that the variant has."""
        if not isinstance(self.intraced, IntraCED):
            return {}
        taking_part = (exchanged.alpha > 0).sum(-1) / mask.sum(-1).clamp(min=1)
        found: dict[str, Tensor | None] = {
            "alpha": exchanged.alpha,
            "participation": taking_part.mean(-1),
            "budget_binds": None if exchanged.binds is None else exchanged.binds.float().mean(-1),
            "rho": None if self.intraced.budget is None else self.intraced.budget.rho,
        }
        return {name: x.detach() for name, x in found.items() if x is not None}


def diagnose_levels(summaries: Summaries, aggregated: Aggregated) -> dict[str, Tensor]:
    """rank_shared, rank_private (L, M); omega (B, L), its entropy (B,) in nats, pi and eta (B, M) where learned."""
    found = {
        "rank_shared": regularizers.effective_rank(summaries.shared_coordinates),
        "rank_private": regularizers.effective_rank(summaries.private_coordinates),
    }
    if aggregated.omega is not None and aggregated.pi is not None and aggregated.eta is not None:
        found |= {"omega": aggregated.omega, "pi": aggregated.pi, "eta": aggregated.eta}
        found["omega_entropy"] = torch.special.entr(aggregated.omega).sum(-1)
    return {name: x.detach() for name, x in found.items()}


def loss_weights(config: CLCRConfig) -> dict[str, float]:
    """The weight of each loss term besides the task's, without those that the variant leaves out."""
    weights = {
        "intra": config.lambda_intra * config.intraced,
        "private_redundancy": config.lambda_inter * config.term_private,
        "shared_private": config.lambda_inter * config.term_shared_private * config.intraced,
        "mix": config.lambda_inter * config.term_mix * config.intercad,
        "variance": config.variance_floor,
    }
    return {name: weight for name, weight in weights.items() if weight > 0}


def misaligned_levels(modalities: int) -> Tensor:
    """The level that each modality uses in the place of each: (l + k_m) mod 3 as (L, M), the k_m distinct and drawn.

    Raises:
        ValueError: more modalities than levels.
    """
    if modalities > LEVELS:
        raise ValueError(f"config: method.misalign = True: needs at most {LEVELS} modalities, got {modalities}")
    return (torch.arange(LEVELS).unsqueeze(1) + torch.randperm(LEVELS)[:modalities]) % LEVELS
