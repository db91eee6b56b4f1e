"""RAVDESS speech: 1,440 clips of 24 actors, log-mel spectrogram and face action units. An open set.

The stand-in for CREMA-D where that cannot be had: the six classes are CREMA-D's, and its leak (every actor in training
and in test) is switched on and off by the choice of protocol, at the same number of clips per split. The audio comes
from the audio-only recording of the same take as the face. Odd actors are male, even ones female.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import splits
from benchmarks.prepared import Arrangement, Fold, Prepared, Writer
from benchmarks.published import read_npz, require
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.twin import TwinRecipe

ACTORS = 24
FOLDS = 6  # of four actors each: two men and two women

_FILE = "ravdess_av/ravdess_av.npz"
_SHA256 = "253c0dc7ac4fe6f6385ba80535679f2f03e8c5e68fec81f5a558fd8ebc8bec8b"
_SHAPES = {
    "logmel_u8": (1440, 192, 64),
    "logmel_lo_hi": (2,),
    "n_frames": (1440,),
    "au": (1440, 35),
    "label": (1440,),
    "actor": (1440,),
    "id": (1440,),
    "classes": (8,),
}
_EIGHT = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_SIX = tuple(name for name in _EIGHT if name not in ("calm", "surprised"))
_MODALITIES = (
    ModalitySpec("audio", "logmel", "spectrogram", (192, 64), backbone="sequence_conv", standardise=True),
    ModalitySpec("vision", "action_units", "vector", (35,), standardise=True),
)


def _actor_disjoint(name: str, classes: tuple[str, ...], sixth: int) -> Protocol:
    return Protocol(
        name=name,
        title=f"Six rotations of 16 / 4 / 4 actors, {len(classes)} classes",
        modalities=_MODALITIES,
        n_classes=len(classes),
        classes=classes,
        folds=FOLDS,
        counts={"train": 4 * sixth, "valid": sixth, "test": sixth},
        group="actor",
        note="No actor is in two splits; rotations are the same for every seed and each clip is tested exactly once.",
    )


def _clip_random(name: str, classes: tuple[str, ...], sixth: int) -> Protocol:
    return Protocol(
        name=name,
        title=f"Clips at random, 4 : 1 : 1, {len(classes)} classes",
        modalities=_MODALITIES,
        n_classes=len(classes),
        classes=classes,
        counts={"train": 4 * sixth, "valid": sixth, "test": sixth},
        group="actor",
        groups_shared=True,
        note="Every actor is in training and in test, as in CREMA-D's usual split: scores are optimistic.",
    )


SPEC = BenchmarkSpec(
    name="ravdess",
    title="RAVDESS speech",
    task="classification",
    protocols=(
        _actor_disjoint("actor_disjoint", _SIX, 176),
        _clip_random("clip_random", _SIX, 176),
        _actor_disjoint("actor_disjoint_8", _EIGHT, 240),
        _clip_random("clip_random_8", _EIGHT, 240),
    ),
    metrics=("accuracy", "macro_f1"),
    main_metric="accuracy",
    citation="Livingstone and Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song, PLoS ONE, 2018",
    licence="upstream terms (believed CC BY-NC-SA 4.0); the feature files carry no licence of their own",
    source="https://zenodo.org/records/1188976",
)

TWIN: TwinRecipe | None = None


def prepare(source: Path, writer: Writer) -> None:
    """Read ravdess_av/ravdess_av.npz below ``source``: log-mel in its stored bytes, action units, labels, actors."""
    data = read_npz(require(source, _FILE, _SHA256, "the RAVDESS feature file"), _SHAPES)
    low, high = (float(value) for value in data["logmel_lo_hi"])
    meta = {"scale": (high - low) / 255, "offset": low}
    writer.add("logmel", data["logmel_u8"], lengths=data["n_frames"], meta=meta)
    writer.add("action_units", data["au"].astype(np.float32))
    names = data["classes"][data["label"]]
    writer.samples({"id": data["id"], "emotion": names, "actor": data["actor"].astype(np.int64)})
    writer.parameter("source_sha256", {_FILE: _SHA256})


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The clips of the protocol's classes; ``seed`` moves the random split only, the rotations are fixed."""
    emotion = prepared.column("emotion")
    rows = np.flatnonzero(np.isin(emotion, protocol.classes))
    target = np.array([protocol.classes.index(name) for name in emotion[rows]], dtype=np.int64)
    actor = prepared.column("actor")[rows]
    if protocol.groups_shared:
        folds: tuple[Fold, ...] = (
            Fold(*splits.stratified(target, (4, 1, 1), splits.stream(f"ravdess/{protocol.name}", seed))),
        )
    else:
        folds = _rotations(actor)
    by_modality = {modality.name: rows for modality in protocol.modalities}
    return Arrangement(by_modality, target, prepared.column("id")[rows], folds, actor)


def _rotations(actor: np.ndarray) -> tuple[Fold, ...]:
    """Test actors 1-4, then 5-8 and so on; the block after the test block validates, the other four train."""
    block = (actor - 1) // (ACTORS // FOLDS)
    folds = []
    for test in range(FOLDS):
        valid = (test + 1) % FOLDS
        parts = (~np.isin(block, (test, valid)), block == valid, block == test)
        folds.append(Fold(*(np.flatnonzero(part) for part in parts)))
    return tuple(folds)
