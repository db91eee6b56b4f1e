"""Changes of batches of every layout: what they do to real tokens, and that they do nothing to padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.analyses.changes import Changes, Part, bound, moments, over_tokens, put, standard_noise
from benchmarks.data import FoldData
from benchmarks.errors import InputError
from benchmarks.prepared import Arrangement, Fold, Prepared
from benchmarks.spec import BenchmarkSpec, ModalitySpec, Protocol
from clcr.api import Batch

ROWS, SAMPLES = 14, 24
SPECS = (
    ModalitySpec("vector", "vector", "vector", (4,), standardise=True),
    ModalitySpec("tokens", "tokens", "tokens", (7, 3)),
    ModalitySpec("levels", "levels", "levels", (3, 5, 2)),
    ModalitySpec("sound", "sound", "spectrogram", (9, 4), backbone="sequence_conv", standardise=True),
    ModalitySpec("image", "image", "image", (6, 5, 2), backbone="image_conv"),
    ModalitySpec("frames", "frames", "frames", (3, 8, 9, 2), backbone="frames_conv"),
)
NAMES = tuple(spec.name for spec in SPECS)
PROTOCOL = Protocol("p", "P", SPECS, n_classes=3)
SPEC = BenchmarkSpec("toy", "Toy", "classification", (PROTOCOL,), ("accuracy",), "accuracy", "", "", "")


def make_data(seed: int = 1, test: int = 8) -> FoldData:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        spec.array: rng.normal(2, 3, (ROWS, *spec.shape)).astype(np.float32) for spec in SPECS
    }
    arrays["levels"] *= np.array([1.0, 10.0, 100.0], np.float32)[:, None, None]
    lengths = {name: rng.integers(1, most, ROWS) for name, most in (("tokens", 6), ("levels", 5), ("sound", 9))}
    prepared = Prepared("toy", arrays, {}, lengths)
    drawn = np.random.default_rng(seed)
    order = drawn.permutation(SAMPLES)
    rows = {name: drawn.integers(0, ROWS, SAMPLES) for name in NAMES}
    fold = Fold(order[:10], order[10:12], order[12 : 12 + test])
    names = np.array([f"s{n:02d}" for n in range(SAMPLES)])
    return FoldData(prepared, SPEC, PROTOCOL, Arrangement(rows, drawn.integers(0, 3, SAMPLES), names, (fold,)))


@pytest.fixture(scope="module")
def data() -> FoldData:
    return make_data()


def read(data: FoldData, samples: Sequence[int]) -> tuple[Batch, Part]:
    index = torch.as_tensor(samples)
    return data.batch(index), Part(slice(0, 1), index[None])


def values(x: Tensor, mask: Tensor, spec: ModalitySpec) -> np.ndarray:
    """(n, features) of the real tokens, plainly; levels and pictures with all their axes as features."""
    if spec.layout == "image":
        return x.flatten(1).double().numpy()
    if spec.layout == "levels":
        x = x.transpose(1, 2)
    return x[mask].flatten(1).double().numpy()


def test_moments_are_those_of_the_real_training_tokens(data: FoldData) -> None:
    batch = data.batch(data.indices["train"])
    for m, (found, spec) in enumerate(zip(moments(data), SPECS, strict=True)):
        want = values(batch.inputs[m], batch.masks[m], spec)
        np.testing.assert_allclose(found.mean.flatten(), want.mean(0), atol=1e-4, rtol=1e-4)
        if spec.layout == "levels":
            units = want.reshape(len(want), 3, -1).var(0).mean(-1) ** 0.5
        elif spec.layout in ("image", "frames"):
            units = want.reshape(len(want), 2, -1).var((0, 2)).mean() ** 0.5
        else:
            units = want.var(0).mean() ** 0.5
        np.testing.assert_allclose(found.unit.flatten(), np.atleast_1d(units), rtol=1e-4)


def test_the_mean_of_pictures_is_the_mean_picture(data: FoldData) -> None:
    found = dict(zip(NAMES, moments(data), strict=True))
    assert found["image"].mean.shape == (2, 6, 5)
    assert found["frames"].mean.shape == (1, 2, 8, 9)


@pytest.mark.parametrize("m", range(len(SPECS)), ids=NAMES)
def test_padding_stays_zero_and_other_modalities_stay_as_they_are(data: FoldData, m: int) -> None:
    batch, part = read(data, data.indices["test"])
    changes = Changes([data])
    name = NAMES[m]
    for change in (changes.noise(1.5, [name]), changes.zeros([name]), changes.means([name])):
        changed = change(batch, part)
        real = over_tokens(batch.masks[m], SPECS[m]).expand_as(batch.inputs[m])
        assert (changed.inputs[m][~real] == 0).all()
        assert not torch.equal(changed.inputs[m], batch.inputs[m])
        assert all(
            torch.equal(a, b) for n, (a, b) in enumerate(zip(changed.inputs, batch.inputs, strict=True)) if n != m
        )
        assert all(torch.equal(a, b) for a, b in zip(changed.masks, batch.masks, strict=True))
        assert torch.equal(changed.target, batch.target)


def test_a_change_leaves_its_batch_alone(data: FoldData) -> None:
    batch, part = read(data, data.indices["test"])
    before = [x.clone() for x in batch.inputs]
    changes = Changes([data])
    for change in (changes.noise(1.0, NAMES), changes.zeros(NAMES), changes.means(NAMES)):
        change(batch, part)
    assert all(torch.equal(a, b) for a, b in zip(batch.inputs, before, strict=True))


def test_zeros_and_means_hold_nothing_of_a_sample(data: FoldData) -> None:
    batch, part = read(data, data.indices["test"])
    changes = Changes([data])
    for m, spec in enumerate(SPECS):
        for change, want in ((changes.zeros(NAMES), 0.0), (changes.means(NAMES), moments(data)[m].mean)):
            x = change(batch, part).inputs[m]
            real = over_tokens(batch.masks[m], spec).expand_as(x)
            assert torch.equal(x, torch.where(real, torch.as_tensor(want).expand_as(x), torch.zeros(())))


def test_noise_of_no_strength_changes_no_bit(data: FoldData) -> None:
    batch, part = read(data, data.indices["test"])
    changed = Changes([data]).noise(0.0, NAMES)(batch, part)
    assert all(torch.equal(a, b) for a, b in zip(changed.inputs, batch.inputs, strict=True))


def test_noise_has_the_strength_in_units_of_the_modality(data: FoldData) -> None:
    batch, part = read(data, data.indices["test"])
    changed = Changes([data]).noise(2.0, NAMES)(batch, part)
    for m, spec in enumerate(SPECS):
        real = over_tokens(batch.masks[m], spec).expand_as(batch.inputs[m])
        drawn = ((changed.inputs[m] - batch.inputs[m]) / moments(data)[m].unit)[real]
        assert abs(float(drawn.std()) - 2.0) < 5 * 2.0 / np.sqrt(2 * drawn.numel())
        assert abs(float(drawn.mean())) < 5 * 2.0 / np.sqrt(drawn.numel())


def test_noise_is_that_of_the_sample_whatever_its_company(data: FoldData) -> None:
    other, test = make_data(seed=1, test=5), data.indices["test"]
    whole, part = read(data, test)
    alone, own = read(other, [int(test[2])])
    terms = []
    for batch, where, place, of in ((whole, part, 2, data), (alone, own, 0, other)):
        noisy = Changes([of]).noise(1.0, NAMES)(batch, where)
        terms.append([(a - b)[place] for a, b in zip(noisy.inputs, batch.inputs, strict=True)])
    for a, b in zip(*terms, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_noise_differs_by_sample_modality_and_protocol() -> None:
    first = standard_noise("b", "p", SPECS[1], "s0")
    assert torch.equal(first, standard_noise("b", "p", SPECS[1], "s0"))
    others = [
        standard_noise("b", "p", SPECS[1], "s1"),
        standard_noise("b", "q", SPECS[1], "s0"),
        standard_noise("c", "p", SPECS[1], "s0"),
        standard_noise("b", "p", replace(SPECS[1], name="other"), "s0"),
    ]
    assert all(not torch.equal(first, other) for other in others)


def test_a_method_of_one_modality_meets_the_noise_that_all_meet(data: FoldData) -> None:
    one = data.restrict("tokens")
    batch, part = read(data, data.indices["test"])
    own, _ = read(one, data.indices["test"])
    m = NAMES.index("tokens")
    want = Changes([data]).noise(1.0, NAMES)(batch, part).inputs[m]
    assert torch.equal(Changes([one]).noise(1.0, ["tokens"])(own, part).inputs[0], want)


@pytest.mark.parametrize("sizes", [(8, 8, 8), (8, 8, 5), (3, 8, 8)])
def test_each_seed_of_a_group_is_changed_as_it_would_be_alone(sizes: tuple[int, ...]) -> None:
    """Also where their splits differ in size, so that some seeds' batches come without those of others."""
    first = make_data(seed=1)
    members = [first.at(make_data(seed, test).arrangement) for seed, test in enumerate(sizes, 1)]
    for make in (lambda c: c.noise(1.0, NAMES), lambda c: c.means(NAMES), lambda c: c.zeros(["tokens"])):
        together = bound(make(Changes(members)), members, "test", 4)
        found: list[list[Tensor]] = [[] for _ in members]
        for step in range(2):
            pieces = [torch.as_tensor(data.indices["test"])[4 * step : 4 * step + 4] for data in members]
            for run in runs([len(piece) for piece in pieces]):
                if len(pieces[run.start]):
                    data = FoldData.together(members[run])
                    batch = together(data.batch(torch.stack(pieces[run])))
                    for place in range(run.start, run.stop):
                        found[place].append(batch.inputs[1][place - run.start])
        for data, rows in zip(members, found, strict=True):
            batch, part = read(data, data.indices["test"])
            torch.testing.assert_close(torch.cat(rows), make(Changes([data]))(batch, part).inputs[1], atol=0, rtol=0)


def runs(sizes: Sequence[int]) -> list[slice]:
    cuts = [0, *(n for n in range(1, len(sizes)) if sizes[n] != sizes[n - 1]), len(sizes)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def test_a_batch_that_was_not_expected_is_refused(data: FoldData) -> None:
    change = bound(Changes([data]).zeros(NAMES), [data], "test", 4)
    change(data.batch(data.indices["test"][:4]))
    with pytest.raises(ValueError, match="not the one that was expected"):
        change(data.batch(data.indices["test"][:3]))


def test_token_ids_are_refused(data: FoldData) -> None:
    ids = replace(SPECS[1], layout="text")
    broken = type("Ids", (), {"modalities": (ids,)})()
    with pytest.raises(InputError, match=r"language\.finetune=false"):
        moments(broken)


def test_put_broadcasts_one_value() -> None:
    batch = Batch((torch.ones(2, 3, 2),), (torch.tensor([[True, True, False], [True, False, False]]),), torch.zeros(2))
    found = put(batch, [ModalitySpec("a", "a", "tokens", (3, 2))], {0: torch.tensor(7.0)})
    assert found.inputs[0][..., 0].tolist() == [[7, 7, 0], [7, 0, 0]]
