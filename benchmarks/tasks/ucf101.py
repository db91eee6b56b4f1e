"""UCF101: 13,320 clips of 101 actions, seen as RGB frames and as optical flow.

Facts: official lists ucfTrainTestlist (three splits, no source group shared between training and test).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import arrange as arranging
from benchmarks import engine, lists, splits, twin
from benchmarks.errors import InputError
from benchmarks.media import jobs
from benchmarks.media.files import scan
from benchmarks.media.jobs import Preset, Sources
from benchmarks.media.video import Sampling
from benchmarks.prepared import Arrangement, Fold, Prepared, Writer
from benchmarks.published import read_npz, require
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.twin import TwinModality, TwinRecipe

_RGB = ModalitySpec("rgb", "rgb", "frames", (3, 224, 224, 3), backbone="resnet18", standardise=True)
_FLOW = ModalitySpec("flow", "flow", "frames", (3, 224, 224, 2), backbone="resnet18", standardise=True, flow=True)


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
        ModalitySpec("flow", "flow56", "frames", (4, 56, 56, 2), backbone="frames_conv", standardise=True, flow=True),
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


_NAME = re.compile(r"v_\w+_g\d\d_c\d\d")
_THREE = Sampling(3, "middles")

PRESETS = {
    "tvl1": Preset("TV-L1, the usual flow of UCF101's literature, whose code does not say which", _THREE, flow="tvl1"),
    "farneback": Preset("Farneback's flow: a hundredth of the time, noisier", _THREE, flow="farneback"),
    "published": Preset("published TV-L1 pictures in u/<clip> and v/<clip>", _THREE, flow="published"),
}
_FLOW_FOLDERS = (".", "flow", "tvl1_flow", "ucf101_flow")


def plan(source: Path, preset: str | None = None) -> engine.Job | None:
    """What is to be done with UCF-101/<Class>/*.avi (in any layout) and ucfTrainTestlist; None where ``source`` holds
    the three-class set, which is read as it is. Both streams show the same squares of the same frames."""
    if (source / _FILE).is_file() and preset is None:
        return None
    chosen = jobs.choose(PRESETS, preset, SPEC.name)
    listed = lists.locate(source, "ucfTrainTestlist/classInd.txt", SPEC.name, "classInd.txt").parent
    table = lists.read_ucf101(listed)
    tree = scan(source, jobs.VIDEO)
    sources = jobs.locate(table, tree, {"video": jobs.VIDEO}, lambda row: (str(table.id[row]),))
    wrong = jobs.wrongly_named(tree, jobs.VIDEO, _NAME.fullmatch)
    sources = replace(sources, problems=[*sources.problems, *wrong])
    parts: tuple[str, ...] = ("video",)
    if chosen[1].flow == "published":
        sources, parts = _with_flow(source, sources), ("video", "u", "v")
    names = table.columns["action"][np.unique(table.label, return_index=True)[1]].tolist()
    return jobs.sight_and_motion(SPEC, table, sources, chosen, parts=parts, classes=names)


def _with_flow(source: Path, sources: Sources) -> Sources:
    roots = [source / name for name in _FLOW_FOLDERS if (source / name / "u").is_dir()]
    if not roots:
        raise InputError(
            f"{source}: no folder u of published flow pictures (u/<clip>/*.jpg, v/<clip>/*.jpg); put it there"
        )
    files = {}
    for id, found in sources.files.items():
        folders = {axis: roots[0] / axis / id for axis in ("u", "v")}
        files[id] = {**found, **{axis: folder for axis, folder in folders.items() if folder.is_dir()}}
    return replace(sources, files=files)


def prepare(source: Path, writer: Writer) -> None:
    """Read the three-class set below ``source`` (protocol ``subset3``; frames keep their stored bytes) if it is there,
    else decode the clips with the default preset, in this process; see ``plan``."""
    job = plan(source)
    if job is not None:
        engine.alone(job, writer)
        return
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
        prepared.column(f"split.{protocol.name}")  # the three-class set has none
        number = np.array([name.rpartition("_g")[2] for name in prepared.column("group").tolist()])
        return arranging.by_list(prepared, protocol, seed, keep=number)  # all classes alike in validation
    group, test = prepared.column("group"), prepared.column("test1")
    rest = np.flatnonzero(~test)
    held = splits.held_out(group[rest], 0.2, splits.stream(f"ucf101/{protocol.name}", seed))
    fold = Fold(rest[~held], rest[held], np.flatnonzero(test))
    target = np.array([protocol.classes.index(name) for name in prepared.column("action")], dtype=np.int64)
    rows = {modality.name: np.arange(len(target)) for modality in protocol.modalities}
    return Arrangement(rows, target, prepared.column("id"), (fold,), group)
