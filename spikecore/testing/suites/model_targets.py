"""Checks of a model's output against the targets that it can be trained for, `capabilities.targets`."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from spikecore.nn.losses import CountCrossEntropy, Loss, SequenceMSE, ValueMSE
from spikecore.testing.suite import advice, needs
from spikecore.testing.suites.model_limits import LimitChecks

NUM_UPDATES, LR = 80, 0.05
WANTED = (-1.5, 2.5)
"""Values below zero and above one: no spike train has either as its mean."""
FALL = 0.3


class TargetChecks(LimitChecks):
    """The part of the model's suite that trains a net for each target, on answers that are the same for every input."""

    kind: ClassVar[str] = "model"

    @needs("targets", "class")
    def test_targets_classes(self) -> None:
        """Cross entropy of the sums over time falls when every sample is of one class."""
        self._trained(CountCrossEntropy(), torch.ones(4, dtype=torch.int64))

    @advice("end the net in a layer without spikes, or leave 'value' out of capabilities.targets")
    @needs("targets", "value")
    def test_targets_values(self) -> None:
        """The mean over time can be trained to be any number: -1.5 and 2.5."""
        self._trained(ValueMSE(), torch.tensor(WANTED, dtype=torch.float64).expand(4, 2))

    @advice(
        "give an output in every step, from a layer without spikes, or leave 'sequence' out of capabilities.targets"
    )
    @needs("targets", "sequence")
    def test_targets_sequences(self) -> None:
        """The output of every step can be trained to be any number: -1.5 and 2.5."""
        self._trained(SequenceMSE(), torch.tensor(WANTED, dtype=torch.float64).expand(3, 4, 2))

    def _trained(self, loss: Loss, target: Tensor) -> None:
        net, x = self.build(self.shapes[0], 2).train(), self.input(self.shapes[0], batch=4, num_steps=3)
        optimizer = torch.optim.Adam(net.parameters(), lr=LR)
        losses = []
        for _ in range(NUM_UPDATES):
            optimizer.zero_grad()
            value: Tensor = loss(self.run(net, x), target)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(value.detach()))
        assert losses[-1] <= FALL * losses[0], (
            f"{NUM_UPDATES} updates bring the loss from {losses[0]:.3g} to {losses[-1]:.3g}; it has to fall to "
            f"{FALL:.0%}: the output cannot be what this target asks for"
        )
