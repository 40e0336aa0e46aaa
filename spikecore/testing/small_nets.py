"""Small nets that spike in every layer, at other values than the defaults: what deployers are proved on.

Weights, biases and inputs are whole multiples of a power of two, so every sum in them is exact, in any order: what a
target computes differently is its neurons, not its rounding. Weights fit 8 bits with one scale.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikecore.nn import IF, LIF, CubaLIF, ParametricLIF
from spikecore.registry import create

NUM_STEPS, BATCH = 24, 3
SCALE = 64
NUM_INPUTS, NUM_HIDDEN, NUM_OUTPUTS = 4, 8, 3

MakeNeuron = Callable[[int], nn.Module]
"""Number of channels → neuron."""


@dataclass(frozen=True)
class SmallNet:
    """A net and what it is there for.

    Args:
        name: what is special about it.
        make: makes it anew, always the same, in evaluation mode.
        shape: of a sample, without T and B.
        is_analog: its inputs are multiples of 1/8 up to 2; otherwise spikes.
        spikes_out: its outputs are spikes; otherwise currents.
        has_ties: potentials land exactly on the threshold, in its hidden and in its output layer; they fire, unless the
            option `fires` is "above".
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (NUM_INPUTS,)
    is_analog: bool = False
    spikes_out: bool = True
    has_ties: bool = False

    def input(self, seed: int = 0, num_steps: int = NUM_STEPS, batch: int = BATCH) -> Tensor:
        """`[T, B, *shape]`, float32."""
        generator = torch.Generator().manual_seed(seed)
        shape = (num_steps, batch, *self.shape)
        if self.is_analog:
            return torch.randint(0, 17, shape, generator=generator) / 8
        return torch.randint(0, 2, shape, generator=generator).float()


def small_nets() -> tuple[SmallNet, ...]:
    """Every net, the plainest first."""
    plain = {
        "if": lambda _: IF(backend="torch"),
        "if, soft reset": lambda _: IF(backend="torch", reset="soft", v_threshold=1.75),
        "if, threshold 0.625, v_reset -0.25": lambda _: IF(backend="torch", v_threshold=0.625, v_reset=-0.25),
        "if, threshold per channel": lambda n: IF(backend="torch", v_threshold=_cycle((0.5, 1.25, 2.0), n)),
        "lif": lambda _: LIF(backend="torch"),
        "lif, tau 3": lambda _: LIF(backend="torch", tau=3.0, v_threshold=0.5),
        "lif, tau 3, soft reset": lambda _: LIF(backend="torch", tau=3.0, reset="soft", v_threshold=0.75),
        "lif, v_reset -0.5": lambda _: LIF(backend="torch", tau=3.0, v_reset=-0.5, v_threshold=0.25),
        "lif, v_reset 0.25, soft reset": lambda _: LIF(backend="torch", tau=3.0, v_reset=0.25, reset="soft"),
        "lif, input not scaled": lambda _: LIF(backend="torch", tau=3.0, decay_input=False, v_threshold=2.0),
        "lif, tau per channel": lambda n: LIF(backend="torch", tau=_cycle((1.5, 4.0, 8.0), n), decay_input=False),
        "lif, threshold per channel": lambda n: LIF(backend="torch", v_threshold=_cycle((0.25, 1.0, 0.5), n)),
        "lif, tau trained away from its first value": _trained,
        "plif": _trained_plif,
        "cuba_lif": lambda _: CubaLIF(backend="torch", c_decay=0.25, v_decay=0.5, v_threshold=1.5, v_reset=-0.25),
    }
    sequences = [_sequence(name, neuron) for name, neuron in plain.items()]
    return (
        *sequences,
        _sequence("if, without bias", plain["if"], bias=False),
        _sequence("lif, without bias", plain["lif, tau 3"], bias=False),
        _sequence("lif, analog input", plain["lif, tau 3"], is_analog=True),
        *_ties(),
        *odd_nets(),
        SmallNet("nested", lambda: _settled(_Nested())),
        SmallNet("a residual connection", lambda: _settled(_Residual())),
        SmallNet("one layer called twice", lambda: _settled(_Twice())),
        SmallNet("core's mlp", _mlp, spikes_out=False),
        SmallNet("core's convnet", _convnet, (1, 4, 4), spikes_out=False),
    )


def odd_nets() -> tuple[SmallNet, ...]:
    """Those whose neurons have another `v_init`, `v_leak` or `fires` than by default, each far from what they would
    compute without it."""
    neurons: dict[str, MakeNeuron] = {
        "if, v_init -4, soft reset": lambda _: IF(backend="torch", reset="soft", v_threshold=1.75, v_init=-4.0),
        "lif, v_init -3": lambda _: LIF(backend="torch", tau=4.0, v_init=-3.0, v_reset=-0.25, v_threshold=0.25),
        "lif, v_leak -0.5": lambda _: LIF(backend="torch", tau=3.0, v_leak=-0.5, v_threshold=0.25),
        "lif, v_leak 0.25, soft reset": lambda _: LIF(
            backend="torch", tau=3.0, v_leak=0.25, reset="soft", v_threshold=0.75
        ),
        "lif, v_leak -1, input not scaled": lambda _: LIF(
            backend="torch", tau=3.0, v_leak=-1.0, v_reset=0.25, decay_input=False, v_threshold=1.5
        ),
    }
    return (
        *(_sequence(name, neuron) for name, neuron in neurons.items()),
        _sequence("if, v_init -3, without bias", lambda _: IF(backend="torch", v_init=-3.0), bias=False),
        *_strict_ties(),
    )


def settle_weights(net: nn.Module, seed: int = 0, low: int = -40, high: int = 88) -> nn.Module:
    """Give every linear layer and convolution weights and biases that are multiples of 1/64; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            with torch.no_grad():
                part.weight.copy_(torch.randint(low, high, part.weight.shape, generator=generator) / SCALE)
                if part.bias is not None:
                    part.bias.copy_(torch.randint(8, 24, part.bias.shape, generator=generator) / SCALE)
    return net.eval()


def _settled(net: nn.Module) -> nn.Module:
    return settle_weights(net)


def _sequence(name: str, neuron: MakeNeuron, bias: bool = True, is_analog: bool = False) -> SmallNet:
    def make() -> nn.Module:
        return settle_weights(_linear_net(neuron, bias))

    return SmallNet(name, make, is_analog=is_analog)


def _linear_net(neuron: MakeNeuron, bias: bool = True) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        first=nn.Linear(NUM_INPUTS, NUM_HIDDEN, bias=bias),
        hidden=neuron(NUM_HIDDEN),
        second=nn.Linear(NUM_HIDDEN, NUM_OUTPUTS, bias=bias),
        output=neuron(NUM_OUTPUTS),
    )
    return nn.Sequential(parts)


def _cycle(values: Sequence[float], count: int) -> tuple[float, ...]:
    return tuple(itertools.islice(itertools.cycle(values), count))


def _trained(num_channels: int) -> nn.Module:
    neuron = LIF(backend="torch", tau=2.0, learnable=("tau",), v_threshold=0.375)
    with torch.no_grad():
        neuron.param_tau.fill_(4.0)  # type: ignore[operator]
    return neuron


def _trained_plif(num_channels: int) -> nn.Module:
    neuron = ParametricLIF(backend="torch", init_tau=2.0, v_threshold=0.375)
    with torch.no_grad():
        neuron.param_w.fill_(-1.0)  # type: ignore[operator]
    return neuron


def _ties() -> list[SmallNet]:
    """Sums land on the threshold again and again, and fire."""
    neurons: dict[str, MakeNeuron] = {
        "if": lambda _: IF(backend="torch"),
        "if, soft reset": lambda _: IF(backend="torch", reset="soft", v_threshold=1.75),
        "lif": lambda _: LIF(backend="torch", v_threshold=0.5, tau=2.0),
    }
    return [_tied(f"{name}, sums on the threshold", neuron) for name, neuron in neurons.items()]


def _strict_ties() -> list[SmallNet]:
    """Sums land on the threshold again and again, and do not fire."""
    neurons: dict[str, MakeNeuron] = {
        "if, fires above": lambda _: IF(backend="torch", fires="above"),
        "lif, fires above": lambda _: LIF(backend="torch", v_threshold=0.5, tau=2.0, fires="above"),
    }
    return [_tied(f"{name}, sums on the threshold", neuron) for name, neuron in neurons.items()]


def _tied(name: str, neuron: MakeNeuron) -> SmallNet:
    """Weights of 1/4 and spikes."""

    def make() -> nn.Module:
        net = settle_weights(_linear_net(neuron, bias=False))
        for part in net.modules():
            if isinstance(part, nn.Linear):
                with torch.no_grad():
                    part.weight.copy_((part.weight * 4).round() / 4)
        return net

    return SmallNet(name, make, has_ties=True)


def _lif() -> nn.Module:
    return LIF(backend="torch", tau=3.0, v_threshold=0.5)


class _Nested(nn.Module):
    """Containers in containers, one of them with a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Sequential(nn.Linear(NUM_INPUTS, NUM_HIDDEN), _lif()))
        self.head = nn.Sequential(nn.Linear(NUM_HIDDEN, NUM_OUTPUTS), _lif())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


class _Residual(nn.Module):
    """Not its parts one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden = nn.Linear(NUM_INPUTS, NUM_INPUTS), _lif()
        self.second, self.output = nn.Linear(NUM_INPUTS, NUM_OUTPUTS), _lif()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(self.second(self.hidden(self.first(x)) + x))
        return out


class _Twice(nn.Module):
    """The same synapses before and after a neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(NUM_INPUTS, NUM_INPUTS)
        self.hidden, self.output = _lif(), _lif()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(self.linear(self.hidden(self.linear(x))))
        return out


def _mlp() -> nn.Module:
    return settle_weights(create("model", "mlp", _lif, (NUM_INPUTS,), NUM_OUTPUTS, hidden=(NUM_HIDDEN, 6)))


def _convnet() -> nn.Module:
    """Its norms scale by powers of two, so that they fold into the weights exactly."""
    net: nn.Module = create("model", "convnet", _lif, (1, 4, 4), NUM_OUTPUTS, channels=(3, 4))
    for index, norm in enumerate(part for part in net.modules() if isinstance(part, nn.BatchNorm2d)):
        norm.eps = 0.0
        with torch.no_grad():
            norm.running_mean.fill_(0.25 * (index + 1))  # type: ignore[union-attr]
            norm.running_var.fill_(4.0)  # type: ignore[union-attr]
            norm.weight.fill_(2.0)
            norm.bias.fill_(-0.125)
    return settle_weights(net)
