"""What all agents share: the parts, the loop over iterations, evaluation, what is shown, and what is saved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from spikecore.analysis import ENERGY_MODELS, Operations
from spikecore.errors import OptionError
from spikecore.interfaces import Curve, OneOf, Parts, Range, RunContext, Table, Task, TrainerCapabilities
from spikecore.trainers import Trainer
from spikecore_rl_agents.animation import film
from spikecore_rl_agents.environments import EnvironmentConfig, make_environment
from spikecore_rl_agents.evaluation import Decider, Decisions, Episodes, play
from spikecore_rl_agents.policy import Normalizer, Policy
from spikecore_rl_agents.readout import Decoder, Readout
from spikecore_rl_agents.spaces import Spaces, inspect_environment
from spikecore_rl_agents.vector import Environments, fixed_seeds, seed_source

STREAMS = {"val": 1, "test": 2, "train": 3}
"""Episodes that are evaluated on come from seeds of their own, which no training episode begins with on purpose."""
NUM_EXAMPLES = 32
ENERGY = "horowitz-fp32"
"""The model of energy in metrics and tables."""
Share = Annotated[float, Range(ge=0.0, le=1.0)]
Positive = Annotated[float, Range(gt=0.0, lt=math.inf)]
NotNegative = Annotated[float, Range(ge=0.0, lt=math.inf)]
Count = Annotated[int, Range(ge=1)]


@dataclass(frozen=True, eq=False)
class EnvironmentTask(Task):
    """A task whose data come from an environment.

    Args:
        environment: its options.
        spaces: of observations and actions.
        critic: further nets, which `spikecore.load` does not return.
        seed: of the run.
    """

    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    spaces: Spaces | None = None
    critic: nn.Module | None = None
    seed: int = 0

    @property
    def is_normalized(self) -> bool:
        """Whether policies take normalized observations."""
        return self.environment.normalize and self.known_spaces.is_measured

    @property
    def known_spaces(self) -> Spaces:
        """The spaces, which `prepare` has found."""
        assert self.spaces is not None
        return self.spaces


class History:
    """What the curves show: a point per iteration."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.train: list[float | None] = []
        self.val: list[float | None] = []
        self.latest: float | None = None
        """Mean return of the training episodes that ended last."""

    def add(self, steps: int, train: float | None, val: float | None) -> None:
        """A point after so many environment steps."""
        self.steps.append(float(steps))
        self.train.append(train)
        self.val.append(val)

    def curve(self) -> Curve:
        """Returns over steps; at most a thousand points are drawn."""
        every = max(1, math.ceil(len(self.steps) / 1000))
        # A point that was evaluated is kept, wherever it stands.
        kept = [i for i in range(len(self.steps)) if i % every == 0 or self.val[i] is not None]
        series: dict[str, list[float | None]] = {"training episodes": [self.train[i] for i in kept]}
        if any(value is not None for value in self.val):
            series["greedy, seeds of their own"] = [self.val[i] for i in kept]
        return Curve(
            series,
            x=[self.steps[i] for i in kept],
            x_label="environment step",
            caption="Mean undiscounted return of the episodes that ended in an iteration, and of greedy episodes.",
        )

    def state_dict(self) -> dict[str, Any]:
        """All points."""
        return {"steps": list(self.steps), "train": list(self.train), "val": list(self.val), "latest": self.latest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.train, self.val = list(state["steps"]), list(state["train"]), list(state["val"])
        self.latest = state["latest"]


class Agent(Trainer):
    """Base: a subclass builds its optimizers and further nets (`build`), and does one iteration (`iterate`).

    The task's model is the net that decides, so it is what `spikecore.load` returns and a deployer takes; critics and
    target nets are the trainer's. It shows the curve of the returns, a greedy episode, and operations and energy per
    decision beside those of the ordinary net. It resumes at the end of every iteration, to the same bits, where the
    environment is deterministic.
    """

    capabilities: ClassVar[TrainerCapabilities] = TrainerCapabilities(
        task="environment",
        roles=("environment", "encoder", "model", "neuron"),
        extendable=("iterations",),
    )
    role_configs: ClassVar[Mapping[str, type]] = {"environment": EnvironmentConfig}
    role_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "encoder": {"name": "direct", "num_steps": 4},
        "model": {"name": "mlp", "hidden": [64, 64]},
    }

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            iterations: a line, a point of the curve and a safe point each.
            gamma: discount of rewards per step.
            optimizer: of torch.optim, with its options.
            lr: peak learning rate.
            schedule: of the learning rate, over the iterations.
            decoder: how the net's output over time becomes a decision: `rate`, or the potential of a non-spiking
                readout neuron: `last`, `max`, `mean`, `max_abs`.
            readout_tau: time constant of that neuron in steps; 0 for no leak.
            max_grad_norm: gradients longer than this are shortened; 0 for no limit.
            evaluate_every: iterations from one evaluation to the next; `best` is chosen by them.
            eval_episodes: greedy episodes of such an evaluation.
            test_episodes: greedy episodes when training is over, from other seeds.
            animation: show a greedy episode.
        """

        iterations: Annotated[int, Range(ge=0)] = 100
        gamma: Share = 0.99
        optimizer: Annotated[Any, OneOf("optimizer")] = "adam"
        lr: Positive = 1e-3
        schedule: Annotated[Any, OneOf("schedule")] = "constant"
        decoder: Decoder = "rate"
        readout_tau: Annotated[float, Range(ge=0.0, lt=math.inf)] = 2.0
        max_grad_norm: NotNegative = 0.5
        evaluate_every: Count = 10
        eval_episodes: Count = 10
        test_episodes: Count = 20
        animation: bool = True

    @classmethod
    def option_problems(cls, config: Any) -> Any:
        """The readout neuron either leaks or does not."""
        if 0 < config.readout_tau <= 1:
            yield "readout_tau", f"must be above 1, or 0 for no leak, got {config.readout_tau:g}"

    @classmethod
    def idle_options(cls, config: Any) -> Any:
        """Rates are read without a readout neuron."""
        if config.decoder == "rate":
            yield "readout_tau", "decoder = 'rate' has no readout neuron"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._iteration = 0
        self._members: dict[str, Any] | None = None
        """What is saved, by name; None before `fit`."""
        self._pending: dict[str, Any] | None = None
        self._pending_large: dict[str, Any] = {}
        self.history = History()

    # What a subclass gives

    def num_outputs(self, spaces: Spaces) -> int:
        """Of the net that decides."""
        return spaces.num_actions

    def check_spaces(self, name: str, spaces: Spaces) -> None:
        """Raise ConfigError where this agent cannot act in such an environment."""

    def make_critic(self, parts: Parts, spaces: Spaces, input_shape: tuple[int, ...]) -> nn.Module | None:
        """Further nets, from the run's global generator."""
        return None

    def greedy(self, out: Tensor, spaces: Spaces) -> Tensor:
        """The policy's numbers `[B, K]` → the actions that it prefers, on the CPU."""
        raise NotImplementedError

    def build(self, task: EnvironmentTask, context: RunContext) -> dict[str, Any]:
        """Make what training needs; returns what of it is saved: name → object with `state_dict`."""
        raise NotImplementedError

    def iterate(self, task: EnvironmentTask, context: RunContext) -> tuple[dict[str, float], list[float]]:
        """One iteration: metrics, and the returns of the training episodes that ended in it."""
        raise NotImplementedError

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Whose learning rate follows the schedule."""
        raise NotImplementedError

    @property
    def carries(self) -> bool:
        """Whether neurons keep their state from one decision to the next."""
        return False

    # The trainer

    def prepare(self, parts: Parts) -> EnvironmentTask:
        """The net that decides, for the spaces of the environment, and the critic.

        Raises:
            ConfigError: the environment does not exist, or this agent cannot act in it.
        """
        environment: EnvironmentConfig = parts.options("environment")
        spaces = inspect_environment(environment)
        self.check_spaces(environment.name, spaces)
        if not environment.deterministic:
            self.capabilities = dataclasses.replace(type(self).capabilities, resumable=False)  # type: ignore[misc]
        encoder = parts.encoder()
        generator = torch.Generator(parts.device).manual_seed(0)
        with torch.no_grad():
            encoded = encoder(torch.zeros(1, *spaces.shape, device=parts.device), generator)
        input_shape = tuple(encoded.shape[2:])
        model = parts.model(input_shape, self.num_outputs(spaces))
        return EnvironmentTask(
            model=model,
            encoder=encoder,
            num_outputs=self.num_outputs(spaces),
            environment=environment,
            spaces=spaces,
            critic=self.make_critic(parts, spaces, input_shape),
            seed=parts.seed,
        )

    def example(self, task: EnvironmentTask) -> Tensor:  # type: ignore[override]
        """What the net is fed with for observations of random play, always the same."""
        environment = make_environment(task.environment, training=False)
        try:
            environment.action_space.seed(0)
            raw, _ = environment.reset(seed=0)
            seen = [raw]
            for number in range(1, NUM_EXAMPLES):
                raw, _, terminated, truncated, _ = environment.step(environment.action_space.sample())
                if terminated or truncated:
                    raw, _ = environment.reset(seed=number)
                seen.append(raw)
        finally:
            environment.close()
        observations = torch.cat([task.known_spaces.observe([raw]) for raw in seen])
        device = next(task.model.parameters()).device
        policy = Policy(task.model, _encoder_of(task), Readout(), device)
        with torch.no_grad():
            prepared = self._normalizer(task)(observations) if task.is_normalized else observations
            return policy.encode(prepared, torch.Generator(device).manual_seed(0))

    def fit(self, task: EnvironmentTask, context: RunContext) -> dict[str, float]:  # type: ignore[override]
        """Train to the last iteration; returns the metrics of the final net on validation and on test episodes."""
        if context.dtype == torch.float16:
            raise OptionError("run.precision: agents train in float32 or bfloat16; float16 needs a scaled loss")
        config = self.config
        with context.timed("building"):
            self.policy = self.make_policy(task, context)
            self.normalizer = Normalizer(task.known_spaces.shape)
            self.history = History()
            self.environments = Environments(
                task.environment, task.known_spaces, task.environment.num_envs, training=True
            )
        with self.environments:
            self._begin(task, context)
            metrics: dict[str, float] = {}
            steps = range(self._iteration, config.iterations)
            for number in context.progress(steps, "training", len(steps)):
                metrics = self._step(number, task, context)
        if not metrics:
            metrics = self.evaluate(task, context, "val")
        metrics = {name: value for name, value in metrics.items() if name.startswith("val_")}
        tested, operations = self._measure(task, context, "test", config.test_episodes)
        self._show(task, context, operations)
        return {**metrics, **tested}

    def evaluate(  # type: ignore[override]
        self, task: EnvironmentTask, context: RunContext, split: str = "test"
    ) -> dict[str, float]:
        """Greedy episodes: mean return and length, spikes and energy per decision, of the split's own seeds."""
        count = self.config.test_episodes if split == "test" else self.config.eval_episodes
        return self._measure(task, context, split, count)[0]

    def state_dict(self) -> dict[str, Any]:
        """Optimizers, critics, running episodes, curves."""
        if self._members is not None:
            members = {name: member.state_dict() for name, member in self._members.items()}
            return {"iteration": self._iteration, "members": members}
        return self._pending or {"iteration": self._iteration, "members": None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state` in the next `fit`."""
        self._members = None
        self._iteration = int(state["iteration"])
        self._pending = dict(state)

    def load_large_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state` in the next `fit`."""
        self._pending_large = dict(state)

    # For subclasses

    def make_policy(self, task: EnvironmentTask, context: RunContext) -> Policy:
        """The task's net as a policy."""
        readout = Readout(self.config.decoder, self.config.readout_tau)
        return Policy(task.model, _encoder_of(task), readout, context.device, context.dtype)

    def observe(self, task: EnvironmentTask, observations: Tensor, *, learns: bool = False) -> Tensor:
        """Observations as policies take them."""
        if not task.is_normalized:
            return observations
        if learns:
            self.normalizer.see(observations)
        return self.normalizer(observations)

    def shorten(self, parameters: list[nn.Parameter]) -> None:
        """Clip the gradients."""
        if self.config.max_grad_norm:
            nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)

    # Steps of `fit`

    def _begin(self, task: EnvironmentTask, context: RunContext) -> None:
        members = {"environments": self.environments, "normalizer": self.normalizer, "history": self.history}
        members |= self.build(task, context)
        saved = (self._pending or {}).get("members")
        if saved is None:
            next_seed = seed_source(context.generator)
            self.environments.begin([next_seed() for _ in range(task.environment.num_envs)])
        else:
            for name, member in members.items():
                member.load_state_dict(saved[name])
        if self._pending_large:
            self.load_large(self._pending_large)
        self._pending, self._pending_large = None, {}
        self._members = members

    def load_large(self, state: dict[str, Any]) -> None:
        """Put back what `large_state_dict` gave; called when all is built."""

    def _step(self, number: int, task: EnvironmentTask, context: RunContext) -> dict[str, float]:
        config = self.config
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.get("peak_lr", config.lr) * config.schedule(number / config.iterations)
        before = self.environments.num_steps
        metrics, returns = self.iterate(task, context)
        self._iteration = number + 1
        if returns:
            self.history.latest = sum(returns) / len(returns)
        if self.history.latest is not None:
            metrics = {"train_return": self.history.latest, **metrics}
        is_due = self._iteration % config.evaluate_every == 0 or self._iteration == config.iterations
        if is_due:
            metrics |= self.evaluate(task, context, "val")
        trained = self.history.latest if returns else None
        self.history.add(self.environments.num_steps, trained, metrics.get("val_return"))
        context.log(iteration=self._iteration, steps=self.environments.num_steps, **metrics)
        context.epoch_end(
            self._iteration,
            metrics,
            num_epochs=config.iterations,
            count=self.environments.num_steps - before,
            unit="steps",
        )
        context.checkpoint(metrics.get("val_return"))
        return metrics

    def _measure(
        self, task: EnvironmentTask, context: RunContext, split: str, count: int
    ) -> tuple[dict[str, float], Operations]:
        policy = self.make_policy(task, context)
        training = policy.training
        policy.eval()
        try:
            with context.timed("evaluate"):
                episodes = self._play(policy, task, context, split, count)
                operations = operations_of(policy, episodes.decisions)
        finally:
            policy.train(training)
        return {
            f"{split}_return": episodes.mean_return,
            f"{split}_length": episodes.mean_length,
            f"{split}_spikes": operations.total("spikes"),
            f"{split}_energy_nj": operations.energy_pj(ENERGY) / 1000,
        }, operations

    def _play(self, policy: Policy, task: EnvironmentTask, context: RunContext, split: str, count: int) -> Episodes:
        seeds = fixed_seeds(task.seed, STREAMS[split], count)
        return play(task.environment, task.known_spaces, self._decider(policy, task, context), seeds)

    def _decider(self, policy: Policy, task: EnvironmentTask, context: RunContext) -> Decider:
        normalizer = self._normalizer(task)
        return Decider(
            policy=policy,
            choose=lambda out: self.greedy(out, task.known_spaces),
            prepare=normalizer if task.is_normalized else lambda observations: observations,
            carries=self.carries,
            generator=Generator(context.device).manual_seed(0),
        )

    def _normalizer(self, task: EnvironmentTask) -> Normalizer:
        """Of the training so far, also where only an evaluation was asked for."""
        if self._members is not None:
            return self.normalizer
        normalizer = Normalizer(task.known_spaces.shape)
        saved = (self._pending or {}).get("members")
        if saved is not None:
            normalizer.load_state_dict(saved["normalizer"])
        return normalizer

    def _show(self, task: EnvironmentTask, context: RunContext, operations: Operations) -> None:
        if self.history.steps:
            context.show("returns", self.history.curve())
        context.show("energy per decision", energy_table(operations))
        if not self.config.animation:
            return
        policy = self.make_policy(task, context)
        training = policy.training
        policy.eval()
        try:
            (seed,) = fixed_seeds(task.seed, STREAMS["test"], 1)
            shown = film(task.environment, task.known_spaces, self._decider(policy, task, context), seed, task.model)
        finally:
            policy.train(training)
        if shown is not None:
            context.show("greedy episode", shown)


def operations_of(policy: Policy, decisions: Sequence[Decisions]) -> Operations:
    """What a policy does for a decision, from the state that its neurons were in."""
    observations = [kept.observations for kept in decisions]
    states = [kept.state for kept in decisions if kept.state is not None]
    if states:
        return policy.count_carried(observations, states)
    return policy.count_operations(torch.cat(observations))


def energy_table(operations: Operations) -> Table:
    """Operations and energy, layer by layer."""
    model = ENERGY_MODELS[ENERGY]
    rows: list[list[str | float]] = []
    totals = [0.0] * 5
    for layer in operations.products:
        dense = layer.dense / operations.num_steps
        numbers = (layer.macs, layer.acs, model.of_layer(layer) / 1000, dense, model.mac_pj * dense / 1000)
        rows.append([layer.name, *(float(f"{number:.5g}") for number in numbers)])
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
    rows.append(["all", *(float(f"{total:.5g}") for total in totals)])
    return Table(
        ["layer", "MACs", "ACs", "energy in nJ", "MACs of the ANN", "energy of the ANN in nJ"],
        rows,
        caption=f"Mean of greedy decisions, with {operations.total('spikes'):.5g} spikes each. ANN: the ordinary net "
        "of the same layers, run once. 4.6 pJ per MAC, 0.9 pJ per AC (45 nm, 32-bit float; Horowitz 2014), no memory.",
    )


def _encoder_of(task: Task) -> nn.Module:
    assert task.encoder is not None
    return task.encoder
