"""Values that checks share."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from spikecore.nn import get_state

EXAMPLES = settings(
    max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
"""For hypothesis: few, and the same ones every time, so that a plugin's tests do not change overnight."""


def distinct(values: Tensor) -> set[float]:
    """The different values in a tensor."""
    return {float(value) for value in torch.unique(values.detach())}


def states_of(net: nn.Module) -> dict[str, Tensor]:
    """`module.state` → kept state, of every module that keeps some."""
    kept = get_state(net).items()
    return {f"{module}.{name}".lstrip("."): value for module, own in kept for name, value in (own or {}).items()}
