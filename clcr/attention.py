"""Attention of each modality to the tokens of the others, each token with a weight of its own.

Two programs for one function: ``FewTokens``, plain products with a backward written by hand, for a CPU, and torch's
fused attention for everything else. Both read channels before tokens, (level, 3, heads, e, modality, batch, token): the
layout in which a CPU copies whole rows and its matrix products are fastest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

FEW_TOKENS = 256
PIECES, PIECE = 4, 1 << 20  # how often to cut logits that are more than so many, to keep a piece in the cache
UNSELECTED = -1e3  # added to a logit, makes its exponential zero
TINY = 1e-30
LOG2_E = 1 / math.log(2)
FAR = 2.0**100  # exponentials whose sum lies further from 1 than so are made again, from logits without their maximum


def attend_to_others(projected: Tensor, alpha: Tensor) -> Tensor:
    """What each token receives from the weighted tokens of the other modalities, times its own weight [C].

    Tokens are weighted with ``alpha exp(logit)``, normalised: as ``log alpha`` is added to the logits, one ordinary
    softmax does both. An empty pool gives zeros.

    Args:
        projected: queries, keys and values (L, 3, heads, e, M, B, T).
        alpha: (L, M, B, T) in [0, 1].

    Returns:
        (L, heads, e, M, B, T).
    """
    selected = alpha > 0
    bias = torch.where(selected, alpha.clamp(min=TINY).log(), UNSELECTED)
    chosen = selected.any(-1, keepdim=True)
    weight = alpha * (chosen.sum(-3, keepdim=True) > chosen)
    flat = [x.reshape(-1, *x.shape[-axes:]) for x, axes in ((projected, 6), (bias, 3), (weight, 3))]
    if projected.device.type == "cpu" and projected.shape[-1] * (projected.shape[-3] - 1) <= FEW_TOKENS:
        with torch.autocast("cpu", enabled=False):
            received: Tensor = FewTokens.apply(flat[0].to(alpha.dtype), *flat[1:])  # type: ignore[no-untyped-call]
    else:
        received = fused(flat[0], flat[1]) * flat[2][:, None, None]
    return received.view(*alpha.shape[:-3], *received.shape[1:])


def fused(projected: Tensor, bias: Tensor) -> Tensor:
    """(L, 3, heads, e, M, B, T) and what is added to the logits of a key, (L, M, B, T), to (L, heads, e, M, B, T).

    The bias stands as one more channel of the key, beside the inverse of the logits' scale. Some devices run fused
    attention only on widths that are multiples of 4.
    """
    levels, _, heads, width, modalities, batch, tokens = projected.shape
    more = 4 - width % 4
    query, key, value = projected.unbind(1)
    key = torch.cat([key, bias.to(key.dtype)[:, None, None].expand(-1, heads, 1, -1, -1, -1)], 2)
    query, key, value = (
        functional.pad(x, (0, 0) * 3 + (0, width + more - x.shape[2]), value=fill)
        for x, fill in ((query, width**0.5), (key, 0.0), (value, 0.0))
    )
    pool = of_the_others(torch.stack([key, value])).permute(0, 1, 4, 5, 2, 7, 6, 3)
    pool = pool.reshape(2, -1, heads, (modalities - 1) * tokens, width + more)
    # four axes, else it would not run fused
    query = query.permute(0, 3, 4, 1, 5, 2).reshape(-1, heads, tokens, width + more)
    out = functional.scaled_dot_product_attention(query, pool[0], pool[1], scale=width**-0.5)
    return out[..., :width].reshape(levels, modalities, batch, heads, tokens, width).permute(0, 3, 5, 1, 2, 4)


class FewTokens(torch.autograd.Function):
    """As ``fused``, times the weight (L, M, B, T) of the token that receives; keeps the matrix of exponentials.

    Every factor has one channel more. A query has a 1, a key its bias: their product is the biased logit. A value has a
    1, which beside the mixture of values gives the sum of the exponentials; the incoming gradient has minus its mean
    under the softmax, whose product with that 1 makes the gradient of the logit. So nothing as large as the logits is
    ever normalised: the small factors are. Keys count in powers of 2, whose exponentials take a quarter of the time.
    Small factors are stored as (channel, token), which makes the products up to three times as fast.
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        levels, _, heads, width, modalities, batch, tokens = projected.shape
        query = projected.new_empty(levels, heads, modalities, batch, width + 1, tokens)
        torch.mul(projected[:, 0].permute(0, 1, 3, 4, 2, 5), width**-0.5, out=query[..., :width, :])
        query[..., width, :] = 1
        pool = projected.new_empty(2, *query.shape[:-1], modalities - 1, tokens)
        seen = of_the_others(projected[:, 1:]).permute(1, 0, 2, 4, 5, 3, 7, 6)
        torch.mul(seen[0], LOG2_E, out=pool[0, ..., :width, :, :])
        pool[0, ..., width, :, :] = of_the_others(bias * LOG2_E).mT[:, None]
        pool[1, ..., :width, :, :] = seen[1]
        pool[1, ..., width, :, :] = 1
        query, key, value = (x.reshape(-1, width + 1, x[0, 0, 0, 0, 0].numel()) for x in (query, *pool))
        mixed = torch.empty_like(query)
        exponential = projected.new_empty(len(query), tokens, key.shape[-1])
        for p, q, k, v, m in _pieces(exponential, query, key, value, mixed):
            torch.bmm(q.mT, k, out=p).exp2_()
            torch.bmm(v, p.mT, out=m)
        wild = ~((mixed[:, width] > 1 / FAR) & (mixed[:, width] < FAR))
        if wild.any():
            logit = query.mT @ key
            exponential = (logit - torch.where(wild, logit.amax(-1), 0.0).unsqueeze(-1)).exp2_()
            mixed = value @ exponential.mT
        mixed = mixed.view(levels, heads, modalities, batch, width + 1, tokens)
        share = weight[:, None] / mixed[..., width, :]
        received = torch.empty_like(projected[:, 0])
        torch.mul(mixed[..., :width, :].permute(0, 1, 4, 2, 3, 5), share.unsqueeze(2), out=received)
        ctx.save_for_backward(query, key, value, exponential, mixed, share)
        return received

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """See the class."""
        query, key, value, exponential, mixed, share = ctx.saved_tensors
        levels, heads, modalities, batch, width, tokens = mixed.shape
        width -= 1
        incoming = gradients[0].permute(0, 1, 3, 4, 2, 5)
        along = (incoming * mixed[..., :width, :]).sum(-2) / mixed[..., width, :]
        outer = torch.empty_like(mixed)
        torch.mul(incoming, share.unsqueeze(-2), out=outer[..., :width, :])
        torch.mul(along, -share, out=outer[..., width, :])
        outer = outer.view(query.shape)
        pool = key.new_empty(2, *key.shape)
        inner = mixed.new_empty(len(query), width, tokens)
        factors = (exponential, query, key, value, outer, *pool, inner)
        scratch = torch.empty_like(exponential[: _size(exponential)])
        for p, q, k, v, o, into_key, into_value, into_query in _pieces(*factors):
            torch.bmm(o, p, out=into_value)
            logit = torch.bmm(o.mT, v, out=scratch[: len(p)]).mul_(p)
            torch.bmm(q, logit, out=into_key)
            torch.bmm(k[:, :width], logit.mT, out=into_query)
        pool = pool.view(2, levels, heads, modalities, batch, width + 1, modalities - 1, tokens)
        inner = inner.view(levels, heads, modalities, batch, width, tokens)
        projected = mixed.new_empty(levels, 3, heads, width, modalities, batch, tokens)
        torch.mul(inner.permute(0, 1, 4, 2, 3, 5), width**-0.5 / LOG2_E, out=projected[:, 0])
        collect(projected[:, 1:], pool[..., :width, :, :].permute(1, 0, 2, 5, 3, 4, 7, 6))
        bias = mixed.new_empty(levels, modalities, batch, tokens)
        collect(bias, pool[0, ..., width, :, :].sum(1).mT)
        return projected, bias, along.sum(1)


def of_the_others(x: Tensor) -> Tensor:
    """(..., M, B, T) to (..., M, B, T, M - 1): what each modality sees of those that follow it, in a circle."""
    following = torch.cat([x[..., 1:, :, :], x[..., :-1, :, :]], -3)
    return following.unfold(-3, x.shape[-3] - 1, 1)


def collect(into: Tensor, pool: Tensor) -> None:
    """The transpose of ``of_the_others``: fill (..., M, B, T) with sums over (..., M, B, T, M - 1)."""
    for place, seen in enumerate(pool.unbind(-1)):
        step = place + 1
        for to, source in ((slice(step, None), slice(None, -step)), (slice(None, step), slice(-step, None))):
            part = into[..., to, :, :]
            (part.add_ if place else part.copy_)(seen[..., source, :, :])


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut along the first axis, as far as the first one asks for it."""
    return zip(*(torch.split(x, _size(tensors[0])) for x in tensors), strict=True)


def _size(exponential: Tensor) -> int:
    count = PIECES if exponential.numel() > PIECE else 1
    return max(1, -(-len(exponential) // count))
