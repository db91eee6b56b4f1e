"""What is found out about trained weights, as a table of strings: importing this package loads no torch.

To add an analysis: one module with a function ``(Team) -> list of values`` (one mapping a run, or the exception that
made it impossible) and one row here; ``clcr analyse NAME`` runs it and <out>/analyses/NAME.jsonl keeps what it found.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.record import RunKey


@dataclass(frozen=True)
class Analysis:
    """One row. ``target`` is "module:function". keep: the weights it reads, as ``clcr run --keep`` names them. fitted:
    whether rows without a training loop, which keep no weights and are fitted again, have it too. methods, variants,
    seeds, data: the runs it is for; empty means all. selection: what chooses the epoch in the protocols it is for, as
    ``spec.Protocol`` says; empty means any."""

    name: str
    target: str
    title: str
    keep: str = "best"
    fitted: bool = False
    methods: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    data: tuple[str, ...] = ()
    selection: str = ""

    def wants(self, key: RunKey) -> bool:
        """Whether it is for a run."""
        pairs = (
            (self.methods, key.method),
            (self.variants, key.variant),
            (self.seeds, key.seed),
            (self.data, key.data),
        )
        return all(not some or value in some for some, value in pairs)


ANALYSES: dict[str, Analysis] = {
    row.name: row
    for row in (
        Analysis(
            "robustness",
            "benchmarks.analyses.robustness:robustness",
            "Gaussian noise on the test inputs",
            fitted=True,
        ),
        Analysis(
            "missing",
            "benchmarks.analyses.missing:missing",
            "Modalities missing at test time",
            fitted=True,
        ),
        Analysis(
            "habits",
            "benchmarks.analyses.habits:habits",
            "What choosing the epoch on the test split and dropping the last batch are worth",
            keep="epochs",
            selection="validation",
        ),
        Analysis(
            "gates",
            "benchmarks.analyses.gates:gates",
            "Gates, exchange, ranks and gradients of trained networks",
            methods=("clcr", "misa"),
        ),
        Analysis(
            "embedding",
            "benchmarks.analyses.embedding:embedding",
            "Shared and private summaries in the plane",
            methods=("clcr",),
            variants=("full",),
            seeds=(0,),
        ),
        Analysis(
            "mechanism",
            "benchmarks.analyses.mechanism:mechanism",
            "What learned parts hold of the twins' true factors",
            data=("twin",),
        ),
    )
}
