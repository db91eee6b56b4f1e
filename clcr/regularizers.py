"""The loss terms besides the task's, one pure function each.

All but ``mix`` read a table of whitened cross-correlations between every private summary and every summary of the
same batch, made once by ``Correlations.of``. Summaries enter as subspace coordinates (L, M, B, rank).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from clcr.api import LEVELS
from clcr.intraced import exact, without_autocast

EPS = 1e-7
SPREAD = 0.5  # least standard deviation of a summary coordinate under the hinge; that of a token is about 1


def whiten(x: Tensor, shrinkage: float, detach: bool = False) -> Tensor:
    """Centre a batch (..., B, r) and give it unit covariance, so far as its size allows [C].

    With B >= 2 r by a Cholesky factor of the covariance, shrunk towards a multiple of the identity. A smaller batch
    would be whitened to the same value whatever it holds, and is standardised per coordinate instead. A constant
    batch gives zeros. ``detach``: no gradient through the factor, only through what it is applied to.
    """
    batch, rank = x.shape[-2:]
    centred = x - x.mean(-2, keepdim=True)
    measured = centred.detach() if detach else centred
    degrees = max(batch - 1, 1)
    if 2 * rank > batch:
        return centred * torch.rsqrt(measured.square().sum(-2, keepdim=True) / degrees + EPS)
    covariance = measured.mT @ measured / degrees
    spread = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + EPS
    identity = torch.eye(rank, dtype=x.dtype, device=x.device)
    factor = torch.linalg.cholesky_ex(torch.lerp(covariance, spread * identity, shrinkage)).L
    white: Tensor = torch.linalg.solve_triangular(factor.mT, centred, upper=True, left=False)
    return white


def cross_correlation(x: Tensor, y: Tensor, shrinkage: float = 0.1) -> Tensor:
    """``||C||_F^2 / min(d_x, d_y)`` of the whitened batches (..., B, d_x) and (..., B, d_y): (...) [N, C].

    C is their cross-covariance. Finite for a batch of one, constant features and a batch smaller than the rank.
    """
    cross = whiten(x, shrinkage).mT @ whiten(y, shrinkage) / max(x.shape[-2] - 1, 1)
    return cross.square().sum((-2, -1)) / min(x.shape[-1], y.shape[-1])


@dataclass(frozen=True)
class Correlations:
    """Whitened cross-correlations (L, M, L, M): private summaries against private ones, and against shared ones.

    Zero, without gradient, where the batch is too small to tell dependence from chance: smaller than twice the lower
    rank of the pair, as independent summaries give about rank / (B - 1) [C].
    """

    private: Tensor
    shared: Tensor

    @classmethod
    def of(cls, shared: Tensor, private: Tensor, shrinkage: float, detach: bool = False) -> Correlations:
        """From the coordinates (L, M, B, d_s) and (L, M, B, d_p) of a batch."""
        *_, levels, modalities, batch, rank = private.shape
        ranks = (rank, min(rank, shared.shape[-1]))
        skip = [batch < 2 * lower for lower in ranks]
        axes = (*private.shape[:-4], levels, modalities, levels, modalities)
        if all(skip):
            return cls(exact(shared).new_zeros(axes), exact(shared).new_zeros(axes))
        with without_autocast(shared):
            own, foreign = cls._grams(
                exact(shared), exact(private), partial(whiten, shrinkage=shrinkage, detach=detach)
            )
            # ||X^T Y||_F^2 = <X X^T, Y Y^T>: all pairs of summaries at once, also of different rank
            tables = [(own @ gram.mT).view(axes) / lower for gram, lower in zip((own, foreign), ranks, strict=True)]
        return cls(*(torch.zeros_like(x) if small else x for x, small in zip(tables, skip, strict=True)))

    @staticmethod
    def _grams(shared: Tensor, private: Tensor, whitened: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        """Inner products of the samples of each whitened summary, private and shared: (L M, B B)."""
        if shared.shape == private.shape:
            white = [whitened(torch.stack([private, shared]))]
        else:
            white = [whitened(x).unsqueeze(0) for x in (private, shared)]
        grams = torch.cat([x @ x.mT for x in white]) / max(shared.shape[-2] - 1, 1)
        return grams.flatten(-4, -3).flatten(-2).unbind(0)


def intra(correlations: Correlations) -> Tensor:
    """L_Intra [N]: private parts of different modalities in a level, plus private against shared of one modality."""
    modalities = correlations.private.diagonal(dim1=-4, dim2=-2)
    own = correlations.shared.diagonal(dim1=-4, dim2=-2).diagonal(dim1=-3, dim2=-2)
    return _off_diagonal_mean(modalities) + own.mean((-2, -1))


def private_redundancy(correlations: Correlations) -> Tensor:
    """L_pr [N]: private parts of one modality in different levels."""
    return _off_diagonal_mean(correlations.private.diagonal(dim1=-3, dim2=-1))


def shared_private(correlations: Correlations) -> Tensor:
    """L_sp [N]: private part of a level against the shared parts of the other levels, one modality."""
    return _off_diagonal_mean(correlations.shared.diagonal(dim1=-3, dim2=-1))


def mix(omega: Tensor, shared: Tensor, conflict: str = "opposed") -> Tensor:
    """L_mix [N]: the joint weight of levels whose summaries point apart, ``kappa_lk omega_l omega_k``, l != k.

    kappa is relu(-cos) where only "opposed" levels conflict, (1 - cos) / 2 where it is enough to be "apart" [C].
    omega (B, L); summaries s (L, M, B, d), which receive no gradient: otherwise the levels, not their weights, would
    answer. A level agrees with itself, so that the diagonal is zero.
    """
    level = functional.normalize(exact(shared.detach()).mean(-3), dim=-1).transpose(-3, -2)
    with without_autocast(shared):
        cosine = level @ level.mT
        kappa = (-cosine).relu() if conflict == "opposed" else (0.5 - 0.5 * cosine) * (1 - torch.eye(LEVELS).to(level))
        return (exact(omega).unsqueeze(-2) @ kappa @ exact(omega).unsqueeze(-1)).mean((-3, -2, -1))


def lacking_spread(coordinates: Tensor) -> Tensor:
    """Mean of ``relu(SPREAD - sd)`` over the coordinates of all summaries (L, M, B, r) of a batch [C].

    See ``CLCRConfig.variance_floor``. A batch of one has no spread and costs nothing.
    """
    if coordinates.shape[-2] < 2:
        return exact(coordinates).new_zeros(coordinates.shape[:-4])
    deviation = torch.sqrt(exact(coordinates).var(-2) + EPS)
    return (SPREAD - deviation).relu().mean((-3, -2, -1))


def effective_rank(coordinates: Tensor) -> Tensor:
    """Participation ratio ``(sum lambda)^2 / sum lambda^2`` of a batch's covariance: (..., B, r) to (...) [C]."""
    centred = exact(coordinates.detach())
    centred = centred - centred.mean(-2, keepdim=True)
    with without_autocast(centred):
        covariance = centred.mT @ centred
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace.square() / covariance.square().sum((-2, -1)).clamp(min=torch.finfo(trace.dtype).tiny)


def _off_diagonal_mean(x: Tensor) -> Tensor:
    """Mean of the entries off the diagonal of k matrices (n, n, k); 0 for n = 1."""
    size, _, matrices = x.shape[-3:]
    others = 1 - torch.eye(size, dtype=x.dtype, device=x.device)
    return (x * others.unsqueeze(-1)).sum((-3, -2, -1)) / max(matrices * size * (size - 1), 1)
