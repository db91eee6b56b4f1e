"""UCF101: 13,320 clips of 101 actions, seen as RGB frames and as optical flow.

Facts: official lists ucfTrainTestlist (three splits, no source group shared between training and test).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import arrange as arranging
from benchmarks import splits, twin
from benchmarks.prepared import Arrangement, Fold, Prepared, Writer
from benchmarks.published import read_npz, require
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.twin import TwinModality, TwinRecipe

_RGB = ModalitySpec("rgb", "rgb", "frames", (3, 224, 224, 3), backbone="resnet18", standardise=True)
_FLOW = ModalitySpec("flow", "flow", "frames", (3, 224, 224, 2), backbone="resnet18", standardise=True)


def _official(number: int, train: int, test: int) -> Protocol:
    return Protocol(
        name=f"split{number}",
        title=f"Official split {number}",
        modalities=(_RGB, _FLOW),
        n_classes=101,
        counts={"train+valid": train, "test": test},
        group="group",
        note="A tenth of training validates: source groups of the same number in all classes, drawn by seed.",
    )


_SUBSET = Protocol(
    name="subset3",
    title="Three classes, official split 1, 56 x 56",
    modalities=(
        ModalitySpec("rgb", "rgb56", "frames", (4, 56, 56, 3), backbone="frames_conv", standardise=True),
        ModalitySpec("flow", "flow56", "frames", (4, 56, 56, 2), backbone="frames_conv", standardise=True),
    ),
    n_classes=3,
    classes=("BabyCrawling", "Punch", "PushUps"),
    counts={"train+valid": 290, "test": 104},
    group="group",
    note="All 394 clips of three classes, Farneback flow; a small open set, not comparable with the 101 classes.",
)

SPEC = BenchmarkSpec(
    name="ucf101",
    title="UCF101 (RGB + optical flow)",
    task="classification",
    protocols=(_official(1, 9537, 3783), _official(2, 9586, 3734), _official(3, 9624, 3696), _SUBSET),
    metrics=("accuracy", "macro_f1"),
    main_metric="accuracy",
    citation="Soomro, Zamir, Shah: UCF101, CRCV-TR-12-01, 2012",
    licence="research use; the videos belong to their owners",
    source="https://www.crcv.ucf.edu/data/UCF101.php",
    twin_protocol="split1",
    leaks={name: {"train/test": 0} for name in ("split1", "split2", "split3", "subset3")},
)

TWIN = TwinRecipe(  # 8 classes, not 101: the twin is small. Flow is the stronger side
    seed=4,
    modalities=(
        TwinModality("rgb", 12, 20, gain=(0.3, 1.1, 1.1), private=(0.0, 0.0, 1.0)),
        TwinModality("flow", 16, 20, gain=(2.8, 1.8, 0.6), private=(1.0, 0.8, 0.0), lag=1),
    ),
    shared=(2.0, 1.8, 2.0),
    n_classes=8,
)


_FILE = "ucf101_3class/ucf101_3class_rgb_flow.npz"
_SHA256 = "c0c2e97549261b36936cbedb21f2864fa18d89479c751196c797e4a6a6966f7f"
_SHAPES = {
    "rgb": (394, 4, 56, 56, 3),
    "flow": (394, 4, 56, 56, 2),
    "label": (394,),
    "group": (394,),
    "name": (394,),
    "is_test_split": (394, 3),
    "classes": (3,),
}


def prepare(source: Path, writer: Writer) -> None:
    """Read the three-class set below ``source`` (protocol ``subset3``); frames keep their stored bytes."""
    data = read_npz(require(source, _FILE, _SHA256, "the three-class UCF101 file"), _SHAPES)
    writer.add("rgb56", data["rgb"], meta={"scale": 1 / 255, "offset": 0.0})
    writer.add("flow56", data["flow"], meta={"scale": 1 / 16, "offset": 0.0})  # pixels, at 112 x 112
    action = data["classes"][data["label"]]
    columns = {"id": data["name"], "action": action, "group": data["group"].astype(np.int64)}
    writer.samples(columns | {"test1": data["is_test_split"][:, 0]})
    writer.parameter("source_sha256", {_FILE: _SHA256})


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The samples and folds of a protocol; ``seed`` moves the groups that validate."""
    if prepared.origin == "twin":
        return twin.arrange(prepared, protocol, seed)
    if protocol.name != _SUBSET.name:
        number = np.array([name.rpartition("_g")[2] for name in prepared.column("group").tolist()])
        return arranging.by_list(prepared, protocol, seed, keep=number)  # all classes alike in validation
    group, test = prepared.column("group"), prepared.column("test1")
    rest = np.flatnonzero(~test)
    held = splits.held_out(group[rest], 0.2, splits.stream(f"ucf101/{protocol.name}", seed))
    fold = Fold(rest[~held], rest[held], np.flatnonzero(test))
    target = np.array([protocol.classes.index(name) for name in prepared.column("action")], dtype=np.int64)
    rows = {modality.name: np.arange(len(target)) for modality in protocol.modalities}
    return Arrangement(rows, target, prepared.column("id"), (fold,), group)
