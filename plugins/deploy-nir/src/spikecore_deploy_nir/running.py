"""Runs a graph step by step, as a reader with its profile does: in its dtype, firing above the threshold only.

It shares no neuron with spikecore, so it can be compared with the net that was exported and the one that was imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spikecore.errors import ConversionError, ShapeError
from spikecore_deploy_nir.cells import Cell, cell_of
from spikecore_deploy_nir.graph import NEURONS, NirNode
from spikecore_deploy_nir.order import Loop, Ordered
from spikecore_deploy_nir.profiles import Doubles
from spikecore_deploy_nir.settings import Settings
from spikecore_deploy_nir.shapes import Shape, padding_of, pair, parameter

Step = Callable[[Tensor], Tensor]


def run_graph(graph: Ordered, settings: Settings, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Run `x` `[T, B, *shape]` through the graph.

    Returns:
        Its output, and operator of the net → what each neuron gives, `[T, B, ...]`; step t is the net's step t: the lag
        of a profile is taken out.

    Raises:
        ShapeError: the samples have another shape than the graph takes.
    """
    if x.dim() < 2 or tuple(x.shape[2:]) != graph.input_shape:
        raise ShapeError(f"the graph takes [T, B, *{graph.input_shape}], got {tuple(x.shape)}")
    runner = _Runner(graph, settings)
    steps, lag = x.shape[0], settings.profile.lag
    depth = max(graph.lags.values(), default=0) * lag
    # What a lag delays is still on its way when the input ends: silence follows, and is cut off again.
    padded = torch.cat([x.to(runner.dtype), x.new_zeros((depth, *x.shape[1:]), dtype=runner.dtype)])
    values: dict[str, Tensor] = {graph.input: padded}
    for name in graph.order:
        incoming = _summed([values[source] for source in graph.sources[name]])
        values[name] = runner.whole(name, incoming)

    def without_lag(name: str) -> Tensor:
        start = graph.lags.get(name, 0) * lag
        return values[name][start : start + steps].to(x.dtype)

    spikes: dict[str, Tensor] = {}
    for name in graph.order:
        if graph.nodes[name].type in NEURONS:
            out = without_lag(name)
            spikes[settings.names.get(name, name)] = out.flatten(2) if name in settings.flat else out
    return _summed([without_lag(source) for source in graph.sources[graph.output]]), spikes


def _summed(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


@dataclass
class _Runner:
    graph: Ordered
    settings: Settings

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.settings.dtype == "float64" else torch.float32

    def tensor(self, array: Doubles) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.dtype)

    def whole(self, name: str, x: Tensor) -> Tensor:
        """A node over all steps, `[T, B, ...]`."""
        node, shape = self.graph.nodes[name], self.graph.shapes_in[name]
        loop = self.graph.loops.get(name)
        if node.type in NEURONS:
            out = self.neuron(name, node, x, shape, loop)
            lag = self.settings.profile.lag
            return torch.cat([torch.zeros_like(out[:lag]), out[: len(out) - lag]]) if lag else out
        if node.type == "Delay":
            return self.delayed(name, node, x, shape)
        if node.type == "Scale":
            return x * self.tensor(parameter(name, node, "scale", shape))
        return self.layer(name, node, x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def layer(self, name: str, node: NirNode, x: Tensor) -> Tensor:
        """A node without time, `[N, ...]`."""
        if node.type == "Flatten":
            return x.flatten(1)
        if node.type in ("AvgPool2d", "SumPool2d"):
            kernel, stride, padding = (pair(name, node, key) for key in ("kernel_size", "stride", "padding"))
            divisor = 1 if node.type == "SumPool2d" else None
            return F.avg_pool2d(x, kernel, stride, padding, divisor_override=divisor)
        weight = self.tensor(node.array("weight"))
        bias = self.tensor(node.array("bias")) if "bias" in node.values else None
        if node.type in ("Affine", "Linear"):
            return F.linear(x, weight, bias)
        axes = weight.dim() - 2
        stride, dilation = pair(name, node, "stride", axes), pair(name, node, "dilation", axes)
        padding = padding_of(name, node, tuple(weight.shape[2:]), dilation, stride)
        convolve = F.conv1d if axes == 1 else F.conv2d
        groups = pair(name, node, "groups", 1)[0]
        return convolve(x, weight, bias, stride, padding, dilation, groups)

    def delayed(self, name: str, node: NirNode, x: Tensor, shape: Shape) -> Tensor:
        delays = np.broadcast_to(delay_steps(name, node, shape, self.settings), shape or (1,))
        out = torch.zeros_like(x)
        for delay in np.unique(delays).tolist():
            here = torch.from_numpy(np.array(delays == delay)).reshape(shape)
            shifted = torch.cat([torch.zeros_like(x[:delay]), x[: max(len(x) - delay, 0)]])[: len(x)]
            out = torch.where(here, shifted, out)
        return out

    def neuron(self, name: str, node: NirNode, x: Tensor, shape: Shape, loop: Loop | None) -> Tensor:
        cell = cell_of(name, node, shape, self.settings)
        step = _Step(self, cell, x[0] if len(x) else x.new_zeros(x.shape[1:]))
        outs, back = [], torch.zeros_like(step.v)
        for current in x:
            if loop is not None:
                fed = self.layer(loop.lateral, self.graph.nodes[loop.lateral], back) if loop.lateral else back
                current = current + fed
            back = step(current)
            outs.append(back)
        return torch.stack(outs) if outs else x


class _Step:
    """One neuron; keeps its state."""

    def __init__(self, runner: _Runner, cell: Cell, like: Tensor) -> None:
        self.cell, self.is_soft = cell, runner.settings.profile.reset == "soft"
        self.gain = runner.tensor(cell.gain)
        self.v_leak, self.v_reset = runner.tensor(cell.v_leak), runner.tensor(cell.v_reset)
        self.steps = None if cell.steps is None else runner.tensor(cell.steps)
        self.threshold = None if cell.v_threshold is None else runner.tensor(cell.v_threshold)
        self.left = None if cell.current_left is None else runner.tensor(cell.current_left)
        if cell.steps is not None:
            self.v_left = runner.tensor(1 - 1 / cell.steps)
            self.pull = runner.tensor(cell.v_leak / cell.steps)
        self.membrane_gain = runner.tensor(cell.membrane_gain)
        self.current = torch.zeros_like(like)
        self.v = torch.zeros_like(like) + self.v_leak

    def __call__(self, x: Tensor) -> Tensor:
        h = self._charged(x)
        if self.threshold is None:
            self.v = h
            return h
        fires = h > self.threshold
        spikes = fires.to(h.dtype)
        self.v = h - spikes * self.threshold if self.is_soft else torch.where(fires, self.v_reset, h)
        return spikes

    def _charged(self, x: Tensor) -> Tensor:
        if self.steps is None:
            return self.v + self.gain * x
        if self.left is not None:
            self.current = self.left * self.current + self.gain * x
            return self.v_left * self.v + self.membrane_gain * self.current + self.pull
        leak = self.v - self.v_leak
        if self.cell.is_scaled:
            return self.v + (x - leak) / self.steps
        return self.v - leak / self.steps + self.gain * x


MAX_DELAY = 65_536


def delay_steps(
    name: str, node: NirNode, shape: Shape, settings: Settings
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The delays of a node in steps.

    Raises:
        ConversionError: they are negative, too long, or no whole number of steps.
    """
    exact = parameter(name, node, "delay", shape) / settings.dt_s
    steps = np.rint(exact)
    if bool((np.abs(exact - steps) > 1e-6).any()) or bool((steps < 0).any()) or bool((steps > MAX_DELAY).any()):
        raise ConversionError(
            f"node {name!r}: delays of {float(exact.min()):g} to {float(exact.max()):g} steps of {settings.dt_s:g} s; "
            f"expected whole numbers from 0 to {MAX_DELAY}: set dt"
        )
    return steps.astype(np.int64)
