"""Trainers, and what authors of trainers build on."""

from spikecore.trainers.base import Trainer
from spikecore.trainers.batches import assemble, begin_epoch, in_batches, put_together
from spikecore.trainers.confusion import confusion
from spikecore.trainers.tasks import dataset_task, step_shape

__all__ = [
    "Trainer",
    "assemble",
    "begin_epoch",
    "confusion",
    "dataset_task",
    "in_batches",
    "put_together",
    "step_shape",
]
