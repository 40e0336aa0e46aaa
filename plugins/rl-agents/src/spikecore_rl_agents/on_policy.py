"""What actor-critic agents share: a rollout of L steps in N environments, and both nets' answers to it once more."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Generator, Tensor, nn

from spikecore.interfaces import Parts, Range, RunContext
from spikecore.trainers import make_optimizer
from spikecore_rl_agents.actions import Choice, Gaussian
from spikecore_rl_agents.advantages import gae
from spikecore_rl_agents.agent import Agent, Count, EnvironmentTask, NotNegative, Share
from spikecore_rl_agents.policy import Policy, State, detached, finite, part_of, restarted
from spikecore_rl_agents.readout import Readout
from spikecore_rl_agents.spaces import Spaces
from spikecore_rl_agents.vector import seed_source


@dataclass
class Rollout:
    """What was seen and done, `[L, N, ...]`.

    Args:
        observations: as the policy takes them.
        actions, log_probs: chosen, and ln p of them then.
        values: V(s).
        advantages: A.
        over: bool: the episode ended with this step.
        states: of actor and critic before the first step, where they are carried.
        returns: of the episodes that ended.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    over: Tensor
    states: tuple[State, State] | None
    returns: list[float]


@dataclass
class Brain:
    """A policy, and the state of its neurons between decisions."""

    policy: Policy
    carries: bool
    state: State | None = None
    rest: State | None = None

    def decide(self, observations: Tensor, generator: Generator) -> Tensor:
        """`[N, *shape]` → `[N, K]`, going on from the state where it is carried."""
        if not self.carries:
            return self.policy(observations, generator)
        if self.rest is None:
            # The encoder may draw, so a generator of its own leaves the other where it is.
            self.rest = self.policy.rest(observations, Generator(self.policy.device).manual_seed(0))
        out, self.state = self.policy.carry(observations, self.state or self.rest, generator)
        return out

    def peek(self, observations: Tensor, generator: Generator) -> Tensor:
        """The same, without moving on."""
        kept = self.state
        out = self.decide(observations, generator)
        self.state = kept
        return out

    def restart(self, over: Tensor) -> None:
        """At rest again where an episode is over."""
        if self.state is not None and self.rest is not None:
            self.state = restarted(self.state, self.rest, over)

    def state_dict(self) -> dict[str, Any]:
        """State and rest."""
        return {"state": self.state, "rest": self.rest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.state, self.rest = (_on(state[name], self.policy.device) for name in ("state", "rest"))


class OnPolicy(Agent):
    """Base of A2C and PPO: a subclass learns from a rollout (`learn`)."""

    @dataclass(frozen=True)
    class Config(Agent.Config):
        """
        Args:
            iterations: rollouts.
            rollout_steps: steps of each environment in a rollout.
            gae_lambda: between one-step errors (0) and n-step returns (1).
            value_coef: weight of the critic's loss.
            entropy_coef: weight of the entropy, for exploration.
            critic: `same`: a net of the same model and neurons; `ordinary`: linear and tanh layers on the observation.
            critic_hidden: width of the layers of an ordinary critic.
            state: of the neurons: `reset` before every decision, or `carry` on within an episode; then gradients flow
                back through the rollout.
            normalize_advantages: to mean 0 and variance 1, over what is learned from at once.
        """

        rollout_steps: Count = 128
        gae_lambda: Share = 0.95
        value_coef: NotNegative = 0.5
        entropy_coef: NotNegative = 0.0
        critic: Literal["same", "ordinary"] = "same"
        critic_hidden: Annotated[tuple[int, ...], Range(ge=1)] = (64, 64)
        state: Literal["reset", "carry"] = "reset"
        normalize_advantages: bool = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def carries(self) -> bool:
        """See `Agent.carries`."""
        return bool(self.config.state == "carry")

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The one for all parameters."""
        assert self._optimizer is not None
        return [self._optimizer]

    def learn(self, task: EnvironmentTask, context: RunContext, rollout: Rollout) -> dict[str, float]:
        """Update both nets from a rollout; returns metrics."""
        raise NotImplementedError

    def make_critic(self, parts: Parts, spaces: Spaces, input_shape: tuple[int, ...]) -> nn.Module:
        """See `Agent.make_critic`."""
        if self.config.critic == "same":
            return parts.model(input_shape, 1)
        return ordinary_net(spaces.shape, self.config.critic_hidden, 1).to(parts.device)

    def greedy(self, out: Tensor, spaces: Spaces) -> Tensor:
        """The most probable action."""
        return Choice().best(out) if spaces.is_discrete else out.detach().float().cpu()

    def build(self, task: EnvironmentTask, context: RunContext) -> dict[str, Any]:
        """Critic, distribution of actions, optimizer."""
        spaces, device = task.known_spaces, context.device
        assert task.critic is not None
        if self.config.critic == "same":
            # An encoder that learns is the actor's; the critic has a copy.
            readout = Readout(self.config.decoder, self.config.readout_tau)
            critic = Policy(task.critic, copy.deepcopy(self.policy.encoder), readout, device, context.dtype)
        else:
            critic = Policy(task.critic, OneStep(), Readout("rate"), device, context.dtype)
        self.actions = (Choice() if spaces.is_discrete else Gaussian(spaces.num_actions)).to(device)
        self.actor_brain = Brain(self.policy, self.carries)
        self.critic_brain = Brain(critic, self.carries and self.config.critic == "same")
        self.parameters = list(
            dict.fromkeys([*self.policy.parameters(), *critic.parameters(), *self.actions.parameters()])
        )
        self._optimizer = make_optimizer(self.config.optimizer, self.parameters, self.config.lr)
        return {
            "optimizer": self._optimizer,
            "critic": critic,
            "actions": self.actions,
            "actor_state": self.actor_brain,
            "critic_state": self.critic_brain,
        }

    def iterate(self, task: EnvironmentTask, context: RunContext) -> tuple[dict[str, float], list[float]]:
        """A rollout, and what is learned from it."""
        self.policy.train()
        with context.timed("rollout"):
            rollout = self.collect(task, context)
        with context.timed("learn"):
            metrics = self.learn(task, context, rollout)
        return metrics, rollout.returns

    @torch.no_grad()
    def collect(self, task: EnvironmentTask, context: RunContext) -> Rollout:
        """Act for `rollout_steps` steps."""
        actor, critic, environments = self.actor_brain, self.critic_brain, self.environments
        next_seed = seed_source(context.generator)
        seen, actions, log_probs, values, rewards, terminated, truncated = ([] for _ in range(7))
        final_values: dict[int, Tensor] = {}
        returns: list[float] = []
        states = None
        observations = self.observe(task, environments.observations)
        for step in range(self.config.rollout_steps):
            if self.carries and step == 0:
                states = self._states(observations, context)
            out = finite(actor.decide(observations, context.device_generator))
            action, log_prob = self.actions.draw(out, context.generator)
            values.append(critic.decide(observations, context.device_generator).squeeze(1).cpu())
            seen.append(observations)
            actions.append(action)
            log_probs.append(log_prob)
            moves = environments.step(action, next_seed)
            rewards.append(moves.rewards)
            terminated.append(moves.terminated)
            truncated.append(moves.truncated)
            returns += moves.returns
            if bool(moves.truncated.any()):
                # What would have followed is only seen here: the environment begins anew.
                followed = self.observe(task, moves.followed)
                final_values[step] = critic.peek(followed, context.device_generator).squeeze(1).cpu()
            for brain in (actor, critic):
                brain.restart(moves.over)
            observations = self.observe(task, environments.observations, learns=True)
        values.append(critic.peek(observations, context.device_generator).squeeze(1).cpu())
        all_values = torch.stack(values)
        cut = torch.stack(truncated)
        next_values = all_values[1:].clone()
        for step, final in final_values.items():
            next_values[step] = torch.where(cut[step], final, next_values[step])
        ends, earned = torch.stack(terminated), torch.stack(rewards)
        advantages = gae(earned, all_values[:-1], next_values, ends, cut, self.config.gamma, self.config.gae_lambda)
        return Rollout(
            observations=torch.stack(seen),
            actions=torch.stack(actions),
            log_probs=torch.stack(log_probs),
            values=all_values[:-1],
            advantages=advantages,
            over=ends | cut,
            states=states,
            returns=returns,
        )

    def _states(self, observations: Tensor, context: RunContext) -> tuple[State, State]:
        """Of both nets' neurons now; at rest where nothing was decided yet."""
        states = []
        for brain in (self.actor_brain, self.critic_brain):
            if brain.carries and brain.rest is None:
                brain.rest = brain.policy.rest(observations, Generator(context.device).manual_seed(0))
            states.append(detached(brain.state or brain.rest or {}))
        return states[0], states[1]

    def answers(self, rollout: Rollout, index: Tensor, context: RunContext) -> tuple[Tensor, Tensor]:
        """Both nets' answers once more, with gradients: `[M, K]` and values `[M]`.

        Args:
            rollout: of which `index` picks steps (`[L N]`, flattened), or environments where state is carried.
        """
        nets = self.actor_brain, self.critic_brain
        if not self.carries:
            observations = rollout.observations.flatten(0, 1)[index]
            out, value = (brain.policy(observations, context.device_generator) for brain in nets)
            return out, value.squeeze(1)
        answers = [self._relive(rollout, index, number, context) for number in (0, 1)]
        return answers[0], answers[1].squeeze(1)

    def _relive(self, rollout: Rollout, index: Tensor, number: int, context: RunContext) -> Tensor:
        """A net's answers along the rollout of some environments, with state; time first, `[L M, K]`."""
        brain = (self.actor_brain, self.critic_brain)[number]
        observations = rollout.observations[:, index]
        if not brain.carries:
            return brain.policy(observations.flatten(0, 1), context.device_generator)
        assert rollout.states is not None
        assert brain.rest is not None
        batch = rollout.observations.shape[1]
        state = part_of(rollout.states[number], index, batch)
        rest = part_of(brain.rest, index, batch)
        outs = []
        for step, seen in enumerate(observations):
            out, state = brain.policy.carry(seen, state, context.device_generator)
            state = restarted(state, rest, rollout.over[step, index])
            outs.append(out)
        return torch.stack(outs).flatten(0, 1)


class OneStep(nn.Module):
    """The encoder of a net without time: T = 1."""

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """`[B, ...]` → `[1, B, ...]`."""
        return x.unsqueeze(0)


def ordinary_net(input_shape: tuple[int, ...], hidden: tuple[int, ...], num_outputs: int) -> nn.Sequential:
    """Linear and tanh layers on a flattened input `[T, B, *input_shape]`."""
    width = 1
    for size in input_shape:
        width *= size
    layers: list[nn.Module] = [nn.Flatten(2)] if len(input_shape) > 1 else []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.Tanh()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, num_outputs))


def _on(state: State | None, device: torch.device) -> State | None:
    if state is None:
        return None
    return {name: {key: value.to(device) for key, value in values.items()} for name, values in state.items()}
