"""Faults planted in trainers."""

from collections import Counter
from dataclasses import dataclass

import torch

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
