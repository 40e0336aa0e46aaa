"""Observations as tensors for a net, and actions as an environment takes them.

observation          tensor [B, *shape]
Box of floats        float32, its shape; [1] for a single number without an axis
Box of uint8         uint8 as it is; the policy divides by 255
Discrete(n)          float32 one-hot [n]
MultiBinary          float32, its shape

action               from the net
Discrete(n)          an index 0 .. n - 1
Box                  float32, its shape flattened; clipped to the bounds
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from spikecore.errors import ConfigError
from spikecore_rl_agents.environments import EnvironmentConfig, limit_of, make_environment

OBSERVATIONS = "a Box of numbers, Discrete or MultiBinary"
ACTIONS = "Discrete or a Box of floats"


@dataclass(frozen=True, eq=False)
class Spaces:
    """What goes into a policy and comes out of it.

    Args:
        observation: space of one observation.
        action: space of one action.
    """

    observation: spaces.Space[Any]
    action: spaces.Space[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation as a tensor."""
        if isinstance(self.observation, spaces.Discrete):
            return (int(self.observation.n),)
        return tuple(int(size) for size in self.observation.shape or (1,))

    @property
    def dtype(self) -> torch.dtype:
        """Of observations as tensors."""
        return torch.uint8 if self.observation.dtype == np.uint8 and self.is_image else torch.float32

    @property
    def is_image(self) -> bool:
        """Whether observations have axes of height and width."""
        return isinstance(self.observation, spaces.Box) and len(self.observation.shape) == 3

    @property
    def is_measured(self) -> bool:
        """Whether observations are measurements of any size, which can be normalized: neither pictures nor choices."""
        return isinstance(self.observation, spaces.Box) and not self.is_image

    @property
    def is_discrete(self) -> bool:
        """Whether an action is an index."""
        return isinstance(self.action, spaces.Discrete)

    @property
    def num_actions(self) -> int:
        """Actions to choose from, or numbers that are one action."""
        if isinstance(self.action, spaces.Discrete):
            return int(self.action.n)
        return math.prod(self.action.shape or ())

    @property
    def low(self) -> Tensor:
        """Lower bounds of a continuous action, `[num_actions]`."""
        assert isinstance(self.action, spaces.Box)
        return torch.as_tensor(self.action.low, dtype=torch.float32).flatten()

    @property
    def high(self) -> Tensor:
        """Upper bounds of a continuous action, `[num_actions]`."""
        assert isinstance(self.action, spaces.Box)
        return torch.as_tensor(self.action.high, dtype=torch.float32).flatten()

    def observe(self, raw: Any) -> Tensor:
        """A batch of observations as a tensor; a copy."""
        values = np.asarray(raw)
        if isinstance(self.observation, spaces.Discrete):
            index = torch.as_tensor(values.astype(np.int64) - int(self.observation.start))
            return torch.nn.functional.one_hot(index, int(self.observation.n)).float()
        return torch.tensor(values, dtype=self.dtype).reshape(len(values), *self.shape)

    def act(self, actions: Tensor) -> np.ndarray[Any, Any]:
        """A batch of actions `[B]` or `[B, num_actions]` as the environments take them."""
        if isinstance(self.action, spaces.Discrete):
            return actions.cpu().numpy().astype(np.int64) + int(self.action.start)
        bounded = torch.clamp(actions.cpu(), self.low, self.high)
        return bounded.numpy().astype(self.action.dtype).reshape(len(actions), *(self.action.shape or ()))


def inspect_environment(config: EnvironmentConfig) -> Spaces:
    """The spaces of an environment, which is made once and closed; all that is checked at the start is checked here.

    Raises:
        ConfigError: there is no such environment, an option is wrong, or an agent cannot use its spaces.
        PluginUnavailable: a package that it needs is not installed.
    """
    environment = make_environment(config, training=True)
    try:
        usable = spaces_of(config.name, environment.observation_space, environment.action_space)
        if not limit_of(config, environment):
            raise ConfigError(
                f"environment.name: {config.name!r} sets no limit to the length of an episode, so one might never end: "
                "set environment.max_episode_steps"
            )
        return usable
    finally:
        environment.close()


def spaces_of(name: str, observation: spaces.Space[Any], action: spaces.Space[Any]) -> Spaces:
    """The spaces, if an agent can use them.

    Raises:
        ConfigError: it cannot.
    """
    problems = []
    is_numbers = isinstance(observation, spaces.Box) and np.issubdtype(observation.dtype, np.number)
    if not (is_numbers or isinstance(observation, spaces.Discrete | spaces.MultiBinary)):
        problems.append(
            f"environment.name: observations of {name!r} are {observation}; an agent takes {OBSERVATIONS}: wrap it "
            "with gymnasium.wrappers.FlattenObservation in a registered environment of your own"
        )
    elif isinstance(observation, spaces.Box) and 0 in observation.shape:
        problems.append(f"environment.name: observations of {name!r} hold no number: {observation}")
    is_floats = isinstance(action, spaces.Box) and np.issubdtype(action.dtype, np.floating)
    if not (is_floats or isinstance(action, spaces.Discrete)):
        problems.append(f"environment.name: actions of {name!r} are {action}; an agent chooses {ACTIONS}")
    if problems:
        raise ConfigError(problems)
    return Spaces(observation, action)


def require_discrete(name: str, spaces: Spaces, trainer: str) -> None:
    """Refuse an environment without a list of actions."""
    if not spaces.is_discrete:
        raise ConfigError(
            f"trainer.name: {trainer!r} chooses among actions, and those of {name!r} are {spaces.action}: use td3, "
            "ppo or a2c"
        )


def require_bounded(name: str, spaces: Spaces, trainer: str) -> None:
    """Refuse an environment whose actions are not numbers within bounds."""
    if spaces.is_discrete:
        raise ConfigError(
            f"trainer.name: {trainer!r} gives numbers as actions, and those of {name!r} are {spaces.action}: use dqn, "
            "ppo or a2c"
        )
    if not (bool(spaces.low.isfinite().all()) and bool(spaces.high.isfinite().all())):
        raise ConfigError(
            f"trainer.name: {trainer!r} scales its actions to their bounds, and those of {name!r} have none: "
            f"{spaces.action}; use ppo or a2c"
        )
