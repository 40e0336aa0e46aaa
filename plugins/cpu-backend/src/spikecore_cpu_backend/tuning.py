"""Sizes of blocks, and when which way of storing pays: measured rules, see benchmarks/README.md."""

from __future__ import annotations

from functools import cache
from pathlib import Path

ALONE = 1 << 15
"""Element-steps below which one thread is faster than waking another."""
STREAM_BYTES = 4 << 20
"""Size of a result from which on streaming stores pay."""
LANES = 64
"""Blocks are multiples of this, so that rows of a block start on cache lines where the tensors do."""


@cache
def second_level_cache() -> int:
    """Bytes of a core's second-level cache; 1 MiB where the system does not say."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text.rstrip("KM")) * {"K": 1 << 10, "M": 1 << 20}[text[-1]]
    except (OSError, ValueError, KeyError):
        return 1 << 20


def forward_block(num_rows: int) -> int:
    """Lanes for one block of a forward pass whose step touches so many rows of scratch memory."""
    return 2048 if num_rows <= 4 else 1024


def backward_block(num_steps: int, num_states: int, real_bytes: int) -> tuple[int, int]:
    """`(lanes, steps)` of a block that runs its steps again: the states of so many steps lie in the second-level cache.

    They depend on the shape of the program and T alone: sums over blocks must not depend on threads.
    """
    budget = second_level_cache()
    per_lane = max(num_steps, 1) * max(num_states, 1) * real_bytes
    lanes = budget // per_lane // LANES * LANES
    return min(max(lanes, 256), 1024), max(num_steps, 1)
