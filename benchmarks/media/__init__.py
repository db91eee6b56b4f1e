"""Raw media to arrays: frames, spectrograms and optical flow. numpy; PyAV and OpenCV (the extra `media`) load late.

What is decoded depends on the file and the stated parameters alone: one thread, no random crops, no clocks.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from benchmarks.errors import InputError

# Why a sample is lost. The manifest lists each lost sample with one of these and the decoder's own words.
REASONS = {
    "missing": "no file of that name below the source",
    "wrong_name": "a media file whose name is not of the data set's form",
    "duplicate": "the same name lies in several places with different content",
    "unreadable": "the file or its folder may not be read",
    "not_a_file": "a folder, pipe or device, or a link that leads nowhere or round in a circle",
    "empty": "zero bytes",
    "damaged": "the decoder gives up before it has what is needed",
    "too_slow": "the decoder had no result in the time that a clip may take",
    "no_video": "no video track",
    "no_audio": "no audio track",
    "silent": "an audio track of zeros",
    "too_short": "fewer frames or samples than the recipe needs",
}


class MediaFault(Exception):
    """A media file that cannot be used: ``reason`` is a key of REASONS, ``detail`` says what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, " ".join(detail.split())


def need(module: str) -> ModuleType:
    """PyAV (`av`) or OpenCV (`cv2`), or InputError with what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"cv2": "opencv-contrib-python-headless"}.get(module, module)
        raise InputError(f"{package} cannot be loaded ({error}); install it: pip install 'clcr-bench[media]'") from None


def words(error: Exception) -> str:
    """What an error says, without the path that FFmpeg's errors end in: manifests do not depend on where files lie."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
