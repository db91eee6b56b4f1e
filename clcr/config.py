"""Every number of CLCR, with where it comes from: [A] abstract, [N] public notes on the paper, [C] our choice.

``EncoderConfig`` is shared by all methods of a run; ``CLCRConfig`` is the method's own. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

POOLINGS = ("mean", "attention")
BUDGETS = ("learned", "dense", "fixed")
CONFLICTS = ("opposed", "apart")
AUGMENTS = ("none", "crop_flip")


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder that every method shares, so that methods differ in fusion alone [C].

    width: common width d of all levels and modalities [C: 128; the paper's is unknown].
    dropout: in the encoder's stages and in every head [C].
    pooling: how tokens become one vector, for all methods alike: "mean" [N] or "attention" [C].
    kernel: width of the temporal convolutions [C].
    augment: of training pictures that ResNet-18 reads: "none", or "crop_flip", the literature's random crop and flip.
    checkpoint: file of ImageNet weights that every ResNet-18 starts from; "" starts from scratch, as the literature.
    """

    width: int = 128
    dropout: float = 0.1
    pooling: str = "mean"
    kernel: int = 3
    augment: str = "none"
    checkpoint: str = ""

    def __post_init__(self) -> None:
        _require(self.width > 0, "encoder.width", self.width, "a positive integer")
        _require(0 <= self.dropout < 1, "encoder.dropout", self.dropout, "a number in [0, 1)")
        _require(self.pooling in POOLINGS, "encoder.pooling", self.pooling, f"one of {', '.join(POOLINGS)}")
        _require(self.augment in AUGMENTS, "encoder.augment", self.augment, f"one of {', '.join(AUGMENTS)}")
        _require(self.kernel % 2 == 1 and self.kernel > 0, "encoder.kernel", self.kernel, "an odd positive integer")


@dataclass(frozen=True)
class CLCRConfig:
    """The method's own numbers; the section is that of the method's description in REPRODUCE.md.

    shared_rank, private_rank: d_s and d_p, ranks of the subspaces [C: 32 and 32 at width 128].
    heads: attention heads of the exchange [C].
    lambda_inter, lambda_intra: weights of the regularisers [N: the terms; C: 0.1].
    budget: "learned" [N], "dense" (alpha = 1) or "fixed" (participation ``fixed_budget`` of the tokens).
    gamma: scale of the budget [N: about 1 is best]. budget_start: rho at the start [C: 0.27, r about 0.68].
    scale_start, threshold_start: s_l and tau_l at the start [C].
    hierarchy, intraced, intercad, orthogonal: False switches the part off, see VARIANTS.
    misalign: modality m uses level (l + k_m) mod 3 before the exchange, the k_m distinct and drawn per run.
    term_private, term_shared_private, term_mix: the three terms of L_Inter [N], each can be left out.
    shrinkage: of the covariance towards a multiple of the identity, before summaries are whitened [C].

    Other answers to what the notes leave open, each off by default [C]:
    exchange_scale: of the initial values that carry what a modality receives back into its shared tokens.
    budget_rate: how much further a step of the optimiser moves the scale, the threshold and the budget.
    level_floor: share of omega that is spread evenly over the levels, so that none can be lost.
    conflict: of two levels in L_mix: "opposed", relu(-cos), or "apart", (1 - cos) / 2.
    detach_whitening: no gradient through the factors that whiten summaries.
    variance_floor: weight of a hinge on the spread of every summary coordinate, against collapse (Bardes, Ponce, LeCun:
    VICReg, ICLR 2022, eq. 1).
    """

    shared_rank: int = 32
    private_rank: int = 32
    heads: int = 4
    lambda_inter: float = 0.1
    lambda_intra: float = 0.1
    budget: str = "learned"
    fixed_budget: float = 0.68
    gamma: float = 1.0
    budget_start: float = 0.27
    scale_start: float = 2.0
    threshold_start: float = 0.0
    hierarchy: bool = True
    intraced: bool = True
    intercad: bool = True
    orthogonal: bool = True
    misalign: bool = False
    term_private: bool = True
    term_shared_private: bool = True
    term_mix: bool = True
    shrinkage: float = 0.1
    exchange_scale: float = 1.0
    budget_rate: float = 1.0
    level_floor: float = 0.0
    conflict: str = "opposed"
    detach_whitening: bool = False
    variance_floor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shared_rank", "private_rank", "heads"):
            _require(getattr(self, name) > 0, f"method.{name}", getattr(self, name), "a positive integer")
        for name in ("lambda_inter", "lambda_intra", "gamma", "exchange_scale", "variance_floor"):
            _require(getattr(self, name) >= 0, f"method.{name}", getattr(self, name), "a number >= 0")
        _require(self.budget_rate > 0, "method.budget_rate", self.budget_rate, "a positive number")
        _require(0 <= self.level_floor <= 1, "method.level_floor", self.level_floor, "a number in [0, 1]")
        _require(self.budget in BUDGETS, "method.budget", self.budget, f"one of {', '.join(BUDGETS)}")
        _require(self.conflict in CONFLICTS, "method.conflict", self.conflict, f"one of {', '.join(CONFLICTS)}")
        for name in ("fixed_budget", "budget_start", "shrinkage"):
            _require(0 < getattr(self, name) <= 1, f"method.{name}", getattr(self, name), "a number in (0, 1]")

    def check_width(self, width: int) -> None:
        """Refuse ranks that fill the width: every private basis would then be the same complement."""
        _require(
            self.shared_rank + self.private_rank < width,
            "method.shared_rank + method.private_rank",
            self.shared_rank + self.private_rank,
            f"less than encoder.width {width}",
        )
        exchanged = "method.shared_rank" if self.intraced else "encoder.width"
        attended = self.shared_rank if self.intraced else width
        _require(attended % self.heads == 0, "method.heads", self.heads, f"a divisor of {exchanged}")


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "no_hierarchy": {"hierarchy": False},
    "no_intraced": {"intraced": False},
    "no_intercad": {"intercad": False},
    "full_mix": {"misalign": True},
    "no_intra_reg": {"lambda_intra": 0.0},
    "no_inter_reg": {"lambda_inter": 0.0},
    "no_reg": {"lambda_inter": 0.0, "lambda_intra": 0.0},
    "dense_budget": {"budget": "dense"},
    "no_orthogonality": {"orthogonal": False},
    "no_l_pr": {"term_private": False},
    "no_l_sp": {"term_shared_private": False},
    "no_l_mix": {"term_mix": False},
}


def _require(holds: bool, field: str, value: object, remedy: str) -> None:
    if not holds:
        raise ValueError(f"config: {field} = {value!r}: must be {remedy}")
