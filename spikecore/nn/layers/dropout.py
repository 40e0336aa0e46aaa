"""Dropout whose mask is constant over time.

out[t] = x[t] * m / (1 - p),   m ~ Bernoulli(1 - p), drawn once per sequence

The following neurons would average out a new mask at every step; with a constant mask, a unit is absent for the whole
sequence. A multi-step call draws a new mask. In single-step mode and inside `streaming` the mask is state, and stays
until `reset_state`. In eval mode the input passes through.

Source: Lee et al., Enabling Spike-Based Backpropagation (Frontiers in Neuroscience 2020), 2.3.3.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from spikecore.backends.memory_format import formatted_like, one_step
from spikecore.errors import OptionError, ShapeError
from spikecore.nn.memory import Form
from spikecore.nn.state import Stateful, check_step_mode


class Dropout(Stateful):
    """Drops single elements with probability `p`; any trailing shape.

    Args:
        p: probability of dropping, 0 to 1.
        step_mode: `multi` or `single`.

    Raises:
        OptionError: `p` is outside 0 to 1, or `step_mode` is neither.
        ShapeError: the input's rank does not suit the step mode.
        StateShapeError: the kept mask belongs to another batch shape, device or dtype.
    """

    num_spatial: ClassVar[int | None] = None
    """Spatial axes after `[B, C]` that share one mask value; None: every element has its own."""

    def __init__(self, p: float = 0.5, step_mode: str = "multi") -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise OptionError(f"{type(self).__name__}: p must be >= 0 and <= 1, got {p!r}")
        check_step_mode(step_mode)
        self.p = p
        self.step_mode = step_mode

    def _mask_shape(self, x: Tensor) -> tuple[int, ...]:
        if self.num_spatial is None:
            return tuple(x.shape)
        return (*x.shape[:2], *[1] * self.num_spatial)

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """A new mask, scaled by 1 / (1 - p), for single-step inputs like `x` `[B, ...]`; ones in eval mode."""
        mask = torch.ones(self._mask_shape(x), dtype=x.dtype, device=x.device)
        if not self.training:
            return {"mask": mask}
        kept_share = 1.0 - self.p
        if kept_share:
            mask = mask.bernoulli_(kept_share) / kept_share
        else:
            mask = torch.zeros_like(mask)  # nothing is kept, and 0 / 0 would be NaN
        # Drawn in the order of the axes, so that a seed gives the same mask in every memory format.
        return {"mask": formatted_like(mask, x, 0)}

    def state_forms(self, x: Tensor) -> dict[str, Form]:
        """The mask's shape, device and dtype, without drawing random numbers."""
        return {"mask": (self._mask_shape(x), x.device, x.dtype)}

    @property
    def state_names(self) -> tuple[str, ...]:
        """`mask`."""
        return ("mask",)

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` or `[B, ...]` by `step_mode`; the output has the input's shape and dtype."""
        multi = self.step_mode == "multi"
        rank = None if self.num_spatial is None else 2 + self.num_spatial + multi
        if x.dim() < 1 + multi or (rank is not None and x.dim() != rank):
            form = "[T, B, ...]" if multi else "[B, ...]"
            wanted = "" if rank is None else f" with {rank} axes"
            raise ShapeError(
                f"{type(self).__name__} in step_mode {self.step_mode!r} takes {form}{wanted}, got {tuple(x.shape)}: "
                "check set_step_mode(net, ...) and the layer's number of dimensions"
            )
        step = one_step(x) if multi else x
        if not self.training:
            self.pass_by(step)
            return x
        state = self.state_for(step)
        self.keep(state)
        return x * state["mask"]

    def extra_repr(self) -> str:
        mode = "" if self.step_mode == "multi" else f", step_mode={self.step_mode!r}"
        return f"p={self.p}{mode}"


class Dropout1d(Dropout):
    """Drops whole channels of `[T, B, C, L]`."""

    num_spatial = 1


class Dropout2d(Dropout):
    """Drops whole channels of `[T, B, C, H, W]`."""

    num_spatial = 2


class Dropout3d(Dropout):
    """Drops whole channels of `[T, B, C, D, H, W]`."""

    num_spatial = 3
