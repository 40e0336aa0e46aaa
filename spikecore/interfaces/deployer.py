"""Deployer: a spiking net → an artefact for a device or an exchange format, and its numbers checked.

Deployers map *declared* neurons by registered type and parameters and refuse the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


@dataclass(frozen=True)
class DeployerCapabilities:
    """What a deployer promises.

    Args:
        simulates: `simulate` runs the artefact here, without the device.
        bit_exact: the simulation equals the exported integers exactly; otherwise within `tolerance`.
        tolerance: largest difference of outputs between net and simulation, in spikes per output and step.
        deterministic: equal nets give equal artefacts, byte for byte.
    """

    simulates: bool = False
    bit_exact: bool = False
    tolerance: float = 0.0
    deterministic: bool = True


@dataclass(frozen=True)
class Artefact:
    """What `export` wrote.

    Args:
        path: the file or directory.
        mapping: qualified layer name → what it became on the target.
        notes: losses and limits, one line each.
    """

    path: Path
    mapping: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@runtime_checkable
class Deployer(Protocol):
    """What callers rely on."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[DeployerCapabilities]
    config: Any

    def export(self, model: nn.Module, example_input: Tensor, path: Path) -> Artefact:
        """Write the artefact, whole or not at all.

        Raises:
            ConversionError: a layer cannot be mapped (named, with the reason).
            PluginUnavailable: the vendor's tools are missing here.
        """

    def simulate(self, artefact: Artefact, x: Tensor) -> Tensor:
        """Run the artefact over `x` `[T, B, ...]`, where `capabilities.simulates`."""
