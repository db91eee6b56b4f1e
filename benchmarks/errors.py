"""The one error that bad input raises, which the command line prints as one line and exits with code 2; and what ends a
training that was asked to stop."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """What is wrong, where, and the remedy, in one line."""


class Stopped(Exception):
    """A training was asked to stop and has kept what it can go on from."""


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> InputError:
    """The error for a name that is not in a table, with the nearest name that is."""
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return InputError(f"{where + ': ' if where else ''}unknown {what} {name!r}; {hint}")
