"""Spiking reinforcement learning on gymnasium: the trainers `ppo`, `a2c`, `dqn` and `td3`.

They are used by name, in a configuration. This package registers the environment `spikecore/Reach-v0`.
"""

import gymnasium

gymnasium.register(
    "spikecore/Reach-v0", entry_point="spikecore_rl_agents.reach:Reach", max_episode_steps=10, nondeterministic=False
)
