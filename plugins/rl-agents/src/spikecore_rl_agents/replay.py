"""Replay buffer: a ring of steps for each environment, n-step returns taken from it when it is sampled.

Each environment writes its own lane. A slot holds an observation and what followed from it; the next observation is
that of the next slot, so none is stored twice. Where an episode ends, one more slot holds its last observation, from
which nothing is sampled.

    R = Σ_{k<m} gamma^k r_{t+k},   D = gamma^m, or 0 where the episode terminated before

m is n, or fewer: up to the end of the episode, or of what has been seen of it.

Memory: `memory_bytes` says how much the whole ring takes; it is reserved at the start. A checkpoint holds up to three
copies while it is written, and what does not fit with them is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from spikecore.errors import OptionError, RunError
from spikecore_rl_agents.priorities import SumTree
from spikecore_rl_agents.vector import Moves

COPIES_WHILE_SAVED = 3
"""The written part in one piece, its bytes, and the bytes of the whole file."""
PER_SLOT_BYTES = 4 + 1 + 1
"""Reward, and two flags."""


@dataclass(frozen=True)
class Sample:
    """Steps to learn from, `[B, ...]`.

    Args:
        observations: s.
        actions: a.
        returns: R.
        discounts: D.
        followed: s', m steps later.
        weights: of the losses; 1 without priorities.
        index: slots, for `update`.
    """

    observations: Tensor
    actions: Tensor
    returns: Tensor
    discounts: Tensor
    followed: Tensor
    weights: Tensor
    index: Tensor


class ReplayBuffer:
    """See this module.

    Args:
        capacity: slots of all lanes together; a lane has an equal share.
        num_envs: lanes.
        shape, dtype: of an observation.
        action_shape, action_dtype: of an action.
        num_steps: n.
        gamma: discount.
        alpha: priorities are (|error| + 1e-6)^alpha; 0 samples uniformly.

    Raises:
        OptionError: there are fewer slots in a lane than a return needs, or it would not fit into memory.

    Source: n steps: Sutton (1988); priorities: Schaul et al., Prioritized Experience Replay (ICLR 2016), 3.3.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        action_shape: tuple[int, ...] = (),
        action_dtype: torch.dtype = torch.int64,
        num_steps: int = 1,
        gamma: float = 0.99,
        alpha: float = 0.0,
    ) -> None:
        self.length = capacity // num_envs
        if self.length < num_steps + 2:
            raise OptionError(
                f"replay_capacity: {capacity} slots for {num_envs} environments are {self.length} each, and returns of "
                f"{num_steps} steps need at least {num_steps + 2}: use {num_envs * (num_steps + 2)} or more"
            )
        self.memory_bytes = memory_bytes(self.length * num_envs, shape, dtype, action_shape, action_dtype, alpha)
        require_memory(self.memory_bytes, capacity)
        self.num_envs, self.num_steps, self.gamma = num_envs, num_steps, gamma
        lanes = (num_envs, self.length)
        self._observations = torch.zeros(*lanes, *shape, dtype=dtype)
        self._actions = torch.zeros(*lanes, *action_shape, dtype=action_dtype)
        self._rewards = torch.zeros(lanes)
        self._terminated = torch.zeros(lanes, dtype=torch.bool)
        self._is_last = torch.zeros(lanes, dtype=torch.bool)
        """Slots with the last observation of an episode, from which nothing followed."""
        self._heads = [0] * num_envs
        """The slot that each lane writes next."""
        self._written = [0] * num_envs
        """Slots written so far, at most `length`."""
        self._lanes = torch.arange(num_envs)
        self.alpha = alpha
        self._tree = SumTree(num_envs * self.length) if alpha else None
        self._highest = 1.0

    def __len__(self) -> int:
        """Slots that hold something."""
        return sum(self._written)

    @property
    def is_ready(self) -> bool:
        """Whether there is a step whose next observation is known."""
        return max(self._written) >= 2

    def add(self, observations: Tensor, actions: Tensor, moves: Moves) -> None:
        """One step of every environment.

        Args:
            observations: before the step, `[N, *shape]`.
            actions: `[N, ...]`.
            moves: what followed; its observations where episodes ended.
        """
        heads = torch.tensor(self._heads)
        self._observations[self._lanes, heads] = observations.to(self._observations.dtype)
        self._actions[self._lanes, heads] = actions.to(self._actions.dtype)
        self._rewards[self._lanes, heads] = moves.rewards
        self._terminated[self._lanes, heads] = moves.terminated
        self._is_last[self._lanes, heads] = False
        for lane in range(self.num_envs):
            self._advance(lane, self._highest)
        for lane in moves.over.nonzero().flatten().tolist():
            head = self._heads[lane]
            self._observations[lane, head] = moves.followed[lane].to(self._observations.dtype)
            self._rewards[lane, head] = 0.0
            self._terminated[lane, head] = False
            self._is_last[lane, head] = True
            self._advance(lane, 0.0)

    def sample(self, size: int, generator: Generator, beta: float = 1.0) -> Sample:
        """Draw steps whose next observation is known, each time anew.

        Args:
            size: B.
            generator: of the draws.
            beta: how far the weights make up for the priorities, 0 .. 1.

        Raises:
            RunError: nothing can be sampled yet.
        """
        if self._tree is None:
            index, weights = self._uniform(size, generator), torch.ones(size)
        else:
            index, weights = self._prioritised(size, generator, beta)
        lane, slot = index // self.length, index % self.length
        returns, discounts, following = self._follow(lane, slot)
        return Sample(
            observations=self._observations[lane, slot],
            actions=self._actions[lane, slot],
            returns=returns,
            discounts=discounts,
            followed=self._observations[lane, following],
            weights=weights,
            index=index,
        )

    def update(self, index: Tensor, errors: Tensor) -> None:
        """Set the priorities of sampled slots from the errors made on them."""
        if self._tree is None:
            return
        priorities = (errors.detach().cpu().double().abs() + 1e-6) ** self.alpha
        # A slot that a new episode's end has taken since stays out.
        is_there = self._tree.priorities(index) > 0
        self._tree.set(index[is_there], priorities[is_there])
        self._highest = max(self._highest, float(priorities.max()))

    def state_dict(self) -> dict[str, Any]:
        """All that was written, and the priorities."""
        filled = max(self._written)
        return {
            "observations": self._observations[:, :filled],
            "actions": self._actions[:, :filled],
            "rewards": self._rewards[:, :filled],
            "terminated": self._terminated[:, :filled],
            "is_last": self._is_last[:, :filled],
            "heads": list(self._heads),
            "written": list(self._written),
            "highest": self._highest,
            "tree": None if self._tree is None else self._tree.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            RunError: it is of a buffer of another size.
        """
        filled = state["observations"].shape[1]
        if filled > self.length or len(state["heads"]) != self.num_envs:
            raise RunError(
                f"the saved replay buffer has {len(state['heads'])} lanes of {filled} slots, this one {self.num_envs} "
                f"of {self.length}: replay_capacity and environment.num_envs cannot change when a run is resumed"
            )
        parts = {
            "observations": self._observations,
            "actions": self._actions,
            "rewards": self._rewards,
            "terminated": self._terminated,
            "is_last": self._is_last,
        }
        for name, own in parts.items():
            own[:, :filled] = state[name]
        self._heads, self._written = list(state["heads"]), list(state["written"])
        self._highest = float(state["highest"])
        if self._tree is not None:
            self._tree.load_state_dict(state["tree"])

    def _advance(self, lane: int, priority: float) -> None:
        head = self._heads[lane]
        if self._tree is not None:
            start = lane * self.length
            self._tree.set(torch.tensor([start + head]), torch.tensor([priority], dtype=torch.float64))
        self._heads[lane] = (head + 1) % self.length
        self._written[lane] = min(self._written[lane] + 1, self.length)

    def _is_open(self, lane: Tensor, slot: Tensor) -> Tensor:
        """Slots that can be sampled: something follows, and it is known which observation.

        The newest slot of a running episode has no next observation yet; where the ring is full, the slot that is
        written next is the oldest, and its history is whole, since a return looks forward only.
        """
        heads, written = torch.tensor(self._heads)[lane], torch.tensor(self._written)[lane]
        age = (heads - 1 - slot) % self.length  # 0: the newest
        return (age >= 1) & (age < written) & ~self._is_last[lane, slot]

    def _uniform(self, size: int, generator: Generator) -> Tensor:
        total = self.num_envs * self.length
        filled = torch.tensor(self._written)
        if not self.is_ready:
            raise RunError("the replay buffer holds no step with a next observation yet: act first")
        chosen: list[Tensor] = []
        missing = size
        bound = total if int(filled.min()) == self.length else int(filled.max())
        while missing > 0:
            lane = torch.randint(self.num_envs, (2 * missing,), generator=generator)
            slot = torch.randint(min(bound, self.length), (2 * missing,), generator=generator)
            usable = self._is_open(lane, slot)
            taken = (lane * self.length + slot)[usable][:missing]
            chosen.append(taken)
            missing -= len(taken)
        return torch.cat(chosen)

    def _prioritised(self, size: int, generator: Generator, beta: float) -> tuple[Tensor, Tensor]:
        assert self._tree is not None
        newest = [lane * self.length + (head - 1) % self.length for lane, head in enumerate(self._heads)]
        # The newest slots of running episodes are closed while this is drawn.
        closed = torch.tensor(newest)
        kept = self._tree.priorities(closed)
        self._tree.set(closed, torch.zeros_like(kept))
        try:
            total = self._tree.total
            if total <= 0:
                raise RunError("the replay buffer holds no step with a next observation yet: act first")
            # One draw in each of B equal parts of the total.
            parts = torch.arange(size, dtype=torch.float64)
            points = (parts + torch.rand(size, generator=generator, dtype=torch.float64)) / size * total
            index = self._tree.find(points)
            probability = self._tree.priorities(index) / total
        finally:
            self._tree.set(closed, kept)
        count = max(1, len(self) - self.num_envs)
        weights = (count * probability) ** -beta
        return index, (weights / weights.max()).float()

    def _follow(self, lane: Tensor, slot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns, discounts and the slots of s', from each slot up to n steps on."""
        newest = (torch.tensor(self._heads)[lane] - 1) % self.length
        returns = torch.zeros(len(slot))
        discounts = torch.ones(len(slot))
        going = torch.ones(len(slot), dtype=torch.bool)
        place = slot.clone()
        for _ in range(self.num_steps):
            # A return stops before the newest slot, whose next observation is not known, and where the episode ended.
            going = going & (place != newest) & ~self._is_last[lane, place]
            returns += torch.where(going, discounts * self._rewards[lane, place], 0.0)
            ended = going & self._terminated[lane, place]
            discounts = torch.where(going, discounts * self.gamma, discounts)
            place = torch.where(going, (place + 1) % self.length, place)
            discounts = torch.where(ended, 0.0, discounts)
        return returns, discounts, place


def memory_bytes(
    slots: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    action_shape: tuple[int, ...],
    action_dtype: torch.dtype,
    alpha: float,
) -> int:
    """What a buffer of so many slots takes."""
    observation = math.prod(shape) * dtype.itemsize
    action = math.prod(action_shape) * action_dtype.itemsize
    tree = 16 * 2 ** math.ceil(math.log2(max(slots, 2))) if alpha else 0
    return slots * (observation + action + PER_SLOT_BYTES) + tree


def require_memory(held: int, capacity: int) -> None:
    """Refuse a buffer that would not fit, now or when it is saved.

    Raises:
        OptionError: less is free than it takes while a checkpoint is written.
    """
    free, needed = free_bytes(), held * (1 + COPIES_WHILE_SAVED)
    if free is not None and needed > 0.9 * free:
        most = int(capacity * 0.9 * free / needed)
        raise OptionError(
            f"replay_capacity: {capacity} slots take {held / 2**30:.2f} GiB, and {needed / 2**30:.2f} GiB while a "
            f"checkpoint is written; {free / 2**30:.2f} GiB of memory are free: use at most {most}"
        )


def free_bytes(root: Path = Path("/")) -> int | None:
    """Memory that can still be had, on this machine and in this container; None where neither says.

    Args:
        root: of the file system.
    """
    known = [value for value in (_free_of_machine(root), _free_of_container(root)) if value is not None]
    return min(known) if known else None


def _free_of_machine(root: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _free_of_container(root: Path) -> int | None:
    """By the limit of its control group; cached files can be given up, so they count as free."""
    group = root / "sys/fs/cgroup"
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        lines = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(lines["inactive_file"]))
    except (OSError, KeyError, ValueError):  # no such file, or no limit: "max"
        return None
