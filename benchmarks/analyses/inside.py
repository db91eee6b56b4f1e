"""What a pass over a split shows inside a network, read by hooks: nothing of the method is changed or computed again.

Seeds pass one by one, each through a part of the folded method that shares its memory, as training passes runs of
seeds. A group of one is folded like any other, so the numbers are those of the group; the hooks go with the part.
Letters and axes as in clcr.api; what is collected has the samples in front and no seed axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.analyses.team import Fold, Team
from benchmarks.data import FoldData
from benchmarks.errors import InputError
from benchmarks.runner.group import EVALUATION_BATCH, Group
from clcr.api import LEVELS, Method, Output
from clcr.intercad import Aggregated, Summaries
from clcr.intraced import Exchanged
from clcr.layers import part

Array = NDArray[Any]


@dataclass(frozen=True)
class Seen:
    """What one batch of one seed showed, without the seed axis.

    hidden (L, M, B, T, d): tokens of the encoder, L = 1 where the method reads the deepest level alone; mask (M, B, T).
    Of CLCR: before and added (L, M, B, T, r), the tokens that enter the exchange and what it adds to them (subspace
    coordinates, or whole tokens where there are no subspaces); ``exchanged``, ``summaries`` and ``aggregated`` as
    clcr makes them.
    """

    output: Output
    hidden: Tensor | None = None
    mask: Tensor | None = None
    before: Tensor | None = None
    added: Tensor | None = None
    exchanged: Exchanged | None = None
    summaries: Summaries | None = None
    aggregated: Aggregated | None = None


@dataclass(frozen=True)
class Inside:
    """What a split of n samples showed of one seed's network, in the order of the split.

    prediction: (n, C) or (n,). modalities: those of the task. real: bool (n, M, T), None for methods without the common
    encoder. parts: one vector a sample, level and modality, (n, L, M, k), L = 3 or 1:
      features  mean of the encoder's tokens (what the method then makes of them may be another pooling);
      shared, private  CLCR's summaries, or MISA's vectors; shared_coordinates, private_coordinates  see Summaries;
      sent, received  mean of the tokens that enter the exchange, weighted by alpha, and mean of what it adds.
    slots: (L, M), the encoder's level (from 0) that stands at each level of the subspaces; only full_mix moves them.
    alpha (n, L, M, T) with zeros at padding; binds bool (n, L, M); energy (n, L, M, 2), sums over tokens of the squared
    norms of what enters the exchange and of what it adds. omega (n, 3), pi, eta (n, M). None where a variant has none.
    """

    prediction: Array
    modalities: tuple[str, ...]
    real: Array | None = None
    parts: Mapping[str, Array] = field(default_factory=dict)
    slots: Array | None = None
    alpha: Array | None = None
    binds: Array | None = None
    energy: Array | None = None
    omega: Array | None = None
    pi: Array | None = None
    eta: Array | None = None


def with_group(team: Team) -> Iterator[tuple[Fold, Group]]:
    """The folds of a team with its trained group. InputError for rows without a training loop."""
    for fold in team.folds():
        if fold.group is None:
            raise InputError(f"{team.keys[0]}: field 'method': a fitted model has no inside; choose a trained method")
        yield fold, fold.group


def collect(group: Group, data: Sequence[FoldData], split: str) -> list[Inside]:
    """Pass a split through each seed of a group in evaluation mode; ``data``: that of each seed."""
    return [_collected(method, own, split, group.folded) for method, own in zip(alone(group), data, strict=True)]


def alone(group: Group) -> list[Method]:
    """The method of each seed for itself, with a seed axis of one where it folds; the parameters are the group's."""
    if not group.folded:
        return [group.method]
    return [part(group.method, slice(seed, seed + 1)) for seed in range(len(group))]


@torch.no_grad()
def passes(method: Method, data: FoldData, split: str, folded: bool) -> Iterator[Seen]:
    """The batches of a split, one by one, through the method of one seed (see ``alone``)."""
    own = data.together([data]) if folded else data
    was = method.training
    method.eval()
    try:
        for samples in torch.split(torch.as_tensor(data.indices[split]), EVALUATION_BATCH):
            yield _seen(method, own.batch(samples[None] if folded else samples), folded)
    finally:
        method.train(was)


def _seen(method: Method, batch: Any, folded: bool) -> Seen:
    """One batch, with hooks for as long as it takes."""
    found: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def keeper(name: str) -> Any:
        def keep(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            found[name] = inputs, output

        return keep

    with ExitStack() as hooks:
        for name, module in _watched(method).items():
            hooks.callback(module.register_forward_hook(keeper(name)).remove)
        output: Output = method(batch)
    without = _first if folded else _same
    seen: dict[str, Any] = {"output": without(output), "summaries": without(output.parts.get("summaries"))}
    if "hierarchy" in found:
        hidden, mask = found["hierarchy"][1]
        seen |= {"hidden": without(hidden), "mask": without(mask).squeeze(0)}
    if "exchange" in found:
        inputs, added = found["exchange"]
        seen |= {"before": without(inputs[0]), "added": without(added)}
    seen |= {name: without(found[name][1]) for name in ("exchanged", "aggregated") if name in found}
    return Seen(**seen)


def _watched(method: Method) -> dict[str, nn.Module]:
    """The modules that are read, those that the method has."""
    intraced = getattr(method, "intraced", None)
    modules = {
        "hierarchy": getattr(method, "hierarchy", None),
        "exchanged": intraced,
        "exchange": getattr(intraced, "exchange", None),
        "aggregated": getattr(method, "intercad", None),
    }
    return {name: module for name, module in modules.items() if module is not None}


def _same(x: Any) -> Any:
    return x


def _first(x: Any) -> Any:
    """The first seed of a tensor, or of all tensors in what holds some."""
    if isinstance(x, Tensor):
        return x[0]
    if isinstance(x, Mapping):
        return {name: _first(value) for name, value in x.items()}
    if isinstance(x, tuple):
        return tuple(map(_first, x))
    if isinstance(x, Output | Summaries | Exchanged | Aggregated):
        return type(x)(**{name: _first(value) for name, value in vars(x).items()})
    return x


def _collected(method: Method, data: FoldData, split: str, folded: bool) -> Inside:
    """The batches of a split as one."""
    rows: dict[str, list[Array]] = {}
    for seen in passes(method, data, split, folded):
        for name, x in _reduced(seen).items():
            rows.setdefault(name, []).append(x.float().cpu().numpy())
    whole = {
        name: np.concatenate(_as_long(batches) if name in ("real", "alpha") else batches)
        for name, batches in rows.items()
    }
    flags = {name: whole.pop(name) > 0 for name in ("real", "binds") if name in whole}
    parts = {name.removeprefix("part "): whole.pop(name) for name in list(whole) if name.startswith("part ")}
    names = tuple(modality.name for modality in method.task.modalities)
    return Inside(modalities=names, parts=parts, slots=_slots(method, len(names), folded), **flags, **whole)


def _as_long(batches: Sequence[Array]) -> list[Array]:
    """Arrays whose last axis counts tokens, padded to the longest batch."""
    longest = max(x.shape[-1] for x in batches)
    return [np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, longest - x.shape[-1])]) for x in batches]


def _slots(method: Method, modalities: int, folded: bool) -> Array | None:
    """See ``Inside.slots``."""
    if not hasattr(method, "intraced"):
        return None
    moved = getattr(method, "level_of", None)
    if moved is None:
        return np.arange(LEVELS)[:, None].repeat(modalities, axis=1)
    levels: Array = (moved[0] if folded else moved).cpu().numpy()
    return levels


def _reduced(seen: Seen) -> dict[str, Tensor]:
    """What is kept of a batch, the samples in front; vectors of samples have the name "part NAME"."""
    kept = {"prediction": seen.output.prediction}
    if seen.hidden is not None and seen.mask is not None:
        kept |= {"real": seen.mask.movedim(1, 0), "part features": _mean(seen.hidden, seen.mask).movedim(2, 0)}
    kept |= _of_views(seen.output.parts)
    if seen.summaries is not None:
        kept |= {f"part {name}": x.movedim(2, 0) for name, x in vars(seen.summaries).items()}
    if seen.exchanged is not None:
        kept |= _of_exchange(seen)
    if seen.aggregated is not None:
        weights = {name: getattr(seen.aggregated, name) for name in ("omega", "pi", "eta")}
        kept |= {name: x for name, x in weights.items() if x is not None}
    return kept


def _of_views(parts: Mapping[str, Any]) -> dict[str, Tensor]:
    """MISA's vectors (M, B, d), as (B, 1, M, d)."""
    if not all(isinstance(parts.get(name), Tensor) for name in ("shared", "private")):
        return {}
    return {f"part {name}": parts[name].movedim(1, 0).unsqueeze(1) for name in ("shared", "private")}


def _of_exchange(seen: Seen) -> dict[str, Tensor]:
    """Streams, weights and norms of the exchange."""
    assert seen.exchanged is not None
    assert seen.before is not None
    assert seen.added is not None
    assert seen.mask is not None
    alpha, binds = seen.exchanged.alpha, seen.exchanged.binds
    energy = torch.stack([x.float().square().sum((-2, -1)) for x in (seen.before, seen.added)], -1)
    kept = {
        "part sent": _mean(seen.before, alpha).movedim(2, 0),
        "part received": _mean(seen.added, seen.mask).movedim(2, 0),
        "alpha": alpha.movedim(2, 0),
        "energy": energy.movedim(2, 0),
    }
    return kept if binds is None else kept | {"binds": binds.movedim(2, 0)}


def _mean(tokens: Tensor, weight: Tensor) -> Tensor:
    """(..., T, d) and weights (..., T), broadcastable, to their mean (..., d); weights of zero give zeros."""
    weight = weight.to(tokens.dtype)
    total = weight.sum(-1, keepdim=True)
    return (weight.unsqueeze(-1) * tokens).sum(-2) / torch.where(total > 0, total, 1.0)
