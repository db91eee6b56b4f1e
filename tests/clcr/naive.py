"""The method again as one would write it first: loops over levels, modalities, samples and tokens.

The oracle of the folded program. It shares parameters with a ``CLCR``, but no code and no algorithm where there is a
choice: QR and Gram-Schmidt for the bases, bisection for the budget, explicit inverses for the whitening.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from clcr.api import Batch
from clcr.method import CLCR


@dataclass
class NaiveOutput:
    """Prediction, losses by name, and alpha[l][m] (B, T_m)."""

    prediction: Tensor
    losses: dict[str, Tensor]
    alpha: list[list[Tensor]]


def naive(model: CLCR, batch: Batch) -> NaiveOutput:
    """Forward and losses of a model without dropout."""
    config, modalities = model.config, range(len(batch.inputs))
    masks = batch.masks
    h = encode(model, batch)
    if config.misalign:
        h = [[h[int(model.level_of[level, m])][m] for m in modalities] for level in range(3)]
    s, p, s_low, p_low, alphas = [], [], [], [], []
    for level in range(3):
        shared, private, lift_s, lift_p, alpha = exchange_level(model, h[level], masks, level)
        pooled_s = [pool(model.summarise.pool_shared, shared[m], masks[m], level, m) for m in modalities]
        pooled_p = [pool(model.summarise.pool_private, private[m], masks[m], level, m) for m in modalities]
        s.append([model.summarise.norm_shared(pooled_s[m] @ lift_s[m]) for m in modalities])
        p.append([model.summarise.norm_private(pooled_p[m] @ lift_p[m]) for m in modalities])
        sketch = None if model.config.intraced else model.intraced.sketch
        s_low.append(pooled_s if sketch is None else [x @ sketch[:, : model.config.shared_rank] for x in pooled_s])
        p_low.append(pooled_p if sketch is None else [x @ sketch[:, model.config.shared_rank :] for x in pooled_p])
        alphas.append(alpha)
    features, omega = aggregate(model, s, p)
    raw = model.head[3](functional.relu(model.head[0](features)))
    prediction = raw if model.task.n_classes is not None else raw[:, 0]
    return NaiveOutput(prediction, losses(model, prediction, batch, (s_low, p_low, s, omega)), alphas)


def encode(model: CLCR, batch: Batch) -> list[list[Tensor]]:
    """H[l][m]: (B, T_m, d)."""
    part = model.hierarchy
    levels = range(3) if model.config.hierarchy else [0, 0, 0]
    by_modality: list[list[Tensor]] = []
    for m, (x, mask) in enumerate(zip(batch.inputs, batch.masks, strict=True)):
        if m in part.levelled:
            weight = part.projections[part.levelled.index(m)].weight
            source = [0, 1, 2] if model.config.hierarchy else [2]
            z = [x[:, source[i]] @ weight[i] for i in range(len(source))]
        else:
            z = temporal_levels(model, x, mask, part.temporal.index(m))
        h = []
        for i in range(len(z)):
            tokens = part.norm(z[i] + part.position[m, i, : x.shape[-2]])
            h.append(torch.stack([tokens[b] * mask[b].unsqueeze(-1) for b in range(len(tokens))]))
        by_modality.append(h)
    return [[by_modality[m][level] for m in range(len(by_modality))] for level in levels]


def temporal_levels(model: CLCR, x: Tensor, mask: Tensor, group: int) -> list[Tensor]:
    """Z W of one modality from the three-stage temporal convolution network."""
    part = model.hierarchy.convolutions
    x = part.inputs[group](x)
    stages = []
    for index, stage in enumerate(part.stages):
        hidden = convolve(x, mask, stage.first[group], stage.first_bias[group], 2**index)
        x = x + convolve(functional.relu(hidden), mask, stage.second[group], stage.second_bias[group], 2**index)
        stages.append(x)
    chosen = stages if model.config.hierarchy else stages[2:]
    return [z @ part.weight[group, i] for i, z in enumerate(chosen)]


def convolve(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """Token by token: (B, T, d), weight (d, d, k)."""
    reach = weight.shape[-1] // 2
    rows = []
    for t in range(x.shape[1]):
        row = bias.expand(x.shape[0], -1)
        for k in range(weight.shape[-1]):
            source = t + (k - reach) * dilation
            if 0 <= source < x.shape[1]:
                row = row + torch.where(mask[:, source, None], x[:, source], 0.0) @ weight[:, :, k].T
        rows.append(row)
    return torch.stack(rows, 1)


def bases(model: CLCR, level: int, m: int) -> tuple[Tensor, Tensor]:
    """U_sh and U_pr: QR with a positive diagonal, the private one of what the shared one leaves over."""
    part = model.intraced.subspaces
    if not model.config.orthogonal:
        return part.shared[level], part.private[level, m]
    shared = positive_qr(part.shared[level])
    rest = part.private[level, m]
    for _ in range(2):
        rest = rest - shared @ (shared.T @ rest)
    return shared, positive_qr(rest)


def positive_qr(x: Tensor) -> Tensor:
    q, r = torch.linalg.qr(x)
    return q * torch.sign(torch.diagonal(r))


def exchange_level(
    model: CLCR, h: list[Tensor], masks: tuple[Tensor, ...], level: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Shared coordinates after the exchange, private ones, their lifts, alpha; lists over modalities."""
    modalities = range(len(h))
    if model.config.intraced:
        pairs = [bases(model, level, m) for m in modalities]
        shared = [h[m] @ pairs[m][0] for m in modalities]
        private = [h[m] @ pairs[m][1] for m in modalities]
        lift_s, lift_p = [pair[0].T for pair in pairs], [pair[1].T for pair in pairs]
        alpha = [weigh(model, shared[m], masks[m], level) for m in modalities]
    else:
        shared = private = list(h)
        lift_s = lift_p = [torch.eye(h[0].shape[-1], dtype=h[0].dtype) for _ in h]
        alpha = [mask.to(h[0].dtype) for mask in masks]
    after = []
    for m in modalities:
        others = [k for k in modalities if k != m]
        after.append(torch.stack([attend(model, shared, alpha, level, m, others, b) for b in range(len(h[0]))]))
    return after, private, lift_s, lift_p, alpha


def weigh(model: CLCR, c: Tensor, mask: Tensor, level: int) -> Tensor:
    """alpha (B, T) of one level and modality, sample by sample."""
    config, part = model.config, model.intraced.budget
    rows = []
    for b in range(len(c)):
        real = mask[b].nonzero()[:, 0]
        row = torch.zeros(len(mask[b]), dtype=c.dtype)
        if len(real) == 1 or config.budget == "dense":
            row[real] = 1.0
        elif len(real) > 1:
            e = c[b, real].norm(dim=-1)
            z = (e - e.mean()) / torch.sqrt(e.var(unbiased=False) + 1e-5)
            raw = torch.sigmoid(config.budget_rate * (part.scale[level] * z - part.threshold[level]))
            if config.budget == "learned":
                budget = config.gamma * torch.sigmoid(config.budget_rate * part.logit[level]) * len(real)
                chosen = project(raw, budget)
            else:
                kept = max(1, round(config.fixed_budget * len(real)))
                ordered = sorted(raw.tolist(), reverse=True)
                chosen = (raw - (ordered[kept] if kept < len(real) else 0.0)).clamp(min=0)
            row = row.index_put((real,), chosen)
        rows.append(row)
    return torch.stack(rows)


def project(raw: Tensor, budget: Tensor) -> Tensor:
    """Projection onto {0 <= alpha <= 1, sum <= budget} by bisection, then its gradient from the active tokens."""
    low, high = 0.0, 1.0
    values, limit = raw.detach(), float(budget.detach())
    if float(values.sum()) <= limit:
        return raw.clamp(0, 1)
    for _ in range(80):
        middle = (low + high) / 2
        if float((values - middle).clamp(0, 1).sum()) > limit:
            low = middle
        else:
            high = middle
    active = (raw > high).to(raw.dtype)
    theta = ((raw * active).sum() - budget) / active.sum()
    return (raw - theta) * active


def attend(model: CLCR, c: list[Tensor], alpha: list[Tensor], level: int, m: int, others: list[int], b: int) -> Tensor:
    """One sample of one modality after the exchange: (T, r)."""
    part = model.intraced.exchange
    rank = c[m].shape[-1]
    e = rank // part.heads
    if not others:
        return c[m][b]
    pool = torch.cat([c[k][b] for k in others])
    weight = torch.cat([alpha[k][b] for k in others])
    query, key, value = part.project[level].split(rank, -1)
    received = []
    for head in range(part.heads):
        mine = slice(head * e, (head + 1) * e)
        logits = (c[m][b] @ query[:, mine]) @ (pool @ key[:, mine]).T / e**0.5
        if not bool((weight > 0).any()):
            received.append(torch.zeros(len(logits), e, dtype=logits.dtype))
            continue
        top = logits.detach()[:, weight > 0].max(1, keepdim=True).values
        scores = torch.where(weight > 0, torch.exp(torch.where(weight > 0, logits - top, 0.0)) * weight, 0.0)
        received.append(scores @ (pool @ value[:, mine]) / scores.sum(1, keepdim=True))
    update = (torch.cat(received, -1) * alpha[m][b].unsqueeze(-1)) @ part.output[level]
    return c[m][b] + update


def pool(part: torch.nn.Module, x: Tensor, mask: Tensor, level: int, m: int) -> Tensor:
    """(B, T, r) to (B, r), sample by sample."""
    rows = []
    for b in range(len(x)):
        real = x[b, mask[b]]
        if not len(real):
            rows.append(torch.zeros(x.shape[-1], dtype=x.dtype))
        elif part.query is None:
            rows.append(real.mean(0))
        else:
            weight = torch.softmax(real @ part.query[level, m] / x.shape[-1] ** 0.5, 0)
            rows.append(weight @ real)
    return torch.stack(rows)


def aggregate(model: CLCR, s: list[list[Tensor]], p: list[list[Tensor]]) -> tuple[Tensor, Tensor | None]:
    """Features for the head, and omega (B, L)."""
    part, modalities = model.intercad, range(len(s[0]))
    if not model.config.intercad:
        z = sum(s[level][m] for level in range(3) for m in modalities) / (3 * len(modalities))
        private = [sum(p[level][m] for level in range(3)) / 3 for m in modalities]
        return torch.cat([z, *private], -1), None
    scores = []
    for level in range(3):
        mean = sum(s[level]) / len(modalities)
        scores.append(part.score(torch.cat([mean, part.anchors[level].expand_as(mean)], -1)))
    omega = torch.softmax(torch.cat(scores, -1), -1)
    floor = model.config.level_floor
    omega = (1 - floor) * omega + floor / 3
    s_bar = [sum(omega[:, [level]] * s[level][m] for level in range(3)) for m in modalities]
    p_bar = [sum(omega[:, [level]] * p[level][m] for level in range(3)) for m in modalities]
    context = (sum(s_bar) / len(modalities)) @ part.query
    logits = [(context * (x @ part.key)).sum(-1) / x.shape[-1] ** 0.5 for x in s_bar]
    pi = torch.softmax(torch.stack(logits, -1), -1)
    z = sum(pi[:, [m]] * s_bar[m] for m in modalities)
    gate = part.gate
    eta = [torch.sigmoid(gate[1](x @ gate[0].weight.T) @ gate[2].weight[0]) for x in p_bar]
    return torch.cat([z, *(eta[m].unsqueeze(-1) * p_bar[m] for m in modalities)], -1), omega


def losses(model: CLCR, prediction: Tensor, batch: Batch, parts: tuple) -> dict[str, Tensor]:
    """The losses by name, as ``CLCR.losses``."""
    s_low, p_low, s, omega = parts
    config, modalities = model.config, range(len(batch.inputs))
    found = {}
    if config.lambda_intra and config.intraced:
        private = [corr(model, p_low[lv][m], p_low[lv][k]) for lv in range(3) for m, k in combinations(modalities, 2)]
        own = [corr(model, p_low[lv][m], s_low[lv][m]) for lv in range(3) for m in modalities]
        found["intra"] = config.lambda_intra * (mean(private, prediction) + mean(own, prediction))
    inter = config.lambda_inter
    if inter and config.term_private:
        pairs = [corr(model, p_low[a][m], p_low[b][m]) for m in modalities for a, b in combinations(range(3), 2)]
        found["private_redundancy"] = inter * mean(pairs, prediction)
    if inter and config.term_shared_private and config.intraced:
        pairs = [
            corr(model, p_low[a][m], s_low[b][m]) for m in modalities for a in range(3) for b in range(3) if a != b
        ]
        found["shared_private"] = inter * mean(pairs, prediction)
    if inter and config.term_mix and config.intercad:
        found["mix"] = inter * mix(s, omega, config.conflict)
    if config.variance_floor:
        lacking = [[lacking_spread(x) for level in part for x in level] for part in (s_low, p_low)]
        found["variance"] = config.variance_floor * sum(mean(values, prediction) for values in lacking)
    if model.task.n_classes is None:
        found["task"] = (prediction - batch.target).abs().mean()
    else:
        found["task"] = -torch.log_softmax(prediction, -1)[range(len(prediction)), batch.target].mean()
    return found


def mean(values: list[Tensor], like: Tensor) -> Tensor:
    return sum(values) / len(values) if values else torch.zeros((), dtype=like.dtype)


def mix(s: list[list[Tensor]], omega: Tensor, conflict: str) -> Tensor:
    """L_mix, sample by sample and pair by pair."""
    level = [(sum(s[i]) / len(s[i])).detach() for i in range(3)]
    cost = torch.zeros((), dtype=omega.dtype)
    for b in range(len(omega)):
        for i in range(3):
            for k in range(3):
                if i != k:
                    cosine = functional.cosine_similarity(level[i][b], level[k][b], dim=0)
                    kappa = torch.relu(-cosine) if conflict == "opposed" else (1 - cosine) / 2
                    cost = cost + kappa * omega[b, i] * omega[b, k]
    return cost / len(omega)


def lacking_spread(x: Tensor) -> Tensor:
    """What the coordinates of one summary (B, r) lack of a standard deviation of 0.5."""
    if len(x) < 2:
        return torch.zeros((), dtype=x.dtype)
    return sum(torch.relu(0.5 - torch.sqrt(column.var() + 1e-7)) for column in x.T) / x.shape[1]


def corr(model: CLCR, x: Tensor, y: Tensor) -> Tensor:
    """Whitened cross-correlation tr(Sx^-1 C Sy^-1 C^T) / min(d_x, d_y); 0 for a batch that is too small."""
    low = min(x.shape[1], y.shape[1])
    if len(x) < 2 * low:
        return torch.zeros((), dtype=x.dtype)
    x, y = x - x.mean(0), y - y.mean(0)
    cross = x.T @ y / (len(x) - 1)
    seen = (v.detach() if model.config.detach_whitening else v for v in (x, y))
    precision = [inverse_covariance(v, model.config.shrinkage) for v in seen]
    return torch.trace(precision[0] @ cross @ precision[1] @ cross.T) / low


def inverse_covariance(x: Tensor, shrinkage: float) -> Tensor:
    covariance = x.T @ x / (len(x) - 1)
    identity = torch.eye(x.shape[1], dtype=x.dtype)
    if len(x) < 2 * x.shape[1]:
        return torch.diag(1 / (torch.diagonal(covariance) + 1e-7))
    target = (torch.trace(covariance) / x.shape[1] + 1e-7) * identity
    return torch.linalg.inv((1 - shrinkage) * covariance + shrinkage * target)
