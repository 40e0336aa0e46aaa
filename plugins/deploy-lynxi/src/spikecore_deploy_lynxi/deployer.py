"""`lynxi`: nets in the form that the compiler of Lynxi's chips takes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore import nn
from spikecore.analysis import record_spikes
from spikecore.errors import ConversionError, PluginUnavailable
from spikecore.files import remove_directory, write_directory
from spikecore.interfaces import (
    Artefact,
    Configurable,
    DeployerCapabilities,
    OperatorRecord,
    Range,
    make_config,
    require_mapped,
)
from spikecore_deploy_lynxi import sdk
from spikecore_deploy_lynxi.artefact import COMPILE, MANIFEST, ONNX, PROGRAM, SCRIPT, manifest_bytes
from spikecore_deploy_lynxi.onnx_model import OUTPUT, layer_output, only_output
from spikecore_deploy_lynxi.planning import MAX_AXES, Plan, planned
from spikecore_deploy_lynxi.running import FILES, run_artefact
from spikecore_deploy_lynxi.straight import Straight
from spikecore_deploy_lynxi.torchscript import (
    exported,
    foreign_operators,
    loaded,
    onnx_model,
    operators_of,
    run_script,
    scripted,
)

HALF_TOLERANCE = 0.02
"""Mean difference of spikes that is declared for float16."""
WRITTEN = {
    "torchscript": (SCRIPT,),
    "torchscript+onnx": (SCRIPT, ONNX),
    "all": (SCRIPT, ONNX, PROGRAM),
}


class Lynxi(Configurable):
    """Lynxi's chips (KA200, HP300): a static, unrolled net of at most four axes as TorchScript and ONNX.

    The vendor's compiler takes one PyTorch module with static shapes, no axis for time, no tensor of more than four
    axes, no loop and no writing into tensors. So T steps of B samples are `[T * B, ...]`; a layer without state sees
    all of them at once, one with state is unrolled. `simulate` runs the artefact here: TorchScript in float32 gives the
    bits of the net. What the chip itself rounds is not known here.

    Example:
        >>> from spikecore import nn
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), nn.LIF(), torch.nn.Conv3d(1, 1, 3))
        >>> [record.outcome for record in Lynxi().check(net[:2], torch.zeros(4, 1, 2))]
        ['mapped', 'mapped']
    """

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[DeployerCapabilities] = DeployerCapabilities(simulates=True, fixed_shape=True)
    config: Any

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            dtype: of weights, states, input and output; the vendor advises float16.
            files: what is written: `torchscript`, which the compiler reads; that and ONNX; or `all`, with a program of
                torch.export as well.
            runs: which of them `simulate` runs; `export` writes it in any case.
            compile: also compile for the chip, into `apu` in the artefact; needs the vendor's lyngor.
            max_bytes: of a file that is read.
        """

        dtype: Literal["float32", "float16"] = "float32"
        files: Literal["torchscript", "torchscript+onnx", "all"] = "torchscript"
        runs: Literal["torchscript", "onnx", "export"] = "torchscript"
        compile: bool = False
        max_bytes: Annotated[int, Range(ge=1)] = 2**31

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)
        capabilities = type(self).capabilities
        if self.config.dtype == "float16":
            capabilities = replace(capabilities, tolerance=HALF_TOLERANCE)
        if self.config.compile or self.config.files == "all" or self.config.runs == "export":
            # A compiler's files, and those of torch.export, hold times and numbers of their own.
            capabilities = replace(capabilities, deterministic=False)
        self.capabilities = capabilities  # type: ignore[misc]

    def check(self, model: torch.nn.Module, example_input: Tensor) -> tuple[OperatorRecord, ...]:
        """What becomes of every operator of the net."""
        return planned(model, example_input, self.config.dtype == "float16").records

    def export(self, model: torch.nn.Module, example_input: Tensor, path: Path) -> Artefact:
        """Write the artefact, whole or not at all.

        Raises:
            ConversionError: an operator is refused, or `path` exists.
            PluginUnavailable: `compile` is set and lyngor is missing; the message is the command to run elsewhere.
        """
        path = Path(path)
        if path.exists() or path.is_symlink():
            raise ConversionError(f"{path} exists: choose another path, or remove it")
        if self.config.compile and (reason := sdk.missing_sdk()):
            raise PluginUnavailable(
                f"{reason}. Leave out compile=true, and run where the SDK is installed: {command(path)}"
            )
        plan = planned(model, example_input, self.config.dtype == "float16")
        require_mapped(plan.records, "Lynxi")
        net = Straight(plan, getattr(torch, self.config.dtype))
        files, notes = self._written(net, plan, model, example_input)
        write_directory(path, files)
        if self.config.compile:
            try:
                compiled = sdk.compile_net(str(path), str(path / "apu"))
            except BaseException as error:  # the compiler's own errors, and Ctrl-C in the minutes that it takes
                remove_directory(path)
                if isinstance(error, sdk.SDKError):
                    raise ConversionError(f"compiling {path} failed: {error}") from error
                raise
            notes.append(f"Compiled for the chip: {Path(compiled).relative_to(path)}")
        else:
            notes.append(f"To compile it, where lyngor is installed: {command(path)}")
        return Artefact(path, plan.records, tuple(notes))

    def _written(
        self, net: Straight, plan: Plan, model: torch.nn.Module, example_input: Tensor
    ) -> tuple[dict[str, bytes], list[str]]:
        """Every file by its name, and what is said of them."""
        dtype = self.config.dtype
        rows = example_input.detach().cpu().flatten(0, 1).to(getattr(torch, dtype))
        script, rank = scripted(net, rows)
        module = loaded(script)
        foreign = foreign_operators(module)
        if foreign or rank > MAX_AXES:
            raise ConversionError(
                f"the converted net has tensors of {rank} axes and the operators {foreign or 'it should'}: this is a "
                "fault of deploy-lynxi, not of the net"
            )
        results = run_script(module, "layers", rows)
        layers = [stage.neuron for stage in plan.stages if stage.neuron]
        files = {SCRIPT: script, COMPILE: Path(sdk.__file__).read_bytes()}
        wanted = {*WRITTEN[self.config.files], FILES[self.config.runs]}
        if ONNX in wanted:
            names = [OUTPUT, *(layer_output(index) for index in range(len(layers)))]
            files[ONNX] = only_output(onnx_model(net, rows, names), len(layers))
        if PROGRAM in wanted:
            files[PROGRAM] = exported(net, rows)
        agreement, note = _agreement(model, example_input, plan, results)
        about = {
            "lead": list(plan.lead),
            "input": {"name": "x", "shape": list(rows.shape), "dtype": dtype},
            "output": {"name": OUTPUT, "shape": list(results[0].shape), "dtype": dtype},
            "layers": [
                {"name": name, "shape": list(result.shape), "dtype": dtype}
                for name, result in zip(layers, results[1:], strict=True)
            ],
            "largest_rank": rank,
            "operators": dict(sorted(operators_of(module).items())),
            "agreement": agreement,
            "versions": {name: version(name) for name in ("spikecore", "spikecore-deploy-lynxi", "torch", "onnx")},
        }
        files[MANIFEST] = manifest_bytes(about, files)
        return files, [note]

    def compile(self, artefact: Artefact, out: Path) -> Path:
        """Compile an artefact with the vendor's lyngor; the directory with the compiled net.

        Raises:
            PluginUnavailable: lyngor is missing here; the message is the command to run elsewhere.
            ConversionError: the artefact is damaged, `out` exists, or lyngor fails.
        """
        if reason := sdk.missing_sdk():
            raise PluginUnavailable(f"{reason}. Run where it is installed: {command(artefact.path)}")
        try:
            return Path(sdk.compile_net(str(artefact.path), str(out)))
        except sdk.SDKError as error:
            raise ConversionError(str(error)) from error

    def simulate(self, artefact: Artefact, x: Tensor) -> Tensor:
        """What the artefact gives for `x` `[T, B, ...]`, run here.

        Raises:
            ConversionError: the artefact cannot be read.
            ShapeError: it takes another shape.
            PluginUnavailable: onnxruntime is missing.
        """
        return run_artefact(Path(artefact.path), x, self.config.runs, self.config.max_bytes)[0]

    def trace(self, artefact: Artefact, x: Tensor) -> dict[str, Tensor]:
        """What each neuron layer gives."""
        return run_artefact(Path(artefact.path), x, self.config.runs, self.config.max_bytes)[1]


def command(path: Path) -> str:
    """What to run on a machine with the SDK, after copying the artefact there."""
    return f"python3 {shlex.quote(str(Path(path.name) / COMPILE))} --out {shlex.quote(f'{path.name}-apu')}"


def _agreement(
    model: torch.nn.Module, x: Tensor, plan: Plan, results: tuple[Tensor, ...]
) -> tuple[dict[str, object], str]:
    """How far the script and the net agree on the example, for the manifest and as a note."""
    import copy

    net = copy.deepcopy(model)
    nn.set_backend(net, "torch")
    out, spikes = record_spikes(net, x)
    rights = [out, *spikes.values()]
    pairs = list(zip(rights, results, strict=True))
    is_equal = all(torch.equal(right.flatten(0, 1), got.to(right.dtype)) for right, got in pairs)
    differences = [float((right.flatten(0, 1) - got.to(right.dtype)).abs().max()) for right, got in pairs]
    largest = max(differences)
    if is_equal:
        note = "On the example input, TorchScript gives the bits of the net, in every layer."
    else:
        note = f"On the example input, TorchScript and the net differ by {largest:g} at most."
    return {"equal": is_equal, "largest_difference": largest}, note
