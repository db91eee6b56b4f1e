"""Attention pooling in place of the mean, in the encoder that all methods share: what it changes, and for whom."""

from __future__ import annotations

from benchmarks.report.collect import FULL, OURS, label
from benchmarks.report.sections import comparing, rule
from benchmarks.report.sections.comparing import Block, Pair
from benchmarks.report.sections.data import Data, Source, methods_at
from benchmarks.report.sections.frame import Made, Section, Sentence, claim, drawn, intro_of, lacks

STUDY = "pooling"
ATTENTION = "pooling-attention"
INTRO = "Attention pooling minus mean pooling, which the main tables use; everything else is as the search left it."
RIVALS = "CLCR minus each other method, all of them with attention pooling."


def build(data: Data) -> Made:
    """Each method with the other pooling, and CLCR against the others with it."""
    study = data.study_of(STUDY)
    profile = next((p for p in study.profiles if p.endswith(f"+{ATTENTION}")), "")
    own = comparing.present(_own(data, place, profile) for place in study.protocols)
    if not own:
        return Made(sentences=lacks(data, STUDY))
    rivals = comparing.present(
        comparing.against_rivals(data, place, {m: Source(profile, m) for m in methods_at(study, place)},
                                 "all with attention pooling")
        for place in study.protocols
    )  # fmt: skip
    tables = [comparing.table("methods", "Attention against mean pooling", own, intro_of(data, STUDY, INTRO))]
    told = [*lacks(data, STUDY, "methods"), *comparing.tallies(own, "methods")]
    ours = [(one.title, contrast) for one in own if (contrast := one.of((OURS, ATTENTION))) is not None]
    claims = [claim("Attention pooling makes CLCR better than mean pooling", ours, "methods")] if ours else []
    if rivals:
        summed = comparing.overall(rivals, "CLCR against the others, all with attention pooling")
        tables.append(comparing.table("rivals", "CLCR against others with attention pooling", rivals, (RIVALS, summed)))
        told.append(Sentence(summed, "rivals"))
        claims += comparing.fusion_claim("With attention pooling CLCR is better than late fusion", rivals, "rivals")
    if ruled := _ruled(data, profile):
        tables.append(rule.table([ruled]))
        told.append(Sentence(rule.summed([ruled]), "rule"))
    figure = comparing.intervals(own, "Attention pooling minus mean pooling · real data, profile open",
                                 ends_of="attention")  # fmt: skip
    return Made(tuple(tables), drawn("methods", figure), tuple(told), tuple(claims),
                {"methods": "Attention pooling minus mean pooling by method"})  # fmt: skip


def _ruled(data: Data, profile: str) -> rule.Ruled | None:
    """Attention pooling under the rule, over all methods and data sets; what is worse is named with the method."""
    study = data.study_of(STUDY)
    pairs = [(f"{place} ({label(m)})", place, Source(profile, m), Source(study.profile, m))
             for place in study.protocols for m in methods_at(study, place)]  # fmt: skip
    return rule.judged(data, ATTENTION, pairs)


def _own(data: Data, place: str, profile: str) -> Block | None:
    study = data.study_of(STUDY)
    names = methods_at(study, place)
    rows = {(m, FULL): Source(study.profile, m) for m in names} | {(m, ATTENTION): Source(profile, m) for m in names}
    pairs = [Pair(label(m), (m, ATTENTION), (m, FULL)) for m in names]
    return comparing.block(data.compared(place, rows), pairs, "each method with attention pooling against mean pooling")


SECTION = Section("pooling", "Pooling, for all methods alike", build)
