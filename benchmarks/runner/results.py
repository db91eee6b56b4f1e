"""What the folds of a run gave: their results, while they come in and as the files and the record of the run."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.archive import predictions_digest, write_bytes, write_npz
from benchmarks.metrics import compute
from benchmarks.prepared import Arrangement
from benchmarks.record import digest_of
from benchmarks.runner.group import TrainingError
from benchmarks.runner.store import WEIGHTS
from benchmarks.spec import BenchmarkSpec

PLAIN = ("epoch", "value", "metrics", "n_parameters", "time_s", "diagnostics", "curves")


@dataclass(frozen=True)
class FoldResult:
    """What one fold gave. predictions and metrics by split; epoch 0: a method without epochs. weights: by epoch, where
    they are kept."""

    epoch: int
    value: float
    predictions: Mapping[str, np.ndarray]
    metrics: Mapping[str, Mapping[str, float]]
    n_parameters: int
    time_s: float
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[Mapping[str, Any]] = ()
    weights: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)


Found = list[FoldResult] | Exception


class Folds:
    """The results of each run of a team, or what made it fail, fold after fold; a part of its checkpoints.

    done: how many folds are over.
    """

    def __init__(self, runs: int) -> None:
        self.done = 0
        self.found: list[Found] = [[] for _ in range(runs)]

    def add(self, results: Sequence[FoldResult | Exception]) -> list[FoldResult | None]:
        """Take in a fold; returns what counts of it. A run that has failed stays failed."""
        self.done += 1
        return [self._add(place, result) for place, result in enumerate(results)]

    def _add(self, place: int, result: FoldResult | Exception) -> FoldResult | None:
        so_far = self.found[place]
        if isinstance(so_far, Exception):
            return None
        if isinstance(result, Exception):
            self.found[place] = result
            return None
        so_far.append(result)
        return result

    def save(self) -> dict[str, Any]:
        """See snapshot.Part."""
        return {"done": self.done, "found": [_packed(found) for found in self.found]}

    def load(self, saved: dict[str, Any]) -> None:
        """See snapshot.Part."""
        found = [_unpacked(each) for each in saved["found"]]
        done = saved["done"]
        if len(found) != len(self.found) or any(isinstance(each, list) and len(each) != done for each in found):
            raise ValueError(f"not {done} results of {len(self.found)} runs")
        self.done, self.found = done, found


def _packed(found: Found) -> dict[str, Any]:
    if isinstance(found, Exception):
        return {"error": str(found)}
    arrays = [{split: torch.from_numpy(x) for split, x in result.predictions.items()} for result in found]
    plain = [{name: getattr(result, name) for name in PLAIN} for result in found]
    kept = [dict(result.weights) for result in found]
    return {"plain": json.dumps(plain), "predictions": arrays, "weights": kept}


def _unpacked(saved: Mapping[str, Any]) -> Found:
    if "error" in saved:
        return TrainingError(saved["error"])
    arrays = [{split: x.numpy() for split, x in each.items()} for each in saved["predictions"]]
    rows = json.loads(saved["plain"])
    each = zip(arrays, saved["weights"], rows, strict=True)
    return [FoldResult(predictions=found, weights=weights, **row) for found, weights, row in each]


def write(spec: BenchmarkSpec, arrangement: Arrangement, results: Sequence[FoldResult], folder: Path) -> dict[str, Any]:
    """Write predictions and curves; return the fields of a finished run's record."""
    arrays = pool(arrangement, results)
    write_npz(folder / "predictions.npz", arrays)
    lines = [json.dumps({"fold": fold, **row}) for fold, result in enumerate(results) for row in result.curves]
    write_bytes(folder / "curves.jsonl", "".join(f"{line}\n" for line in lines).encode())
    several = len(results) > 1
    metrics = {split: _mean([result.metrics[split] for result in results]) for split in results[0].metrics}
    metrics["test"] = compute(spec.metrics, arrays["prediction"], arrays["target"])
    return {
        "status": "done",
        "selection": _selection(spec.main_metric, results),
        "metrics": metrics,
        "folds": tuple(result.metrics for result in results) if several else (),
        "diagnostics": _mean([result.diagnostics for result in results]),
        "n_parameters": max(result.n_parameters for result in results),
        "time_s": sum(result.time_s for result in results),
        "predictions": predictions_digest(arrays),
    }


def write_weights(keep: str, folder: Path, what: Mapping[str, Any], results: Found) -> None:
    """Write what was kept of a run, if anything was; benchmarks/runner/weights.py reads it."""
    if isinstance(results, Exception) or not any(result.weights for result in results):
        return
    folds = [dict(result.weights) for result in results]
    content = {"digest": digest_of(what), "folds": folds, "best": [result.epoch for result in results]}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(folder / WEIGHTS[keep], buffer.getvalue())


def _selection(metric: str, results: Sequence[FoldResult]) -> dict[str, Any]:
    if len(results) == 1:
        return {"metric": metric, "epoch": results[0].epoch, "value": results[0].value}
    values = [result.value for result in results]
    epochs = [result.epoch for result in results]
    return {"metric": metric, "epochs": epochs, "values": values, "value": float(np.mean(values))}


def pool(arrangement: Arrangement, results: Sequence[FoldResult]) -> dict[str, np.ndarray]:
    """index, target, prediction (and group) of the test samples of all folds, by index. ValueError where a sample was
    predicted twice."""
    index = np.concatenate([fold.test for fold in arrangement.folds]).astype(np.int64)
    if len(np.unique(index)) != len(index):
        raise ValueError("folds: a sample is in the test split of two folds")
    by_index = np.argsort(index)
    index = index[by_index]
    arrays = {
        "index": index,
        "target": arrangement.target[index],
        "prediction": np.concatenate([result.predictions["test"] for result in results])[by_index],
    }
    if arrangement.group is not None:
        arrays["group"] = arrangement.group[index]
    return arrays


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over folds, entry by entry."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
