"""Throughput of ``clcr prepare crema_d`` against a loop in the style of the originals. Not a test: run it by hand.

    pip install librosa pillow
    python tests/bench_prepare.py --clips 2000 --workers 2

The tree is synthetic but of the true shape: 480 x 360 Sorenson flv of 2.5 s at 30 frames a second, 16 kHz wav, names
and folders of CREMA-D. How far its key frames are apart is not known of the true files: --gop says it here.

The loop is one process and does what OGM-GE's scripts do with a clip. data/CREMAD/video_preprocessing.py: OpenCV
decodes every frame, those at one a second become JPEG files. dataset/CramedDataset.py: Pillow reads three of them,
converts them to RGB and resizes to 224 x 224, as torchvision's Resize does; librosa loads the sound at 22,050 Hz, it
is repeated to 3 s; librosa's STFT of 512 by 353, log(|S| + 1e-7). Left out of it: ToTensor and Normalize, and storing
what it made. Our side is the whole command: search, decoding, storing, digests, a check of the official counts.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent / "benchmarks"), str(Path(__file__).parent.parent)]

import synthetic_media  # noqa: E402

from benchmarks import catalog, prepared  # noqa: E402

FULL = 7442
CORES = 16
FPS, SIZE, SECONDS = 30, (480, 360), 2.5
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")


def ids() -> Iterator[tuple[str, str]]:
    """Names of CREMA-D's form, with their emotion; more than there are in truth."""
    for level, actor, sentence, emotion in itertools.product(
        ("XX", "HI"), range(1001, 1092), SENTENCES, synthetic_media.EMOTIONS
    ):
        yield f"{actor}_{sentence}_{emotion}_{level}", emotion


def tree(root: Path, clips: int, gop: int, distinct: int = 12) -> list[str]:
    """A source folder of that many clips, of which ``distinct`` are encoded and the others copies."""
    rows = list(itertools.islice(ids(), clips))
    synthetic_media.FPS, synthetic_media.GOP = FPS, gop
    for number, (clip, _) in enumerate(rows):
        video, sound = root / "VideoFlash" / f"{clip}.flv", root / "AudioWAV" / f"{clip}.wav"
        if number < distinct:
            synthetic_media.write_video(video, SECONDS, size=SIZE)
            synthetic_media.write_wav(sound, synthetic_media.tone(SECONDS, pitch=200 + 30 * number))
        else:
            model = rows[number % distinct][0]
            video.write_bytes((root / "VideoFlash" / f"{model}.flv").read_bytes())
            sound.write_bytes((root / "AudioWAV" / f"{model}.wav").read_bytes())
    cut = clips * 9 // 10
    for name, part in (("train.csv", rows[:cut]), ("test.csv", rows[cut:])):
        (root / name).write_text("".join(f"{clip},{emotion}\n" for clip, emotion in part))
    return [clip for clip, _ in rows]


class Originals:
    """What OGM-GE's scripts do with a clip."""

    libraries = ("opencv-contrib-python-headless", "pillow", "librosa", "soxr", "numpy")

    def __init__(self) -> None:
        self.cv2, self.image, self.librosa = _library("cv2"), _library("PIL.Image"), _library("librosa")
        self.librosa.stft(np.zeros(22050, np.float32), n_fft=512, hop_length=353)  # loads what it loads late

    def extract_images(self, video: Path, folder: Path) -> None:
        """video2frame_update: decode all, keep one a second."""
        folder.mkdir(parents=True)
        capture = self.cv2.VideoCapture(str(video))
        rate, count = int(capture.get(self.cv2.CAP_PROP_FPS)), capture.get(self.cv2.CAP_PROP_FRAME_COUNT)
        for index in range(int(count)):
            read, frame = capture.read()
            if not read:
                break
            if index % rate == 0:
                self.cv2.imencode(".jpg", frame)[1].tofile(f"{folder}/{index:05d}.jpg")

    def images(self, folder: Path, count: int = 3) -> list[np.ndarray]:
        """(224, 224, 3) uint8 each."""
        names = sorted(os.listdir(folder))[:count]
        pictures = [self.image.open(folder / name).convert("RGB") for name in names]
        return [np.asarray(picture.resize((224, 224), self.image.Resampling.BILINEAR)) for picture in pictures]

    def spectrogram(self, sound: Path) -> np.ndarray:
        """(257, 188) float32."""
        samples, _ = self.librosa.load(str(sound), sr=22050)
        tiled = np.tile(samples, 3)[: 22050 * 3]
        tiled[tiled > 1.0] = 1.0
        tiled[tiled < -1.0] = -1.0
        return np.log(np.abs(self.librosa.stft(tiled, n_fft=512, hop_length=353)) + 1e-7)


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"{name} cannot be loaded ({error}): the loop needs it; run `pip install librosa pillow`")


def loop(root: Path, clips: list[str], originals: Originals) -> float:
    """Clips per second of the loop."""
    out = root / "Image-01-FPS"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    for clip in clips:
        originals.extract_images(root / "VideoFlash" / f"{clip}.flv", out / clip)
        images, spectrogram = originals.images(out / clip), originals.spectrogram(root / "AudioWAV" / f"{clip}.wav")
        assert len(images) == 3
        assert spectrogram.shape == (257, 188)
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    return len(clips) / seconds


def ours(root: Path, cache: Path, workers: int) -> tuple[float, float]:
    """Seconds of the whole command, and of what comes after the last clip, which more cores do not make shorter."""
    shutil.rmtree(cache, ignore_errors=True)
    told: list[float] = []
    began = time.perf_counter()
    options = catalog.Options(
        workers, tell=lambda line: told.append(time.perf_counter()) if "clips/s" in line else None
    )
    folder = catalog.prepare("crema_d", root, cache, options)
    ended = time.perf_counter()
    assert len(prepared.load(folder).column("id"))
    return ended - began, ended - told[-1]


def _clocks() -> np.ndarray:
    """Seconds: the clock, processor time of this process and of those that it has ended, that of the whole machine."""
    busy = [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    whole = (sum(busy) - busy[3] - busy[4]) / os.sysconf("SC_CLK_TCK")  # idle, and idle while a disk is waited for
    return np.array([time.perf_counter(), sum(os.times()[:4]), whole])


def measured(root: Path, clips: list[str], originals: Originals, chosen: argparse.Namespace) -> dict[str, Any]:
    """The loop and the command by turns, and the medians."""
    rates, whole, after, clocks = [], [], [], [_clocks()]
    for _ in range(chosen.repetitions):
        rates.append(loop(root, clips[: chosen.loop_clips], originals))
        clocks.append(_clocks())
        seconds = ours(root, root.parent / "cache", chosen.workers)
        clocks.append(_clocks())
        whole.append(seconds[0])
        after.append(seconds[1])
    passed = np.diff(clocks, axis=0)
    others = (passed[:, 2] - passed[:, 1]) / passed[:, 0]
    loop_cpu_s, cpu_s = np.median(passed[0::2, 1]), np.median(passed[1::2, 1])
    rate, simple = len(clips) / statistics.median(whole), statistics.median(rates)
    rest = statistics.median(after)
    full = FULL / len(clips) * ((statistics.median(whole) - rest) * chosen.workers / CORES + rest)
    return {
        "clips": len(clips), "workers": chosen.workers, "frames_from_key_frame_to_key_frame": chosen.gop,
        "clips_per_s": round(rate, 1), "clips_per_s_each": [round(len(clips) / s, 1) for s in whole],
        "seconds": round(statistics.median(whole), 2), "seconds_after_the_last_clip": round(rest, 2),
        "loop_clips": chosen.loop_clips, "loop_clips_per_s": round(simple, 1),
        "loop_clips_per_s_each": [round(rate, 1) for rate in rates],
        "loop_libraries": {name: version(name) for name in Originals.libraries},
        "cpu_ms_per_clip": round(1000 * cpu_s / len(clips), 2),
        "loop_cpu_ms_per_clip": round(1000 * loop_cpu_s / chosen.loop_clips, 2),
        "ratio": round(rate / simple, 2), "cores_used_by_others_each": others[1::2].clip(0).round(2).tolist(),
        "cores_used_by_others_during_the_loop_each": others[0::2].clip(0).round(2).tolist(),
        f"predicted_seconds_{FULL}_clips_{CORES}_cores_if_decoding_scales": round(full, 1),
    }  # fmt: skip


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--loop-clips", type=int, default=200)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--gop", type=int, default=synthetic_media.GOP, help="frames from a key frame to the next")
    chosen = parser.parse_args()
    originals = Originals()
    with tempfile.TemporaryDirectory() as folder:
        clips = tree(Path(folder) / "source", chosen.clips, chosen.gop)
        print(json.dumps(measured(Path(folder) / "source", clips, originals, chosen), indent=1))


if __name__ == "__main__":
    main()
