"""Base of trainers: checks the options, and has the default of every member that a trainer need not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from spikecore.interfaces.component import Configurable, make_config
from spikecore.interfaces.task import Parts, Task
from spikecore.interfaces.trainer import TrainerCapabilities
from spikecore.trainers.tasks import dataset_task


class Trainer(Configurable):
    """A subclass adds `fit`, `evaluate`, `state_dict` and `load_state_dict`; see `spikecore.interfaces.trainer`.

    Args:
        options: the fields of `Config`.

    Raises:
        OptionError: a wrong option.
    """

    api_version: ClassVar[int] = 3
    capabilities: ClassVar[TrainerCapabilities] = TrainerCapabilities()
    role_configs: ClassVar[Mapping[str, type]] = {}
    role_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    short_run: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Table → options with which training takes a second or two and still learns: the conformance suite trains with
    those of `trainer`, and of the roles whose options the trainer declares itself."""
    config: Any

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)

    def prepare(self, parts: Parts) -> Task:
        """See `interfaces.trainer.Trainer`; with the option `val_share`, where `Config` has it."""
        return dataset_task(parts, self.capabilities.task, getattr(self.config, "val_share", 0.0))

    def example(self, task: Task) -> Tensor | None:
        """See `interfaces.trainer.Trainer`."""
        return None

    def large_state_dict(self) -> dict[str, Any]:
        """See `interfaces.trainer.Trainer`."""
        return {}

    def load_large_state_dict(self, state: dict[str, Any]) -> None:
        """See `interfaces.trainer.Trainer`."""
