"""Converter: a trained artificial net → a spiking net, with a report of what was and was not converted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn


@dataclass(frozen=True)
class ConverterCapabilities:
    """What a converter promises.

    Args:
        needs_calibration: `convert` needs `calibration` batches.
        deterministic: equal nets and batches give equal results.
        layers: qualified torch names of the modules it takes: a net of these alone is never refused, and only these
            become something else.
    """

    needs_calibration: bool = True
    deterministic: bool = True
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConversionReport:
    """What became of each layer.

    Args:
        converted: qualified layer name → what it became.
        kept: qualified layer name → why it stayed as it was.
    """

    converted: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Converter(Protocol):
    """What callers rely on."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[ConverterCapabilities]
    config: Any

    def convert(
        self, model: nn.Module, example_input: Tensor, calibration: Iterable[Tensor] = ()
    ) -> tuple[nn.Module, ConversionReport]:
        """A new net; `model` is left as it was.

        Raises:
            ConversionError: a layer cannot be converted (named, with the reason), or calibration data are missing.
        """
