"""What plugin authors test with: conformance suites for every kind, and distributions made on the spot.

    from spikecore.testing import NeuronSuite

    class TestMine(NeuronSuite):
        component = "mine"

`spike test neuron:mine` and `pytest --pyargs spikecore.testing --spike-component neuron:mine` run the same checks. The
suites need `pip install 'spikecore[testing]'`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikecore.testing.suite import Suite
    from spikecore.testing.suites.backend import BackendSuite
    from spikecore.testing.suites.converter import ConverterSuite
    from spikecore.testing.suites.dataset import DatasetSuite
    from spikecore.testing.suites.deployer import DeployerSuite
    from spikecore.testing.suites.encoder import EncoderSuite
    from spikecore.testing.suites.model import ModelSuite
    from spikecore.testing.suites.neuron import NeuronSuite
    from spikecore.testing.suites.surrogate import SurrogateSuite
    from spikecore.testing.suites.trainer import TrainerSuite

__all__ = [
    "BackendSuite",
    "ConverterSuite",
    "DatasetSuite",
    "DeployerSuite",
    "EncoderSuite",
    "ModelSuite",
    "NeuronSuite",
    "Suite",
    "SurrogateSuite",
    "TrainerSuite",
]


def __getattr__(name: str) -> Any:
    """Load a suite when it is used: suites need pytest and torch, other modules of this package do not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "suite" if name == "Suite" else f"suites.{name.removesuffix('Suite').lower()}"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
