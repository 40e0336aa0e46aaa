"""Recurrent containers: a module whose output at one step is combined with its input at the next.

element-wise:   y[t] = module(combine(x[t], y[t-1]))
lateral:        y[t] = module(x[t] + W y[t-1])
linear:         y[t] = module(W [x[t], y[t-1]] + b)            y before the first step is 0

Because of the feedback, steps run one after the other in both step modes. In multi-step mode the inner module gets
sequences of one step, `[1, B, ...]`, and its state persists between them; in single-step mode it gets `[B, ...]`.
Records of neurons inside (`record=("v",)`) are joined over time: `recorded["v"]` is `[T, B, ...]`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dis import get_instructions
from functools import partial
from types import FunctionType

import torch
from torch import Tensor, nn

from spikecore.backends.memory_format import filled_like, one_step, stack_steps, unbind_steps
from spikecore.errors import OptionError, ShapeError
from spikecore.nn.state import Stateful, carried, check_step_mode, recording_steps, stateful


class Recurrent(Stateful):
    """Base of the containers: runs the loop; a subclass joins input and feedback in `join`.

    Args:
        module: the module inside the loop; it may contain neurons.
        step_mode: `multi` or `single`, of the container and of all modules inside.
    """

    def __init__(self, module: nn.Module, step_mode: str = "multi") -> None:
        super().__init__()
        check_step_mode(step_mode)
        self.module = module
        for part in self.modules():
            if hasattr(part, "step_mode"):
                setattr(part, "step_mode", step_mode)  # noqa: B010  (nn.Module's __setattr__ is typed for tensors)

    @property
    def state_names(self) -> tuple[str, ...]:
        """`y`, the output fed back."""
        return ("y",)

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        """The inner module's input, from the step's input and the output of the step before."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` or `[B, ...]` by `step_mode` → the sequence (or step) of `y`.

        Raises:
            ShapeError: the input's rank or features do not suit, or y has another shape than the feedback before it.
            StateShapeError: kept state belongs to another batch shape, device or dtype.
        """
        multi = self.step_mode == "multi"
        if x.dim() < 1 + multi:
            form = "[T, B, ...]" if multi else "[B, ...]"
            raise ShapeError(
                f"{type(self).__name__} in step_mode {self.step_mode!r} takes {form}, got {tuple(x.shape)}: add the "
                "missing axis with unsqueeze(0), or check set_step_mode(net, ...)"
            )
        sequence = x if multi else x.unsqueeze(0)
        y = self.state_for(one_step(sequence))["y"]
        outs: list[Tensor] = []
        # Inner states persist from step to step and are dropped after the call, unless the whole net streams.
        with (
            nullcontext() if self.keeps_state else carried(self.module),
            recording_steps(stateful(self.module).values()) if multi else nullcontext(),
        ):
            for current in unbind_steps(sequence):
                joined = self.join(current, y)
                out: Tensor = self.module(joined.unsqueeze(0)).squeeze(0) if multi else self.module(joined)
                if out.shape != y.shape:
                    raise ShapeError(
                        f"{type(self).__name__} feeds its output back: expected {tuple(y.shape)} from "
                        f"{type(self.module).__name__}, got {tuple(out.shape)}"
                    )
                y = out.to(x.dtype)
                outs.append(out)
        if not outs:
            result = x.new_empty((0, *y.shape))
        else:
            result = stack_steps(outs) if multi else outs[0]
        (result,) = self.keep({"y": y}, result)
        return result


class ElementwiseRecurrent(Recurrent):
    """y[t] = module(combine(x[t], y[t-1])); x and y have the same shape.

    Args:
        module: keeps the shape of its input.
        combine: a function of two tensors of one shape; `torch.add` by default.
        step_mode: `multi` or `single`.
    """

    def __init__(
        self,
        module: nn.Module,
        combine: Callable[[Tensor, Tensor], Tensor] = torch.add,
        step_mode: str = "multi",
    ) -> None:
        super().__init__(module, step_mode)
        hidden = [] if isinstance(combine, nn.Module) else _weights_inside(combine)
        if hidden:
            raise OptionError(
                f"combine is a function that uses a {type(hidden[0]).__name__}, whose weights would be no parameters "
                "of the net: use LateralRecurrent(module, W), or give combine as a module"
            )
        self.combine = combine

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`y` = 0, like one step's input."""
        return {"y": filled_like(x, 0.0, x.dtype)}

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        return self.combine(x, y)


def _weights_inside(function: Callable[..., Tensor]) -> list[nn.Module | nn.Parameter]:
    """What a function brings along that has weights: bound to it, among its arguments, or from where it was written."""
    values: list[object] = []
    if isinstance(function, partial):
        values += [*function.args, *function.keywords.values()]
        function = function.func
    values.append(getattr(function, "__self__", None))
    function = getattr(function, "__func__", function)
    values += getattr(function, "__defaults__", None) or ()
    values += (getattr(function, "__kwdefaults__", None) or {}).values()
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # a name that has no value yet
            values.append(cell.cell_contents)
    if isinstance(function, FunctionType):
        # At the top of a script, what a lambda uses is not in its closure: its code loads it by name.
        for instruction in get_instructions(function):
            if instruction.opname == "LOAD_GLOBAL":
                values.append(function.__globals__.get(instruction.argval))
    return [value for value in values if isinstance(value, nn.Module | nn.Parameter)]


class LateralRecurrent(Recurrent):
    """y[t] = module(x[t] + W y[t-1]): what fires in one step reaches the neurons of the same layer in the next.

    W is a parameter, `lateral.weight`; x and y have the same shape.

    Args:
        module: keeps the shape of its input; a neuron.
        lateral: W: the number of neurons N, for a `torch.nn.Linear` without bias on the last axis, that begins as
            torch's do; or a module that keeps the shape of a step (a convolution, say).
        step_mode: `multi` or `single`.

    Parity: snntorch's RLeaky with `leaky`, norse's LIFRecurrent with `CubaLIF`;
    tests/peers/test_leaky.py and test_conventions.py.
    """

    def __init__(self, module: nn.Module, lateral: int | nn.Module, step_mode: str = "multi") -> None:
        super().__init__(module, step_mode)
        self.lateral = nn.Linear(lateral, lateral, bias=False) if isinstance(lateral, int) else lateral

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`y` = 0, like one step's input."""
        return {"y": torch.zeros(x.shape, dtype=x.dtype, device=x.device)}

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        back: Tensor = self.lateral(y)
        if back.shape != x.shape:
            raise ShapeError(
                f"LateralRecurrent adds W y to its input: expected {tuple(x.shape)} from its lateral "
                f"{type(self.lateral).__name__}, got {tuple(back.shape)}"
            )
        return x + back


class LinearRecurrent(Recurrent):
    """y[t] = module(W [x[t], y[t-1]] + b).

    Args:
        module: maps `[B, ..., in_features]` to `[B, ..., out_features]`.
        in_features: of x, and of the module's input.
        out_features: of y.
        bias: whether to add b.
        step_mode: `multi` or `single`.
    """

    def __init__(
        self, module: nn.Module, in_features: int, out_features: int, bias: bool = True, step_mode: str = "multi"
    ) -> None:
        super().__init__(module, step_mode)
        self.linear = nn.Linear(in_features + out_features, in_features, bias)
        self.in_features, self.out_features = in_features, out_features

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`y` = 0, `[B, ..., out_features]`."""
        if x.shape[-1] != self.in_features:
            raise ShapeError(f"LinearRecurrent takes [..., {self.in_features}], got {tuple(x.shape)}")
        return {"y": torch.zeros((*x.shape[:-1], self.out_features), dtype=x.dtype, device=x.device)}

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        joined: Tensor = self.linear(torch.cat([x, y], -1))
        return joined
