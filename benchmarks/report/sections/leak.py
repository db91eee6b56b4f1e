"""What it is worth to have seen the actors: clips split at random against actors that training has not seen."""

from __future__ import annotations

from benchmarks.report.collect import FULL, OURS, label
from benchmarks.report.sections import comparing
from benchmarks.report.sections.comparing import Pair
from benchmarks.report.sections.data import Data, Source, methods_at, unpaired
from benchmarks.report.sections.frame import Made, Section, claim, drawn, intro_of, lacks

STUDY = "leak"
SEEN, UNSEEN = "ravdess.clip_random", "ravdess.actor_disjoint"
SHARED = "seen actors"
INTRO = (
    "Protocol clip_random (the same actors in training and test) minus protocol actor_disjoint, same method, same "
    "settings, same numbers of clips. The splits differ, so seeds are not paired: Welch's t test.",
)


def build(data: Data) -> Made:
    """Every method on both protocols."""
    study = data.study_of(STUDY)
    profile = study.profiles[0]
    names = methods_at(study, UNSEEN)
    rows = {(m, FULL): Source(profile, m) for m in names}
    rows |= {(m, SHARED): Source(profile, m, place=SEEN) for m in names}
    pairs = [Pair(label(m), (m, SHARED), (m, FULL)) for m in names]
    group = unpaired(data.compared(UNSEEN, rows, profile=profile))
    found = comparing.block(group, pairs, "each method on clip_random against actor_disjoint")
    if found is None:
        return Made(sentences=lacks(data, STUDY))
    table = comparing.table("methods", "Seen against unseen actors", [found], intro_of(data, STUDY, *INTRO))
    ours = found.of((OURS, SHARED))
    text = "CLCR scores higher where training has seen the actors"
    claims = (claim(text, [("RAVDESS speech", ours)], "methods"),) if ours else ()
    figure = comparing.intervals([found], "Seen minus unseen actors · real data", ends_of="seen")
    told = (*lacks(data, STUDY, "methods"), *comparing.tallies([found], "methods"))
    caption = {"methods": "Score with seen minus unseen actors by method"}
    return Made((table,), drawn("methods", figure), told, claims, caption)


SECTION = Section("leak", "Seen and unseen actors", build)
