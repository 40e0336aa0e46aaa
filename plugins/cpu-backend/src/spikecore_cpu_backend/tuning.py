"""Sizes of blocks, and when which way of storing pays: measured rules, see README.md."""

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


def forward_block(num_lanes: int, threads: int) -> int:
    """Lanes for one block of a forward pass: wide, for long runs of addresses, but two blocks for each thread."""
    return max(256, min(8192, num_lanes // (2 * threads) // LANES * LANES))


def backward_block(num_steps: int, num_lanes: int, num_states: int, real_bytes: int) -> tuple[int, int]:
    """`(lanes, steps)` of a block that runs its steps again from the states before them.

    The history of the states should lie in the second-level cache or not far beyond; one that is longer still is cut
    into segments, each run twice. All this depends on the shape of the call alone: sums over blocks must not depend on
    threads.
    """
    row = max(num_states, 1) * real_bytes
    cache = second_level_cache()
    lanes = 8192
    while lanes > 256 and (lanes * 4 > num_lanes or num_steps * lanes * row > 4 * cache):
        lanes //= 2
    if num_steps * lanes * row > 16 * cache:
        return lanes, max(1, cache // (lanes * row))
    return lanes, max(num_steps, 1)


def distance_pays(element_bytes: int, state_bytes: int) -> bool:
    """Is it better to keep u than x?

    It measured 10 to 30 % faster for a whole training step at every shape tried, in and beyond the caches, and takes no
    more memory, unless x has 16 bits.
    """
    return element_bytes >= state_bytes
