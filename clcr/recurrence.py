"""Bidirectional LSTMs of all modalities and seeds in one program.

``nn.LSTM`` knows no axis for modalities and none for seeds. Here every pair of a sequence reader and a direction is one
entry of a batched matrix product, so that a time step costs a few operations however many of them there are. The
backward pass is written by hand: recorded step by step it would cost more than the arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from clcr.intraced import without_autocast

aten = torch.ops.aten


def hyperbolic(negative: Tensor, one: Tensor) -> Tensor:
    """tanh(x) in place of ``negative`` = sigmoid(-2 x): several times faster than torch.tanh on a CPU."""
    return torch.sub(one, negative, alpha=2, out=negative)


class Recurrence(torch.autograd.Function):
    """LSTM cells (gates in torch's order i, f, g, o) over G independent sequences of batches, from a state of zero.

    ``x`` (G, T, B, in); ``silent`` bool (G, T, B, 1): a step whose input gate is shut, so that a state of zero stays
    zero; ``input_weight`` (G, 4 d, in), ``weight`` (G, 4 d, d), ``bias`` (G, 4 d). Returns the states (G, T, B, d).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, silent: Tensor, input_weight: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:  # fmt: skip
        """See the class."""
        (groups, steps, size, _), d = x.shape, weight.shape[-1]
        # Gate g is reached through a sigmoid of -2 times its input: one sigmoid then serves all four gates.
        scale = x.new_ones(4 * d, 1)
        scale[2 * d : 3 * d] = -2
        drive = torch.baddbmm((bias * scale[:, 0]).unsqueeze(1), x.flatten(1, 2), (input_weight * scale).mT)
        drive = drive.view(groups, steps, size, 4 * d)
        drive[..., :d].masked_fill_(silent, -math.inf)
        recurrent, one = (weight * scale).mT, x.new_ones(())
        gates = x.new_empty(steps, groups, size, 4, d)
        cell, squashed = x.new_zeros(steps + 1, groups, size, d), x.new_empty(steps, groups, size, d)
        states = x.new_empty(groups, steps, size, d)
        state = x.new_zeros(groups, size, d)
        for t in range(steps):
            torch.baddbmm(drive[:, t], state, recurrent, out=gates[t].flatten(-2)).sigmoid_()
            i, f, g, o = gates[t].unbind(-2)
            hyperbolic(g, one)
            now = torch.mul(f, cell[t], out=cell[t + 1]).addcmul_(i, g)
            tanh = hyperbolic(torch.mul(now, -2, out=squashed[t]).sigmoid_(), one)
            state = torch.mul(o, tanh, out=states[:, t])
        ctx.save_for_backward(x, input_weight, weight, gates, cell, squashed, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Backward through time; the four products with the weights come once, after the loop."""
        x, input_weight, weight, gates, cell, squashed, states = ctx.saved_tensors
        (groups, steps, size, _), d = x.shape, weight.shape[-1]
        drive = x.new_empty(groups, steps, size, 4 * d)  # the gradient of what enters the gates
        carried, later = x.new_zeros(groups, size, d), x.new_empty(groups, size, d)
        with without_autocast(x):
            for t in reversed(range(steps)):
                here = drive[:, t].view(groups, size, 4, d)
                (i, f, g, o), (to_i, to_f, to_g, to_o) = gates[t].unbind(-2), here.unbind(-2)
                aten.sigmoid_backward.grad_input(g, i, grad_input=to_i)
                aten.sigmoid_backward.grad_input(cell[t], f, grad_input=to_f)
                aten.tanh_backward.grad_input(i, g, grad_input=to_g)
                aten.sigmoid_backward.grad_input(squashed[t], o, grad_input=to_o)
                last = t + 1 == steps
                state = upstream[:, t] if last else torch.baddbmm(upstream[:, t], drive[:, t + 1], weight, out=later)
                carried.addcmul_(state, aten.tanh_backward(o, squashed[t]))
                here[..., :3, :].mul_(carried.unsqueeze(-2))
                to_o.mul_(state)
                carried.mul_(f)
            flat = drive.flatten(1, 2)
            to_x = torch.bmm(flat, input_weight).view_as(x)
            to_input_weight = torch.bmm(x.flatten(1, 2).mT, flat).mT
            to_weight = torch.bmm(states[:, :-1].flatten(1, 2).mT, drive[:, 1:].flatten(1, 2)).mT
            return to_x, None, to_input_weight, to_weight, flat.sum(1)


class BiLSTM(nn.Module):
    """One bidirectional LSTM layer for each of several readers. Initial values as in ``nn.LSTM``, but orthogonal
    recurrent weights. Both directions read time forwards, the second a reversed copy, which has its padding first."""

    def __init__(self, readers: int, inputs: int, width: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.input_weight = nn.Parameter(torch.empty(readers, 2, 4 * width, inputs).uniform_(-bound, bound))
        self.weight = nn.Parameter(torch.empty(readers, 2, 4 * width, width))
        for matrix in self.weight.detach().flatten(0, 1):
            nn.init.orthogonal_(matrix)
        # Two, as in nn.LSTM: an adaptive optimiser moves the sum twice as fast.
        self.input_bias, self.bias = (
            nn.Parameter(torch.empty(readers, 2, 4 * width).uniform_(-bound, bound)) for _ in range(2)
        )

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Inputs (R, T, B, in), the real ones first, and which are (R, T, B), to states (R, 2, T, B, d), the second
        direction's in reversed time."""
        both = torch.stack((x, x.flip(-3)), -4)
        silent = ~torch.stack((real, real.flip(-2)), -3).unsqueeze(-1)
        bias = self.input_bias + self.bias
        with without_autocast(x):
            states: Tensor = Recurrence.apply(  # type: ignore[no-untyped-call]
                both.to(bias.dtype).flatten(0, -4),
                silent.flatten(0, -4),
                self.input_weight.flatten(0, -3),
                self.weight.flatten(0, -3),
                bias.flatten(0, -2),
            )
        return states.view(*both.shape[:-1], -1)


class StackedBiLSTM(nn.Module):
    """Two one-layer bidirectional LSTMs with layer normalisation between, for each of R readers; the final states of
    both layers, (R, B, 4 d). No packing: it waits for the device, and has no axis for readers or seeds."""

    def __init__(self, readers: int, width: int) -> None:
        super().__init__()
        self.first = BiLSTM(readers, width, width)
        self.norm_weight = nn.Parameter(torch.ones(readers, 1, 1, 2 * width))
        self.norm_bias = nn.Parameter(torch.zeros(readers, 1, 1, 2 * width))
        self.second = BiLSTM(readers, 2 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens (R, B, T, d) and mask (R, B, T), in any pattern, to (R, B, 4 d); no real token gives zeros."""
        order = (~mask).to(torch.uint8).argsort(dim=-1, stable=True)  # real tokens first
        length = mask.sum(-1, keepdim=True)
        real = (torch.arange(mask.shape[-1], device=mask.device) < length).mT
        last = (length - 1).clamp(min=0).unsqueeze(-1).transpose(-3, -2)
        tokens = x.gather(-2, order.unsqueeze(-1).expand_as(x)).transpose(-3, -2)
        first = self.first(tokens, real)
        ahead, back = first.unbind(-4)
        normal = functional.layer_norm(torch.cat((ahead, back.flip(-3)), -1), self.norm_weight.shape[-1:])
        second = self.second(torch.addcmul(self.norm_bias, normal, self.norm_weight), real)
        return torch.cat((final_states(first, last), final_states(second, last)), -1) * (length > 0)


def final_states(states: Tensor, last: Tensor) -> Tensor:
    """States (R, 2, T, B, d) and the place of each last real token (R, 1, B, 1) to (R, B, 2 d)."""
    ahead, back = states.unbind(-4)
    final = ahead.gather(-3, last.expand(*last.shape[:-1], ahead.shape[-1])).squeeze(-3)
    return torch.cat((final, back.select(-3, -1)), -1)
