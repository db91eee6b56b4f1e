"""The method as a whole: the contract, padding, precision, seeds side by side, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toys import TOY, WIDTH, gradients, total_loss, toy_batch, toy_model, toy_task, train

from clcr import attention
from clcr.api import Batch, Method, Modality, Task
from clcr.config import VARIANTS, CLCRConfig, EncoderConfig
from clcr.method import CLCR


@pytest.mark.parametrize("classes", [None, 4])
@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_prediction_losses_and_diagnostics(classes: int | None, modalities: int) -> None:
    task = toy_task(modalities, classes)
    model, batch = toy_model("full", task), toy_batch(task)
    assert isinstance(model, Method)
    output = model(batch)
    assert output.prediction.shape == ((10,) if classes is None else (10, 4))
    losses = model.losses(output, batch)
    assert next(iter(losses)) == "task"
    assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
    shapes = {name: tuple(x.shape) for name, x in output.diagnostics.items()}
    table, batch_levels, batch_modalities = (3, modalities), (10, 3), (10, modalities)
    assert shapes == {
        "alpha": (3, modalities, 10, 5 if modalities == 1 else 6),
        "participation": table,
        "budget_binds": table,
        "rho": (3, 1),
        "rank_shared": table,
        "rank_private": table,
        "omega": batch_levels,
        "pi": batch_modalities,
        "eta": batch_modalities,
        "omega_entropy": (10,),
    }
    assert not any(x.requires_grad for x in output.diagnostics.values())
    for name in ("omega", "pi"):
        assert_close(output.diagnostics[name].sum(1), torch.ones(10, dtype=torch.float64))
    assert_close(output.diagnostics["rho"], torch.full((3, 1), 0.27, dtype=torch.float64), rtol=1e-6, atol=0)


def test_reported_modality_weights_are_those_that_work() -> None:
    """Raising the key of one modality's direction moves pi and the prediction; eta scales the private part."""
    task = toy_task()
    model, batch = toy_model("full", task), toy_batch(task)
    parts = model(batch).parts["summaries"]
    aggregated = model.intercad(parts)
    omega, pi, eta = aggregated.omega, aggregated.pi, aggregated.eta
    s_bar = torch.einsum("bl,lmbd->mbd", omega, parts.shared)
    p_bar = torch.einsum("bl,lmbd->mbd", omega, parts.private)
    expected = [torch.einsum("bm,mbd->bd", pi, s_bar), *(eta[:, [m]] * p_bar[m] for m in range(3))]
    assert_close(aggregated.features, torch.cat(expected, -1))


def test_the_same_seed_gives_the_same_model() -> None:
    one, two, other = (toy_model(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.0.weight"], other["head.0.weight"])
    assert not torch.equal(one["intercad.anchors"][0], one["intercad.anchors"][1])


def test_building_a_model_leaves_the_generator_where_all_variants_leave_it() -> None:
    states = []
    for variant in VARIANTS:
        toy_model(variant)
        states.append(torch.get_rng_state())
    assert all(torch.equal(state, states[0]) for state in states)


def padded_batch(batch: Batch, extra: int) -> Batch:
    """Garbage in the padding, and ``extra`` more tokens of it."""
    inputs, masks = [], []
    for x, mask in zip(batch.inputs, batch.masks, strict=True):
        real = mask[:, None, :, None] if x.dim() == 4 else mask[..., None]
        x = torch.where(real, x, 100 * torch.randn_like(x))
        inputs.append(torch.cat([x, torch.randn_like(x[..., :extra, :])], -2))
        masks.append(torch.cat([mask, torch.zeros_like(mask[:, :extra])], -1))
    return replace(batch, inputs=tuple(inputs), masks=tuple(masks))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_padding_changes_no_output(variant: str, pooling: str) -> None:
    longer = Task(tuple(replace(x, tokens=x.tokens + 3) for x in toy_task().modalities), 3)
    model, batch = toy_model(variant, longer, encoder={"pooling": pooling}), toy_batch(toy_task())
    if pooling == "attention":
        with torch.no_grad():
            model.summarise.pool_shared.query.normal_()
    for extra in (0, 3):
        other = padded_batch(batch, extra)
        assert_close(model(other).prediction, model(batch).prediction, rtol=1e-12, atol=1e-12)
        assert_close(total_loss(model, other), total_loss(model, batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_small_batches_and_absent_modalities_stay_finite(variant: str, size: int) -> None:
    task = toy_task()
    model = toy_model(variant, task).float()
    batch = toy_batch(task, size, dtype=torch.float32)
    empty = tuple(mask & (torch.arange(size) > 0).unsqueeze(1) for mask in batch.masks)
    loss = total_loss(model, replace(batch, masks=empty))
    assert loss.isfinite()
    assert all(x.isfinite().all() for x in gradients(model, loss).values())


def test_single_tokens_everywhere() -> None:
    task = Task(tuple(Modality(x.name, x.width, 1, x.levelled) for x in toy_task().modalities), 3)
    model, batch = toy_model("full", task).float(), toy_batch(task, full=True, dtype=torch.float32)
    output = model(batch)
    assert (output.diagnostics["alpha"] == 1).all()
    assert (output.diagnostics["participation"] == 1).all()
    assert not output.diagnostics["budget_binds"].any()
    loss = total_loss(model, batch)
    assert all(x.isfinite().all() for x in gradients(model, loss).values())


def test_parameters_of_modalities() -> None:
    """Backbones first, then the encoder; everything behind them is shared."""
    task = toy_task()
    backbones = [Scale() for _ in task.modalities]
    torch.manual_seed(0)
    model = CLCR(task, EncoderConfig(width=WIDTH), CLCRConfig(**TOY), backbones).double()
    pairs = list(model.modality_parameters())
    assert [indices for _, indices in pairs[:3]] == [(0,), (1,), (2,)]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)].split(".")[0] for parameter, _ in pairs} == {"backbones", "hierarchy"}
    assert len({id(parameter) for parameter, _ in pairs}) == len(pairs)
    assert all(len(indices) == 1 or parameter.shape[0] == len(indices) for parameter, indices in pairs)
    batch = toy_batch(task)
    total_loss(model, batch).backward()
    assert all(backbone.factor.grad.abs() > 0 for backbone in backbones)


class Scale(torch.nn.Module):
    """A backbone of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.factor * x, mask


def test_bfloat16_autocast() -> None:
    task = toy_task()
    model, batch = toy_model("full", task).float(), toy_batch(task, 16, dtype=torch.float32)
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch)
        losses = model.losses(output, batch)
        basis = model.intraced.subspaces()
    assert basis.dtype == torch.float32
    assert (basis.mT @ basis - torch.eye(7)).abs().max() < 1e-5
    assert output.diagnostics["alpha"].dtype == torch.float32
    assert (output.diagnostics["alpha"] - exact.diagnostics["alpha"]).abs().mean() < 0.05
    assert_close(output.prediction.float(), exact.prediction, rtol=0, atol=0.1)
    for name, loss in model.losses(exact, batch).items():
        assert_close(losses[name].float(), loss, rtol=0.1, atol=0.02)
    loss = torch.stack([x.float() for x in losses.values()]).sum()
    assert all(x.isfinite().all() for x in gradients(model, loss).values())


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("variant", ["full", "full_mix", "no_intraced"])
def test_two_seeds_side_by_side(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.func.vmap over stacked parameters equals the models one by one, gradients included."""
    monkeypatch.setattr(attention, "FEW_TOKENS", 0)  # vmap knows no backward written by hand
    task = toy_task()
    models, batch = [toy_model(variant, task, seed) for seed in (1, 2)], toy_batch(task)
    parameters, buffers = torch.func.stack_module_state(models)

    def loss(own: dict[str, Tensor], constants: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        def run(given: Batch) -> tuple[Tensor, Tensor]:
            output = models[0](given)
            return sum(models[0].losses(output, given).values()), output.prediction  # type: ignore[return-value]

        wrapped = torch.nn.Module()
        wrapped.inner = models[0]
        wrapped.forward = run  # type: ignore[method-assign]
        state = {f"inner.{name}": x for name, x in {**own, **constants}.items()}
        return torch.func.functional_call(wrapped, state, (batch,))

    step = torch.func.vmap(torch.func.grad_and_value(loss, has_aux=True))
    found, (_, predictions) = step(parameters, buffers)
    for seed, model in enumerate(models):
        assert_close(predictions[seed], model(batch).prediction)
        for name, gradient in gradients(model, total_loss(model, batch)).items():
            assert_close(found[name][seed], gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("classes", [None, 3])
def test_it_learns(classes: int | None) -> None:
    """A synthetic target that only the shared part of two modalities together tells."""
    task = toy_task(classes=classes, levelled=False)
    model = toy_model("full", task).float().train()
    batches = []
    for seed in range(4):
        batch = toy_batch(task, 32, seed, full=True, dtype=torch.float32)
        signal = batch.inputs[0][..., 0].mean(1) + batch.inputs[1][..., 0].mean(1)
        target = signal if classes is None else torch.bucketize(signal, torch.tensor([-0.3, 0.3]))
        batches.append(replace(batch, target=target))
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    history = []
    for step in range(160):
        optimiser.zero_grad()
        batch = batches[step % 4]
        losses = model.losses(model(batch), batch)
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        history.append(float(losses["task"].detach()))
    assert sum(history[-8:]) < 0.6 * sum(history[:8])


def test_plain_sgd_descends_without_nan() -> None:
    task = toy_task()
    history = train(toy_model("full", task).float(), [toy_batch(task, 16, dtype=torch.float32)], 60, lr=0.02)
    assert torch.tensor(history).isfinite().all()
    assert history[-1] < 0.8 * history[0]
