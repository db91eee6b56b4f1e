"""Gates, weights and gradients of trained networks: who decides, how much is exchanged, which parts still learn.

Values, of the test split; keys that a variant or method lacks are absent, those of several folds are means over their
samples:
- pi, eta {modality: mean}: weight on the shared path, gate on the private path; omega [3], omega_entropy (nats),
  omega_alone: share of samples with one level above 0.9.
- rho [3], participation {modality: [3]}: share of the real tokens with alpha > 0; binds {modality: [3]}: share of
  samples whose budget binds; alpha: mean over real tokens, levels and modalities.
- exchange_share {modality: [3]}: norm of what the exchange adds to all tokens / norm of the tokens it is added to.
- rank_shared, rank_private {modality: [3]}: effective rank of the summaries' coordinates over the whole split
  (``clcr.regularizers.effective_rank``); MISA's vectors have [1].
- mix: L_mix over the split, without its weight; kappa: mean over samples and pairs of different levels.
- gradient {part: rms}: root mean square over a part's numbers of the gradient of all losses together, on the first
  batch of the first epoch, in training mode without dropout.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.analyses.inside import Inside, collect, with_group
from benchmarks.analyses.team import Team, Values
from benchmarks.data import FoldData
from benchmarks.runner.execute import Setting
from benchmarks.runner.group import Group, Share
from benchmarks.runner.seeds import streams
from benchmarks.runner.step import differentiate
from clcr.api import LEVELS, Method
from clcr.regularizers import effective_rank, mix

Array = NDArray[Any]
ALONE = 0.9  # a level with more than this share of omega stands alone
BUDGET = "intraced.budget."


def gates(team: Team) -> list[Values | Exception]:
    """The values of each run."""
    folds = [(fold.data, analyse(group, team.runs, fold.data)) for fold, group in with_group(team)]
    return [
        pool([values[place] for _, values in folds], [data[place].size("test") for data, _ in folds])
        for place in range(len(team))
    ]


def analyse(group: Group, runs: Sequence[Setting], data: Sequence[FoldData]) -> list[Values]:
    """The values of each seed of a group at one fold."""
    seen = collect(group, data, "test")
    rms = _gradients(group, runs, data)
    rho = _rho(group)
    found = []
    for seed, (inside, gradient) in enumerate(zip(seen, rms, strict=True)):
        own = _weights(inside) | _tokens(inside) | _summaries(inside, runs[seed])
        own |= {} if rho is None else {"rho": rho[seed].tolist()}
        found.append(own | {"gradient": gradient})
    return found


def pool(folds: Sequence[Mapping[str, Any]], samples: Sequence[int]) -> Values:
    """The values of several folds of one run as one: means, weighted with the numbers of test samples."""
    pooled: Values = _mean(folds, np.asarray(samples) / sum(samples))
    return pooled


def _mean(values: Sequence[Any], weight: Array) -> Any:
    """The mean of numbers, or of what holds them, place by place."""
    if isinstance(values[0], Mapping):
        return {name: _mean([each[name] for each in values], weight) for name in values[0]}
    if isinstance(values[0], list):
        return [_mean(each, weight) for each in zip(*values, strict=True)]
    return float(np.dot(values, weight))


def _weights(inside: Inside) -> dict[str, Any]:
    """pi, eta and omega."""
    found: dict[str, Any] = {
        name: dict(zip(inside.modalities, _floats(x.mean(0)), strict=True))
        for name, x in (("pi", inside.pi), ("eta", inside.eta))
        if x is not None
    }
    if inside.omega is not None:
        omega = inside.omega.astype(np.float64)
        found["omega"] = _floats(omega.mean(0))
        found["omega_entropy"] = float(torch.special.entr(torch.from_numpy(omega)).sum(-1).mean())
        found["omega_alone"] = float((omega.max(1) > ALONE).mean())
    return found


def _tokens(inside: Inside) -> dict[str, Any]:
    """What happens to tokens, those of variants with an exchange; participation and alpha where tokens are selected."""
    if inside.energy is None or inside.alpha is None or inside.real is None:
        return {}
    before, added = np.moveaxis(inside.energy.astype(np.float64).sum(0), -1, 0)
    share = np.sqrt(added / np.where(before > 0, before, 1.0))
    found: dict[str, Any] = {"exchange_share": _by_modality(inside, share)}
    if inside.binds is not None:
        found["binds"] = _by_modality(inside, inside.binds.mean(0))
        real = inside.real[:, None]
        taking_part = (inside.alpha > 0).sum(-1) / np.maximum(real.sum(-1), 1)
        found["participation"] = _by_modality(inside, taking_part.mean(0))
        found["alpha"] = float(inside.alpha.astype(np.float64).sum() / max(LEVELS * int(real.sum()), 1))
    return found


def _summaries(inside: Inside, run: Setting) -> dict[str, Any]:
    """Effective ranks, and how far the levels of a sample contradict each other."""
    found: dict[str, Any] = {}
    for name in ("shared", "private"):
        part = inside.parts.get(f"{name}_coordinates", inside.parts.get(name))
        if part is not None:
            rank = effective_rank(torch.from_numpy(part.astype(np.float64)).movedim(0, 2))
            found[f"rank_{name}"] = _by_modality(inside, rank.numpy())
    if inside.omega is not None:
        summaries = torch.from_numpy(inside.parts["shared"].astype(np.float64)).movedim(0, 2)
        omega, conflict = torch.from_numpy(inside.omega.astype(np.float64)), run.config.method.conflict
        found["mix"] = float(mix(omega, summaries, conflict))
        pairs = LEVELS * (LEVELS - 1)
        found["kappa"] = float(mix(torch.ones_like(omega), summaries, conflict)) / pairs
    return found


def _rho(group: Group) -> Array | None:
    """The learned share of the budget (S, 3)."""
    budget = getattr(getattr(group.method, "intraced", None), "budget", None)
    if budget is None or budget.rho is None:
        return None
    shares: Array = group.rows(budget.rho.detach()).squeeze(-1).cpu().numpy()
    return shares


def _gradients(group: Group, runs: Sequence[Setting], data: Sequence[FoldData]) -> list[dict[str, float]]:
    """See ``analyse``; the group's own parameters and gradients are left alone."""
    seeds = [
        streams(run.key.benchmark, run.key.protocol, run.key.seed, own.fold)
        for run, own in zip(runs, data, strict=True)
    ]
    orders = [torch.Generator().manual_seed(each.order) for each in seeds]
    draws = group.draws([each.dropout for each in seeds])
    first = next(iter(group.epoch(orders, runs[0].config.training.batch_size)))
    found: list[dict[str, float]] = []
    for share in first:
        method = _without_dropout(share.method)
        some = draws if group.whole(share) else draws.part(share.seeds)
        differentiate(method, group.read(share), some, bf16=False)
        found += _by_part(group, method, share)
    return found


def _without_dropout(method: Method) -> Method:
    """A copy in training mode in which nothing is dropped."""
    copied = copy.deepcopy(method).train()
    copied.zero_grad(set_to_none=True)
    for module in copied.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # type: ignore[assignment]
    return copied


def _by_part(group: Group, method: Method, share: Share) -> list[dict[str, float]]:
    """Root mean square of the gradient in each part, for each seed of a share."""
    seeds = share.seeds.stop - share.seeds.start
    squares: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            part = _part_of(name)
            square = group.rows(gradient).double().flatten(1).square().sum(1)
            squares[part] = squares.get(part, torch.zeros_like(square)) + square
            counts[part] = counts.get(part, 0) + parameter.numel() // seeds
    rms = {part: (square / counts[part]).sqrt().tolist() for part, square in squares.items()}
    return [{part: values[seed] for part, values in rms.items()} for seed in range(seeds)]


def _part_of(name: str) -> str:
    """The part of a parameter: CLCR's exchange is told apart by what it does, the budget by its single numbers."""
    if name.startswith(BUDGET):
        return f"budget.{name.removeprefix(BUDGET)}"
    path = name.split(".")
    return path[1] if path[0] == "intraced" else path[0]


def _by_modality(inside: Inside, table: Array) -> Mapping[str, list[float]]:
    """(L, M) as {modality: [by level]}."""
    return {name: _floats(table[:, m]) for m, name in enumerate(inside.modalities)}


def _floats(x: Array) -> list[float]:
    return [float(value) for value in x]
