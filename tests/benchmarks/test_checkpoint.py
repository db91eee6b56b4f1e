"""Weights from a file: what a strict reader takes, and what it refuses in one line, running nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.checkpoint import checkpoint_digest, parse_safetensors, read_checkpoint
from benchmarks.encoders import ResNet18, build_backbone
from benchmarks.errors import InputError
from benchmarks.spec import ModalitySpec
from clcr.config import EncoderConfig

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64", torch.bfloat16: "BF16", torch.uint8: "U8"}


def packed(
    tensors: dict[str, Tensor], change: Callable[[dict[str, Any]], Any] | None = None, tail: bytes = b""
) -> bytes:
    """A .safetensors file, written by hand; ``change`` spoils its header."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        values = tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim() else tensor.numpy().tobytes()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(values)],
        }
        body += values
    text = json.dumps(header if change is None else change(header)).encode()
    return len(text).to_bytes(8, "little") + text + body + tail


def published_state(seed: int = 0, blocks: int = 2) -> dict[str, Tensor]:
    """Random weights under the names and shapes of torchvision's ResNet-18 (its source, models/resnet.py)."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = {"conv1.weight": torch.randn(64, 3, 7, 7) / 12}

    def norm(name: str, width: int) -> None:
        state.update({f"{name}.weight": torch.rand(width) + 0.5, f"{name}.bias": torch.randn(width)})
        state.update({f"{name}.running_mean": torch.randn(width), f"{name}.running_var": torch.rand(width) + 0.5})
        state[f"{name}.num_batches_tracked"] = torch.tensor(9)

    norm("bn1", 64)
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(blocks):
            at, inside = f"layer{stage}.{block}", before if block == 0 else width
            state[f"{at}.conv1.weight"] = torch.randn(width, inside, 3, 3) / (3 * inside**0.5)
            norm(f"{at}.bn1", width)
            state[f"{at}.conv2.weight"] = torch.randn(width, width, 3, 3) / (3 * width**0.5)
            norm(f"{at}.bn2", width)
            if block == 0 and inside != width:
                state[f"{at}.downsample.0.weight"] = torch.randn(width, inside, 1, 1) / inside**0.5
                norm(f"{at}.downsample.1", width)
        before = width
    return {**state, "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


def plain_features(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The map of torchvision's ResNet-18 in evaluation, from its tensors by their names."""
    functional = torch.nn.functional

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return functional.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    x = functional.relu(norm(functional.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1"))
    x = functional.max_pool2d(x, 3, 2, 1)
    for stage in range(1, 5):
        for block in range(2):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = functional.relu(norm(functional.conv2d(x, state[f"{at}.conv1.weight"], None, stride, 1), f"{at}.bn1"))
            y = norm(functional.conv2d(y, state[f"{at}.conv2.weight"], None, 1, 1), f"{at}.bn2")
            if f"{at}.downsample.0.weight" in state:
                x = norm(functional.conv2d(x, state[f"{at}.downsample.0.weight"], None, stride), f"{at}.downsample.1")
            x = functional.relu(x + y)
    return x


RGB = ModalitySpec("rgb", "r", "frames", (2, 64, 48, 3), backbone="resnet18")
FLOW = ModalitySpec("flow", "r", "frames", (2, 64, 48, 2), backbone="resnet18")
SOUND = ModalitySpec("audio", "a", "spectrogram", (70, 40), backbone="resnet18")


def built(spec: ModalitySpec, path: Path | str) -> ResNet18:
    torch.manual_seed(3)
    backbone, _ = build_backbone(spec, EncoderConfig(width=8, checkpoint=str(path)))
    assert isinstance(backbone, ResNet18)
    return backbone.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in both formats."""
    where = tmp_path_factory.mktemp("weights")
    (where / "resnet18.safetensors").write_bytes(packed(published_state()))
    torch.save(published_state(), where / "resnet18.pth")
    return where


@pytest.mark.parametrize("name", ["resnet18.safetensors", "resnet18.pth"])
def test_resnet18_computes_what_the_published_network_does(folder: Path, name: str) -> None:
    backbone, scratch = built(RGB, folder / name), built(RGB, "")
    x = torch.randn(2, 3, 64, 48)
    torch.testing.assert_close(backbone.features(x), plain_features(published_state(), x), rtol=1e-4, atol=1e-4)
    assert torch.equal(backbone.projection.weight, scratch.projection.weight)
    assert not torch.equal(backbone.stem.weight, scratch.stem.weight)


@pytest.mark.parametrize("spec", [FLOW, SOUND], ids=lambda s: s.name)
def test_other_channels_answer_as_a_grey_picture_does(folder: Path, spec: ModalitySpec) -> None:
    backbone, grey = built(spec, folder / "resnet18.pth"), torch.randn(2, 1, 64, 48)
    found = backbone.features(grey.expand(-1, backbone.stem.weight.shape[1], -1, -1))
    want = plain_features(published_state(), grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)


def test_a_file_without_counts_of_batches_serves(tmp_path: Path) -> None:
    old = {name: tensor for name, tensor in published_state().items() if not name.endswith("tracked")}
    torch.save(old, tmp_path / "old.pth")
    assert torch.equal(built(RGB, tmp_path / "old.pth").stem.weight, old["conv1.weight"])


def test_the_digest_is_of_the_content(folder: Path, tmp_path: Path) -> None:
    first = checkpoint_digest(folder / "resnet18.pth")
    copy = tmp_path / "elsewhere.pth"
    shutil.copyfile(folder / "resnet18.pth", copy)
    assert checkpoint_digest(copy) == first
    torch.save(published_state(1), copy)
    os.utime(copy, ns=(1, 1))
    assert checkpoint_digest(copy) != first
    assert torch.equal(read_checkpoint(copy)["conv1.weight"], published_state(1)["conv1.weight"])


def test_every_type_and_shape_comes_back() -> None:
    tensors = {
        "a": torch.randn(2, 3), "half": torch.randn(3).half(), "b": torch.randn(2, 2).bfloat16(),
        "count": torch.tensor(7), "none": torch.empty(0, 4), "u": torch.arange(5, dtype=torch.uint8),
    }  # fmt: skip
    found = parse_safetensors(packed(tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def spoil(name: str, **entry: object) -> Callable[[dict[str, Any]], Any]:
    return lambda header: {**header, name: {**header.get(name, {}), **entry}}


TWO = {"a": torch.zeros(4), "b": torch.zeros(2)}
BAD = {
    "empty": (b"", "truncated"),
    "short": (b"\x01\x00\x00", "truncated"),
    "header longer than the file": ((1 << 40).to_bytes(8, "little") + b"{}", "truncated"),
    "cut": (packed(TWO)[:-1], "is said to lie in"),
    "more": (packed(TWO, tail=b"!"), "25 bytes of values, 24 described"),
    "no json": ((4).to_bytes(8, "little") + b"{{{{", "not plain JSON"),
    "no text": ((2).to_bytes(8, "little") + b"\xff\xff", "not plain JSON"),
    "deep": ((20_000).to_bytes(8, "little") + b"[" * 20_000, "not plain JSON"),
    "a list": (packed({}, lambda header: []), "not a mapping"),
    "twice": ((len(b'{"a":1,"a":1}')).to_bytes(8, "little") + b'{"a":1,"a":1}', "stands twice"),
    "overlap": (packed(TWO, spoil("b", data_offsets=[8, 16])), "starts at byte 8 of the values, where 16"),
    "hole": (packed(TWO, spoil("a", shape=[2], data_offsets=[0, 8])), "starts at byte 16 of the values, where 8"),
    "outside": (packed(TWO, spoil("b", data_offsets=[20, 28])), "is said to lie in 20..28 of 24"),
    "negative": (packed(TWO, spoil("b", shape=[-2])), "no plain shape"),
    "backwards": (packed(TWO, spoil("b", data_offsets=[24, 16])), "is said to lie in"),
    "huge": (packed(TWO, spoil("b", shape=[1 << 62, 1 << 62])), "is said to lie in"),
    "a float": (packed(TWO, spoil("b", shape=[2.0])), "no plain shape"),
    "a truth": (packed(TWO, spoil("b", shape=[True])), "no plain shape"),
    "type": (packed(TWO, spoil("b", dtype="F8")), "of type 'F8'"),
    "a type that is no name": (packed(TWO, spoil("b", dtype=["F32"])), "of type"),
    "more fields": (packed(TWO, spoil("b", code="x")), "not described by dtype, shape and data_offsets"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_safetensors_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, message = BAD[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Payload:
    """A pickle of it makes a file where it is read by a reader that runs code."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["torch", "pickle", "inside"])
def test_code_in_a_torch_file_is_not_run(kind: str, tmp_path: Path) -> None:
    target, path = tmp_path / "run", tmp_path / "weights.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(target)))
    else:
        torch.save(Payload(target) if kind == "torch" else {"conv1.weight": Payload(target)}, path)
    with pytest.raises(InputError, match="damaged, or holds more than tensors") as caught:
        read_checkpoint(path)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    Payload(target).__reduce__()[0](target)  # what it would have done
    assert target.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (cut, "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: torch.save([torch.zeros(2)], path), "not a mapping of names"),
        (lambda path: torch.save({"a": 3}, path), "not a mapping of names"),
        (lambda path: torch.save({"conv1.weight": torch.zeros(1)}, path), "lacks 'bn1.bias'"),
        (lambda path: torch.save(published_state(blocks=3), path), r"holds 'layer1\.2\."),
        (lambda path: torch.save({**published_state(), "conv1.weight": torch.zeros(64, 4, 7, 7)}, path), "expected"),
        (lambda path: torch.save({**published_state(), "bn1.bias": torch.zeros(65)}, path), r"\(65,\), expected \(64,"),
        (lambda path: torch.save({**published_state(), "bn1.bias": torch.full((64,), torch.nan)}, path), "finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, spoiled: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "weights.pth"
    shutil.copyfile(folder / "resnet18.pth", path)
    spoiled(path)
    with pytest.raises(InputError, match=message) as caught:
        built(RGB, path)
    assert "encoder.checkpoint" in str(caught.value)
    assert "\n" not in str(caught.value)
