"""The methods, ours among them, as a table of strings: importing this package loads no torch.

To add a method: one file that implements ``clcr.api.Method`` and one row here.
"""

from __future__ import annotations

from dataclasses import dataclass

CLCR_VARIANTS = (
    "full",
    "no_hierarchy",
    "no_intraced",
    "no_intercad",
    "full_mix",
    "no_intra_reg",
    "no_inter_reg",
    "no_reg",
    "dense_budget",
    "no_orthogonality",
)


@dataclass(frozen=True)
class MethodRow:
    """One row of the table. ``target`` is "module:Class"; ``per_modality`` rows expand to <name>_<modality>;
    ``fitted`` rows are scikit-learn estimators without a training loop (see baselines/linear.py)."""

    name: str
    target: str
    label: str
    citation: str
    year: int
    variants: tuple[str, ...] = ("full",)
    per_modality: bool = False
    fitted: bool = False


METHODS: dict[str, MethodRow] = {
    row.name: row
    for row in (
        MethodRow("clcr", "clcr.method:CLCR", "CLCR", "arXiv:2602.19605, CVPR 2026", 2026, CLCR_VARIANTS),
        MethodRow(
            "late_fusion", "baselines.late_fusion:LateFusion", "Late fusion", "concatenation of pooled features", 2018
        ),
        MethodRow(
            "ogm_ge", "baselines.ogm_ge:OGMGE", "OGM-GE", "Peng et al., CVPR 2022", 2022, ("full", "ogm", "sum")
        ),
        MethodRow(
            "misa", "baselines.misa:MISA", "MISA", "Hazarika et al., ACM MM 2020", 2020, ("full", "adversarial")
        ),
        MethodRow(
            "unimodal", "baselines.late_fusion:Unimodal", "Unimodal", "one modality alone", 2018, per_modality=True
        ),
        MethodRow(
            "linear", "baselines.linear:Linear", "Linear", "ridge or logistic regression, pooled features", 1970,
            fitted=True,
        ),
    )
}
