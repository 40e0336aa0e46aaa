"""Sizes of blocks, and when which way of storing pays: measured rules, see README.md."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

ALONE = 1 << 15
"""Element-steps below which one thread is faster than waking another."""
INFERENCE, TRAINING = 2, 5
"""How many sequences of x's size a call goes through: x, out; with a backward pass also what is kept, two gradients."""
BLOCK = 2048
"""Lanes of a block at most."""
LANES = 64
"""Blocks are multiples of this, so that rows of a block start on cache lines where the tensors do."""


@cache
def second_level_cache() -> int:
    """Bytes of a core's second-level cache; 1 MiB where the system does not say."""
    return _cache_size(2) or 1 << 20


@cache
def last_level_cache() -> int:
    """Bytes of the cache that cores share; 8 MiB where the system does not say."""
    return _cache_size(3) or 8 << 20


def _cache_size(index: int) -> int:
    try:
        text = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size").read_text().strip()
        return int(text.rstrip("KM")) * {"K": 1 << 10, "M": 1 << 20}[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return 0


def streams(num_bytes: int, num_sequences: int) -> bool:
    """Do streaming stores pay, for that many sequences of this size?

    They do where the sequences do not stay in the last-level cache: a line that is written there need not be read
    before. Where they stay, a line that went past the cache would have to come back from memory.
    """
    return num_sequences * num_bytes >= last_level_cache() * 3 // 4


def forward_block(num_lanes: int, threads: int) -> int:
    """Lanes for one block of a forward pass: long runs of addresses, states in the first-level cache, two blocks for
    each thread."""
    return max(256, min(BLOCK, num_lanes // (2 * threads) // LANES * LANES))


def backward_block(num_steps: int, num_lanes: int, num_states: int, real_bytes: int) -> tuple[int, int]:
    """`(lanes, steps)` of a block that runs its steps again from the states before them.

    The history of the states should lie in the second-level cache or not far beyond; one that is longer still is cut
    into segments, each run twice. All this depends on the shape of the call alone: sums over blocks must not depend on
    threads.
    """
    row = max(num_states, 1) * real_bytes
    cache = second_level_cache()
    lanes = BLOCK
    while lanes > 256 and (lanes * 4 > num_lanes or num_steps * lanes * row > 4 * cache):
        lanes //= 2
    if num_steps * lanes * row > 16 * cache:
        return lanes, max(1, cache // (lanes * row))
    return lanes, max(num_steps, 1)


def distance_pays(element_bytes: int, state_bytes: int, num_steps: int) -> bool:
    """Is it better to keep u than x?

    It is where the states of a block's steps, for as many lanes as a block may have, do not lie in the second-level
    cache when the steps run again. Elsewhere u costs two more passes through memory: x measured as fast for sequences
    that stay in the caches, and up to 1.6 times as fast beyond. For x of 16 bits u takes more memory.
    """
    return element_bytes >= state_bytes and num_steps * BLOCK * state_bytes > second_level_cache()


class NormTiles(NamedTuple):
    """How batch norm and neuron cut `[T, outer, channels, inner]` into blocks.

    Args:
        block: lanes of a step, of all channels; 0: blocks of one channel each, see below.
        outer: entries of the outer axis for one block.
        inner: entries of the inner axis.
    """

    block: int
    outer: int
    inner: int


LINE = 64
"""Bytes of a cache line."""
LONG_PIECE = 256
"""Lanes from which on a run of one channel is worth blocks of its own."""


def norm_tiles(
    num_steps: int, outer: int, channels: int, inner: int, num_states: int, real_bytes: int
) -> NormTiles | None:
    """Blocks for batch norm and neuron; None where norm and neuron one by one are faster or need less memory.

    That is where even a small block needs too much scratch memory, and where the channels are the last axis and a block
    has no room for two rows of them: with 1000 channels one call took 1.1 to 1.2 times what torch's norm and the neuron
    take, with 3000 six times.
    The states of a block's steps should lie in the second-level cache. Blocks depend on the shape of the call alone:
    sums over blocks must not depend on threads.
    """
    lane = num_steps * max(num_states, 1) * real_bytes
    if lane * LANES > 64 * second_level_cache():
        return None
    lanes = max(LANES, min(BLOCK, second_level_cache() // 8 // lane) // LANES * LANES)
    if inner < LONG_PIECE:
        if inner > 1:
            return NormTiles(lanes, 1, 1)
        # Each block begins with the first channel, so that sums go through memory in order. If rows of channels that
        # are whole tiles are too long, those of whole cache lines will do.
        for multiple in (LANES, LINE // real_bytes):
            row = math.lcm(channels, multiple)
            if 2 * row <= lanes:
                return NormTiles(lanes // row * row, 1, 1)
        return None
    if inner > lanes:
        return NormTiles(0, 1, lanes)
    return NormTiles(0, 1 if inner % LANES else max(1, min(outer, lanes // inner)), inner)
