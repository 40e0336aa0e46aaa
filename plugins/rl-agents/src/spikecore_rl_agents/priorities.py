"""A sum tree: numbers at its leaves, in every node the sum below it.

Changing leaves takes one step per level, and so does finding those that points of the total fall on; many at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class SumTree:
    """See this module.

    Args:
        size: leaves.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.depth = max(1, (size - 1).bit_length())
        self.first = 2**self.depth
        """The leaf 0 in `_nodes`: node 1 is the root, the children of i are 2 i and 2 i + 1."""
        self._nodes = torch.zeros(2 * self.first, dtype=torch.float64)

    @property
    def total(self) -> float:
        """Sum of all leaves."""
        return float(self._nodes[1])

    def priorities(self, index: Tensor) -> Tensor:
        """The leaves `[B]`, float64."""
        return self._nodes[index + self.first]

    def set(self, index: Tensor, values: Tensor) -> None:
        """Change leaves; of one that is named twice either value stays."""
        node = index + self.first
        self._nodes[node] = values.double()
        for _ in range(self.depth):
            node = torch.unique(node // 2)
            self._nodes[node] = self._nodes[2 * node] + self._nodes[2 * node + 1]

    def find(self, points: Tensor) -> Tensor:
        """The leaf on which each point of 0 .. total falls, `[B]`; never one that is 0, unless all are."""
        node = torch.ones(len(points), dtype=torch.int64)
        left_over = points.double().clone()
        for _ in range(self.depth):
            left, right = self._nodes[2 * node], self._nodes[2 * node + 1]
            # Rounding may leave a point just beyond the sum: it then stays where there is something.
            goes_right = (left_over >= left) & (right > 0)
            left_over = torch.where(goes_right, left_over - left, left_over)
            node = 2 * node + goes_right.long()
        return node - self.first

    def state_dict(self) -> dict[str, Any]:
        """The leaves."""
        return {"leaves": self._nodes[self.first : self.first + self.size]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there: sums are made again from the leaves, level by level, as they were."""
        self._nodes[self.first : self.first + self.size] = state["leaves"]
        for level in reversed(range(self.depth)):
            node = torch.arange(2**level, 2 ** (level + 1))
            self._nodes[node] = self._nodes[2 * node] + self._nodes[2 * node + 1]
