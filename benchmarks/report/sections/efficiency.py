"""How much training data a method needs: every method on a tenth, a quarter, half and all of it."""

from __future__ import annotations

import re

from benchmarks.drawing import look
from benchmarks.report.collect import FULL, OURS, label
from benchmarks.report.sections import comparing, lines
from benchmarks.report.sections.comparing import Block
from benchmarks.report.sections.data import Data, Source, methods_at
from benchmarks.report.sections.frame import Claim, Made, Section, Sentence, drawn, intro_of, lacks

STUDY = "efficiency"
DATA_SHARE = re.compile(r"data-(\d+)")
INTRO = "CLCR minus each other method, all trained on the same share of the training samples; seeds draw the share."


def build(data: Data) -> Made:
    """CLCR against the others at each share, and the curves of all methods."""
    study = data.study_of(STUDY)
    settings = zip(study.settings, study.profiles, strict=False)
    shares = {int(found[1]): p for name, p in settings if (found := DATA_SHARE.fullmatch(name))} | {100: study.profile}
    blocks = {share: comparing.present(_rivals(data, place, shares[share], share) for place in study.protocols)
              for share in sorted(shares)}  # fmt: skip
    if not any(blocks[share] for share in shares if share != 100):
        return Made(sentences=lacks(data, STUDY))
    tables, told, claims = [], list[Sentence](), list[Claim]()
    for share, some in blocks.items():
        if some:
            name, where = f"share_{share}", f"with {share} % of the training data"
            summed = comparing.overall(some, f"CLCR against the others {where}")
            intro = intro_of(data, STUDY, INTRO, summed)
            tables.append(comparing.table(name, f"CLCR against others {where}", some, intro))
            told.append(Sentence(summed, name))
            claims += comparing.fusion_claim(f"CLCR is better than late fusion {where}", some, name)
    panels = [panel for place in study.protocols if (panel := _panel(data, place, shares)).lines]
    figure = lines.draw(panels, "Score by share of the training data · real data, profile open",
                        "share of the training samples (%)", log=True)  # fmt: skip
    return Made(tuple(tables), drawn("curves", figure), (*lacks(data, STUDY, tables[0].name), *told), tuple(claims),
                {"curves": "Score of every method by share of the training data"})  # fmt: skip


def _rivals(data: Data, place: str, profile: str, share: int) -> Block | None:
    names = methods_at(data.study_of(STUDY), place)
    return comparing.against_rivals(
        data, place, {m: Source(profile, m) for m in names}, f"{share} % of the training data"
    )


def _panel(data: Data, place: str, shares: dict[int, str]) -> lines.Panel:
    found = []
    names = methods_at(data.study_of(STUDY), place)
    group = data.compared(place, {(m, FULL): Source(shares[100], m) for m in names})
    for method in sorted(names, key=lambda name: name != OURS):
        values = {share: data.values(place, Source(shares[share], method)).get(group.spec.main_metric, {})
                  for share in sorted(shares)}  # fmt: skip
        points = tuple((float(share), found_values) for share, found_values in values.items() if found_values)
        if len(points) > 1:
            found.append(lines.Line(label(method), look(method), points))
    return lines.Panel(group, tuple(found))


SECTION = Section("efficiency", "How much training data it takes", build)
