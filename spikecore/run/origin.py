"""The run that the net in a directory comes from, which has the data that the net is measured on.

In a run directory that is the run itself. In one that `spike convert` wrote, the run's configuration and record lie
below `source/`, as many times as the net was converted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from spikecore.errors import CheckpointError, ConfigError
from spikecore.run.build import Prepared
from spikecore.run.checkpoint import LAST
from spikecore.run.converted import beginning_of, is_converted, load_converted, weight_bytes
from spikecore.run.restore import SavedRun
from spikecore.run.sources import RUN

CONVERTED_NET = "converted"
"""Stands for the checkpoint of a net that has none."""


@dataclass(frozen=True)
class Origin:
    """A directory with a net, and the run it comes from.

    Args:
        directory: of a run, or written by `spike convert`.
        saved: the run; the directory itself, or the innermost `source/` in it.
        num_steps: T for which a net without state was converted; None where the net takes sequences as the run's does.
    """

    directory: Path
    saved: SavedRun
    num_steps: int | None = None

    @classmethod
    def of(cls, directory: Path) -> Origin:
        """Find the run.

        Raises:
            ConfigError: this is neither a run nor a converted net, the net was made by a function, or a converter is
                not installed.
            CheckpointError: a file is damaged.
        """
        if not is_converted(directory):
            return cls(directory, SavedRun.open(directory))
        beginning = beginning_of(directory)
        source = beginning.about
        if source["kind"] != RUN:
            made_of = ":".join(str(source[key]) for key in ("file", "function") if key in source)
            raise ConfigError(
                f"{directory}: this net was converted from {made_of}, which is no run and has no data, and no trainer "
                "that measures: `spike convert … --data DATASET --compare N` gives the accuracy of the new net, "
                "spikecore.load the net itself"
            )
        return cls(directory, SavedRun.open(beginning.place), beginning.num_steps)

    @property
    def is_converted(self) -> bool:
        """Whether the net is another one than the run's."""
        return self.saved.directory != self.directory

    @property
    def loaded_bytes(self) -> int:
        """Of the weights in the directory, the largest where there are several; 0 where there are none."""
        return weight_bytes(self.directory) if self.is_converted else self.saved.weight_bytes or 0

    @property
    def overrides(self) -> tuple[str, ...]:
        """What has to change in the run's configuration, so that its samples are sequences for this net."""
        encoder = self.saved.record.config.get("encoder", {})
        if self.num_steps is None or "num_steps" not in encoder:
            return ()
        return (f"encoder.num_steps={self.num_steps}",)

    def restore(self, prepared: Prepared, checkpoint: str, backend: str | None = None) -> tuple[Prepared, str]:
        """Put the net's weights, and what else the run learned, into what was prepared from the run's configuration.

        Args:
            prepared: from `saved`, with `overrides`.
            checkpoint: `last`, `best` or a name; a converted net has only the one.
            backend: to run the neurons of a converted net on; None for the one that the converter chose.

        Returns:
            It, with a converted net in the place of the run's own; and the checkpoint's name.

        Raises:
            ConfigError: the run's encoder has weights, which a converted net's directory does not hold.
            CheckpointError: the checkpoint is missing, damaged, foreign or of another model.
        """
        task, context = prepared.task, prepared.context
        if not self.is_converted:
            saved_state = self.saved.checkpoint(checkpoint, task.model)
            context.restore(saved_state, prepared.trainer, task.encoder)
            task.model.load_state_dict(saved_state.model)
            return prepared, saved_state.name
        if checkpoint != LAST:
            raise CheckpointError(f"{self.directory}: a converted net has no checkpoints; leave out {checkpoint!r}")
        if task.encoder is not None and task.encoder.state_dict():
            raise ConfigError(
                f"{self.directory}: the encoder of the run has weights, and a converted net comes without them: its "
                "samples cannot be encoded as the run's were"
            )
        net = load_converted(self.directory, backend).to(context.device)
        return replace(prepared, task=replace(task, model=net)), CONVERTED_NET
