"""Throughput of ``clcr prepare crema_d`` against a loop in the style of the originals. Not a test: run it by hand.

    python tests/bench_prepare.py --clips 2000 --workers 2 [--baseline-clips 100]

The tree is synthetic but of the true shape: 480 x 360 Sorenson flv of 2.5 s at 30 frames a second, 16 kHz wav, names
and folders of CREMA-D. The loop does what OGM-GE's video_preprocessing.py and CramedDataset.py do, file by file in one
process: decode every frame with OpenCV, write three as JPEG, read and resize them; load the sound at 22,050 Hz and take
the STFT, with librosa where it is installed (else scipy's resampler and numpy's FFT, which is faster than librosa).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent / "benchmarks"), str(Path(__file__).parent.parent)]

import synthetic_media  # noqa: E402

from benchmarks import catalog, prepared  # noqa: E402
from benchmarks.media import need  # noqa: E402

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


def tree(root: Path, clips: int, distinct: int = 12) -> list[str]:
    """A source folder of that many clips, of which ``distinct`` are encoded and the others copies."""
    rows = list(itertools.islice(ids(), clips))
    synthetic_media.FPS = FPS
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


def load_sound(path: Path) -> tuple[np.ndarray, str]:
    """The waveform at 22,050 Hz as librosa gives it, or scipy, and which it was."""
    try:
        import librosa

        return librosa.load(str(path), sr=22050)[0], "librosa"
    except ImportError:
        from scipy.io import wavfile
        from scipy.signal import resample_poly

        rate, samples = wavfile.read(path)
        return resample_poly(samples / 32768.0, 22050, rate), "scipy"


def spectrum(samples: np.ndarray) -> np.ndarray:
    """CramedDataset.py's spectrogram."""
    tiled = np.clip(np.tile(samples, 3)[: 22050 * 3], -1.0, 1.0)
    try:
        import librosa

        return np.log(np.abs(librosa.stft(tiled, n_fft=512, hop_length=353)) + 1e-7)
    except ImportError:
        padded = np.pad(tiled, 256, mode="reflect")
        frames = np.stack([padded[start : start + 512] for start in range(0, len(padded) - 511, 353)])
        return np.log(np.abs(np.fft.rfft(frames * np.hanning(512))) + 1e-7)


def loop(root: Path, clips: list[str]) -> tuple[float, str]:
    """Clips per second of the loop, and what read the sound."""
    cv2 = need("cv2")
    cv2.setNumThreads(1)
    out = root / "frames"
    out.mkdir(exist_ok=True)
    load_sound(root / "AudioWAV" / f"{clips[0]}.wav")  # imports and compiles
    spectrum(np.zeros(22050, np.float32) + 0.1)
    began, used = time.perf_counter(), ""
    for clip in clips:
        capture = cv2.VideoCapture(str(root / "VideoFlash" / f"{clip}.flv"))
        frames = []
        while (read := capture.read())[0]:
            frames.append(read[1])
        for number in range(3):
            path = str(out / f"{clip}_{number}.jpg")
            cv2.imwrite(path, frames[int((number + 0.5) * len(frames) / 3)])
            cv2.resize(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB), (224, 224))
        samples, used = load_sound(root / "AudioWAV" / f"{clip}.wav")
        np.save(out / f"{clip}.npy", spectrum(samples))
    return len(clips) / (time.perf_counter() - began), used


def ours(root: Path, cache: Path, workers: int) -> float:
    """Clips per second of the whole command: search, decoding, writing, digests."""
    began = time.perf_counter()
    folder = catalog.prepare("crema_d", root, cache, catalog.Options(workers))
    seconds = time.perf_counter() - began
    return len(prepared.load(folder).column("id")) / seconds


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--baseline-clips", type=int, default=200)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = tree(Path(folder) / "source", chosen.clips)
        rate = ours(Path(folder) / "source", Path(folder) / "cache", chosen.workers)
        simple, used = loop(Path(folder) / "source", clips[: chosen.baseline_clips])
    hours = FULL / (rate / chosen.workers * CORES) / 3600
    print(json.dumps({
        "clips": chosen.clips, "workers": chosen.workers, "clips_per_s": round(rate, 1),
        "loop_clips_per_s": round(simple, 1), "loop_sound": used, "ratio": round(rate / simple, 2),
        f"predicted_minutes_{FULL}_clips_{CORES}_cores_if_linear": round(60 * hours, 1),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
