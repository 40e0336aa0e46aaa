"""Hooks: events that plugins can react to. A distribution's `spikecore.plugins` module implements any of them.

    from spikecore import hookimpl

    @hookimpl
    def spike_epoch_end(epoch, metrics):
        print(epoch, metrics["test_accuracy"])

An implementation names only the arguments it needs, and must not change them. If it raises, the run stops with an error
that names its plugin. `spike_log` and `spike_epoch_end` may raise `spikecore.errors.StopRun("why")` instead: the
run then ends at its next safe point, with a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pluggy

if TYPE_CHECKING:
    from torch import nn

PROJECT = "spikecore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class DoctorCheck:
    """One finding of `spike doctor`.

    Args:
        name: what was looked at, in a few words.
        status: `ok`; `missing` when an optional part is absent; `broken` when something installed does not work.
        detail: what was found.
        hint: what to do about it.
    """

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str = ""
    hint: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether a plugin filled it with what it is declared to hold."""
        is_text = all(isinstance(value, str) for value in (self.name, self.status, self.detail, self.hint))
        return is_text and self.status in ("ok", "missing", "broken")


class HookSpecs:
    """The hooks, in the order of a run."""

    @hookspec
    def spike_report_header(self, device: str) -> str | list[str]:  # type: ignore[empty-body]
        """Lines for the head of a run's output and record, such as the versions a plugin depends on."""

    @hookspec
    def spike_run_start(self, directory: Path, record: Mapping[str, Any], model: nn.Module) -> None:
        """Everything is built and the run directory exists; nothing is trained yet.

        Args:
            directory: the run directory.
            record: run.json so far, plain JSON data.
            model: the net, on its device.
        """

    @hookspec
    def spike_log(self, directory: Path, metrics: Mapping[str, float | int | str]) -> None:
        """A line of metrics is logged: of an epoch, or of a step where the trainer logs those too.

        A run that is resumed from an earlier checkpoint logs what came after it again.

        Args:
            directory: the run directory.
            metrics: name → value, as in `metrics.jsonl`; `epoch` counts epochs, `step` optimizer steps.
        """

    @hookspec
    def spike_epoch_end(self, directory: Path, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch is over, its metrics are logged, and its safe point is passed: a checkpoint that is due is written.

        Args:
            directory: the run directory.
            epoch: number of completed epochs.
            metrics: name → value.
        """

    @hookspec
    def spike_run_end(self, directory: Path, status: str, metrics: Mapping[str, float]) -> None:
        """The run is over, also when it failed; the record is written after this.

        Args:
            directory: the run directory.
            status: `finished`, `stopped` (by a hook), `interrupted` or `failed`.
            metrics: the final metrics; empty unless finished.
        """

    @hookspec
    def spike_doctor_checks(self) -> list[DoctorCheck]:  # type: ignore[empty-body]
        """Does what this plugin needs work here? Called in a process of its own, with a timeout."""
