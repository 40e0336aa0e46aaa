"""From a net to the directory of the converted one, whole or not at all; see `run.converted` for its files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save as as_bytes
from torch import Tensor, nn

from spikecore.analysis import conversion_page
from spikecore.errors import CheckpointError, ConfigError, ConversionError, NetTraceError, RunError
from spikecore.files import read_file
from spikecore.interfaces.converter import ConversionReport, Converter
from spikecore.nn import set_step_mode
from spikecore.nn.weights import plain_options
from spikecore.registry import registry
from spikecore.run.calibration import Calibration
from spikecore.run.checkpoint import LAST
from spikecore.run.comparison import Comparison, Inputs, compare
from spikecore.run.converted import (
    EXAMPLE,
    FORM,
    MANIFEST,
    OWN_SUM,
    SOURCE,
    WEIGHTS,
    beginning_of,
    input_shape,
    is_converted,
    load_converted,
    read_manifest,
    sum_of,
)
from spikecore.run.directory import CONFIG
from spikecore.run.loading import load
from spikecore.run.out import whole_directory
from spikecore.run.record import FILE as RECORD
from spikecore.run.record import Record
from spikecore.run.sources import CONVERTED, RUN, Source, from_file, from_function, set_given_mode
from spikecore.version import __version__

PAGE = "report.html"
NUM_STEPS = 4
"""T of an input that is made up: enough for a neuron to charge, fire and be reset."""


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Args:
        directory: with all files.
        net: the new one, in evaluation mode.
        report: the converter's, with the curves of the comparison.
        agreement: share of equal decisions of both nets; None where nothing was compared, or the output is not one row
            of scores per sample.
        compared: on what, in words.
    """

    directory: Path
    net: nn.Module
    report: ConversionReport
    agreement: float | None
    compared: str


def source_of(text: str, weights: Path | None = None, checkpoint: str = LAST, converter: Any = None) -> Source:
    """The net that SOURCE names: a directory, `FILE.py:function` with optional weights, or a file `converter` reads.

    Raises:
        ConfigError: there is no such directory, file or function, or the function gives no net.
        CheckpointError: the weights are not those of the net.
    """
    file, _, function = text.rpartition(":")
    if file.endswith(".py"):
        return from_function(Path(file), function, weights)
    if text.endswith(".py"):
        raise ConfigError(f"SOURCE {text}: name the function that makes the net, as in {text}:make_net")
    if weights is not None:
        raise ConfigError(f"--weights {weights}: this source has its own weights; leave it out")
    directory = Path(text)
    endings = () if converter is None else converter.capabilities.reads
    if endings and text.endswith(endings) and not directory.is_dir():
        return from_file(directory, converter)
    if not directory.is_dir():
        others = f", and no file that this converter reads ({', '.join(endings)})" if endings else ""
        raise ConfigError(f"SOURCE {text}: is no directory and no FILE.py:function{others}")
    return _from_directory(directory, checkpoint)


def _from_directory(directory: Path, checkpoint: str) -> Source:
    net = load(directory, checkpoint)
    if is_converted(directory):
        about: dict[str, Any] = {"kind": CONVERTED, "directory": str(directory)}
        # All but the weights, which the newly converted net has its own of. What the manifest does not list is not
        # copied: it may be a link to a secret, which would be given away with the new directory.
        listed = [name for name in read_manifest(directory)["files"] if _is_no_weights(name)]
        files = _contents(directory, [MANIFEST, *listed])
        about["step_mode"] = set_given_mode(net)
        first = beginning_of(directory)
        num_steps = first.num_steps if about["step_mode"] == "multi" else None
        kind = str(first.about["kind"])
        return Source(net, about, files, input_shape(directory), directory, num_steps, first.dataset, kind)
    else:
        record = Record.read(directory)
        names = [name for name in record.nets if name]
        if names:
            raise ConfigError(f"{directory}: this run has the nets {', '.join(names)}; only a single net is converted")
        about = {"kind": RUN, "directory": str(directory), "checkpoint": checkpoint, "id": record.id}
        files = _contents(directory, [RECORD, CONFIG])
        shape = record.nets[""].input_shape if record.nets else None
    about["step_mode"] = set_given_mode(net)
    return Source(net, about, files, shape, directory)


def _is_no_weights(name: str) -> bool:
    return not name.endswith(".safetensors") or "example" in name


def _contents(directory: Path, names: list[str]) -> dict[str, bytes]:
    """Of those files that are there; links are not followed."""
    paths = {name: directory / name for name in names if (directory / name).exists()}
    return {name: read_file(path, path.lstat().st_size) for name, path in paths.items()}


def convert(
    converter: Converter,
    name: str,
    source: Source,
    calibration: Calibration | None,
    example: Tensor,
    directory: Path,
    inputs: Inputs | None = None,
) -> Conversion:
    """Convert, compare, write it all into `directory`, and load it again to see that it is the same net.

    Args:
        converter: the instance.
        name: under which it is registered.
        source: the net.
        calibration: inputs; None where the converter needs none.
        example: one batch of one sample.
        directory: new or empty.
        inputs: on which the decisions of both nets are compared; None for none.

    Raises:
        ConfigError: the net is refused, or the directory cannot be written.
        RunError: what was written does not load as the same net, against the converter's contract.
    """
    try:
        batches = calibration.batches() if calibration is not None else iter(())
        net, report = converter.convert(source.net, example, batches)
    except (ConversionError, NetTraceError) as error:
        raise ConfigError(f"converter {name!r} refuses this net: {error}") from error
    net = net.eval()
    set_step_mode(net, "multi")
    is_sequence = source.about["step_mode"] == "multi"
    comparison = compare(source.net, net, inputs, converter.capabilities.num_steps, is_sequence)
    report = comparison.added_to(report)
    files = _files(converter, name, source, net, report, example, calibration)
    with whole_directory(directory) as aside:
        for path, data in files.items():
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / path).write_bytes(data)
        _check_loads(aside, name, net, example, source.about["step_mode"])
        aside.joinpath(PAGE).write_text(_page(name, source, calibration, report, comparison), encoding="utf-8")
    return Conversion(directory, net, report, comparison.agreement, comparison.compared)


def _page(
    name: str, source: Source, calibration: Calibration | None, report: ConversionReport, comparison: Comparison
) -> str:
    about = source.about
    what = about.get("directory") or about.get("file") or "net"
    notes = ["Calibrated without data." if calibration is None else f"Calibrated on {calibration.source}."]
    notes.append(f"Decisions on {comparison.compared}." if comparison.compared else "No decisions were compared.")
    return conversion_page(f"{Path(what).name} by {name}", report, notes)


def _files(
    converter: Converter,
    name: str,
    source: Source,
    net: nn.Module,
    report: ConversionReport,
    example: Tensor,
    calibration: Calibration | None,
) -> dict[str, bytes]:
    state = {key: value.detach().cpu().contiguous().clone() for key, value in net.state_dict().items()}
    files = {WEIGHTS: as_bytes(state), EXAMPLE: as_bytes({"example": example.contiguous().clone()})}
    files |= {f"{SOURCE}/{path}": data for path, data in source.files.items()}
    plugin = registry().find("converter", name).plugin
    manifest = {
        "form": FORM,
        "spikecore": __version__,
        "converter": {
            "name": name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "options": plain_options(converter.config),
        },
        "source": source.about,
        "calibration": None if calibration is None else calibration.source,
        "dataset": None if calibration is None else calibration.dataset,
        "example_shape": list(example.shape),
        "report": report.to_dict(),
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in files.items()},
    }
    manifest[OWN_SUM] = sum_of(manifest)
    return {**files, MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode()}


def _check_loads(directory: Path, name: str, net: nn.Module, example: Tensor, step_mode: str) -> None:
    """Hold the converter to its contract, now that the data are still here."""
    try:
        again = load_converted(directory)
    except (CheckpointError, ConfigError, SafetensorError) as error:
        raise RunError(f"converter {name!r}: the converted net cannot be loaded without the data: {error}") from error
    x = example if step_mode == "multi" else example.expand(NUM_STEPS, *example.shape)
    with torch.no_grad():
        out, right = again(x), net(x)
    if not torch.equal(out, right):
        raise RunError(
            f"converter {name!r}: the net that is loaded without the data gives other numbers than the converted one; "
            "whatever calibration finds has to be a buffer"
        )


def example_of(source: Source, calibration: Calibration | None, shape: tuple[int, ...] | None) -> Tensor:
    """One batch of one sample, from the data or of the recorded shape.

    Args:
        source: the net.
        calibration: its inputs, where there are any.
        shape: of one sample, as asked for with `--input-shape`; None for that of the data, or the recorded one.

    Returns:
        `[1, *shape]`; `[T, 1, *shape]` for a net with state.

    Raises:
        ConfigError: there are neither data nor a shape, or the data are of another shape than asked for.
    """
    axis = 1 if source.about["step_mode"] == "multi" else 0
    if calibration is not None:
        batch = next(calibration.batches(), None)
        if batch is None or not batch.numel():
            raise ConfigError(f"{calibration.source}: there are no inputs")
        own = tuple(batch.shape[axis + 1 :])
        if shape is not None and shape != own:
            sizes = ",".join(map(str, shape))
            raise ConfigError(
                f"--input-shape {sizes}: the inputs of the data ({calibration.source}) are of the shape {own}: leave "
                "--input-shape out"
            )
        return batch.narrow(axis, 0, 1).clone()
    shape = shape or source.shape
    if shape is None:
        raise ConfigError("the shape of an input is not known: give --data, or --input-shape C,H,W")
    lead = (NUM_STEPS, 1) if axis else (1,)
    return torch.rand((*lead, *shape), generator=torch.Generator().manual_seed(0))
