"""A graph → a net of core's neurons and torch's layers, which can be trained and exported again."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch

from spikecore import nn
from spikecore.errors import ConversionError, OptionError
from spikecore_deploy_nir.cells import Cell, cell_of
from spikecore_deploy_nir.graph import NEURONS, NirNode
from spikecore_deploy_nir.modules import INPUT_PATH, Delay, NirNet, PerNeuron, Scale
from spikecore_deploy_nir.order import Ordered
from spikecore_deploy_nir.profiles import Doubles, next_above
from spikecore_deploy_nir.running import delay_steps
from spikecore_deploy_nir.settings import Settings
from spikecore_deploy_nir.shapes import Shape, padding_of, pair, parameter


def imported(graph: Ordered, settings: Settings) -> torch.nn.Module:
    """The net that computes what the graph computes under these settings.

    Raises:
        ConversionError: it holds something that no net of ours computes.
    """
    if settings.profile.lag:
        _check_lags(graph)
    paths = _paths(graph, settings)
    modules: dict[str, torch.nn.Module] = {}
    for name in graph.order:
        try:
            modules[paths[name]] = _Importer(graph, settings).module(name)
        except OptionError as error:
            raise ConversionError(f"node {name!r}: {error}") from error
    sources = {paths[name]: [paths.get(source, INPUT_PATH) for source in graph.sources[name]] for name in graph.order}
    output = [paths.get(source, INPUT_PATH) for source in graph.sources[graph.output]]
    return NirNet(modules, sources, output).eval()


def _check_lags(graph: Ordered) -> None:
    """A lag can be taken out of a net where spikes are all that arrives behind the first neurons."""
    for name in (*graph.order, graph.output):
        ways = {graph.lags[source] for source in graph.sources[name]}
        bias = graph.nodes[name].values.get("bias", np.zeros(1))
        if len(ways) > 1 or (max(ways) and not isinstance(bias, str) and np.any(bias)):
            raise ConversionError(
                f"node {name!r}: in profile 'late' its inputs arrive at different steps, or its bias before them; only "
                "a reader with that lag computes the same"
            )


def _paths(graph: Ordered, settings: Settings) -> dict[str, str]:
    """Node → path of its module: the name that it had in the net that was exported, where there was one."""
    paths: dict[str, str] = {}
    taken: set[str] = set()
    for name in graph.order:
        wanted = settings.names.get(name, name)
        if name in graph.loops:
            wanted = wanted.removesuffix(".module")
        if name in settings.flat:
            wanted = wanted.removesuffix(".neuron")
        path = ".".join(_attribute(part) for part in wanted.split("."))
        while path in taken or any(_is_inside(path, other) or _is_inside(other, path) for other in taken):
            path += "_"
        taken.add(path)
        paths[name] = path
    return paths


def _attribute(part: str) -> str:
    plain = re.sub(r"\W", "_", part, flags=re.ASCII) or "node"
    return f"{plain}_" if hasattr(torch.nn.Module(), plain) or plain.startswith("_") else plain


def _is_inside(path: str, other: str) -> bool:
    return path.startswith(f"{other}.")


class _Importer:
    def __init__(self, graph: Ordered, settings: Settings) -> None:
        self.graph, self.settings = graph, settings
        self.dtype = torch.float64 if settings.dtype == "float64" else torch.float32

    def tensor(self, array: Doubles) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(self.dtype)

    def module(self, name: str) -> torch.nn.Module:
        node, shape = self.graph.nodes[name], self.graph.shapes_in[name]
        if node.type in NEURONS:
            return self.neuron(name, node, shape)
        if node.type == "Delay":
            steps = np.array(np.broadcast_to(delay_steps(name, node, shape, self.settings), shape))
            return Delay(torch.from_numpy(steps))
        if node.type == "Scale":
            return Scale(self.tensor(np.broadcast_to(parameter(name, node, "scale", shape), shape)))
        if node.type == "Flatten":
            return nn.Flatten()
        if node.type in ("Affine", "Linear"):
            return self.linear(node, nn.Linear)
        if node.type in ("AvgPool2d", "SumPool2d"):
            kernel, stride, padding = (_two(pair(name, node, key)) for key in ("kernel_size", "stride", "padding"))
            return (nn.AvgPool2d if node.type == "AvgPool2d" else nn.SumPool2d)(kernel, stride, padding)
        return self.convolution(name, node)

    def linear(self, node: NirNode, kind: type[torch.nn.Linear]) -> torch.nn.Module:
        outputs, inputs = node.array("weight").shape
        return self.filled(kind(inputs, outputs, bias="bias" in node.values), node)

    def filled(self, layer: torch.nn.Module, node: NirNode) -> torch.nn.Module:
        for key in ("weight", "bias"):
            if key in node.values:
                layer.register_parameter(key, torch.nn.Parameter(self.tensor(node.array(key))))
        return layer

    def convolution(self, name: str, node: NirNode) -> torch.nn.Module:
        shape = node.array("weight").shape
        axes, groups = len(shape) - 2, pair(name, node, "groups", 1)[0]
        stride, dilation = pair(name, node, "stride", axes), pair(name, node, "dilation", axes)
        padding = padding_of(name, node, shape[2:], dilation, stride)
        kind = nn.Conv1d if axes == 1 else nn.Conv2d
        sizes = (shape[1] * groups, shape[0], shape[2:], stride, padding, dilation, groups)
        return self.filled(kind(*sizes), node)

    def neuron(self, name: str, node: NirNode, shape: Shape) -> torch.nn.Module:
        cell = cell_of(name, node, shape, self.settings)
        neuron, gain = self.made(name, cell, shape)
        loop = self.graph.loops.get(name)
        if loop is not None:
            if gain is not None:
                raise ConversionError(
                    f"node {name!r} scales the sum of its input and of what it feeds back; only input that is taken as "
                    "it is, or divided by the time constant, is supported in a loop"
                )
            if not loop.lateral:
                return nn.ElementwiseRecurrent(neuron)
            # torch's own: a loop calls it step by step, without T.
            lateral = self.linear(self.graph.nodes[loop.lateral], torch.nn.Linear)
            return nn.LateralRecurrent(neuron, lateral)
        return neuron if gain is None else torch.nn.Sequential(Scale(self.tensor(np.broadcast_to(gain, shape))), neuron)

    def made(self, name: str, cell: Cell, shape: Shape) -> tuple[torch.nn.Module, Doubles | None]:
        """The neuron, and what its input must be multiplied by before; None for 1."""
        gain = cell.gain * cell.membrane_gain
        scale = None if cell.is_scaled or bool((gain == 1).all()) else gain
        if cell.type == "I":
            return nn.NonSpikingIF(), scale
        if cell.type in ("LI", "CubaLI"):
            return self.integrator(name, cell, shape), scale
        options: dict[str, Doubles | str | bool] = {"reset": self.settings.profile.reset, "v_reset": cell.v_reset}
        assert cell.v_threshold is not None
        fires_at = name in self.settings.fires_at
        options["fires"] = "at" if fires_at else "above"
        threshold = cell.v_threshold
        if fires_at:
            threshold = np.vectorize(lambda value: next_above(value, self.settings.dtype), otypes=[float])(threshold)
        options["v_threshold"] = threshold
        if cell.type == "IF":
            return self.shaped(nn.IF, {**options, "v_init": np.zeros(())}, shape), scale
        assert cell.steps is not None
        if cell.type == "LIF":
            options |= {"tau": cell.steps, "decay_input": cell.is_scaled, "v_leak": cell.v_leak, "v_init": cell.v_leak}
            return self.shaped(nn.LIF, options, shape), scale
        assert cell.current_left is not None
        if self.settings.profile.reset == "soft" and cell.v_leak.any():
            raise ConversionError(f"node {name!r}: v_leak with a soft reset is not supported in a CubaLIF")
        # v - v_leak instead of v: it leaks to 0, as ours does.
        options["v_threshold"] = threshold - cell.v_leak
        options["v_reset"] = cell.v_reset - cell.v_leak
        options |= {"c_decay": cell.current_left, "v_decay": 1 - 1 / cell.steps, "v_init": np.zeros(())}
        return self.shaped(nn.CubaLIF, options, shape), scale

    def integrator(self, name: str, cell: Cell, shape: Shape) -> torch.nn.Module:
        if cell.v_leak.any():
            raise ConversionError(f"node {name!r}: a {cell.type} with v_leak other than 0 is not supported")
        assert cell.steps is not None
        membrane = self.leaky(cell.steps, cell.is_scaled, shape)
        if cell.current_left is None:
            return membrane
        return torch.nn.Sequential(self.leaky(1 / (1 - cell.current_left), False, shape), membrane)

    def leaky(self, steps: Doubles, is_scaled: bool, shape: Shape) -> torch.nn.Module:
        if bool((steps == 1).all()):
            return torch.nn.Identity()
        return self.shaped(nn.LI, {"tau": steps, "decay_input": is_scaled}, shape)

    def shaped(self, kind: type, options: Mapping[str, Doubles | str | bool], shape: Shape) -> torch.nn.Module:
        """A neuron with one value for all, for each channel, or for each place, as the arrays need it."""
        arrays = {key: np.broadcast_to(part, shape) for key, part in options.items() if isinstance(part, np.ndarray)}
        others = {key: part for key, part in options.items() if not isinstance(part, np.ndarray)}
        axes = max(_needed_axes(array) for array in arrays.values())
        values: dict[str, object] = {}
        for key, array in arrays.items():
            if _needed_axes(array) == 0:
                values[key] = float(array.flat[0]) if array.size else float(np.asarray(options[key]).flat[0])
            elif axes == 1:
                values[key] = tuple(array.reshape(shape[0], -1)[:, 0].tolist())
            else:
                values[key] = tuple(array.reshape(-1).tolist())
        neuron = kind(**values, **others)
        return neuron if axes < 2 else PerNeuron(neuron)


def _needed_axes(array: Doubles) -> int:
    """0: one number; 1: one per channel; 2: one per place."""
    if array.size == 0 or bool((array == array.flat[0]).all()):
        return 0
    rows = array.reshape(array.shape[0], -1)
    return 1 if bool((rows == rows[:, :1]).all()) else 2


def _two(numbers: tuple[int, ...]) -> tuple[int, int]:
    return numbers[0], numbers[1]
