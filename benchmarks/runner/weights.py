"""The weights that a run leaves where it is asked to (``clcr run --keep``), for analyses of what was learned.

A file beside the run's record: of each fold the weights of the selected epoch, or of every epoch, of this seed alone.
It comes from whoever made the runs folder, so it is read as tensors and nothing else.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import store
from benchmarks.runner.execute import Options, assemble, open_data, setting
from benchmarks.runner.group import Group
from benchmarks.runner.seeds import streams
from benchmarks.runner.snapshot import load_tensors

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Kept:
    """digest: that of the run. folds: of each fold the weights by epoch (from 1). best: the selected epoch of each."""

    digest: str
    folds: tuple[Mapping[int, Weights], ...]
    best: tuple[int, ...]


def read(folder: Path) -> Kept:
    """The weights in a run's folder. InputError where there are none or they cannot be trusted."""
    record = store.read_record(folder)
    paths = [path for path in (folder / name for name in store.WEIGHTS.values()) if path.is_file()]
    if record is None or not paths:
        raise InputError(f"{folder}: no weights of this run; run it again with --keep best")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what a file of another maker may hold
            raw = torch.load(io.BytesIO(paths[-1].read_bytes()), map_location="cpu", weights_only=True)
        kept = Kept(raw["digest"], tuple(raw["folds"]), tuple(raw["best"]))
        _check(kept)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        told = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"{paths[-1]}: not the weights of a run ({told}); delete it and run again with --keep"
        ) from None
    if kept.digest != record.digest:
        raise InputError(f"{paths[-1]}: belongs to another version of this run; delete it and run again with --keep")
    return kept


def _check(kept: Kept) -> None:
    if not kept.folds or len(kept.folds) != len(kept.best):
        raise ValueError("folds do not fit")
    for fold, best in zip(kept.folds, kept.best, strict=True):
        if best not in fold or not all(type(epoch) is int for epoch in fold):
            raise ValueError("no weights of the selected epoch")
        for weights in fold.values():
            if not all(type(name) is str and isinstance(value, Tensor) for name, value in weights.items()):
                raise ValueError("not named tensors")


def restore(
    kept: Sequence[Kept], keys: Sequence[RunKey], options: Options, fold: int, epoch: int | None = None
) -> Group:
    """A group of runs that differ in the seed alone, with the weights of a fold, in evaluation mode; see ``load``."""
    group = untrained(keys, options, fold)
    load(group, keys, kept, fold, epoch)
    return group


def untrained(keys: Sequence[RunKey], options: Options, fold: int) -> Group:
    """The group as it is before training, with the data of a fold, in evaluation mode."""
    runs = [setting(key, options) for key in keys]
    first = open_data(runs[0], torch.device(options.device), options.cache)
    data = [first.at(run.arrangement, fold) for run in runs]
    with torch.random.fork_rng([]):
        group = assemble(runs, data, [streams(key.benchmark, key.protocol, key.seed, fold) for key in keys])
    group.method.eval()
    return group


@torch.no_grad()
def load(group: Group, keys: Sequence[RunKey], kept: Sequence[Kept], fold: int, epoch: int | None = None) -> None:
    """Put the weights of an epoch (from 1; None: of the one that each run selected) into a group.

    InputError where a run kept none of that epoch, or they do not fit today's method.
    """
    state = group.state()
    for place, (key, own) in enumerate(zip(keys, kept, strict=True)):
        chosen = own.folds[fold].get(own.best[fold] if epoch is None else epoch)
        if chosen is None:
            raise InputError(f"{key}: weights of epoch {epoch} were not kept; run it again with --keep epochs")
        try:
            load_tensors({name: value[place] for name, value in state.items()}, chosen)
        except ValueError as error:
            raise InputError(f"{key}: weights: {error}; run it again with --keep") from None
