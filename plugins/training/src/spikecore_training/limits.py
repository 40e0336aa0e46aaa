"""Memory that does not suffice, and torch's deterministic mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spikecore.errors import RunError

_CPU_WORDS = ("defaultcpuallocator", "can't allocate memory", "cannot allocate memory")


@contextmanager
def explained_memory(batch_size: int, accumulate: int, truncate: int, memory: str) -> Iterator[None]:
    """Says which settings need less memory where there is too little of it.

    Raises:
        RunError: in place of torch's error.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RunError(_advice(batch_size, accumulate, truncate, memory, error)) from error
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _CPU_WORDS):
            raise
        raise RunError(_advice(batch_size, accumulate, truncate, memory, error)) from error


def _advice(batch_size: int, accumulate: int, truncate: int, memory: str, error: BaseException) -> str:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    cures = []
    if memory != "save":
        cures.append("set trainer.memory = 'save' (the same results, and about a third more time)")
    if batch_size > 1:
        half = max(batch_size // 2, 1)
        cures.append(
            f"trainer.batch_size = {half} with trainer.accumulate = {2 * accumulate} (the same gradient, unless "
            "the net has batch norms)"
        )
    cures.append("run.precision = 'bfloat16'")
    if not truncate:
        cures.append("trainer.truncate to fewer steps than T")
    cures.append("or fewer steps (encoder.num_steps)")
    return f"memory ran out with batch_size = {batch_size}: {', '.join(cures)}. ({first_line})"


@contextmanager
def deterministic_algorithms(is_wanted: bool) -> Iterator[None]:
    """Inside, torch refuses operators that are not deterministic, where that is wanted."""
    if not is_wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
