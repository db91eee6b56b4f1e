"""The methods, ours among them, as a table of strings: importing this package loads no torch.

To add a method: one file that implements ``clcr.api.Method`` and one row here. A method of another package needs no row
here: see ``benchmarks.methods``.
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
# Beyond the paper's table: single terms of L_Inter, and fixed budgets (percent of the tokens).
CLCR_FURTHER = ("no_l_pr", "no_l_sp", "no_l_mix")


@dataclass(frozen=True)
class MethodRow:
    """One row of the table. ``target`` is "module:Class"; ``per_modality`` rows expand to <name>_<modality>;
    ``fitted`` rows are scikit-learn estimators without a training loop (see baselines/linear.py). ``further`` variants
    run when they are named; "all" means ``variants``. ``origin``: the package that a row comes from, "name version"; ""
    for those of this suite."""

    name: str
    target: str
    label: str
    citation: str
    year: int
    variants: tuple[str, ...] = ("full",)
    per_modality: bool = False
    fitted: bool = False
    further: tuple[str, ...] = ()
    origin: str = ""

    @property
    def every_variant(self) -> tuple[str, ...]:
        """Those of "all", then the further ones."""
        return self.variants + self.further


METHODS: dict[str, MethodRow] = {
    row.name: row
    for row in (
        MethodRow(
            "clcr",
            "clcr.method:CLCR",
            "CLCR",
            "CLCR: Cross-Level Co-Representation, CVPR 2026, arXiv:2602.19605",
            2026,
            CLCR_VARIANTS,
            further=CLCR_FURTHER,
        ),
        MethodRow(
            "late_fusion",
            "baselines.late_fusion:LateFusion",
            "Late fusion",
            "concatenated features; see Baltrušaitis et al., Multimodal Machine Learning: A Survey and Taxonomy, "
            "TPAMI 41(2), 2019",
            2019,
        ),
        MethodRow(
            "ogm_ge",
            "baselines.ogm_ge:OGMGE",
            "OGM-GE",
            "Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022",
            2022,
            ("full", "ogm", "sum"),
        ),
        MethodRow(
            "misa",
            "baselines.misa:MISA",
            "MISA",
            "Hazarika et al., MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment "
            "Analysis, ACM MM 2020",
            2020,
            ("full", "adversarial"),
        ),
        MethodRow(
            "unimodal",
            "baselines.late_fusion:Unimodal",
            "Unimodal",
            "the late fusion network on one modality alone",
            2019,
            per_modality=True,
        ),
        MethodRow(
            "linear",
            "baselines.linear:Linear",
            "Linear",
            "ridge regression (Hoerl and Kennard, Technometrics 12(1), 1970) or multinomial logistic regression "
            "on pooled features",
            1970,
            fitted=True,
        ),
    )
}
