"""Batches of a fold on synthetic arrays of every layout, held against the plainest possible computation in numpy."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import language
from benchmarks.data import DataOptions, FoldData, LanguageOptions
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Fold, Prepared
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from benchmarks.storage import CLIP
from clcr.api import Passthrough
from clcr.config import EncoderConfig

ROWS, SAMPLES = 12, 20
MODALITIES = (
    ModalitySpec("vector", "vector", "vector", (4,), standardise=True),
    ModalitySpec("tokens", "tokens", "tokens", (7, 3), standardise=True),
    ModalitySpec("levels", "levels", "levels", (3, 5, 2), standardise=True),
    ModalitySpec("sound", "sound", "spectrogram", (9, 4), backbone="sequence_conv", standardise=True),
    ModalitySpec("image", "image", "image", (14, 14, 1), backbone="image_conv"),
    ModalitySpec("frames", "frames", "frames", (2, 16, 16, 3), backbone="frames_conv", standardise=True),
)
PROTOCOL = Protocol("p", "P", MODALITIES, n_classes=3, group="g")
SPEC = BenchmarkSpec("toy", "Toy", "classification", (PROTOCOL,), ("accuracy",), "accuracy", "", "", "")


def make_prepared() -> Prepared:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "vector": rng.normal(3, 2, (ROWS, 4)).astype(np.float32),
        "tokens": rng.normal(-1, 5, (ROWS, 7, 3)).astype(np.float32),
        "levels": (rng.normal(size=(ROWS, 3, 5, 2)) * [[[1.0]], [[10.0]], [[100.0]]]).astype(np.float16),
        "sound": rng.integers(0, 256, (ROWS, 9, 4)).astype(np.uint8),
        "image": rng.integers(0, 256, (ROWS, 14, 14, 1)).astype(np.uint8),
        "frames": rng.integers(-128, 128, (ROWS, 2, 16, 16, 3)).astype(np.int8),
    }
    lengths = {
        "tokens": rng.integers(1, 8, ROWS),
        "levels": rng.integers(1, 6, ROWS),
        "sound": rng.integers(1, 10, ROWS),
    }
    meta = {"sound": {"scale": 0.5, "offset": -20.0}, "image": {"scale": 1 / 255}, "frames": {"scale": 1 / 16}}
    texts = np.array([" ".join(["good", "bad", "film"][: 1 + i % 3]) for i in range(ROWS)])
    return Prepared("toy", arrays, {"text": texts}, lengths, meta)


def make_arrangement(**changes: object) -> Arrangement:
    rng = np.random.default_rng(1)
    order = rng.permutation(SAMPLES)
    folds = (Fold(order[:10], order[10:15], order[15:]), Fold(order[10:], order[:5], order[5:10]))
    rows = {m.name: rng.integers(0, ROWS, SAMPLES) for m in MODALITIES}
    target = rng.integers(0, 3, SAMPLES)
    arrangement = Arrangement(rows, target, np.arange(SAMPLES).astype(str), folds, np.arange(SAMPLES) // 4)
    return replace(arrangement, **changes)  # type: ignore[arg-type]


PREPARED, ARRANGEMENT = make_prepared(), make_arrangement()


@pytest.fixture(scope="module")
def data() -> FoldData:
    return FoldData(PREPARED, SPEC, PROTOCOL, ARRANGEMENT)


def real_values(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Dequantised values of every row, and True where they are real, both (rows, ..., feature)."""
    meta = PREPARED.meta.get(name, {})
    values = PREPARED.arrays[name].astype(np.float64) * meta.get("scale", 1.0) + meta.get("offset", 0.0)
    real = np.ones(values.shape, dtype=bool)
    for row, length in enumerate(PREPARED.lengths.get(name, [])):
        real[(row, slice(None), slice(length, None)) if name == "levels" else (row, slice(length, None))] = False
    return values, real


def expected(modality: ModalitySpec, train: np.ndarray) -> np.ndarray:
    """What the backbone should get, for every row, channels last and untrimmed."""
    values, real = real_values(modality.array)
    if modality.standardise:
        rows = np.unique(ARRANGEMENT.rows[modality.name][train])
        parts = range(3) if modality.layout == "levels" else [slice(None)]
        for part in parts:
            at = (slice(None), part) if modality.layout == "levels" else (slice(None),)
            for feature in range(values.shape[-1]):
                seen = values[at][rows][..., feature][real[at][rows][..., feature]]
                values[at][..., feature] = (values[at][..., feature] - seen.mean()) / seen.std()
    return np.where(real, np.clip(values, -CLIP, CLIP) if modality.standardise else values, 0.0)


@pytest.mark.parametrize("modality", MODALITIES, ids=lambda m: m.layout)
@pytest.mark.parametrize("fold", [0, 1])
def test_a_batch_holds_the_rows_of_its_samples(data: FoldData, modality: ModalitySpec, fold: int) -> None:
    data = data.at_fold(fold)
    samples = np.array([3, 0, 3, 17])
    place = [m.name for m in data.modalities].index(modality.name)
    batch = data.batch(samples)
    x, mask = batch.inputs[place].numpy(), batch.masks[place].numpy()
    want = expected(modality, ARRANGEMENT.folds[fold].train)[ARRANGEMENT.rows[modality.name][samples]]
    if modality.layout == "vector":
        want = want[:, None]
    if modality.layout in ("image", "frames"):
        want = np.moveaxis(want, -1, -3)
    axis = 2 if modality.layout == "levels" else 1
    if modality.array in PREPARED.lengths:
        lengths = PREPARED.lengths[modality.array][ARRANGEMENT.rows[modality.name][samples]]
        assert mask.sum(1).tolist() == lengths.tolist()
        longest = PREPARED.lengths[modality.array].max()  # of all samples: a shape says nothing about a batch's company
        assert x.shape[axis] == mask.shape[1] == longest
        want = np.take(want, range(longest), axis=axis)
    else:
        assert mask.all()
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, want, atol=2e-5)
    np.testing.assert_array_equal(batch.target.numpy(), ARRANGEMENT.target[samples])


def test_standardisation_never_sees_validation_or_test_rows() -> None:
    held = np.concatenate([ARRANGEMENT.folds[0].valid, ARRANGEMENT.folds[0].test])
    seen = np.unique(np.concatenate([rows[ARRANGEMENT.folds[0].train] for rows in ARRANGEMENT.rows.values()]))
    arrays = {name: np.array(array) for name, array in PREPARED.arrays.items()}
    for array in arrays.values():
        array[np.setdiff1d(np.arange(ROWS), seen)] += 50
    rows = {name: np.where(np.isin(np.arange(SAMPLES), held), 0, r) for name, r in ARRANGEMENT.rows.items()}
    one = FoldData(PREPARED, SPEC, PROTOCOL, replace(ARRANGEMENT, rows=rows))
    two = FoldData(replace(PREPARED, arrays=arrays), SPEC, PROTOCOL, replace(ARRANGEMENT, rows=rows))
    train = ARRANGEMENT.folds[0].train
    for left, right in zip(one.batch(train).inputs, two.batch(train).inputs, strict=True):
        assert torch.equal(left, right)


def test_a_batch_depends_on_its_indices_alone(data: FoldData) -> None:
    first = data.batch(np.array([4, 9]))
    data.batch(np.arange(SAMPLES))
    again = data.batch(torch.tensor([4, 9]))
    assert all(torch.equal(a, b) for a, b in zip(first.inputs, again.inputs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first.masks, again.masks, strict=True))


def test_batches_are_copies(data: FoldData) -> None:
    before = PREPARED.arrays["vector"].copy()
    for x in data.batch(np.arange(4)).inputs:
        x.zero_()
    np.testing.assert_array_equal(PREPARED.arrays["vector"], before)


def test_a_feature_that_is_flat_in_training_stays_finite_and_bounded() -> None:
    arrays = {**PREPARED.arrays, "vector": PREPARED.arrays["vector"].copy()}
    rows = ARRANGEMENT.rows["vector"]
    arrays["vector"][rows[ARRANGEMENT.folds[0].train], 1] = 5.0
    arrays["vector"][rows[ARRANGEMENT.folds[0].train][0], 2] = 1e6
    data = FoldData(replace(PREPARED, arrays=arrays), SPEC, PROTOCOL, ARRANGEMENT).restrict("vector")
    x = data.batch(np.arange(SAMPLES)).inputs[0]
    assert bool(torch.isfinite(x).all())
    assert float(x.abs().max()) <= CLIP


def test_splits_targets_groups_and_sizes(data: FoldData) -> None:
    fold = ARRANGEMENT.folds[1]
    at = data.at_fold(1)
    for split, indices in (("train", fold.train), ("valid", fold.valid), ("test", fold.test)):
        assert at.size(split) == len(indices)
        np.testing.assert_array_equal(at.indices[split], indices)
        np.testing.assert_array_equal(at.targets(split), ARRANGEMENT.target[indices])
        group = at.group(split)
        assert group is not None
        np.testing.assert_array_equal(group, indices // 4)
    assert data.fold == 0
    assert FoldData(PREPARED, SPEC, PROTOCOL, make_arrangement(group=None)).group("test") is None


def test_regression_targets_and_their_scale() -> None:
    target = np.linspace(-3, 3, SAMPLES).astype(np.float32)
    protocol, spec = replace(PROTOCOL, n_classes=None), replace(SPEC, task="regression")
    data = FoldData(PREPARED, spec, protocol, make_arrangement(target=target))
    train = target[ARRANGEMENT.folds[0].train].astype(float)
    assert data.target_scale == pytest.approx(np.abs(train - train.mean()).mean())
    assert data.batch(np.arange(2)).target.dtype == torch.float32
    task = data.task(data.backbones(EncoderConfig(width=8))[1])
    assert (task.n_classes, task.loss, task.target_scale) == (None, "l1", data.target_scale)


def test_backbones_read_the_batches_and_make_the_tokens_they_promise(data: FoldData) -> None:
    backbones, modalities = data.backbones(EncoderConfig(width=8))
    batch = data.batch(np.arange(SAMPLES))
    for backbone, modality, x, mask in zip(backbones, modalities, batch.inputs, batch.masks, strict=True):
        tokens, kept = backbone(x, mask)
        assert tokens.shape[-1] == modality.width
        assert kept.shape[1] == tokens.shape[-2] <= modality.tokens
        assert isinstance(backbone, Passthrough) == (modality.name in ("vector", "tokens", "levels"))
    assert data.task(modalities).n_classes == 3


def test_one_modality_alone_is_the_same_modality(data: FoldData) -> None:
    whole = data.batch(np.arange(5))
    for place, modality in enumerate(MODALITIES):
        alone = data.restrict(modality.name)
        assert [m.name for m in alone.modalities] == [modality.name]
        assert torch.equal(alone.batch(np.arange(5)).inputs[0], whole.inputs[place])
    assert len(data.modalities) == len(MODALITIES)
    with pytest.raises(InputError, match="did you mean 'sound'"):
        data.restrict("sounds")


def test_pooled_features_are_means_and_deviations_over_real_tokens(data: FoldData) -> None:
    train, test = (ARRANGEMENT.folds[0].train, ARRANGEMENT.folds[0].test)
    for modality in MODALITIES:
        found = data.restrict(modality.name).pooled("test")
        raw = np.stack([pooled_row(modality, expected(modality, train), row) for row in range(ROWS)])
        rows = ARRANGEMENT.rows[modality.name]
        spread = raw[rows[train]].std(0)
        want = (raw[rows[test]] - raw[rows[train]].mean(0)) / np.where(spread > 1e-6, spread, 1.0)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, np.clip(want, -CLIP, CLIP), atol=1e-4, err_msg=modality.name)
    joint = data.pooled("train")
    assert joint.shape == (10, 4 + 3 + 6 + 8 + 49 + 96)
    np.testing.assert_allclose(joint.mean(0), 0, atol=1e-6)


def pooled_row(modality: ModalitySpec, x: np.ndarray, row: int) -> np.ndarray:
    length = int(PREPARED.lengths[modality.array][row]) if modality.array in PREPARED.lengths else None
    parts: list[np.ndarray]
    if modality.layout == "levels":
        parts = [x[row, level, :length].mean(0) for level in range(3)]
    elif modality.layout == "image":
        parts = [x[row].reshape(7, 2, 7, 2, 1).mean((1, 3))]
    elif modality.layout == "frames":
        grid = x[row].reshape(2, 4, 4, 4, 4, 3).mean((2, 4)).transpose(0, 3, 1, 2)
        parts = [grid.mean(0), grid.std(0)]
    elif modality.layout == "spectrogram":
        parts = [x[row, :length].mean(0), x[row, :length].std(0)]
    else:
        parts = [x[row, :length].mean(0) if modality.layout == "tokens" else x[row]]
    return np.concatenate([part.ravel() for part in parts])


RESIZED = {
    "sound": ("sequence_conv", (20, 7), 5),
    "image": ("image_conv", (30, 17, 1), 12),
    "frames": ("frames_conv", (5, 24, 8, 3), 20),
}


@pytest.mark.parametrize("backbone", [None, "resnet18"])
@pytest.mark.parametrize("name", RESIZED)
def test_what_a_preset_prepared_in_another_size_is_read(name: str, backbone: str | None) -> None:
    own, shape, tokens = RESIZED[name]
    modality = next(m for m in MODALITIES if m.name == name)
    modality = replace(modality, backbone=backbone or own)
    array = np.random.default_rng(0).normal(size=(ROWS, *shape)).astype(np.float32)
    lengths = {k: v for k, v in PREPARED.lengths.items() if k != name}
    meta = {k: v for k, v in PREPARED.meta.items() if k != name}
    prepared = replace(PREPARED, arrays={**PREPARED.arrays, name: array}, lengths=lengths, meta=meta)
    data = FoldData(prepared, SPEC, replace(PROTOCOL, modalities=(modality,)), ARRANGEMENT)
    assert data.modalities == (replace(modality, shape=shape),)
    (network,), (found,) = data.backbones(EncoderConfig(width=8))
    batch = data.batch(np.arange(4))
    made, _ = network(batch.inputs[0], batch.masks[0])
    assert made.shape == (4, found.tokens, 8)
    if backbone is None:
        assert found.tokens == tokens
    assert np.isfinite(data.pooled("test")).all()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vector", (5,)),
        ("tokens", (7, 4)),
        ("tokens", (8, 3)),
        ("levels", (3, 6, 2)),
        ("sound", (9,)),
        ("sound", (9, 4, 1)),
        ("image", (14, 14, 3)),
        ("image", (14, 14)),
        ("frames", (2, 16, 16, 2)),
        ("frames", (2, 16, 7, 3)),
        ("frames", (0, 16, 16, 3)),
    ],
)
def test_an_array_of_another_kind_is_refused(name: str, shape: tuple[int, ...]) -> None:
    needed = list(next(m.shape for m in MODALITIES if m.name == name))
    arrays = {**PREPARED.arrays, name: np.zeros((ROWS, *shape), np.float32)}
    message = re.escape(f"array {name} holds {list(shape)} per row, protocol needs {needed}")
    with pytest.raises(InputError, match=message):
        FoldData(replace(PREPARED, arrays=arrays), SPEC, PROTOCOL, ARRANGEMENT)


TEXT = Protocol("t", "T", (ModalitySpec("language", "text", "text", (), backbone="language_model"),), n_classes=3)


class FakeLanguage:
    """Stands in for a pretrained model: the state of a token is its number."""

    @staticmethod
    def hidden_states(texts: list[str], *_: object) -> tuple[np.ndarray, np.ndarray, str]:
        lengths = np.array([len(text.split()) for text in texts])
        states = np.arange(1, 4)[None, None, :, None] * (np.arange(3) < lengths[:, None])[:, None, :, None]
        return np.broadcast_to(states, (len(texts), 3, 3, 2)).astype(np.float16), lengths, "digest"

    @staticmethod
    def token_ids(texts: list[str], *_: object) -> tuple[np.ndarray, np.ndarray]:
        lengths = np.array([len(text.split()) for text in texts])
        return np.where(np.arange(3) < lengths[:, None], 7, 0), lengths


@pytest.fixture
def arrangement(monkeypatch: pytest.MonkeyPatch) -> Arrangement:
    monkeypatch.setattr(language, "hidden_states", FakeLanguage.hidden_states)
    monkeypatch.setattr(language, "token_ids", FakeLanguage.token_ids)
    return replace(ARRANGEMENT, rows={"language": np.arange(SAMPLES) % ROWS})


def test_text_becomes_levels(arrangement: Arrangement) -> None:
    data = FoldData(PREPARED, SPEC, TEXT, arrangement)
    assert [(m.layout, m.shape, m.backbone) for m in data.modalities] == [("levels", (3, 3, 2), "none")]
    batch = data.batch(np.array([0, 1, 0]))
    assert batch.inputs[0].shape == (3, 3, 3, 2)
    assert batch.masks[0].tolist() == [[True, False, False], [True, True, False], [True, False, False]]
    _, (modality,) = data.backbones(EncoderConfig())
    assert modality.levelled
    assert data.pooled("test").shape == (5, 6)


def test_text_becomes_token_ids_where_the_model_is_fine_tuned(arrangement: Arrangement) -> None:
    options = DataOptions(language=LanguageOptions(finetune=True))
    data = FoldData(PREPARED, SPEC, TEXT, arrangement, 0, options)
    batch = data.batch(np.array([2, 0]))
    assert batch.inputs[0].tolist() == [[7, 7, 7], [7, 0, 0]]
    assert batch.masks[0].sum(1).tolist() == [3, 1]
    with pytest.raises(InputError, match=r"language\.finetune=false"):
        data.pooled("test")
