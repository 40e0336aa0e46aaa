"""Environments that fail on purpose; imported by name, also in the processes of environments."""

import multiprocessing
import os
import signal
import time

import gymnasium
import numpy as np
from gymnasium import spaces

SLOW_S = 130.0
"""Longer than a test that does not wait for it takes."""


class Faulty(gymnasium.Env):
    """Counts its steps in its observation, and fails at the third in the way that it is told."""

    metadata = {"render_modes": []}

    def __init__(self, fault="", episode=5, cut=False):
        self.observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._fault, self._episode, self._cut = fault, episode, cut
        if fault == "no table":
            raise ValueError("there is no such table")
        if fault.startswith("slow start"):
            self._start(slow=fault[-1])
        if fault == "forking start" and multiprocessing.current_process().name != "MainProcess":
            if not os.fork():  # it holds the pipes of its parent open
                time.sleep(SLOW_S)
                os._exit(0)
            raise ValueError("the second table is missing")

    def _start(self, slow):
        """Sound in the process of the tests; of the others, one is slow to start and the rest fail."""
        name = multiprocessing.current_process().name
        if name == "MainProcess":
            return
        if name.endswith(f"-{slow}"):
            time.sleep(SLOW_S)
        raise ValueError("the second table is missing")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps, self._seed = 0, float(self.np_random.integers(90))
        if self._fault == "unrepeatable":
            self._seed = time.time() % 90
        return self._seen(), {}

    def step(self, action):
        self._steps += 1
        reward = 1.0
        if self._steps == 3:
            if self._fault == "raise":
                raise ValueError("the pole is gone")
            if self._fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self._fault == "hang":
                time.sleep(60)
            if self._fault == "read":
                raise FileNotFoundError("level.dat")
            if self._fault == "large reward":
                reward = 1e30
            if self._fault == "nan reward":
                reward = float("nan")
            if self._fault == "nan observation":
                return self._seen() * float("nan"), reward, False, False, {}
        over = self._steps >= self._episode
        return self._seen(), reward, over and not self._cut, over and self._cut, {}

    def _seen(self):
        return np.array([self._steps, self._seed], dtype=np.float32)


class Odd(gymnasium.Env):
    """Spaces that no agent can use."""

    def __init__(self, which="tuple"):
        box = spaces.Box(-1.0, 1.0, (2,), np.float32)
        odd = {
            "dict": (spaces.Dict({"a": box}), spaces.Discrete(2)),
            "multi": (box, spaces.MultiDiscrete([2, 3])),
            "unbounded": (box, spaces.Box(-np.inf, np.inf, (1,), np.float32)),
        }
        self.observation_space, self.action_space = odd[which]


gymnasium.register("test/Faulty-v0", entry_point="faulty_environments:Faulty", max_episode_steps=50)
gymnasium.register("test/Endless-v0", entry_point="faulty_environments:Faulty")
gymnasium.register("test/Odd-v0", entry_point="faulty_environments:Odd", max_episode_steps=50)


class Drawn(Faulty):
    """Ends well, and cannot be drawn, in the way that it is told; it measures one number without an axis."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, drawing="", render_mode=None, **options):
        super().__init__(**options)
        self.render_mode, self._drawing = render_mode, drawing
        self.observation_space = spaces.Box(-100.0, 100.0, (), np.float32)

    def render(self):
        if self._drawing == "raise":
            raise OSError("an OpenGL platform library has not been loaded")
        return

    def _seen(self):
        return np.float32(self._steps / 10)


gymnasium.register("test/Drawn-v0", entry_point="faulty_environments:Drawn", max_episode_steps=50)
