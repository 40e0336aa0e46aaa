"""`onnx`: nets → ONNX models for onnxruntime and whatever else runs them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore.errors import ConversionError
from spikecore.files import write_file
from spikecore.interfaces import (
    Artefact,
    Configurable,
    DeployerCapabilities,
    OperatorRecord,
    Range,
    make_config,
    require_mapped,
)
from spikecore_deploy_onnx.exporting import planned
from spikecore_deploy_onnx.forms import written_model
from spikecore_deploy_onnx.running import read_model, run_model

INT8_TOLERANCE = 0.05
"""Mean difference of spikes that is declared for weights that are rounded to 8 bits on export."""


class ONNX(Configurable):
    """ONNX: every registered neuron whose step is written in the neuron language, and torch's layers.

    A step is written node for node as the language traces it, so a neuron gives the bits of the reference; sums of a
    layer may be rounded in another order than torch's, and are equal where they are exact. `simulate` runs onnxruntime.

    Example:
        >>> from spikecore import nn
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), nn.CubaLIF(), torch.nn.GELU())
        >>> [record.outcome for record in ONNX().check(net, torch.zeros(4, 1, 2))]
        ['mapped', 'mapped', 'refused']
    """

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[DeployerCapabilities] = DeployerCapabilities(simulates=True, suffix=".onnx")
    config: Any

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            form: `scan`: any T and B, one Scan per neuron layer; `unrolled`: one T, no control flow; `step`: a single
                step, with states as inputs and outputs.
            weights: `float`, or `int8` with one scale per output: those of a record of quantization, else rounded.
            max_bytes: of a file that is read.
        """

        form: Literal["scan", "unrolled", "step"] = "scan"
        weights: Literal["float", "int8"] = "float"
        max_bytes: Annotated[int, Range(ge=1)] = 2**31

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)
        if self.config.form == "unrolled":
            # Every step is written out: the model takes as many as the example has.
            self.capabilities = replace(self.capabilities, fixed_shape=True)  # type: ignore[misc]
        if self.config.weights == "int8":
            # Rounded weights are another net; what was quantized before loses nothing.
            self.capabilities = replace(self.capabilities, tolerance=INT8_TOLERANCE)  # type: ignore[misc]

    def check(self, model: torch.nn.Module, example_input: Tensor) -> tuple[OperatorRecord, ...]:
        """What becomes of every operator of the net."""
        return planned(model, example_input, self.config.weights == "int8").records

    def export(self, model: torch.nn.Module, example_input: Tensor, path: Path) -> Artefact:
        """Write the model, whole or not at all, in the place of one that is there.

        Raises:
            ConversionError: an operator is refused; names all of them. Also where the file cannot be written.
        """
        plan = planned(model, example_input, self.config.weights == "int8")
        require_mapped(plan.records, "ONNX")
        written = written_model(plan, self.config.form, int(example_input.shape[0]))
        try:
            write_file(Path(path), written.SerializeToString(deterministic=True))
        except OSError as error:
            raise ConversionError(
                f"{path} cannot be written ({error}): give a path in a directory that exists"
            ) from error
        return Artefact(path, plan.records, plan.notes)

    def simulate(self, artefact: Artefact, x: Tensor) -> Tensor:
        """What onnxruntime gives for `x` `[T, B, ...]`.

        Raises:
            ConversionError: the file cannot be read.
            PluginUnavailable: onnxruntime is missing.
            ShapeError: the model takes another shape.
        """
        return run_model(read_model(Path(artefact.path), self.config.max_bytes), x)[0]

    def trace(self, artefact: Artefact, x: Tensor) -> dict[str, Tensor]:
        """What each neuron layer gives."""
        return run_model(read_model(Path(artefact.path), self.config.max_bytes), x)[1]
