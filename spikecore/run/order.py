"""The order in which a trainer ends an epoch: `log`, `epoch_end`, `checkpoint`.

A checkpoint keeps how far the trainer has come and how long `metrics.jsonl` is. If it counts an epoch as done whose
line or whose `epoch_end` follows, a run that is resumed from it never writes that line, or never reports that epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spikecore.errors import ContractError


class EpochOrder:
    """Gets every call of one trainer; raises at the `epoch_end` that comes too late."""

    def __init__(self) -> None:
        self._line: Mapping[str, Any] = {}
        """The latest line of metrics."""
        self._num_since_line = 0
        """Safe points since then."""
        self._is_scored_first = False
        """The first call was a safe point with a score: no line came before it, and no epoch."""
        self._has_told = False
        """An epoch is over."""

    def log(self, metrics: Mapping[str, Any]) -> None:
        """A line is written."""
        self._line, self._num_since_line = dict(metrics), 0

    def checkpoint(self, score: float | None) -> None:
        """A safe point is passed."""
        self._num_since_line += 1
        if score is not None and not self._line and not self._has_told:
            self._is_scored_first = True

    def epoch_end(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """An epoch is over.

        Raises:
            ContractError: a safe point that counts it as done has been passed already.
        """
        # A line with the same numbers is the line of this epoch; one without them may be that of a step.
        is_its_line = bool(metrics) and all(self._line.get(name) == value for name, value in metrics.items())
        is_late = is_its_line and self._num_since_line > 0
        if self._is_scored_first and self._line:  # its checkpoint came before its line, too
            is_late = True
        self._is_scored_first, self._has_told = False, True
        if is_late:
            raise ContractError(
                f"epoch_end({epoch}) comes after the safe point that counts epoch {epoch} as done, so a run that is "
                "resumed from there would never tell it: at the end of an epoch call context.log(...), then "
                "context.epoch_end(...), then context.checkpoint(...)"
            )
