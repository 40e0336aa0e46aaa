"""A2C: advantage actor-critic, one step of the optimizer per rollout.

    L = -mean ln p(a) A + value_coef ½ mean (V - R)² - entropy_coef mean H,      R = A + V_old

Source: Mnih et al., Asynchronous Methods for Deep Reinforcement Learning (ICML 2016), without the asynchrony.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from spikecore.interfaces import RunContext
from spikecore_rl_agents.agent import Count, EnvironmentTask, NotNegative, Share
from spikecore_rl_agents.on_policy import OnPolicy, Rollout


class A2C(OnPolicy):
    """Advantage actor-critic for choices and for continuous actions."""

    short_run = {  # noqa: RUF012  (read only)
        "trainer": {
            "iterations": 40,
            "rollout_steps": 8,
            "evaluate_every": 20,
            "eval_episodes": 5,
            "test_episodes": 5,
            "animation": False,
            "lr": 5e-3,
        },
    }

    @dataclass(frozen=True)
    class Config(OnPolicy.Config):
        """
        Args:
            iterations: rollouts, one step of the optimizer each.
        """

        iterations: int = 2000
        evaluate_every: Count = 100
        rollout_steps: Count = 8
        gae_lambda: Share = 1.0
        entropy_coef: NotNegative = 0.01
        normalize_advantages: bool = False

    def learn(self, task: EnvironmentTask, context: RunContext, rollout: Rollout) -> dict[str, float]:
        """See `OnPolicy.learn`."""
        config, device = self.config, context.device
        length, num_envs = rollout.over.shape
        everything = torch.arange(num_envs if self.carries else length * num_envs)
        out, values = self.answers(rollout, everything, context)
        chosen = rollout.actions.flatten(0, 1).to(device)
        advantages = rollout.advantages.flatten().to(device)
        wanted = (rollout.advantages + rollout.values).flatten().to(device)
        if config.normalize_advantages and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = -(self.actions.log_probability(out, chosen) * advantages).mean()
        value_loss = 0.5 * (values - wanted).square().mean()
        entropy = self.actions.entropy(out).mean()
        (optimizer,) = self.optimizers
        optimizer.zero_grad()
        (policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy).backward()
        self.shorten(self.parameters)
        optimizer.step()
        losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return {name: float(value.detach()) for name, value in losses.items()}
