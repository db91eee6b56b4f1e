"""The main comparison before and after the one change, side by side."""

from __future__ import annotations

from benchmarks.report.collect import FULL, OURS, Group, label
from benchmarks.report.sections import comparing
from benchmarks.report.sections.comparing import Block, Pair
from benchmarks.report.sections.data import Data, Source
from benchmarks.report.sections.frame import Made, Section, Sentence, claim, drawn

PROFILE = "open"
AFTER = "after"
NONE = (
    "No changed profile is named: `after` in benchmarks/studies.yaml names it, and `clcr run --profile` makes its runs."
)


def build(data: Data) -> Made:
    """Each method after against before, and CLCR against the others in both."""
    groups = [group for group in data.main.of("real") if group.key.profile == PROFILE]
    own = comparing.present(_own(data, group) for group in groups) if data.after else []
    if not own:
        lacking = (
            f"The changed profile {data.after} has no runs yet; `clcr run` with --profile {data.after} makes them."
        )
        return Made(sentences=(Sentence(lacking if data.after else NONE),))
    intro = (f"Profile {data.after} minus profile {PROFILE}, same method, same seeds.",)
    tables = [comparing.table("methods", "Each method after against before", own, intro)]
    told = [*comparing.tallies(own, "methods")]
    ours = [(one.title, contrast) for one in own if (contrast := one.of((OURS, AFTER))) is not None]
    claims = [claim("The change makes CLCR better", ours, "methods")] if ours else []
    for when, profile in (("before", PROFILE), ("after", data.after)):
        some = comparing.present(_rivals(data, group, profile) for group in groups)
        if some:
            tables.append(comparing.table(f"rivals_{when}", f"CLCR against others {when} the change", some))
            told += comparing.tallies(some, f"rivals_{when}")
            claims += comparing.fusion_claim(
                f"CLCR is better than late fusion {when} the change", some, f"rivals_{when}"
            )
    figure = comparing.intervals(
        own, f"After minus before the change · real data, profile {data.after}", ends_of="after"
    )
    return Made(tuple(tables), drawn("methods", figure), tuple(told), tuple(claims),
                {"methods": "Score after minus before the change by method"})  # fmt: skip


def _place(group: Group) -> str:
    return f"{group.key.benchmark}.{group.key.protocol}"


def _own(data: Data, group: Group) -> Block | None:
    rows = {(m, FULL): Source(PROFILE, m) for m in group.methods}
    rows |= {(m, AFTER): Source(data.after, m) for m in group.methods}
    pairs = [Pair(label(m), (m, AFTER), (m, FULL)) for m in group.methods]
    return comparing.block(data.compared(_place(group), rows), pairs, "each method after against before the change")


def _rivals(data: Data, group: Group, profile: str) -> Block | None:
    sources = {m: Source(profile, m) for m in group.methods}
    return comparing.against_rivals(data, _place(group), sources, f"profile {profile}")


SECTION = Section("before_after", "Before and after the one change", build)
