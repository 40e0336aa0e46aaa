"""`CountsSteps`: the base of layers that do something else at every step, and so know where in a sequence they are."""

from __future__ import annotations

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import OptionError, ShapeError


class CountsSteps(nn.Stateful):
    """Knows the step, 0 .. T - 1; in single-step mode and inside `streaming` it is state.

    Args:
        num_steps: T, the only length of a sequence that the layer takes.
        step_mode: `multi` or `single`.

    Raises:
        OptionError: `num_steps` is not a whole number of at least 1.
    """

    def __init__(self, num_steps: int, step_mode: str = "multi") -> None:
        super().__init__()
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
            raise OptionError(f"{type(self).__name__}: num_steps must be a whole number >= 1, got {num_steps!r}")
        nn.set_step_mode(self, step_mode)
        self.num_steps = num_steps

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`t` = 0, the next step; on the CPU, since Python reads it."""
        return {"t": torch.zeros((), dtype=torch.float64)}

    def steps_of(self, x: Tensor) -> range:
        """The steps that `x` stands for; the state moves on by as many.

        Raises:
            ShapeError: there would be more than T; in multi-step mode outside `streaming`, other than T.
        """
        count = len(x) if self.step_mode == "multi" else 1
        start = int(self.state_for(x)["t"])
        if start + count > self.num_steps or (not self.keeps_state and count != self.num_steps):
            cure = "reset_state(net) starts a new sequence" if start else "make the layer with that num_steps"
            raise ShapeError(
                f"{type(self).__name__} is made for num_steps={self.num_steps}, got {count} after {start}: {cure}"
            )
        self.keep({"t": torch.tensor(start + count, dtype=torch.float64)})
        return range(start, start + count)


def check_rank(layer: nn.Stateful, x: Tensor, least: int) -> None:
    """Raises `ShapeError` unless `x` has the axes of its step mode and at least `least` of a single step."""
    multi = layer.step_mode == "multi"
    if x.dim() < least + multi:
        form = "[T, B, ...]" if multi else "[B, ...]"
        raise ShapeError(
            f"{type(layer).__name__} in step_mode {layer.step_mode!r} takes {form}, got {tuple(x.shape)}: "
            "check set_step_mode(net, ...)"
        )
