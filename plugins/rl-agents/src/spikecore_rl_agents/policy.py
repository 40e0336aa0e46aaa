"""A net that decides: observation → encoder → net over T steps → readout.

The state of its neurons is either initial before every decision, or carried from one decision to the next within an
episode (`carry`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor, nn

from spikecore import nn as spiking
from spikecore.analysis import OperationCounter, Operations, count_operations
from spikecore.errors import RunError
from spikecore_rl_agents.readout import Readout

State: TypeAlias = "dict[str, dict[str, Tensor]]"


class Normalizer:
    """Shifts and scales observations by the mean and variance of all that it has seen.

    Counts, means and squared deviations are merged batch by batch.

    Args:
        shape: of an observation.

    Source: Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (1979).
    """

    limit = 10.0
    """Values farther out are clipped."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.squares = torch.zeros(shape, dtype=torch.float64)

    def see(self, observations: Tensor) -> None:
        """Learn from a batch `[B, *shape]`."""
        batch = observations.double()
        count = self.count + len(batch)
        mean = batch.mean(0)
        squares = (batch - mean).square().sum(0)
        offset = mean - self.mean
        self.squares = self.squares + squares + offset.square() * self.count * len(batch) / count
        self.mean = self.mean + offset * len(batch) / count
        self.count = count

    def __call__(self, observations: Tensor) -> Tensor:
        """`[..., *shape]`, of mean 0 and variance 1 over all that was seen."""
        if self.count < 2:
            return observations.float()
        deviation = (self.squares / self.count).sqrt().clamp(min=1e-4)
        return ((observations.double() - self.mean) / deviation).clamp(-self.limit, self.limit).float()

    def state_dict(self) -> dict[str, Any]:
        """Of what was seen."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.count, self.mean, self.squares = int(state["count"]), state["mean"], state["squares"]


class Policy(nn.Module):
    """Observations `[B, *shape]` → numbers `[B, K]`.

    Args:
        net: `[T, B, *input_shape]` → `[T, B, K]`.
        encoder: `[B, *shape]` → `[T, B, *input_shape]`.
        readout: `[T, B, K]` → `[B, K]`.
        device: where they are.
        dtype: compute dtype.
    """

    def __init__(
        self,
        net: nn.Module,
        encoder: nn.Module,
        readout: Readout,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.net = net
        self.encoder = encoder
        self.readout = readout.to(device)
        self.device, self._dtype = device, dtype
        # Not registered: its parameters would be named twice.
        self.__dict__["_chain"] = nn.Sequential(net, self.readout)

    def forward(self, observations: Tensor, generator: Generator | None = None) -> Tensor:
        """Decide with neurons at rest; the generator is that of an encoder that draws."""
        with self._precision():
            decided: Tensor = self.readout(self.net(self.encode(observations, generator)))
        return decided.float()

    def encode(self, observations: Tensor, generator: Generator | None) -> Tensor:
        """`[B, *shape]` → `[T, B, *input_shape]`; images of bytes become 0 .. 1."""
        x = observations.to(self.device)
        encoded: Tensor = self.encoder(x / 255 if x.dtype == torch.uint8 else x.float(), generator)
        return encoded

    def carry(self, observations: Tensor, state: State, generator: Generator | None) -> tuple[Tensor, State]:
        """Decide with neurons in the given state; returns the state after the last of the T steps too."""
        step, _ = spiking.functional(self._chain)
        with self._precision():
            own = {**dict(self._chain.named_parameters()), **dict(self._chain.named_buffers())}
            decided, state = step(own, self.encode(observations, generator), state)
        return decided.float(), state

    def rest(self, observations: Tensor, generator: Generator | None) -> State:
        """The state of neurons at rest, for such observations."""
        _, initial = spiking.functional(self._chain)
        return initial(self.encode(observations, generator))

    def count_operations(self, observations: Tensor) -> Operations:
        """What the net does for a decision at rest, as a mean over observations `[B, *shape]`; it does not change."""
        generator = Generator(self.device).manual_seed(0)
        with torch.no_grad():
            return count_operations(self.net, self.encode(observations, generator))

    def count_carried(self, observations: Sequence[Tensor], states: Sequence[State]) -> Operations:
        """The same where neurons go on from a state: observations `[M, *shape]`, and the state before each batch."""
        generator = Generator(self.device).manual_seed(0)
        twin = copy.deepcopy(self.net).eval()
        chain = nn.Sequential(twin, copy.deepcopy(self.readout))
        step, _ = spiking.functional(chain)
        own = {**dict(chain.named_parameters()), **dict(chain.named_buffers())}
        num_steps = 1
        with torch.no_grad(), OperationCounter(twin) as counter:
            for batch, state in zip(observations, states, strict=True):
                encoded = self.encode(batch, generator)
                num_steps = len(encoded)
                step(own, encoded, state)
        return counter.operations(sum(map(len, observations)), num_steps)

    def _precision(self) -> Any:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self._dtype)


def finite(decided: Tensor) -> Tensor:
    """The numbers of a policy, which an action is to be made of.

    Raises:
        RunError: one of them is not finite.
    """
    if bool(decided.isfinite().all()):
        return decided
    raise RunError(
        "the net gives numbers that are not finite, so no action can be chosen: training has diverged; use a smaller "
        "trainer.lr, trainer.max_grad_norm above 0, or a smaller environment.reward_scale"
    )


def restarted(state: State, rest: State, over: Tensor) -> State:
    """The state, at rest again where an episode is over; `over` is bool `[B]`."""

    def choose(kept: Tensor, initial: Tensor) -> Tensor:
        if kept.dim() == 0 or kept.shape[0] != len(over):
            return kept  # belongs to no environment, such as a counter of steps
        mask = over.to(kept.device).reshape(-1, *[1] * (kept.dim() - 1))
        return torch.where(mask, initial.to(kept.dtype), kept)

    return {
        name: {key: choose(value, rest[name][key]) for key, value in values.items()} for name, values in state.items()
    }


def detached(state: State) -> State:
    """The same values without their graph."""
    return {name: {key: value.detach() for key, value in values.items()} for name, values in state.items()}


def part_of(state: State, index: Tensor, batch: int) -> State:
    """The state of some environments of a batch."""

    def take(value: Tensor) -> Tensor:
        return value if value.dim() == 0 or value.shape[0] != batch else value[index.to(value.device)]

    return {name: {key: take(value) for key, value in values.items()} for name, values in state.items()}
