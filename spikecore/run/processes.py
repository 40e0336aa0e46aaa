"""One run in one process or in several that `torchrun` started: who does what, and how all end together.

Everything that several processes must agree on goes through a `Group`. In one process its methods only call what they
are given, and nothing of torch.distributed is touched. Several are `run.connected`; `run.joining` tells which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from spikecore.errors import ConfigError
from spikecore.interfaces.processes import Processes

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


class Group(Processes):
    """The processes of a run, as the run itself sees them: this one alone.

    Attributes:
        local_rank: number of this process on its machine, which is that of its GPU.
        resume_command: what to type to go on with the run; known once it has a directory.
        is_terminated: the system, or `torchrun`, asked this process to end: the next safe point is the last.
    """

    local_rank: int = 0
    is_terminated: bool = False
    resume_command: str = "spike run --resume RUN_DIR"

    @property
    def num_restarts(self) -> int:
        """How often `torchrun --max-restarts` started new processes in place of failed ones."""
        return 0

    def remember_run(self, directory: str) -> None:
        """Keep the run directory for those that may be started in place of these processes."""

    def remembered_run(self) -> str | None:
        """The run directory of those in whose place these were started, where they came as far as to have one."""
        return None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def make_whole(self, model: nn.Module) -> None:
        """Give a net that was fully sharded its parameters; all must call it, and nothing happens to any other."""

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
        names: set[str] = set()
        for one in everyone:
            names.update(one)
        for name in sorted(names):
            values = [one.get(name, "nothing") for one in everyone]
            others = [rank for rank, value in enumerate(values) if value != values[0]]
            if others:
                rank = others[0]
                more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
                lines.append(f"{name}: {values[0]!r} in process 0, {values[rank]!r} in process {rank}{more}")
        if lines:
            cure = "start all of them with the same command line, the same files and the same versions"
            said = "\n".join(
                ["the processes of this run are not started alike:", *(f"  {line}" for line in lines), cure]
            )
            error = ConfigError([said])
            error.is_told = not self.is_first
            raise error


def flatten(tables: Mapping[str, Any], before: str = "") -> dict[str, object]:
    """Nested tables as `table.key` → value."""
    flat: dict[str, object] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{before}{key}."))
        else:
            flat[f"{before}{key}"] = value
    return flat
