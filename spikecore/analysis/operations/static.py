"""What a net costs before it runs."""

from __future__ import annotations

import torch
from torch import nn

CONNECTIONS = (
    *(nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def connection_sparsity(net: nn.Module) -> float:
    """Share of the weights of linear layers and convolutions that are 0; biases are no connections.

    Parity: neurobench's ConnectionSparsity, which rounds to four digits; tests/peers/test_neurobench.py.
    """
    zeros = total = 0
    for module in net.modules():
        if isinstance(module, CONNECTIONS):
            total += module.weight.numel()
            zeros += module.weight.numel() - int(torch.count_nonzero(module.weight))
    return zeros / total if total else 0.0


def footprint(net: nn.Module) -> int:
    """Bytes of parameters and buffers.

    Parity: neurobench's Footprint; tests/peers/test_neurobench.py.
    """
    tensors = [*net.parameters(), *net.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
