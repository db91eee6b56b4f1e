"""Attention of each modality to the tokens of the others, each token with a weight of its own.

Two programs for one function: ``FewTokens``, plain products with a backward written by hand, for a CPU, and torch's
fused attention for everything else. Both read channels before tokens, (level, 3, heads, e, modality, batch, token): the
layout in which a CPU copies whole rows and its matrix products are fastest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

FEW_TOKENS = 256
PIECES, PIECE = 4, 1 << 20  # how often to cut logits that are more than so many, to keep a piece in the cache
UNSELECTED = -1e3  # added to a logit, makes its exponential zero
TINY = 1e-30


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
    """As ``fused``, times the weight (L, M, B, T) of the token that receives; keeps the matrix of probabilities.

    Every factor has one channel more. A query has a 1, a key its bias: their product is the biased logit. A value has a
    1, the incoming gradient minus its mean under the softmax: their product is the gradient of the logit but for the
    probability. Small factors are stored as (channel, token), which makes the products up to three times as fast.
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
        """See the class."""
        levels, _, heads, width, modalities, batch, tokens = projected.shape
        query = projected.new_empty(levels, heads, modalities, batch, width + 1, tokens)
        torch.mul(projected[:, 0].permute(0, 1, 3, 4, 2, 5), width**-0.5, out=query[..., :width, :])
        query[..., width, :] = 1
        pool = projected.new_empty(2, *query.shape[:-1], modalities - 1, tokens)
        pool[..., :width, :, :] = of_the_others(projected[:, 1:]).permute(1, 0, 2, 4, 5, 3, 7, 6)
        pool[0, ..., width, :, :] = of_the_others(bias).mT[:, None]
        pool[1, ..., width, :, :] = 1
        query, key, value = (x.reshape(-1, width + 1, x[0, 0, 0, 0, 0].numel()) for x in (query, *pool))
        mixed = projected.new_empty(levels, heads, modalities, batch, width, tokens)
        probability = projected.new_empty(len(query), tokens, key.shape[-1])
        for logit, p, q, k, v, m in _pieces(probability, query, key, value, mixed.view(-1, width, tokens)):
            torch.softmax(torch.bmm(q.mT, k, out=logit), -1, out=p)
            torch.bmm(v[:, :width], p.mT, out=m)
        received = torch.empty_like(projected[:, 0])
        torch.mul(mixed.permute(0, 1, 4, 2, 3, 5), weight[:, None, None], out=received)
        ctx.save_for_backward(query, key, value, probability, mixed, weight)
        return received

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """See the class."""
        query, key, value, probability, mixed, weight = ctx.saved_tensors
        levels, heads, modalities, batch, width, tokens = mixed.shape
        incoming = gradients[0].permute(0, 1, 3, 4, 2, 5)
        along = (incoming * mixed).sum(-2)
        outer = mixed.new_empty(*mixed.shape[:-2], width + 1, tokens)
        torch.mul(incoming, weight[:, None, :, :, None], out=outer[..., :width, :])
        torch.mul(along, -weight[:, None], out=outer[..., width, :])
        outer = outer.view(query.shape)
        pool = key.new_empty(2, *key.shape)
        inner = torch.empty_like(mixed)
        factors = (probability, query, key, value, outer, *pool, inner.view(-1, width, tokens))
        for logit, p, q, k, v, o, into_key, into_value, into_query in _pieces(*factors):
            torch.bmm(o, p, out=into_value)
            torch.bmm(o.mT, v, out=logit).mul_(p)
            torch.bmm(q, logit, out=into_key)
            torch.bmm(k[:, :width], logit.mT, out=into_query)
        pool = pool.view(2, levels, heads, modalities, batch, width + 1, modalities - 1, tokens)
        projected = mixed.new_empty(levels, 3, heads, width, modalities, batch, tokens)
        torch.mul(inner.permute(0, 1, 4, 2, 3, 5), width**-0.5, out=projected[:, 0])
        collect(projected[:, 1:], pool[..., :width, :, :].permute(1, 0, 2, 5, 3, 4, 7, 6))
        bias = torch.empty_like(weight)
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


def _pieces(probability: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut along the first axis; before each piece, memory for its logits, the same for all."""
    count = PIECES if probability.numel() > PIECE else 1
    size = max(1, -(-len(probability) // count))
    scratch = torch.empty_like(probability[:size])
    for piece in zip(*(torch.split(x, size) for x in (probability, *others)), strict=True):
        yield scratch[: len(piece[0])], *piece
