"""A small environment to learn in within seconds: a point on a line that is to be brought to 0.

    x' = clip(x + a / 4, -1, 1),   r = -x'²,   x drawn from -1 .. 1 at first;   cut after 10 steps, never over

The best policy is a = clip(-4 x, -1, 1). With `discrete=True` the actions are 0, 1 and 2, for a = -1, 0 and 1. Since
it is never over, a learner that takes the cut for an end learns values that are too high.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STRIDE = 0.25
LIMIT = 10
Vector = np.ndarray[Any, np.dtype[np.float32]]


class Reach(gymnasium.Env[Vector, Any]):
    """See this module."""

    metadata = {"render_modes": []}  # noqa: RUF012  (gymnasium's own form)

    def __init__(self, discrete: bool = False) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space: spaces.Space[Any] = spaces.Discrete(3) if discrete else spaces.Box(-1, 1, (1,), np.float32)
        self._is_discrete = discrete
        self._x = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, dict[str, Any]]:
        """Somewhere on the line."""
        super().reset(seed=seed)
        self._x = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self._x.copy(), {}

    def step(self, action: Any) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """A step of at most a quarter."""
        force = np.asarray(action, np.float32).reshape(1)
        if self._is_discrete:
            force = force - 1
        self._x = np.clip(self._x + STRIDE * force, -1, 1)
        return self._x.copy(), float(-np.square(self._x).sum()), False, False, {}
