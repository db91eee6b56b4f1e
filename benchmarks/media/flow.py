"""Optical flow at stated places: from a frame to the next, (u, v) in pixels of the stored 224 x 224 square.

The flow algorithm of the UCF101 literature is not stated in its code; TV-L1 is the usual choice and the default here.
Farneback is a fast preset (about twenty times faster, and noisier), published flow pictures are read as they are.
RGB frame and flow of one place show the same square: whoever crops or flips must do the same to both streams, and a
flipped flow changes the sign of u. The originals draw crops and flips per stream and never change the sign.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.media import MediaFault, need
from benchmarks.media.video import SIZE, Sampling, crop, grey, pictures, scaled_size, square

BOUND = 20.0  # pixels a frame; what is faster is cut, as in published flow pictures
ZERO, STEPS = 128, 127  # stored value v stands for (v - 128) * 20 / 127 pixels: no motion is exact, a flip is 256 - u
META = {"scale": BOUND / STEPS, "offset": -BOUND * ZERO / STEPS}
ALGORITHMS = ("tvl1", "farneback")


def frames_and_flow(path: Path, sampling: Sampling, algorithm: str) -> tuple[np.ndarray, np.ndarray]:
    """RGB (count, 224, 224, 3) and flow (count, 224, 224, 2), both uint8, of the same places."""
    found = pictures(path, sampling, ahead=1)
    rgb = np.stack([square(picture) for picture in found[::2]])
    greys = [grey(picture) for picture in found]
    pairs = zip(greys[::2], greys[1::2], strict=True)
    return rgb, np.stack([quantised(between(first, second, algorithm)) for first, second in pairs])


def between(first: np.ndarray, second: np.ndarray, algorithm: str) -> np.ndarray:
    """Flow (H, W, 2) float32 from one grey picture to the next; MediaFault never, the pictures are decoded already."""
    cv2 = need("cv2")
    if algorithm == "farneback":
        empty: Any = None
        return np.asarray(cv2.calcOpticalFlowFarneback(first, second, empty, 0.5, 3, 15, 3, 5, 1.2, 0))
    return np.asarray(_tvl1().calc(first, second, None))


@cache
def _tvl1() -> Any:
    cv2 = need("cv2")
    cv2.setNumThreads(1)  # the engine's processes are the parallelism
    return cv2.optflow.DualTVL1OpticalFlow_create()


def quantised(flow: np.ndarray) -> np.ndarray:
    """Pixels to stored bytes, see META."""
    return np.asarray(np.rint(np.clip(flow, -BOUND, BOUND) * (STEPS / BOUND)) + ZERO, dtype=np.uint8)


def published(u: Path, v: Path, sampling: Sampling) -> np.ndarray:
    """Flow (count, 224, 224, 2) from two folders of published pictures, one a frame (0..255 stands for -20..20 pixels).

    Vectors are scaled with the pictures. MediaFault where there are too few, they differ in number or do not open."""
    both = [sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".png")) for folder in (u, v)]
    count = len(both[0])
    if count != len(both[1]) or count < sampling.count:
        raise MediaFault("too_short", f"{count} pictures of u, {len(both[1])} of v, {sampling.count} needed")
    places = [min(int(place), count - 1) for place in sampling.places(0.0, float(count))]
    return np.stack([np.stack([_picture(axis[place]) for axis in both], -1) for place in places])


def _picture(path: Path) -> np.ndarray:
    cv2 = need("cv2")
    stored = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if stored is None:
        raise MediaFault("damaged", f"{path.name}: not a picture")
    width, height = scaled_size(stored.shape[1], stored.shape[0])
    pixels = (stored.astype(np.float32) - 127.5) * (BOUND / 127.5) * (width / stored.shape[1])
    result = quantised(crop(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)))
    if result.shape != (SIZE, SIZE):
        raise MediaFault("damaged", f"{path.name}: {stored.shape[1]} x {stored.shape[0]}")
    return result
