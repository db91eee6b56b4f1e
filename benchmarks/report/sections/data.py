"""What sections are made from: the records of the main tables and of the studies, and analyses of trained weights."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import pandas as pd

from baselines import METHODS
from benchmarks import curves, studies
from benchmarks.curves import Curve
from benchmarks.errors import InputError
from benchmarks.record import RunKey, RunRecord
from benchmarks.report.collect import FULL, RUN, RUN_COLUMNS, Collected, Group, GroupKey, Row, collect, load_spec
from benchmarks.report.layout import count, listed
from benchmarks.report.published import Published
from benchmarks.report.sections import analyses
from benchmarks.report.sections.analyses import Analysis
from benchmarks.spec import BenchmarkSpec, Protocol
from benchmarks.studies import Study

SEEDS = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")
Values = Mapping[str, Mapping[int, float]]  # by metric, by seed
NO_VALUES: Values = {}


@dataclass(frozen=True)
class Source:
    """Where a row's values come from. place: "benchmark.protocol", "" for that of the comparison."""

    profile: str
    method: str
    variant: str = FULL
    place: str = ""


@dataclass(frozen=True)
class Data:
    """main: <out>/records, without stale runs. study: <out>/studies/records, read with the same checks. after: the
    profile of the main tables with the one change, "" where there is none."""

    out: Path
    main: Collected
    study: Collected = field(default_factory=lambda: Collected((), ()))
    studies: Mapping[str, Study] = field(default_factory=dict)
    published: Published = field(default_factory=Published)
    after: str = ""
    _curves: dict[str, dict[curves.Identity, Curve]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def records(self) -> Mapping[RunKey, RunRecord]:
        """The finished runs of both, the newest record of each, in the order of their keys."""
        found: dict[RunKey, RunRecord] = {}
        for collected in (self.study, self.main):  # of a run that both have the main tables' counts
            shown = {key for group in collected.groups for key in keys_of(group)}
            found |= {record.key: record for record in collected.records if record.key in shown}
        return dict(sorted(found.items()))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per run, split and metric: columns ``RUN``, split, metric, value."""
        rows = [
            (*(getattr(key, name) for name in RUN), split, metric, value)
            for key, record in self.records.items()
            for split, values in record.metrics.items()
            for metric, value in values.items()
        ]
        return pd.DataFrame(rows, columns=[*RUN, "split", "metric", "value"])

    @cached_property
    def _values(self) -> Mapping[tuple[GroupKey, Row, str], Values]:
        found: dict[tuple[GroupKey, Row, str], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        for key, record in self.records.items():
            for split, values in record.metrics.items():
                for metric, value in values.items():
                    found[GroupKey.of(key), (key.method, key.variant), split][metric][key.seed] = float(value)
        return found

    def values(self, place: str, source: Source, split: str = "test", data: str = "real") -> Values:
        """Value by metric and seed of the runs of a source; empty where there are none."""
        benchmark, _, protocol = (source.place or place).partition(".")
        key = GroupKey(benchmark, protocol, data, source.profile)
        return self._values.get((key, (source.method, source.variant), split), NO_VALUES)

    def records_of(self, place: str, source: Source, data: str = "real") -> list[RunRecord]:
        """The finished runs of a source, by seed."""
        benchmark, _, protocol = (source.place or place).partition(".")
        seeds = {seed for values in self.values(place, source, data=data).values() for seed in values}
        keys = (RunKey(benchmark, protocol, data, source.profile, source.method, source.variant, seed)
                for seed in sorted(seeds))  # fmt: skip
        return [self.records[key] for key in keys]

    def curves(self, benchmark: str) -> Mapping[curves.Identity, Curve]:
        """The committed learning curves of a benchmark's runs and of its studies' runs."""
        if benchmark not in self._curves:
            folders = (self.out / "curves", self.out / studies.FOLDER / "curves")
            self._curves[benchmark] = {k: v for f in folders for k, v in curves.read(f / f"{benchmark}.jsonl").items()}
        return self._curves[benchmark]

    def diagnostics(self, place: str, source: Source, data: str = "real") -> Values:
        """Diagnostic by name and seed of the runs of a source."""
        found: dict[str, dict[int, float]] = defaultdict(dict)
        for record in self.records_of(place, source, data):
            for name, value in record.diagnostics.items():
                if isinstance(value, int | float):
                    found[name][record.key.seed] = float(value)
        return found

    def compared(
        self, place: str, rows: Mapping[Row, Source], split: str = "test", data: str = "real", profile: str = "open"
    ) -> Group:
        """Runs of several sources as the rows of one group, for tests, tables and figures."""
        found = {row: self.values(place, source, split, data) for row, source in rows.items()}
        return group_of(place, {row: values for row, values in found.items() if values}, data, profile)

    def analysed(self, name: str) -> tuple[Analysis, ...]:
        """The lines of an analysis; none where it was not made."""
        return analyses.read(self.out / analyses.FOLDER / f"{name}.jsonl")

    def lacking(self, study: str, counted: bool = True) -> str:
        """What a study lacks and how to get it, in one sentence; "" where it is complete. counted: with numbers."""
        if study not in self.studies:
            return f"No study {study} is declared in benchmarks/studies.yaml."
        wanted = keys_of_study(self.studies[study])
        absent = [key for key in wanted if key not in self.records]
        remedy = f"`clcr run --study {study}` makes them"
        if not absent:
            return ""
        if len(absent) == len(wanted):
            return f"The runs of study {study} do not exist yet; {remedy}."
        places = listed(list(dict.fromkeys(f"{key.benchmark}.{key.protocol}" for key in absent)))
        number = f"{count(len(absent), 'run')} of {len(wanted)}" if counted else f"runs of study {study}"
        return f"PARTIAL: {number} are missing, on {places}; {remedy}."

    def study_of(self, name: str) -> Study:
        """A study; one without protocols where it is not declared."""
        return self.studies.get(name, Study(name, name, ()))


def keys_of(group: Group) -> Iterator[RunKey]:
    """The runs of a group that have a score."""
    for row in zip(*(group.runs[name] for name in RUN), strict=True):
        yield RunKey(*row)


def group_of(place: str, scores: Mapping[Row, Values], data: str = "real", profile: str = "open") -> Group:
    """A group of the given scores, as ``compare.contrasts`` and the tables take it."""
    spec, protocol = spec_of(place)
    key = GroupKey(spec.name, protocol.name, data, profile)
    seeds = sorted({(row, seed) for row, metrics in scores.items() for values in metrics.values() for seed in values})
    runs = [(*vars(key).values(), *row, seed, 0, 0.0, 0, "", "") for row, seed in seeds]
    return Group(key, spec, scores, pd.DataFrame(runs, columns=list(RUN_COLUMNS)), (), 0, {})


def unpaired(group: Group) -> Group:
    """The same group where equal seeds of two rows share nothing: its declared test is Welch's."""
    return replace(group, spec=replace(group.spec, test="welch"))


def spec_of(place: str) -> tuple[BenchmarkSpec, Protocol]:
    """The specification behind "benchmark.protocol"; InputError with the nearest name."""
    benchmark, _, protocol = place.partition(".")
    spec = load_spec(benchmark)
    return spec, spec.protocol(protocol)


def methods_at(study: Study, place: str) -> list[str]:
    """The methods of a study on "benchmark.protocol", each modality alone spelt out."""
    names: list[str] = []
    for name in study.methods or METHODS:
        single = name in METHODS and METHODS[name].per_modality
        names += [f"{name}_{modality.name}" for modality in spec_of(place)[1].modalities] if single else [name]
    return names


def keys_of_study(study: Study) -> list[RunKey]:
    """The runs that a study needs beside those of the main tables."""
    found = []
    for benchmark, protocol, profile in studies.one_each(study):
        for row in product(methods_at(study, f"{benchmark}.{protocol}"), study.variants, seeds_of(study)):
            found.append(RunKey(benchmark, protocol, study.data, profile, *row))
    return found


def seeds_of(study: Study) -> list[int]:
    """ "0-4,7" as numbers; InputError where it is something else."""
    found: list[int] = []
    for part in study.seeds.split(","):
        match = SEEDS.fullmatch(part.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise InputError(f"studies.yaml: studies.{study.name}.seeds: {study.seeds[:60]!r}; write 0-4 or 0,2,5")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found))


def gather(out: Path, main: Collected, published: Published) -> Data:
    """Everything below ``out``; InputError names a file and a line that cannot be read."""
    study = collect(out / studies.FOLDER / "records")
    return Data(out, main, study, studies.declared()[1], published, studies.after())
