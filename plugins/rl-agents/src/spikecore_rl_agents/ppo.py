"""PPO: proximal policy optimization.

    r = exp(ln p_new(a) - ln p_old(a))
    L = -mean min(r A, clip(r, 1 - c, 1 + c) A) + value_coef ½ mean (V - R)² - entropy_coef mean H,      R = A + V_old

A rollout is passed through several times, in minibatches.

Source: Schulman et al., Proximal Policy Optimization Algorithms (2017), eq. 7 and 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikecore.interfaces import RunContext
from spikecore_rl_agents.advantages import explained_variance
from spikecore_rl_agents.agent import Count, EnvironmentTask, NotNegative, Positive
from spikecore_rl_agents.on_policy import OnPolicy, Rollout


class PPO(OnPolicy):
    """Proximal policy optimization for choices and for continuous actions."""

    short_run = {  # noqa: RUF012  (read only)
        "trainer": {
            "iterations": 6,
            "rollout_steps": 64,
            "passes": 4,
            "minibatch": 64,
            "evaluate_every": 3,
            "eval_episodes": 5,
            "test_episodes": 5,
            "animation": False,
            "lr": 3e-3,
        },
    }

    @dataclass(frozen=True)
    class Config(OnPolicy.Config):
        """
        Args:
            passes: through each rollout.
            minibatch: steps that are learned from at once; where state is carried, whole environments of about as many.
            clip: c.
            target_kl: no further pass once the policy has moved by so much; 0 for no limit.
        """

        passes: Count = 10
        minibatch: Count = 128
        clip: Positive = 0.2
        target_kl: NotNegative = 0.0

    def learn(self, task: EnvironmentTask, context: RunContext, rollout: Rollout) -> dict[str, float]:
        """See `OnPolicy.learn`."""
        config, device = self.config, context.device
        chosen = rollout.actions.flatten(0, 1).to(device)
        old = rollout.log_probs.flatten().to(device)
        advantages = rollout.advantages.flatten().to(device)
        wanted = (rollout.advantages + rollout.values).flatten().to(device)
        totals, count, divergence = torch.zeros(4), 0, 0.0
        for _ in range(config.passes):
            for picked, steps in self._minibatches(rollout, context.generator):
                out, values = self.answers(rollout, picked, context)
                log_probs = self.actions.log_probability(out, chosen[steps])
                gain = advantages[steps]
                if config.normalize_advantages and len(gain) > 1:
                    gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                policy_loss = clipped_loss(log_probs, old[steps], gain, config.clip)
                value_loss = 0.5 * (values - wanted[steps]).square().mean()
                entropy = self.actions.entropy(out).mean()
                loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy
                self._update(loss)
                with torch.no_grad():
                    change = log_probs - old[steps]
                    divergence = float((change.exp() - 1 - change).mean())
                losses = [float(value.detach()) for value in (policy_loss, value_loss, entropy)]
                totals += torch.tensor([*losses, divergence])
                count += 1
            if config.target_kl and divergence > config.target_kl:
                break
        names = ("policy_loss", "value_loss", "entropy", "kl")
        metrics = {name: float(total) / count for name, total in zip(names, totals, strict=True)}
        metrics["explained_variance"] = explained_variance(rollout.values, rollout.advantages + rollout.values)
        return metrics

    def _update(self, loss: Tensor) -> None:
        (optimizer,) = self.optimizers
        optimizer.zero_grad()
        loss.backward()
        self.shorten(self.parameters)
        optimizer.step()

    def _minibatches(self, rollout: Rollout, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """What `answers` takes, and the flat numbers of the steps, in the same order."""
        length, num_envs = rollout.over.shape
        if not self.carries:
            for part in torch.randperm(length * num_envs, generator=generator).split(self.config.minibatch):
                yield part, part
            return
        size = max(1, round(self.config.minibatch / length))
        steps = torch.arange(length).unsqueeze(1) * num_envs
        for part in torch.randperm(num_envs, generator=generator).split(size):
            yield part, (steps + part).flatten()


def clipped_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """-mean min(r A, clip(r) A), all `[B]`."""
    ratio = (log_probs - old).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantages, bounded * advantages).mean()
