"""Backbones: shapes, masks, padding that reaches nothing, gradients. Inputs are random."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks import encoders
from benchmarks.encoders import build_backbone
from benchmarks.errors import InputError
from benchmarks.spec import ModalitySpec
from clcr.api import Passthrough
from clcr.config import EncoderConfig
from clcr.layers import fold

ENCODER = EncoderConfig(width=16)
SPECTROGRAM = ModalitySpec("audio", "a", "spectrogram", (45, 6), backbone="sequence_conv")
IMAGE = ModalitySpec("image", "i", "image", (28, 28, 1), backbone="image_conv")
FRAMES = ModalitySpec("rgb", "r", "frames", (3, 32, 40, 3), backbone="frames_conv")
RESNET = [
    replace(SPECTROGRAM, shape=(70, 40), backbone="resnet18"),
    replace(IMAGE, shape=(40, 33, 1), backbone="resnet18"),
    replace(FRAMES, backbone="resnet18"),
    replace(FRAMES, name="flow", shape=(3, 32, 40, 2), backbone="resnet18"),
]


def inputs(spec: ModalitySpec, batch: int = 4) -> tuple[Tensor, Tensor]:
    """A random input as ``FoldData`` makes it, everything real."""
    torch.manual_seed(1)
    shape = spec.shape
    if spec.layout == "image":
        return torch.randn(batch, shape[2], *shape[:2]), torch.ones(batch, 1, dtype=torch.bool)
    if spec.layout == "frames":
        return torch.randn(batch, shape[0], shape[3], *shape[1:3]), torch.ones(batch, shape[0], dtype=torch.bool)
    return torch.randn(batch, *shape), torch.ones(batch, shape[0], dtype=torch.bool)


@pytest.mark.parametrize("spec", [SPECTROGRAM, IMAGE, FRAMES, *RESNET], ids=lambda s: f"{s.backbone}-{s.layout}")
def test_tokens_are_as_the_modality_says_and_every_parameter_trains(spec: ModalitySpec) -> None:
    torch.manual_seed(0)
    backbone, modality = build_backbone(spec, ENCODER)
    x, mask = inputs(spec)
    tokens, kept = backbone(x, mask)
    assert tokens.shape == (4, modality.tokens, modality.width)
    assert kept.shape == tokens.shape[:2]
    assert kept.dtype == torch.bool
    assert modality.name == spec.name
    assert modality.width == 16
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())


@pytest.mark.parametrize(
    ("spec", "tokens", "levelled"),
    [
        (ModalitySpec("v", "v", "vector", (7,)), 1, False),
        (ModalitySpec("v", "v", "tokens", (5, 7)), 5, False),
        (ModalitySpec("v", "v", "levels", (3, 5, 7)), 5, True),
    ],
)
def test_what_already_comes_as_tokens_is_passed_through(spec: ModalitySpec, tokens: int, levelled: bool) -> None:
    backbone, modality = build_backbone(spec, ENCODER)
    assert isinstance(backbone, Passthrough)
    assert (modality.width, modality.tokens, modality.levelled) == (7, tokens, levelled)


def test_padding_of_a_spectrogram_reaches_no_real_token() -> None:
    backbone, _ = build_backbone(SPECTROGRAM, ENCODER)
    x, mask = inputs(SPECTROGRAM)
    lengths = torch.tensor([45, 17, 1, 0])
    mask = torch.arange(45) < lengths[:, None]
    tokens, kept = backbone(x, mask)
    assert kept.sum(1).tolist() == [12, 5, 1, 0]
    other, _ = backbone(torch.where(mask[..., None], x, 1e3), mask)
    assert torch.equal(other[kept], tokens[kept])
    trimmed, short = backbone(x[1:2, :17], mask[1:2, :17])
    torch.testing.assert_close(trimmed[0], tokens[1, :5])
    assert bool(short.all())


def test_a_padded_frame_reaches_no_token_of_another() -> None:
    backbone, _ = build_backbone(FRAMES, ENCODER)
    x, _ = inputs(FRAMES)
    mask = torch.tensor([[True, True, False]] * 4)
    tokens, kept = backbone(x, mask)
    assert kept.sum(1).tolist() == [8] * 4
    x[:, 2] = 1e3
    torch.testing.assert_close(backbone(x, mask)[0][kept], tokens[kept])


def test_padded_values_do_not_enter_resnet18() -> None:
    spec = RESNET[0]
    backbone, _ = build_backbone(spec, ENCODER)
    x, _ = inputs(spec)
    mask = torch.arange(70) < torch.tensor([70, 33, 1, 40])[:, None]
    tokens, kept = backbone(x, mask)
    assert kept.sum(1).tolist() == [3, 2, 1, 2]
    torch.testing.assert_close(backbone(torch.where(mask[..., None], x, 1e3), mask)[0], tokens)


def test_resnet18_is_resnet18() -> None:
    """11,689,512 parameters for 1,000 classes from three channels (He et al.; torchvision), less its classifier."""
    backbone, _ = build_backbone(RESNET[2], ENCODER)
    count = sum(p.numel() for name, p in backbone.named_parameters() if not name.startswith("projection"))
    assert count == 11_689_512 - 513_000


def test_samples_of_a_batch_do_not_mix() -> None:
    for spec in (SPECTROGRAM, IMAGE, FRAMES):
        backbone, _ = build_backbone(spec, ENCODER)
        x, mask = inputs(spec)
        torch.testing.assert_close(backbone(x[1:2], mask[1:2])[0], backbone(x, mask)[0][1:2])


def test_the_same_seed_gives_the_same_backbone() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_backbone(SPECTROGRAM, ENCODER)[0].state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("layout", "shape", "backbone", "message"),
    [
        ("image", (28, 28, 1), "none", "needs a backbone"),
        ("image", (28, 28, 1), "sequence_conv", "does not read layout 'image'; it reads spectrogram"),
        ("text", (), "language_model", "does not read layout 'text'"),
    ],
)
def test_backbones_that_do_not_fit_are_refused(
    layout: str, shape: tuple[int, ...], backbone: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone(ModalitySpec("m", "m", layout, shape, backbone=backbone), ENCODER)


@pytest.mark.parametrize("at_once", [True, False], ids=["grouped", "by_seed"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("spec", [SPECTROGRAM, IMAGE, FRAMES, *RESNET], ids=lambda s: f"{s.backbone}-{s.layout}")
def test_folded_seeds_are_those_alone(
    spec: ModalitySpec, train: bool, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens, masks, gradients and running statistics, of seeds that see different samples of different lengths."""
    monkeypatch.setattr(encoders, "SEED_BY_SEED", () if at_once else ("cpu",))
    alone, pairs = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        backbone = build_backbone(spec, ENCODER)[0].double().train(train)
        for name, buffer in backbone.named_buffers():  # statistics that differ, as they do in the middle of training
            buffer.add_(seed) if name.endswith("tracked") else buffer.mul_(1 + seed / 4).add_(seed / 8)
        x, mask = inputs(spec)
        if spec.layout in ("spectrogram", "frames"):
            mask = torch.arange(mask.shape[1]) < torch.randint(1, mask.shape[1] + 1, (4, 1))
        alone.append(backbone)
        pairs.append((torch.randn_like(x, dtype=torch.float64), mask))
    folded = fold(alone).train(train)
    tokens, kept = folded(torch.stack([x for x, _ in pairs]), torch.stack([mask for _, mask in pairs]))
    weight = torch.randn(tokens.shape[1:], dtype=torch.float64)
    (tokens * weight).sum().backward()
    gradients = {name: parameter.grad for name, parameter in folded.named_parameters()}
    state = folded.state_dict()
    for place, (backbone, (x, mask)) in enumerate(zip(alone, pairs, strict=True)):
        solo, own = backbone(x, mask)
        (solo * weight).sum().backward()
        torch.testing.assert_close(tokens[place], solo, rtol=1e-9, atol=1e-9)
        assert torch.equal(kept[place], own)
        for name, parameter in backbone.named_parameters():
            found = gradients[name]
            assert found is not None
            torch.testing.assert_close(found[place], parameter.grad, rtol=1e-9, atol=1e-9, msg=name)
        for name, value in backbone.state_dict().items():
            torch.testing.assert_close(state[name][place], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("spec", [SPECTROGRAM, IMAGE, FRAMES, *RESNET], ids=lambda s: f"{s.backbone}-{s.layout}")
def test_on_a_cpu_a_seed_has_the_same_bits_in_any_company(spec: ModalitySpec) -> None:
    alone = []
    for seed in range(3):
        torch.manual_seed(seed)
        alone.append(build_backbone(spec, ENCODER)[0])
    x, mask = inputs(spec)
    found = []
    for members in ([0, 1, 2], [2, 1], [1]):
        folded, place = fold([alone[member] for member in members]), members.index(1)
        tokens, _ = folded(torch.stack([x * (1 + member) for member in members]), torch.stack([mask] * len(members)))
        tokens.square().sum().backward()
        state = [value[place] for value in folded.state_dict().values()]
        gradients = [parameter.grad[place] for parameter in folded.parameters() if parameter.grad is not None]
        found.append([tokens[place], *state, *gradients])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
