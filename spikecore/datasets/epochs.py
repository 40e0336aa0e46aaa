"""The number of the current epoch, shared with all processes that read samples."""

from __future__ import annotations

import torch


class Epoch:
    """A number that worker processes share: those that a DataLoader keeps (`persistent_workers`) see it change too.

    Example:
        >>> epoch = Epoch()
        >>> epoch.number = 3
        >>> epoch.number
        3
    """

    def __init__(self) -> None:
        # A tensor is what torch hands to its workers as shared memory, whichever way they start.
        self._number = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def number(self) -> int:
        """As set last, in any of the processes."""
        return int(self._number)

    @number.setter
    def number(self, number: int) -> None:
        self._number.fill_(number)
