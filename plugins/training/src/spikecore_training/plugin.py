"""The hooks of this plugin: events for TensorBoard, for runs whose trainer has `tensorboard = true`.

Every logged line becomes scalars in `RUN_DIR/tensorboard`: those of epochs over epochs, those of steps over steps. It
is also an example of how a plugin logs elsewhere: it keeps what it opens by run directory, and closes it at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikecore import hookimpl

FOLDER = "tensorboard"
_writers: dict[Path, Any] = {}


@hookimpl
def spike_run_start(directory: Path, record: Mapping[str, Any]) -> None:
    """Open a writer where the trainer asks for one."""
    if not record["config"].get("trainer", {}).get("tensorboard", False):
        return
    from torch.utils.tensorboard import SummaryWriter  # imports tensorboard, which is optional

    _writers[directory] = SummaryWriter(str(directory / FOLDER))


@hookimpl
def spike_log(directory: Path, metrics: Mapping[str, float | int | str]) -> None:
    """Write the numbers of a line."""
    writer = _writers.get(directory)
    if writer is None:
        return
    axis = "step" if "step" in metrics else "epoch"
    position = int(metrics.get(axis, 0))
    for name, value in metrics.items():
        if name not in ("step", "epoch") and isinstance(value, int | float):
            writer.add_scalar(name, value, position)


@hookimpl
def spike_run_end(directory: Path) -> None:
    """Close the writer; also of a run that failed."""
    writer = _writers.pop(directory, None)
    if writer is not None:
        writer.close()
