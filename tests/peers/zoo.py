"""Whole nets of ours and of spikingjelly with the same weights: outputs and every spike.

Its zoo imports torchvision and h5py for downloads only, so `their_models` puts empty modules in their place.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor

from spikecore import nn
from tests.peers.compare import assert_near, require

DOWNLOADERS = ("torchvision", "torchvision.models", "torchvision.models.utils", "torchvision.datasets", "h5py")
TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-3


class _Empty(ModuleType):
    """A module that has every name: a function that raises when it is called."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError(f"{self.__name__}.{name} is not installed here")

        return refuse


@contextmanager
def _without_downloads() -> Iterator[None]:
    missing = {name: _Empty(name) for name in DOWNLOADERS if name not in sys.modules}
    with mock.patch.dict(sys.modules, missing):
        yield


def their_models(name: str) -> ModuleType:
    """One module of spikingjelly's zoo."""
    require("spikingjelly.activation_based")
    with _without_downloads():
        return importlib.import_module(f"spikingjelly.activation_based.model.{name}")


def settle_quickly(*nets: torch.nn.Module) -> None:
    """Norms whose running statistics follow one batch, so that no layer is silent in eval mode after it."""
    for net in nets:
        for part in net.modules():
            if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                part.momentum = 0.9


def spikes_of(net: torch.nn.Module, kinds: tuple[type, ...], run: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The net's output, and the spikes of every neuron layer in the order of the calls."""
    spikes: list[Tensor] = []
    neurons = [part for part in net.modules() if isinstance(part, kinds)]
    hooks = [part.register_forward_hook(lambda _, __, out: spikes.append(out.detach())) for part in neurons]
    out = run()
    for hook in hooks:
        hook.remove()
    assert len(spikes) == len(neurons) > 0
    return out, spikes


def assert_equal_nets(
    ours: nn.Model, theirs: torch.nn.Module, x: Tensor, their_neurons: tuple[type, ...], gradients: bool = True
) -> None:
    """Train mode, then eval mode with the running statistics of the first: equal outputs, every spike, gradients.

    Args:
        ours: in multi-step mode, like `theirs`, whose weights it has.
        theirs: of spikingjelly.
        x: `[T, B, C, H, W]`.
        their_neurons: classes of their neurons.
        gradients: compare those of the parameters; not where weights are converted, not only renamed.
    """
    functional = require("spikingjelly.activation_based.functional")
    for training in (True, False):
        ours.train(training)
        theirs.train(training)
        out, spikes = spikes_of(ours, (nn.Neuron,), lambda: ours(x))
        their_out, their_spikes = spikes_of(theirs, their_neurons, lambda: theirs(x))
        functional.reset_net(theirs)
        rates = [spike.mean().item() for spike in spikes]
        assert min(rates) > 0.005, f"training={training}: a layer is silent, nothing is compared: {rates}"
        assert len(spikes) == len(their_spikes)
        for index, (spike, their_spike) in enumerate(zip(spikes, their_spikes, strict=True)):
            different = (spike != their_spike.reshape(spike.shape)).sum().item()  # theirs may have an axis of heads
            assert not different, f"training={training}: {different} of {spike.numel()} spikes differ in layer {index}"
        assert_near(out, their_out, TOLERANCE)
        if training and gradients:
            _assert_equal_gradients(ours, theirs, out, their_out)


def _assert_equal_gradients(ours: nn.Model, theirs: torch.nn.Module, out: Tensor, their_out: Tensor) -> None:
    """Of every parameter, for a random sum of the outputs."""
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    (out * weight).sum().backward()  # type: ignore[no-untyped-call]
    (their_out * weight).sum().backward()  # type: ignore[no-untyped-call]
    their_gradients = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    renamed = ours.import_weights("spikingjelly", their_gradients)
    zero = []
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        if parameter.grad.any():
            assert_near(parameter.grad, renamed[name], GRADIENT_TOLERANCE)
        else:
            assert not renamed[name].any(), f"the gradient of {name} is zero, theirs is not"
            zero.append(name)
    assert len(zero) < 0.1 * len(renamed), f"too many gradients are zero: {zero}"
