"""Trainers, datasets and models by what they learn from: the suites catch the broken ones and pass the sound ones."""

from dataclasses import dataclass

import pytest
import torch

from spikecore.interfaces.dataset import Batch
from spikecore.interfaces.model import ModelCapabilities
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.proving import prove
from tests.conformance.faults.datasets import Padding, ToySequences
from tests.conformance.planting import assert_caught, name_of, table
from tests.conformance.toys import (
    Replaying,
    ToyDataset,
    ToyItems,
    ToyItemSplit,
    ToyModel,
    ToyRegression,
    ToySequenceTrainer,
    ToySplit,
    ToyStepClasses,
    ToySteps,
    ToyStepSplit,
    ToyTrainer,
    ToyValues,
    ToyValueSplit,
)
from tests.run.toy_trainers import Reconstruct, Walker

FAULTS, fault = table()


@fault("test_the_test_split_is_read_last", "the test split was read after 1 of 4 epochs|read after 0 of")
class ChoosesByTest(ToyTrainer):
    """chooses the best net by the test split"""

    def tell(self, context):
        self.metrics |= self.evaluate(self.task, context, "test")
        super().tell(context)

    def fit(self, task, context):
        self.task = task
        return super().fit(task, context)


@fault("test_metrics", "calls metrics loss, not")
class NamesNoSplit(ToyTrainer):
    """metrics that do not say which split they are of"""

    def evaluate(self, task, context, split="test"):
        return {"loss": super().evaluate(task, context, split)[f"{split}_loss"]}

    def tell(self, context):
        context.log(epoch=self.epoch, **self.metrics)
        context.epoch_end(self.epoch, dict(self.metrics))
        context.checkpoint(-self.metrics["loss"])


@fault("test_metrics", "disagree on the final model|two evaluations differ")
class EvaluatesNoise(ToyTrainer):
    """an evaluation that goes on with the run's random numbers"""

    def evaluate(self, task, context, split="test"):
        noise = float(torch.rand((), generator=context.device_generator))
        return {f"{split}_loss": super().evaluate(task, context, split)[f"{split}_loss"] + noise}


@fault("test_evaluation_changes_nothing", "drew random numbers from context.device_generator")
class EvaluatesWithTheRunsNumbers(EvaluatesNoise):
    """an evaluation that moves the run's generator on"""


@fault("test_weights_fit_the_model", "16 of 96 safe points have weights")
class WeightsNowAndThen(ToyTrainer):
    """averaged weights with a score only, so that `last` and `best` hold different things"""

    def fit(self, task, context):
        self.model = task.model
        return super().fit(task, context)

    def tell(self, context):
        context.log(epoch=self.epoch, **self.metrics)
        context.epoch_end(self.epoch, dict(self.metrics))
        context.checkpoint(-self.metrics["val_loss"], self.model.state_dict())


@fault("test_weights_fit_the_model", "the weights are 1.weight")
class WeightsInPart(ToyTrainer):
    """averaged weights of one layer only"""

    def fit(self, task, context):
        checkpoint = context.checkpoint
        part = {"1.weight": task.model[1].weight.detach()}
        context.checkpoint = lambda score=None: checkpoint(score, part)
        return super().fit(task, context)


@fault("test_resumed_equals_uninterrupted", "weights from safe point")
class ForgetsItsBuffer(Replaying):
    """a replay buffer that is lost"""

    def load_large_state_dict(self, state):
        """Nothing."""


@fault("test_state_is_plain", "large_state_dict")
class ObjectBuffer(Replaying):
    """a replay buffer that needs pickle"""

    def large_state_dict(self):
        return {"seen": [object()]}


@fault("test_it_learns", "the mean squared error on the training samples")
class WrongSign(ToyRegression):
    """a regression whose labels are turned round"""

    def loss(self, task, split, batch):
        return ToyRegression.error(self, task, split, batch, sign=-1.0)


@fault("test_it_learns", "the mean squared error on the training samples")
class StepsTurned(ToySequenceTrainer):
    """compares each step with the label of another"""

    def error(self, task, split, batch, sign=1.0):
        samples = [split[index] for index in batch]
        x, wanted = torch.stack([x for x, _ in samples], 1), torch.stack([y for _, y in samples], 1)
        return (task.model(x) - wanted.flip(0)).square().mean()


@fault("test_it_learns", "its score did not rise")
class WalksBackwards(Walker):
    """an agent that climbs down its return"""

    def _walk(self, task, context):
        before = {name: value.clone() for name, value in task.model.named_parameters()}
        super()._walk(task, context)
        with torch.no_grad():
            for name, value in task.model.named_parameters():
                value.copy_(2 * before[name] - value)


@fault("test_it_learns", "its score did not rise")
class Forgets(Reconstruct):
    """learns nothing of what it sees"""

    def _loss(self, task, context, split, index, generator):
        loss = super()._loss(task, context, split, index, generator)
        return -loss if loss.requires_grad else loss


# datasets with other targets


@fault("test_labels", r"its label is 0 \(int\); for the target 'value' it must be a tensor")
class IntsForValues(ToyValues):
    """values that are whole numbers"""

    make_split = ToySplit


class Unfinished(ToyValueSplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x, label / (0.0 if index == 5 else 1.0)


@fault("test_labels", r"train\[5\]: its label holds (inf|nan|-inf); values must be finite")
class NotFinite(ToyValues):
    """a value that is not finite"""

    make_split = Unfinished


class Shorter(ToyStepSplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x, label[1:]


@fault("test_labels", "its label has 2 steps, the sample itself 3")
class ShorterLabels(ToySteps):
    """labels for fewer steps than the samples have"""

    make_split = Shorter


class Stacking(ToyItemSplit):
    def collate(self, samples, generator):
        return Batch(torch.stack([x for x, _ in samples]), torch.cat([label for _, label in samples]))


@fault("test_batches_of_labels", "the labels of items must stay a list")
class StackedItems(ToyItems):
    """items of several samples joined into one tensor"""

    make_split = Stacking


@dataclass(frozen=True)
class WrongLabels(ToySplit):
    @property
    def labels(self):
        return torch.arange(self.size) // 3 % 3


@fault("test_known_labels", "`labels`, compared with the samples")
class LabelsOfOthers(ToyDataset):
    """`labels` in another order than the samples"""

    make_split = WrongLabels


class StillAugmented(Padding):
    def unaugmented(self):
        return Padding(self.seed, self.size)


@fault("test_unaugmented", "unaugmented samples in another epoch")
class AugmentedValidation(ToySequences):
    """a validation part that is augmented like the training split"""

    make_split = StillAugmented


# models


class Bounded(ToyModel):
    """Ends in rates, between 0 and 1."""

    def forward(self, x):
        return super().forward(x).sigmoid()


@fault("test_targets_values", "cannot be what this target asks for")
class RatesForValues(Bounded):
    """mis-declared capability: can be trained for values, and gives rates"""


@fault("test_targets_sequences", "cannot be what this target asks for")
class LastStepOnly(ToyModel):
    """mis-declared capability: can be trained for sequences, and is silent until the last step"""

    def forward(self, x):
        out = super().forward(x)
        if self.neuron.step_mode == "single":
            return out
        return torch.cat([torch.zeros_like(out[:-1]), out[-1:]])


@pytest.fixture
def registry():
    with use(Registry(blocking=Blocking())) as own:
        yield own


class RatesForClasses(Bounded):
    """A sound model for classes only."""

    capabilities = ModelCapabilities(targets=("class",))


SHORTER = {Walker: {"epochs": 2, "episodes": 6}}
"""Options that save most of the time."""
SOUND = [
    *(("dataset", sound) for sound in (ToyValues, ToySteps, ToyStepClasses, ToyItems)),
    *(("trainer", sound) for sound in (ToyRegression, ToySequenceTrainer, Reconstruct, Walker, Replaying)),
    ("model", RatesForClasses),
]
NEVER_SKIPPED = {
    "trainer": {
        "test_it_learns",
        "test_resumed_equals_uninterrupted",
        "test_interrupt_gets_through",
        "test_writes_no_file",
    },
    "dataset": {"test_labels", "test_batches_of_labels"},
    "model": {"test_targets_classes"},
}


@pytest.mark.parametrize(("kind", "sound"), SOUND)
def test_the_sound_ones_pass(kind, sound, registry):
    registry.register(kind, "toy", sound)
    report = prove(kind, "toy", SHORTER.get(sound, {}))
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    assert not {name: outcome for name, outcome in outcomes.items() if outcome not in ("passed", "skipped")}, report
    assert report["ok"]
    assert {outcomes[name] for name in NEVER_SKIPPED[kind]} == {"passed"}


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_the_named_check_catches_it(fault, registry):
    assert_caught(fault, registry)
