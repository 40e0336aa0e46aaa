"""A converted net in a directory: written whole, and loaded without the data.

converted.json        converter and its options, source, report, checksums
net.safetensors       the weights, and what calibration found
example.safetensors   the input that shows the net's shapes
source/               what rebuilds the given net, without its weights

`load_converted` builds the given net with new weights, converts it again with the example for calibration, and loads
the weights: by the converter's contract the structure does not depend on the data. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as as_bytes
from torch import Tensor, nn

from spikecore.errors import CheckpointError, ConfigError, ConversionError, NetTraceError, RunError
from spikecore.files import cure
from spikecore.interfaces.converter import ConversionReport
from spikecore.nn import quantized, set_backend, set_step_mode
from spikecore.nn.weights import plain_options
from spikecore.registry import create, registry
from spikecore.run.restore import CONVERTED as MANIFEST
from spikecore.run.sources import Calibration, Source, rebuilt
from spikecore.version import __version__

FORM = 1
"""Of converted.json."""
OWN_SUM = "sha256_of_the_rest"
WEIGHTS, EXAMPLE, SOURCE = "net.safetensors", "example.safetensors", "source"
COMPARED = 64
"""Inputs on which the decisions of both nets are compared, where nobody can do harm with them."""


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Args:
        directory: with all files.
        net: the new one, in evaluation mode.
        report: the converter's.
        agreement: share of equal decisions of both nets; None where the output is not one row of scores per sample.
        compared: on what, in words.
    """

    directory: Path
    net: nn.Module
    report: ConversionReport
    agreement: float | None
    compared: str


def convert(
    converter: Any, name: str, source: Source, calibration: Calibration | None, example: Tensor, directory: Path
) -> Conversion:
    """Convert, compare, write it all into `directory`, and load it again to see that it is the same net.

    Args:
        converter: the instance.
        name: under which it is registered.
        source: the net.
        calibration: inputs; None where the converter needs none.
        example: one batch of one sample.
        directory: new or empty.

    Raises:
        ConfigError: the net is refused, or the directory cannot be written.
        RunError: what was written does not load as the same net, against the converter's contract.
    """
    first = next(calibration.batches(), None) if calibration is not None else None
    try:
        batches = calibration.batches() if calibration is not None else iter(())
        net, report = converter.convert(source.net, example, batches)
    except (ConversionError, NetTraceError) as error:
        raise ConfigError(f"converter {name!r} refuses this net: {error}") from error
    net = net.eval()
    set_step_mode(net, "multi")
    agreement, compared = _agreement(converter, source, net, first)
    files = _files(converter, name, source, net, report, example, calibration)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise ConfigError(f"--out {directory}: cannot be written: {cure(error)}") from error
    try:
        for path, data in files.items():
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / path).write_bytes(data)
        _check_loads(aside, name, net, example, source.about["step_mode"])
        if directory.is_dir():
            directory.rmdir()  # an empty one
        aside.chmod(0o755)
        os.rename(aside, directory)
    except OSError as error:
        raise ConfigError(f"--out {directory}: cannot be written: {cure(error)}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Conversion(directory, net, report, agreement, compared)


def load_converted(directory: Path, backend: str | None = None) -> nn.Module:
    """The net in a directory that `convert` wrote, in evaluation mode, on the CPU; every byte read is verified.

    Args:
        directory: with a converted.json.
        backend: to run the neurons on; None for the one that the converter chose.

    Raises:
        ConfigError: the directory is of another form, or the converter or what the source is built from is not here.
        CheckpointError: a file is missing, damaged or of another net.
    """
    net = skeleton(directory)
    state = tensors_of(_verified(directory, _manifest(directory), WEIGHTS))
    quantized.prepare(net, state)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{directory / WEIGHTS}: does not fit the net that the converter makes of the source today: {error}"
        ) from error
    if backend is not None:
        set_backend(net, backend)
    return net.eval()


def skeleton(directory: Path) -> nn.Module:
    """The net in a directory that `convert` wrote, with new weights; errors are those of `load_converted`."""
    manifest = _manifest(directory)
    example = tensors_of(_verified(directory, manifest, EXAMPLE))["example"]
    how = manifest["converter"]
    converter = create("converter", how["name"], **how["options"])
    net = rebuilt(manifest["source"], directory / SOURCE)
    try:
        made: nn.Module = converter.convert(net, example, [example])[0]
    except (ConversionError, NetTraceError) as error:
        raise ConfigError(
            f"{directory}: converter {how['name']!r} refuses the net that it has converted before (with version "
            f"{how['version']} of {how['distribution']}): {error}"
        ) from error
    set_step_mode(made, "multi")
    return made


def _files(
    converter: Any,
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
        "example_shape": list(example.shape),
        "report": report.to_dict(),
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in files.items()},
    }
    manifest[OWN_SUM] = _sum(manifest)
    return {**files, MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode()}


def _sum(manifest: dict[str, Any]) -> str:
    rest = json.dumps({key: value for key, value in manifest.items() if key != OWN_SUM}, sort_keys=True)
    return hashlib.sha256(rest.encode()).hexdigest()


def _manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        form = manifest["form"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is missing or damaged: {type(error).__name__}: {error}") from error
    if form != FORM:
        raise ConfigError(f"{path}: is of form {form!r}, this spikecore reads {FORM}: use the one that wrote it")
    if manifest.get(OWN_SUM) != _sum(manifest):
        raise ConfigError(f"{path}: is damaged or was edited: its content is not what {OWN_SUM} says")
    for name in manifest["files"]:
        if name != WEIGHTS:  # which are read, and verified, where they are wanted; a source has been saved without them
            _verified(directory, manifest, name)
    return manifest


def _verified(directory: Path, manifest: dict[str, Any], name: str) -> bytes:
    path = directory / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != manifest["files"].get(name):
        raise CheckpointError(f"{path}: is damaged: its bytes are not those that were written")
    return data


def _check_loads(directory: Path, name: str, net: nn.Module, example: Tensor, step_mode: str) -> None:
    """Hold the converter to its contract, now that the data are still here."""
    try:
        again = load_converted(directory)
    except (CheckpointError, ConfigError, SafetensorError) as error:
        raise RunError(f"converter {name!r}: the converted net cannot be loaded without the data: {error}") from error
    x = example if step_mode == "multi" else example.expand(4, *example.shape)
    with torch.no_grad():
        out, right = again(x), net(x)
    if not torch.equal(out, right):
        raise RunError(
            f"converter {name!r}: the net that is loaded without the data gives other numbers than the converted one; "
            "whatever calibration finds has to be a buffer"
        )


def _agreement(converter: Any, source: Source, net: nn.Module, x: Tensor | None) -> tuple[float | None, str]:
    """Share of equal decisions on the first inputs."""
    if x is None:
        return None, ""
    num_steps = converter.capabilities.num_steps
    is_sequence = source.about["step_mode"] == "multi"
    with torch.no_grad():
        if is_sequence:
            x = x[:, :COMPARED]
            right, scores = source.net(x).mean(0), net(x).mean(0)
        else:
            x = x[:COMPARED]
            right, scores = source.net(x), net(x.expand(num_steps, *x.shape)).mean(0)
    if not isinstance(right, Tensor) or right.dim() != 2 or right.shape != scores.shape:
        return None, ""
    count = len(right)
    share = float((right.argmax(-1) == scores.argmax(-1)).float().mean())
    steps = "" if is_sequence else f", T = {num_steps}"
    return share, f"{count} calibration inputs{steps}"


def example_of(source: Source, calibration: Calibration | None, shape: tuple[int, ...] | None) -> Tensor:
    """One batch of one sample, from the data or of the recorded shape.

    Raises:
        ConfigError: neither is there.
    """
    axis = 1 if source.about["step_mode"] == "multi" else 0
    if calibration is not None:
        batches: Iterator[Tensor] = calibration.batches()
        batch = next(chain(batches, [torch.empty(0)]))
        if not batch.numel():
            raise ConfigError(f"{calibration.source}: there are no inputs")
        return batch.narrow(axis, 0, 1).clone()
    shape = shape or source.shape
    if shape is None:
        raise ConfigError("the shape of an input is not known: give --data, or --input-shape C,H,W")
    lead = (4, 1) if axis else (1,)
    return torch.rand((*lead, *shape), generator=torch.Generator().manual_seed(0))
