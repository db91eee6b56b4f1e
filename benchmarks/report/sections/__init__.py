"""Findings: what the committed records and analyses say, section by section, and the report that is made of them."""

from __future__ import annotations

import importlib

from benchmarks.report.sections.frame import Section

# In the order of the report: name -> module with SECTION. A new section is one module and one row.
SECTIONS: dict[str, str] = {
    "claims": "benchmarks.report.sections.claims",
    "budget": "benchmarks.report.sections.budget",
    "robustness": "benchmarks.report.sections.robustness",
    "gates": "benchmarks.report.sections.gates",
    "mechanism": "benchmarks.report.sections.mechanism",
    "embedding": "benchmarks.report.sections.embedding",
    "missing": "benchmarks.report.sections.missing",
    "habits": "benchmarks.report.sections.habits",
    "optimiser": "benchmarks.report.sections.optimiser",
    "choices": "benchmarks.report.sections.choices",
    "screening": "benchmarks.report.sections.screening",
    "pooling": "benchmarks.report.sections.pooling",
    "leak": "benchmarks.report.sections.leak",
    "cost": "benchmarks.report.sections.cost",
    "efficiency": "benchmarks.report.sections.efficiency",
    "before_after": "benchmarks.report.sections.before_after",
}


def load(name: str) -> Section:
    """The section of that name."""
    section: Section = importlib.import_module(SECTIONS[name]).SECTION
    return section
