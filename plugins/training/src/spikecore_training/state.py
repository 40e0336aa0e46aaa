"""How far a training has come: what must be in a checkpoint besides net, optimizer and random numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Progress:
    """Where the loop stands.

    Attributes:
        epoch: epochs that are done.
        order: the generator's state that the epoch's order of samples was drawn from; None between epochs.
        steps: optimizer steps of this epoch.
        loss_sum: of its samples; stays on the device, so that no step waits for it.
        num_samples: that it was trained on.
        metrics: of the latest epoch.
        best: the best score so far; None without one.
        num_without_gain: epochs since then.
        scores: of all epochs, for a schedule that follows them.
    """

    epoch: int = 0
    order: Tensor | None = None
    steps: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    num_samples: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    num_without_gain: int = 0
    scores: list[float] = field(default_factory=list)

    def start_epoch(self, order: Tensor | None, device: torch.device) -> None:
        """Begin an epoch, or with None end one."""
        self.order, self.steps, self.num_samples = order, 0, 0
        self.loss_sum = torch.zeros((), dtype=sum_dtype(device), device=device)

    def score(self, score: float, min_delta: float) -> None:
        """The score of an epoch: better than the best so far by more than `min_delta`, or not."""
        self.scores.append(score)
        if self.best is None or score > self.best + min_delta:
            self.best, self.num_without_gain = score, 0
        else:
            self.num_without_gain += 1

    @property
    def mean_loss(self) -> float:
        """Of the samples of this epoch; waits for the device."""
        return float(self.loss_sum) / max(self.num_samples, 1)

    def to_plain(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {**asdict(self), "loss_sum": float(self.loss_sum)}

    @classmethod
    def from_plain(cls, state: dict[str, Any]) -> Progress:
        """Back from a checkpoint."""
        return cls(**{**state, "loss_sum": torch.tensor(state["loss_sum"], dtype=torch.float64)})


def sum_dtype(device: torch.device) -> torch.dtype:
    """The widest dtype for sums that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64
