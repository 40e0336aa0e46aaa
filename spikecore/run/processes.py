"""One run in one process or in several that `torchrun` started: who does what, and how all end together.

Everything that several processes must agree on goes through a `Group`. In one process its methods only call what they
are given, and nothing of torch.distributed is touched; for several see `run.connected`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from spikecore.errors import ConfigError
from spikecore.interfaces.processes import Processes

T = TypeVar("T")

ADDRESS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` tells every process, besides WORLD_SIZE."""


class Group(Processes):
    """The processes of a run, as the run itself sees them: this one alone.

    Attributes:
        local_rank: number of this process on its machine, which is that of its GPU.
        is_terminated: the system, or `torchrun`, asked this process to end: the next safe point is the last.
    """

    local_rank: int = 0
    is_terminated: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def together(self, action: Callable[[], T]) -> T:
        """Do this in every process; an error in one of them is raised in all, and shown once."""
        return action()

    def first(self, action: Callable[[], T]) -> T:
        """Do this in the first process, and return in all what it returned; its error is raised in all, and shown once.

        The result must be picklable.
        """
        return action()

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        return [value]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Which of the flags are set in some process."""
        return flags

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Inside, a process that fails takes the others with it: their error says which one, and why."""
        yield

    def require_same(self, facts: Mapping[str, object]) -> None:
        """Refuse processes that were started differently.

        Args:
            facts: name → what all must have in common.

        Raises:
            ConfigError: names every difference.
        """
        everyone = self.gather(dict(facts))
        lines = []
        for name in sorted({name for one in everyone for name in one}):
            values = [one.get(name, "nothing") for one in everyone]
            others = [rank for rank, value in enumerate(values) if value != values[0]]
            if others:
                rank = others[0]
                more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
                lines.append(f"{name}: {values[0]!r} in process 0, {values[rank]!r} in process {rank}{more}")
        if lines:
            cure = "start all of them with the same command line, the same files and the same versions"
            error = ConfigError(["the processes of this run are not started alike:", *lines, cure])
            error.is_told = not self.is_first
            raise error


_current: Group | None = None
"""The group that this process has joined."""


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that were started together with this one; inside, it may be entered again.

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
        from spikecore.run.connected import Connected

        with Connected.connected() as group:
            _current = group
            try:
                yield group
            finally:
                _current = None


def is_one_of_several() -> bool:
    """Whether this process was started together with others.

    Raises:
        ConfigError: the environment says how many, but not how to reach them.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdigit() or int(size) < 2:
        return False
    missing = [name for name in ADDRESS if name not in os.environ]
    if missing:
        raise ConfigError(
            f"the environment says WORLD_SIZE={size}, but lacks {', '.join(missing)}: start the processes with "
            f"`torchrun --nproc-per-node {size} -m spikecore run ...`, or unset WORLD_SIZE to train in one process"
        )
    return True


def flatten(tables: Mapping[str, Any], before: str = "") -> dict[str, object]:
    """Nested tables as `table.key` → value."""
    flat: dict[str, object] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{before}{key}."))
        else:
            flat[f"{before}{key}"] = value
    return flat
