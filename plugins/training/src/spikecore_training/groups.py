"""Parameter groups: which parameters weight decay acts on."""

from __future__ import annotations

from typing import Any

from torch import nn

from spikecore.nn import Neuron, TorchNeuron

NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.RMSNorm,
)


def parameter_groups(model: nn.Module, decays_all: bool = False) -> list[dict[str, Any]]:
    """The parameters as torch.optim takes them: weights, and those that do not decay.

    Without decay are the parameters of norms and neurons (a membrane time constant is no weight), biases, and whatever
    has fewer than two axes.

    Args:
        model: its parameters; a shared one is taken once.
        decays_all: one group, in which all decay.
    """
    if decays_all:
        return [{"params": list(model.parameters())}]
    weights, others, seen = [], [], set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            is_weight = not isinstance(module, (*NORMS, Neuron, TorchNeuron)) and name != "bias" and parameter.dim() > 1
            (weights if is_weight else others).append(parameter)
    groups: list[dict[str, Any]] = []
    if weights:
        groups.append({"params": weights})
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    return groups
