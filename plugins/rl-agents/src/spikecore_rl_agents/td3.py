"""TD3: twin delayed deep deterministic policy gradient, for continuous actions.

    a  = tanh(policy(s)), scaled to the bounds
    a' = clip(policy'(s') + clip(n, -c, c), -1, 1),  n ~ N(0, target_noise²)
    y  = R + D min(Q1'(s', a'), Q2'(s', a'))
    L  = Σ_i mean (Q_i(s, a) - y)²;   every `policy_every` updates the policy follows  max mean Q1(s, policy(s))

The policy is the run's model, spiking by default and coded by populations; both critics are ordinary nets, as in the
source of the spiking actor: they are not needed once training is over.

Source: Fujimoto et al., Addressing Function Approximation Error in Actor-Critic Methods (ICML 2018); the actor: Tang et
al., Deep Reinforcement Learning with Population-Coded Spiking Neural Network (CoRL 2020).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from spikecore.interfaces import Parts, Range, RunContext
from spikecore.trainers import make_optimizer
from spikecore_rl_agents.advantages import one_step_targets
from spikecore_rl_agents.agent import Agent, Count, EnvironmentTask, NotNegative, Positive, Share
from spikecore_rl_agents.dqn import Counts, follow
from spikecore_rl_agents.environments import EnvironmentConfig
from spikecore_rl_agents.policy import finite
from spikecore_rl_agents.replay import ReplayBuffer
from spikecore_rl_agents.spaces import Spaces, require_bounded
from spikecore_rl_agents.vector import seed_source


@dataclass(frozen=True, kw_only=True)
class ContinuousConfig(EnvironmentConfig):
    __doc__ = EnvironmentConfig.__doc__

    name: str = "Pendulum-v1"
    num_envs: Annotated[int, Range(ge=1)] = 1


class TwinCritic(nn.Module):
    """Two nets of linear and ReLU layers: observation and action → value.

    Args:
        shape: of an observation.
        num_actions: numbers of an action.
        hidden: width of each layer.
    """

    def __init__(self, shape: tuple[int, ...], num_actions: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        width = num_actions
        for size in shape:
            width += size
        self.first, self.second = (_values_net(width, hidden) for _ in range(2))

    def forward(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, *shape]` and `[B, num_actions]` → two values `[B]`."""
        x = torch.cat((observations.float().flatten(1), actions), 1)
        return self.first(x).squeeze(1), self.second(x).squeeze(1)


class TD3(Agent):
    """Twin delayed policy gradient. Neurons are at rest before every decision."""

    role_configs: ClassVar[Mapping[str, type]] = {"environment": ContinuousConfig}
    role_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "encoder": {"name": "direct", "num_steps": 5},
        "model": {"name": "population_mlp"},
    }
    short_run = {  # noqa: RUF012  (read only)
        "environment": {"name": "spikecore_rl_agents:spikecore/Reach-v0"},
        "trainer": {
            "iterations": 5,
            "iteration_steps": 80,
            "learning_starts": 80,
            "minibatch": 32,
            "replay_capacity": 2000,
            "critic_hidden": (32, 32),
            "target_rate": 0.05,
            "evaluate_every": 5,
            "eval_episodes": 8,
            "test_episodes": 8,
            "animation": False,
            "lr": 5e-3,
            "critic_lr": 5e-3,
        },
    }

    @dataclass(frozen=True)
    class Config(Agent.Config):
        """
        Args:
            iterations: of `iteration_steps` environment steps each.
            iteration_steps: steps of all environments together.
            minibatch: steps that are learned from at once.
            train_every: environment steps from one update to the next.
            learning_starts: environment steps of random actions before the first update.
            replay_capacity: steps that are remembered.
            num_steps: n of the returns.
            lr: of the policy.
            critic_lr: of the critics.
            critic_hidden: width of the layers of each critic.
            policy_every: updates of the critics for one of the policy and the target nets.
            target_rate: share of the nets that the target nets take over then.
            noise: deviation of the actions in training, as a share of half their range.
            target_noise: deviation of the actions of the target.
            noise_clip: c.
        """

        iterations: int = 30
        iteration_steps: Count = 1000
        minibatch: Count = 128
        train_every: Count = 1
        learning_starts: Count = 1000
        replay_capacity: Count = 100_000
        num_steps: Count = 1
        critic_lr: Positive = 1e-3
        critic_hidden: Annotated[tuple[int, ...], Range(ge=1)] = (256, 256)
        policy_every: Count = 2
        target_rate: Share = 0.005
        noise: NotNegative = 0.1
        target_noise: NotNegative = 0.2
        noise_clip: NotNegative = 0.5
        evaluate_every: Count = 1
        max_grad_norm: NotNegative = 0.0

    def check_spaces(self, name: str, spaces: Spaces) -> None:
        """See `Agent.check_spaces`."""
        require_bounded(name, spaces, "td3")

    def make_critic(self, parts: Parts, spaces: Spaces, input_shape: tuple[int, ...]) -> nn.Module:
        """See `Agent.make_critic`."""
        return TwinCritic(spaces.shape, spaces.num_actions, self.config.critic_hidden).to(parts.device)

    def greedy(self, out: Tensor, spaces: Spaces) -> Tensor:
        """The policy's action within the bounds."""
        return scaled(torch.tanh(out.detach().float().cpu()), spaces)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Of policy and critics."""
        return [self._policy_optimizer, self._critic_optimizer]

    def build(self, task: EnvironmentTask, context: RunContext) -> dict[str, Any]:
        """Target nets, optimizers, replay buffer."""
        config, spaces = self.config, task.known_spaces
        assert task.critic is not None
        self._critic = task.critic
        self._parameters = list(self.policy.parameters())
        self._policy_optimizer = make_optimizer(config.optimizer, self._parameters, config.lr)
        self._critic_optimizer = make_optimizer(config.optimizer, list(self._critic.parameters()), config.critic_lr)
        for group in self._critic_optimizer.param_groups:
            group["peak_lr"] = config.critic_lr
        self._target_policy = copy.deepcopy(self.policy).requires_grad_(False)
        self._target_critic = copy.deepcopy(self._critic).requires_grad_(False)
        self._counts = Counts()
        self._replay = ReplayBuffer(
            config.replay_capacity,
            task.environment.num_envs,
            spaces.shape,
            spaces.dtype,
            (spaces.num_actions,),
            torch.float32,
            num_steps=config.num_steps,
            gamma=config.gamma,
        )
        return {
            "policy_optimizer": self._policy_optimizer,
            "critic_optimizer": self._critic_optimizer,
            "critic": self._critic,
            "target_policy": self._target_policy,
            "target_critic": self._target_critic,
            "counts": self._counts,
        }

    def large_state_dict(self) -> dict[str, Any]:
        """The replay buffer."""
        if self._members is None:
            return self._pending_large
        return {"replay": self._replay.state_dict()}

    def load_large(self, state: dict[str, Any]) -> None:
        """See `Agent.load_large`."""
        self._replay.load_state_dict(state["replay"])

    def iterate(self, task: EnvironmentTask, context: RunContext) -> tuple[dict[str, float], list[float]]:
        """`iteration_steps` steps, and the updates that fall due."""
        config, environments = self.config, self.environments
        num_envs = task.environment.num_envs
        self.policy.train()
        next_seed = seed_source(context.generator)
        returns: list[float] = []
        critic_losses: list[float] = []
        policy_losses: list[float] = []
        for _ in range(max(1, config.iteration_steps // num_envs)):
            with context.timed("rollout"):
                observations = environments.observations
                if task.is_normalized:
                    self.normalizer.see(observations)
                actions = self._explore(task, observations, context)
                moves = environments.step(scaled(actions, task.known_spaces), next_seed)
                self._replay.add(observations, actions, moves)
                returns += moves.returns
            steps = environments.num_steps
            due = steps // config.train_every - (steps - num_envs) // config.train_every
            if steps >= config.learning_starts and self._replay.is_ready:
                with context.timed("learn"):
                    for _ in range(due):
                        self._learn(task, context, critic_losses, policy_losses)
        metrics = {"replay": float(len(self._replay))}
        if critic_losses:
            metrics["critic_loss"] = sum(critic_losses) / len(critic_losses)
        if policy_losses:
            metrics["policy_loss"] = sum(policy_losses) / len(policy_losses)
        return metrics, returns

    def _explore(self, task: EnvironmentTask, observations: Tensor, context: RunContext) -> Tensor:
        """Actions in -1 .. 1: random at first, then the policy's with noise."""
        config = self.config
        size = len(observations), task.known_spaces.num_actions
        if self.environments.num_steps < config.learning_starts:
            return 2 * torch.rand(size, generator=context.generator) - 1
        with torch.no_grad():
            out = finite(self.policy(self.observe(task, observations), context.device_generator))
        noise = torch.randn(size, generator=context.generator) * config.noise
        return (torch.tanh(out.float().cpu()) + noise).clamp(-1, 1)

    def _learn(
        self, task: EnvironmentTask, context: RunContext, critic_losses: list[float], policy_losses: list[float]
    ) -> None:
        config, device, generator = self.config, context.device, context.device_generator
        sample = self._replay.sample(config.minibatch, context.generator)
        seen = self.observe(task, sample.observations).to(device)
        followed = self.observe(task, sample.followed).to(device)
        actions = sample.actions.to(device)
        with torch.no_grad():
            noise = torch.randn(sample.actions.shape, generator=context.generator) * config.target_noise
            bounded = noise.clamp(-config.noise_clip, config.noise_clip).to(device)
            next_actions = (torch.tanh(self._target_policy(followed, generator)) + bounded).clamp(-1, 1)
            next_values = torch.minimum(*self._target_critic(followed, next_actions))
            wanted = one_step_targets(sample.returns.to(device), sample.discounts.to(device), next_values)
        first, second = self._critic(seen, actions)
        loss = (first - wanted).square().mean() + (second - wanted).square().mean()
        self._critic_optimizer.zero_grad()
        loss.backward()
        self.shorten(list(self._critic.parameters()))
        self._critic_optimizer.step()
        critic_losses.append(float(loss.detach()))
        self._counts.updates += 1
        if self._counts.updates % config.policy_every:
            return
        value, _ = self._critic(seen, torch.tanh(self.policy(seen, generator)))
        policy_loss = -value.mean()
        self._policy_optimizer.zero_grad()
        policy_loss.backward()
        self.shorten(self._parameters)
        self._policy_optimizer.step()
        policy_losses.append(float(policy_loss.detach()))
        follow(self._target_policy, self.policy, config.target_rate)
        follow(self._target_critic, self._critic, config.target_rate)


def scaled(actions: Tensor, spaces: Spaces) -> Tensor:
    """-1 .. 1 → the bounds of the environment's actions."""
    # Halves, since the distance between two numbers may be beyond float32.
    low, high = spaces.low / 2, spaces.high / 2
    return (low + high) + actions * (high - low)


def _values_net(width: int, hidden: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, 1))
