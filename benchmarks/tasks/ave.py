"""AVE: 4,143 annotated events in 4,097 ten-second videos of 28 classes; here one class a video, as in OGM-GE, PMR
and ARL (the data set's own task is to find the event in time).

Rows of the official lists: 3,339 / 402 / 402. 45 videos hold several events: 8 ids are in training and test, 10
in training and validation. Class indices are alphabetical. Audio: STFT 257 x 1,004; vision: four of ten frames (PMR).
"""

from __future__ import annotations

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
            note="A video stays in one split (test before validation before training), with its first event there.",
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


_FOUR = Sampling(4, "middles")

PRESETS = {
    "pmr": Preset("257 x 1,004 as PMR describes it and ARL checks it: ten seconds at 16 kHz", _FOUR, "pmr_10s"),
    "pmr_released": Preset(
        "what PMR's code does: 22,050 Hz cut as if it were 16,000, i.e. 7.26 s", _FOUR, "pmr_released"
    ),
}
MAX_LOSS = 0.05


def plan(source: Path, preset: str | None = None) -> engine.Job:
    """What is to be done with AVE/<YouTube id>.mp4 (in any layout), Annotations.txt and the three lists. Frames and
    sound are those of the event; a shorter sound is repeated up to ten seconds."""
    chosen = jobs.choose(PRESETS, preset, SPEC.name)
    named = {"train": "trainSet.txt", "valid": "valSet.txt", "test": "testSet.txt"}
    paths = {part: lists.locate(source, name, SPEC.name, f"ave_{name}") for part, name in named.items()}
    annotations = lists.locate(source, "Annotations.txt", SPEC.name, "ave_Annotations.txt", "data/Annotations.txt")
    table = lists.read_ave(annotations, paths, CLASSES)
    sources = jobs.locate(table, scan(source, jobs.VIDEO), {"video": jobs.VIDEO}, lambda row: (str(table.group[row]),))
    files = {id: {"audio": found["video"], **found} if found else {} for id, found in sources.files.items()}
    starts, ends = table.columns["start"].tolist(), table.columns["end"].tolist()
    spans = [(float(start), float(max(end, start + 1))) for start, end in zip(starts, ends, strict=True)]
    more = {"parts": ("audio", "video"), "spans": spans, "max_loss": MAX_LOSS, "classes": CLASSES}
    return jobs.sound_and_sight(SPEC, table, replace(sources, files=files), chosen, **more)


def prepare(source: Path, writer: Writer) -> None:
    """Decode all videos below ``source`` with the default preset, in this process; see ``plan``."""
    engine.alone(plan(source), writer)


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The events of a protocol by the official lists, which have a validation part: the seed moves nothing."""
    if prepared.origin == "twin":
        return twin.arrange(prepared, protocol, seed)
    return arranging.by_list(prepared, protocol, seed)
