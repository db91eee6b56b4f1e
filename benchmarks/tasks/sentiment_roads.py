"""Which of the roads to CMU-MOSI and CMU-MOSEI a source folder offers, and the way down it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import sdk
from benchmarks.errors import InputError
from benchmarks.prepared import Writer
from benchmarks.spec import ModalitySpec, Protocol
from benchmarks.tasks import sentiment_csd, sentiment_pickles
from benchmarks.tasks.sentiment import MOST_LOST, Corpus, Samples, check, described, write

LANGUAGE = ModalitySpec("language", "text", "text", (), backbone="language_model")
_DEFECT = "every step of audio and vision is read; MMSA's own MISA reads no more than the text has tokens."


Reader = Callable[[Corpus, Mapping[str, Path], Path], Samples]


@dataclass(frozen=True)
class Road:
    """Finds its files below a source ({} where there are none), reads them, or counts what they hold."""

    find: Callable[[Path, Corpus], dict[str, Path]]
    read: Reader
    survey: Reader


def _official_files(source: Path, corpus: Corpus) -> dict[str, Path]:
    return sentiment_csd.files(source / sdk.FOLDER, corpus) if (source / sdk.FOLDER).is_dir() else {}


ROADS = {  # the first that a folder offers is taken
    "mmsdk": Road(
        _official_files, partial(sentiment_csd.read, official=True), partial(sentiment_csd.read, survey=True)
    ),
    "csd": Road(sentiment_csd.files, sentiment_csd.read, partial(sentiment_csd.read, survey=True)),
    "mmsa": Road(sentiment_pickles.mmsa_files, sentiment_pickles.read_mmsa, sentiment_pickles.read_mmsa),
    "mult": Road(sentiment_pickles.mult_files, sentiment_pickles.read_mult, sentiment_pickles.read_mult),
}


def offered(source: Path, corpus: Corpus) -> dict[str, dict[str, Path]]:
    """The roads that a folder offers, with their files."""
    found = {name: road.find(Path(source), corpus) for name, road in ROADS.items()}
    if found["mmsdk"]:
        found["csd"] = {}  # they are the same files
    return {name: files for name, files in found.items() if files}


def prepare(source: Path, corpus: Corpus, writer: Writer, max_loss: float = MOST_LOST) -> bool:
    """Prepare from the first road that ``source`` offers and note which; False where it offers none. max_loss: share of
    samples that may be lost."""
    found = offered(source, corpus)
    if found:
        road, files = next(iter(found.items()))
        samples = ROADS[road].read(corpus, files, Path(source))
        _note_others(samples, found)
        check(samples, corpus, max_loss)
        write(road, samples, corpus, files, writer)
    return bool(found)


def survey(source: Path, corpus: Corpus, max_loss: float = MOST_LOST) -> dict[str, Any] | None:
    """What ``prepare`` would note of the first road that ``source`` offers, and the number of samples; no array is
    made and nothing written. None where it offers none."""
    found = offered(source, corpus)
    if not found:
        return None
    road, files = next(iter(found.items()))
    samples = ROADS[road].survey(corpus, files, Path(source))
    _note_others(samples, found)
    check(samples, corpus, max_loss)
    return {"samples": len(samples.ids), **described(road, samples, corpus, files)}


def _note_others(samples: Samples, found: Mapping[str, Mapping[str, Path]]) -> None:
    others = [f"{name} ({', '.join(path.name for path in paths.values())})" for name, paths in found.items()][1:]
    if others:
        samples.notes.append(f"also here, not read: {', '.join(others)}; give a source without the rest to take one")


def missing(source: Path, corpus: Corpus, also: str) -> InputError:
    """The error for a folder that offers no road: what would be one."""
    sequences = ", ".join(names[0] for names in corpus.files.values())
    pickles = (
        f"aligned_50.pkl or unaligned_50.pkl (MMSA), {corpus.mult}_data.pkl or {corpus.mult}_data_noalign.pkl (MulT)"
    )
    told = f"{source}: {corpus.name}: missing its files; put there {sequences}; or {pickles}; {also}"
    return InputError(f"{told}; `clcr fetch {corpus.name} --dry-run` tells where they come from")


def protocols(corpus: Corpus) -> dict[str, Protocol]:
    """The protocols that the pickles serve, by name."""
    glove = ModalitySpec("language", sentiment_pickles.GLOVE[0], "tokens", (50, sentiment_pickles.GLOVE[1]))
    made = {
        "mmsa_aligned": (LANGUAGE, "", "MMSA aligned_50", "MMSA's word-aligned file with its raw text."),
        "mmsa_unaligned": (LANGUAGE, "_unaligned", "MMSA unaligned_50", f"MMSA's unaligned file: {_DEFECT}"),
        "mult_aligned": (glove, "", "MulT, aligned", "MulT's word-aligned file: GloVe vectors, no raw text."),
        "mult_unaligned": (
            glove,
            "_unaligned",
            "MulT, unaligned",
            "MulT's unaligned file: GloVe vectors, no raw text.",
        ),
    }
    return {
        name: Protocol(
            name=name,
            title=title,
            modalities=(language, *(_narrow(corpus, modality, suffix) for modality in ("audio", "vision"))),
            n_classes=None,
            counts=corpus.counts,
            group="video",
            note=note,
        )
        for name, (language, suffix, title, note) in made.items()
        if name not in corpus.renamed
    }


def _narrow(corpus: Corpus, modality: str, suffix: str) -> ModalitySpec:
    array, width = corpus.narrow[modality]
    steps = sentiment_pickles.UNALIGNED if suffix else sentiment_pickles.ALIGNED
    return ModalitySpec(modality, f"{array}{suffix}", "tokens", (steps, width), standardise=True)
