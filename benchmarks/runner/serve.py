"""One team of runs, from its claims to its published folders, in the calling process.

The runs are executed in the attempts of their claims (benchmarks.runner.claims), where checkpoints lie, too; what comes
of them counts from the moment when an attempt is renamed to its run's folder (benchmarks.runner.store).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.errors import InputError, Stopped, halted_by, no_room
from benchmarks.record import RunKey, RunRecord, digest_of
from benchmarks.runner import claims, store

TELL_EVERY_S = 0.2

Message = dict[str, Any]
Send = Callable[[Message], None]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Job:
    """Runs that train together; their failures from before ``retry_before`` (claims.now) do not count."""

    keys: tuple[RunKey, ...]
    retry_before: float = 0.0


def serve(job: Job, engine: Any, options: Any, send: Send, stop: Stop = lambda: False) -> list[Message]:
    """Execute the runs of a job that have not ended: {"state", "seconds", "error"} of each.

    state: "done" or "failed" (its record is written), "kept" (it was done already), "busy" (a living process has it, or
    another of its team), "stopped" (``stop`` said so; what it can go on from is kept), "refused" (bad input, nothing
    written), "halted" (the file system takes no more).
    """
    try:
        described = [engine.describe(key, options) for key in job.keys]
        folders = [store.folder_of(options.out, key) for key in job.keys]
        return _Team(job, described, folders).serve(_Work(engine, options, send, stop))
    except InputError as error:
        return [_end("refused", error=str(error)) for _ in job.keys]
    except OSError as error:
        return [_end("halted", error=halted_by(error, options.out)) for _ in job.keys]


@dataclass(frozen=True)
class _Work:
    """Who executes, whom to tell, when to stop."""

    engine: Any
    options: Any
    send: Send
    stop: Stop


class _Team:
    """A job with what its runs are and where they lie."""

    def __init__(self, job: Job, described: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> None:
        self._keys, self._retry_before = job.keys, job.retry_before
        self._described, self._folders = described, folders

    def serve(self, work: _Work) -> list[Message]:
        """See ``serve``."""
        claimed: list[Path] = []
        try:
            claimed.extend(filter(claims.acquire, self._folders))  # one by one: those before one that raises are known
            found = [
                self._ended(place, work.options) if f in claimed else _end("busy")
                for place, f in enumerate(self._folders)
            ]
            if len(claimed) < len(found) or all(found):
                return [ended or _end("busy") for ended in found]
            with claims.beating(self._folders) as lost:
                return self._train(found, replace(work, stop=lambda: work.stop() or lost.is_set()))
        except OSError:
            if len(claimed) == len(self._folders) and not self._ours():  # who took over has taken the attempt along
                return [_end("busy") for _ in self._folders]
            raise
        finally:
            for folder in claimed:
                with contextlib.suppress(OSError):
                    claims.release(folder)

    def _ended(self, place: int, options: Any) -> Message | None:
        """How a run ended before; None where it has to be executed."""
        folder = self._folders[place]
        try:
            record = store.read_run(folder)
        except InputError:
            store.quarantine(folder)
            return None
        if record is None or record.digest != digest_of(self._described[place]):
            return None
        if record.status == "done":
            return None if store.lacks_weights(folder, record.key, options.keep) else _end("kept")
        return _end("failed", error=record.error) if store.written_at(folder) >= self._retry_before else None

    def _train(self, found: Sequence[Message | None], work: _Work) -> list[Message]:
        """Train the whole team, as its numbers are those of the team; runs that have ended stay as they are."""
        began = time.perf_counter()
        work.send({"event": "start", "what": self._described})
        own = [claims.attempt(folder) for folder in self._folders]
        try:
            records = self._execute(own, work)
        except Stopped:
            return [ended or _end("stopped" if self._ours() else "busy") for ended in found]
        if not self._ours():
            return [ended or _end("busy") for ended in found]
        # The first last: what the team could go on from lies with it.
        for n in reversed(range(len(records))):
            _publish(own[n], self._folders[n], None if found[n] else records[n])
        seconds = (time.perf_counter() - began) / len(records)
        return [ended or _end(r.status, seconds, r.error) for ended, r in zip(found, records, strict=True)]

    def _ours(self) -> bool:
        """Whether nobody took this process for dead."""
        return all(claims.owner(folder) == claims.mine() for folder in self._folders)

    def _execute(self, places: Sequence[Path], work: _Work) -> list[RunRecord]:
        """The records of the team; an exception, too, ends as records."""
        try:
            return list(work.engine.execute(self._keys, work.options, places, _Teller(work.send), work.stop))
        except (InputError, Stopped):
            raise
        except Exception as error:
            if no_room(error):
                raise
            told = " ".join(f"{type(error).__name__}: {error}".split())
            each = zip(self._keys, self._described, strict=True)
            return [RunRecord(key, what, "failed", error=told) for key, what in each]


def _publish(own: Path, folder: Path, record: RunRecord | None) -> None:
    """Make an attempt the run, or drop that of a run which had ended before. Checkpoints go along, and go with the
    claim: who is killed before that has what to go on from."""
    if record is not None:
        store.write_record(own, record)
    if record is None or not store.publish(own, folder):
        shutil.rmtree(own, ignore_errors=True)


def _end(state: str, seconds: float = 0.0, error: str = "") -> Message:
    return {"state": state, "seconds": seconds, "error": error}


class _Teller:
    """Sends progress at most every TELL_EVERY_S: an epoch of a small run takes less time than telling of it."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._last = 0.0

    def __call__(self, progress: Any) -> None:
        now = time.monotonic()
        if now - self._last >= TELL_EVERY_S:
            self._last = now
            self._send({"event": "progress", **{k: v for k, v in asdict(progress).items() if k != "key"}})
