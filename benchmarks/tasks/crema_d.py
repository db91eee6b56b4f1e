"""CREMA-D: 7,442 clips of 91 actors who speak 12 sentences in six emotions; audio and face.

There is no official split. The one that everybody uses (OGM-GE, data/CREMAD: 6,698 / 744, no validation set) has all 91
actors on both sides, against the advice of the data set's author (CREMA-D issue 2). Classes are indexed as there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from benchmarks import arrange as arranging
from benchmarks import engine, lists, twin
from benchmarks.media import jobs
from benchmarks.media.files import scan
from benchmarks.media.jobs import Preset
from benchmarks.media.video import Sampling
from benchmarks.prepared import Arrangement, Prepared, Writer
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.twin import TwinModality, TwinRecipe

CLASSES = ("neutral", "happy", "sad", "fear", "disgust", "anger")

_PAPER = Protocol(
    name="paper",
    title="Split of the literature, validation cut from training",
    modalities=(
        ModalitySpec("audio", "spectrogram", "spectrogram", (188, 257), backbone="resnet18", standardise=True),
        ModalitySpec("vision", "frames", "frames", (3, 224, 224, 3), backbone="resnet18", standardise=True),
    ),
    n_classes=6,
    classes=CLASSES,
    counts={"train+valid": 6698, "test": 744},
    group="actor",
    groups_shared=True,
    note="All 91 actors occur in training and in test; a tenth of the 6,698 validates, drawn by class and seed.",
)

SPEC = BenchmarkSpec(
    name="crema_d",
    title="CREMA-D",
    task="classification",
    protocols=(
        _PAPER,
        replace(
            _PAPER,
            name="paper_test_selected",
            title="Split of the literature, epoch selected on the test set",
            counts={"train": 6698, "test": 744},
            selection="test",
            note="All 91 actors occur in training and in test, and the epoch is chosen on the test set.",
        ),
        replace(
            _PAPER,
            name="speaker_disjoint",
            title="Five folds by actor",
            folds=5,
            counts={"train+valid+test": 7442},
            groups_shared=False,
            note="No actor is in two splits of a fold; each clip is tested once; 18 or 19 actors test, 9 or 10 men.",
        ),
    ),
    metrics=("accuracy", "macro_f1"),
    main_metric="accuracy",
    citation="Cao et al.: CREMA-D, IEEE Transactions on Affective Computing 5(4), 2014",
    licence="Open Database License 1.0",
    source="https://github.com/CheyneyComputerScience/CREMA-D",
    twin_protocol="paper",
    leaks={
        "paper": {"train/test": 91},
        "paper_test_selected": {"train/test": 91},
        "speaker_disjoint": {"train/test": 0},
    },
)

TWIN = TwinRecipe(  # the face is the stronger side: bursts belong to the voice, the slow course to the face
    seed=1,
    modalities=(
        TwinModality("audio", 20, 16, gain=(2.4, 1.2, 0.2), private=(0.8, 0.0, 0.0)),
        TwinModality("vision", 16, 20, gain=(0.4, 1.4, 1.4), private=(0.0, 0.6, 0.8), lag=1),
    ),
    shared=(1.8, 1.5, 1.8),
    n_classes=6,
)


CODES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
_NAME = re.compile(r"1\d{3}_[A-Z]{3}_[A-Z]{3}_(?:LO|MD|HI|XX|X)")
_THREE = Sampling(3, "middles")

PRESETS = {
    "ogm_ge": Preset(
        "the audio of OGM-GE and ARL, whose split everybody uses; three frames as in PMR", _THREE, "ogm_ge"
    ),
    "pmr": Preset("the spectrogram of PMR: 16 kHz, shorter hop, standardised per clip", _THREE, "pmr_3s"),
    "fbank": Preset("128-bin log-mel padded to 1,024 frames, as D&R and BalanceBenchmark use it", _THREE, "fbank"),
    "logmel": Preset("128-bin log-mel of 3 s, without the padding of fbank", _THREE, "logmel_3s"),
}


def plan(source: Path, preset: str | None = None) -> engine.Job:
    """What is to be done with a folder of AudioWAV/*.wav (or AudioMP3) and VideoFlash/*.flv (or .mp4), in any layout,
    and OGM-GE's train.csv and test.csv. Silent clips are kept: the published split holds one."""
    chosen = jobs.choose(PRESETS, preset, SPEC.name)
    paths = [lists.locate(source, f"{part}.csv", SPEC.name, f"cremad_{part}.csv") for part in ("train", "test")]
    table = lists.read_crema_d(paths[0], paths[1], CODES)
    tree = scan(source, (*jobs.VIDEO, *jobs.AUDIO))
    parts = {"audio": jobs.AUDIO, "video": jobs.VIDEO}
    sources = jobs.locate(table, tree, parts, lambda row: (str(table.id[row]),))
    wrong = jobs.wrongly_named(tree, (*jobs.VIDEO, *jobs.AUDIO), _NAME.fullmatch)
    sources = replace(sources, problems=[*sources.problems, *wrong])
    return jobs.sound_and_sight(SPEC, table, sources, chosen, parts=tuple(parts), silence=True, classes=CLASSES)


def prepare(source: Path, writer: Writer) -> None:
    """Decode all clips below ``source`` with the default preset, in this process; see ``plan``."""
    engine.alone(plan(source), writer)


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The clips of a protocol; ``seed`` moves the validation clips of ``paper``, the folds by actor are fixed."""
    if prepared.origin == "twin":
        return twin.arrange(prepared, protocol, seed)
    if protocol.folds > 1:
        return arranging.by_fold(prepared, protocol)
    return arranging.by_list(prepared, protocol, seed)
