"""Checkpoints of a team's run: a file that a run which was cut short goes on from, to the bit as if it never had been.

A file is one header line, ``clcr checkpoint <format> <SHA-256 of the rest>``, and what ``torch.save`` makes of plain
containers and tensors. It is read without running code, and only where it belongs to the same team: the same runs with
the same digests in the same order, trainer, torch and kind of device. The one before it is kept, too. Whatever is wrong
with a file, or with writing one, costs time but never the run: a checkpoint is insurance.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.archive import write_bytes
from benchmarks.errors import Stopped
from benchmarks.runner import environment
from benchmarks.runner.logs import now
from clcr.layers import Draws

NAME, PREVIOUS, CORRUPT = "checkpoint.pt", "checkpoint.previous.pt", ".corrupt"
NAMES = (NAME, PREVIOUS, NAME + CORRUPT, PREVIOUS + CORRUPT)
FORMAT = 1
DIGEST_LENGTH = 64
HEADER = re.compile(rb"clcr checkpoint (\d{1,9}) ([0-9a-f]{%d})\n" % DIGEST_LENGTH)

Tree = dict[str, Any]
Result = TypeVar("Result")


class Unfit(Exception):
    """A checkpoint that does not hold what the run needs."""


class Part(Protocol):
    """Something that changes during a run."""

    def save(self) -> Tree:
        """What it is now: numbers, text and tensors in plain containers."""

    def load(self, saved: Tree) -> None:
        """Become what was saved. Any exception says that this cannot be done."""


@dataclass(frozen=True)
class Policy:
    """When checkpoints are written. seconds: since the last one (0: never by time). epochs: at the end of every so many
    (0: not by epochs). stop: asked between steps; once it says True a last one is written and the run is left."""

    seconds: float = 0.0
    epochs: int = 0
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Owner:
    """The team of a checkpoint: names, digests and seeds of its runs in their order, and what their bits depend on."""

    runs: tuple[str, ...]
    digests: tuple[str, ...]
    seeds: tuple[int, ...]
    trainer: int
    device: str
    torch_version: str = str(torch.__version__)

    def tree(self) -> Tree:
        """As it stands in the file."""
        return {name: list(x) if isinstance(x, tuple) else x for name, x in vars(self).items()}


class Checkpoints:
    """The checkpoints of a team. Parts of the run say what they are made of; ``step``, ``epoch`` and ``fold`` are
    called where one may be written. Without a folder nothing is ever written.

    resumed: where the run was taken up again, in this process and before. started: when it began. peak: bytes at most.
    """

    def __init__(
        self,
        folder: Path | None = None,
        owner: Owner | None = None,
        policy: Policy | None = None,
        device: torch.device | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder, self._owner, self._tell = folder, owner, tell
        self._policy = policy or Policy()
        self._stop, self._every = self._policy.stop, self._policy.seconds or math.inf
        self._device = device or torch.device("cpu")
        self._parts: dict[str, Part] = {}
        self._saved: Tree = {}
        self._last = time.monotonic()
        self._anew()

    def _anew(self) -> None:
        self.resumed: list[Tree] = []
        self.started = now()
        self._peak, self._saved = 0, {}

    @property
    def peak(self) -> int:
        """Bytes of memory at the peak, of all attempts."""
        return max(self._peak, environment.peak_memory(self._device))

    def step(self) -> None:
        """Between two steps."""
        if self._stop():
            self._leave()
        if time.monotonic() - self._last >= self._every:
            self.write()

    def epoch(self, epoch: int) -> None:
        """After an epoch, counted from 1."""
        if self._policy.epochs and epoch % self._policy.epochs == 0:
            self.write()
        self.step()

    def fold(self, due: bool = False) -> None:
        """After a fold; ``due``: whatever the policy says."""
        if due or self._policy.epochs:
            self.write()
        self.step()

    def _leave(self) -> None:
        written = self.write()
        raise Stopped("asked to stop; " + ("a checkpoint waits" if written else "no checkpoint could be written"))

    def write(self) -> bool:
        """Write a checkpoint; whether that went well. The next one is due a while later in any case."""
        if self._folder is None or self._owner is None:
            return False
        began = time.perf_counter()
        try:
            parts = {name: part.save() for name, part in self._parts.items()}
            size = self._replace(self._folder / NAME, pack({**self._around(self._owner), "parts": parts}))
        except Exception as error:  # it is insurance: the training goes on without
            self._tell(f"no checkpoint could be written: {_one_line(error)}")
            return False
        finally:
            self._last = time.monotonic()
        self._tell(f"checkpoint at {_place(parts)}: {size / 2**20:.1f} MiB in {time.perf_counter() - began:.2f} s")
        return True

    def _around(self, owner: Owner) -> Tree:
        told = {"resumed": self.resumed, "started": self.started, "peak": self.peak}
        return {"owner": owner.tree(), **told, "cpu_kind": environment.cpu_kind()}

    @staticmethod
    def _replace(newest: Path, packed: bytes) -> int:
        with suppress(FileNotFoundError):
            os.replace(newest, newest.with_name(PREVIOUS))
        write_bytes(newest, packed)
        return len(packed)

    @contextmanager
    def keeping(self, name: str, part: Part) -> Iterator[None]:
        """Make a part belong to every checkpoint inside; it takes up what was saved of it, if that is still to be done.

        Raises Unfit where that is not possible.
        """
        saved = self._saved.pop(name, None)
        if saved is not None:
            try:
                part.load(saved)
            except Exception as error:
                if environment.out_of_memory(error):
                    raise
                raise Unfit(f"{name}: {_one_line(error)}") from error
        del saved  # it may be large
        self._parts[name] = part
        try:
            yield
        finally:
            del self._parts[name]

    def resume(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives, which takes up the newest checkpoint that fits, or starts anew."""
        for path in existing(self._folder, (NAME, PREVIOUS)) if self._folder else ():
            if self._take_up(path):
                try:
                    return work()
                except Unfit as error:
                    self._put_aside(path, str(error))
        self._anew()
        return work()

    def _read(self, path: Path) -> Tree | None:
        """A checkpoint of this team; None, and the file put aside, where it is anything else. One of a part of the team
        stays: a team that does not fit into memory is trained in halves."""
        try:
            content = read(path)
            owner = content["owner"]
            if self._owner is not None and set(owner["runs"]) < set(self._owner.runs):
                return None
            if self._owner is None or owner != self._owner.tree():
                raise Unfit("it belongs to other runs, or to another version of the code, the data or torch")
            _check(content)
        except Exception as error:
            self._put_aside(path, str(error) if isinstance(error, Unfit) else _one_line(error))
            return None
        return content

    def _take_up(self, path: Path) -> bool:
        content = self._read(path)
        if content is None:
            return False
        self._saved, self.started, self._peak = dict(content["parts"]), content["started"], content["peak"]
        kinds = {"cpu_kind": environment.cpu_kind(), "cpu_kind_before": content["cpu_kind"]}
        fold, epoch, _ = _position(content["parts"])
        self.resumed = [*content["resumed"], {"epoch": epoch, "fold": fold, **kinds, "at": now()}]
        self._tell(f"resumed at {_place(content['parts'])}")
        return True

    def _put_aside(self, path: Path, why: str) -> None:
        aside = path.with_name(path.name + CORRUPT)
        told = f"{path.name} is not used: {why}"
        try:
            os.replace(path, aside)
            self._tell(f"{told}; put aside as {aside.name}")
        except OSError as error:
            self._tell(f"{told}; it cannot be put aside ({_one_line(error)})")


class Stopwatch:
    """Seconds spent on something, those before a checkpoint included: of the processor on a CPU, where a worker has one
    thread and others may want the core; of the clock on other devices."""

    def __init__(self, device: str = "cpu") -> None:
        self._clock = time.process_time if device == "cpu" else time.perf_counter
        self._began = self._clock()

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._clock() - self._began

    def save(self) -> Tree:
        """See Part."""
        return {"seconds": self.seconds}

    def load(self, saved: Tree) -> None:
        """See Part."""
        self._began = self._clock() - float(saved["seconds"])


def existing(folder: Path, names: Sequence[str] = NAMES) -> list[Path]:
    """Files of checkpoints, good or bad, that a folder holds."""
    return [folder / name for name in names if os.path.lexists(folder / name)]


def tidy(folder: Path) -> None:
    """Remove what a writer that was killed left of any file."""
    with suppress(OSError):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def pack(content: Tree) -> bytes:
    """A checkpoint as the bytes of its file."""
    buffer = io.BytesIO()
    start = buffer.write(_header("0" * DIGEST_LENGTH))
    torch.save(content, buffer)
    with buffer.getbuffer() as view:
        view[:start] = _header(sha256(view[start:]).hexdigest())
    return buffer.getvalue()


def _header(digest: str) -> bytes:
    return f"clcr checkpoint {FORMAT} {digest}\n".encode()


def read(path: Path) -> Tree:
    """The content of a checkpoint, on the CPU. Unfit (or an OSError) where it is not one that is whole and harmless."""
    if path.is_symlink() or not path.is_file():
        raise Unfit("not a plain file")
    raw = path.read_bytes()
    header = HEADER.match(raw)
    if header is None:
        raise Unfit("not a checkpoint, or cut short")
    if int(header[1]) != FORMAT:
        raise Unfit(f"format {int(header[1])}, this version reads {FORMAT}")
    payload = raw[header.end() :]
    if sha256(payload).hexdigest() != header[2].decode():
        raise Unfit("changed or cut short since it was written")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what a file of another maker may hold
            content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise Unfit("it holds more than plain containers and tensors") from None
    if not isinstance(content, dict):
        raise Unfit("not a checkpoint")
    return content


def _check(content: Tree) -> None:
    """Unfit, or another exception, unless what stands around the parts is of its types."""
    plain = {"resumed": list, "started": str, "peak": int, "cpu_kind": str, "parts": dict}
    wrong = [name for name, kind in plain.items() if type(content[name]) is not kind]
    if wrong or not all(isinstance(entry, dict) for entry in content["resumed"]):
        raise Unfit(f"field {(*wrong, 'resumed')[0]!r} is not what it should be")
    _place(content["parts"])


def _position(parts: Mapping[str, Any]) -> tuple[int, int, int]:
    """Where the parts of a run stand: fold and epoch from 1, the steps taken in that epoch."""
    training = parts.get("training", {"epoch": 0, "step": 0})
    fold = parts["folds"]["done"] if "folds" in parts else 0
    return int(fold) + 1, int(training["epoch"]) + 1, int(training["step"])


def _place(parts: Mapping[str, Any]) -> str:
    fold, epoch, step = _position(parts)
    return f"epoch {epoch}, step {step} of fold {fold}"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def method_state(method: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, also those that a ``state_dict`` leaves out; aliases them."""
    return {name: value.detach() for name, value in (*method.named_parameters(), *method.named_buffers())}


@torch.no_grad()
def load_tensors(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy saved values in place. ValueError, and nothing copied, unless names, shapes and types are the same."""
    if list(own) != list(saved):
        raise ValueError(f"tensors {_difference(own, saved)} instead of those of this run")
    for name, value in own.items():
        check_alike(name, value, saved[name])
    for name, value in own.items():
        value.copy_(saved[name])


def _difference(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted(set(own) ^ set(saved))[:3]) or "in another order"


def check_alike(name: str, own: Tensor, saved: object) -> None:
    """ValueError unless something saved is a tensor of the same shape and type."""
    alike = type(saved) is Tensor and (saved.shape, saved.dtype, saved.layout) == (own.shape, own.dtype, own.layout)
    if not alike:
        raise ValueError(f"tensor {name}: not of shape {tuple(own.shape)} and type {own.dtype}")


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[int, Mapping[str, Any]]) -> None:
    """Take over what an optimiser has gathered; its settings stay its own."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for place, entries in saved.items():
        for name, value in entries.items():
            if value is not None and value.ndim:
                check_alike(f"{place} {name}", parameters[place], value)
    optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})


def draws_state(draws: Draws) -> Tree:
    """Where streams of random numbers stand: their generators and what was drawn ahead."""
    return {
        "streams": {kind: [each.get_state() for each in streams] for kind, streams in draws._streams.items()},
        "banks": {kind: bank.clone() for kind, bank in draws._banks.items()},
    }


def load_draws(draws: Draws, saved: Tree) -> None:
    """Put streams where they stood."""
    for kind, streams in draws._streams.items():
        load_generators(streams, saved["streams"][kind])
        bank = saved["banks"][kind]
        if bank.ndim != 2 or len(bank) != len(streams) or bank.dtype != torch.float32:
            raise ValueError(f"{kind} numbers: not of {len(streams)} streams")
        draws._banks[kind] = bank.to(draws._banks[kind].device)


def load_generators(generators: Sequence[torch.Generator], states: Sequence[Tensor]) -> None:
    """Put generators where they stood."""
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


def torch_state(device: torch.device) -> dict[str, Tensor]:
    """Where torch's own generators stand, from which methods that do not fold draw."""
    on_gpu = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **on_gpu}


def load_torch_state(device: torch.device, saved: Mapping[str, Tensor]) -> None:
    """Put torch's own generators where they stood."""
    torch.set_rng_state(saved["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(saved["cuda"], device)
