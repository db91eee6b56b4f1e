"""Kinetics-Sounds: 31 actions that can be seen and heard, cut from Kinetics-400.

This is the list of OGM-GE (data/KineticSound: 14,799 / 2,597, no YouTube id in both), whose "test" is a random part of
the training set of Kinetics-400. Other lineages have 32, 33 or 34 classes (ARL: 33, n_classes=34): not comparable.
Audio: 128-bin filter bank, 10 ms shift, 1,024 frames; vision: three of ten frames (one a second).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks import arrange as arranging
from benchmarks import twin
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Prepared, Writer
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.tasks import raw_files_unavailable
from benchmarks.twin import TwinModality, TwinRecipe

CLASSES = (
    "blowing_nose",
    "blowing_out_candles",
    "bowling",
    "chopping_wood",
    "dribbling_basketball",
    "laughing",
    "mowing_lawn",
    "playing_accordion",
    "playing_bagpipes",
    "playing_bass_guitar",
    "playing_clarinet",
    "playing_drums",
    "playing_guitar",
    "playing_harmonica",
    "playing_keyboard",
    "playing_organ",
    "playing_piano",
    "playing_saxophone",
    "playing_trombone",
    "playing_trumpet",
    "playing_violin",
    "playing_xylophone",
    "ripping_paper",
    "shoveling_snow",
    "shuffling_cards",
    "singing",
    "stomping_grapes",
    "tap_dancing",
    "tapping_guitar",
    "tapping_pen",
    "tickling",
)

_PAPER = Protocol(
    name="paper",
    title="OGM-GE's list, 31 classes, validation cut from training",
    modalities=(
        ModalitySpec("audio", "spectrogram", "spectrogram", (1024, 128), backbone="resnet18", standardise=True),
        ModalitySpec("vision", "frames", "frames", (3, 224, 224, 3), backbone="resnet18", standardise=True),
    ),
    n_classes=31,
    classes=CLASSES,
    counts={"train+valid": 14799, "test": 2597},
    group="video",
    note="31 classes; numbers of the ARL lineage (33 or 34 classes) are not comparable.",
)

SPEC = BenchmarkSpec(
    name="kinetics_sounds",
    title="Kinetics-Sounds",
    task="classification",
    protocols=(
        _PAPER,
        replace(
            _PAPER,
            name="available",
            title="The clips of that list that can still be had",
            counts={},
            note="Clips vanish from YouTube: the counts are those of the prepared folder, not of the list.",
        ),
    ),
    metrics=("accuracy", "macro_f1"),
    main_metric="accuracy",
    citation="Arandjelovic, Zisserman: Look, Listen and Learn, ICCV 2017; list of Peng et al., CVPR 2022",
    licence="list MIT; annotations of Kinetics CC BY 4.0; the videos belong to their owners",
    source="https://github.com/GeWu-Lab/OGM-GE_CVPR2022",
    twin_protocol="paper",
    leaks={"paper": {"train/test": 0}, "available": {"train/test": 0}},
)

TWIN = TwinRecipe(  # 8 classes, not 31: the twin is small. Vision is the stronger side and early
    seed=2,
    modalities=(
        TwinModality("audio", 20, 16, gain=(1.5, 1.5, 0.3), private=(0.0, 0.8, 0.0), lag=2),
        TwinModality("vision", 16, 20, gain=(1.5, 0.4, 2.0), private=(0.8, 0.0, 1.0)),
    ),
    shared=(1.8, 1.8, 1.8),
    n_classes=8,
)


def prepare(source: Path, writer: Writer) -> None:
    """Not available yet: always InputError."""
    del writer  # nothing is written
    raise raw_files_unavailable(SPEC, "Kinetics-400 clips as .mp4, OGM-GE's my_train.txt and my_test.txt", source)


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The clips of a protocol; ``seed`` moves the validation clips. ``paper`` needs every clip of the list."""
    if prepared.origin == "twin":
        return twin.arrange(prepared, protocol, seed)
    official, found = sum(protocol.counts.values()), len(prepared.column("label"))
    if found < official:
        raise InputError(
            f"kinetics_sounds: protocol {protocol.name}: {found} of {official} clips are here, and numbers on a part of "
            "the list are not comparable; use --protocol available"
        )
    return arranging.by_list(prepared, protocol, seed)
