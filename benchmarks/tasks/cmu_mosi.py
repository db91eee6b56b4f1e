"""CMU-MOSI: sentiment in [-3, 3] of 2,199 utterances from 93 videos: language, audio and vision.

``standard`` is for the SDK's sequences, ``mmsa_*`` and ``mult_*`` for the pickles of those projects; ``transcripts``,
open, has the same folds with raw text and one audio vector; ``utterance``, open, one vector per modality. Language and
vision vectors of the last come from networks that were trained on the labels of 1,447 of the utterances, so it never
touches those: prepared data holds these vectors of the other 752 only, and these are cross-validated by video.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import splits, twin
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Fold, Prepared, Writer
from benchmarks.published import read_npz, read_table, require
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.tasks import sentiment, sentiment_roads
from benchmarks.tasks.sentiment import MOST_LOST
from benchmarks.twin import TwinModality, TwinRecipe

_LANGUAGE = sentiment_roads.LANGUAGE
_COUNTS = {"train": 1284, "valid": 229, "test": 686}

CORPUS = sentiment.Corpus(
    name="cmu_mosi",
    tag="mosi",
    files={
        "words": ("CMU_MOSI_TimestampedWords.csd",),
        "audio": ("CMU_MOSI_COVAREP.csd",),
        "vision": ("CMU_MOSI_Visual_Facet_41.csd", "CMU_MOSI_VisualFacet_4.1.csd"),
        "labels": ("CMU_MOSI_Opinion_Labels.csd",),
    },
    audio=("covarep", 74),
    vision=("facet", 47),
    narrow={"audio": ("audio5", 5), "vision": ("vision20", 20)},
    mult="mosi",
    videos={"train": 52, "valid": 10, "test": 31},
    folds_sha256="fa0f8c6b7d0de134bc3eafebb8b0f0a416ef46c3c1d811692b92ce1507e7f9ea",
    counts=_COUNTS,
    sdk_total=2183,
)

_STANDARD = Protocol(
    name="standard",
    title="Standard folds (SDK), word-aligned",
    modalities=(
        _LANGUAGE,
        ModalitySpec("audio", "covarep", "tokens", (50, 74), standardise=True),
        ModalitySpec("vision", "facet", "tokens", (50, 47), standardise=True),
    ),
    n_classes=None,
    counts=_COUNTS,
    group="video",
    note="COVAREP 74 and FACET 47 as MulT and MISA use them; MMSA's files hold hand-picked 5 and 20 of these columns.",
)

_AUDIO_VECTOR = ModalitySpec("audio", "audio73", "vector", (73,), standardise=True)

_TRANSCRIPTS = Protocol(
    name="transcripts",
    title="Standard folds, transcripts and utterance audio",
    modalities=(_LANGUAGE, _AUDIO_VECTOR),
    n_classes=None,
    counts=_COUNTS,
    group="video",
    note="Raw transcripts and a 73-d openSMILE-type vector; no vision, so not comparable with the published rows.",
)

FOLDS = 5

_UTTERANCE = Protocol(
    name="utterance",
    title="Utterance vectors, five folds by video",
    modalities=(
        ModalitySpec("language", "language100", "vector", (100,), standardise=True),
        _AUDIO_VECTOR,
        ModalitySpec("vision", "vision100", "vector", (100,), standardise=True),
    ),
    n_classes=None,
    folds=FOLDS,
    group="video",
    note="The 752 utterances that the feature extractors were not trained on, cross-validated by video.",
)

_PICKLES = sentiment_roads.protocols(CORPUS)
COUNTS_NOTED = ("standard", *_PICKLES)  # prepare itself compares these counts and notes the difference

SPEC = BenchmarkSpec(
    name="cmu_mosi",
    title="CMU-MOSI",
    task="regression",
    protocols=(_STANDARD, _TRANSCRIPTS, _UTTERANCE, *_PICKLES.values()),
    metrics=("mae", "corr", "acc7", "acc5", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0"),
    main_metric="mae",
    citation="Zadeh et al.: MOSI, arXiv:1606.06259, 2016",
    licence="terms of CMU MultiComp; the videos belong to their owners",
    source="https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK",
    value_range=(-3.0, 3.0),
    twin_protocol="standard",
)

TWIN = TwinRecipe(  # language dominates, as it does on the real data
    seed=5,
    modalities=(
        TwinModality("language", 12, 20, gain=(1.8, 1.8, 1.8), private=(0.0, 0.5, 0.7), layout="levels"),
        TwinModality("audio", 20, 16, gain=(3.6, 1.8, 0.4), private=(0.6, 0.0, 0.0), lag=1),
        TwinModality("vision", 16, 16, gain=(0.6, 1.4, 2.2), private=(0.0, 0.0, 0.6), lag=2),
    ),
    shared=(1.0, 1.0, 1.0),
    label_noise=0.5,
    spread=1.4,
    sizes=(512, 128, 256),
    groups=60,
    distractor=11.0,
    offset=0.2,
)


_TABLE = "mosi/mosi_segments.csv"
_FEATURES = "mosi/mosi_utterance_features.npz"
_SHA256 = {
    _TABLE: "2e108159beb9b978320f9ccef871736af15f6fa5bca0d0f49ce592e7d184acac",
    _FEATURES: "5b09fd8e1a94fd2036a46998fcca482ce5f88b1d95af30e5e130629ba93c5602",
}
_ROWS = 2199
_SHAPES: dict[str, tuple[int, ...]] = {
    "text": (_ROWS, 100),
    "audio": (_ROWS, 73),
    "video": (_ROWS, 100),
    "sentiment": (_ROWS,),
    "id": (_ROWS,),
}


def prepare(source: Path, writer: Writer, max_loss: float = MOST_LOST) -> None:
    """Read the owners' sequences or the field's pickles where ``source`` holds them, else the transcripts, labels and
    utterance vectors below ``source``/mosi (the open protocols). The manifest says which."""
    if sentiment_roads.prepare(source, CORPUS, writer, max_loss):
        return
    if not (source / "mosi").is_dir():
        raise sentiment_roads.missing(source, CORPUS, f"or {_TABLE} and {_FEATURES} (the open protocols)")
    _prepare_open(source, writer)


def _prepare_open(source: Path, writer: Writer) -> None:
    table_path, path = (require(source, name, digest, "the CMU-MOSI files") for name, digest in _SHA256.items())
    table = read_table(table_path, ("id", "video", "text", "std_fold", "bclstm_split"), _ROWS)
    data = read_npz(path, _SHAPES)
    if table["id"] != data["id"].tolist():
        raise InputError(f"{path}: array 'id' is not in the order of {table_path}; fetch both again")
    unseen = np.array(table["bclstm_split"]) == "test"
    writer.add("audio73", data["audio"])
    writer.add("language100", data["text"][unseen])
    writer.add("vision100", data["video"][unseen])
    writer.samples(
        {name: table[name] for name in ("id", "video", "text", "std_fold")}
        | {"sentiment": data["sentiment"], "unseen_row": np.where(unseen, np.cumsum(unseen) - 1, -1)}
    )
    writer.parameter("source_sha256", _SHA256)


def survey(source: Path, max_loss: float = MOST_LOST) -> dict[str, Any] | None:
    """What ``prepare`` would note, without making an array; None where only the open files can be there."""
    return sentiment_roads.survey(source, CORPUS, max_loss)


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The samples and folds of a protocol; ``seed`` moves the folds of ``utterance`` only."""
    if prepared.origin == "twin":
        return twin.arrange(prepared, protocol, seed)
    if protocol.name == "utterance":
        return _unseen(prepared, seed)
    return sentiment.arrange(prepared, protocol)


def _unseen(prepared: Prepared, seed: int) -> Arrangement:
    """Five folds by video; inside each training part, one video in five validates."""
    feature_row = prepared.column("unseen_row")
    samples = np.flatnonzero(feature_row >= 0)
    video = prepared.column("video")[samples]
    stream = splits.stream("cmu_mosi/utterance", seed)
    fold_of = splits.grouped_folds(video, FOLDS, stream)
    folds = []
    for number in range(FOLDS):
        rest = np.flatnonzero(fold_of != number)
        held = splits.held_out(video[rest], 1 / FOLDS, stream)
        folds.append(Fold(rest[~held], rest[held], np.flatnonzero(fold_of == number)))
    rows = {"language": feature_row[samples], "audio": samples, "vision": feature_row[samples]}
    target, ids = prepared.column("sentiment")[samples], prepared.column("id")[samples]
    return Arrangement(rows, target, ids, tuple(folds), video)
