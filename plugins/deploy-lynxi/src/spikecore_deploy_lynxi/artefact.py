"""The directory that is written, and how one is read that anyone may have changed.

net.pt         TorchScript: `forward` is the net, `layers` gives every neuron layer as well
net.onnx       the same as ONNX
net.pt2        the same as a program of torch.export
compile.py     the calls of the vendor's SDK, to run where it is installed
manifest.json  shapes, dtypes, T and B, neuron layers, operators, versions; size and sha256 of every file
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikecore.errors import ConversionError
from spikecore.files import read_file

FORM = 1
MANIFEST = "manifest.json"
SCRIPT, ONNX, PROGRAM, COMPILE = "net.pt", "net.onnx", "net.pt2", "compile.py"
MAX_MANIFEST = 1 << 24
MAX_VALUES = 2**31
"""Of one tensor."""
MAX_AXES = 4


@dataclass(frozen=True)
class Form:
    """One tensor `[T * B, ...]`."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Manifest:
    """What the manifest says, as far as a simulation needs it.

    Args:
        lead: T and B.
        input: of the net.
        output: of the net.
        layers: of every neuron layer, by its name in the net.
        files: name → (bytes, sha256).
    """

    lead: tuple[int, int]
    input: Form
    output: Form
    layers: tuple[Form, ...]
    files: Mapping[str, tuple[int, str]]


def manifest_bytes(about: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The manifest of these files."""
    listed = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in sorted(files.items())
    }
    text = json.dumps({"form": FORM, **about, "files": listed}, indent=2)
    return (text + "\n").encode()


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an artefact.

    Raises:
        ConversionError: it is missing or damaged, or asks for what no artefact of ours has.
    """
    path = directory / MANIFEST
    try:
        content = json.loads(read_file(path, MAX_MANIFEST))
        if content["form"] != FORM:
            raise ConversionError(f"{path}: its form is {content['form']!r}, expected {FORM}: write it again")
        lead = _sizes(content["lead"], 2, 2)
        layers = tuple(_form(row) for row in content["layers"])
        files = {str(name): (_size(row["bytes"]), str(row["sha256"])) for name, row in content["files"].items()}
        manifest = Manifest((lead[0], lead[1]), _form(content["input"]), _form(content["output"]), layers, files)
    except OSError as error:
        raise ConversionError(f"{path}: expected the manifest of an artefact: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConversionError(
            f"{path}: not a manifest of this plugin, or a damaged one ({type(error).__name__}: {error}): write it again"
        ) from error
    unknown = sorted(set(files) - {SCRIPT, ONNX, PROGRAM, COMPILE})
    if unknown:
        raise ConversionError(f"{path}: lists the files {unknown}, which no artefact has")
    rows = math.prod(manifest.lead)
    for form in (manifest.input, manifest.output, *layers):
        if form.shape[0] != rows:
            raise ConversionError(
                f"{path}: {form.name!r} has the shape {form.shape}, expected {rows} rows (T = {lead[0]}, B = {lead[1]})"
            )
    return manifest


def read_listed(directory: Path, manifest: Manifest, name: str, max_bytes: int) -> bytes:
    """The content of a file that the manifest lists.

    Raises:
        ConversionError: it is not listed, missing, too large, or another one than was written.
    """
    path = directory / name
    if name not in manifest.files:
        raise ConversionError(
            f"{path}: the artefact has no {name}, only {', '.join(sorted(manifest.files))}: export it with another "
            "value of the option `files`, or choose another `runs`"
        )
    size, digest = manifest.files[name]
    if size > max_bytes:
        raise ConversionError(f"{path}: {size} bytes, max_bytes allows {max_bytes}: set it if the file is yours")
    try:
        data = read_file(path, size)
    except OSError as error:
        raise ConversionError(f"{path}: expected a file of {size} bytes: {error}") from error
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise ConversionError(
            f"{path}: {len(data)} bytes, and not those that the manifest describes ({size} bytes, sha256 "
            f"{digest[:12]}…): write the artefact again"
        )
    return data


def _size(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 2**40:
        raise ValueError(f"expected a whole number from 1 on, got {value!r}: shapes are static")
    return value


def _sizes(value: Any, fewest: int, most: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not fewest <= len(value) <= most:
        raise ValueError(f"expected {fewest} to {most} sizes, got {value!r}")
    sizes = tuple(_size(size) for size in value)
    if math.prod(sizes) > MAX_VALUES:
        raise ValueError(f"a shape of {value}, more than {MAX_VALUES} values")
    return sizes


def _form(row: Any) -> Form:
    if row["dtype"] not in ("float32", "float16"):
        raise ValueError(f"dtype {row['dtype']!r}, expected float32 or float16")
    return Form(str(row["name"]), _sizes(row["shape"], 1, MAX_AXES), row["dtype"])
