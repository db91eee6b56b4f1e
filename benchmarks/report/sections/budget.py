"""How many tokens should take part in the exchange: fixed shares and scaled budgets against the learned one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.drawing import Look, look
from benchmarks.report.collect import FULL, OURS, Group, Row
from benchmarks.report.layout import DASH, number
from benchmarks.report.sections import comparing, lines
from benchmarks.report.sections.comparing import Block, Pair
from benchmarks.report.sections.data import Data, Source, spec_of
from benchmarks.report.sections.frame import Claim, Made, Section, claim, drawn, intro_of, lacks, none_better

STUDY = "budget"
BEST = "share-70"  # the fixed share next to the paper's best participation, 0.68
BEST_NAME = BEST.removeprefix("share-")
EVERY = "share-100"
LEARNED: Row = (OURS, FULL)
SHARES, GAMMAS = Look("#0072B2", "o", (0, (5, 1.5))), Look("#009E73", "s", (0, (3, 1, 1, 1)))
PARTICIPATION = "Participation r"
INTRO = (
    "Participation r: share of real tokens with a positive weight in the exchange, as the runs measured it on their "
    "test samples; mean over seeds, levels and the modalities that have more than one token.",
    "The paper's best is a participation of about 0.68, at a gamma of about 1, which is the learned budget here.",
)


def build(data: Data) -> Made:
    """Both sweeps, on every data set that has them."""
    places = data.study_of(STUDY).protocols
    groups = {place: _group(data, place) for place in places}
    shares = comparing.present(_shares(data, place, groups[place]) for place in places)
    gammas = comparing.present(_gammas(data, place, groups[place]) for place in places)
    tables, figures = [], {}
    if shares:
        tables.append(comparing.table("shares", "Fixed shares of the tokens", shares, intro_of(data, STUDY, *INTRO)))
    if gammas:
        tables.append(comparing.table("gammas", "Scaled budgets", gammas, intro_of(data, STUDY, *INTRO)))
    panels = [lines.Panel(groups[place], found) for place in places if (found := _lines(data, place, groups[place]))]
    if tables:
        text = "CLCR by how many tokens take part · real data, profile open"
        figures = drawn("participation", lines.draw(panels, text, "participation r"))
    told = (*comparing.tallies(shares, "shares"), *comparing.tallies(gammas, "gammas"))
    partial = lacks(data, STUDY, tables[0].name if tables else "")
    return Made(tuple(tables), figures, (*partial, *told), _claims(shares, gammas),
                {"participation": "Score by participation in the exchange"})  # fmt: skip


def _sources(data: Data) -> Mapping[Row, Source]:
    study = data.study_of(STUDY)
    settings = zip(study.settings, study.profiles, strict=False)
    return {LEARNED: Source(study.profile, OURS), **{(OURS, name): Source(profile, OURS) for name, profile in settings}}


def _group(data: Data, place: str) -> Group:
    return data.compared(place, _sources(data))


def _shares(data: Data, place: str, group: Group) -> Block | None:
    rows = [row for row in _sources(data) if row[1].startswith("share-") and row[1] != BEST]
    named = [(f"{row[1].removeprefix('share-')} % of the tokens", row) for row in rows]
    pairs = [_pair(data, place, name, row, (OURS, BEST)) for name, row in [("learned budget", LEARNED), *named]]
    known = " ".join(_cell(data, place, (OURS, BEST)))
    return comparing.block(group, pairs, f"each share against {BEST_NAME} % of the tokens (participation {known})")


def _gammas(data: Data, place: str, group: Group) -> Block | None:
    rows = [row for row in _sources(data) if row[1].startswith("gamma-")]
    pairs = [_pair(data, place, f"gamma {_gamma(row)}", row, LEARNED) for row in rows]
    known = " ".join(_cell(data, place, LEARNED))
    return comparing.block(group, pairs, f"each gamma against 1 (participation {known})")


def _gamma(row: Row) -> str:
    return number(float(row[1].removeprefix("gamma-")) / 100, 2)


def _pair(data: Data, place: str, name: str, row: Row, reference: Row) -> Pair:
    return Pair(name, row, reference, {PARTICIPATION: "".join(_cell(data, place, row))})


def _cell(data: Data, place: str, row: Row) -> tuple[str, ...]:
    found = list(participation(data, place, _sources(data)[row]).values()) if row in _sources(data) else []
    return (number(float(np.mean(found)), 2),) if found else (DASH,)


def participation(data: Data, place: str, source: Source) -> dict[int, float]:
    """r by seed: the mean over levels and the modalities that can have more than one token; empty where no run says."""
    several = [str(n) for n, m in enumerate(spec_of(place)[1].modalities) if m.layout != "vector"]
    found: dict[int, list[float]] = {}
    for name, values in data.diagnostics(place, source).items():
        part, _, modality = name.rpartition(".")
        if part.startswith("participation.") and modality in several:
            for seed, value in values.items():
                found.setdefault(seed, []).append(value)
    return {seed: float(np.mean(values)) for seed, values in sorted(found.items())}


def _lines(data: Data, place: str, group: Group) -> tuple[lines.Line, ...]:
    """Score by measured participation: the shares, the gammas, the learned budget."""
    metric, points = group.spec.main_metric, {}
    for row, source in _sources(data).items():
        shares = participation(data, place, source)
        if shares and group.values(row, metric):
            points[row] = (float(np.mean(list(shares.values()))), group.values(row, metric))
    named = {"fixed share": ("share-", SHARES), "scaled learned budget": ("gamma-", GAMMAS)}
    found = []
    for name, (start, drawn_as) in named.items():
        some = sorted((point for row, point in points.items() if row[1].startswith(start)), key=lambda point: point[0])
        found += [lines.Line(name, drawn_as, tuple(some), start == "share-")] if some else []
    if LEARNED in points:
        found.append(lines.Line("learned budget", look(OURS), (points[LEARNED],), False))
    return tuple(found)


def _claims(shares: list[Block], gammas: list[Block]) -> tuple[Claim, ...]:
    found = []
    full = [(one.title, contrast) for one in shares if (contrast := one.of((OURS, EVERY))) is not None]
    if full:
        text = f"Exchanging {BEST_NAME} % of the tokens is better than exchanging all of them"
        found.append(claim(text, full, "shares", better=-1))
    if shares:
        text = f"No other share of the tokens is better than {BEST_NAME} %"
        found.append(none_better(text, [(one.title, one.found) for one in shares], "shares"))
    if gammas:
        text = "No other gamma is better than 1"
        found.append(none_better(text, [(one.title, one.found) for one in gammas], "gammas"))
    return tuple(found)


SECTION = Section("budget", "How many tokens take part in the exchange", build)
