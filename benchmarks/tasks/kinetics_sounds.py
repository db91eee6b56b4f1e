"""Kinetics-Sounds: 31 actions that can be seen and heard, cut from Kinetics-400.

This is the list of OGM-GE (data/KineticSound: 14,799 / 2,597, no YouTube id in both), whose "test" is a random part of
the training set of Kinetics-400. Other lineages have 32, 33 or 34 classes (ARL: 33, n_classes=34): not comparable.
Audio: 128-bin filter bank, 10 ms shift, 1,024 frames; vision: three of ten frames (one a second).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks import arrange as arranging
from benchmarks import engine, lists, twin
from benchmarks.errors import InputError
from benchmarks.media import jobs
from benchmarks.media.files import scan
from benchmarks.media.jobs import Preset
from benchmarks.media.video import Sampling
from benchmarks.prepared import Arrangement, Prepared, Writer
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
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


_THREE = Sampling(3, "one_fps")

PRESETS = {
    "fbank": Preset("the log-mel of OGM-GE's list and of BalanceBenchmark, D&R and MMPareto", _THREE, "fbank"),
    "arl": Preset("the 5-s STFT of ARL, the middle window in place of a random one", _THREE, "arl_5s"),
}
MAX_LOSS = 0.4  # of the videos; many have left YouTube since 2017


def plan(source: Path, preset: str | None = None) -> engine.Job:
    """What is to be done with a tree of Kinetics-400 clips (train|val/<class>/<id>_<start>_<end>.mp4, with or without
    leading zeros, or all in one folder) and OGM-GE's my_train.txt and my_test.txt."""
    chosen = jobs.choose(PRESETS, preset, SPEC.name)
    paths = [lists.locate(source, f"my_{part}.txt", SPEC.name, f"ks_my_{part}.txt") for part in ("train", "test")]
    table = lists.read_kinetics_sounds(paths[0], paths[1])
    tree = scan(source, jobs.VIDEO)

    def stems(row: int) -> tuple[str, ...]:
        video, start, end = str(table.columns["clip"][row]).rsplit("_", 2)
        return f"{video}_{start}_{end}", f"{video}_{int(start)}_{int(end)}", f"{video}_{int(start)}"

    sources = jobs.locate(table, tree, {"video": jobs.VIDEO}, stems)
    files = {id: {"audio": found["video"], **found} if found else {} for id, found in sources.files.items()}
    sources = replace(sources, files=files)
    parts = ("audio", "video")
    return jobs.sound_and_sight(SPEC, table, sources, chosen, parts=parts, max_loss=MAX_LOSS, classes=CLASSES)


def prepare(source: Path, writer: Writer) -> None:
    """Decode all clips below ``source`` with the default preset, in this process; see ``plan``."""
    engine.alone(plan(source), writer)


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The clips of a protocol; ``seed`` moves the validation clips. ``paper`` needs every clip of the list."""
    if prepared.origin == "twin":
        return twin.arrange(prepared, protocol, seed)
    official, found = sum(protocol.counts.values()), len(prepared.column("label"))
    if found < official:
        raise InputError(
            f"kinetics_sounds: protocol {protocol.name}: {found} of {official} clips are here, and numbers on a part "
            "of the list are not comparable; use --protocol available"
        )
    return arranging.by_list(prepared, protocol, seed)
