"""Whether learned parts hold what they are named after: probes of networks trained on twins, whose factors are known.

A linear probe reads the true factors of a twin (benchmarks/twin.py) from what a network makes of a modality. It is
fitted on the training split and scored on the test split; the same probes of the network's first values stand beside,
because random features show much of what goes into them. What a probe finds is there; the network need not use it.

Classes move all factors together, so that a network that knows the class would seem to know every factor. Of a twin
with classes, parts and factors are therefore measured from their means over the training samples of the true class:
what a part tells beyond the class can only come from the sample's own tokens.

Values; a cell is {"mean": x, "levels": [3]}, means over modalities and by true level (absent where a level
has nothing to probe), of 4 decimals:
- probe {state: {part: {factor: cell}}}: R^2 on the test split of ridge regressions (``probes.ridge_r2``). state:
  trained or untrained. part: features (mean of the encoder's tokens, of any method), shared and private (summaries of
  CLCR, vectors of MISA). factor: the true shared factor of the level, the private one of the modality at the level, and
  foreign, the private ones of the other modalities, one by one. A part that has no levels (of MISA, and the features of
  a method that reads the deepest level alone) is probed for the factors of each.
  Of a regression also shared_label and private_label: of these factors, the one direction that moves the label, where
  there is one. A network has no reason to keep the others.
- cca {state: {part: {factor: cell}}}: the same as mean canonical correlations.
- leakage {state: {stream: {factor: cell}}}: R^2 as in probe, of what a modality sends into the exchange (mean of its
  tokens as they enter it, weighted by alpha) and of what it receives (mean of what is added). CLCR only.
- auroc {state: {kind: {"mean", "levels", "modalities": {name: [3]}}}}: how well alpha finds the real tokens that show a
  factor of the level (informative), and distractors, among all real ones; 0.5 is chance, and below 0.5 distractors are
  kept out. Mean over samples of one area each. Variants that weigh tokens only.
- gap {"metric", "score", "ceiling", "gap"}: main metric on the test split, the best reachable one, score - ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.analyses.inside import Inside, collect, with_group
from benchmarks.analyses.probes import Predictors, area_under_curve, canonical_correlation, ridge_r2
from benchmarks.analyses.team import Team, Values
from benchmarks.data import FoldData
from benchmarks.errors import InputError
from benchmarks.metrics import compute
from benchmarks.runner.execute import Setting, assemble
from benchmarks.runner.group import Group
from benchmarks.runner.seeds import streams
from clcr.api import LEVELS

Array = NDArray[Any]
Score = Callable[[Predictors, Array, Array, Array], float]
STATES = ("trained", "untrained")
LEARNED = ("features", "shared", "private")
STREAMS = ("sent", "received")
FACTORS = ("shared", "private", "foreign")
BEARING = "_label"  # of a factor, its direction that moves the label
DIGITS = 4


def mechanism(team: Team) -> list[Values | Exception]:
    """The values of each run."""
    (found,) = [analyse(group, team.runs, fold.data) for fold, group in with_group(team)]  # twins have one fold
    return list(found)


def analyse(group: Group, runs: Sequence[Setting], data: Sequence[FoldData]) -> list[Values]:
    """The values of each seed of a group at its fold; InputError on data whose factors are not known."""
    seeds = [streams(r.key.benchmark, r.key.protocol, r.key.seed, own.fold) for r, own in zip(runs, data, strict=True)]
    for run in runs:
        if "factors" not in run.prepared.truth:
            raise InputError(f"{run.key}: field 'data': the factors of real data are not known; use --data twin")
    with torch.random.fork_rng([group.device] if group.device.type == "cuda" else []):
        untrained = assemble(runs, data, seeds)
    splits = [[collect(each, data, split) for split in ("train", "test")] for each in (group, untrained)]
    found = []
    for seed, (run, own) in enumerate(zip(runs, data, strict=True)):
        truth = Truth(run, own)
        states = {
            state: measure(truth, train[seed], test[seed]) for state, (train, test) in zip(STATES, splits, strict=True)
        }
        kinds = [kind for kind in ("probe", "cca", "leakage", "auroc") if kind in states["trained"]]
        values: Values = {kind: {state: states[state][kind] for state in STATES} for kind in kinds}
        found.append(values | {"gap": _gap(run, own, splits[0][1][seed])})
    return found


class Truth:
    """The true factors of a fold's samples, and planted {kind: {modality: (n, 3, T)}} of the test split."""

    def __init__(self, run: Setting, data: FoldData) -> None:
        truth = run.prepared.truth
        self.modalities = tuple(name.removeprefix("private_") for name in truth["factors"] if name != "shared")
        self._rows = {s: run.arrangement.rows[self.modalities[0]][data.indices[s]] for s in ("train", "test")}
        self._classes = None if run.protocol.n_classes is None else truth["clean"]
        self._factors = {
            name: self.within_class(*(x[self._rows[split]] for split in ("train", "test")))
            for name, x in truth["factors"].items()
        }
        self._bearing = {} if self._classes is not None else _bearing(truth["factors"], truth["clean"])
        rows = self._rows["test"]
        self.planted = {
            "informative": {name: truth["informative"][name][rows] for name in self.modalities},
            "distractor": {
                name: truth["distractor"][name][rows][:, None].repeat(LEVELS, axis=1) for name in self.modalities
            },
        }

    def within_class(self, train: Array, test: Array) -> tuple[Array, Array]:
        """What the samples of both splits (n, ...) show beside the mean of their true class on the training split;
        values of a regression stay as they are."""
        if self._classes is None:
            return train, test
        known, asked = (self._classes[self._rows[split]] for split in ("train", "test"))
        means = np.stack([train[known == c].mean(0) for c in range(int(max(known.max(), asked.max())) + 1)])
        return train - means[known], test - means[asked]

    def factors(self, kind: str, modality: str, levels: Mapping[str, int]) -> list[tuple[Array, ...]]:
        """What a part of a modality is probed for, (n, k) of the training and the test split each. ``levels`` tells
        which level each modality stands for, ``kind`` is one of ``kinds``."""
        kind, bearing, _ = kind.partition(BEARING)
        names = [name for name in self.modalities if (name == modality) == (kind != "foreign")]
        found = []
        for name in names:
            factor, level = "shared" if kind == "shared" else f"private_{name}", levels[name]
            pair = tuple(x[:, level] for x in self._factors[factor])
            direction = self._bearing[factor][level] if bearing else np.eye(pair[0].shape[-1])
            found += [tuple(x @ direction for x in pair)] if direction.any() else []
        return found

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of factors that there are."""
        return FACTORS + tuple(f"{kind}{BEARING}" for kind in ("shared", "private") if self._bearing)


def _bearing(factors: Mapping[str, Array], clean: Array) -> dict[str, Array]:
    """Of each factor the unit direction (3, k, 1) that moves the clean value, zero where none does. The value is a
    weighted sum of all factors, so that least squares give the weights."""
    flat = np.concatenate([x.reshape(len(x), -1) for x in factors.values()], axis=1)
    weights = np.linalg.lstsq(np.c_[flat, np.ones(len(flat))], clean, rcond=None)[0]
    found, start = {}, 0
    for name, x in factors.items():
        own = weights[start : (start := start + x[0].size)].reshape(*x.shape[1:], 1)
        length = np.linalg.norm(own, axis=1, keepdims=True)
        moves = length > 1e-6 * np.abs(weights).max()
        found[name] = np.where(moves, own / np.where(moves, length, 1.0), 0.0)
    return found


def measure(truth: Truth, train: Inside, test: Inside) -> dict[str, Any]:
    """All probes of one network, from what it showed of the training and of the test split."""
    learned, exchanged = ([name for name in names if name in test.parts] for names in (LEARNED, STREAMS))
    found: dict[str, Any] = {
        "probe": {part: _probed(truth, train, test, part, ridge_r2) for part in learned},
        "cca": {part: _probed(truth, train, test, part, canonical_correlation, FACTORS) for part in learned},
    }
    if exchanged:
        found["leakage"] = {part: _probed(truth, train, test, part, ridge_r2) for part in exchanged}
    if test.alpha is not None and test.binds is not None:
        areas = {kind: _areas(truth, test, kind) for kind in truth.planted}
        found["auroc"] = {kind: cell for kind, cell in areas.items() if cell}
    return found


def _probed(
    truth: Truth, train: Inside, test: Inside, part: str, score: Score, kinds: Sequence[str] = ()
) -> dict[str, Any]:
    """A cell for each kind of factor, all by default."""
    fitted, other = truth.within_class(train.parts[part], test.parts[part])
    predictors = {place: Predictors(fitted[:, place[0], place[1]]) for place in np.ndindex(fitted.shape[1:3])}
    found = {}
    for kind in kinds or truth.kinds:
        table = np.full((LEVELS, len(test.modalities)), np.nan)
        for m, modality in enumerate(test.modalities):
            for place, levels in _places(truth, test, part):
                targets = truth.factors(kind, modality, levels)
                each = [score(predictors[place, m], y, other[:, place, m], z) for y, z in targets]
                table[levels[modality], m] = np.mean(each) if each else np.nan
        if np.isfinite(table).any():  # one modality alone has no foreign factors
            found[kind] = _cell(table)
    return found


def _places(truth: Truth, inside: Inside, part: str) -> list[tuple[int, dict[str, int]]]:
    """Where a part is read, and which true level each modality stands for there."""
    if inside.parts[part].shape[1] == 1:
        return [(0, dict.fromkeys(truth.modalities, level)) for level in range(LEVELS)]
    found = []
    for slot in range(LEVELS):
        levels = dict.fromkeys(truth.modalities, slot)
        if inside.slots is not None and part != "features":
            levels |= {name: int(inside.slots[slot, k]) for k, name in enumerate(inside.modalities)}
        found.append((slot, levels))
    return found


def _areas(truth: Truth, inside: Inside, kind: str) -> dict[str, Any]:
    """Areas under the curves of alpha, (true level, modality)."""
    assert inside.alpha is not None
    assert inside.slots is not None
    assert inside.real is not None
    table = np.full(inside.alpha.shape[1:3], np.nan)
    for slot, m in np.ndindex(table.shape):
        planted = truth.planted[kind][inside.modalities[m]][:, inside.slots[slot, m]]
        tokens = min(planted.shape[-1], inside.alpha.shape[-1])
        parts = (inside.alpha[:, slot, m], planted, inside.real[:, m])
        table[inside.slots[slot, m], m] = area_under_curve(*(x[:, :tokens] for x in parts))
    if not np.isfinite(table).all():  # nowhere both kinds of tokens in one sample
        return {}
    by_modality = {name: _rounded(table[:, m]) for m, name in enumerate(inside.modalities)}
    return _cell(table) | {"modalities": by_modality}


def _cell(table: Array) -> dict[str, Any]:
    """Means of a table (3, M), of the places that have a number; by level where each has one."""
    mean = {"mean": _rounded(np.nanmean(table))}
    return mean | ({"levels": _rounded(np.nanmean(table, 1))} if np.isfinite(table).any(1).all() else {})


def _rounded(x: Any) -> Any:
    """Floats of few digits."""
    return [_rounded(value) for value in x] if np.ndim(x) else round(float(x), DIGITS)


def _gap(run: Setting, data: FoldData, inside: Inside) -> dict[str, Any]:
    metric = run.spec.main_metric
    score = compute((metric,), inside.prediction, data.targets("test"))[metric]
    ceiling = float(run.prepared.truth["ceiling"][metric])
    return {"metric": metric, "score": score, "ceiling": ceiling, "gap": score - ceiling}
