"""Decoders and recipes: the right frames, the right samples, spectrograms as their sources define them. The media are
synthetic, in real containers and codecs, but for those of CLCR_DATA."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import signal
from synthetic_media import FPS, place, tone, write_video, write_wav

from benchmarks.media import MediaFault, audio, flow, video
from benchmarks.media.audio import RECIPES, spectrogram, waveform
from benchmarks.media.video import Sampling

DATA = os.environ.get("CLCR_DATA", "")


@pytest.mark.parametrize("suffix", [".flv", ".mp4", ".avi"])
def test_the_frames_are_those_of_the_stated_places(suffix: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"v{suffix}", 3.0)
    frames = video.frames(path, Sampling(3, "middles"))
    assert frames.shape == (3, 224, 224, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_allclose([place(frame) for frame in frames], [5 / 29, 15 / 29, 25 / 29], atol=0.025)


def test_one_frame_a_second_then_three_of_ten(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 10.0)
    assert Sampling(3, "one_fps").places(0.0, 10.0) == [1.5, 5.5, 8.5]
    found = [place(frame) for frame in video.frames(path, Sampling(3, "one_fps"))]
    np.testing.assert_allclose(found, [0.15, 0.55, 0.85], atol=0.03)


def test_an_event_counts_alone(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 10.0)
    found = [place(frame) for frame in video.frames(path, Sampling(4), (6.0, 8.0))]
    np.testing.assert_allclose(found, [0.625, 0.675, 0.725, 0.775], atol=0.03)


def test_decoding_only_the_groups_that_matter_gives_the_frames_of_a_full_decode(tmp_path: Path) -> None:
    import av

    path = write_video(tmp_path / "v.mp4", 6.0)
    with av.open(str(path)) as container:
        whole = [video.square(frame) for frame in container.decode(video=0)]
    wanted = [round(place * FPS) for place in Sampling(3).places(0.0, 6.0)]
    np.testing.assert_array_equal(video.frames(path, Sampling(3)), [whole[index] for index in wanted])


@pytest.mark.parametrize(
    ("size", "expected"), [((320, 240), (341, 256)), ((240, 320), (256, 341)), ((64, 64), (256, 256))]
)
def test_the_short_side_is_scaled_to_256(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert video.scaled_size(*size) == expected


def test_channels_are_averaged_and_full_scale_is_one(tmp_path: Path) -> None:
    left, right = tone(0.5), -tone(0.5) * 0.5
    path = write_wav(tmp_path / "a.wav", np.stack([left, right], 1))
    np.testing.assert_allclose(waveform(path, 16000), (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize("rate", [1, 999])
def test_a_rate_at_which_nothing_sounds_is_refused_before_it_fills_the_memory(rate: int, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(1.0), rate)
    tracemalloc.start()
    with pytest.raises(MediaFault, match=f"{rate} samples a second, at least 1000 needed"):
        waveform(path, 22050)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("rate", [8000, 14000, 16000, 44100, 48000])
def test_a_tone_keeps_its_pitch_and_length_at_any_rate(rate: int, tmp_path: Path) -> None:
    found = waveform(write_wav(tmp_path / "a.wav", tone(1.0, rate), rate), 22050)
    assert abs(len(found) - 22050) <= 32
    peak = np.argmax(np.abs(np.fft.rfft(found))) * 22050 / len(found)
    assert abs(peak - 440) < 2
    assert abs(np.sqrt((found[2000:-2000] ** 2).mean()) - 0.5 / np.sqrt(2)) < 0.01


@pytest.mark.parametrize("suffix", [".mp4", ".flv", ".avi"])
def test_the_sound_of_a_video_is_read(suffix: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"v{suffix}", 2.0, tone(2.0, 44100))
    found = waveform(path, 16000)
    assert 1.85 * 16000 < len(found) < 2.15 * 16000
    assert abs(np.argmax(np.abs(np.fft.rfft(found))) * 16000 / len(found) - 440) < 3


def test_a_span_cuts_the_sound(tmp_path: Path) -> None:
    samples = np.concatenate([tone(1.0), 0.1 * tone(1.0)])
    found = waveform(write_wav(tmp_path / "a.wav", samples), 16000, (1.0, 2.0))
    np.testing.assert_allclose(found, 0.1 * tone(1.0), atol=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_the_shape_that_it_states(name: str) -> None:
    recipe = RECIPES[name]
    for seconds in (1.0, 4.0, 12.0):
        samples = np.random.default_rng(0).normal(size=round(seconds * recipe.rate)).astype(np.float32)
        found = spectrogram(samples, recipe)
        assert found.shape == (recipe.frames, recipe.bins)
        assert found.dtype == np.float16
        assert np.isfinite(found).all()


def test_ogm_ge_is_the_centred_stft_of_the_tiled_and_clipped_waveform() -> None:
    samples = np.random.default_rng(1).normal(scale=0.6, size=30000).astype(np.float32)
    tiled = np.clip(np.tile(samples, 3)[: 3 * 22050], -1, 1)
    padded = np.pad(tiled, 256, mode="reflect")
    window = signal.get_window("hann", 512)
    frames = [np.fft.rfft(padded[353 * t : 353 * t + 512] * window) for t in range(188)]
    expected = np.log(np.abs(frames) + 1e-7)
    found = spectrogram(samples, RECIPES["ogm_ge"])
    assert found.shape == (188, 257)
    np.testing.assert_allclose(found, expected, atol=2e-2)


@pytest.mark.parametrize(("name", "rate"), [("pmr_3s", 16000), ("pmr_10s", 16000)])
def test_pmr_is_scipys_spectrogram_standardised(name: str, rate: int) -> None:
    recipe = RECIPES[name]
    samples = np.random.default_rng(2).normal(scale=0.3, size=round((recipe.seconds or 0) * rate)).astype(np.float32)
    _, _, power = signal.spectrogram(np.clip(samples, -1, 1), rate, nperseg=512, noverlap=353)
    expected = np.log(power + 1e-7)
    expected = (expected - expected.mean()) / (expected.std() + 1e-9)
    np.testing.assert_allclose(spectrogram(samples, recipe).T, expected, atol=5e-3)


def test_fbank_has_the_energy_of_a_tone_in_the_tones_band_and_zeros_after_its_end() -> None:
    recipe = RECIPES["fbank"]
    found = spectrogram(tone(2.0, pitch=1000.0), recipe).astype(np.float64)
    edges = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(8000 / 700), 130)
    centre = int(np.argmin(np.abs(edges[1:-1] - 1127 * np.log1p(1000 / 700))))
    assert abs(int(found[:198].mean(0).argmax()) - centre) <= 1
    np.testing.assert_allclose(found[198:], 4.503877 / (2 * 5.141276), atol=1e-3)


def test_chunks_before_and_after_the_sound_change_nothing(tmp_path: Path) -> None:
    plain = write_wav(tmp_path / "plain.wav", tone(1.5))
    body = plain.read_bytes()[12:]  # fmt, data
    notes = b"LIST" + (100_004).to_bytes(4, "little") + b"INFO" + bytes(100_000)
    for number, parts in enumerate(([notes, body], [body[:24], notes, body[24:]], [body, notes])):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(b"RIFF" + (4 + sum(map(len, parts))).to_bytes(4, "little") + b"WAVE" + b"".join(parts))
        np.testing.assert_array_equal(audio.waveform(path, 22050), audio.waveform(plain, 22050))


def test_fbank_of_a_known_frame() -> None:
    """One frame by the textbook: mean removed, pre-emphasis 0.97, symmetric Hann, 512-point power, log."""
    samples = np.random.default_rng(3).normal(size=400).astype(np.float32)
    frame = samples - samples.mean()
    frame = frame - 0.97 * np.r_[frame[0], frame[:-1]]
    power = np.abs(np.fft.rfft(frame * np.hanning(400), 512)) ** 2
    mel = 1127 * np.log(1 + np.arange(257) * 16000 / 512 / 700)
    edges = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), 130)
    expected = [np.log(max(sum(power[k] * np.interp(mel[k], edges[b : b + 3], [0, 1, 0]) for k in range(256)), 1.2e-7))
                for b in range(128)]  # fmt: skip
    found = spectrogram(samples, RECIPES["fbank"])[0].astype(np.float64) * 2 * 5.141276 - 4.503877
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_arl_takes_the_middle_five_seconds() -> None:
    samples = np.concatenate([np.zeros(40000), tone(5.0), np.zeros(40000)]).astype(np.float32)
    found = spectrogram(samples, RECIPES["arl_5s"])
    inside = spectrogram(np.tile(tone(5.0), 2).astype(np.float32), RECIPES["arl_5s"])
    assert np.abs(found[2:-2].argmax(1) - 7).max() <= 1
    assert found.shape == inside.shape == (626, 129)


@pytest.mark.parametrize("algorithm", flow.ALGORITHMS)
def test_flow_finds_a_shift_and_a_flip_changes_the_sign_of_u(algorithm: str) -> None:
    rng = np.random.default_rng(4)
    big = signal.convolve2d(rng.normal(size=(96, 96)), np.ones((7, 7)) / 7, mode="same")
    grey = ((big - big.min()) / np.ptp(big) * 255).astype(np.uint8)
    first, second = grey[:, 4:-4], grey[:, 2:-6]  # the content moves 2 pixels to the right
    found = flow.between(np.ascontiguousarray(first), np.ascontiguousarray(second), algorithm)
    inner = found[20:-20, 20:-20]
    np.testing.assert_allclose(np.median(inner, (0, 1)), [2.0, 0.0], atol=0.25)
    mirrored = flow.between(*(np.ascontiguousarray(part[:, ::-1]) for part in (first, second)), algorithm)
    np.testing.assert_allclose(np.median(mirrored[20:-20, 20:-20], (0, 1)), [-2.0, 0.0], atol=0.25)


def test_stored_flow_has_an_exact_zero_and_a_flip_within_the_bytes() -> None:
    values = np.array([0.0, 1.0, -1.0, 20.0, -20.0, 99.0])
    stored = flow.quantised(values)
    assert stored.tolist() == [128, 134, 122, 255, 1, 255]
    np.testing.assert_array_equal(flow.quantised(-values), 256 - stored.astype(int))
    pixels = flow.META["offset"] + flow.META["scale"] * stored[0]
    assert abs(pixels) < 1e-12


def test_frames_and_flow_show_the_same_squares(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 3.0)
    rgb, motion = flow.frames_and_flow(path, Sampling(3), "farneback")
    np.testing.assert_array_equal(rgb, video.frames(path, Sampling(3)))
    assert motion.shape == (3, 224, 224, 2)
    assert motion.dtype == np.uint8


def test_published_flow_pictures_are_read(tmp_path: Path) -> None:
    import cv2

    for axis, value in (("u", 127.5 + 127.5 * 4 / 20), ("v", 127.5)):
        (tmp_path / axis).mkdir()
        for number in range(9):
            cv2.imwrite(str(tmp_path / axis / f"frame{number:06d}.jpg"), np.full((256, 340), round(value), np.uint8))
    found = flow.published(tmp_path / "u", tmp_path / "v", Sampling(3))
    pixels = flow.META["offset"] + flow.META["scale"] * found.astype(float)
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), [4.0, 0.0], atol=0.2)
    (tmp_path / "v" / "frame000008.jpg").unlink()
    with pytest.raises(MediaFault, match="too_short"):
        flow.published(tmp_path / "u", tmp_path / "v", Sampling(3))


@pytest.mark.skipif(not DATA, reason="CLCR_DATA is not set: it names the folder of published files")
def test_true_files_are_decoded() -> None:
    media = Path(DATA) / "raw_media"
    for path in sorted(media.iterdir()):
        if path.suffix in (".avi", ".mp4"):
            assert video.frames(path, Sampling(3)).std() > 10
        if path.suffix == ".wav":
            assert spectrogram(waveform(path, 22050), RECIPES["ogm_ge"]).shape == (188, 257)
    with pytest.raises(MediaFault, match="no_audio"):
        waveform(media / "mmaction2_demo.mp4", 16000)


@pytest.mark.skipif(not DATA, reason="CLCR_DATA is not set: it names the folder of published files")
def test_the_crawling_babies_are_heard_and_the_push_ups_are_silent() -> None:
    clips = Path(DATA) / "ucf101_raw"
    heard = [audio.waveform(path, 16000) for path in sorted(clips.glob("BabyCrawling/*.avi"))[:5]]
    with pytest.raises(MediaFault, match="silent"):  # a track of zeros in the true file
        audio.waveform(clips / "BabyCrawling" / "v_BabyCrawling_g06_c03.avi", 16000)
    assert all(1.0 < len(samples) / 16000 < 15 for samples in heard)
    assert all(0.001 < np.abs(samples).max() <= 1.5 for samples in heard)
    with pytest.raises(MediaFault, match="no_audio"):
        audio.waveform(next(clips.glob("PushUps/*.avi")), 16000)
