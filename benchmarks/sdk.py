"""The CMU-MultimodalSDK itself (mmsdk), where it is installed: downloads, and its own alignment. Imported late.

mmsdk is on no index. Its setup.py needs pkg_resources, which setuptools 81 dropped, and does not declare requests::

    pip install "setuptools<81" wheel requests
    pip install --no-build-isolation git+https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.csd import Entry, Parts
from benchmarks.errors import InputError

RECIPE = (
    'pip install "setuptools<81" wheel requests && pip install --no-build-isolation '
    "git+https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK"
)


def library() -> Any:
    """mmsdk.mmdatasdk; InputError with the recipe where it is not installed."""
    try:
        with _silent():  # mmsdk binds the stream that it prints to when it is imported
            return importlib.import_module("mmsdk.mmdatasdk")
    except ImportError as error:
        raise InputError(f"mmsdk: {error}; install it: {RECIPE}") from None


def download(corpus: str, folder: Path, wanted: tuple[str, ...]) -> list[Path]:
    """Let mmsdk download its sequences of "cmu_mosi" or "cmu_mosei" whose file names are wanted into a folder.

    What is already there stays. A download that ends early is removed. InputError where mmsdk is absent or fails.
    """
    tables = getattr(library(), corpus, None)
    if tables is None:
        raise InputError(f"mmsdk: knows no {corpus}; install the version of the recipe: {RECIPE}")
    known = {
        url.rsplit("/", 1)[-1]: url for part in (tables.raw, tables.highlevel, tables.labels) for url in part.values()
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    return [_download(known, name, Path(folder)) for name in wanted if name in known]


def _download(known: Mapping[str, str], name: str, folder: Path) -> Path:
    path, partial = folder / name, folder / f".{name}.part"
    if not path.exists():
        fetch = importlib.import_module("mmsdk.mmdatasdk.computational_sequence.download_ops").read_URL
        try:
            with _silent():
                fetch(known[name], str(partial))
        except (Exception, SystemExit) as error:  # mmsdk raises RuntimeError, requests and OS errors
            partial.unlink(missing_ok=True)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"mmsdk: {known[name]}: {reason}; get the file by hand and put it into {folder}") from None
        partial.rename(path)
    return path


def aligned(paths: Mapping[str, Path]) -> dict[str, dict[str, Parts]]:
    """mmsdk's own word alignment (average, impute) and label alignment of words, audio, vision and labels.

    Per video, sequence and label row an Entry in the form of csd.segments: the last feature is the row of the word.
    """
    names = ("words", "audio", "vision")
    module = library()
    try:
        return _by_video(_aligned(module, paths, names))
    except (Exception, SystemExit) as error:  # mmsdk raises RuntimeError, and numpy's and h5py's errors as they come
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{paths['words'].parent}: mmsdk cannot align these files: {reason}; fetch them again"
        ) from None


def _aligned(module: Any, paths: Mapping[str, Path], names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    with _silent():
        dataset = module.mmdataset({name: str(paths[name]) for name in names})
        dataset.align("words", collapse_functions=[_average])
        dataset.impute("words")
        for name in names:
            _tag(dataset[name].data, name == "words")
        dataset.add_computational_sequences({"labels": str(paths["labels"])}, None)
        dataset.align("labels")
    return {name: dataset[name].data for name in names}


def _average(_: np.ndarray, features: np.ndarray) -> np.ndarray:
    return features if features.dtype.kind not in "iuf" else np.average(features, axis=0)


def _tag(data: dict[str, dict[str, np.ndarray]], words: bool) -> None:
    """Give each aligned row the row of its word as a last feature, so that it is still known after the next step."""
    for key, value in data.items():
        row = np.full((len(value["intervals"]), 1), float(_split(key)[1]))
        value["features"] = row if words else np.column_stack([value["features"], row])


def _split(key: str) -> tuple[str, int]:
    video, _, row = key.rpartition("[")
    return video, int(row[:-1])


def _by_video(sequences: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Parts]]:
    found: dict[str, dict[str, Parts]] = {}
    for name, data in sequences.items():
        for key, value in data.items():
            video, row = _split(key)
            parts = found.setdefault(video, {each: Parts() for each in sequences})
            parts[name][row] = Entry(np.asarray(value["intervals"]), np.asarray(value["features"]))
    return found


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """mmsdk prints much and ends with sys.exit or RuntimeError; neither belongs to a one-line answer."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
