"""MISA's losses and network against numpy in float64 and against the layout of the released code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from packed import PackedReader
from torch import Tensor, nn

from baselines.misa import (
    MISA,
    Fusion,
    MISAConfig,
    central_moment_discrepancy,
    difference_loss,
    reverse_gradient,
)
from clcr.config import EncoderConfig
from clcr.recurrence import Recurrence, StackedBiLSTM

Array = NDArray[np.float64]
RNG = np.random.default_rng(2)


def cmd_in_numpy(x: Array, y: Array, moments: int = 5) -> float:
    total = np.sqrt(((x.mean(0) - y.mean(0)) ** 2).sum())
    for k in range(2, moments + 1):
        gap = ((x - x.mean(0)) ** k).mean(0) - ((y - y.mean(0)) ** k).mean(0)
        total += np.sqrt((gap**2).sum())
    return float(total)


def centred(x: Array) -> Array:
    return x - x.mean(0)


def norms(x: Array) -> Array:
    return np.sqrt((centred(x) ** 2).sum(1, keepdims=True)) + 1e-6


def difference_in_numpy(x: Array, y: Array, norm_x: Array | None = None) -> float:
    """``norm_x`` given: row norms of x held fixed, as detaching does in the gradient."""
    x_unit = centred(x) / (norms(x) if norm_x is None else norm_x)
    correlation = x_unit.T @ (centred(y) / norms(y))
    return float((correlation**2).sum() / correlation.size)


def parts_of(model: MISA, case: Any) -> dict[str, Array]:
    return {name: part.detach().double().numpy() for name, part in model(case.batch).parts.items()}


@pytest.mark.parametrize("moments", [1, 2, 5])
def test_central_moment_discrepancy(moments: int) -> None:
    x, y = RNG.uniform(size=(9, 4)), RNG.uniform(size=(9, 4)) ** 2
    found = central_moment_discrepancy(torch.from_numpy(x), torch.from_numpy(y), moments)
    assert float(found) == pytest.approx(cmd_in_numpy(x, y, moments), rel=1e-12)


@pytest.mark.parametrize("size", [1, 6])
def test_equal_batches_have_no_discrepancy_and_a_finite_gradient(size: int) -> None:
    """The square root of the released code gives NaN here."""
    x = torch.rand(size, 4, requires_grad=True)
    loss = central_moment_discrepancy(x, x.detach().clone(), 5)
    loss.backward()
    assert float(loss.detach()) == 0
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_difference_loss_and_its_gradient_through_detached_norms() -> None:
    x, y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3))
    leaf = torch.from_numpy(x).requires_grad_()
    loss = difference_loss(leaf, torch.from_numpy(y))
    assert float(loss.detach()) == pytest.approx(difference_in_numpy(x, y), rel=1e-12)
    loss.backward()
    fixed, h = norms(x), 1e-6
    numeric = np.zeros_like(x)
    for position in np.ndindex(*x.shape):
        nudge = np.zeros_like(x)
        nudge[position] = h
        numeric[position] = (
            difference_in_numpy(x + nudge, y, fixed) - difference_in_numpy(x - nudge, y, fixed)
        ) / (2 * h)  # fmt: skip
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), numeric, atol=1e-8)
    free = (difference_in_numpy(x * (1 + h), y) - difference_in_numpy(x * (1 - h), y)) / (2 * h)
    assert abs(free) < 1e-4 < float((leaf.grad * leaf.detach()).sum())  # with free norms, scale would not matter


def test_reversed_gradient() -> None:
    x = torch.randn(5, 3, requires_grad=True)
    y = reverse_gradient(x, 0.7)
    assert torch.equal(y, x)
    (y * torch.arange(15.0).view(5, 3)).sum().backward()
    torch.testing.assert_close(x.grad, -0.7 * torch.arange(15.0).view(5, 3))


@pytest.mark.parametrize("names", [("audio", "vision"), ("text", "audio", "vision")])
def test_losses_in_numpy(make_case: Callable[..., Any], names: tuple[str, ...]) -> None:
    case = make_case(names, None)
    model = case.build(MISA, diff_weight=0.4, sim_weight=0.9, recon_weight=0.6, fusion_dropout=0.0)
    output = model(case.batch)
    losses = {name: float(loss.detach()) for name, loss in model.losses(output, case.batch).items()}
    parts, pairs = parts_of(model, case), list(combinations(range(len(names)), 2))
    private, shared = parts["private"], parts["shared"]
    difference = sum(difference_in_numpy(p, s) for p, s in zip(private, shared, strict=True))
    difference += sum(difference_in_numpy(private[i], private[j]) for i, j in pairs)
    similarity = np.mean([cmd_in_numpy(shared[i], shared[j]) for i, j in pairs])
    gaps = [((r - p) ** 2).mean() for r, p in zip(parts["rebuilt"], parts["projected"], strict=True)]
    task = np.abs(output.prediction.detach().double().numpy() - case.batch.target.double().numpy()).mean()
    assert losses == pytest.approx(
        {
            "task": task,
            "difference": 0.4 * (16 / 128) ** 2 * difference,
            "similarity": 0.9 * similarity,
            "reconstruction": 0.6 * np.mean(gaps),
        },
        rel=2e-4,
    )


def test_defaults_are_those_of_the_released_code() -> None:
    config = MISAConfig()
    assert (config.diff_weight, config.sim_weight, config.recon_weight) == (0.3, 1.0, 1.0)
    assert (config.moments, config.heads, config.feedforward * 128, config.fusion_dropout) == (5, 2, 2048, 0.1)


def test_shared_and_private_encoders(make_case: Callable[..., Any]) -> None:
    case = make_case()
    model, parts = (m := case.build(MISA)), parts_of(m, case)

    def apply(layer: nn.Linear, x: Array) -> Array:
        weight, bias = (p.detach().double().numpy() for p in layer.parameters())
        return x @ weight.T + bias

    for m, projected in enumerate(parts["projected"]):
        private = 1 / (1 + np.exp(-apply(model.private[m], projected)))
        shared = 1 / (1 + np.exp(-apply(model.shared, projected)))
        np.testing.assert_allclose(parts["private"][m], private, atol=1e-5)
        np.testing.assert_allclose(parts["shared"][m], shared, atol=1e-5)
        np.testing.assert_allclose(parts["rebuilt"][m], apply(model.rebuild[m], private + shared), atol=1e-5)


def torch_layer(fusion: Fusion, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """torch's layer with the weights of ours, and any bias of the keys, which changes nothing."""
    own = fusion.attention
    layer = nn.TransformerEncoderLayer(width, heads, fusion.wider.out_features, dtype=own.inputs.weight.dtype)
    bias = torch.cat((own.query_bias.flatten(), torch.randn(width), own.value_bias.flatten()))
    state = {"self_attn.in_proj_weight": own.inputs.weight, "self_attn.in_proj_bias": bias}
    pairs = {"self_attn.out_proj": own.output, "linear1": fusion.wider, "linear2": fusion.narrower}
    pairs |= {"norm1": fusion.first_norm, "norm2": fusion.second_norm}
    for name, module in pairs.items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    layer.load_state_dict(state)
    return layer.eval()


def test_fusion_is_torchs_layer() -> None:
    torch.manual_seed(0)
    fusion = Fusion(12, 3, 40, 0.4).double()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(5, 6, 12, dtype=torch.float64)
    expected = torch_layer(fusion, 12, 3)(x.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(fusion.eval()(x), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(fusion.train()(x), expected)


def test_fusion_has_the_released_layout(make_case: Callable[..., Any]) -> None:
    """Stack of all private, then all shared vectors, through nn.TransformerEncoder with the sequence axis first."""
    case = make_case(("text", "audio", "vision"), 3)
    model = case.build(MISA).eval()
    layer = torch_layer(model.fusion, 16, 2)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()
    parts = model(case.batch).parts
    h = encoder(torch.cat((parts["private"], parts["shared"])))
    h = model.head[0](torch.cat(list(h), dim=1))
    assert h.shape == (8, 3 * 16)
    expected = model.head[3](torch.relu(h))
    torch.testing.assert_close(model(case.batch).prediction, expected, rtol=1e-5, atol=1e-6)


def test_losses_are_exact_under_autocast(make_case: Callable[..., Any]) -> None:
    case = make_case(("text", "audio", "vision"), None)
    model = case.build(MISA).eval()
    output = model(case.batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.losses(output, case.batch)
        assert all(torch.isfinite(loss) for loss in model.losses(model(case.batch), case.batch).values())
    torch.testing.assert_close(found, model.losses(output, case.batch), rtol=0, atol=0)


def test_adversarial_loss_and_the_sign_of_its_gradient(make_case: Callable[..., Any]) -> None:
    case = make_case(("text", "audio", "vision"), 3)
    reversed_, plain = (case.build(MISA, similarity="adversarial", reverse_weight=w) for w in (1.0, 0.5))
    output = reversed_(case.batch)
    loss = reversed_.losses(output, case.batch)["similarity"]
    logits = output.parts["domain"].detach().double().numpy()
    assert logits.shape == (3, 8, 3)
    likelihood = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert float(loss.detach()) == pytest.approx(-np.log([likelihood[m, :, m] for m in range(3)]).mean(), rel=1e-5)
    loss.backward()
    plain.losses(plain(case.batch), case.batch)["similarity"].backward()
    grad, half = reversed_.shared.weight.grad, plain.shared.weight.grad
    assert grad is not None
    torch.testing.assert_close(grad, 2 * half)
    with torch.no_grad():  # along the reversed gradient the discriminator does better: descent confuses it
        reversed_.shared.weight += 1e-2 * grad
        better = reversed_.losses(reversed_(case.batch), case.batch)["similarity"]
    assert better < loss
    torch.testing.assert_close(reversed_.discriminator[0].weight.grad, plain.discriminator[0].weight.grad)


def test_variants_change_what_they_say(make_case: Callable[..., Any]) -> None:
    case = make_case()
    full, adversarial = (case.build(MISA, **MISA.VARIANTS[v]) for v in ("full", "adversarial"))
    assert full.discriminator is None
    assert "domain" not in full(case.batch).parts
    assert adversarial(case.batch).parts["domain"].shape == (2, 8, 2)
    assert replace(full.config, similarity="adversarial") == adversarial.config


def test_recurrence_is_the_released_one_with_packed_sequences() -> None:
    torch.manual_seed(0)
    reader = StackedBiLSTM(3, 4).double()
    with torch.no_grad():
        for parameter in (reader.norm_weight, reader.norm_bias):
            parameter.add_(torch.randn_like(parameter))
    packed = PackedReader(reader)
    x = torch.randn(3, 5, 7, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(7) < torch.tensor([[7, 1, 3, 6, 2], [1, 2, 3, 4, 5], [6, 6, 6, 6, 6]]).unsqueeze(-1)
    found, expected = reader(x, mask), packed(x, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    direction = torch.randn_like(found)
    ours = torch.autograd.grad((found * direction).sum(), (x, *reader.parameters()))
    theirs = torch.autograd.grad((expected * direction).sum(), (x, *packed.parameters()))
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-12)
    for power in (1, 2):  # the gradients of the parameters are the same numbers in another order
        sums = [sum(float((gradient**power).sum()) for gradient in each[1:]) for each in (ours, theirs)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-12)


def test_the_hand_written_backward_pass() -> None:
    torch.manual_seed(0)
    shapes = ((3, 4, 2, 3), (3, 8, 3), (3, 8, 2), (3, 8))
    x, *parameters = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    silent = torch.rand(3, 4, 2, 1) < 0.3
    assert silent.any()
    assert torch.autograd.gradcheck(lambda x, *rest: Recurrence.apply(x, silent, *rest), (x, *parameters))
    one = x[:, :1].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Recurrence.apply(x, silent[:, :1], *parameters), one)


def test_recurrence_stays_exact_under_autocast() -> None:
    torch.manual_seed(0)
    reader = StackedBiLSTM(2, 4)
    x, mask = torch.randn(2, 3, 5, 4), torch.ones(2, 3, 5, dtype=torch.bool)
    expected = reader(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = reader(x, mask)
        found.sum().backward()
    torch.testing.assert_close(found, expected)
    assert reader.first.weight.grad is not None


def test_recurrence_skips_gaps_and_empty_samples() -> None:
    torch.manual_seed(0)
    reader = StackedBiLSTM(1, 4).double()
    mask = torch.tensor([[[0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]], dtype=torch.bool)
    x = torch.randn(1, 3, 6, 4, dtype=torch.float64, requires_grad=True)
    out = reader(x, mask)
    alone = reader(x[:, :1, [1, 2, 4]], torch.ones(1, 1, 3, dtype=torch.bool))
    torch.testing.assert_close(out[:, :1], alone, rtol=0, atol=1e-12)
    assert not out[0, 1].any()
    out.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert torch.equal(x.grad.abs().sum(-1) > 0, mask)


def test_recurrent_weights_are_orthogonal() -> None:
    reader = StackedBiLSTM(3, 6)
    for weight in (reader.first.weight, reader.second.weight):
        torch.testing.assert_close(weight.mT @ weight, torch.eye(6).expand(3, 2, 6, 6), rtol=0, atol=1e-5)
    assert len({tuple(row.tolist()) for row in reader.first.weight.flatten(0, 1)[:, 0]}) == 6  # no two alike


def test_audio_is_read_beyond_the_length_of_the_text(make_case: Callable[..., Any]) -> None:
    """MMSA's version packs audio by the text's length and never sees its later steps."""
    case = make_case(("text", "audio"), None)
    text_mask, audio_mask = case.batch.masks
    assert text_mask.shape[1] < audio_mask[0].sum()
    model = case.build(MISA).eval()
    changed = [x.clone() for x in case.batch.inputs]
    changed[1][0, -1] += 1  # the last audio step of the longest sample
    moved = model(replace(case.batch, inputs=tuple(changed))).prediction - model(case.batch).prediction
    assert moved[0].abs() > 1e-5
    assert not moved[1:].any()


def test_levels_and_single_tokens_are_pooled_not_read_in_sequence(make_case: Callable[..., Any]) -> None:
    case = make_case(("text", "audio", "tabular"), None)
    model: Any = case.build(MISA)
    assert (model.utterance.pooled, model.utterance.recurrent) == ((0, 2), (1,))
    attentive: Any = make_case(("text", "audio", "tabular"), None, pooling="attention").build(MISA)
    queries = [name for name, _ in attentive.utterance.named_parameters() if name.endswith("query")]
    assert queries == ["pooling.0.query", "pooling.1.query"]


def test_collapse_is_seen_in_the_diagnostics(make_case: Callable[..., Any]) -> None:
    case = make_case()
    model = case.build(MISA)
    spread = model(case.batch).diagnostics["spread_shared"]
    with torch.no_grad():
        model.shared.weight.zero_()
    assert model(case.batch).diagnostics["spread_shared"] == 0 < spread
    parts: Tensor = model(case.batch).parts["private"]
    expected = parts.detach().numpy().std(1).mean()
    assert float(model(case.batch).diagnostics["spread_private"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{"diff_weight": -0.1}, {"similarity": "mmd"}, {"moments": 0}, {"feedforward": 0}, {"fusion_dropout": 1.0}],
)
def test_senseless_configs_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"config: method\."):
        MISAConfig(**fields)


def test_heads_must_divide_the_width(make_case: Callable[..., Any]) -> None:
    case = make_case()
    with pytest.raises(ValueError, match=r"method\.heads"):
        MISA(case.task, EncoderConfig(width=15))
