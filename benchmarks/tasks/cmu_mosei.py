"""CMU-MOSEI: sentiment in [-3, 3] of 22,856 utterances from 3,227 videos: language, audio and vision.

Folds of the CMU-MultimodalSDK (2,249 / 300 / 678 videos, none shared); utterances as MMSA, MISA and DMD count them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import twin
from benchmarks.prepared import Arrangement, Prepared, Writer
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.tasks import sentiment, sentiment_roads
from benchmarks.tasks.sentiment import MOST_LOST
from benchmarks.twin import TwinModality, TwinRecipe

CORPUS = sentiment.Corpus(
    name="cmu_mosei",
    tag="mosei",
    files={
        "words": ("CMU_MOSEI_TimestampedWords.csd",),
        "audio": ("CMU_MOSEI_COVAREP.csd",),
        "vision": ("CMU_MOSEI_VisualFacet42.csd", "CMU_MOSEI_Visual_Facet_42.csd"),
        "labels": ("CMU_MOSEI_Labels.csd",),
    },
    audio=("covarep", 74),
    vision=("facet", 35),
    narrow={"audio": ("covarep", 74), "vision": ("facet", 35)},
    mult="mosei_senti",
    videos={"train": 2249, "valid": 300, "test": 678},
    folds_sha256="0dd123c3fb726687a54081bd3e4f8b8b33219df2e693fab30d8649c92f16d108",
    counts={"train": 16326, "valid": 1871, "test": 4659},
    renamed={"mmsa_aligned": "standard"},  # its aligned_50.pkl has the raw text, COVAREP 74 and FACET 35
)

_STANDARD = Protocol(
    name="standard",
    title="Standard folds (SDK), word-aligned",
    modalities=(
        sentiment_roads.LANGUAGE,
        ModalitySpec("audio", "covarep", "tokens", (50, 74), standardise=True),
        ModalitySpec("vision", "facet", "tokens", (50, 35), standardise=True),
    ),
    n_classes=None,
    counts=CORPUS.counts,
    group="video",
    note="COVAREP 74 and FACET 35, at most 50 words, as MISA and MMSA have them.",
)

_PICKLES = sentiment_roads.protocols(CORPUS)
COUNTS_NOTED = ("standard", *_PICKLES)  # prepare itself compares these counts and notes the difference

SPEC = BenchmarkSpec(
    name="cmu_mosei",
    title="CMU-MOSEI",
    task="regression",
    protocols=(_STANDARD, *_PICKLES.values()),
    metrics=("mae", "corr", "acc7", "acc5", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0"),
    main_metric="mae",
    citation="Zadeh et al.: Multimodal Language Analysis in the Wild, ACL 2018",
    licence="terms of CMU MultiComp; the videos belong to their owners",
    source="https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK",
    value_range=(-3.0, 3.0),
    twin_protocol="standard",
)

TWIN = TwinRecipe(  # values centred and narrower than CMU-MOSI's, as the real ones are
    seed=6,
    modalities=(
        TwinModality("language", 12, 20, gain=(1.8, 1.8, 1.8), private=(0.0, 0.6, 0.6), layout="levels"),
        TwinModality("audio", 20, 16, gain=(3.6, 1.8, 0.4), private=(0.6, 0.0, 0.0), lag=1),
        TwinModality("vision", 16, 16, gain=(0.6, 1.4, 1.8), private=(0.0, 0.0, 0.6), lag=2),
    ),
    shared=(1.0, 1.0, 1.0),
    label_noise=0.4,
    centre=0.15,
    spread=1.0,
    sizes=(640, 128, 256),
    groups=60,
    distractor=11.0,
    offset=0.2,
)


def prepare(source: Path, writer: Writer, max_loss: float = MOST_LOST) -> None:
    """Read the owners' sequences or the field's pickles below ``source``; the manifest says which."""
    if not sentiment_roads.prepare(source, CORPUS, writer, max_loss):
        twin_instead = f"or use its synthetic twin: --benchmark {SPEC.name} --data twin; from {SPEC.source}"
        raise sentiment_roads.missing(source, CORPUS, twin_instead)


def survey(source: Path, max_loss: float = MOST_LOST) -> dict[str, Any] | None:
    """What ``prepare`` would note, without making an array; None where the source holds nothing of it."""
    return sentiment_roads.survey(source, CORPUS, max_loss)


def arrange(prepared: Prepared, protocol: Protocol, seed: int) -> Arrangement:
    """The samples and the standard folds of a protocol, on real data and on the twin."""
    if prepared.origin == "twin":
        return twin.arrange(prepared, protocol, seed)
    return sentiment.arrange(prepared, protocol)
