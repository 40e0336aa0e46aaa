"""Whole layers: how much of a neuron's speed remains beside a matrix product or a convolution.

    linear   Linear(512, 512) → LIF, T = 500, B = 16                                     forward+backward
    conv     (conv 3×3 → batch norm → LIF → max pool 2×2) twice, linear → LIF → linear,
             32 channels, 128 hidden, T = 8, B = 32, images 1×28×28                      training step (SGD)
    direct   the same net of our blocks, on images that are the same at every step       training step (SGD)

Every candidate gets the same weights and input: our net on each backend, and as a peer spikingjelly's layers and
LIFNode in multi-step mode. The bound is the same net without neurons (identity), which no neuron can beat; not for
`direct`, where our layers run once for all steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.bench.candidates import Unsupported
from spikecore.bench.gate import RELATIVE, Verdict
from spikecore.errors import BackendError
from spikecore.nn import ConvBNNeuron
from spikecore.registry import create

BOUND = "no neurons"
PEER = "spikingjelly"
PEER_RELATIVE = 1e-3
HIDDEN, CHANNELS, CLASSES = 128, 32, 10
Step = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Net:
    """One net to train.

    Args:
        measure: what is timed.
        shape: of the input, T first.
        build: `(layers, make_neuron) -> nn.Module`; `layers` has Linear, Conv2d, ... that take `[T, B, ...]`.
        has_labels: the loss is a cross-entropy and an optimizer steps; else the output's gradient is given.
        is_direct: the input is the same at every step.
        build_own: the same for ours, where it differs.
    """

    measure: str
    shape: tuple[int, ...]
    build: Callable[[Any, Callable[[], nn.Module]], nn.Module]
    has_labels: bool
    is_direct: bool = False
    build_own: Callable[[Any, Callable[[], nn.Module]], nn.Module] | None = None


def _linear(layers: Any, make_neuron: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(layers.Linear(512, 512), make_neuron())


def _conv(layers: Any, make_neuron: Callable[[], nn.Module]) -> nn.Module:
    def block(before: int) -> list[nn.Module]:
        convolution = layers.Conv2d(before, CHANNELS, 3, padding=1, bias=False)
        return [convolution, layers.BatchNorm2d(CHANNELS), make_neuron(), layers.MaxPool2d(2)]

    return nn.Sequential(*block(1), *block(CHANNELS), *_head(layers, make_neuron))


def _blocks(layers: Any, make_neuron: Callable[[], nn.Module]) -> nn.Module:
    def block(before: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, CHANNELS, 3, padding=1, bias=False)
        return [ConvBNNeuron(convolution, nn.BatchNorm2d(CHANNELS), make_neuron()), layers.MaxPool2d(2)]

    return nn.Sequential(*block(1), *block(CHANNELS), *_head(layers, make_neuron))


def _head(layers: Any, make_neuron: Callable[[], nn.Module]) -> list[nn.Module]:
    hidden = layers.Linear(CHANNELS * 7 * 7, HIDDEN)
    return [nn.Flatten(2), hidden, make_neuron(), layers.Linear(HIDDEN, CLASSES)]


NETS = {
    "linear": Net("forward+backward", (500, 16, 512), _linear, has_labels=False),
    "conv": Net("training step", (8, 32, 1, 28, 28), _conv, has_labels=True),
    "direct": Net("training step", (8, 32, 1, 28, 28), _conv, has_labels=True, is_direct=True, build_own=_blocks),
}


def tiny(name: str) -> tuple[int, ...]:
    """The shape of a net's input with two steps of two samples."""
    return (2, 2, *NETS[name].shape[2:])


def step_of(name: str, candidate: str, device: str = "cpu", shape: tuple[int, ...] | None = None) -> Step:
    """One step of a net.

    Args:
        name: in `NETS`.
        candidate: a backend, `no neurons` or `spikingjelly`.
        device: where.
        shape: of the input; by default the net's own.

    Returns:
        The step; it returns its loss (without labels: the mean of the output) and all gradients.
    """
    net = NETS[name]
    shape = shape or net.shape
    torch.manual_seed(0)
    model, reset = _model(net, candidate)
    model = model.to(device)
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(shape[1:] if net.is_direct else shape, generator=generator)
    if net.is_direct:
        x = x.expand(shape)
    make_step = _training_step if net.has_labels else _two_passes
    return make_step(model, reset, x.to(device), generator)


def _two_passes(model: nn.Module, reset: Callable[[], object], x: Tensor, generator: torch.Generator) -> Step:
    wanted = [x.requires_grad_(), *model.parameters()]
    grad = torch.randn(x.shape, generator=generator).to(x.device)

    def passes() -> list[Tensor]:
        reset()
        out = model(x)
        return [out.detach().mean(), *torch.autograd.grad(out, wanted, grad)]

    return passes


def _training_step(model: nn.Module, reset: Callable[[], object], x: Tensor, generator: torch.Generator) -> Step:
    labels = torch.randint(CLASSES, x.shape[1:2], generator=generator).to(x.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> list[Tensor]:
        reset()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x).mean(0), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return [loss.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]

    return step


def _model(net: Net, candidate: str) -> tuple[nn.Module, Callable[[], object]]:
    """The net with its neurons, and what must be called before each sequence."""
    if candidate == PEER:
        parts = ("functional", "layer", "neuron", "surrogate")
        functional, layer, neuron, surrogate = (import_module(f"spikingjelly.activation_based.{p}") for p in parts)

        def node() -> nn.Module:
            made: nn.Module = neuron.LIFNode(
                tau=2.0, surrogate_function=surrogate.ATan(alpha=2.0), detach_reset=True, step_mode="m"
            )
            return made

        model = net.build(layer, node)
        functional.set_step_mode(model, "m")
        return model, lambda: functional.reset_net(model)
    from spikecore.nn import layers

    if candidate == BOUND:
        return net.build(layers, nn.Identity), lambda: None
    build = net.build_own or net.build
    return build(layers, lambda: create("neuron", "lif", backend=candidate, detach_reset=True)), lambda: None


def gate(name: str, candidate: str, reference: str, device: str) -> Verdict:
    """Compare one step of a candidate with one of the reference: loss and gradients.

    Raises:
        Unsupported: the backend does not take this net's neurons here.
    """
    if candidate == reference:
        return Verdict(True, "is the reference")
    limit = PEER_RELATIVE if candidate == PEER else RELATIVE
    try:
        want, got = (step_of(name, who, device)() for who in (reference, candidate))
    except BackendError as error:
        raise Unsupported(str(error)) from error
    except Exception as error:
        return Verdict(False, f"{type(error).__name__}: {error}")
    if len(want) != len(got):
        return Verdict(False, f"{len(got) - 1} gradients, expected {len(want) - 1}")
    for index, (value, other) in enumerate(zip(got, want, strict=True)):
        distance = float((value - other).norm() / other.norm().clamp_min(1e-12))
        if not distance <= limit:
            return Verdict(False, f"{f'gradient {index}' if index else 'loss'} differs from eager by {distance:.1e}")
    return Verdict(True, "loss and gradients as eager")
