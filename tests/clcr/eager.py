"""CLCR as one would write it for a single model: loops over levels, modalities, pairs; batches of samples and tokens.

The yardstick for speed, and a second oracle beside ``naive``. It is a fair one: every summary is whitened once, keys
and values are projected once, nothing is copied without need, and the diagnostics of ``CLCR`` are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

from clcr.api import LEVELS, Batch, Modality
from clcr.config import CLCRConfig, EncoderConfig
from clcr.method import CLCR


class Block(nn.Module):
    """One residual block of the temporal convolution network of a modality."""

    def __init__(self, config: EncoderConfig, dilation: int) -> None:
        super().__init__()
        reach = dilation * (config.kernel // 2)
        self.first = nn.Conv1d(config.width, config.width, config.kernel, padding=reach, dilation=dilation)
        self.second = nn.Conv1d(config.width, config.width, config.kernel, padding=reach, dilation=dilation)
        self.dropout = nn.Dropout1d(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, d, T), mask (B, 1, T)."""
        hidden = self.dropout(functional.relu(self.first(x * mask)))
        return x + self.second(hidden * mask)


class Encoder(nn.Module):
    """One modality to three levels of tokens."""

    def __init__(self, modality: Modality, config: EncoderConfig) -> None:
        super().__init__()
        self.input = nn.Linear(modality.width, config.width)
        self.blocks = nn.ModuleList(Block(config, 2**level) for level in range(LEVELS))
        self.project = nn.ModuleList(nn.Linear(config.width, config.width, bias=False) for _ in range(LEVELS))

    def forward(self, x: Tensor, mask: Tensor) -> list[Tensor]:
        """(B, T, D) and (B, T) to three times (B, T, d)."""
        x, real = self.input(x).mT, mask.unsqueeze(1)
        levels = []
        for block, project in zip(self.blocks, self.project, strict=True):
            x = block(x, real)
            levels.append(project(x.mT))
        return levels


def positive_qr(raw: Tensor) -> Tensor:
    """The Q of a QR decomposition whose R has a positive diagonal."""
    q, r = torch.linalg.qr(raw)
    return q * r.diagonal().sign()


def project(weight: Tensor, budget: Tensor) -> Tensor:
    """Projection of weights (B, T) onto a sum of at most ``budget`` (B, 1), by sorting."""
    ordered = weight.sort(-1, descending=True).values
    excess = ordered.cumsum(-1) - budget
    rank = torch.arange(1, weight.shape[-1] + 1)
    last = (ordered * rank > excess).sum(-1, keepdim=True).clamp(min=1)
    return functional.relu(weight - (excess.gather(-1, last - 1) / last).clamp(min=0))


class Level(nn.Module):
    """Subspaces, budget and exchange of one level."""

    def __init__(self, modalities: int, width: int, config: CLCRConfig) -> None:
        super().__init__()
        self.heads, self.gamma = config.heads, config.gamma
        self.shared = nn.Parameter(torch.empty(width, config.shared_rank))
        self.private = nn.ParameterList(torch.empty(width, config.private_rank) for _ in range(modalities))
        self.scale, self.threshold, self.budget = (nn.Parameter(torch.empty(())) for _ in range(3))
        self.qkv = nn.Linear(config.shared_rank, 3 * config.shared_rank, bias=False)
        self.out = nn.Linear(config.shared_rank, config.shared_rank, bias=False)

    def bases(self) -> tuple[Tensor, list[Tensor]]:
        """U_sh, and U_pr of each modality in its complement."""
        shared = positive_qr(self.shared)
        return shared, [positive_qr(raw - shared @ (shared.T @ raw)) for raw in self.private]

    def weigh(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """alpha (B, T) of the shared coordinates (B, T, r) of a modality."""
        count = mask.sum(-1, keepdim=True).clamp(min=1)
        evidence = tokens.norm(dim=-1)
        centred = (evidence - evidence.sum(-1, keepdim=True) / count) * mask
        variance = centred.square().sum(-1, keepdim=True) / count
        raw = torch.sigmoid(self.scale * centred / torch.sqrt(variance + 1e-5) - self.threshold) * mask
        alpha = project(raw, self.gamma * self.budget.sigmoid() * count)
        return torch.where(count == 1, mask.to(alpha.dtype), alpha)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, r) to (B, heads, T, e)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, shared: list[Tensor], masks: tuple[Tensor, ...]) -> list[Tensor]:
        """Shared coordinates of each modality (B, T, r) after the exchange."""
        alpha = [self.weigh(x, mask) for x, mask in zip(shared, masks, strict=True)]
        projected = [[self.split(part) for part in self.qkv(x).chunk(3, -1)] for x in shared]
        after = []
        for m, x in enumerate(shared):
            others = [k for k in range(len(shared)) if k != m]
            key, value = (torch.cat([projected[k][i] for k in others], 2) for i in (1, 2))
            weight = torch.cat([alpha[k] for k in others], -1)[:, None, None]
            logit = projected[m][0] @ key.mT / key.shape[-1] ** 0.5
            score = logit.masked_fill(weight == 0, -1e3).softmax(-1) * weight
            received = score @ value / score.sum(-1, keepdim=True).clamp(min=1e-6)
            after.append(x + self.out(received.transpose(1, 2).flatten(2) * alpha[m].unsqueeze(-1)))
        return after


class Aggregation(nn.Module):
    """InterCAD: weights of levels, of modalities, gates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.anchors = nn.ParameterList(torch.empty(width) for _ in range(LEVELS))
        self.score = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1, bias=False))
        self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.gate = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.Linear(width, 1, bias=False), nn.Sigmoid()
        )

    def forward(self, s: list[list[Tensor]], p: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
        """Summaries s[l][m] and p[l][m] (B, d) to the features of the head, and omega (B, L)."""
        modalities = range(len(s[0]))
        means = [sum(level) / len(level) for level in s]
        scores = [
            self.score(torch.cat([mean, anchor.expand_as(mean)], -1))
            for mean, anchor in zip(means, self.anchors, strict=True)
        ]
        omega = torch.cat(scores, -1).softmax(-1)
        weights = omega.split(1, -1)
        shared, private = (
            [sum(w * level[m] for w, level in zip(weights, side, strict=True)) for m in modalities] for side in (s, p)
        )
        query = self.query(sum(shared) / len(shared))
        logits = [(query * self.key(x)).sum(-1, keepdim=True) / x.shape[-1] ** 0.5 for x in shared]
        pi = torch.cat(logits, -1).softmax(-1).split(1, -1)
        z = sum(weight * x for weight, x in zip(pi, shared, strict=True))
        return torch.cat([z, *(self.gate(x) * x for x in private)], -1), omega


class Eager(nn.Module):
    """The full variant of the method with modalities that have no levels of their own; values from a ``CLCR``."""

    def __init__(self, model: CLCR) -> None:
        super().__init__()
        task, self.config = model.task, model.config
        modalities, width = len(task.modalities), model.intercad.query.shape[-1]
        encoder = EncoderConfig(width, model.head[2].p)
        self.encoders = nn.ModuleList(Encoder(modality, encoder) for modality in task.modalities)
        self.positions = nn.ParameterList(
            torch.empty(modality.tokens, width) for modality in task.modalities for _ in range(LEVELS)
        )
        self.norm, self.norm_shared, self.norm_private = (nn.LayerNorm(width) for _ in range(3))
        self.levels = nn.ModuleList(Level(modalities, width, model.config) for _ in range(LEVELS))
        self.intercad = Aggregation(width)
        self.head = nn.Sequential(
            nn.Linear((1 + modalities) * width, width),
            nn.ReLU(),
            nn.Dropout(encoder.dropout),
            nn.Linear(width, task.outputs),
        )
        self.classes = task.n_classes
        parameters = dict(model.named_parameters())
        self.to(parameters["intercad.query"].dtype)
        with torch.no_grad():
            for own, value in self.places(parameters):
                own.copy_(value)

    def places(self, values: Mapping[str, Tensor]) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter, and the part of the parameters (or gradients) of a ``CLCR``, by name, that it stands for."""
        for m, encoder in enumerate(self.encoders):
            convolutions = "hierarchy.convolutions"
            for name, parameter in encoder.input.named_parameters():
                yield parameter, values[f"{convolutions}.inputs.{m}.{name}"]
            for level in range(LEVELS):
                for name in ("first", "second"):
                    stage = f"{convolutions}.stages.{level}.{name}"
                    convolution = getattr(encoder.blocks[level], name)
                    yield convolution.weight, values[stage][m]
                    yield convolution.bias, values[f"{stage}_bias"][m]
                yield encoder.project[level].weight, values[f"{convolutions}.weight"][m, level].mT
                position = self.positions[m * LEVELS + level]
                yield position, values["hierarchy.position"][m, level, : len(position)]
        for index, level in enumerate(self.levels):
            yield level.shared, values["intraced.subspaces.shared"][index]
            yield from zip(level.private, values["intraced.subspaces.private"][index], strict=True)
            for name, parameter in (("scale", level.scale), ("threshold", level.threshold), ("logit", level.budget)):
                yield parameter, values[f"intraced.budget.{name}"][index]
            yield level.qkv.weight, values["intraced.exchange.project"][index].mT
            yield level.out.weight, values["intraced.exchange.output"][index].mT
        yield from zip(self.intercad.anchors, values["intercad.anchors"], strict=True)
        yield self.intercad.query.weight, values["intercad.query"].mT
        yield self.intercad.key.weight, values["intercad.key"].mT
        same = {
            "intercad.score": self.intercad.score,
            "intercad.gate": self.intercad.gate,
            "head": self.head,
            "hierarchy.norm": self.norm,
            "summarise.norm_shared": self.norm_shared,
            "summarise.norm_private": self.norm_private,
        }
        for prefix, module in same.items():
            for name, parameter in module.named_parameters():
                yield parameter, values[f"{prefix}.{name}"]

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Prediction and losses of a batch."""
        tokens = [encoder(x, mask) for encoder, x, mask in zip(self.encoders, batch.inputs, batch.masks, strict=True)]
        real = [mask.to(self.norm.weight.dtype) for mask in batch.masks]
        weights = [(mask / mask.sum(-1, keepdim=True).clamp(min=1)).unsqueeze(1) for mask in real]
        s, p, s_low, p_low = [], [], [], []
        for index, level in enumerate(self.levels):
            lift_s, lifts_p = level.bases()
            shared, pooled_p = [], []
            for m, (mask, weight) in enumerate(zip(batch.masks, weights, strict=True)):
                position = self.positions[m * LEVELS + index][: mask.shape[-1]]
                h = self.norm(tokens[m][index] + position) * mask.unsqueeze(-1)
                shared.append(h @ lift_s)
                pooled_p.append((weight @ (h @ lifts_p[m])).squeeze(1))
            after = level(shared, batch.masks)
            pooled_s = [(w @ x).squeeze(1) for w, x in zip(weights, after, strict=True)]
            s.append([self.norm_shared(x @ lift_s.T) for x in pooled_s])
            p.append([self.norm_private(x @ lift.T) for x, lift in zip(pooled_p, lifts_p, strict=True)])
            s_low.append(pooled_s)
            p_low.append(pooled_p)
        features, omega = self.intercad(s, p)
        raw = self.head(features)
        prediction = raw if self.classes is not None else raw.squeeze(-1)
        return prediction, self.task_loss(prediction, batch) | self.regularise(s_low, p_low) | self.mix(s, omega)

    def task_loss(self, prediction: Tensor, batch: Batch) -> dict[str, Tensor]:
        """L1 or cross entropy."""
        if self.classes is None:
            return {"task": functional.l1_loss(prediction, batch.target.to(prediction.dtype))}
        return {"task": functional.cross_entropy(prediction, batch.target)}

    def regularise(self, shared: list[list[Tensor]], private: list[list[Tensor]]) -> dict[str, Tensor]:
        """L_Intra, L_pr and L_sp, pair by pair, of summaries (B, rank) of which each is whitened once."""
        s = [[self.whiten(x) for x in level] for level in shared]
        p = [[self.whiten(x) for x in level] for level in private]
        levels, modalities = range(LEVELS), range(len(s[0]))
        between = [correlation(p[i][m], p[i][k]) for i in levels for m, k in combinations(modalities, 2)]
        own = [correlation(p[i][m], s[i][m]) for i in levels for m in modalities]
        repeated = [correlation(p[i][m], p[k][m]) for i, k in combinations(levels, 2) for m in modalities]
        foreign = [correlation(p[i][m], s[k][m]) for i in levels for k in levels if i != k for m in modalities]
        return {
            "intra": self.config.lambda_intra * (sum(between) / len(between) + sum(own) / len(own)),
            "private_redundancy": self.config.lambda_inter * sum(repeated) / len(repeated),
            "shared_private": self.config.lambda_inter * sum(foreign) / len(foreign),
        }

    def whiten(self, x: Tensor) -> Tensor:
        """(B, r) centred and of unit covariance, by the Cholesky factor of the shrunk covariance; B >= 2 r."""
        x = x - x.mean(0)
        covariance = x.T @ x / (len(x) - 1)
        target = (covariance.diagonal().mean() + 1e-7) * torch.eye(len(covariance), dtype=x.dtype)
        factor = torch.linalg.cholesky(torch.lerp(covariance, target, self.config.shrinkage))
        return torch.linalg.solve_triangular(factor.T, x, upper=True, left=False)

    def mix(self, s: list[list[Tensor]], omega: Tensor) -> dict[str, Tensor]:
        """L_mix, pair by pair."""
        level = [functional.normalize((sum(row) / len(row)).detach(), dim=-1) for row in s]
        pairs = [
            functional.relu(-(level[i] * level[k]).sum(-1)) * omega[:, i] * omega[:, k]
            for i, k in combinations(range(LEVELS), 2)
        ]
        return {"mix": self.config.lambda_inter * 2 * sum(pairs).mean()}


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """``||X^T Y||^2 / min rank`` of whitened batches."""
    return (x.T @ y / (len(x) - 1)).square().sum() / min(x.shape[1], y.shape[1])
