"""Names of tensors in torchvision's and SpikingJelly's residual nets, and ours.

theirs                         ours
conv1.weight                   conv1.conv.weight
bn1.running_mean               conv1.norm.running_mean
layer1.0.conv2.weight          layer1.0.conv2.conv.weight
layer1.0.bn2.weight            layer1.0.conv2.norm.weight
layer2.0.downsample.0.weight   layer2.0.downsample.conv.weight
layer2.0.downsample.1.bias     layer2.0.downsample.norm.bias
fc.weight                      classifier.weight
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor
from torch.nn import Module

from spikecore.errors import ConversionError
from spikecore.nn import Neuron, TorchNeuron

KEY_MAP = (
    (re.compile(r"(^|\.)conv(\d)\.(?=weight$)"), r"\1conv\2.conv."),
    (re.compile(r"(^|\.)bn(\d)\."), r"\1conv\2.norm."),
    (re.compile(r"\.downsample\.0\."), ".downsample.conv."),
    (re.compile(r"\.downsample\.1\."), ".downsample.norm."),
    (re.compile(r"^fc\."), "classifier."),
    (re.compile(r"(^|\.)sn(\d)\.w$"), r"\1conv\2.neuron.param_w"),
    (re.compile(r"\.downsample_sn\.w$"), ".downsample.neuron.param_w"),
)
BEHIND_THE_SUM = re.compile(r"\.conv\d\.neuron\.(?=param_w$)")
"""In our name of what a block's last neuron learns, the convolution that it does not follow directly."""


def renamed(key: str) -> str:
    """Our name of one of their tensors; a name that is none of theirs stays."""
    for pattern, name in KEY_MAP:
        key = pattern.sub(name, key)
    return key


def import_tensors(net: Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names.

    What an ANN's file cannot hold is taken from the net as it is: parameters of neurons, and the number of batches that
    a norm has seen, which old files lack.

    Raises:
        ConversionError: there is no tensor with a name of theirs.
    """
    own, of_neurons = net.state_dict(), _of_neurons(net)
    state: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = renamed(key)
        behind = BEHIND_THE_SUM.sub(".neuron.", name)
        state[behind if name not in own and behind in own else name] = value
    if "conv1.conv.weight" not in state:
        known = ", ".join(list(tensors)[:4]) or "none"
        raise ConversionError(f"expected the tensors of a residual net, conv1.weight among them, got {known}")
    for key, value in own.items():
        if key.endswith("num_batches_tracked") or key in of_neurons:
            state.setdefault(key, value.clone())
    return state


def _of_neurons(net: Module) -> set[str]:
    """Names of the tensors that neurons hold: learnable options."""
    neurons = {name: part for name, part in net.named_modules() if isinstance(part, Neuron | TorchNeuron)}
    return {f"{name}.{key}" for name, part in neurons.items() for key in part.state_dict()}
