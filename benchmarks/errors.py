"""The one error that bad input raises. The command line prints it as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 2000  # characters of a line


class InputError(Exception):
    """What is wrong, where, and the remedy, in one line."""


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
