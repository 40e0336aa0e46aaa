"""The net in a directory: of a run, of a conversion, or shared."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from spikecore.errors import CheckpointError
from spikecore.run.checkpoint import LAST
from spikecore.run.converted import is_converted, load_converted
from spikecore.run.restore import load as load_run
from spikecore.run.shared import is_shared, load_shared


def load(directory: str | Path, checkpoint: str = LAST, *, backend: str | None = None) -> nn.Module:
    """The net of a run, `spike convert` or `spike share`, in evaluation mode, on the CPU; every byte read is verified.

    It needs the directory and the plugins of model, neuron, backend and converter; neither the dataset nor the trainer,
    unless the trainer made the net itself.

    Args:
        directory: the run directory, or one that `spike convert` or `spike share` wrote.
        checkpoint: `last`, `best` or a name; a converted or shared net has only the one.
        backend: to run the neurons on; None for the run's own.

    Raises:
        ConfigError: this is no run and no converted net, it was edited, or a file that it was made with is not here.
        CheckpointError: the checkpoint is missing, damaged, foreign or of another model.
    """
    if is_shared(Path(directory)):
        if checkpoint != LAST:
            raise CheckpointError(f"{directory}: a shared net has no checkpoints; leave out checkpoint={checkpoint!r}")
        return load_shared(Path(directory), backend)
    if not is_converted(Path(directory)):
        return load_run(directory, checkpoint, backend=backend)
    if checkpoint != LAST:
        raise CheckpointError(f"{directory}: a converted net has no checkpoints; leave out checkpoint={checkpoint!r}")
    return load_converted(Path(directory), backend)
