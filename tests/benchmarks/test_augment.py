"""Crops and flips: the stream against plain integers, the boxes against a plain loop, the pixels against a cut."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from benchmarks.augment import ATTEMPTS, RATIO, SCALE, Augmentation, augmentation, augments
from benchmarks.data import FoldData
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Fold, Prepared
from benchmarks.record import RunKey
from benchmarks.runner.config import resolve
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol

SEEDS = (3, 2**62 + 17, 5)
WORD = 1 << 64


def mixed(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def plain_uniform(seed: int, epoch: int, sample: int, count: int) -> list[float]:
    step = 0x9E3779B97F4A7C15
    state = mixed((mixed((mixed(seed) + step * (epoch + 1)) % WORD) + step * (sample + 1)) % WORD)
    return [(mixed((state + step * place) % WORD) >> 11) / 2**53 for place in range(1, count + 1)]


def plain_crop(drawn: list[float], height: int, width: int) -> tuple[int, int, int, int, bool]:
    """torchvision's RandomResizedCrop.get_params, one sample at a time: top, left, height, width, and the flip."""
    down, right, flip = drawn[2 * ATTEMPTS :]
    for share, aspect in zip(drawn[:ATTEMPTS], drawn[ATTEMPTS : 2 * ATTEMPTS], strict=True):
        area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * share)
        ratio = math.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * aspect)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w, flip < 0.5
    if width / height < RATIO[0]:
        w, h = width, round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w, h = round(height * RATIO[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w, flip < 0.5


def test_the_stream_is_splitmix64_of_seed_epoch_and_sample() -> None:
    samples = torch.tensor([0, 1, 70_000])
    for seed in SEEDS:
        for epoch in (0, 1, 99):
            found = Augmentation(seed, epoch).uniform(samples, 4)
            assert found.tolist() == [plain_uniform(seed, epoch, sample, 4) for sample in samples.tolist()]


def test_the_stream_is_uniform_and_its_parts_are_independent() -> None:
    drawn = Augmentation(7, 0).uniform(torch.arange(20_000), 5)
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in drawn.T.numpy())
    others = [Augmentation(8, 0).uniform(torch.arange(20_000), 5), Augmentation(7, 1).uniform(torch.arange(20_000), 5)]
    columns = torch.cat([drawn[:-1], drawn[1:], *(other[:-1] for other in others)], 1)  # neighbours, seeds, epochs
    correlation = np.corrcoef(columns.T.numpy()) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 5 / math.sqrt(20_000)
    pairs, _, _ = np.histogram2d(drawn[:-1, 0].numpy(), drawn[1:, 0].numpy(), bins=10)
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(224, 224), (24, 100), (100, 24), (30, 28)])
def test_crops_are_those_of_a_plain_loop(height: int, width: int) -> None:
    samples = torch.arange(400)
    crops = Augmentation(5, 2).crops(samples, height, width)
    found = torch.stack([crops.top, crops.left, crops.height, crops.width], 1).int().tolist()
    for sample in samples.tolist():
        *box, flip = plain_crop(plain_uniform(5, 2, sample, 2 * ATTEMPTS + 3), height, width)
        assert (found[sample], bool(crops.flip[sample])) == (box, flip)
    assert bool((crops.top + crops.height <= height).all())
    assert bool((crops.left + crops.width <= width).all())
    if height == width:
        share = crops.height * crops.width / (height * width)
        assert 0.07 < float(share.min()) < 0.12
        assert 0.9 < float(share.max()) <= 1
        assert 0.4 < float(crops.flip.double().mean()) < 0.6


def test_a_crop_depends_on_stream_epoch_and_sample_alone() -> None:
    samples = torch.stack([torch.randperm(50)[:20] for _ in SEEDS])
    group = Augmentation(SEEDS, 4).crops(samples, 56, 56)
    for place, seed in enumerate(SEEDS):
        alone = Augmentation(seed, 4).crops(torch.arange(50), 56, 56)
        for name in ("top", "left", "height", "width", "flip"):
            assert torch.equal(getattr(group, name)[place], getattr(alone, name)[samples[place]])
    other = Augmentation(SEEDS[0], 5).crops(samples[0], 56, 56)
    assert not torch.equal(other.top, group.top[0])


def test_pixels_are_cut_resized_and_flipped() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (12, 2, 3, 20, 26), dtype=torch.uint8)
    augment, samples = Augmentation(1, 0), torch.arange(12)
    found, crops = augment.apply(pictures, samples), augment.crops(samples, 20, 26)
    assert found.dtype == torch.float32
    assert 0 < int(crops.flip.sum()) < 12
    for sample in range(12):
        top, left, tall, wide = (int(getattr(crops, name)[sample]) for name in ("top", "left", "height", "width"))
        cut = pictures[sample, ..., top : top + tall, left : left + wide].float()
        want = functional.interpolate(cut, (20, 26), mode="bilinear", align_corners=False)
        want = want.flip(-1) if crops.flip[sample] else want
        torch.testing.assert_close(found[sample], want, rtol=0, atol=2e-3)


def test_a_flipped_flow_changes_the_sign_of_its_horizontal_part() -> None:
    """A flow that points right everywhere points left in the mirror; no motion stays none, and v is untouched."""
    stored = torch.full((40, 3, 2, 16, 16), 128, dtype=torch.uint8)
    stored[:, :, 0], stored[:, 1, :] = 200, 128
    stored[:, 2, 1] = 90
    augment, samples = Augmentation(2, 0), torch.arange(40)
    flip = augment.crops(samples, 16, 16).flip
    found = augment.apply(stored, samples, zero=128.0)
    assert 0 < int(flip.sum()) < 40
    assert (found[flip, 0, 0] - 56).abs().max() < 1e-3
    assert (found[~flip, 0, 0] - 200).abs().max() < 1e-3
    assert (found[:, 1] - 128).abs().max() < 1e-3
    assert (found[:, 2, 1] - 90).abs().max() < 1e-3
    assert (augment.apply(stored, samples)[:, 0, 0] - 200).abs().max() < 1e-3


FLOW = {"scale": 20 / 127, "offset": -20 * 128 / 127}
MODALITIES = (
    ModalitySpec("rgb", "rgb", "frames", (2, 32, 32, 3), backbone="resnet18", standardise=True),
    ModalitySpec("flow", "flow", "frames", (2, 32, 32, 2), backbone="resnet18", flow=True),
    ModalitySpec("small", "rgb", "frames", (2, 32, 32, 3), backbone="frames_conv"),
    ModalitySpec("sound", "sound", "spectrogram", (40, 36), backbone="resnet18"),
)


def open_data() -> FoldData:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "rgb": rng.integers(0, 256, (30, 2, 32, 32, 3)).astype(np.uint8),
        "flow": rng.integers(1, 256, (30, 2, 32, 32, 2)).astype(np.uint8),
        "sound": rng.normal(size=(30, 40, 36)).astype(np.float16),
    }
    prepared = Prepared("toy", arrays, {}, {}, {"rgb": {"scale": 1 / 255}, "flow": FLOW})
    protocol = Protocol("p", "P", MODALITIES, n_classes=2)
    spec = BenchmarkSpec("toy", "Toy", "classification", (protocol,), ("accuracy",), "accuracy", "", "", "")
    return FoldData(prepared, spec, protocol, arrangement(0))


def arrangement(seed: int) -> Arrangement:
    order = np.random.default_rng(seed).permutation(30)
    rows = {modality.name: order for modality in MODALITIES}
    return Arrangement(rows, np.arange(30) % 2, order.astype(str), (Fold(order[:20], order[20:25], order[25:]),))


def test_only_pictures_that_resnet18_reads_are_augmented_and_only_where_asked() -> None:
    data, samples = open_data(), np.arange(10)
    plain, changed = data.batch(samples), data.batch(samples, augmentation("crop_flip", 1, 0))
    same = [torch.equal(x, y) for x, y in zip(plain.inputs, changed.inputs, strict=True)]
    assert same == [False, False, True, True] == [not augments(modality) for modality in MODALITIES]
    assert augmentation("none", 1, 0) is None
    crops = Augmentation(1, 0).crops(torch.from_numpy(samples), 32, 32)
    for sample in range(10):  # after standardisation, and alike in both streams of a sample
        top, left, tall, wide = (int(getattr(crops, name)[sample]) for name in ("top", "left", "height", "width"))
        for place, sign in ((0, 1.0), (1, -1.0)):
            cut = plain.inputs[place][sample, ..., top : top + tall, left : left + wide]
            want = functional.interpolate(cut, (32, 32), mode="bilinear", align_corners=False)
            if crops.flip[sample]:
                want = want.flip(-1)
                want[:, 0] *= sign
            torch.testing.assert_close(changed.inputs[place][sample], want, rtol=0, atol=1e-3)


def test_seeds_together_are_augmented_as_each_would_be_alone() -> None:
    data = open_data()
    alone = [data, data.at(arrangement(1)), data.at(arrangement(2))]
    samples = np.stack([one.indices["train"][:6] for one in alone])
    group = FoldData.together(alone).batch(samples, Augmentation(SEEDS, 3))
    for place, (one, own, seed) in enumerate(zip(alone, samples, SEEDS, strict=True)):
        solo = one.batch(own, Augmentation(seed, 3))
        assert all(torch.equal(x[place], y) for x, y in zip(group.inputs, solo.inputs, strict=True))


def test_a_flow_stored_around_zero_is_mirrored_around_zero() -> None:
    modality = replace(MODALITIES[1], backbone="resnet18")
    rows = np.full((4, 2, 32, 32, 2), 50, dtype=np.int8)
    prepared = Prepared("toy", {"flow": rows}, {}, {}, {"flow": {"scale": 1 / 16, "offset": 0.0}})
    protocol = Protocol("p", "P", (modality,), n_classes=2)
    spec = BenchmarkSpec("toy", "Toy", "classification", (protocol,), ("accuracy",), "accuracy", "", "", "")
    fold = Fold(np.arange(2), np.array([2]), np.array([3]))
    given = Arrangement({"flow": np.arange(4)}, np.arange(4) % 2, np.arange(4).astype(str), (fold,))
    samples, augment = torch.arange(4), Augmentation(4, 0)
    flip = augment.crops(samples, 32, 32).flip
    assert 0 < int(flip.sum()) < 4
    x = FoldData(prepared, spec, protocol, given).batch(samples, augment).inputs[0]
    want = torch.where(flip, -50 / 16, 50 / 16)[:, None, None, None].expand(-1, 2, 32, 32)
    torch.testing.assert_close(x[:, :, 0], want)
    torch.testing.assert_close(x[:, :, 1], torch.full_like(want, 50 / 16))


@pytest.mark.parametrize("profile", ["paper", "tuned"])
@pytest.mark.parametrize("benchmark", ["crema_d.paper", "kinetics_sounds.paper", "ave.paper", "ucf101.split1"])
def test_full_size_profiles_augment_the_audio_visual_four_and_nothing_else(profile: str, benchmark: str) -> None:
    name, _, protocol = benchmark.partition(".")
    key = RunKey(name, protocol, "real", profile, "late_fusion", "full", 0)
    assert resolve(key).encoder.augment == "crop_flip"
    assert resolve(key, ["encoder.augment=none"]).encoder.augment == "none"
    weights = resolve(key, ["encoder.checkpoint=/somewhere/resnet18.pth"])
    assert weights.encoder.checkpoint == "/somewhere/resnet18.pth"
    assert weights.canonical() == resolve(key).canonical()  # the content has a digest of its own, the path has none
    for other in (replace(key, data="twin"), replace(key, benchmark="cmu_mosi", protocol="transcripts")):
        encoder = resolve(other, ["encoder.checkpoint=/somewhere/resnet18.pth"]).encoder
        assert (encoder.augment, encoder.checkpoint) == ("none", "")
    with pytest.raises(InputError, match=r"encoder\.augment = 'flip': must be one of none, crop_flip"):
        resolve(key, ["encoder.augment=flip"])
