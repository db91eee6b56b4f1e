"""Hostile material: values that break readers, and ways to put them into good input. All follows from some bytes, so
that whatever makes the bytes (hypothesis, a coverage-guided fuzzer, a random number generator) steers what is tried."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

TEXTS = (
    "",
    "a",
    "x" * 3000,
    "\x1b[2J",
    "\x1b]0;title\x07",
    "a\nb",
    "\r",
    "\0",
    "../../x",
    "/etc/passwd",
    "..",
    "\ud800",
    "\u202e",
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\\input{/etc/passwd}",
    "$\\frac{1}$",
    "a|b\n|---|",
    "`x`",
    "[a](javascript:alert(1))",
    "=cmd|'/C calc'!A0",
    "%n%s",
    "{0.__class__}",
    "__import__('os')",
    "2001-99-99",
    "9" * 5000,
    "nan",
    "inf",
    "-1",
    "1e400",
    "0x1F",
    "\u0663",
    "#",
    "!!python/name:os.system",
    "&a [*a]",
    "*a",
    "~",
    "true",
    "crema_d",
    "clcr",
    "seed-000",
    "<f8",
    "O",
    "V8",
    "M8[s]",
    "m8",
    "|S0",
    "f4,f4",
    "(2,)f4",
    "]]>",
    "&amp;",
    '"',
    "'",
    "]",
    "}",
    "^^5c",
    "\N{COMBINING ACUTE ACCENT}" * 50,
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    255,
    1 << 31,
    1 << 40,
    1 << 63,
    -(1 << 63),
    10**12,
    10**400,
    0.0,
    -0.0,
    0.5,
    -1.5,
    1e308,
    5e-324,
    float("inf"),
    float("-inf"),
    float("nan"),
)


def deep(levels: int) -> list[Any]:
    """A list in a list in a list."""
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


class Choices:
    """Some bytes as a sequence of decisions; when they are used up, every decision is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, below: int) -> int:
        """0 to below - 1."""
        size = 1 if below <= 256 else 2
        part = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(part, "little") % below if below else 0

    def pick(self, options: Sequence[T]) -> T:
        """One of some."""
        return options[self.number(len(options))]

    def more(self) -> bool:
        """Whether decisions are left."""
        return self._at < len(self._data)

    def rest(self) -> bytes:
        """The bytes that are left."""
        found, self._at = self._data[self._at :], len(self._data)
        return found

    def text(self) -> str:
        """A hostile text, or one of these bytes."""
        if self.number(4):
            return self.pick(TEXTS)
        size = self.number(64)
        found, self._at = self._data[self._at : self._at + size], self._at + size
        return found.decode("utf-8", "replace")

    def value(self) -> Any:
        """A hostile value of JSON."""
        kind = self.number(8)
        if kind < 3:
            return self.text()
        if kind < 6:
            return self.pick(NUMBERS)
        return self.pick((None, True, False, [], {}, deep(3), deep(60), [1, "a", None], {"a": {"b": 1}}, {"": 0}))


def _places(tree: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in list(pairs):
        found.append((tree, key))
        _places(child, found)
    return found


def spoiled(tree: Any, choices: Choices, most: int = 4) -> Any:
    """A copy of a tree of dictionaries and lists with some of its places replaced, removed, renamed or filled twice."""
    tree = copy.deepcopy(tree)
    for _ in range(1 + choices.number(most)):
        places = _places(tree, [])
        if not places or not choices.number(16):
            return choices.value()
        container, key = choices.pick(places)
        act = choices.number(8)
        if act < 5:
            container[key] = choices.value()
        elif act == 5:
            del container[key]
        elif act == 6 and isinstance(container, dict):
            container[choices.text()] = container.pop(key)
        elif isinstance(container, dict):
            container[choices.text()] = choices.value()
        else:
            container.insert(key, copy.deepcopy(container[key]))
    return tree


def bent(seed: bytes, choices: Choices) -> bytes:
    """A copy of some bytes with some of them overwritten, cut, repeated or put in."""
    body = bytearray(seed)
    while choices.more():
        act, at = choices.number(6), choices.number(max(1, len(body)))
        if act == 0 and body:
            body[at] ^= 1 << choices.number(8)
        elif act == 1 and body:
            body[at] = choices.number(256)
        elif act == 2:
            body[at : at + 8] = choices.pick((b"\xff" * 8, b"\0" * 8, b"\xff" * 4 + b"\0" * 4, b"\0\0\0\x80" * 2))
        elif act == 3:
            del body[at : at + 1 + choices.number(64)]
        elif act == 4:
            body[at:at] = body[at : at + 1 + choices.number(64)]
        else:
            body[at:at] = choices.text().encode("utf-8", "surrogatepass")[:64]
    return bytes(body)


def random_inputs(seeds: Sequence[bytes], number: int) -> random.Random:
    """The source of randomness of ``mutated``; the same number, the same inputs."""
    return random.Random(f"{number} {len(seeds)}")


def mutated(seeds: Sequence[bytes], dice: random.Random) -> bytes:
    """An input near one of the seeds: the fuzzer that knows nothing of coverage."""
    seed = dice.choice(seeds) if seeds and dice.random() < 0.9 else b""
    return bent(seed, Choices(dice.randbytes(dice.choice((4, 8, 16, 48)))))
