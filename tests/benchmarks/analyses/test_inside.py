"""Reading a network changes nothing of it, and reads what it computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from grouped import grouped

from baselines import CLCR_VARIANTS
from benchmarks.analyses.inside import Inside, alone, collect, passes
from benchmarks.runner.group import Evaluation, Group
from clcr.api import Batch, Output
from clcr.method import CLCR

METHODS = [("clcr", variant) for variant in CLCR_VARIANTS] + [
    ("misa", "full"),
    ("misa", "adversarial"),
    ("late_fusion", "full"),
    ("ogm_ge", "full"),
    ("unimodal_audio", "full"),
]


def arrays(inside: Inside) -> dict[str, np.ndarray]:
    own = {name: x for name, x in vars(inside).items() if isinstance(x, np.ndarray)}
    return own | {f"part {name}": x for name, x in inside.parts.items()}


def predictions(group: Group, split: str) -> list[np.ndarray]:
    found = group.evaluate(split)
    assert all(isinstance(each, Evaluation) for each in found)
    return [each.prediction for each in found if isinstance(each, Evaluation)]


def hooks(module: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


@pytest.mark.parametrize(("method", "variant"), METHODS)
def test_predictions_stay_to_the_bit_and_no_hook_stays(method: str, variant: str) -> None:
    group, _, data = grouped(method, variant)
    before, values = predictions(group, "test"), {n: x.clone() for n, x in group.method.state_dict().items()}
    group.method.train()
    seen = collect(group, data, "test")
    assert group.method.training
    assert hooks(group.method) == 0
    assert all(torch.equal(x, values[name]) for name, x in group.method.state_dict().items())
    for inside, first, again in zip(seen, before, predictions(group, "test"), strict=True):
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(first, inside.prediction)


@pytest.mark.parametrize(("method", "variant"), METHODS)
def test_seeds_together_show_what_each_shows_alone(method: str, variant: str) -> None:
    together, alone_ = grouped(method, variant), grouped(method, variant, seeds=(1,))
    group, single = collect(together[0], together[2], "valid")[1], collect(alone_[0], alone_[2], "valid")[0]
    assert arrays(group).keys() == arrays(single).keys()
    for name, x in arrays(group).items():
        np.testing.assert_array_equal(x, arrays(single)[name], err_msg=name)


@pytest.mark.parametrize(("method", "variant"), METHODS)
def test_everything_has_the_shape_it_says(method: str, variant: str) -> None:
    group, _, data = grouped(method, variant)
    inside = collect(group, data, "test")[0]
    n, modalities = len(data[0].indices["test"]), len(inside.modalities)
    levels = 3 if method == "clcr" and variant != "no_hierarchy" else 1
    assert inside.parts["features"].shape == (n, levels, modalities, 32)
    assert inside.real is not None
    assert inside.real.shape[:2] == (n, modalities)
    lacking = {"no_intraced": {"binds"}, "dense_budget": {"binds"}, "no_intercad": {"omega", "pi", "eta"}}
    own = {"slots", "alpha", "binds", "energy", "omega", "pi", "eta"}
    expected = own - lacking.get(variant, set()) if method == "clcr" else set()
    assert {name for name in own if getattr(inside, name) is not None} == expected
    if method == "clcr":
        assert inside.alpha is not None
        assert inside.alpha.shape == (n, 3, modalities, inside.real.shape[-1])
        assert not inside.alpha[~np.broadcast_to(inside.real[:, None], inside.alpha.shape)].any()
        assert inside.parts["shared"].shape == inside.parts["private"].shape == (n, 3, modalities, 32)
    if method == "misa":
        assert inside.parts["shared"].shape == inside.parts["private"].shape == (n, 1, modalities, 32)


@pytest.mark.parametrize("variant", ["full", "no_intraced", "full_mix", "no_orthogonality"])
def test_tokens_are_those_of_the_exchange(variant: str) -> None:
    group, _, data = grouped("clcr", variant)
    method = alone(group)[1]
    seen = next(passes(method, data[1], "test", folded=True))
    assert seen.before is not None
    assert seen.added is not None
    assert seen.exchanged is not None
    assert seen.hidden is not None
    assert torch.equal(seen.before + seen.added, seen.exchanged.shared)
    hidden = seen.hidden
    if variant == "full_mix":
        assert isinstance(method, CLCR)
        hidden = hidden.take_along_dim(method.level_of[0][..., None, None, None], 0)
    if seen.exchanged.basis is None:
        assert torch.equal(seen.before, hidden)
    else:
        basis = seen.exchanged.basis.unsqueeze(2)
        both = torch.cat([seen.before, seen.exchanged.private], -1)
        torch.testing.assert_close(hidden @ basis, both, rtol=1e-5, atol=1e-5)


def test_streams_norms_and_slots_follow_from_the_tokens() -> None:
    group, _, data = grouped("clcr", "full_mix")
    inside = collect(group, data, "test")[0]
    batches = list(passes(alone(group)[0], data[0], "test", folded=True))
    before, added, alpha = (
        torch.cat([getattr(s.exchanged if name == "alpha" else s, name) for s in batches], 2).double().numpy()
        for name in ("before", "added", "alpha")
    )
    sent = (alpha[..., None] * before).sum(-2) / alpha.sum(-1)[..., None]
    assert inside.real is not None
    assert inside.energy is not None
    count = inside.real.sum(-1).T[None, ..., None]
    np.testing.assert_allclose(np.moveaxis(inside.parts["sent"], 0, 2), sent, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.moveaxis(inside.parts["received"], 0, 2), added.sum(-2) / count, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(inside.energy.sum(0)[..., 0], (before**2).sum((2, 3, 4)), rtol=1e-4)
    np.testing.assert_allclose(inside.energy.sum(0)[..., 1], (added**2).sum((2, 3, 4)), rtol=1e-4)
    np.testing.assert_array_equal(inside.slots, group.method.level_of[0].numpy())  # type: ignore[index, union-attr]


class Single(CLCR):
    """CLCR without folding."""

    FOLDS = False


def single() -> tuple[Group, list[np.ndarray], object]:
    group, runs, data = grouped(seeds=(0,))
    seed = alone(group)[0]
    plain = Single(seed.task, runs[0].config.encoder, runs[0].config.method)
    plain.load_state_dict({name: x[0] for name, x in seed.state_dict().items()})
    return Group([plain], data), predictions(group, "test"), data


def test_a_method_that_does_not_fold_is_read_too() -> None:
    group, expected, data = single()
    inside = collect(group, data, "test")[0]  # type: ignore[arg-type]
    np.testing.assert_allclose(inside.prediction, expected[0], atol=1e-5)
    assert inside.omega is not None
    assert inside.omega.shape == (256, 3)
    assert hooks(group.method) == 0


def test_hooks_go_even_if_the_method_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    group, _, data = single()

    def broken(self: CLCR, batch: Batch) -> Output:
        self.hierarchy(*self.tokens(batch))
        raise RuntimeError("broken")

    monkeypatch.setattr(Single, "forward", broken)
    group.method.train()
    with pytest.raises(RuntimeError, match="broken"):
        collect(group, data, "test")  # type: ignore[arg-type]
    assert hooks(group.method) == 0
    assert group.method.training
