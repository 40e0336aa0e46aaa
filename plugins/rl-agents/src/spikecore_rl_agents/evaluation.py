"""Greedy episodes on seeds of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikecore_rl_agents.environments import EnvironmentConfig
from spikecore_rl_agents.policy import Policy, State, restarted
from spikecore_rl_agents.spaces import Spaces
from spikecore_rl_agents.vector import Environments

MAX_TOGETHER = 32
MAX_KEPT = 512
"""Observations kept to count operations on."""


@dataclass(frozen=True)
class Episodes:
    """What came of some episodes.

    Args:
        returns: of each, undiscounted.
        lengths: in steps.
        observations: some that were seen, as the policy took them, `[M, *shape]`.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    observations: Tensor

    @property
    def mean_return(self) -> float:
        """Over the episodes."""
        return sum(self.returns) / len(self.returns)

    @property
    def mean_length(self) -> float:
        """In steps."""
        return sum(self.lengths) / len(self.lengths)


@dataclass
class Decider:
    """Observations → actions, with the state of the neurons where it is carried.

    Args:
        policy: the net.
        choose: its numbers → actions.
        prepare: raw observations → what the policy takes.
        carries: whether state goes from one decision to the next.
        generator: of an encoder that draws.
    """

    policy: Policy
    choose: Callable[[Tensor], Tensor]
    prepare: Callable[[Tensor], Tensor]
    carries: bool
    generator: Generator
    _state: State | None = None
    _rest: State | None = None

    def __call__(self, observations: Tensor) -> Tensor:
        """The actions for a batch; the same environments in every call."""
        if not self.carries:
            return self.choose(self.policy(observations, self.generator))
        if self._rest is None:
            self._rest = self.policy.rest(observations, None)
        out, self._state = self.policy.carry(observations, self._state or self._rest, self.generator)
        return self.choose(out)

    def restart(self, over: Tensor) -> None:
        """Neurons are at rest again where an episode is over."""
        if self._state is not None and self._rest is not None:
            self._state = restarted(self._state, self._rest, over)


def play(config: EnvironmentConfig, spaces: Spaces, decider: Decider, seeds: list[int]) -> Episodes:
    """One episode from each seed. The first ones begin together, each of the others where one has ended.

    Args:
        config: of the environment; stepped in this process.
        spaces: its spaces.
        decider: chooses the actions.
        seeds: of the episodes.
    """
    num_together = min(len(seeds), MAX_TOGETHER)
    number = list(range(num_together))  # of the episode that an environment plays
    returns: dict[int, float] = {}
    lengths: dict[int, int] = {}
    kept: list[Tensor] = []
    queue = _Queue(list(range(num_together, len(seeds))), seeds)
    alone = dataclasses.replace(config, processes=False, reward_scale=1.0)
    with torch.no_grad(), Environments(alone, spaces, num_together, training=False) as environments:
        environments.begin(seeds[:num_together])
        while len(returns) < len(seeds):
            observations = decider.prepare(environments.observations)
            if sum(map(len, kept)) < MAX_KEPT:
                kept.append(observations[: MAX_KEPT - sum(map(len, kept))].clone())
            moves = environments.step(decider(observations), queue.take)
            over = moves.over
            if not bool(over.any()):
                continue
            ended = over.nonzero().flatten().tolist()
            for index, value, length, following in zip(ended, moves.returns, moves.lengths, queue.taken(), strict=True):
                if number[index] >= 0:
                    returns[number[index]] = value
                    lengths[number[index]] = length
                number[index] = following
            decider.restart(over)
    order = range(len(seeds))
    return Episodes(tuple(returns[i] for i in order), tuple(lengths[i] for i in order), torch.cat(kept))


class _Queue:
    """Hands out the episodes that are still to be played."""

    def __init__(self, waiting: list[int], seeds: list[int]) -> None:
        self._waiting, self._seeds = waiting, seeds
        self._taken: list[int] = []

    def take(self) -> int:
        """The seed of the next episode; where none is left, of one that does not count."""
        number = self._waiting.pop(0) if self._waiting else -1
        self._taken.append(number)
        return self._seeds[number]

    def taken(self) -> list[int]:
        """Numbers of the episodes handed out since the last call, -1 where none was left."""
        taken, self._taken = self._taken, []
        return taken
