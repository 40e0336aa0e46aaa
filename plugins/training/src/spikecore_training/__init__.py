"""Trainers for spikecore: `supervised`, `regression`, `sequence`."""

from spikecore_training.loop import Loop
from spikecore_training.meters import Meter
from spikecore_training.options import LoopConfig

__all__ = ["Loop", "LoopConfig", "Meter"]
