"""Converter: turns a trained net into a spiking or quantized one, with a report on every call.

    net, report = converter.convert(model, example_input, calibration)

Layers have their names in the graph of the net (`spikecore.nn.trace_net`), because a ReLU may be a function without a
module. Results of calibration are buffers of the new net, whose structure does not depend on the data. A saved net can
therefore be loaded without the data: convert again with the example as calibration, then call `load_state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor, nn

Outcome = Literal["became", "kept", "refused"]
Points = tuple[tuple[float, float], ...]
"""`(x, y)`, in the order of x."""


@dataclass(frozen=True)
class ConverterCapabilities:
    """What a converter promises.

    Args:
        needs_calibration: `convert` needs `calibration` batches.
        deterministic: equal nets and batches give equal results.
        layers: qualified names of the modules, functions and methods it takes (`torch.nn.ReLU`, `spikecore.nn.ReLU`,
            `torch.nn.functional.relu`, `torch.Tensor.relu`): a net of these alone is never refused, and only these
            become something else.
        num_steps: T after which the new net decides as the given one, and its scores are within `tolerance`.
        tolerance: distance between the scores of both nets, up to one factor, relative to how far the given net's
            scores lie from their mean.
        reads: endings of the files from which it can make a net by itself, such as `.onnx`; see `ReadingConverter`.
    """

    needs_calibration: bool = True
    deterministic: bool = True
    layers: tuple[str, ...] = ()
    num_steps: int = 64
    tolerance: float = 0.1
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerReport:
    """What happened to one call of the net.

    Args:
        name: of its node in the graph of the given net: `layer1.0.relu#2`.
        outcome: `became`: something else replaces it; `kept`: it does what it did; `refused`: it has no
            counterpart, and stays because an option allowed it by name (otherwise `convert` raises).
        reason: what it became, or why it was kept or refused.
        threshold: that calibration found: one for the layer, or one per channel.
        correlation: between the activation of the given net and the mean output of the new one after 1, 2, ... steps;
            empty where it was not measured. `spikecore.analysis.compare_conversion` measures it.
        rate: share of the new layer's outputs that are not 0; None where it was not measured.
    """

    name: str
    outcome: Outcome
    reason: str
    threshold: float | tuple[float, ...] | None = None
    correlation: tuple[float, ...] = ()
    rate: float | None = None

    @property
    def threshold_text(self) -> str:
        """For tables: a number, the range of the channels, or nothing."""
        if self.threshold is None:
            return ""
        if not isinstance(self.threshold, tuple):
            return f"{self.threshold:.4g}"
        low, high = f"{min(self.threshold):.4g}", f"{max(self.threshold):.4g}"
        return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class ConversionReport:
    """What happened to every call, in the order of execution.

    Args:
        layers: one report per call.
        curves: name → points, such as `"accuracy over T"` → `((1, 0.31), (2, 0.84))`.
        numbers: of the whole net, with the unit in the name: operations and energy per sample of both nets.
    """

    layers: tuple[LayerReport, ...] = ()
    curves: Mapping[str, Points] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)

    def names(self, outcome: Outcome) -> list[str]:
        """The calls with this outcome."""
        return [layer.name for layer in self.layers if layer.outcome == outcome]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


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
        """A new net that takes `[T, B, ...]`; `model`, example and batches are neither changed nor kept.

        Args:
            model: takes a batch `[B, ...]`; one with neurons that hold state takes sequences `[T, B, ...]`.
            example_input: such an input; only its shape, dtype and device may be used.
            calibration: more batches, read once.

        Raises:
            ConversionError: a call cannot be converted (named, with the reason), or calibration data are missing.
            NetTraceError: the net cannot be followed.
        """


@runtime_checkable
class ReadingConverter(Converter, Protocol):
    """A converter that makes a net from files of other programs; `capabilities.reads` names their endings."""

    def content(self, path: Path) -> bytes:
        """A file, and whatever it refers to, as one piece; it is stored beside the converted net.

        Raises:
            ConversionError: the file is missing, damaged or incomplete.
        """

    def from_content(self, content: bytes) -> nn.Module:
        """The net in what `content` gave: takes a batch `[B, ...]`, is in evaluation mode.

        Raises:
            ConversionError: it holds what has no counterpart here; named.
        """
