"""Checkpoints: a training that was cut anywhere ends with the bits of one that was not; a bad file stops nothing."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.late_fusion import LateFusion, Unimodal
from baselines.misa import MISA
from baselines.ogm_ge import OGMGE
from benchmarks.errors import Stopped
from benchmarks.runner import snapshot
from benchmarks.runner.config import Training
from benchmarks.runner.group import Evaluation, Group, TrainingError
from benchmarks.runner.seeds import streams
from benchmarks.runner.snapshot import Checkpoints, Owner, Policy, Unfit
from benchmarks.runner.train import Goal, Outcome, train
from clcr.api import Batch, Method, Modality, Output, Task
from clcr.config import EncoderConfig
from clcr.layers import Dropout, Linear
from clcr.method import CLCR

TASK = Task((Modality("audio", 5, 6), Modality("vision", 4, 6)), 3)
SMALL: Mapping[type[Method], Mapping[str, Any]] = {CLCR: {"shared_rank": 4, "private_rank": 3}}
GOAL = Goal(("accuracy", "macro_f1"), "accuracy")
TRAINING = Training(optimizer="adamw", lr=0.01, batch_size=8, epochs=2, clip_norm=0.5, schedule="cosine")
TRAIN = (21, 19, 19)  # samples of each seed: batches of 8, 8 and 5 or 3
OWNER = Owner(("a", "b"), ("1", "2"), (0, 1), 2, "cpu")
STEPS, POINTS = 3, 4  # an epoch's steps; where it may be left: after each of them and at its end

Trained = tuple[list[Outcome | str], list[bytes], list[bytes]]


class Data:
    """Samples of two modalities, of which a seed trains on some."""

    def __init__(self, train: int, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = [torch.randn(60, 6, m.width, generator=generator).to(device) for m in TASK.modalities]
        self.mask = (torch.arange(6) < torch.randint(2, 7, (60, 1), generator=generator)).to(device)
        self.target = torch.randint(3, (60,), generator=generator).to(device)
        self.indices = {"train": np.arange(train), "valid": np.arange(30, 45), "test": np.arange(45, 60)}

    def batch(self, samples: Tensor) -> Batch:
        chosen = samples.to(self.target.device)
        masks = tuple(self.mask[chosen] for _ in TASK.modalities)
        return Batch(tuple(x[chosen] for x in self.inputs), masks, self.target[chosen])

    def targets(self, split: str) -> np.ndarray:
        return self.target[self.indices[split]].cpu().numpy()

    @classmethod
    def together(cls, folds: Sequence[Data]) -> Several:
        return Several(folds)


class Several(Data):
    """The data of several seeds as one."""

    def __init__(self, folds: Sequence[Data]) -> None:
        self.folds = folds

    def batch(self, samples: Tensor) -> Batch:
        each = [fold.batch(own) for fold, own in zip(self.folds, samples, strict=True)]
        inputs = tuple(map(torch.stack, zip(*(b.inputs for b in each), strict=True)))
        masks = tuple(map(torch.stack, zip(*(b.masks for b in each), strict=True)))
        return Batch(inputs, masks, torch.stack([b.target for b in each]))


class Fragile(Method):
    """Folds; counts its steps in a buffer, another one is left out of its state. Seeds whose ``limit`` the count passes
    lose their loss."""

    FOLDS = True
    limits = (99, 99, 99)

    def __init__(self, place: int) -> None:
        super().__init__(TASK)
        self.dropout, self.layer = Dropout(0.3), Linear(5, 3)
        self.register_buffer("count", torch.tensor(0.0))
        self.register_buffer("limit", torch.tensor(float(self.limits[place])))
        self.register_buffer("drift", torch.ones(1), persistent=False)

    def forward(self, batch: Batch) -> Output:
        if self.training:
            self.count += 1
            self.drift *= 0.9
        return Output(self.layer(self.dropout(batch.inputs[0].mean(-2))) * self.drift, {"count": self.count.clone()})

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        task = super().losses(output, batch)["task"]
        return {"task": task.where(self.count <= self.limit, torch.nan)}


class Alone(Method):
    """Does not fold: draws from torch's own generator, and normalises over the batch."""

    def __init__(self, _: int) -> None:
        super().__init__(TASK)
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 3))

    def forward(self, batch: Batch) -> Output:
        return Output(self.layers(batch.inputs[0].mean(-2)))


def method(cls: type[Any], place: int) -> Method:
    torch.manual_seed(place)
    if cls in (Fragile, Alone):
        return cls(place)
    task = replace(TASK, modalities=TASK.modalities[:1]) if cls is Unimodal else TASK
    made: Method = cls(task, EncoderConfig(width=8, dropout=0.2), cls.Config(**SMALL.get(cls, {})))
    return made


class Restricted(Data):
    """The first modality alone."""

    def batch(self, samples: Tensor) -> Batch:
        whole = super().batch(samples)
        return replace(whole, inputs=whole.inputs[:1], masks=whole.masks[:1])


def trained(
    cls: type[Method],
    seeds: int,
    training: Training = TRAINING,
    checkpoints: Checkpoints | None = None,
    device: str = "cpu",
) -> Trained:
    """Outcomes, the weights and the test predictions of some seeds, trained together."""
    data = [(Restricted if cls is Unimodal else Data)(train, device) for train in TRAIN[:seeds]]
    group = Group([method(cls, place).to(device) for place in range(seeds)], data)
    each = [streams("synthetic", "plain", seed, 0) for seed in range(seeds)]
    outcomes = train(group, training, GOAL, each, lambda _: None, checkpoints=checkpoints)
    tests = [x.prediction.tobytes() if isinstance(x, Evaluation) else b"" for x in group.evaluate("test")]
    weights = [value.cpu().numpy().tobytes() for value in snapshot.method_state(group.method).values()]
    return [str(x) if isinstance(x, TrainingError) else x for x in outcomes], weights, tests


class After:
    """Says stop when it is asked for the n-th time."""

    def __init__(self, asked: int) -> None:
        self.left = asked

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def taken_up(
    work: Callable[[Checkpoints], Trained], folder: Path, points: Sequence[int], told: list[str] | None = None
) -> Trained:
    """What ``work`` gives that is left at each of these points, counted from the one before."""
    tell = ([] if told is None else told).append
    for point in points:
        checkpoints = Checkpoints(folder, OWNER, Policy(stop=After(point)), tell=tell)
        with pytest.raises(Stopped, match="a checkpoint waits"):
            checkpoints.resume(lambda made=checkpoints: work(made))  # type: ignore[misc]
    last = Checkpoints(folder, OWNER, tell=tell)
    found = last.resume(lambda: work(last))
    assert len(last.resumed) == len(points)
    return found


@pytest.mark.parametrize("point", range(1, 2 * POINTS + 1))
def test_a_training_can_be_cut_anywhere(point: int, tmp_path: Path) -> None:
    told: list[str] = []
    found = taken_up(lambda made: trained(CLCR, 2, checkpoints=made), tmp_path, [point], told)
    assert found == trained(CLCR, 2)
    epoch, step = divmod(point, POINTS)
    assert told[-1] == f"resumed at epoch {epoch + 1}, step {step} of fold 1"


@pytest.mark.parametrize("cls", [CLCR, LateFusion, Unimodal, OGMGE, MISA, Fragile])
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_method_can_be_cut_twice(cls: type[Method], seeds: int, tmp_path: Path) -> None:
    where = np.random.default_rng([seeds, len(cls.__name__)])
    points = [int(where.integers(1, POINTS + 1)), int(where.integers(1, POINTS))]
    found = taken_up(lambda made: trained(cls, seeds, checkpoints=made), tmp_path, points)
    assert found == trained(cls, seeds)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "momentum": 0.9, "schedule": "step", "step_epochs": 1},
        {"optimizer": "sgd", "momentum": 0.0, "clip_norm": 0.0},
        {"optimizer": "adam", "schedule": "constant", "weight_decay": 0.1},
        {"optimizer": "adamw", "bf16": True},
        {"optimizer": "adamw", "lr": 0.0, "patience": 1, "epochs": 5},
    ],
)
@pytest.mark.parametrize("point", [2, POINTS, POINTS + 1])
def test_every_optimiser_and_schedule_goes_on(changes: dict[str, Any], point: int, tmp_path: Path) -> None:
    training = replace(TRAINING, **changes)
    whole = trained(OGMGE, 2, training)
    assert taken_up(lambda made: trained(OGMGE, 2, training, made), tmp_path, [point]) == whole
    if training.patience:
        assert [len(outcome.curves) for outcome in whole[0] if isinstance(outcome, Outcome)] == [2, 2]


@pytest.mark.parametrize("point", range(1, 3 * POINTS))
def test_a_method_that_does_not_fold_goes_on_with_its_own_numbers(point: int, tmp_path: Path) -> None:
    training = replace(TRAINING, epochs=3)
    assert taken_up(lambda made: trained(Alone, 1, training, made), tmp_path, [point]) == trained(Alone, 1, training)


@pytest.mark.parametrize("point", range(1, 3 * POINTS))
def test_a_seed_that_fails_does_so_after_and_before_a_checkpoint(
    point: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fragile, "limits", (99, STEPS + 1, 99))  # the second one fails in the second epoch
    training = replace(TRAINING, epochs=3)
    whole = trained(Fragile, 3, training)
    assert [isinstance(outcome, Outcome) for outcome in whole[0]] == [True, False, True]
    assert "epoch 2" in str(whole[0][1])
    assert taken_up(lambda made: trained(Fragile, 3, training, made), tmp_path, [point]) == whole


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("cls", "seeds", "graphs"), [(Alone, 1, "0"), (CLCR, 2, "0"), (CLCR, 2, "1"), (OGMGE, 2, "0"), (OGMGE, 2, "1")]
)
def test_a_training_on_a_gpu_goes_on(
    cls: type[Method], seeds: int, graphs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another order of random numbers would be seen; a GPU's last bits are not promised."""
    monkeypatch.setenv("CLCR_CUDA_GRAPHS", graphs)
    whole = trained(cls, seeds, device="cuda:0")
    found = taken_up(lambda made: trained(cls, seeds, checkpoints=made, device="cuda:0"), tmp_path, [POINTS + 2])
    for mine, theirs in zip(found[2], whole[2], strict=True):
        np.testing.assert_allclose(np.frombuffer(mine, "f4"), np.frombuffer(theirs, "f4"), rtol=1e-3, atol=1e-4)


def test_what_is_not_saved_would_be_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: each piece of the state matters to a training that is cut in its second epoch."""
    whole = trained(Alone, 1), trained(Fragile, 2)
    pieces = ("load_optimizer", "load_draws", "load_generators", "load_torch_state", "load_tensors")
    for piece in pieces:
        with monkeypatch.context() as patch:
            patch.setattr(snapshot, piece, lambda *_: None)
            places = [tmp_path / piece / str(k) for k in range(2)]
            for place in places:
                place.mkdir(parents=True)
            cut = [POINTS + 1]
            alone = taken_up(lambda made: trained(Alone, 1, checkpoints=made), places[0], cut)
            fragile = taken_up(lambda made: trained(Fragile, 2, checkpoints=made), places[1], cut)
        assert (alone, fragile) != whole, piece


def cut_once(folder: Path, point: int = 2, owner: Owner = OWNER) -> None:
    checkpoints = Checkpoints(folder, owner, Policy(stop=After(point)))
    with pytest.raises(Stopped):
        checkpoints.resume(lambda: trained(LateFusion, 2, checkpoints=checkpoints))


class Evil:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def sealed(payload: bytes, version: int = snapshot.FORMAT) -> bytes:
    return f"clcr checkpoint {version} {snapshot.sha256(payload).hexdigest()}\n".encode() + payload


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def older(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(sealed(raw[raw.index(b"\n") + 1 :], 0))


def malicious(path: Path) -> None:
    path.write_bytes(sealed(pickle.dumps(Evil(path.parent / "evil"))))


def malicious_inside(path: Path) -> None:
    content = snapshot.read(path)
    path.write_bytes(snapshot.pack({**content, "started": Evil(path.parent / "evil")}))


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def of_other_runs(path: Path) -> None:
    content = snapshot.read(path)
    path.write_bytes(snapshot.pack({**content, "owner": {**content["owner"], "digests": ["1", "3"]}}))


def of_another_torch(path: Path) -> None:
    content = snapshot.read(path)
    path.write_bytes(snapshot.pack({**content, "owner": {**content["owner"], "torch_version": "1.0"}}))


def without_parts(path: Path) -> None:
    path.write_bytes(snapshot.pack({**snapshot.read(path), "parts": []}))


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = snapshot.read(path)
    change(content["parts"]["training"])
    path.write_bytes(snapshot.pack(content))


def of_another_shape(path: Path) -> None:
    edited(path, lambda training: training["method"].update({next(iter(training["method"])): torch.zeros(2)}))


def of_another_type(path: Path) -> None:
    edited(path, lambda training: training["optimizer"][0].update(exp_avg=torch.zeros(3)))


def of_an_epoch_too_many(path: Path) -> None:
    edited(path, lambda training: training.update(epoch=7))


def without_noise(path: Path) -> None:
    edited(path, lambda training: training.pop("noise"))


def of_half_an_epoch(path: Path) -> None:
    edited(path, lambda training: training.update(epoch=0.5))


def of_other_curves(path: Path) -> None:
    edited(path, lambda training: training["courses"][0].update(curves='["x"]'))


def of_other_sums(path: Path) -> None:
    edited(path, lambda training: training["sums"].update(task=torch.zeros(5)))


def of_another_bank(path: Path) -> None:
    edited(path, lambda training: training["draws"]["banks"].update(uniform=torch.zeros(1, 5)))


def empty(path: Path) -> None:
    path.write_bytes(b"")


SPOILT = (
    *(truncated, flipped, older, malicious, malicious_inside, a_link, a_pipe, a_folder, of_other_runs),
    *(of_another_torch, without_parts, of_another_shape, of_another_type, of_an_epoch_too_many, without_noise),
    *(of_another_bank, of_half_an_epoch, of_other_curves, of_other_sums, empty),
)


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("both", [False, True])
def test_a_bad_checkpoint_is_put_aside_and_the_one_before_is_used(
    spoil: Callable[[Path], None], both: bool, tmp_path: Path
) -> None:
    cut_once(tmp_path)
    cut_once(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {snapshot.NAME, snapshot.PREVIOUS}
    names = (snapshot.NAME, snapshot.PREVIOUS) if both else (snapshot.NAME,)
    for name in names:
        spoil(tmp_path / name)
    told: list[str] = []
    checkpoints = Checkpoints(tmp_path, OWNER, tell=told.append)
    assert checkpoints.resume(lambda: trained(LateFusion, 2, checkpoints=checkpoints)) == trained(LateFusion, 2)
    assert len([line for line in told if "is not used" in line]) == len(names)
    assert all("\n" not in line for line in told)
    assert len(checkpoints.resumed) == (0 if both else 1)
    assert (tmp_path / f"{snapshot.NAME}.corrupt").exists() or (tmp_path / f"{snapshot.NAME}.corrupt").is_symlink()
    assert not (tmp_path / snapshot.NAME).exists()
    assert not (tmp_path / "evil").exists()


def test_the_checkpoint_of_a_part_of_the_team_stays_for_it(tmp_path: Path) -> None:
    cut_once(tmp_path, owner=replace(OWNER, runs=("a",)))
    told: list[str] = []
    checkpoints = Checkpoints(tmp_path, OWNER, tell=told.append)
    assert checkpoints.resume(lambda: checkpoints.resumed) == []
    assert (tmp_path / snapshot.NAME).is_file()
    assert told == []


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    for name in (f".{snapshot.NAME}.123.tmp", ".predictions.npz.9.tmp", "log.txt"):
        (tmp_path / name).write_bytes(b"half")
    snapshot.tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]
    snapshot.tidy(tmp_path / "not there")


def test_a_full_disk_costs_the_checkpoint_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []
    whole = snapshot.write_bytes

    def full(path: Path, content: bytes) -> None:
        tries.append(path)
        if len(tries) in (2, 3):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, content)

    monkeypatch.setattr(snapshot, "write_bytes", full)
    told: list[str] = []
    checkpoints = Checkpoints(tmp_path, OWNER, Policy(epochs=1), tell=told.append)
    training = replace(TRAINING, epochs=4)
    found = checkpoints.resume(lambda: trained(LateFusion, 2, training, checkpoints))
    assert found == trained(LateFusion, 2, training)
    assert len(tries) == 4
    assert ["No space" in line for line in told] == [False, True, True, False]
    assert {path.name for path in tmp_path.iterdir()} == {snapshot.NAME, snapshot.PREVIOUS}


def test_a_stop_without_room_for_a_checkpoint_is_a_stop(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "gone", OWNER, Policy(stop=After(2)))
    with pytest.raises(Stopped, match="no checkpoint could be written"):
        checkpoints.resume(lambda: trained(LateFusion, 2, checkpoints=checkpoints))


def test_checkpoints_are_due_by_time_and_by_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(snapshot.time, "monotonic", lambda: clock[0])
    made = Checkpoints(tmp_path, OWNER, Policy(seconds=10.0, epochs=3))
    written: list[float] = []
    monkeypatch.setattr(made, "_replace", lambda *_: written.append(clock[0]) or 0)
    for second in range(1, 26):
        clock[0] = second
        made.step()
    assert written == [10.0, 20.0]
    for epoch in range(1, 8):
        made.epoch(epoch)
    assert written[2:] == [25.0, 25.0]
    clock[0] = 34.0
    made.step()
    assert len(written) == 4
    clock[0] = 35.0
    made.fold()
    assert len(written) == 5  # once, though the time was over, too
    made.fold()
    assert len(written) == 6  # a fold's end is an epoch's

    never = Checkpoints(tmp_path, OWNER, Policy(seconds=0.0))
    monkeypatch.setattr(never, "_replace", lambda *_: pytest.fail("written"))
    clock[0] = 1e9
    never.step()
    never.fold()


def test_a_checkpoint_takes_up_nothing_that_was_drawn_already(tmp_path: Path) -> None:
    """Of the numbers drawn ahead only those that are left are kept."""
    cut_once(tmp_path)
    banks = snapshot.read(tmp_path / snapshot.NAME)["parts"]["training"]["draws"]["banks"]
    assert all(bank.untyped_storage().nbytes() == bank.numel() * 4 for bank in banks.values())


def test_tensors_are_copied_all_or_not_at_all() -> None:
    own = {"a": torch.zeros(2), "b": torch.zeros(3)}
    for wrong in ({"a": torch.ones(2)}, {"a": torch.ones(2), "b": torch.ones(4)}, {"a": torch.ones(2), "b": "b"}):
        with pytest.raises(ValueError, match="tensor"):
            snapshot.load_tensors(own, wrong)  # type: ignore[arg-type]
        assert not own["a"].any()


def test_a_part_that_cannot_be_taken_up_is_unfit(tmp_path: Path) -> None:
    class Broken:
        def save(self) -> dict[str, Any]:
            return {}

        def load(self, saved: dict[str, Any]) -> None:
            raise KeyError("lacking")

    made = Checkpoints(tmp_path, OWNER)
    made._saved = {"broken": {}}
    with pytest.raises(Unfit, match="broken: KeyError"), made.keeping("broken", Broken()):
        pass
