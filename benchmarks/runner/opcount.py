"""Counts what a program launches: deterministic figures for its overhead and its traffic.

An operation is one call that reaches the dispatcher below autograd, forward or backward. A *view* is one that returns
an alias of its input and moves no data: every operator whose schema says so (``view``, ``transpose``, ``expand``,
``slice``, ``detach`` ...) and ``_unsafe_view``, the same under another name. All others count, also those that only
allocate or copy; only the marks that optimisers leave for profilers do not.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

MARKS = ("_record_function_enter_new", "_record_function_exit")
ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty")


class OperationCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context that counts by operator name: ``operations`` (those that work) and ``views``.

    ``bytes``: what the operations read and write if nothing stays in a cache, the sum of their tensor arguments and
    results. ``flop``: of products and convolutions in a forward pass, by torch's formulas.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()
        self.views: Counter[str] = Counter()
        self.bytes = self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Count a call and pass it on."""
        name = func.overloadpacket.__name__
        if name in MARKS:
            return func(*args, **(kwargs or {}))
        is_view = func.is_view or name == "_unsafe_view"
        (self.views if is_view else self.operations)[name] += 1
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.flop += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        if not is_view and name not in ALLOCATIONS:
            self.bytes += sum(_size(x) for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor))
        return result

    @property
    def total(self) -> int:
        """Number of operations that are not views."""
        return sum(self.operations.values())


def _size(x: Tensor) -> int:
    """Bytes that a tensor occupies; an axis that was expanded is stored once."""
    stored = 1
    for length, stride in zip(x.shape, x.stride(), strict=True):
        stored *= length if stride or not length else 1
    return stored * x.element_size()
