"""Trainers without a dataset, without labels and without any part at all; none needs a plugin."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from spikecore.interfaces.component import Range
from spikecore.interfaces.task import Task
from spikecore.interfaces.trainer import TrainerCapabilities
from spikecore.trainers import Trainer, assemble, dataset_splits, in_batches, step_shape


class Corridor:
    """A line of cells. The walker starts somewhere inside; the right end pays 1, the left end nothing."""

    def __init__(self, length, max_steps):
        self.length, self.max_steps = length, max_steps
        self.position, self.num_steps = 0, 0

    def reset(self, position):
        self.position, self.num_steps = position, 0

    def step(self, action):
        """Returns (reward, is the episode over, was it cut off)."""
        self.position += 1 if action else -1
        self.num_steps += 1
        is_at_end = self.position in (0, self.length - 1)
        return float(self.position == self.length - 1), is_at_end, self.num_steps >= self.max_steps


class Walker(Trainer):
    """One-step actor-critic in a corridor: delta = r + gamma V(s') - V(s). Each step of the walker is a safe point."""

    capabilities = TrainerCapabilities(
        extendable=("epochs",), roles=("environment", "model", "neuron"), task="environment"
    )
    role_defaults = {"model": {"name": "mlp", "hidden": [16]}}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config:
        epochs: Annotated[int, Range(ge=0)] = 4
        episodes: Annotated[int, Range(ge=1)] = 8
        num_steps: Annotated[int, Range(ge=1)] = 3
        lr: Annotated[float, Range(gt=0.0)] = 0.02
        gamma: Annotated[float, Range(ge=0.0, le=1.0)] = 0.9

    @dataclass(frozen=True)
    class EnvironmentConfig:
        name: str = "corridor"
        length: Annotated[int, Range(ge=3)] = 6
        max_steps: Annotated[int, Range(ge=1)] = 20

    role_configs = {"environment": EnvironmentConfig}  # noqa: RUF012

    def __init__(self, **options):
        super().__init__(**options)
        self._optimizer, self._pending = None, None
        self._epoch, self._episode, self._sum = 0, 0, 0.0
        self._place = None
        """Position and steps of the episode that is going on; None between episodes."""

    def prepare(self, parts):
        environment = parts.options("environment")
        self._corridor = Corridor(environment.length, environment.max_steps)
        sizes = {"actor": 2, "critic": 1}
        nets = {name: parts.model((environment.length,), size) for name, size in sizes.items()}
        return Task(nn.ModuleDict(nets))

    def example(self, task):
        return self._seen(torch.arange(self._corridor.length))

    def fit(self, task, context):
        self._optimizer = torch.optim.Adam(task.model.parameters(), lr=self.config.lr)
        if self._pending is not None:
            self._optimizer.load_state_dict(self._pending)
            self._pending = None
        metrics = {}
        while self._epoch < self.config.epochs:
            while self._episode < self.config.episodes:
                self._walk(task, context)
            metrics = {"train_return": self._sum / self.config.episodes, **self.evaluate(task, context)}
            self._epoch, self._episode, self._sum = self._epoch + 1, 0, 0.0
            context.log(epoch=self._epoch, **metrics)
            context.epoch_end(self._epoch, metrics)
            context.checkpoint(metrics["test_return"])
        return self.evaluate(task, context)

    def _walk(self, task, context):
        """To the end of the episode, from where it stands."""
        task.model.train()
        corridor = self._corridor
        if self._place is None:
            start = int(torch.randint(1, corridor.length - 1, (), generator=context.generator))
            self._place = [start, 0]
        corridor.position, corridor.num_steps = self._place
        while self._place is not None:
            before = corridor.position
            with context.timed("forward"):
                chances, value = self._act(task, before)
                action = int(torch.multinomial(chances.detach(), 1, generator=context.generator))
                reward, is_over, is_cut = corridor.step(action)
                with torch.no_grad():
                    ahead = 0.0 if is_over else float(self._act(task, corridor.position)[1])
            delta = reward + self.config.gamma * ahead - value
            with context.timed("backward"):
                self._optimizer.zero_grad()
                (delta.square() - delta.detach() * chances[action].log()).backward()
                self._optimizer.step()
            self._sum += reward
            self._place = None if is_over or is_cut else [corridor.position, corridor.num_steps]
            self._episode += self._place is None
            context.checkpoint()

    def evaluate(self, task, context, split="test"):
        """`test_return`: of the greedy walker, over every start."""
        task.model.eval()
        corridor, total = Corridor(self._corridor.length, self._corridor.max_steps), 0.0
        with torch.no_grad(), context.timed("evaluate"):
            for start in range(1, corridor.length - 1):
                corridor.reset(start)
                is_over = is_cut = False
                while not (is_over or is_cut):
                    chances, _ = self._act(task, corridor.position)
                    reward, is_over, is_cut = corridor.step(int(chances.argmax()))
                    total += reward
        return {"test_return": total / (corridor.length - 2)}

    def _act(self, task, position):
        x = self._seen(torch.tensor([position]))
        return task.model["actor"](x).mean(0)[0].softmax(-1), task.model["critic"](x).mean(0)[0, 0]

    def _seen(self, position):
        """`[T, B, length]`: the walker's cell is bright in every step."""
        return 2 * nn.functional.one_hot(position, self._corridor.length).float().expand(self.config.num_steps, -1, -1)

    def state_dict(self):
        optimizer = self._optimizer.state_dict() if self._optimizer else self._pending
        kept = {"epoch": self._epoch, "episode": self._episode, "sum": self._sum, "place": self._place}
        return {"optimizer": optimizer, **kept}

    def load_state_dict(self, state):
        self._optimizer, self._pending = None, state["optimizer"]
        self._epoch, self._episode, self._sum = state["epoch"], state["episode"], state["sum"]
        self._place = state["place"]


class Reconstruct(Trainer):
    """The mean over time of the output is to be the sample itself: no label is read."""

    capabilities = TrainerCapabilities(extendable=("epochs",), task="unsupervised")
    role_defaults = {"model": {"name": "mlp", "hidden": [12]}}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config:
        epochs: Annotated[int, Range(ge=0)] = 2
        batch_size: Annotated[int, Range(ge=1)] = 128
        val_share: Annotated[float, Range(ge=0.0, lt=1.0)] = 0.1

    def __init__(self, **options):
        super().__init__(**options)
        self._optimizer, self._pending = None, None
        self._epoch, self._step, self._order = 0, 0, None

    def prepare(self, parts):
        dataset, encoder = parts.dataset(), parts.encoder()
        splits = dataset_splits(dataset, self.config.val_share, parts.seed)
        shape = step_shape(dataset, encoder, splits["train"], parts.device)
        model = parts.model(shape, math.prod(shape))
        return Task(model, encoder, **splits, num_outputs=math.prod(shape), is_sequence=dataset.is_sequence)

    def fit(self, task, context):
        self._optimizer = torch.optim.Adam(task.model.parameters(), lr=0.01)
        if self._pending is not None:
            self._optimizer.load_state_dict(self._pending)
            self._pending = None
        while self._epoch < self.config.epochs:
            task.model.train()
            self._order = context.generator.get_state() if self._order is None else self._order
            generator = torch.Generator()
            generator.set_state(self._order)
            batches = in_batches(task.train, self.config.batch_size, generator)
            for index in batches[self._step :]:
                self._optimizer.zero_grad()
                self._loss(task, context, task.train, index, context.device_generator).backward()
                self._optimizer.step()
                self._step += 1
                context.checkpoint()
            context.generator.set_state(generator.get_state())
            self._epoch, self._step, self._order = self._epoch + 1, 0, None
            metrics = self.evaluate(task, context, "val")
            context.log(epoch=self._epoch, **metrics)
            context.epoch_end(self._epoch, metrics)
            context.checkpoint(-metrics["val_error"])
        return {**self.evaluate(task, context, "val"), **self.evaluate(task, context, "test")}

    def evaluate(self, task, context, split="test"):
        task.model.eval()
        samples = task.split(split)
        with torch.no_grad():
            always = torch.Generator(context.device).manual_seed(0)  # an encoder that draws gives the same spikes
            return {f"{split}_error": float(self._loss(task, context, samples, range(len(samples)), always))}

    def _loss(self, task, context, split, index, generator):
        x = assemble(split, index, task.is_sequence).x.to(context.device)
        out = task.model(x if task.is_sequence else task.sequence(x, generator)).mean(0)
        wanted = x.mean(0) if task.is_sequence else x
        return nn.functional.mse_loss(out, wanted.flatten(1))

    def state_dict(self):
        optimizer = self._optimizer.state_dict() if self._optimizer else self._pending
        return {"optimizer": optimizer, "epoch": self._epoch, "step": self._step, "order": self._order}

    def load_state_dict(self, state):
        self._optimizer, self._pending = None, state["optimizer"]
        self._epoch, self._step, self._order = state["epoch"], state["step"], state["order"]


class Alone(Trainer):
    """Uses no role: net and numbers are its own."""

    capabilities = TrainerCapabilities(roles=(), task="unsupervised")

    @dataclass(frozen=True)
    class Config:
        epochs: int = 3

    _epoch = 0

    def prepare(self, parts):
        return Task(nn.Linear(2, 1, bias=False).to(parts.device))

    def fit(self, task, context):
        while self._epoch < self.config.epochs:
            with torch.no_grad():
                task.model.weight *= 0.5 + 0.1 * torch.rand(1, 2, generator=context.generator)
            self._epoch += 1
            context.log(epoch=self._epoch, **self.evaluate(task, context))
            context.checkpoint(0.0)
        return self.evaluate(task, context)

    def evaluate(self, task, context, split="test"):
        return {"norm": float(task.model.weight.detach().norm())}

    def state_dict(self):
        return {"epoch": self._epoch}

    def load_state_dict(self, state):
        self._epoch = state["epoch"]
