"""The CMU-MultimodalSDK itself (mmsdk), where it is installed: downloads, and its own alignment. Imported late.

mmsdk is on no index. Its setup.py needs pkg_resources, which setuptools 81 dropped, and does not declare requests::

    pip install "setuptools<81" wheel requests
    pip install --no-build-isolation git+https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.csd import Entry, Parts, open_csd
from benchmarks.errors import InputError

RECIPE = (
    'pip install "setuptools<81" wheel requests && pip install --no-build-isolation '
    "git+https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK"
)


FOLDER = "mmsdk"  # below a source: what mmsdk downloads, and aligns itself


def library() -> Any:
    """mmsdk.mmdatasdk; InputError with the recipe where it is not installed."""
    try:
        with _silent():  # mmsdk binds the stream that it prints to when it is imported
            return importlib.import_module("mmsdk.mmdatasdk")
    except ImportError as error:
        raise InputError(f"mmsdk: {error}; install it: {RECIPE}") from None


def download(corpus: str, folder: Path, wanted: str) -> bool:
    """Let mmsdk download one of its sequences of "cmu_mosi" or "cmu_mosei", by file name, into a folder.

    False where it is there already. The name appears when the file is whole and opens as a computational sequence; else
    nothing stays. InputError where mmsdk is absent, does not know the name or fails, or another process is at it.
    """
    tables = getattr(library(), corpus, None)
    if tables is None:
        raise InputError(f"mmsdk: knows no {corpus}; install the version of the recipe: {RECIPE}")
    parts = (tables.raw, tables.highlevel, tables.labels)
    known = {url.rsplit("/", 1)[-1]: url for part in parts for url in part.values()}
    if wanted not in known:
        raise InputError(f"mmsdk: {corpus}: knows no {wanted}; install the version of the recipe: {RECIPE}")
    path = Path(folder).resolve() / wanted  # mmsdk needs a path with a folder in it
    if path.is_file():
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            _download(known[wanted], path)
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{path}: cannot be written ({why}); make room or choose another folder with --to") from None
    return True


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes: two that wrote the same hidden file would publish each other's half."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"{folder}: another process is fetching into it; wait for that one to end") from None
    finally:
        os.close(handle)


def _download(url: str, path: Path) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)  # what a killed process left; mmsdk refuses to write over a file
    fetch = importlib.import_module("mmsdk.mmdatasdk.computational_sequence.download_ops").read_URL
    try:
        with _silent():
            fetch(url, str(partial))
        with open_csd(partial):
            pass
        os.replace(partial, path)
    except (Exception, SystemExit) as error:  # mmsdk raises RuntimeError, requests and OS errors
        reason = " ".join(str(error).split()).replace(str(partial), path.name) or type(error).__name__
        raise InputError(f"mmsdk: {url}: {reason}; get the file by hand and put it into {path.parent}") from None
    finally:
        partial.unlink(missing_ok=True)


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
