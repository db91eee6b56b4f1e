"""Sound of any container to a mono waveform, and the spectrogram recipes of the literature under names.

All recipes are deterministic: where an original draws a random window (ARL, also at test time) the middle one is taken.
Spectrograms are stored time first, float16: of a logarithm between -16 and 5 that keeps two decimals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.media import MediaFault, need, words
from benchmarks.media.video import WHOLE, check_file

LOG_FLOOR = 1e-7
KALDI_FLOOR = float(np.finfo(np.float32).eps)
FBANK_MEAN, FBANK_SPREAD = -4.503877, 2 * 5.141276  # of AudioSet, as in AST and OGM-GE's process_audio.py
BLOCK = 1 << 16  # samples
LEAST_RATE = 1000  # Hz
PROBE = {"probesize": "4096"}  # bytes


@dataclass(frozen=True)
class Recipe:
    """How a waveform becomes a spectrogram of ``frames`` x ``bins``.

    kind: "stft" log(|S| + 1e-7), centred, reflected at the ends (librosa.stft's default before 0.10), Hann; "density"
    log(power density + 1e-7), Tukey 0.25, mean removed per frame, then zero mean and unit spread per clip, as
    scipy.signal.spectrogram in PMR; "fbank" the log-mel of Kaldi, as in torchaudio.compliance.kaldi.
    seconds: the waveform is tiled to this length and cut (None: as long as it is). middle: seconds kept of the middle.
    """

    kind: str
    rate: int
    frames: int
    bins: int
    window: int
    hop: int
    seconds: float | None = None
    middle: float | None = None
    source: str = ""


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "ogm_ge": Recipe("stft", 22050, 188, 257, 512, 353, 3.0, source="OGM-GE dataset/CramedDataset.py"),
        "pmr_3s": Recipe("density", 16000, 299, 257, 512, 159, 3.0, source="PMR paper, CREMA-D 257 x 299"),
        "pmr_10s": Recipe("density", 16000, 1004, 257, 512, 159, 10.0, source="PMR paper, AVE 257 x 1004"),
        # 160,000 samples at 22,050 Hz, 7.26 s: the released code loads at librosa's default and cuts at 16,000 * 10
        "pmr_released": Recipe("density", 22050, 1004, 257, 512, 159, 160000 / 22050, source="PMR's released code"),
        "arl_5s": Recipe("stft", 16000, 626, 129, 256, 128, 10.0, 5.0, source="ARL KSDataset.py, middle window"),
        "fbank": Recipe("fbank", 16000, 1024, 128, 400, 160, source="OGM-GE data/KineticSound/process_audio.py"),
        "logmel_3s": Recipe("fbank", 16000, 298, 128, 400, 160, 3.0, source="fbank, unpadded: 3 s are 298 frames"),
    }
)  # fmt: skip


def waveform(path: Path, rate: int, span: tuple[float, float] | None = None, silence: bool = False) -> np.ndarray:
    """Mono float32 at ``rate``, channels averaged, full scale 1; with ``span`` the seconds from .. to alone.

    MediaFault where there is no audio track, it cannot be decoded or, unless ``silence`` is allowed, it is all zeros.
    """
    av = need("av")
    check_file(path)
    options = _riff(path)
    try:
        with av.open(str(path), metadata_errors="replace", options=options) as container:
            if not container.streams.audio:
                raise MediaFault("no_audio", f"tracks: {', '.join(s.type for s in container.streams) or 'none'}")
            pieces, found_rate, whole = _decode(container, container.streams.audio[0], span)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaFault("damaged", f"audio: {words(error)}") from None
    samples = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
    if span is not None:
        samples = samples[round(span[0] * found_rate) : round(span[1] * found_rate)]
    if not len(samples):
        raise MediaFault("too_short" if whole else "damaged", "audio: no sample decoded")
    if not np.isfinite(samples).all():
        raise MediaFault("damaged", "audio: samples that are not finite")
    if not silence and not samples.any():
        raise MediaFault("silent", f"{len(samples)} samples, all zero")
    return samples if found_rate == rate else _resample(samples, found_rate, rate)


def _riff(path: Path) -> dict[str, str]:
    """How FFmpeg is to open the file. A .wav is all there and says at its start what it holds: without PROBE, FFmpeg
    decodes seconds of it to find that out. MediaFault for one that was cut: FFmpeg would say nothing."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] != b"RIFF":
        return {}
    stated, size = int.from_bytes(head[4:8], "little") + 8, path.stat().st_size
    if stated < 2**32 - 1 and size < WHOLE * stated:
        raise MediaFault("damaged", f"audio: {size} bytes there of {stated} stated")
    return PROBE if head[8:] == b"WAVE" else {}


def _decode(container: Any, stream: Any, span: tuple[float, float] | None) -> tuple[list[np.ndarray], int, bool]:
    """Mono pieces, the file's rate, and whether decoding went to the end without a fault."""
    av = need("av")
    stream.thread_type = "NONE"
    pieces: list[np.ndarray] = []
    faults = have = 0
    rate = int(stream.rate or stream.codec_context.sample_rate or 0)
    if rate:
        _check_rate(rate)
    expected = float(stream.duration * stream.time_base) if stream.duration else 0.0
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    rate = rate or frame.sample_rate
                    pieces.append(_mono(frame))
                    have += len(pieces[-1])
            except av.EOFError:
                break
            except av.FFmpegError:
                faults += 1
            if span is not None and rate and have >= span[1] * rate:
                return pieces, rate, True
    except av.FFmpegError:
        faults += 1
    _check_rate(rate)
    if have / rate < WHOLE * expected:  # a cut file whose head promises more
        raise MediaFault("damaged", f"audio: {have / rate:.2f} s decoded of {expected:.2f} s")
    return pieces, rate, not faults


def _check_rate(rate: int) -> None:
    """Nothing sounds at a few samples a second, and what is made of them grows without bound with the recipe's rate."""
    if rate < LEAST_RATE:
        told = f"{rate} samples a second, at least {LEAST_RATE} needed" if rate > 0 else "no sample rate"
        raise MediaFault("damaged", f"audio: {told}")


def _mono(frame: Any) -> np.ndarray:
    samples = frame.to_ndarray()
    channels = frame.layout.nb_channels
    samples = samples if frame.format.is_planar else samples.reshape(-1, channels).T
    if samples.dtype.kind == "u":
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    samples = samples.astype(np.float32, copy=False)
    return np.asarray(samples.mean(0) if channels > 1 else samples[0])


def _resample(samples: np.ndarray, found: int, rate: int) -> np.ndarray:
    """Band-limited, by FFmpeg's resampler (librosa uses soxr: the two differ near the band's edge alone)."""
    av = need("av")
    graph = av.filter.Graph()
    graph.threads = 1  # PyAV's AudioResampler is the same graph with a thread for each core, made anew for each clip
    start = graph.add("abuffer", sample_rate=str(found), sample_fmt="flt", channel_layout="mono")
    end = graph.add("aformat", sample_rates=str(rate), sample_fmts="flt", channel_layouts="mono")
    graph.link_nodes(start, end, graph.add("abuffersink")).configure()
    pieces: list[np.ndarray] = []
    for first in range(0, len(samples), BLOCK):
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + BLOCK], format="flt", layout="mono")
        frame.sample_rate, frame.pts = found, first
        graph.push(frame)
        pieces += _pulled(graph)
    graph.push(None)
    pieces += _pulled(graph)
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)


def _pulled(graph: Any) -> Iterator[np.ndarray]:
    """What a graph has ready."""
    av = need("av")
    with suppress(av.EOFError, av.BlockingIOError):  # it has no more, or no more until it is given more
        while True:
            yield graph.pull().to_ndarray()[0]


def spectrogram(samples: np.ndarray, recipe: Recipe) -> np.ndarray:
    """(frames, bins) float16 of a mono waveform at the recipe's rate. MediaFault where it is too short."""
    if len(samples) < recipe.window:
        raise MediaFault("too_short", f"{len(samples)} samples, {recipe.window} needed")
    if recipe.seconds is not None:
        samples = tiled(samples, round(recipe.seconds * recipe.rate))
    if recipe.middle is not None:
        keep = round(recipe.middle * recipe.rate)
        start = (len(samples) - keep) // 2
        samples = samples[start : start + keep]
    values = _KINDS[recipe.kind](samples.astype(np.float32), recipe)
    if values.shape != (recipe.frames, recipe.bins):
        raise AssertionError(f"recipe gives {values.shape}, not {(recipe.frames, recipe.bins)}")
    return values.astype(np.float16)


def tiled(samples: np.ndarray, length: int) -> np.ndarray:
    """The waveform repeated as often as needed, cut to ``length`` samples. (OGM-GE repeats three times at most: the
    same for every clip of a second or more, and all of CREMA-D's are.)"""
    return np.tile(samples, -(-length // len(samples)))[:length]


def _windows(samples: np.ndarray, window: int, hop: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]


def _hann(window: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


def _stft(samples: np.ndarray, recipe: Recipe) -> np.ndarray:
    padded = np.pad(np.clip(samples, -1.0, 1.0), recipe.window // 2, mode="reflect")
    spectrum = np.fft.rfft(_windows(padded, recipe.window, recipe.hop) * _hann(recipe.window))
    return np.asarray(np.log(np.abs(spectrum) + LOG_FLOOR))


def _tukey(window: int, share: float = 0.25) -> np.ndarray:
    """Tapered cosine window, periodic."""
    x = np.arange(window) * 2 / (share * window)
    rise = np.where(x < 1, 0.5 - 0.5 * np.cos(np.pi * x), 1.0)
    fall = np.where(x > 2 / share - 1, 0.5 - 0.5 * np.cos(np.pi * (2 / share - x)), 1.0)
    return (rise * fall).astype(np.float32)


def _density(samples: np.ndarray, recipe: Recipe) -> np.ndarray:
    frames = _windows(np.clip(samples, -1.0, 1.0), recipe.window, recipe.hop)
    window = _tukey(recipe.window)
    power = np.abs(np.fft.rfft((frames - frames.mean(1, keepdims=True)) * window)) ** 2
    power[:, 1:-1] *= 2  # one side stands for both, but for the first and the last bin
    values = np.log(power / (recipe.rate * float((window**2).sum())) + LOG_FLOOR)
    return np.asarray((values - values.mean()) / (values.std() + 1e-9))


def _fbank(samples: np.ndarray, recipe: Recipe) -> np.ndarray:
    frames = _windows(samples - samples.mean(), recipe.window, recipe.hop)[: recipe.frames]
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], 1)
    size = 1 << (recipe.window - 1).bit_length()
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(recipe.window) / (recipe.window - 1))).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * window, size)) ** 2
    mel = np.log(np.maximum(power @ _mel_bank(recipe.bins, size, recipe.rate), KALDI_FLOOR))
    padded = np.pad(mel, ((0, recipe.frames - len(mel)), (0, 0)))  # with 0 before the scaling, as the original
    return np.asarray((padded - FBANK_MEAN) / FBANK_SPREAD)


def _mel_bank(bins: int, size: int, rate: int, low: float = 20.0) -> np.ndarray:
    """Triangles of equal width in mel, (size / 2 + 1, bins); the last frequency belongs to none, as in Kaldi."""
    mel = 1127.0 * np.log1p(np.arange(size // 2 + 1) * rate / size / 700.0)
    edges = np.linspace(1127.0 * np.log1p(low / 700.0), 1127.0 * np.log1p(rate / 2 / 700.0), bins + 2)
    rise = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0.0, np.minimum(rise, fall))
    bank[-1] = 0.0
    return np.asarray(bank, dtype=np.float32)


_KINDS = {"stft": _stft, "density": _density, "fbank": _fbank}
