"""The trainer, on a small synthetic problem and methods of the test's own: order, hook, selection, failure, bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.metrics import compute
from benchmarks.runner.config import Training
from benchmarks.runner.group import DiagnosticMeans, Evaluation, Group, TrainingError, batches, steps
from benchmarks.runner.seeds import Streams, streams
from benchmarks.runner.step import clip_gradients
from benchmarks.runner.train import Goal, Outcome, make_optimizer, schedule, train
from clcr.api import Batch, Method, Modality, Output, Step, Task
from clcr.layers import Dropout, Linear

SEEDS = streams("synthetic", "plain", 0, 0)
TRAINING = Training(optimizer="adamw", lr=0.02, weight_decay=0.0, batch_size=16, epochs=6)
CLASSES = Goal(("accuracy", "macro_f1"), "accuracy")
VALUES = Goal(("mae",), "mae")


class SyntheticData:
    """130 samples of one vector of width 4: the target is the sign of the first feature, or its value."""

    def __init__(self, regression: bool = False, train: int = 65) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((130, 4)).astype(np.float32)
        self.x = torch.from_numpy(x)[:, None, :]
        target = x[:, 0] if regression else (x[:, 0] > 0).astype(np.int64)
        self.target = torch.from_numpy(target)
        self.indices: Mapping[str, np.ndarray] = {
            "train": np.arange(train),
            "valid": np.arange(70, 100),
            "test": np.arange(100, 130),
        }
        self.asked: list[Tensor] = []

    def batch(self, samples: Tensor) -> Batch:
        self.asked.append(samples)
        return Batch((self.x[samples],), (torch.ones(len(samples), 1, dtype=torch.bool),), self.target[samples])

    def targets(self, split: str) -> np.ndarray:
        return self.target[self.indices[split]].numpy()


class Small(Method):
    """A linear layer with dropout and two losses, which records what the trainer does with it."""

    def __init__(self, regression: bool = False) -> None:
        super().__init__(
            Task((Modality("x", 4, 1),), None if regression else 2, "l1" if regression else "cross_entropy")
        )
        torch.manual_seed(SEEDS.init)
        self.dropout = nn.Dropout(0.2)
        self.layer = nn.Linear(4, self.task.outputs)
        self.steps: list[Step] = []
        self.norms: list[float] = []

    def forward(self, batch: Batch) -> Output:
        raw = self.layer(self.dropout(batch.inputs[0][:, 0]))
        prediction = raw.squeeze(-1) if self.task.n_classes is None else raw
        return Output(prediction, {"first": batch.inputs[0][:, 0].detach(), "constant": torch.tensor([2.0, 4.0])})

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return {**super().losses(output, batch), "small": 0.01 * self.layer.weight.square().sum()}

    def adjust_gradients(self, output: Output, batch: Batch, step: Step) -> None:
        assert self.layer.weight.grad is not None
        self.steps.append(step)
        self.norms.append(float(self.layer.weight.grad.norm()))


def run(
    method: Small, data: SyntheticData, training: Training = TRAINING, goal: Goal = CLASSES, seeds: Streams = SEEDS
) -> Outcome:
    (outcome,) = train(Group([method], [data]), training, goal, [seeds], lambda epoch: None)
    if isinstance(outcome, TrainingError):
        raise outcome
    return outcome


def evaluate(method: Small, data: SyntheticData, split: str) -> Evaluation:
    (found,) = Group([method], [data]).evaluate(split)
    assert isinstance(found, Evaluation)
    return found


def train_batches(data: SyntheticData) -> list[Tensor]:
    return [samples for samples in data.asked if int(samples.max()) < 70]


def test_it_learns_and_tells_every_epoch() -> None:
    method, data, told = Small(), SyntheticData(), []
    group = Group([method], [data])
    (outcome,) = train(group, replace(TRAINING, epochs=20), CLASSES, [SEEDS], told.append)
    assert isinstance(outcome, Outcome)
    assert told == list(range(1, 21))
    assert outcome.value >= 0.85
    losses = [row["loss"] for row in outcome.curves]
    assert losses[-1]["task"] < 0.7 * losses[0]["task"]
    assert all(math.isclose(row["total"], row["task"] + row["small"], rel_tol=1e-5) for row in losses)
    assert [row["epoch"] for row in outcome.curves] == told
    assert set(outcome.curves[0]["valid"]) == {"accuracy", "macro_f1"}


def test_every_sample_is_seen_once_an_epoch_in_a_new_order() -> None:
    """65 samples in batches of 16: the last sample is not dropped, and joins the fourth batch."""
    data = SyntheticData()
    run(Small(), data, replace(TRAINING, epochs=2))
    batches = train_batches(data)
    assert [len(b) for b in batches] == [16, 16, 16, 17] * 2
    first, second = (torch.cat(batches[k : k + 4]) for k in (0, 4))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(65))
    assert first.tolist() != second.tolist()
    data = SyntheticData(train=66)
    run(Small(), data, replace(TRAINING, epochs=1))
    assert [len(b) for b in train_batches(data)] == [16, 16, 16, 16, 2]


def test_the_order_is_the_order_streams_alone() -> None:
    orders = []
    for seeds in (SEEDS, replace(SEEDS, init=1, dropout=2, noise=3), replace(SEEDS, order=4)):
        data = SyntheticData()
        run(Small(), data, replace(TRAINING, epochs=1), seeds=seeds)
        orders.append(torch.cat(train_batches(data)).tolist())
    assert orders[0] == orders[1] != orders[2]


def test_equal_seeds_give_equal_bits_whatever_ran_before() -> None:
    found = []
    for disturbance in (0, 1):
        torch.manual_seed(disturbance)
        torch.rand(disturbance)
        method, data = Small(), SyntheticData()
        outcome = run(method, data)
        found.append((outcome.curves, evaluate(method, data, "test").prediction.tobytes()))
    assert found[0] == found[1]
    other = Small()
    other_outcome = run(other, data, seeds=replace(SEEDS, dropout=9))
    assert other_outcome.curves != found[0][0]


def test_the_test_split_is_not_touched() -> None:
    data = SyntheticData()
    run(Small(), data)
    assert max(int(samples.max()) for samples in data.asked) < 100


def test_the_best_epoch_is_kept_and_loaded() -> None:
    """A learning rate that ruins the weights later on: what remains are the weights of the selected epoch."""
    method, data = Small(regression=True), SyntheticData(regression=True)
    outcome = run(method, data, replace(TRAINING, optimizer="sgd", lr=1.5, momentum=0.9, epochs=12), VALUES)
    values = [row["valid"]["mae"] for row in outcome.curves]
    assert outcome.value == min(values) < values[-1]
    assert outcome.epoch == values.index(min(values)) + 1
    again = compute(("mae",), evaluate(method, data, "valid").prediction, data.targets("valid"))
    assert again["mae"] == outcome.value


def test_the_earliest_of_equal_epochs_wins() -> None:
    outcome = run(Small(), SyntheticData(), replace(TRAINING, lr=0.0))
    assert outcome.epoch == 1
    assert len(outcome.curves) == 6


def test_patience_stops_and_zero_never_does() -> None:
    outcome = run(Small(), SyntheticData(), replace(TRAINING, lr=0.0, patience=2, epochs=50))
    assert len(outcome.curves) == 3


def test_selection_on_test_where_the_protocol_says_so() -> None:
    method, data = Small(), SyntheticData()
    outcome = run(method, data, TRAINING, replace(CLASSES, split="test"))
    values = [row["test"]["accuracy"] for row in outcome.curves]
    assert outcome.value == max(values)
    assert min(int(samples.min()) for samples in data.asked if len(samples) == 30) >= 100


def test_the_hook_stands_between_backward_and_step() -> None:
    class Frozen(Small):
        def adjust_gradients(self, output: Output, batch: Batch, step: Step) -> None:
            super().adjust_gradients(output, batch, step)
            for parameter in self.parameters():
                assert parameter.grad is not None
                parameter.grad.zero_()

    method = Frozen()
    before = method.layer.weight.detach().clone()
    run(method, SyntheticData())
    assert torch.equal(method.layer.weight, before)
    assert min(method.norms) > 0  # fresh gradients at every step, none left over
    assert [step.epoch for step in method.steps] == [epoch for epoch in range(6) for _ in range(4)]
    assert {step.epochs for step in method.steps} == {6}


def test_the_noise_stream_is_the_hooks_own() -> None:
    drawn = []
    for dropout in (1, 2):
        method = Small()
        run(method, SyntheticData(), seeds=replace(SEEDS, dropout=dropout))
        drawn.append(float(method.steps[-1].noise.normal(1)))
    assert drawn[0] == drawn[1]


def test_gradients_are_clipped_after_the_hook() -> None:
    class Large(Small):
        def adjust_gradients(self, output: Output, batch: Batch, step: Step) -> None:
            for parameter in self.parameters():
                assert parameter.grad is not None
                parameter.grad.fill_(100.0)

    training = replace(TRAINING, optimizer="sgd", momentum=0.0, lr=1.0, clip_norm=0.5, epochs=1, batch_size=65)
    method = Large()
    before = [p.detach().clone() for p in method.parameters()]
    run(method, SyntheticData(), training)
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(method.parameters(), before, strict=True)])
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("when", ["loss", "prediction"])
def test_what_is_not_finite_is_a_clear_failure(when: str) -> None:
    class Broken(Small):
        def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
            extra = {"extra": self.layer.weight.sum() * float("nan")} if when == "loss" else {}
            return {**super().losses(output, batch), **extra}

        def forward(self, batch: Batch) -> Output:
            output = super().forward(batch)
            ruin = when == "prediction" and not self.training
            return Output(output.prediction * (float("inf") if ruin else 1.0))

    with pytest.raises(
        TrainingError, match="epoch 1: .*extra.* not finite" if when == "loss" else "prediction is not finite"
    ):
        run(Broken(), SyntheticData())


def test_schedules() -> None:
    cosine, step = replace(TRAINING, schedule="cosine", epochs=10), replace(TRAINING, schedule="step", step_epochs=3)
    assert [schedule(cosine, epoch) for epoch in (0, 5)] == [1.0, pytest.approx(0.5)]
    assert 0 < schedule(cosine, 9) < 0.03
    assert [round(schedule(step, epoch), 6) for epoch in (0, 2, 3, 6)] == [1.0, 1.0, 0.1, 0.01]
    assert schedule(TRAINING, 5) == 1.0


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimisers_take_their_numbers(name: str, kind: str) -> None:
    training = replace(TRAINING, optimizer=name, lr=0.1, weight_decay=0.3, momentum=0.7)
    optimizer = make_optimizer(Small(), training)
    assert type(optimizer).__name__ == kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group.get("momentum", 0.7)) == (0.1, 0.3, 0.7)


def test_bfloat16_is_a_switch() -> None:
    dtypes = set()

    class Watched(Small):
        def forward(self, batch: Batch) -> Output:
            output = super().forward(batch)
            if self.training:
                dtypes.add(output.prediction.dtype)
            return output

    outcome = run(Watched(), SyntheticData(), replace(TRAINING, bf16=True, epochs=15))
    assert dtypes == {torch.bfloat16}
    assert outcome.value > 0.8


def test_diagnostics_are_means_over_samples() -> None:
    data, method = SyntheticData(), Small()
    data.indices = {**data.indices, "valid": np.arange(130)}  # two evaluation batches of unequal size
    found = evaluate(method, data, "valid").diagnostics
    means = data.x[:, 0].mean(0)
    assert [found[f"first.{k}"] for k in range(4)] == pytest.approx(means.tolist(), abs=1e-6)
    assert (found["constant.0"], found["constant.1"]) == (2.0, 4.0)
    scalar = DiagnosticMeans()
    scalar.add({"a": torch.tensor(1.0)}, 3)
    scalar.add({"a": torch.tensor(2.0)}, 1)
    assert scalar.read() == {"a": 1.25}
    tokens = DiagnosticMeans()
    tokens.add({"alpha": torch.tensor([[[0.0, 1.0]], [[2.0, 3.0]]])}, 2)
    assert tokens.read() == {"alpha": 1.5}


class Several(SyntheticData):
    """The data of several seeds as one."""

    def __init__(self, folds: Sequence[SyntheticData]) -> None:
        self.folds = folds

    def batch(self, samples: Tensor) -> Batch:
        each = [fold.batch(own) for fold, own in zip(self.folds, samples, strict=True)]
        masks, targets = (torch.stack(x) for x in zip(*((b.masks[0], b.target) for b in each), strict=True))
        return Batch((torch.stack([b.inputs[0] for b in each]),), (masks,), targets)


SyntheticData.together = Several  # type: ignore[attr-defined]


class Folding(Small):
    """The same with layers that fold."""

    FOLDS = True

    def __init__(self, regression: bool = False, seed: int = 0) -> None:
        super().__init__(regression)
        torch.manual_seed(seed)
        self.dropout, self.layer = Dropout(0.2), Linear(4, self.task.outputs)  # type: ignore[assignment]

    def forward(self, batch: Batch) -> Output:
        raw = self.layer(self.dropout(batch.inputs[0][..., 0, :]))
        return Output(raw.squeeze(-1) if self.task.n_classes is None else raw, {"first": raw.detach()})

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return {**Method.losses(self, output, batch), "small": 0.01 * self.layer.weight.square().sum((-2, -1))}

    def adjust_gradients(self, output: Output, batch: Batch, step: Step) -> None:
        gradient = self.layer.weight.grad
        assert gradient is not None
        gradient += 0.01 * step.noise.normal(*gradient.shape[1:])


@pytest.mark.parametrize("patience", [0, 2])
def test_a_group_gives_each_seed_what_it_would_have_alone(patience: int) -> None:
    """Splits of 65, 60 and 65 samples: the last batches differ in size, and one seed stops before the others."""
    training = replace(TRAINING, clip_norm=0.5, patience=patience, epochs=9)
    sizes, seeds = (65, 60, 65), [streams("synthetic", "plain", seed, 0) for seed in range(3)]
    data = [SyntheticData(train=size) for size in sizes]
    group = Group([Folding(seed=seed) for seed in range(3)], data)
    together = train(group, training, CLASSES, seeds, lambda epoch: None)
    predicted = group.evaluate("test")
    for seed in range(3):
        one = Group([Folding(seed=seed)], [SyntheticData(train=sizes[seed])])
        (alone,) = train(one, training, CLASSES, [seeds[seed]], lambda epoch: None)
        found = together[seed]
        assert isinstance(alone, Outcome)
        assert isinstance(found, Outcome)
        assert (found.epoch, found.value, len(found.curves)) == (alone.epoch, alone.value, len(alone.curves))
        for ours, theirs in zip(found.curves, alone.curves, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["diagnostics"] == pytest.approx(theirs["diagnostics"], rel=1e-4, abs=1e-5)
        assert np.allclose(predicted[seed].prediction, one.evaluate("test")[0].prediction, atol=1e-5)


def test_a_seed_that_fails_leaves_the_others_alone() -> None:
    methods = [Folding(seed=seed) for seed in range(3)]
    with torch.no_grad():
        methods[1].layer.weight[0, 0] = float("nan")
    seeds = [streams("synthetic", "plain", seed, 0) for seed in range(3)]
    outcomes = train(Group(methods, [SyntheticData()] * 3), TRAINING, CLASSES, seeds, lambda epoch: None)
    assert [isinstance(outcome, Outcome) for outcome in outcomes] == [True, False, True]
    assert "not finite" in str(outcomes[1])


def test_each_seed_is_clipped_by_its_own_norm() -> None:
    group = Group([Folding(seed=seed) for seed in range(2)], [SyntheticData()] * 2)
    for parameter in group.method.parameters():
        parameter.grad = torch.stack([torch.full_like(parameter[0], 100.0), torch.full_like(parameter[0], 0.01)])
    clip_gradients(group, 0.5)
    norms = [torch.cat([p.grad[s].flatten() for p in group.method.parameters()]).norm() for s in range(2)]  # type: ignore[index]
    assert norms[0] == pytest.approx(0.5, rel=1e-4)
    assert norms[1] == pytest.approx(0.01 * math.sqrt(10), rel=1e-4)


def test_methods_that_do_not_fold_train_alone() -> None:
    with pytest.raises(ValueError, match="one seed at a time"):
        Group([Small(), Small()], [SyntheticData(), SyntheticData()])


@pytest.mark.parametrize("samples", [1, 2, 15, 16, 17, 18, 31, 32, 33, 65])
def test_the_plan_knows_how_many_steps_an_epoch_has(samples: int) -> None:
    assert steps(samples, 16) == len(batches(torch.arange(samples), 16))
