"""Random numbers of a run: seeds, streams derived from them, and the states of the global generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

DEVICE_STREAM = 1
"""Tells the streams of `generator_on` from others that are derived from the run's seed."""
RANK_STREAM = 2
"""Tells the streams of the processes after the first from others that are derived from the run's seed."""


def seed_everything(seed: int) -> None:
    """Start every global random generator from the seed; what is random in a run comes from these or its own."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def generator_on(device: torch.device, seed: int, rank: int = 0) -> torch.Generator:
    """A generator on a device, with a stream of its own: unlike that of a generator with the same seed."""
    (word,) = np.random.SeedSequence([seed, DEVICE_STREAM, rank]).generate_state(1)
    return torch.Generator(device).manual_seed(int(word))


def rank_seed(seed: int, rank: int, count: int) -> int:
    """A seed of one process alone, and of one safe point.

    Args:
        seed: the run's.
        rank: of the process.
        count: safe points passed.
    """
    return int(np.random.SeedSequence([seed, RANK_STREAM, rank, count]).generate_state(1)[0])


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Inside, the global generators may be drawn from; behind it they are where they were."""
    before = random_state(device)
    try:
        yield
    finally:
        set_random_state(before, device)


def random_state(device: torch.device) -> dict[str, Any]:
    """Where the global generators of torch, NumPy and Python are, and torch's of a GPU; `set_random_state` takes it."""
    legacy: Any = np.random.get_state()
    _, keys, position, has_gauss, gauss = legacy
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(words), next_gauss],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the global generators where `random_state` saw them."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], device)
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), next_gauss))
