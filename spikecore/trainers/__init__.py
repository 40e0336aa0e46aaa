"""Trainers, and what authors of trainers build on."""

from spikecore.nn.losses import LOSS, READOUT, SEQUENCE_LOSS, VALUE_LOSS, Loss, readout_of
from spikecore.nn.readouts import over_own_steps, trusted_values
from spikecore.trainers.base import Trainer
from spikecore.trainers.batches import assemble, begin_epoch, in_batches, put_together, stack, stack_labels
from spikecore.trainers.confusion import confusion
from spikecore.trainers.optimizers import OPTIMIZER, Optimizer, make_optimizer
from spikecore.trainers.schedules import SCHEDULE, Schedule, factors_of
from spikecore.trainers.splits import TaskSplit, cut_validation, unaugmented
from spikecore.trainers.targets import label_problem
from spikecore.trainers.tasks import dataset_splits, dataset_task, require_model, require_target, step_shape

__all__ = [
    "LOSS",
    "OPTIMIZER",
    "READOUT",
    "SCHEDULE",
    "SEQUENCE_LOSS",
    "VALUE_LOSS",
    "Loss",
    "Optimizer",
    "Schedule",
    "TaskSplit",
    "Trainer",
    "assemble",
    "begin_epoch",
    "confusion",
    "cut_validation",
    "dataset_splits",
    "dataset_task",
    "factors_of",
    "in_batches",
    "label_problem",
    "make_optimizer",
    "over_own_steps",
    "put_together",
    "readout_of",
    "require_model",
    "require_target",
    "stack",
    "stack_labels",
    "step_shape",
    "trusted_values",
    "unaugmented",
]
