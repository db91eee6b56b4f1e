"""The one error that bad input raises, which the command line prints as one line and exits with code 2; and what ends a
training that was asked to stop."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # a disk that takes no more, whatever is written
LONGEST = 2000  # characters of a line


class InputError(Exception):
    """What is wrong, where, and the remedy, in one line."""


class Stopped(Exception):
    """A training was asked to stop and has kept what it can go on from."""


def no_room(error: BaseException) -> bool:
    """Whether an error says that files cannot be written, whatever the method does."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def halted_by(error: OSError, where: object) -> str:
    """What to tell of a file system that refuses to be written to; where: its folder, where the error names no file."""
    told = f"{error.filename or where}: {error.strerror}; make room or let it be written to"
    return f"{told}, then the same command goes on"


def one_line(text: str, most: int = LONGEST) -> str:
    """A text as a terminal may show it, whoever wrote it: one line of at most so many characters, a question mark for
    each sign that a terminal would obey or that no terminal can print."""
    line = plain(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 3]}..."


def plain(text: str) -> str:
    """A line with its blanks as they are, a question mark for each sign that is not printable."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in text)


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> InputError:
    """The error for a name that is not in a table, with the nearest name that is."""
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return InputError(f"{where + ': ' if where else ''}unknown {what} {name!r}; {hint}")
