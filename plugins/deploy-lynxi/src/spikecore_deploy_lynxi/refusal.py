"""Why an operator cannot be written."""

from __future__ import annotations


class RefusedError(Exception):
    """An operator has no counterpart in the graph.

    Args:
        reason: why.
        cure: what the user can do.
    """

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}; {cure}")
        self.reason, self.cure = reason, cure
