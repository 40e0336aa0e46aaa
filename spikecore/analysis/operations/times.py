"""How long each layer takes, with the backends that run it."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.analysis.recording import neuron_layers
from spikecore.errors import OptionError
from spikecore.nn.layers.fold import FoldsTime
from spikecore.nn.state import reset_state


def time_layers(net: nn.Module, x: Tensor, num_calls: int = 5) -> dict[str, float]:
    """Seconds of each layer for one sample: the median of several calls, in evaluation mode, without gradient.

    A layer is a neuron, a block, a layer that folds time, or a module without modules inside. The device is waited for
    before and after each, so the sum may be more than the time of the net.

    Args:
        net: takes x; a copy of it runs.
        x: `[T, B, ...]`.
        num_calls: after one that is not counted.

    Returns:
        Name of a layer → seconds, for layers that were called.

    Raises:
        OptionError: no call, or no sample.
    """
    if num_calls < 1 or x.dim() < 2 or not x.shape[1]:
        raise OptionError(f"time_layers takes x [T, B, ...] and at least one call, got {tuple(x.shape)}, {num_calls}")
    twin = copy.deepcopy(net).eval()
    reset_state(twin)
    clock = _Clock(x.device)
    for name, layer in _outermost(twin).items():
        layer.register_forward_pre_hook(clock.starts(name))
        layer.register_forward_hook(clock.ends(name))
    calls: list[dict[str, float]] = []
    with torch.no_grad():
        for _ in range(num_calls + 1):
            clock.total = {}
            _run(twin, x)
            calls.append(clock.total)
    names = calls[0]
    return {name: statistics.median(call[name] for call in calls[1:]) / x.shape[1] for name in names}


def _run(net: nn.Module, x: Tensor) -> None:
    if any(getattr(part, "step_mode", "multi") == "single" for part in net.modules()):
        reset_state(net)
        for current in x:
            net(current)
    else:
        net(x)


def _outermost(net: nn.Module) -> dict[str, nn.Module]:
    neurons = neuron_layers(net)
    layers: dict[str, nn.Module] = {}
    for name, module in net.named_modules():
        is_layer = name in neurons or isinstance(module, FoldsTime) or not list(module.children())
        # The name of the net itself is empty: everything is inside it.
        is_inside_one = any(name.startswith(f"{outer}.") or not outer for outer in layers)
        if is_layer and not is_inside_one:
            layers[name] = module
    return layers


class _Clock:
    def __init__(self, device: torch.device) -> None:
        self.device, self.total = device, dict[str, float]()
        self._started: dict[str, float] = {}

    def starts(self, name: str) -> Callable[..., None]:
        def start(module: nn.Module, args: Any) -> None:
            self._wait()
            self._started[name] = time.perf_counter()

        return start

    def ends(self, name: str) -> Callable[..., None]:
        def end(module: nn.Module, args: Any, out: Any) -> None:
            self._wait()
            self.total[name] = self.total.get(name, 0.0) + time.perf_counter() - self._started[name]

        return end

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
