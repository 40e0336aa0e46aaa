"""Modules for what a file may hold and core has no layer for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import OptionError, ShapeError


class Scale(torch.nn.Module):
    """y = scale · x, elementwise; `scale` has the shape of a step without the batch, and is learnable."""

    is_one_node = True

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., *shape]` → the same."""
        return x * self.scale


class Delay(nn.Stateful):
    """y[t] = x[t - d], 0 for the first d steps; every place of a step has its own d.

    Args:
        num_steps: d, whole numbers from 0, of the shape of a step without the batch, or one number.

    Raises:
        OptionError: a delay is negative.
        ShapeError: the input has another shape than the delays.
    """

    num_steps: Tensor

    def __init__(self, num_steps: int | Tensor, step_mode: str = "multi") -> None:
        super().__init__()
        nn.set_step_mode(self, step_mode)
        steps = torch.as_tensor(num_steps, dtype=torch.long)
        if bool((steps < 0).any()):
            raise OptionError(f"Delay: delays are whole numbers from 0, got {int(steps.min())}")
        self.register_buffer("num_steps", steps)
        self.longest = int(steps.max()) if steps.numel() else 0
        self.lengths = sorted({int(step) for step in steps.flatten().tolist()})

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`queue` `[longest d, B, ...]`: the last inputs, 0 at first."""
        return {"queue": torch.zeros((self.longest, *x.shape), dtype=x.dtype, device=x.device)}

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, *shape]` or `[B, *shape]` by `step_mode` → the same shape."""
        multi = self.step_mode == "multi"
        sequence = x if multi else x.unsqueeze(0)
        if self.num_steps.dim() and tuple(sequence.shape[2:]) != tuple(self.num_steps.shape):
            raise ShapeError(f"Delay: expected steps of {tuple(self.num_steps.shape)}, got {tuple(sequence.shape[2:])}")
        queue = self.state_for(sequence.new_empty(()).expand(sequence.shape[1:]))["queue"]
        whole = torch.cat([queue, sequence])
        count = len(sequence)
        out = torch.zeros_like(sequence)
        for length in self.lengths:
            start = self.longest - length
            out = torch.where(self.num_steps == length, whole[start : start + count], out)
        (out,) = self.keep({"queue": whole[count:]}, out)
        return out if multi else out[0]


class PerNeuron(torch.nn.Module):
    """A neuron with options of its own for each place of a step: the axes after the batch become one, and come back.

    Args:
        neuron: with one value for each place, in the order of the flattened step.
    """

    is_one_node = True

    def __init__(self, neuron: nn.Neuron) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` or `[B, ...]` by the neuron's step mode → the same shape."""
        lead = 2 if self.neuron.step_mode == "multi" else 1
        out: Tensor = self.neuron(x.flatten(lead))
        return out.reshape(x.shape)


class NirNet(torch.nn.Module):
    """The net of a file: its modules in the order of the graph, what several edges bring is summed.

    Args:
        modules: path of the module → module; dots in a path make nested modules.
        sources: path → the paths that it takes; "input" is the input.
        output: the paths whose sum the net returns.
    """

    def __init__(
        self, modules: Mapping[str, torch.nn.Module], sources: Mapping[str, Sequence[str]], output: Sequence[str]
    ) -> None:
        super().__init__()
        for path, module in modules.items():
            parent: torch.nn.Module = self
            *outer, last = path.split(".")
            for name in outer:
                if name not in dict(parent.named_children()):
                    parent.add_module(name, torch.nn.Module())
                parent = parent.get_submodule(name)
            parent.add_module(last, module)
        self._sources = {path: tuple(sources[path]) for path in modules}
        self._output = tuple(output)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` → `[T, B, ...]`."""
        values = {INPUT_PATH: x}
        for path, taken in self._sources.items():
            values[path] = self.get_submodule(path)(_summed([values[source] for source in taken]))
        return _summed([values[source] for source in self._output])


INPUT_PATH = ""
"""What the input is called among the paths of modules."""


def _summed(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
