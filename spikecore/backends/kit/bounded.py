"""A dictionary of limited size, for what can be made again."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedDict(dict[Key, Value]):
    """Forgets the eighth of its entries that was put in first when there would be more than `most`.

    Reading costs what a dictionary's does. Threads may share it. It has no lock, which a fork could leave closed in
    the child; `list` of a dictionary is one step for other threads.

    Args:
        most: entries that it holds; at least 1.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        if len(self) > self.most:
            num_dropped = self.most // 8 + 1
            for old in list(self)[:num_dropped]:
                self.pop(old, None)  # another thread may have been faster
