"""Audio-visual digits: spoken digits of six speakers paired with handwritten ones of the same class. An open set.

Five seeded pairings are given; seed s runs on pairing s mod 5, which tests one speaker, validates on another and
trains on the other four, so that the audio side is as weak as an unheard speaker makes it. No image is in two samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.prepared import Arrangement, Fold, Prepared, Writer
from benchmarks.published import read_npz, read_table, require
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.twin import TwinRecipe

PAIRINGS = 5

_FILE = "avdigits/avdigits.npz"
_SHA256 = "990c31fae264417f408710b93a31b8f6c6a7f486cd3dfa1c4bc28d23ab7f1174"
_PAIRS_SHA256 = (
    "549cc64e3a8cf8b90f2e551454c568d6e0b029d9dfdfcdf2f05ed8d2946a5101",
    "a4d0f7a238aa8f71792c6dec3fa9e063753b41bd3e652bb4313ea6a9e6f640aa",
    "906e77639866287c8677803f38f1ba4220871aa90b1c13140823b90b4ce5278e",
    "3cdf26ce00adbba9c811d5354f46cd7a36a46faed420f85d906dc8faf811f49d",
    "427e9b1e201fef9219f01e89f45db6bbd59a6976a505ca8a0cec8497dc252af0",
)
_SHAPES = {
    "audio_logmel_u8": (3000, 96, 40),
    "audio_lo_hi": (2,),
    "audio_frames": (3000,),
    "audio_label": (3000,),
    "audio_speaker": (3000,),
    "speakers": (6,),
    "image": (10000, 28, 28),
    "image_label": (10000,),
}
_COUNTS = {"train": 6000, "valid": 1000, "test": 1000}

SPEC = BenchmarkSpec(
    name="av_digits",
    title="Audio-visual digits",
    task="classification",
    protocols=(
        Protocol(
            name="paired",
            title="Unheard speaker, five given pairings",
            modalities=(
                ModalitySpec("audio", "logmel", "spectrogram", (96, 40), backbone="sequence_conv", standardise=True),
                ModalitySpec("image", "image", "image", (28, 28, 1), backbone="image_conv", standardise=True),
            ),
            n_classes=10,
            classes=tuple("0123456789"),
            counts=_COUNTS,
            group="speaker",
            note="Seed s uses pairing s mod 5; each has another test speaker, so scores vary by speaker across seeds.",
        ),
    ),
    metrics=("accuracy", "macro_f1"),
    main_metric="accuracy",
    citation="Jackson et al.: Free Spoken Digit Dataset; LeCun et al.: MNIST, 1998",
    licence="CC BY-SA 4.0 (FSDD, per its README); MNIST terms",
    source="https://github.com/Jakobovski/free-spoken-digit-dataset",
    cycles={"paired": PAIRINGS},
)

TWIN: TwinRecipe | None = None


def prepare(source: Path, writer: Writer) -> None:
    """Read avdigits.npz and the five pair lists below ``source``/avdigits; one sample per pair and pairing."""
    data = read_npz(require(source, _FILE, _SHA256, "the audio-visual digits"), _SHAPES)
    low, high = (float(value) for value in data["audio_lo_hi"])
    meta = {"scale": (high - low) / 255, "offset": low}
    writer.add("logmel", data["audio_logmel_u8"], lengths=data["audio_frames"], meta=meta)
    writer.add("image", data["image"][..., None], meta={"scale": 1 / 255, "offset": 0.0})
    pairings = [_pairing(source, number, data) for number in range(PAIRINGS)]
    writer.samples({name: np.concatenate([pairing[name] for pairing in pairings]) for name in pairings[0]})
    lists = {_pairs_file(number): digest for number, digest in enumerate(_PAIRS_SHA256)}
    writer.parameter("source_sha256", {_FILE: _SHA256, **lists})


def _pairs_file(number: int) -> str:
    return f"avdigits/pairs_seed{number}.csv"


def _pairing(source: Path, number: int, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    path = require(source, _pairs_file(number), _PAIRS_SHA256[number], "the pair lists of the audio-visual digits")
    table = read_table(path, ("split", "audio_idx", "image_idx", "label"), sum(_COUNTS.values()))
    audio, image, label = (np.array(table[name], dtype=np.int64) for name in ("audio_idx", "image_idx", "label"))
    return {
        "id": np.array([f"{number}-{a:04d}-{i:05d}" for a, i in zip(audio, image, strict=True)]),
        "pairing": np.full(len(label), number),
        "split": np.array(table["split"]),
        "audio_row": audio,
        "image_row": image,
        "label": label,
        "speaker": data["speakers"][data["audio_speaker"][audio]],
    }


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The pairs of pairing ``seed`` mod 5 as they are given."""
    del protocol  # there is one
    chosen = np.flatnonzero(prepared.column("pairing") == seed % PAIRINGS)
    split = prepared.column("split")[chosen]
    rows = {name: prepared.column(f"{name}_row")[chosen] for name in ("audio", "image")}
    fold = Fold(*(np.flatnonzero(split == part) for part in ("train", "valid", "test")))
    target = prepared.column("label")[chosen]
    return Arrangement(rows, target, prepared.column("id")[chosen], (fold,), prepared.column("speaker")[chosen])
