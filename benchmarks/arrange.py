"""Folds of real data from the columns that benchmarks.lists puts into samples.csv. numpy, no torch.

The test part of a protocol is what its list says and never moves. Where a list has no validation part, a tenth of the
training part is cut off, anew for every seed, so that the spread over seeds contains the choice of validation clips.
"""

from __future__ import annotations

import numpy as np

from benchmarks import splits
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Fold, Prepared
from benchmarks.spec import Protocol

VALIDATION_SHARE = 0.1


def by_list(prepared: Prepared, protocol: Protocol, seed: int, keep: np.ndarray | None = None) -> Arrangement:
    """One fold by column ``split.<protocol>``; a clip with "" is left out.

    Without a validation part in the list: the test part again where the protocol selects on it (the literature's
    habit), else a tenth of training, stratified by class, or, given ``keep`` (n,), whole groups of that column.
    """
    part = prepared.column(f"split.{protocol.name}")
    rows = np.flatnonzero(part != "")
    train, valid, test = (np.flatnonzero(part[rows] == name) for name in ("train", "valid", "test"))
    if protocol.selection == "test":
        valid = test
    elif len(valid) == 0:
        rng = splits.stream(f"{prepared.name}/{protocol.name}", seed)
        if keep is None:
            label = prepared.column("label")[rows[train]]
            cut = splits.stratified(label, (1 - VALIDATION_SHARE, VALIDATION_SHARE), rng)
        else:
            held = splits.held_out(keep[rows[train]], VALIDATION_SHARE, rng)
            cut = [np.flatnonzero(~held), np.flatnonzero(held)]
        train, valid = train[cut[0]], train[cut[1]]
    return _arrangement(prepared, protocol, rows, (Fold(train, valid, test),))


def by_fold(prepared: Prepared, protocol: Protocol) -> Arrangement:
    """Rotations by column ``fold.<protocol>``: one fold tests, the next one validates, the others train. No seed."""
    fold = prepared.column(f"fold.{protocol.name}")
    folds = []
    for test in range(protocol.folds):
        valid = (test + 1) % protocol.folds
        parts = (~np.isin(fold, (test, valid)), fold == valid, fold == test)
        folds.append(Fold(*(np.flatnonzero(part) for part in parts)))
    return _arrangement(prepared, protocol, np.arange(len(fold)), tuple(folds))


def _arrangement(prepared: Prepared, protocol: Protocol, rows: np.ndarray, folds: tuple[Fold, ...]) -> Arrangement:
    for fold in folds:
        if 0 in (len(fold.train), len(fold.valid), len(fold.test)):
            where = f"{prepared.name}: protocol {protocol.name}"
            raise InputError(f"{where}: a split has no clip; prepare from a folder that holds clips of every split")
    by_modality = {modality.name: rows for modality in protocol.modalities}
    target = prepared.column("label")[rows].astype(np.int64)
    return Arrangement(by_modality, target, prepared.column("id")[rows], folds, prepared.column("group")[rows])
