"""log.txt of each run of a team: what happened to it, line by line, for people."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

NAME = "log.txt"


class Logs:
    """The open logs of a team, one in each folder. ``goes_on``: what stands there stays."""

    def __init__(self, folders: Sequence[Path], goes_on: bool) -> None:
        self._stack = ExitStack()
        self._files = []
        with ExitStack() as opened:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                file = (folder / NAME).open("a" if goes_on else "w", encoding="utf-8", buffering=1)
                self._files.append(opened.enter_context(file))
            self._stack = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def one(self, place: int, line: str) -> None:
        """A line in the log of one run."""
        self._files[place].write(f"{line}\n")

    def all(self, line: str) -> None:
        """The same line in every log."""
        for place in range(len(self._files)):
            self.one(place, line)

    def tell(self, line: str) -> None:
        """``all`` with the time, where it can be written: what is only worth knowing stops nothing."""
        with suppress(OSError):  # a full disk, say
            self.all(f"{now()} {line}")


def now() -> str:
    """The time, as logs and records tell it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
