"""Options with one value for each neuron of a step `[B, C, H, W]`, on backends that know numbers and `[C]`.

The step is given to them as `[B, N]`, N = C · H · W, where every neuron is a channel; a view, also of channels-last
steps, whose neurons then follow the order [H, W, C].
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from spikecore.backends.memory_format import is_channels_last


class Flattening:
    """Makes one axis of all axes after the batch, and the reverse.

    Args:
        step: what one step looks like, `[B, C, ...]`.
    """

    def __init__(self, step: Tensor) -> None:
        self.shape = tuple(step.shape[1:])
        self.is_channels_last = is_channels_last(step, 0)

    def flatten(self, tensor: Tensor) -> Tensor:
        """`[..., C, H, W]` → `[..., N]`."""
        rank = len(self.shape)
        if self.is_channels_last:
            tensor = tensor.movedim(-rank, -1)
        return tensor.flatten(-rank)

    def restore(self, tensor: Tensor) -> Tensor:
        """`[..., N]` → `[..., C, H, W]`, in the memory format of the step."""
        if not self.is_channels_last:
            return tensor.reshape(*tensor.shape[:-1], *self.shape)
        num_channels, *space = self.shape
        return tensor.reshape(*tensor.shape[:-1], *space, num_channels).movedim(-1, -len(self.shape))

    def flatten_option(self, value: Tensor) -> Tensor:
        """A number as it is; `[C]` or `[C, H, W]` → `[N]`."""
        if not value.dim():
            return value
        if value.dim() == 1:
            value = value.reshape(-1, *[1] * (len(self.shape) - 1)).expand(self.shape)
        return self.flatten(value)

    def restore_all(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every tensor restored."""
        return {name: self.restore(tensor) for name, tensor in tensors.items()}
