"""Runs that kept the weights of every epoch: a twin with several methods, and a small cross-validated set."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks import BENCHMARKS
from benchmarks.prepared import Arrangement, Fold, Prepared, Writer
from benchmarks.record import RunKey
from benchmarks.runner import execute as module
from benchmarks.runner import store
from benchmarks.runner.execute import Options, execute
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol

TWIN = RunKey("crema_d", "paper", "twin", "tiny", "late_fusion", "full", 0)
CV = RunKey("folded_toy", "rotated", "real", "tiny", "late_fusion", "full", 0)
EPOCHS = ("training.epochs=4",)


def train(keys: Sequence[RunKey], options: Options) -> None:
    folders = [store.folder_of(options.out, key) for key in keys]
    for folder, record in zip(folders, execute(keys, options, folders, lambda _: None), strict=True):
        assert record.status == "done", record.error
        store.write_record(folder, record)


def seeds(key: RunKey, count: int = 2) -> list[RunKey]:
    return [replace(key, seed=seed) for seed in range(count)]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """Two seeds of late fusion and of one modality together, one of CLCR, and the linear floor."""
    folder = tmp_path_factory.mktemp("analyses")
    options = Options(folder / "results", folder / "cache", overrides=EPOCHS, keep="epochs")
    for method in ("late_fusion", "unimodal_vision", "linear"):
        train(seeds(replace(TWIN, method=method)), options)
    train([replace(TWIN, method="clcr")], options)
    return options


@pytest.fixture
def place(trained: Options, tmp_path: Path) -> Options:
    """A copy of these runs that a test may change."""
    shutil.copytree(trained.out, tmp_path / "results")
    return replace(trained, out=tmp_path / "results")


@pytest.fixture(scope="module")  # while it stands, the table of benchmarks has one row more
def folded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Options]:
    """Two seeds of late fusion and of the linear floor on 100 samples in three folds of unequal size."""
    folder = tmp_path_factory.mktemp("folded")
    options = Options(folder / "results", folder / "cache", overrides=EPOCHS, keep="epochs")
    modalities = (ModalitySpec("a", "a", "vector", (3,)), ModalitySpec("b", "b", "tokens", (4, 3), standardise=True))
    protocol = Protocol("rotated", "Three rotations", modalities, 3, folds=3)
    task = ModuleType("folded_toy_task")
    task.SPEC = BenchmarkSpec(  # type: ignore[attr-defined]
        "folded_toy", "Toy", "classification", (protocol,), ("accuracy", "macro_f1"), "accuracy", "-", "-", "-"
    )
    task.TWIN, task.arrange = None, arrange  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "folded_toy_task", task)
        patch.setitem(BENCHMARKS, "folded_toy", "folded_toy_task")
        rng = np.random.default_rng(0)
        label = np.arange(100) % 3
        with Writer(options.cache / "prepared" / "folded_toy", "folded_toy") as writer:
            writer.add("a", (np.eye(3)[label] + rng.standard_normal((100, 3))).astype(np.float32))
            writer.add("b", rng.standard_normal((100, 4, 3)).astype(np.float32), lengths=1 + np.arange(100) % 4)
            writer.samples({"id": np.arange(100), "label": label})
        module._samples.cache_clear()
        for method in ("late_fusion", "linear"):
            train(seeds(replace(CV, method=method)), options)
        yield options


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """Test splits of 30, 30 and 40 samples; the order of the training samples is the seed's."""
    label, every = prepared.column("label"), np.arange(100)
    parts = [every[:30][::-1].copy(), every[30:60].copy(), every[60:].copy()]
    rng = np.random.default_rng(seed)
    folds = tuple(Fold(rng.permutation(parts[k - 1]), parts[k - 2], parts[k]) for k in range(3))
    return Arrangement({"a": every, "b": every}, label, every.astype(str), folds)
