"""Which processes train together: this one alone, or those that torchrun started with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from spikecore.errors import ConfigError
from spikecore.run.clock import Clock
from spikecore.run.processes import Group

ADDRESS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` sets for every process, besides WORLD_SIZE."""
_current: Group | None = None
"""The group that this process has joined."""


@contextmanager
def joined(clock: Clock | None = None) -> Iterator[Group]:
    """Join the processes that were started together with this one; inside, it may be entered again.

    Args:
        clock: counts the time that it takes to import torch.distributed, as `import`, and until all have met, as
            `connect`.

    Raises:
        ConfigError: the environment names several processes, but not how to reach them.
        ProcessError: they cannot be reached, or one of them failed.
    """
    global _current
    if _current is not None:
        yield _current
    elif not is_one_of_several():
        yield Group()
    else:
        clock = clock or Clock()
        with ExitStack() as stack:
            with clock.timed("import"):
                from spikecore.run.connected import Connected  # imports torch.distributed
            with clock.timed("connect"):
                _current = group = stack.enter_context(Connected.connected())
            try:
                yield group
            finally:
                _current = None


def is_left_to_another() -> bool:
    """Whether what only one process is needed for is done by another one that was started together with this one."""
    return is_one_of_several() and os.environ["RANK"] != "0"


def is_one_of_several() -> bool:
    """Whether this process was started together with others.

    Raises:
        ConfigError: the environment says how many, but not how to reach them.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 2:
        return False
    missing = [name for name in ADDRESS if name not in os.environ]
    if missing:
        raise ConfigError(
            f"the environment says WORLD_SIZE={size}, but lacks {', '.join(missing)}: start the processes with "
            f"`torchrun --nproc-per-node {size} -m spikecore run ...`, or unset WORLD_SIZE to train in one process"
        )
    return True
