"""The paper's claims on its parts: ablations beside the published differences, sparse against dense exchange, and the
budget. Which claims there are is declared here, before the runs; whether they hold is computed."""

from __future__ import annotations

from benchmarks.report.ablation import family
from benchmarks.report.collect import FULL, OURS, Group, load_spec
from benchmarks.report.compare import Contrast
from benchmarks.report.layout import DASH, Table, heading, signed
from benchmarks.report.published import Published
from benchmarks.report.sections import comparing
from benchmarks.report.sections.comparing import Block, intervals, set_title
from benchmarks.report.sections.data import Data
from benchmarks.report.sections.frame import Claim, Made, Section, Sentence, claim, drawn, verdict

PROFILE = "open"
# Of the paper's table, where full is better than each; of the sparse exchange it says so without a figure.
PUBLISHED = ("no_hierarchy", "no_intraced", "no_intercad", "full_mix", "no_reg")
DENSE, PARTS = "dense_budget", ("no_intraced", "no_intercad")
TABLES = {"cmu_mosi": "mae", "kinetics_sounds": "accuracy"}  # where the paper's ablations are known
NOTE = (
    "Published differences are between single printed numbers of the paper, on CMU-MOSI and Kinetics-Sounds with other "
    "features: only their sign is compared. Sign: whether full is better than the variant, as published."
)


def build(data: Data) -> Made:
    """Ablations, and the order of two of them."""
    blocks = [one for group in _groups(data) if (one := _ablations(group, data.published)) is not None]
    if not blocks:
        return Made(
            sentences=(Sentence("No ablation of CLCR was run on real data; `clcr run` with --method makes them."),)
        )
    order = [one for group in _groups(data) if (one := _order(group)) is not None]
    tables: tuple[Table, ...] = (comparing.table("ablations", "Ablations of CLCR", blocks, (NOTE,)),)
    if order:
        told = "One comparison a data set: the claim is that leaving out IntraCED costs more than leaving out InterCAD."
        tables += (comparing.table("parts", "IntraCED against InterCAD", order, (told,)),)
    figure = intervals(blocks, f"Ablations of CLCR: variant minus full form · real data, profile {PROFILE}", bars=True,
                       ends_of="variant")  # fmt: skip
    return Made(
        tables,
        drawn("ablations", figure),
        (*comparing.tallies(blocks, "ablations"), *comparing.tallies(order, "parts")),
        (*_claims(blocks), *_order_claim(order)),
        {"ablations": "Ablations of CLCR with intervals"},
    )


def _groups(data: Data) -> list[Group]:
    return [group for group in data.main.of("real") if group.key.profile == PROFILE]


def _ablations(group: Group, published: Published) -> Block | None:
    """The family of the table of ablations, with the published differences and the verdict on each sign."""
    if not any(method == OURS and variant != FULL for method, variant in group.tried):
        return None
    found = family(group, OURS)
    names = tuple(contrast.a[1] for contrast in found)
    extra: dict[str, list[str]] = {
        f"Published, {name}": [column.get(variant, DASH) for variant in names]
        for name, column in _published(published).items()
    }
    extra["Sign"] = [verdict(c, -1) if c.a[1] in (*PUBLISHED, DENSE) else DASH for c in found]
    return Block(group, tuple(found), names, "each variant against the full form", extra)


def _published(published: Published) -> dict[str, dict[str, str]]:
    """The paper's differences, variant minus full, by data set, as they follow from its printed numbers."""
    found: dict[str, dict[str, str]] = {}
    for benchmark, metric in TABLES.items():
        mine = {n.variant: n.value for n in published.numbers
                if (n.benchmark, n.method, n.metric, n.source) == (benchmark, OURS, metric, OURS)}  # fmt: skip
        if FULL in mine and len(mine) > 1:
            title = f"{load_spec(benchmark).title}: {heading(metric)}"
            found[title] = {v: signed(metric, value - mine[FULL]) for v, value in mine.items() if v != FULL}
    return found


def _order(group: Group) -> Block | None:
    worse, less = ((OURS, variant) for variant in PARTS)
    what = f"{PARTS[1]} against {PARTS[0]}"
    return comparing.block(group, [comparing.Pair(what, less, worse)], what)


def _claims(blocks: list[Block]) -> list[Claim]:
    """One claim for every published sign."""
    found = []
    for variant in (*PUBLISHED, DENSE):
        parts = [(set_title(one.group), c) for one in blocks for c in one.found if c.a[1] == variant]
        if parts:
            found.append(claim(_text(variant), parts, "ablations", better=-1))
    return found


def _text(variant: str) -> str:
    if variant == DENSE:
        return "Sparse exchange with the learned budget is better than dense exchange"
    return f"The full form is better than {variant}"


def _order_claim(order: list[Block]) -> list[Claim]:
    parts: list[tuple[str, Contrast]] = [(one.title, one.found[0]) for one in order]
    text = "Leaving out IntraCED costs more than leaving out InterCAD"
    return [claim(text, parts, "parts")] if parts else []


SECTION = Section("claims", "The paper's claims on its parts", build)
