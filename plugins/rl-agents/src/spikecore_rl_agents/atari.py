"""Wrappers for Atari: frames of 84 × 84 in grey, repeated actions, stacked frames, and what makes learning easier.

Source: Mnih et al. (Nature 2015), Methods. Sticky actions are those of the environment, 0.25 in its version 5; set
`environment.options = ["repeat_action_probability=0.0"]` for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import wrappers

if TYPE_CHECKING:
    from spikecore_rl_agents.environments import EnvironmentConfig

SCREEN = 84
MAX_NOOPS = 30


def wrap_atari(
    environment: gymnasium.Env[Any, Any], config: EnvironmentConfig, *, training: bool, max_steps: int
) -> gymnasium.Env[Any, Any]:
    """The environment with all of these wrappers; observations are uint8 `[frame_stack, 84, 84]`."""
    environment = wrappers.AtariPreprocessing(
        environment,
        noop_max=MAX_NOOPS,
        frame_skip=config.frame_skip,
        screen_size=SCREEN,
        terminal_on_life_loss=training and config.life_is_episode,
    )
    environment = wrappers.TimeLimit(environment, max_steps)
    if training and config.clip_rewards:
        environment = wrappers.TransformReward(environment, np.sign)
    return wrappers.FrameStackObservation(environment, config.frame_stack)
