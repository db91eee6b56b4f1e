"""Frames of a video at stated places, decoded with PyAV: flv, mp4, avi and whatever else FFmpeg reads.

Storage is what the literature's 224-pixel crops need and no more: the short side is scaled to 256, the central square
of 224 is kept, uint8 RGB. Display rotation and non-square pixels are ignored, as by the originals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.media import MediaFault, need, words
from benchmarks.media.files import fault

SHORT_SIDE = 256
SIZE = 224
SAME_S = 1e-6  # rounding of times
WHOLE = 0.8  # share of the length stated in its head below which a file counts as cut
NEAR_S = 0.5  # a video may end this much before the last place that is asked for


@dataclass(frozen=True)
class Sampling:
    """Which ``count`` frames: the middles of that many equal parts of the video (``rule`` "middles"), or of its
    frames at one a second, the middles of as many equal parts of those (``rule`` "one_fps", OGM-GE and PMR: three or
    four of ten). With ``span`` only the seconds from .. to count."""

    count: int = 3
    rule: str = "middles"

    def places(self, start: float, end: float) -> list[float]:
        """Seconds from the start of the video, rising."""
        if self.rule == "middles":
            return [start + (end - start) * (i + 0.5) / self.count for i in range(self.count)]
        whole = max(int(end - start), 1)  # frames at one a second stand for the middles of seconds
        return [start + int((i + 0.5) * whole / self.count) + 0.5 for i in range(self.count)]


@dataclass(frozen=True)
class _Track:
    """A video's packets in the order of decoding; ``pts``: presentation time of each in ``base`` seconds, or None;
    ``stated``: seconds that the file's head promises, 0 where it does not."""

    packets: list[Any]
    pts: np.ndarray | None
    base: float
    stated: float


def frames(path: Path, sampling: Sampling, span: tuple[float, float] | None = None) -> np.ndarray:
    """The sampled frames of a video, (count, 224, 224, 3) uint8 RGB. MediaFault where they cannot be had."""
    return np.stack([square(picture) for picture in pictures(path, sampling, span)])


def pictures(path: Path, sampling: Sampling, span: tuple[float, float] | None = None, ahead: int = 0) -> list[Any]:
    """The sampled frames as PyAV frames; with ``ahead`` each is followed by that many of the frames after it."""
    av = need("av")
    check_file(path)
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise MediaFault("no_video", f"tracks: {', '.join(s.type for s in container.streams) or 'none'}")
            stream = container.streams.video[0]
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            track = _track(container, stream)
            return _decode(stream.codec_context, track, sampling, span, ahead)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaFault("damaged", f"video: {words(error)}") from None


def square(frame: Any) -> np.ndarray:
    """A PyAV frame with its short side at 256, central 224 x 224, RGB uint8."""
    return crop(_scaled(frame, "rgb24"))


def grey(frame: Any) -> np.ndarray:
    """The same square in grey levels: (224, 224) uint8."""
    return crop(_scaled(frame, "gray"))


def crop(picture: np.ndarray) -> np.ndarray:
    """The central 224 x 224 of (height, width, ...)."""
    top, left = (picture.shape[0] - SIZE) // 2, (picture.shape[1] - SIZE) // 2
    return np.ascontiguousarray(picture[top : top + SIZE, left : left + SIZE])


def scaled_size(width: int, height: int) -> tuple[int, int]:
    """Width and height with the short side at 256."""
    factor = SHORT_SIDE / min(width, height)
    return max(round(width * factor), SHORT_SIDE), max(round(height * factor), SHORT_SIDE)


def _scaled(frame: Any, layout: str) -> np.ndarray:
    width, height = scaled_size(frame.width, frame.height)
    picture: np.ndarray = _scaler().reformat(frame, width, height, layout, interpolation="AREA", threads=1).to_ndarray()
    return picture


@cache
def _scaler() -> Any:
    """One for all frames of the process: it keeps its tables while size and layout stay the same."""
    return need("av").video.reformatter.VideoReformatter()


def check_file(path: Path) -> None:
    """MediaFault unless this is a regular file with content that may be read."""
    found = fault(path)
    if found is not None:
        raise MediaFault(*found)


def _track(container: Any, stream: Any) -> _Track:
    packets: list[Any] = []
    with suppress(need("av").FFmpegError):  # a cut file: what came before the cut may be all that is needed
        packets.extend(packet for packet in container.demux(stream) if packet.size)
    pts = [packet.pts for packet in packets]
    known = None not in pts and len(set(pts)) == len(pts)
    rate = stream.average_rate or stream.guessed_rate or 25
    base = float(stream.time_base) if known else 1 / float(rate)
    stated = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
    return _Track(packets, np.array(pts, dtype=np.int64) if known else None, base, stated)


def _decode(codec: Any, track: _Track, sampling: Sampling, span: tuple[float, float] | None, ahead: int) -> list[Any]:
    count = len(track.packets)
    times = np.arange(count) if track.pts is None or not count else np.sort(track.pts) - track.pts.min()
    seconds = times * track.base
    length = float(seconds[-1]) * count / (count - 1) if count > 1 else 0.0
    if length < WHOLE * track.stated and count > 1:
        raise MediaFault("damaged", f"video: {length:.2f} s there of {track.stated:.2f} s stated")
    if count < sampling.count + ahead:
        raise MediaFault("too_short", f"{count} frames, {sampling.count + ahead} needed")
    start, end = span if span is not None else (0.0, length)
    if start > length:
        raise MediaFault("too_short", f"{length:.2f} s, the event begins at {start:g} s")
    places = sampling.places(start, min(end, length))
    wanted = [min(int(np.searchsorted(seconds, place - SAME_S)), count - 1 - ahead) for place in places]
    if len(set(wanted)) < len(wanted):
        raise MediaFault("too_short", f"{count} frames in {length:.2f} s: the {sampling.count} places are not apart")
    order = sorted({index + step for index in wanted for step in range(ahead + 1)})
    found = _find(codec, track, order)
    _check_reached(found, order, seconds)
    return [found[index + step][1] for index in wanted for step in range(ahead + 1)]


def _check_reached(found: dict[int, tuple[int, Any]], order: Sequence[int], seconds: np.ndarray) -> None:
    for index in order:
        rank = min(found[index][0], len(seconds) - 1) if index in found else 0
        if index not in found or seconds[rank] + NEAR_S < seconds[index]:
            raise MediaFault("damaged", f"video: no picture at {seconds[index]:.2f} s of {seconds[-1]:.2f} s")


def _find(codec: Any, track: _Track, order: Sequence[int]) -> dict[int, tuple[int, Any]]:
    """(rank, frame) for each wanted rank in time; the next that decodes where the frame itself does not."""
    if track.pts is None:
        return _pick(enumerate(_frames(codec, track.packets)), order)
    ranks = {int(pts): rank for rank, pts in enumerate(np.sort(track.pts))}
    found: dict[int, tuple[int, Any]] = {}
    for packets in _groups(track.packets):
        wanted = sorted({ranks[packet.pts] for packet in packets} & set(order))
        if wanted:  # the other groups are not decoded at all
            known = (frame for frame in _frames(codec, packets) if frame.pts in ranks)
            found |= _pick(((ranks[frame.pts], frame) for frame in known), wanted)
            codec.flush_buffers()
    return found


def _pick(decoded: Iterable[tuple[int, Any]], wanted: Sequence[int]) -> dict[int, tuple[int, Any]]:
    """For each wanted rank the first frame at or after it, else the last one; decodes no further than needed."""
    left, last = list(wanted), None
    picked: dict[int, tuple[int, Any]] = {}
    for rank, frame in decoded:
        last = rank, frame
        while left and rank >= left[0]:
            picked[left.pop(0)] = last
        if not left:
            break
    return picked | (dict.fromkeys(left, last) if last is not None else {})


def _groups(packets: list[Any]) -> Iterator[list[Any]]:
    """Runs of packets that decode alone: from a key frame to the next, unless frames after that show before it."""
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    earliest = np.minimum.accumulate([packet.pts for packet in packets][::-1])[::-1]
    starts = [0, *(i for i in keys if i > 0 and earliest[i] == packets[i].pts)]
    for start, end in pairwise([*starts, len(packets)]):
        yield packets[start:end]


def _frames(codec: Any, packets: list[Any]) -> Iterator[Any]:
    """Decode packets in turn; one that is damaged is passed over."""
    av = need("av")
    for packet in [*packets, None]:
        try:
            yield from codec.decode(packet)
        except av.EOFError:
            return
        except av.FFmpegError:
            continue
