"""Our own choices, one at a time, by validation: what each would have changed against the default."""

from __future__ import annotations

from benchmarks import studies
from benchmarks.report.collect import FULL, OURS
from benchmarks.report.sections import comparing, rule
from benchmarks.report.sections.comparing import Block, Pair
from benchmarks.report.sections.data import Data, Source
from benchmarks.report.sections.frame import Made, Section, Sentence, drawn, intro_of, lacks, none_better

STUDY = "choices"
INTRO = (
    "One choice changed at a time, minus the default, on the VALIDATION split, by which such choices are made; the "
    "largest difference first. What a setting changes stands in benchmarks/studies.yaml.",
)


def build(data: Data) -> Made:
    """Every choice on every data set, ranked."""
    study = data.study_of(STUDY)
    blocks = comparing.present(_ranked(data, place) for place in study.protocols)
    if not blocks:
        return Made(sentences=lacks(data, STUDY))
    table = comparing.table("one_at_a_time", "One choice at a time", blocks, intro_of(data, STUDY, *INTRO))
    told = (*lacks(data, STUDY, table.name), *comparing.tallies(blocks, table.name))
    text = "By validation no single other choice is better than the default"
    figure = comparing.intervals(blocks, "One choice at a time, minus the default · real data, VALIDATION", bars=True,
                                 ends_of="choice")  # fmt: skip
    ruled = _ruled(data)
    tables = (table, rule.table(ruled)) if ruled else (table,)
    told += (Sentence(rule.summed(ruled), "rule"),) if ruled else ()
    return Made(
        tables,
        drawn("one_at_a_time", figure),
        told,
        (none_better(text, [(one.title, one.found) for one in blocks], table.name),),
        {"one_at_a_time": "What each choice changes against the default, by validation"},
    )


def _ruled(data: Data) -> list[rule.Ruled]:
    """The settings that are CLCR's own under the rule, the largest gain first."""
    study, known = data.study_of(STUDY), studies.declared()[0]
    fields = {name: frozenset(known[name].values) for name in study.settings if name in known}
    found = []
    for setting, profile in zip(study.settings, study.profiles, strict=False):
        if all(field.startswith("method.") for field in fields.get(setting, ("",))):
            pairs = [(place, place, Source(profile, OURS), Source(study.profile, OURS)) for place in study.protocols]
            found += [one] if (one := rule.judged(data, setting, pairs)) else []
    return rule.one_a_field(found, fields)


def _ranked(data: Data, place: str) -> Block | None:
    study = data.study_of(STUDY)
    default = (OURS, FULL)
    settings = dict(zip(study.settings, study.profiles, strict=False))
    rows = {default: Source(study.profile, OURS)} | {
        (OURS, s): Source(profile, OURS) for s, profile in settings.items()
    }
    group = data.compared(place, rows, split="valid")
    pairs = [Pair(setting, (OURS, setting), default) for setting in settings]
    found = comparing.block(group, pairs, "each choice against the default", split="valid")
    return found.sorted_by_size() if found else None


SECTION = Section("choices", "Our own choices, one at a time", build)
