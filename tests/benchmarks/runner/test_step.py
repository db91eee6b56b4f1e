"""Recorded training steps: with the gradients, the random numbers and the weights of those that are not recorded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.misa import MISA
from baselines.ogm_ge import OGMGE
from benchmarks.runner import step
from benchmarks.runner.config import Training
from benchmarks.runner.group import Group
from benchmarks.runner.seeds import streams
from benchmarks.runner.train import Goal, Outcome, train
from clcr.api import Batch, Method, Modality, Task
from clcr.config import EncoderConfig
from clcr.method import CLCR

TASK = Task((Modality("audio", 5, 6), Modality("vision", 4, 6)), 3)
METHODS: tuple[type[Method], ...] = (CLCR, OGMGE, MISA)
SMALL = {CLCR: {"shared_rank": 4, "private_rank": 3}}
GOAL = Goal(("accuracy",), "accuracy")
TRAINING = Training(optimizer="adamw", lr=0.01, batch_size=8, epochs=2, clip_norm=0.5)


class Data:
    """75 samples of two modalities: 45 to train on, which makes five batches of 8 and one of 5."""

    def __init__(self, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = tuple(torch.randn(75, 6, m.width, generator=generator).to(device) for m in TASK.modalities)
        lengths = torch.randint(2, 7, (75, 1), generator=generator)
        self.mask = (torch.arange(6) < lengths).to(device)
        self.target = torch.randint(3, (75,), generator=generator).to(device)
        self.indices = {"train": np.arange(45), "valid": np.arange(45, 60), "test": np.arange(60, 75)}

    @classmethod
    def together(cls, folds: list[Data]) -> Data:
        return folds[0]

    def batch(self, samples: Tensor) -> Batch:
        chosen = samples.to(self.target.device)
        masks = tuple(self.mask[chosen] for _ in TASK.modalities)
        return Batch(tuple(x[chosen] for x in self.inputs), masks, self.target[chosen])

    def targets(self, split: str) -> np.ndarray:
        return self.target[self.indices[split]].cpu().numpy()


def trained(cls: type[Method], device: str = "cpu") -> tuple[list[Outcome], dict[str, Tensor]]:
    """Two seeds of a method, trained."""
    each = [streams("synthetic", "plain", seed, 0) for seed in (0, 1)]
    methods = []
    for one in each:
        torch.manual_seed(one.init)
        methods.append(cls(TASK, EncoderConfig(width=8, dropout=0.2), cls.Config(**SMALL.get(cls, {}))).to(device))
    data = Data(device)
    group = Group(methods, [data, data])
    return train(group, TRAINING, GOAL, each, lambda epoch: None), group.method.state_dict()


class Recorder:
    """Stands for a CUDA graph: recording runs the function once, replaying fills the same places again."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, function: Callable[[], step.Learned]) -> tuple[Callable[[], None], step.Learned]:
        learned = function()
        method = self.method
        places = [p.grad for p in method.parameters() if p.grad is not None]

        def replay() -> None:
            self.replays += 1
            for parameter in method.parameters():
                parameter.grad = None
            output, losses = function()
            for place, new in zip(places, [p.grad for p in method.parameters() if p.grad is not None], strict=True):
                place.copy_(new)
            for name, value in losses.items():
                learned[1][name].data.copy_(value.detach())
            learned[0].prediction.data.copy_(output.prediction.detach())
            for name, part in output.parts.items():
                if isinstance(part, Tensor):
                    learned[0].parts[name].data.copy_(part.detach())

        return replay, learned


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    program = step._Program

    def remember(record: step.Recorder, method: Method, *rest: object) -> object:
        found.method = method
        return program(record, method, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(step, "graphs_wanted", lambda device: True)
    monkeypatch.setattr(step, "cuda_graph", found)
    monkeypatch.setattr(step, "_Program", remember)
    return found


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_recorded_steps_train_to_the_same_bits(cls: type[Method], request: pytest.FixtureRequest) -> None:
    plain, weights = trained(cls)
    recorder = request.getfixturevalue("recorder")
    recorded, again = trained(cls)
    assert recorder.replays == 2 * 5 - step.WARM_UP  # of two epochs; the last batch of each is smaller
    assert recorded == plain
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_a_program_that_draws_something_else_is_refused() -> None:
    tape = step.Tape(step.Draws(range(2)))
    tape.uniform(3)
    tape.wind()
    with pytest.raises(RuntimeError, match="unset CLCR_CUDA_GRAPHS"):
        tape.normal(3)


def test_a_tape_hands_out_the_numbers_of_the_stream() -> None:
    tape, stream = step.Tape(step.Draws(range(2))), step.Draws(range(2))
    for turn in range(3):
        if turn:
            tape.wind()
        for size in (3, 5):
            assert torch.equal(tape.uniform(size), stream.uniform(size))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.__name__)
def test_a_cuda_graph_trains_as_the_steps_it_replays(cls: type[Method], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, weights = trained(cls, "cuda:0")
    monkeypatch.setenv(step.GRAPHS, "1")
    recorded, again = trained(cls, "cuda:0")
    assert [outcome.epoch for outcome in recorded] == [outcome.epoch for outcome in plain]
    for name, value in weights.items():
        torch.testing.assert_close(again[name], value)
