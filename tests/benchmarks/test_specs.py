"""The six benchmarks of the paper as specified: official counts, classes, what each protocol is, and refusals."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import BENCHMARKS, catalog
from benchmarks.errors import InputError
from benchmarks.metrics import METRICS
from benchmarks.prepared import Arrangement, Prepared, Writer, load
from benchmarks.twin import generate

SIX = ("crema_d", "kinetics_sounds", "ave", "ucf101", "cmu_mosi", "cmu_mosei")

# protocol -> counts, their sum being a total of the data set that is known independently of them
OFFICIAL = {
    ("crema_d", "paper"): ({"train+valid": 6698, "test": 744}, 7442),
    ("crema_d", "paper_test_selected"): ({"train": 6698, "test": 744}, 7442),
    ("crema_d", "speaker_disjoint"): ({"train+valid+test": 7442}, 7442),
    ("kinetics_sounds", "paper"): ({"train+valid": 14799, "test": 2597}, 17396),
    ("ave", "paper"): ({"train": 3339, "valid": 402, "test": 402}, 4143),
    ("ave", "deduplicated"): ({"train": 3294, "valid": 401, "test": 402}, 4097),
    ("ucf101", "split1"): ({"train+valid": 9537, "test": 3783}, 13320),
    ("ucf101", "split2"): ({"train+valid": 9586, "test": 3734}, 13320),
    ("ucf101", "split3"): ({"train+valid": 9624, "test": 3696}, 13320),
    ("cmu_mosi", "standard"): ({"train": 1284, "valid": 229, "test": 686}, 2199),
    ("cmu_mosei", "standard"): ({"train": 16326, "valid": 1871, "test": 4659}, 22856),
}
MODALITIES = {
    "crema_d": ["audio", "vision"],
    "kinetics_sounds": ["audio", "vision"],
    "ave": ["audio", "vision"],
    "ucf101": ["rgb", "flow"],
    "cmu_mosi": ["language", "audio", "vision"],
    "cmu_mosei": ["language", "audio", "vision"],
}
CLASSES = {"crema_d": 6, "kinetics_sounds": 31, "ave": 28, "ucf101": 101, "cmu_mosi": None, "cmu_mosei": None}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_row_of_the_table_resolves(name: str) -> None:
    module = catalog.task_module(name)
    spec = module.SPEC
    assert spec.name == name
    assert callable(module.prepare)
    assert callable(module.arrange)
    assert (module.TWIN is None) == (spec.twin_protocol is None)
    assert len({protocol.name for protocol in spec.protocols}) == len(spec.protocols)
    assert all(METRICS[metric].task == spec.task for metric in spec.metrics)
    assert all((spec.title, spec.citation, spec.licence, spec.source.startswith("https://")))
    if spec.twin_protocol is not None:
        spec.protocol(spec.twin_protocol)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_protocols_are_consistent_in_themselves(name: str) -> None:
    spec = catalog.spec(name)
    for protocol in spec.protocols:
        assert (protocol.n_classes is None) == (spec.task == "regression")
        assert len(protocol.classes) in (0, protocol.n_classes)
        assert len(set(protocol.classes)) == len(protocol.classes)
        assert len({modality.name for modality in protocol.modalities}) == len(protocol.modalities)
        assert protocol.selection in ("validation", "test")
        assert protocol.title
        dimensions = {"vector": 1, "tokens": 2, "levels": 3, "text": 0, "spectrogram": 2, "image": 3, "frames": 4}
        assert all(len(m.shape) == dimensions[m.layout] for m in protocol.modalities)


@pytest.mark.parametrize("name", SIX)
def test_the_six_are_what_the_literature_runs(name: str) -> None:
    spec = catalog.spec(name)
    default = spec.protocols[0]
    assert [modality.name for modality in default.modalities] == MODALITIES[name]
    assert default.n_classes == CLASSES[name]
    assert spec.twin_protocol == default.name
    regression = CLASSES[name] is None
    assert spec.main_metric == ("mae" if regression else "accuracy")
    assert spec.value_range == ((-3.0, 3.0) if regression else None)
    assert spec.loss == ("l1" if regression else "cross_entropy")
    task = "regression" if regression else "classification"
    assert set(spec.metrics) == {metric.name for metric in METRICS.values() if metric.task == task}


@pytest.mark.parametrize(("name", "protocol"), OFFICIAL)
def test_official_counts_add_up(name: str, protocol: str) -> None:
    counts, total = OFFICIAL[name, protocol]
    assert catalog.spec(name).protocol(protocol).counts == counts
    assert sum(counts.values()) == total


def test_leaks_and_test_selection_are_declared() -> None:
    crema_d, ave = catalog.spec("crema_d"), catalog.spec("ave")
    assert crema_d.protocol("paper").groups_shared
    assert "91 actors" in crema_d.protocol("paper").note
    assert ave.protocol("paper").groups_shared
    assert not ave.protocol("deduplicated").groups_shared
    assert crema_d.protocol("speaker_disjoint").folds == 5
    assert not crema_d.protocol("speaker_disjoint").groups_shared
    selected = [(n, p.name) for n in SIX for p in catalog.spec(n).protocols if p.selection == "test"]
    assert selected == [("crema_d", "paper_test_selected")]


@pytest.fixture
def lists() -> Path:
    """The official split lists, where this machine has them."""
    folder = Path(os.environ.get("CLCR_DATA", "nowhere")) / "splits"
    if not folder.is_dir():
        pytest.skip("CLCR_DATA names no folder with splits/")
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _values(path: Path, field: str) -> dict[str, set[str]]:
    """The values of a column, per split."""
    rows = _rows(path)
    return {split: {row[field] for row in rows if row["split"] == split} for split in ("train", "val", "test")}


def test_counts_are_those_of_the_official_lists(lists: Path) -> None:
    crema_d, sounds, ave = (_rows(lists / f"{name}.csv") for name in ("cremad", "kinetics_sounds", "ave"))
    assert Counter(row["split"].replace("train", "train+valid") for row in crema_d) == OFFICIAL["crema_d", "paper"][0]
    found = Counter(row["split"].replace("train", "train+valid") for row in sounds)
    assert found == OFFICIAL["kinetics_sounds", "paper"][0]
    counts = Counter(row["split"].replace("val", "valid") for row in ave)
    assert counts == OFFICIAL["ave", "paper"][0]
    assert tuple(sorted({row["category"] for row in ave})) == catalog.spec("ave").protocols[0].classes
    assert len({row["label"] for row in sounds}) == 31


def test_leaks_are_those_of_the_official_lists(lists: Path) -> None:
    actors, videos = _values(lists / "cremad.csv", "actor"), _values(lists / "ave.csv", "video")
    assert len(actors["train"] & actors["test"]) == 91
    assert (len(videos["train"] & videos["test"]), len(videos["train"] & videos["val"])) == (8, 10)
    alone = len(videos["train"] - videos["val"] - videos["test"])
    found = {"train": alone, "valid": len(videos["val"]), "test": len(videos["test"])}
    assert catalog.spec("ave").protocol("deduplicated").counts == found


@pytest.mark.parametrize("name", ["cmu_mosi", "cmu_mosei"])
def test_preparing_from_a_folder_without_the_files_names_them_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "prepared" / name
    with pytest.raises(InputError) as caught, Writer(folder, name) as writer:
        catalog.task_module(name).prepare(tmp_path, writer)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(tmp_path), name, "missing", ".csd", "aligned_50.pkl"):
        assert part in message
    assert not folder.exists()
    with pytest.raises(InputError):
        load(folder)


@pytest.mark.parametrize("name", ["cmu_mosi", "cmu_mosei"])
def test_data_without_the_standard_folds_cannot_be_arranged(name: str) -> None:
    data = Prepared(name, arrays={}, samples={"split": np.array(["train"])})
    with pytest.raises(InputError, match="std_fold"):
        catalog.task_module(name).arrange(data, catalog.spec(name).protocols[0], 0)


@pytest.mark.parametrize("name", SIX)
def test_twins_are_arranged_by_the_task(name: str) -> None:
    protocol = catalog.twin_protocol(name)
    module = catalog.task_module(name)
    assert module.TWIN is not None
    arrangement = module.arrange(generate(module.TWIN, module.SPEC), protocol, 3)
    assert isinstance(arrangement, Arrangement)
    (fold,) = arrangement.folds
    sizes = {"train": len(fold.train), "valid": len(fold.valid), "test": len(fold.test)}
    assert sizes == protocol.counts


def test_tasks_metrics_and_twins_load_no_torch() -> None:
    modules = ", ".join([*BENCHMARKS.values(), "benchmarks.metrics", "benchmarks.twin"])
    code = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
