"""Base of the nets that are a chain: convolutions with neurons and pooling, then linear layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import ConversionError
from spikecore.nn import Neuron, TorchNeuron

INPUT_RATE = 0.1
"""Firing rate that the first weights of linear layers are made for."""
RATE_WITHOUT_NORMS = 0.07
"""The same for every layer of a net without norms: with 0.1, activity dies out within 16 layers and four steps."""
MEAN_SQUARE = 1 / 3
"""Of pictures whose values are spread evenly over 0 to 1: what a first convolution without a norm is made for."""
THEIR_NEURON_PARAMETERS = {"w": "param_w"}
"""SpikingJelly's name of what a parametric LIF learns → ours; both mean 1 / tau = σ(w)."""


class PlainNet(nn.Model):
    """`features`, then `flatten`, then `classifier`.

    `forward_features` gives what the classifier takes; `spikecore.nn.features(net, names)` gives the values of any
    layers by name.
    """

    features: torch.nn.Sequential
    classifier: torch.nn.Sequential

    def forward_features(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → what the classifier takes, `[T, B, features]`; without T in single-step mode."""
        features: Tensor = self.features(x)
        return features.flatten(-3)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → `[T, B, num_outputs]`; without T in single-step mode."""
        out: Tensor = self.classifier(self.forward_features(x))
        return out

    def their_names(self, source: str) -> dict[str, str]:
        """Our name of each module with tensors → the name of the same one in `source`.

        They count the layers one by one, where we count blocks; in `features.0` of ours stand their `features.0`
        (convolution), `features.1` (norm) and `features.2` (neuron).
        """
        raise NotImplementedError

    def import_weights(self, source: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The `state_dict` of this net from tensors of another library.

        What an ANN's file cannot hold is taken from the net as it is: parameters of neurons, and the number of batches
        that a norm has seen, which old files lack.

        Raises:
            ConversionError: this net reads no weights of `source`, or the tensors are not those of such a net.
        """
        if source not in self.weight_sources:
            known = ", ".join(self.weight_sources) or "none"
            raise ConversionError(f"{type(self).__name__} reads no weights of {source!r} (sources: {known})")
        ours = {theirs: name for name, theirs in self.their_names(source).items()}
        state: dict[str, Tensor] = {}
        for key, value in tensors.items():
            module, _, tensor = key.rpartition(".")
            tensor = THEIR_NEURON_PARAMETERS.get(tensor, tensor)
            state[f"{ours[module]}.{tensor}" if module in ours else key] = value
        first = next(iter(ours))
        if f"{first}.weight" not in tensors:
            known = ", ".join(list(tensors)[:4]) or "none"
            raise ConversionError(f"expected the tensors of {source}'s net, {first}.weight among them, got {known}")
        of_neurons = self._of_neurons()
        for key, value in self.state_dict().items():
            if key.endswith("num_batches_tracked") or key in of_neurons:
                state.setdefault(key, value.clone())
        return state

    def _of_neurons(self) -> set[str]:
        """Names of the tensors that neurons hold: learnable options."""
        neurons = {name: part for name, part in self.named_modules() if isinstance(part, Neuron | TorchNeuron)}
        return {f"{name}.{key}" for name, part in neurons.items() for key in part.state_dict()}


def numbered(features: torch.nn.Sequential, num_layers: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Our blocks with the number that their first layer has where layers are counted one by one.

    Args:
        features: whose blocks are meant.
        num_layers: class of a block → how many layers of theirs it is; one, where it is not named.
    """
    number = 0
    for name, block in features.named_children():
        yield name, number
        number += num_layers.get(type(block).__name__, 1)


def initialize(net: torch.nn.Module, has_norms: bool = True) -> None:
    """First weights: normal; biases 0.

    Convolutions have variance 2 / fan-out, by the rule of He et al. 2015, where a norm follows or the weights are
    standardised. Linear layers, and convolutions without norms, have 2 / (m · fan-in), where m is the mean square of
    what they take: `MEAN_SQUARE` of pictures for the first, and behind neurons the firing rate, `INPUT_RATE` or
    `RATE_WITHOUT_NORMS`. With torch's first weights, with a deviation of 0.01 as in the ANN's VGG, or with fan-out in
    the first convolution, currents stay below a threshold of 1, and the net is silent.

    Args:
        net: whose layers are meant.
        has_norms: norms follow the convolutions, or their weights are standardised.
    """
    rate = INPUT_RATE if has_norms else RATE_WITHOUT_NORMS
    is_first = True
    for part in net.modules():
        if not isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            continue
        if isinstance(part, torch.nn.Conv2d) and has_norms:
            torch.nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        else:
            mean_square = MEAN_SQUARE if is_first and not has_norms else rate
            torch.nn.init.normal_(part.weight, 0.0, math.sqrt(2 / (mean_square * part.weight[0].numel())))
        if part.bias is not None:
            torch.nn.init.zeros_(part.bias)
        is_first = False
