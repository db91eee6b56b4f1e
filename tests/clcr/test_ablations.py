"""Each ablation changes what it says and nothing else: parameter by parameter, and in behaviour."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from toys import gradients, total_loss, toy_batch, toy_model, toy_task

from clcr.config import VARIANTS, CLCRConfig
from clcr.intraced import orthonormalise
from clcr.method import CLCR

BUDGET = {f"intraced.budget.{name}" for name in ("scale", "threshold", "logit")}
BASES = {"intraced.subspaces.shared", "intraced.subspaces.private"}
CAD = "intercad."
DEEPEST = ("hierarchy.position", "hierarchy.convolutions.weight", "hierarchy.projections.0.weight")
EXCHANGE = {"intraced.exchange.project", "intraced.exchange.output"}


def parameters(variant: str) -> dict[str, torch.Tensor]:
    return dict(toy_model(variant).named_parameters())


def expected_missing(variant: str) -> set[str]:
    """Parameters of the full method that a variant has no use for."""
    if variant == "dense_budget":
        return BUDGET
    if variant == "no_intraced":
        return BUDGET | BASES
    if variant == "no_intercad":
        return {name for name in parameters("full") if name.startswith(CAD)}
    return set()


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_other_parameter_is_touched(variant: str) -> None:
    full, ablated = parameters("full"), parameters(variant)
    assert full.keys() - ablated.keys() == expected_missing(variant)
    assert not ablated.keys() - full.keys()
    for name, value in ablated.items():
        if variant == "no_intraced" and name in EXCHANGE:
            assert value.shape != full[name].shape  # works on tokens, not on coordinates
        elif variant == "no_hierarchy" and name in DEEPEST:
            axis = 0 if "projections" in name else 1
            assert torch.equal(value.squeeze(axis), full[name].select(axis, -1)), name
        else:
            assert torch.equal(value, full[name]), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_takes_part(variant: str) -> None:
    """No weight is left that only weight decay would see."""
    task = toy_task()
    model, batch = toy_model(variant, task), toy_batch(task)
    total_loss(model, batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-9, name


def outputs(variant: str, **config: object) -> tuple[CLCR, torch.Tensor, dict[str, torch.Tensor], object]:
    task = toy_task()
    model, batch = toy_model(variant, task, **config), toy_batch(task)
    output = model(batch)
    return model, output.prediction.detach(), model.losses(output, batch), output


ALL = {"task", "intra", "private_redundancy", "shared_private", "mix"}


@pytest.mark.parametrize(
    ("variant", "left"),
    [
        ("full", ALL),
        ("no_hierarchy", ALL),
        ("no_intraced", {"task", "private_redundancy", "mix"}),
        ("no_intercad", ALL - {"mix"}),
        ("full_mix", ALL),
        ("no_reg", {"task"}),
        ("no_intra_reg", ALL - {"intra"}),
        ("no_inter_reg", {"task", "intra"}),
        ("dense_budget", ALL),
        ("no_orthogonality", ALL),
        ("no_l_pr", ALL - {"private_redundancy"}),
        ("no_l_sp", ALL - {"shared_private"}),
        ("no_l_mix", ALL - {"mix"}),
    ],
)
def test_losses_of_a_variant(variant: str, left: set[str]) -> None:
    _, prediction, losses, _ = outputs(variant)
    assert losses.keys() == left
    _, reference, full, _ = outputs("full")
    regularisation_only = variant in (
        "full",
        "no_reg",
        "no_intra_reg",
        "no_inter_reg",
        "no_l_pr",
        "no_l_sp",
        "no_l_mix",
    )
    start_equal = regularisation_only or variant == "no_orthogonality"
    assert torch.allclose(prediction, reference, rtol=1e-5, atol=1e-6) == start_equal
    if regularisation_only:
        for name in losses:
            assert_close(losses[name], full[name], rtol=0, atol=0)


def test_lambdas_scale_their_terms() -> None:
    _, _, once, _ = outputs("full")
    _, _, twice, _ = outputs("full", lambda_inter=0.2, lambda_intra=0.3)
    for name in ("private_redundancy", "shared_private", "mix"):
        assert_close(twice[name], 2 * once[name])
    assert_close(twice["intra"], 3 * once["intra"])


def test_no_hierarchy_uses_the_deepest_level() -> None:
    task = toy_task()
    batch = toy_batch(task)
    full, ablated = toy_model("full", task), toy_model("no_hierarchy", task)
    deep, _ = full.hierarchy(batch.inputs, batch.masks)
    only, _ = ablated.hierarchy(batch.inputs, batch.masks)
    assert only.shape[0] == 1
    assert_close(only[0], deep[2])
    full.hierarchy.forward = lambda *_: (deep[2:].expand(3, -1, -1, -1, -1), torch.stack(padded(batch)))  # type: ignore
    assert_close(ablated(batch).prediction, full(batch).prediction)


def padded(batch: object) -> list[torch.Tensor]:
    longest = max(mask.shape[1] for mask in batch.masks)  # type: ignore[attr-defined]
    return [torch.nn.functional.pad(mask, (0, longest - mask.shape[1])) for mask in batch.masks]  # type: ignore


def test_full_mix_moves_levels_before_the_exchange_and_nothing_else() -> None:
    task = toy_task()
    batch = toy_batch(task)
    shifts = set()
    for seed in range(8):
        full, mixed = toy_model("full", task, seed), toy_model("full_mix", task, seed)
        shift = mixed.level_of[0]
        shifts.add(tuple(shift.tolist()))
        assert len(set(shift.tolist())) == 3  # distinct
        assert torch.equal(mixed.level_of, (torch.arange(3).unsqueeze(1) + shift) % 3)
        h, mask = full.hierarchy(batch.inputs, batch.masks)
        moved = torch.stack([h[:, m].roll(-int(shift[m]), 0) for m in range(3)], 1)
        full.hierarchy.forward = lambda *_, moved=moved, mask=mask: (moved, mask)  # type: ignore
        assert_close(mixed(batch).prediction, full(batch).prediction)
    assert len(shifts) > 2  # drawn per run
    again = toy_model("full_mix", task, 0)
    assert torch.equal(again.level_of, toy_model("full_mix", task, 0).level_of)


def test_dense_budget_lets_every_real_token_in() -> None:
    model, _, _, output = outputs("dense_budget")
    batch = toy_batch(toy_task())
    assert_close(output.diagnostics["alpha"], torch.stack(padded(batch)).double().expand(3, -1, -1, -1))
    assert "rho" not in output.diagnostics
    assert model.intraced.budget is None


def test_fixed_budgets_give_their_participation() -> None:
    seen = []
    for percent in (20, 40, 60, 80, 100):
        model = toy_model("full", budget="fixed", fixed_budget=percent / 100)
        assert model.intraced.budget.logit is None
        output = model(toy_batch(toy_task()))
        seen.append(float(output.diagnostics["participation"].mean()))
    assert seen == sorted(seen)
    assert seen[0] < 0.5 < seen[-1]


def test_other_answers_start_where_the_default_does() -> None:
    """The rate changes how far a step moves the budget, not where it starts; the exchange's scale is one of values."""
    batch = toy_batch(toy_task())
    full, fast, loud = toy_model(), toy_model(budget_rate=8.0), toy_model(exchange_scale=2.0)
    assert_close(fast(batch).prediction, full(batch).prediction)
    assert_close(fast.intraced.budget.scale * 8, full.intraced.budget.scale)
    assert torch.equal(loud.intraced.exchange.output, full.intraced.exchange.output * 2)
    for part in ("scale", "threshold", "logit"):
        grown = [gradients(model, total_loss(model, batch))[f"intraced.budget.{part}"] for model in (full, fast)]
        assert_close(grown[1], grown[0] * 8)


def test_a_floor_keeps_every_level() -> None:
    batch = toy_batch(toy_task())
    model = toy_model(level_floor=0.3)
    with torch.no_grad():
        model.intercad.score[2].weight *= 1e6
    omega = model(batch).diagnostics["omega"]
    assert_close(omega.sum(-1), torch.ones_like(omega[:, 0]))
    assert omega.min() >= 0.1 - 1e-9


def test_no_orthogonality_frees_the_bases() -> None:
    task = toy_task()
    batch = toy_batch(task)
    for variant, kept in (("full", True), ("no_orthogonality", False)):
        model = toy_model(variant, task)
        optimiser = torch.optim.SGD(model.parameters(), 0.05)
        for _ in range(5):
            optimiser.zero_grad()
            total_loss(model, batch).backward()
            optimiser.step()
        basis = model.intraced.subspaces()
        assert ((basis - orthonormalise(basis)).abs().max() < 1e-6) == kept


def test_no_intercad_ignores_which_level_speaks() -> None:
    """Means over levels: exchanging two levels of the summaries changes nothing; in the full method it does."""
    task = toy_task()
    batch = toy_batch(task)
    for variant, indifferent in (("no_intercad", True), ("full", False)):
        model = toy_model(variant, task)
        summaries = model(batch).parts["summaries"]
        swapped = type(summaries)(*(x.flip(0) for x in vars(summaries).values()))
        features, other = model.intercad(summaries).features, model.intercad(swapped).features
        assert torch.allclose(features, other) == indifferent


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"private_rank = 12: must be less than encoder.width 12"):
        toy_model(shared_rank=8, private_rank=4)
    with pytest.raises(ValueError, match=r"method.heads = 3: must be a divisor of method.shared_rank"):
        toy_model(heads=3)
    with pytest.raises(ValueError, match=r"method.heads = 8: must be a divisor of encoder.width"):
        toy_model("no_intraced", shared_rank=8, private_rank=3, heads=8)
    with pytest.raises(ValueError, match=r"method.budget = 'sparse'"):
        CLCRConfig(budget="sparse")


def test_more_modalities_than_levels_cannot_be_misaligned() -> None:
    from clcr.api import Modality, Task

    task = Task(tuple(Modality(str(m), 3, 2) for m in range(4)), 2)
    assert toy_model("full", task)(toy_batch(task)).prediction.shape == (10, 2)
    with pytest.raises(ValueError, match="at most 3 modalities, got 4"):
        toy_model("full_mix", task)
