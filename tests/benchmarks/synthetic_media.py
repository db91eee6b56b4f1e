"""Small synthetic media in real containers and codecs, and source trees of the shapes that users have."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np

FPS = 10
GOP = 8  # frames from a key frame to the next
CODECS = {".flv": ("flv", "mp3"), ".mp4": ("libx264", "aac"), ".avi": ("mpeg4", "mp3")}
EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")


def tone(seconds: float, rate: int = 16000, pitch: float = 440.0) -> np.ndarray:
    """A sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """16-bit PCM; samples (n,) mono or (n, channels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def picture(index: int, count: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A frame that tells its place: brightness rises from 40 to 200 with the index; texture makes flow possible."""
    width, height = size
    base = 40 + 160 * index / max(count - 1, 1)
    y, x = np.mgrid[:height, :width]
    texture = 12 * np.sin((x - index) / 3.0) * np.cos(y / 3.0)
    return np.repeat((base + texture)[..., None], 3, 2).clip(0, 255).astype(np.uint8)


def place(frame: np.ndarray) -> float:
    """0..1: where in the video a decoded picture was."""
    return (float(frame.mean()) - 40) / 160


def write_video(
    path: Path, seconds: float = 2.0, sound: np.ndarray | None = None, size: tuple[int, int] = (64, 48)
) -> Path:
    """A video in the codecs usual for the container, with an audio track where ``sound`` (44.1 kHz mono) is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video_codec, audio_codec = CODECS[path.suffix]
    count = round(seconds * FPS)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(video_codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.gop_size = GOP
        track = out.add_stream(audio_codec, rate=44100, layout="mono") if sound is not None else None
        for index in range(count):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(index, count, size), format="rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
        if track is not None and sound is not None:
            for packet in _sound_packets(track, sound):
                out.mux(packet)
    return path


def _sound_packets(track: av.AudioStream, sound: np.ndarray) -> list[av.Packet]:
    size = 1152 if track.codec_context.name.endswith("mp3") or "mp3" in track.codec_context.name else 1024
    packets = []
    for start in range(0, len(sound) - size, size):
        frame = av.AudioFrame.from_ndarray(sound[None, start : start + size], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, start
        packets += track.encode(frame)
    return [*packets, *track.encode()]


def crema_d(root: Path, per_class: int = 4, container: str = ".flv", seconds: float = 1.2) -> list[str]:
    """CREMA-D's layout: train.csv, test.csv, AudioWAV and VideoFlash; returns the clip ids."""
    rows = [(f"{1001 + n}_IEO_{code}_XX", code) for n in range(per_class) for code in EMOTIONS]
    for number, (clip, _) in enumerate(rows):
        write_wav(root / "AudioWAV" / f"{clip}.wav", tone(1.1 + 0.05 * (number % 5), pitch=200 + 20 * number))
        write_video(root / "VideoFlash" / f"{clip}{container}", seconds)
    cut = len(rows) * 3 // 4
    (root / "train.csv").write_text("".join(f"{clip},{code}\n" for clip, code in rows[:cut]))
    (root / "test.csv").write_text("".join(f"{clip},{code}\n" for clip, code in rows[cut:]))
    return [clip for clip, _ in rows]


def sounding(path: Path, seconds: float) -> Path:
    """A video with a tone."""
    return write_video(path, seconds, tone(seconds, 44100))
