"""AVE: 4,143 annotated events in 4,097 ten-second videos of 28 classes; here one class a video, as in OGM-GE, PMR
and ARL (the data set's own task is to find the event in time).

Rows of the official lists: 3,339 / 402 / 402. 28 videos hold two events: 8 ids are in training and test, 10 in training
and validation. Class indices are alphabetical. Audio: STFT 257 x 1,004; vision: four of ten frames (PMR).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks import arrange as arranging
from benchmarks import twin
from benchmarks.prepared import Arrangement, Prepared, Writer
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.tasks import raw_files_unavailable
from benchmarks.twin import TwinModality, TwinRecipe

CLASSES = (
    "Accordion",
    "Acoustic guitar",
    "Baby cry, infant cry",
    "Banjo",
    "Bark",
    "Bus",
    "Cat",
    "Chainsaw",
    "Church bell",
    "Clock",
    "Female speech, woman speaking",
    "Fixed-wing aircraft, airplane",
    "Flute",
    "Frying (food)",
    "Goat",
    "Helicopter",
    "Horse",
    "Male speech, man speaking",
    "Mandolin",
    "Motorcycle",
    "Race car, auto racing",
    "Rodents, rats, mice",
    "Shofar",
    "Toilet flush",
    "Train horn",
    "Truck",
    "Ukulele",
    "Violin, fiddle",
)

_PAPER = Protocol(
    name="paper",
    title="Official lists, one row an event",
    modalities=(
        ModalitySpec("audio", "spectrogram", "spectrogram", (1004, 257), backbone="resnet18", standardise=True),
        ModalitySpec("vision", "frames", "frames", (4, 224, 224, 3), backbone="resnet18", standardise=True),
    ),
    n_classes=28,
    classes=CLASSES,
    counts={"train": 3339, "valid": 402, "test": 402},
    group="video",
    groups_shared=True,
    note="8 videos occur in training and test and 10 in training and validation.",
)

SPEC = BenchmarkSpec(
    name="ave",
    title="AVE",
    task="classification",
    protocols=(
        _PAPER,
        replace(
            _PAPER,
            name="deduplicated",
            title="Official lists, one row a video, none in two splits",
            counts={"train": 3294, "valid": 401, "test": 402},
            groups_shared=False,
            note="A video stays in one split (test before validation before training), there with its first event alone.",
        ),
    ),
    metrics=("accuracy", "macro_f1"),
    main_metric="accuracy",
    citation="Tian et al.: Audio-Visual Event Localization in Unconstrained Videos, ECCV 2018",
    licence="no licence file with the annotations; the videos belong to their owners",
    source="https://github.com/YapengTian/AVE-ECCV18",
    twin_protocol="paper",
    leaks={
        "paper": {"train/valid": 10, "train/test": 8, "valid/test": 0},
        "deduplicated": {"train/valid": 0, "train/test": 0, "valid/test": 0},
    },
)

TWIN = TwinRecipe(  # 8 classes, not 28: the twin is small. Audio is much the stronger side
    seed=3,
    modalities=(
        TwinModality("audio", 20, 20, gain=(2.6, 1.6, 1.0), private=(0.8, 0.6, 0.0)),
        TwinModality("vision", 12, 16, gain=(0.4, 0.8, 1.3), private=(0.0, 0.0, 1.0), lag=1),
    ),
    shared=(1.8, 1.5, 1.8),
    n_classes=8,
)


def prepare(source: Path, writer: Writer) -> None:
    """Not available yet: always InputError."""
    del writer  # nothing is written
    raise raw_files_unavailable(SPEC, "AVE_Dataset/AVE/*.mp4, Annotations.txt and the three *Set.txt lists", source)


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The events of a protocol by the official lists, which have a validation part: the seed moves nothing."""
    if prepared.origin == "twin":
        return twin.arrange(prepared, protocol, seed)
    return arranging.by_list(prepared, protocol, seed)
