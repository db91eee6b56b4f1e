"""The optimiser: the paper's SGD, an SGD that was searched for, AdamW as it stands, and AdamW as searched, which the
main tables have; for every trained method alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmarks.drawing import Look
from benchmarks.report import layout
from benchmarks.report.collect import FULL, OURS, Row, label
from benchmarks.report.layout import Cell, Table, count, listed, number
from benchmarks.report.sections import comparing
from benchmarks.report.sections.comparing import Block, Pair
from benchmarks.report.sections.courses import Course, courses_of, draw
from benchmarks.report.sections.data import Data, Source, methods_at
from benchmarks.report.sections.frame import Claim, Made, Section, Sentence, claim, drawn, intro_of, lacks, real
from benchmarks.report.sections.trials import trials

STUDY = "optimiser"
SEARCHED = "searched AdamW"
# Setting -> what it is called and how its curves look; "" is the profile of the main tables.
NAMES: Mapping[str, tuple[str, Look]] = {
    "sgd-published": ("published SGD", Look("#0072B2", "o", (0, (5, 1.5)))),
    "sgd": ("searched SGD", Look("#009E73", "s", (0, (3, 1, 1, 1)))),
    "untuned": ("plain AdamW", Look("#CC79A7", "^", (0, (1.2, 1.2)))),
    "": (SEARCHED, Look("#D55E00", "D", width=2.0)),
}
INTRO = "Each optimiser minus searched AdamW, the same method, all else as the search of each left it."
FAMILY = ("Modalities alone are in the table and in the family, not in the picture.",)
EPOCHS = "Mean selected epoch"


def build(data: Data) -> Made:
    """Each method under each optimiser, CLCR against the others under each, and how equal the searches were."""
    profiles = _profiles(data)
    places = data.study_of(STUDY).protocols
    own = comparing.present(_own(data, place, profiles) for place in places)
    if not own:
        return Made(sentences=lacks(data, STUDY))
    tables = [comparing.table("methods", "Optimisers by method", own, intro_of(data, STUDY, INTRO))]
    told = [*lacks(data, STUDY, "methods"), *comparing.tallies(own, "methods")]
    claims = [_claim(own, setting) for setting in profiles if setting]
    for setting, profile in profiles.items():
        name = f"rivals_{(setting or 'adamw-searched').replace('-', '_')}"
        rivals = comparing.present(_rivals(data, place, profile, NAMES[setting][0]) for place in places)
        if rivals:
            summed = comparing.overall(rivals, f"CLCR against the others, {NAMES[setting][0]}")
            tables.append(comparing.table(name, f"CLCR against others, {NAMES[setting][0]}", rivals, (summed,)))
            told.append(Sentence(summed, name))
            claims += comparing.fusion_claim(f"CLCR is better than late fusion, {NAMES[setting][0]}", rivals, name)
    searches, equal = _searches(data)
    tables += searches
    shown = [one.only(lambda name: not name.startswith("Unimodal")) for one in own]
    figures = drawn("methods", comparing.intervals(shown, "Optimisers: minus searched AdamW · real data", FAMILY))
    figures |= _curves(data, profiles)
    captions = {"methods": "Each optimiser minus searched AdamW by method", "curves": "Learning curves by optimiser"}
    return Made(tuple(tables), figures, (*told, *equal), tuple(c for c in claims if c is not None), captions)


def _profiles(data: Data) -> dict[str, str]:
    study = data.study_of(STUDY)
    known = dict(zip(study.settings, study.profiles, strict=False)) | {"": study.profile}
    return {setting: known[setting] for setting in NAMES if setting in known}


def _own(data: Data, place: str, profiles: Mapping[str, str]) -> Block | None:
    names = methods_at(data.study_of(STUDY), place)
    rows: dict[Row, Source] = {(m, s or FULL): Source(profile, m) for m in names for s, profile in profiles.items()}
    extra = {row: {EPOCHS: _epochs(data, place, source)} for row, source in rows.items()}
    pairs = [Pair(f"{label(m)}, {NAMES[s][0]}", (m, s), (m, FULL), extra[m, s]) for m in names for s in profiles if s]
    references = listed([f"{label(m)} {extra[m, FULL][EPOCHS]}" for m in names])
    return comparing.block(
        data.compared(place, rows), pairs, "each optimiser against searched AdamW",
        (f"{EPOCHS} with searched AdamW: {references}.",),
    )  # fmt: skip


def _epochs(data: Data, place: str, source: Source) -> str:
    """The mean of the selected epochs over seeds and folds, and the epochs that were trained."""
    chosen, trained = list[float](), set[int]()
    for record in data.records_of(place, source):
        said = record.selection
        epochs = said.get("epochs", [said.get("epoch")])
        chosen += [float(epoch) for epoch in epochs if type(epoch) is int]
        limit = record.what.get("config", {}).get("training", {}).get("epochs")
        trained |= {limit} if type(limit) is int else set()
    return f"{number(float(np.mean(chosen)), 1)} of {max(trained, default=0)}" if chosen and trained else layout.DASH


def _rivals(data: Data, place: str, profile: str, name: str) -> Block | None:
    names = methods_at(data.study_of(STUDY), place)
    return comparing.against_rivals(data, place, {m: Source(profile, m) for m in names}, name)


def _claim(own: list[Block], setting: str) -> Claim | None:
    parts = [(one.title, contrast) for one in own if (contrast := one.of((OURS, setting))) is not None]
    text = f"CLCR: searched AdamW is better than {NAMES[setting][0]}"
    return claim(text, parts, "methods", better=-1) if parts else None


def _searches(data: Data) -> tuple[list[Table], list[Sentence]]:
    """Whether every method had as many trials, by profile and data set."""
    study = data.study_of(STUDY)
    found: dict[tuple[str, str], Counter[str]] = {}
    for trial in trials(data.out):
        if trial.profile in study.profiles or trial.profile == study.profile:
            found.setdefault((trial.profile, trial.place), Counter())[trial.method] += 1
    if not found:
        return [], []
    told, rows = [], []
    for (profile, place), counts in sorted(found.items()):
        sizes = sorted(set(counts.values()))
        same = "the same number" if len(sizes) == 1 else "NOT the same number"
        sentence = f"Profile {profile}, {place}: {same} of trials for {count(len(counts), 'method')} ({_each(sizes)})."
        told.append(sentence)
        rows += [(profile, place, label(method), str(n)) for method, n in sorted(counts.items())]
    cells = tuple(tuple(Cell(text) for text in row) for row in rows)
    part = layout.Section("Trials", ("Profile", "Protocol", "Method", "Trials"), cells, tuple(told))
    frame = pd.DataFrame(rows, columns=["profile", "protocol", "method", "trials"])
    return [real("searches", "Trials of the searches", (), (part,), frame)], [
        Sentence(text, "searches") for text in told
    ]


def _each(sizes: list[int]) -> str:
    return listed([str(size) for size in sizes])


def _curves(data: Data, profiles: Mapping[str, str]) -> dict[str, bytes]:
    """CLCR and late fusion under each optimiser, epoch by epoch."""
    panels = []
    for place in data.study_of(STUDY).protocols:
        for method in (OURS, "late_fusion"):
            group = data.compared(place, {(method, s or FULL): Source(p, method) for s, p in profiles.items()})
            found = [Course(*NAMES[s], some) for s, p in profiles.items()
                     if (some := courses_of(data, place, Source(p, method)))]  # fmt: skip
            if found:
                panels.append((group, label(method), tuple(found)))
    if not panels:
        return {}
    return drawn("curves", draw(panels, "Learning curves by optimiser · real data"))


SECTION = Section("optimiser", "The optimiser", build)
