"""Greedy episodes on seeds of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikecore_rl_agents.environments import EnvironmentConfig
from spikecore_rl_agents.policy import Policy, State, finite, part_of, restarted
from spikecore_rl_agents.spaces import Spaces
from spikecore_rl_agents.vector import Environments

MAX_TOGETHER = 32
MAX_KEPT = 512
"""Decisions kept to count operations on."""


@dataclass(frozen=True)
class Decisions:
    """What some environments decided on at once.

    Args:
        observations: as the policy took them, `[M, *shape]`.
        state: of its neurons before; None where they were at rest.
    """

    observations: Tensor
    state: State | None


@dataclass(frozen=True)
class Episodes:
    """What came of some episodes.

    Args:
        returns: of each, undiscounted.
        lengths: in steps.
        decisions: a random sample of them, over the whole length of the episodes.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    decisions: tuple[Decisions, ...]

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
            return self.choose(finite(self.policy(observations, self.generator)))
        out, self._state = self.policy.carry(observations, self.before(observations) or {}, self.generator)
        return self.choose(finite(out))

    def before(self, observations: Tensor) -> State | None:
        """The state of the neurons that the next call begins from; None where it begins at rest."""
        if not self.carries:
            return None
        if self._rest is None:
            self._rest = self.policy.rest(observations, None)
        return self._state or self._rest

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
    kept = _Kept()
    queue = _Queue(list(range(num_together, len(seeds))), seeds)
    alone = dataclasses.replace(config, processes=False, reward_scale=1.0)
    with torch.no_grad(), Environments(alone, spaces, num_together, training=False) as environments:
        environments.begin(seeds[:num_together])
        while len(returns) < len(seeds):
            observations = decider.prepare(environments.observations)
            before = Decisions(observations, decider.before(observations))
            kept.offer(before, [episode >= 0 for episode in number])
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
    return Episodes(tuple(returns[i] for i in order), tuple(lengths[i] for i in order), kept.decisions)


class _Kept:
    """A random share of all decisions: all at first; where they become too many, each stays with probability ½."""

    def __init__(self) -> None:
        self._share = 1.0
        self._generator = Generator().manual_seed(0)
        self._kept: list[tuple[Decisions, Tensor]] = []
        """Decisions, and the number in 0 .. 1 that was drawn for each; those below the share are kept."""

    @property
    def decisions(self) -> tuple[Decisions, ...]:
        """What is kept."""
        return tuple(decisions for decisions, _ in self._kept)

    def offer(self, decisions: Decisions, counts: list[bool]) -> None:
        """Those of one step; only the environments whose episodes count."""
        drawn = torch.rand(len(counts), generator=self._generator)
        self._keep(decisions, drawn.masked_fill(~torch.tensor(counts), 2.0))
        while sum(len(drawn) for _, drawn in self._kept) > MAX_KEPT:
            self._share /= 2
            before, self._kept = self._kept, []
            for kept in before:
                self._keep(*kept)

    def _keep(self, decisions: Decisions, drawn: Tensor) -> None:
        index = (drawn < self._share).nonzero().flatten()
        if not len(index):
            return
        state = decisions.state
        own = None if state is None else part_of(state, index, len(drawn))
        observations = decisions.observations[index.to(decisions.observations.device)]
        self._kept.append((Decisions(observations, own), drawn[index]))


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
