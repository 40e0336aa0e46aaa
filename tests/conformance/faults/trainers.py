"""Faults planted in trainers."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from spikecore.interfaces.processes import Shard
from spikecore.interfaces.trainer import TrainerCapabilities
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyTrainer,
)

FAULTS, fault = table()


@fault("test_same_seed_same_bits", "second run")
class GlobalShuffle(ToyTrainer):
    """hidden randomness: shuffles with torch's global generator"""

    def draw(self, size, context):
        return torch.randperm(size).tolist()


@fault("test_resumed_equals_uninterrupted", "weights from safe point")
class ForgetsMomentum(ToyTrainer):
    """resumes without its momentum"""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "velocity": None})


@fault("test_resumed_equals_uninterrupted", "safe point")
class BetweenEpochs(ToyTrainer):
    """mis-declared capability: resumes at the start of the epoch only"""

    def state_dict(self):
        return {**super().state_dict(), "order": None}


@dataclass(frozen=True)
class Extendable(TrainerCapabilities):
    extendable: tuple[str, ...] = ("epochs",)


class ToyExtendable(ToyTrainer):
    """A sound trainer whose finished runs can go on."""

    capabilities = Extendable()


@fault("test_extended", "does not go on")
class Finished(ToyExtendable):
    """mis-declared capability: says that a run can be extended, and stops where it was"""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "epoch": max(state["epoch"], self.config.epochs)})


@fault("test_hooks_in_order", "without a line in the log")
class HooksTurned(ToyTrainer):
    """tells of an epoch before it is in the log"""

    def tell(self, context):
        context.epoch_end(self.epoch, dict(self.metrics))
        context.log(epoch=self.epoch, **self.metrics)
        context.checkpoint(-self.metrics["val_loss"])


@fault(
    "test_resumed_equals_uninterrupted", r"epoch_end\(1\) comes after the safe point.*context\.log.*epoch_end.*check"
)
class SavesFirst(ToyTrainer):
    """a safe point before the epoch that it counts as done is told"""

    def tell(self, context):
        context.log(epoch=self.epoch, **self.metrics)
        context.checkpoint(-self.metrics["val_loss"])
        context.epoch_end(self.epoch, dict(self.metrics))


@fault("test_hooks_in_order", r"epoch_end\(1\) comes after the safe point")
class SavesBeforeTheLine(ToyTrainer):
    """a safe point before the line of the epoch that it counts as done"""

    def tell(self, context):
        context.checkpoint(-self.metrics["val_loss"])
        context.log(epoch=self.epoch, **self.metrics)
        context.epoch_end(self.epoch, dict(self.metrics))


@fault(
    "test_resumed_equals_uninterrupted",
    r"agree it tells context\.log\(\{'epoch': 1.*, uninterrupted context\.log\(\{'epoch': 6",
)
class ForgetsTheEpoch(ToyTrainer):
    """a state without the number of the epoch, which only its messages show"""

    told = 0

    def tell(self, context):
        self.told += 1
        context.log(epoch=self.told)
        context.epoch_end(self.told, dict(self.metrics))
        context.checkpoint(-self.metrics["val_loss"])


@fault("test_hooks_in_order", "epochs told")
class CountsFromZero(ToyTrainer):
    """epochs that count from zero"""

    def tell(self, context):
        context.log(epoch=self.epoch, **self.metrics)
        context.epoch_end(self.epoch - 1, dict(self.metrics))
        context.checkpoint(-self.metrics["val_loss"])


@fault("test_it_learns", "the loss went from")
class Uphill(ToyTrainer):
    """wrong gradient: climbs"""

    def loss(self, *args):
        return -super().loss(*args)


@fault("test_evaluation_changes_nothing", "weights after evaluate")
class TrainsOnTest(ToyTrainer):
    """evaluating changes the weights"""

    def evaluate(self, task, context, split="test"):
        metrics = super().evaluate(task, context, split)
        next(task.model.parameters()).data.mul_(0.999)
        return metrics


@fault("test_writes_no_file", "it left")
class WritesFiles(ToyTrainer):
    """writes a file of its own"""

    def tell(self, context):
        torch.save(self.metrics, "metrics.pt")
        super().tell(context)


@fault("test_interrupt_gets_through", "DID NOT RAISE")
class Deaf(ToyTrainer):
    """swallows Ctrl-C"""

    def fit(self, task, context):
        try:
            return super().fit(task, context)
        except KeyboardInterrupt:
            return {"test_loss": 0.0}


@fault("test_state_is_plain", "not saved without pickle")
class ObjectState(ToyTrainer):
    """a state that needs pickle"""

    def state_dict(self):
        return {**super().state_dict(), "counter": Counter("abc").most_common and object()}


class ToyShared(ToyTrainer):
    """Trains in several processes as in one."""

    capabilities = replace(ToyTrainer.capabilities, multi_process=True)

    def fit(self, task, context):
        self.net = self.wrapped(task, context)
        return super().fit(task, context)

    def wrapped(self, task, context):
        return context.wrap(task.model)

    def step(self, task, context, parameters, batch):
        shard = context.shard(batch)
        for parameter in parameters:
            parameter.grad = None
        (self.weighted(self.loss(replace(task, model=self.net), task.train, shard.index), shard)).backward()
        for parameter, velocity in zip(parameters, self.velocity, strict=True):
            velocity.mul_(0.9).add_(parameter.grad)
            parameter.data.add_(velocity, alpha=-self.config.lr)

    def weighted(self, loss, shard):
        return loss * shard.weight

    def evaluate(self, task, context, split="test"):
        samples = task.split(split)
        shard = context.shard(range(len(samples)))
        with torch.no_grad():
            loss = self.loss(task, samples, shard.index) * len(shard.index) / len(samples)
        return {f"{split}_loss": float(self.summed(loss, context))}

    def summed(self, value, context):
        return context.all_sum(value)


TWO = "test_two_processes_train_as_one"


@fault(TWO, "the weights of process 1")
class TrainsApart(ToyShared):
    """each process follows its own gradient"""

    def wrapped(self, task, context):
        return task.model


@fault(TWO, "one process ends with")
class WeighsAlike(ToyShared):
    """shards of different sizes count alike"""

    def weighted(self, loss, shard):
        return loss


@fault(TWO, "the metrics of process 1")
class MeasuresApart(ToyShared):
    """each process tells the metrics of its own samples"""

    def summed(self, value, context):
        return value


@fault(TWO, "0 came to [0-9]+ safe points, process 1 to 0")
class FirstSavesAlone(ToyShared):
    """only rank 0 comes to the safe points"""

    def fit(self, task, context):
        if context.rank:
            context.checkpoint = lambda *_, **__: None
        return super().fit(task, context)


@fault(TWO, "a process left rank-1.txt")
class BothWrite(ToyShared):
    """rank 1 writes a file"""

    def fit(self, task, context):
        if context.rank:
            Path("rank-1.txt").write_text("mine")
        return super().fit(task, context)


@fault(TWO, "never asked for its shard")
class WholeBatches(ToyShared):
    """every process computes the whole batch"""

    def fit(self, task, context):
        context.shard = lambda batch: Shard(batch, 1.0)
        self.summed = lambda value, context: value
        return super().fit(task, context)


@fault(TWO, "process 1 of 2 failed")
class FailsAlone(ToyShared):
    """rank 1 fails"""

    def fit(self, task, context):
        if context.rank:
            raise ValueError("the sensor burnt through")
        return super().fit(task, context)
