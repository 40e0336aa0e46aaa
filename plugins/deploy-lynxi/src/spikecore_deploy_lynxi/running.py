"""Runs an artefact here, without the chip, from its files alone."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from spikecore.errors import ConversionError, ShapeError
from spikecore_deploy_lynxi.artefact import ONNX, PROGRAM, SCRIPT, Form, Manifest, read_listed, read_manifest
from spikecore_deploy_lynxi.onnx_model import checked_model, run_model
from spikecore_deploy_lynxi.torchscript import (
    METHODS,
    foreign_operators,
    loaded,
    loaded_program,
    methods_of,
    run_script,
)

Runtime = Literal["torchscript", "onnx", "export"]
FILES: dict[str, str] = {"torchscript": SCRIPT, "onnx": ONNX, "export": PROGRAM}


def run_artefact(directory: Path, x: Tensor, runtime: Runtime, max_bytes: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Run `x` `[T, B, ...]`; the output and what every neuron layer gives, in the dtype of x.

    Raises:
        ConversionError: the artefact is damaged, too large, or not one of ours.
        ShapeError: x has another shape than the artefact was written for.
        PluginUnavailable: onnxruntime is missing.
    """
    if not directory.is_dir():
        raise ConversionError(f"{directory}: expected the directory of an artefact")
    manifest = read_manifest(directory)
    expected = (*manifest.lead, *manifest.input.shape[1:])
    if tuple(x.shape) != expected:
        raise ShapeError(
            f"the artefact takes {list(expected)}, T and B included, got {list(x.shape)}: shapes are static on the "
            "chip; deploy the net again with an example of this shape"
        )
    name = FILES[runtime]
    data = read_listed(directory, manifest, name, max_bytes)
    rows = x.detach().cpu().reshape(manifest.input.shape).to(getattr(torch, manifest.input.dtype))
    where = str(directory / name)
    if runtime == "torchscript":
        results = _run(lambda: run_script(_script(data, where, max_bytes), "layers", rows), where)
    elif runtime == "onnx":
        results = run_model(checked_model(data, where, max_bytes), rows, len(manifest.layers))
    else:
        _check_archive(data, where, max_bytes)
        results = _run(lambda: loaded_program(data)(rows), where)
    return _split(manifest, results, x, where)


def _script(data: bytes, where: str, max_bytes: int) -> Any:
    """The module, after a look at what it would do."""
    _check_archive(data, where, max_bytes)
    script = loaded(data)
    foreign = foreign_operators(script)
    if foreign or methods_of(script) != sorted(METHODS):
        raise ConversionError(
            f"{where}: a converted net has the methods {', '.join(METHODS)} and no {', '.join(foreign) or 'others'}: "
            "this file was not written by this plugin"
        )
    return script


def _check_archive(data: bytes, where: str, max_bytes: int) -> None:
    """What it unpacks to is not larger than what is accepted."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(record.file_size for record in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ConversionError(f"{where}: a damaged archive ({error}): write the artefact again") from error
    if size > max_bytes:
        raise ConversionError(f"{where}: unpacks to {size} bytes, max_bytes allows {max_bytes}")


def _run(run: Any, where: str) -> Any:
    try:
        return run()
    except ConversionError:
        raise
    # A file that was tampered with makes torch's readers raise nearly anything.
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ConversionError(f"{where}: torch cannot run it ({text[0]}): write the artefact again") from error


def _split(manifest: Manifest, results: Any, x: Tensor, where: str) -> tuple[Tensor, dict[str, Tensor]]:
    """`[T * B, ...]` → `[T, B, ...]`, if everything has the form that the manifest gives."""
    forms: Sequence[Form] = (manifest.output, *manifest.layers)
    values = list(results) if isinstance(results, tuple | list) else [results]
    if len(values) != len(forms):
        raise ConversionError(f"{where}: gives {len(values)} results, the manifest describes {len(forms)}")
    tensors = []
    for form, value in zip(forms, values, strict=True):
        if not isinstance(value, Tensor) or tuple(value.shape) != form.shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ConversionError(f"{where}: {form.name!r} is {got}, the manifest says {form.shape}")
        tensors.append(value.reshape(*manifest.lead, *form.shape[1:]).to(x.dtype))
    return tensors[0], dict(zip((form.name for form in manifest.layers), tensors[1:], strict=True))
