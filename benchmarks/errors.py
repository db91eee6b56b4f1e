"""The one error that bad input raises. The command line prints it as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """What is wrong, where, and the remedy, in one line."""


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> InputError:
    """The error for a name that is not in a table, with the nearest name that is."""
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return InputError(f"{where + ': ' if where else ''}unknown {what} {name!r}; {hint}")
