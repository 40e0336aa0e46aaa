"""What a net's neurons compute, and where: for people."""

from __future__ import annotations

import torch
from torch import nn

from spikecore.backends.selection import REFERENCE
from spikecore.dynamics import explain as explain_program
from spikecore.errors import DynamicsError
from spikecore.nn.block import NormedNeuron
from spikecore.nn.neuron import Neuron
from spikecore.nn.products import explain_products


def explain(net: nn.Module, dtype: torch.dtype = torch.float32) -> str:
    """Per neuron: its name in the net, the backend with the reason, equations and gradient; norms and products too.

    Args:
        net: a neuron, or a module that holds some.
        dtype: of the input, where no forward pass has chosen a backend yet.
    """
    device = next((tensor.device for tensor in net.parameters()), torch.device("cpu"))
    parts = []
    for name, part in net.named_modules():
        place = f"{name}: " if name else ""
        if isinstance(part, NormedNeuron):
            choice = part.choose(device, dtype)
            what = f"is part of the neuron on {choice.backend}"
            if choice.backend == REFERENCE:
                what = "runs by itself"
            parts.append(f"{place}{type(part).__name__}: the norm {what}: {choice.reason}")
        elif isinstance(part, Neuron):
            choice = part.chosen or part.choose_backend(device, dtype)
            try:
                equations = explain_program(part.program())
            except DynamicsError as error:
                equations = f"not traced: {error}"
            parts.append(f"{place}{type(part).__name__} on {choice.backend}: {choice.reason}\n{equations}")
    parts += explain_products(net)
    return "\n\n".join(parts) or "this net has no neurons"
