"""DQN: deep Q-learning, with its common extensions.

    y = R + D max_a Q'(s', a)                          R, D: n-step return and discount; Q': the target net
    y = R + D Q'(s', argmax_a Q(s', a))                double
    Q = V + A - mean A                                 dueling: the net gives V and A
    L = mean w huber(Q(s, a) - y)                      w: importance weights of prioritised replay

Source: Mnih et al., Human-level control through deep reinforcement learning (Nature 2015); double: van Hasselt et al.
(2016); dueling: Wang et al. (2016); priorities: Schaul et al. (2016); n steps: Hessel et al., Rainbow (AAAI 2018).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikecore.interfaces import RunContext
from spikecore.trainers import make_optimizer
from spikecore_rl_agents.advantages import double_q, duel, one_step_targets
from spikecore_rl_agents.agent import Agent, Count, EnvironmentTask, NotNegative, Positive, Share
from spikecore_rl_agents.policy import finite
from spikecore_rl_agents.replay import ReplayBuffer
from spikecore_rl_agents.spaces import Spaces, require_discrete
from spikecore_rl_agents.vector import seed_source


class DQN(Agent):
    """Deep Q-learning. Neurons are at rest before every decision."""

    short_run = {  # noqa: RUF012  (read only)
        "environment": {"name": "spikecore_rl_agents:spikecore/Reach-v0", "options": ("discrete=True",)},
        "trainer": {
            "iterations": 5,
            "iteration_steps": 160,
            "learning_starts": 160,
            "minibatch": 32,
            "replay_capacity": 1000,
            "train_every": 4,
            "target_every": 20,
            "target_rate": 1.0,
            "epsilon_steps": 600,
            "evaluate_every": 5,
            "eval_episodes": 8,
            "test_episodes": 8,
            "animation": False,
            "lr": 5e-3,
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
            gradient_steps: updates then.
            learning_starts: environment steps before the first update.
            replay_capacity: steps that are remembered.
            target_every: updates from one copy of the net to the target net to the next.
            target_rate: share of the net that the target net takes over at each of them; 1 for a copy.
            epsilon_start: share of random actions at first.
            epsilon_end: share of random actions at last.
            epsilon_steps: environment steps until then.
            double: the online net chooses the action of the target.
            dueling: the net gives the value of the state and the advantages of the actions.
            num_steps: n.
            priority_alpha: exponent of the priorities; 0 samples uniformly.
            priority_beta: exponent of the weights at first; it grows to 1 over the iterations.
        """

        iterations: int = 100
        iteration_steps: Count = 1000
        lr: Positive = 3e-4
        minibatch: Count = 128
        train_every: Count = 1
        gradient_steps: Count = 1
        learning_starts: Count = 1000
        replay_capacity: Count = 50_000
        target_every: Count = 1
        target_rate: Share = 0.005
        epsilon_start: Share = 1.0
        epsilon_end: Share = 0.05
        epsilon_steps: Count = 10_000
        double: bool = True
        dueling: bool = False
        num_steps: Count = 1
        priority_alpha: NotNegative = 0.0
        priority_beta: Share = 0.4
        max_grad_norm: NotNegative = 10.0

    @classmethod
    def idle_options(cls, config: Any) -> Any:
        """Weights are there for priorities only."""
        yield from super().idle_options(config)
        if not config.priority_alpha:
            yield "priority_beta", "priority_alpha = 0 samples uniformly"

    def check_spaces(self, name: str, spaces: Spaces) -> None:
        """See `Agent.check_spaces`."""
        require_discrete(name, spaces, "dqn")

    def num_outputs(self, spaces: Spaces) -> int:
        """An output per action, and the value of the state."""
        return spaces.num_actions + int(self.config.dueling)

    def greedy(self, out: Tensor, spaces: Spaces) -> Tensor:
        """The action of the highest value."""
        return self._values(out).argmax(-1).cpu()

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The one."""
        return [self._optimizer]

    def build(self, task: EnvironmentTask, context: RunContext) -> dict[str, Any]:
        """Target net, optimizer, replay buffer."""
        config, spaces = self.config, task.known_spaces
        self._parameters = list(self.policy.parameters())
        self._optimizer = make_optimizer(config.optimizer, self._parameters, config.lr)
        self._target = copy.deepcopy(self.policy).requires_grad_(False)
        self._counts = Counts()
        self._replay = ReplayBuffer(
            config.replay_capacity,
            task.environment.num_envs,
            spaces.shape,
            spaces.dtype,
            num_steps=config.num_steps,
            gamma=config.gamma,
            alpha=config.priority_alpha,
        )
        return {"optimizer": self._optimizer, "target": self._target, "counts": self._counts}

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
        self.policy.train()
        next_seed = seed_source(context.generator)
        returns: list[float] = []
        losses: list[float] = []
        for _ in range(max(1, config.iteration_steps // task.environment.num_envs)):
            with context.timed("rollout"):
                observations = environments.observations
                if task.is_normalized:
                    self.normalizer.see(observations)
                actions = self._explore(task, observations, context)
                moves = environments.step(actions, next_seed)
                self._replay.add(observations, actions, moves)
                returns += moves.returns
            steps = environments.num_steps
            due = steps // config.train_every - (steps - task.environment.num_envs) // config.train_every
            if steps >= config.learning_starts and due and self._replay.is_ready:
                with context.timed("learn"):
                    losses += [self._learn(task, context) for _ in range(due * config.gradient_steps)]
        metrics = {"epsilon": self._epsilon(), "replay": float(len(self._replay))}
        if losses:
            metrics["loss"] = sum(losses) / len(losses)
        return metrics, returns

    def _values(self, out: Tensor) -> Tensor:
        return duel(out) if self.config.dueling else out

    def _epsilon(self) -> float:
        config = self.config
        share = min(1.0, self.environments.num_steps / config.epsilon_steps)
        return float(config.epsilon_start + (config.epsilon_end - config.epsilon_start) * share)

    def _explore(self, task: EnvironmentTask, observations: Tensor, context: RunContext) -> Tensor:
        """Greedy actions, some of them replaced by random ones. As many numbers are drawn, whatever becomes of them."""
        count, num_actions = len(observations), task.known_spaces.num_actions
        is_random = torch.rand(count, generator=context.generator) < self._epsilon()
        random = torch.randint(num_actions, (count,), generator=context.generator)
        if bool(is_random.all()):
            return random
        with torch.no_grad():
            out = finite(self.policy(self.observe(task, observations), context.device_generator))
        return torch.where(is_random, random, self.greedy(out, task.known_spaces))

    def _learn(self, task: EnvironmentTask, context: RunContext) -> float:
        """One update; the buffer holds observations as they came, so they are normalized as of now."""
        config, device, generator = self.config, context.device, context.device_generator
        progress = self._iteration / max(1, config.iterations)
        beta = config.priority_beta + (1 - config.priority_beta) * progress
        sample = self._replay.sample(config.minibatch, context.generator, beta)
        seen, followed = self.observe(task, sample.observations), self.observe(task, sample.followed)
        with torch.no_grad():
            next_values = self._next_values(followed, context)
            wanted = one_step_targets(sample.returns.to(device), sample.discounts.to(device), next_values)
        values = self._values(self.policy(seen, generator))
        chosen = values.gather(1, sample.actions.to(device).unsqueeze(1)).squeeze(1)
        errors = torch.nn.functional.smooth_l1_loss(chosen, wanted, reduction="none")
        loss = (errors * sample.weights.to(device)).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self.shorten(self._parameters)
        self._optimizer.step()
        self._replay.update(sample.index, chosen.detach() - wanted)
        self._counts.updates += 1
        if self._counts.updates % config.target_every == 0:
            follow(self._target, self.policy, config.target_rate)
        return float(loss.detach())

    def _next_values(self, followed: Tensor, context: RunContext) -> Tensor:
        target = self._values(self._target(followed, context.device_generator))
        if not self.config.double:
            return target.amax(1)
        return double_q(self._values(self.policy(followed, context.device_generator)), target)


class Counts:
    """How far an agent has come."""

    def __init__(self) -> None:
        self.updates = 0

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.updates = int(state["updates"])


@torch.no_grad()
def follow(target: torch.nn.Module, net: torch.nn.Module, rate: float) -> None:
    """target += rate (net - target), parameters and buffers; buffers of whole numbers are copied."""
    wanted = net.state_dict()
    for name, value in target.state_dict().items():
        if value.is_floating_point() and rate < 1:
            value.lerp_(wanted[name], rate)
        else:
            value.copy_(wanted[name])
