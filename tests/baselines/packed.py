"""Oracle: MISA's recurrent part as its authors run it, one ``nn.LSTM`` a modality and layer over packed sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from clcr.recurrence import BiLSTM, StackedBiLSTM


def plain(layer: BiLSTM, reader: int) -> nn.LSTM:
    """torch's own bidirectional LSTM with the weights of one reader."""
    inputs, width = layer.input_weight.shape[-1], layer.weight.shape[-1]
    lstm = nn.LSTM(inputs, width, bidirectional=True, batch_first=True, dtype=layer.weight.dtype)
    own = {"weight_ih": layer.input_weight, "weight_hh": layer.weight, "bias_ih": layer.input_bias}
    with torch.no_grad():
        for name, stacked in (own | {"bias_hh": layer.bias}).items():
            for direction, suffix in enumerate(("", "_reverse")):
                getattr(lstm, f"{name}_l0{suffix}").copy_(stacked[reader, direction])
    return lstm


class PackedReader(nn.Module):
    """What ``StackedBiLSTM`` computes, reader by reader; sequences of one real token or more, padding last."""

    def __init__(self, source: StackedBiLSTM) -> None:
        super().__init__()
        readers, width = len(source.norm_weight), source.norm_weight.shape[-1]
        self.first = nn.ModuleList(plain(source.first, reader) for reader in range(readers))
        self.second = nn.ModuleList(plain(source.second, reader) for reader in range(readers))
        self.norms = nn.ModuleList(nn.LayerNorm(width, dtype=source.norm_weight.dtype) for _ in range(readers))
        with torch.no_grad():
            for reader, norm in enumerate(self.norms):
                norm.weight.copy_(source.norm_weight[reader, 0, 0])
                norm.bias.copy_(source.norm_bias[reader, 0, 0])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(R, B, T, d) and (R, B, T) to (R, B, 4 d)."""
        found = []
        for tokens, real, first, norm, second in zip(x, mask, self.first, self.norms, self.second, strict=True):
            length = real.sum(1).cpu()
            packed, (h1, _) = first(pack_padded_sequence(tokens, length, batch_first=True, enforce_sorted=False))
            states = norm(pad_packed_sequence(packed, batch_first=True)[0])
            _, (h2, _) = second(pack_padded_sequence(states, length, batch_first=True, enforce_sorted=False))
            found.append(torch.cat((*h1, *h2), 1))
        return torch.stack(found)
