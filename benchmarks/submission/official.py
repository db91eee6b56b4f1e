"""What a submission is held against: the committed results, the official test samples, and this version's rules.

The samples of a run on a twin are made by the generator. Those of a real run are the samples of a committed run of the
same benchmark, protocol and seed; where none is committed, they follow from the data prepared on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import BENCHMARKS, archive, catalog
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement
from benchmarks.record import RunKey, RunRecord
from benchmarks.runner import store
from benchmarks.runner.config import protocol_of

OURS = "clcr"


@dataclass(frozen=True)
class Samples:
    """The test samples of a protocol at a seed. arrays: index, target and, where there is one, group. arrangement: the
    folds, where the data is at hand. ceiling: of a twin. source: where all this is from, for messages."""

    arrays: Mapping[str, np.ndarray]
    digest: str
    source: str
    arrangement: Arrangement | None = None
    ceiling: Mapping[str, float] | None = None


class Official:
    """The results below ``into`` and the data in ``cache``, each read once."""

    def __init__(self, into: Path, cache: Path) -> None:
        self.into, self._cache = into, cache
        self._arrays: dict[str, Mapping[str, np.ndarray]] = {}
        self._records: dict[str, list[RunRecord]] = {}
        self._samples: dict[RunKey, Samples] = {}

    def records(self, benchmark: str) -> list[RunRecord]:
        """The committed records of a benchmark, CLCR's first."""
        if benchmark not in self._records:
            found = store.committed(self.into, benchmark)
            self._records[benchmark] = sorted(found, key=lambda record: (record.key.method != OURS, record.key))
        return self._records[benchmark]

    def of_group(self, key: RunKey) -> list[RunRecord]:
        """The committed records that stand in one table with a run."""
        group = replace(key, method="", variant="", seed=0)
        return [r for r in self.records(key.benchmark) if replace(r.key, method="", variant="", seed=0) == group]

    def package(self, method: str) -> str | None:
        """The package whose method of this name is committed, on whatever benchmark; None where there is none."""
        found = (r.provenance.get("method") for b in BENCHMARKS for r in self.records(b) if r.key.method == method)
        return next((str(told.get("package")) for told in found if isinstance(told, dict)), None)

    def seeds(self, key: RunKey) -> set[int]:
        """The seeds of the committed CLCR row of a run's table."""
        return {r.key.seed for r in self.of_group(key) if (r.key.method, r.key.variant) == (OURS, "full")}

    def samples(self, key: RunKey) -> Samples:
        """The official test samples of a run. InputError, with what to prepare, where nothing tells them."""
        sample = replace(key, profile="", method="", variant="")
        if sample not in self._samples:
            self._samples[sample] = self._find(sample)
        return self._samples[sample]

    def _find(self, sample: RunKey) -> Samples:
        if sample.data == "twin":
            return _prepared(sample, self._cache)
        committed = self._committed(sample)
        at_hand = catalog.is_prepared(sample.benchmark, protocol_of(sample), self._cache)
        here = _prepared(sample, self._cache) if at_hand else None
        if committed is not None and (here is None or here.digest != committed.digest):
            return committed
        if here is not None:
            return here
        raise InputError(
            f"no committed run of {sample.benchmark}, protocol {sample.protocol}, seed {sample.seed} has samples to "
            "compare with, and its data is not here; "
            f"run `clcr prepare {sample.benchmark} --source DIR` and submit again"
        )

    def _committed(self, sample: RunKey) -> Samples | None:
        for record in self.records(sample.benchmark):
            same = replace(record.key, profile="", method="", variant="") == sample
            if same and record.status == "done":
                found = archive.predictions_of(self._predictions(sample.benchmark), record.key, record.predictions)
                arrays = {name: array for name, array in found.items() if name != "prediction"}
                return Samples(arrays, str(record.what["data_digest"]), f"the committed run {record.key}")
        return None

    def _predictions(self, benchmark: str) -> Mapping[str, np.ndarray]:
        if benchmark not in self._arrays:
            self._arrays[benchmark] = archive.read_npz(self.into / "predictions" / f"{benchmark}.npz")
        return self._arrays[benchmark]


@cache
def _prepared(sample: RunKey, cache_folder: Path) -> Samples:
    protocol = protocol_of(sample)
    data = catalog.open_prepared(sample.benchmark, sample.data, cache_folder)
    found = catalog.arrange(data, protocol, sample.seed)
    index = np.sort(np.concatenate([fold.test for fold in found.folds]).astype(np.int64))
    arrays = {"index": index, "target": found.target[index]}
    if found.group is not None:
        arrays["group"] = found.group[index]
    source = "the synthetic twin" if sample.data == "twin" else f"the data in {cache_folder}"
    digest = catalog.data_digest(data, protocol, found)
    return Samples(arrays, digest, source, found, data.truth.get("ceiling"))
