"""Counts the operations that a program launches: a deterministic figure for its overhead.

An operation is one call that reaches the dispatcher below autograd, forward or backward. A *view* is one that returns
an alias of its input and moves no data: every operator whose schema says so (``view``, ``transpose``, ``expand``,
``slice``, ``detach`` ...) and ``_unsafe_view``, the same under another name. All others count, also those that only
allocate or copy.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class OperationCount(TorchDispatchMode):
    """Context that counts by operator name: ``operations`` (those that work) and ``views``."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.views: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        kind = self.views if func.is_view or name == "_unsafe_view" else self.operations
        kind[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        """Number of operations that are not views."""
        return sum(self.operations.values())
