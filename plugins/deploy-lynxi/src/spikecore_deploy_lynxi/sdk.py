"""Every call of the vendor's SDK, and nothing else of ours: this file is copied into an artefact as `compile.py`.

    python compile.py [--out DIR]        on a machine that has lyngor; needs Python, torch and lyngor, not spikecore

The SDK is on no public index. What is called here was taken from public code that uses it (lyngor 1.x):

    lyngor.DLModel()
        .load(module, model_type="Pytorch", in_type=, out_type=, inputs_dict={name: shape}); then .graph and .params
    lyngor.Builder(target="apu", is_map=True)
        .build(graph, params, out_path=, apu_only=True) -> a directory, with Net_0 in it
    lynpy.Model(path=, dev_id=)
        .input_tensor() -> Tensor; model(tensor) -> Tensor
    lynpy.Tensor
        .from_numpy(array), .apu(), .cpu(), .numpy(), .view_as(shape, dtype)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from typing import Any

MANIFEST, SCRIPT = "manifest.json", "net.pt"
MAX_MANIFEST = 1 << 24


class SDKError(Exception):
    """The artefact or the SDK is not as it should be; the message says what to do."""


def compile_net(directory: str, out: str) -> str:
    """Compile the TorchScript of an artefact for the chip.

    Args:
        directory: the artefact.
        out: a directory that does not exist yet.

    Returns:
        The directory `Net_0` with the compiled net.

    Raises:
        SDKError: lyngor is missing or lacks what is called, the artefact is damaged, or `out` exists.
    """
    if os.path.lexists(out):
        raise SDKError(f"{out} exists: choose another --out, or remove it")
    manifest = read_manifest(directory)
    path = os.path.join(directory, SCRIPT)
    _check_file(path, manifest["files"][SCRIPT])
    lyngor = _imported("lyngor", ("DLModel", "Builder"))
    import torch

    jit: Any = torch.jit
    net = jit.load(path, map_location="cpu").eval()
    shape, dtype = tuple(manifest["input"]["shape"]), manifest["input"]["dtype"]
    model = lyngor.DLModel()
    model.load(net, model_type="Pytorch", in_type=dtype, out_type=manifest["output"]["dtype"], inputs_dict={"x": shape})
    builder = lyngor.Builder(target="apu", is_map=True)
    built = builder.build(model.graph, model.params, out_path=out, apu_only=True)
    compiled = os.path.join(str(built or out), "Net_0")
    if not os.path.isdir(compiled):
        raise SDKError(f"lyngor built {built!r}, which has no directory Net_0: see what it printed above")
    return compiled


def run_on_chip(compiled: str, x: Any, shape: tuple[int, ...], dtype: str, device: int = 0) -> Any:
    """Run a compiled net.

    Args:
        compiled: the directory `Net_0`.
        x: numpy array, as the compiled net takes it. The SDK's own examples give images as `[N, H, W, C]`: compare one
            batch with the simulation of the artefact before you trust the order of axes.
        shape: of the result.
        dtype: of the result.
        device: number of the chip.

    Returns:
        numpy array of this shape.

    Raises:
        SDKError: lynpy is missing, or the result has another size.
    """
    lynpy = _imported("lynpy", ("Model",))
    model = lynpy.Model(path=compiled, dev_id=device)
    given = model.input_tensor().from_numpy(x).apu()
    out = model(given).view_as(shape, dtype).cpu().numpy()
    if tuple(out.shape) != tuple(shape):
        raise SDKError(f"the chip gave {tuple(out.shape)}, expected {tuple(shape)}: compile the net again")
    return out


def read_manifest(directory: str) -> dict[str, Any]:
    """The manifest of an artefact, as far as it is used here.

    Raises:
        SDKError: it is missing, too large, or says something else than a manifest does.
    """
    path = os.path.join(directory, MANIFEST)
    try:
        if os.path.getsize(path) > MAX_MANIFEST:
            raise SDKError(f"{path} is larger than {MAX_MANIFEST} bytes: not a manifest of ours")
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        shape, dtypes = manifest["input"]["shape"], (manifest["input"]["dtype"], manifest["output"]["dtype"])
        is_whole = isinstance(shape, list) and 0 < len(shape) <= 4 and all(type(size) is int for size in shape)
        if not is_whole or min(shape) < 1 or not set(dtypes) <= {"float32", "float16"}:
            raise SDKError(f"{path}: the input has the shape {shape} and the types are {dtypes}: write it again")
        dict(manifest["files"][SCRIPT])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SDKError(f"{path}: not a manifest ({type(error).__name__}: {error}): write the artefact again") from error
    return dict(manifest)


def missing_sdk() -> str:
    """Why lyngor cannot be used here; empty where it can."""
    try:
        _imported("lyngor", ("DLModel", "Builder"))
    except SDKError as error:
        return str(error)
    return ""


def _imported(name: str, wanted: tuple[str, ...]) -> Any:
    try:
        module = __import__(name)
    except Exception as error:  # a broken installation raises whatever its libraries raise
        raise SDKError(f"the Lynxi SDK is missing here: import {name}: {type(error).__name__}: {error}") from error
    lacking = [attribute for attribute in wanted if not hasattr(module, attribute)]
    if lacking:
        raise SDKError(
            f"{name} {getattr(module, 'version', '?')} has no {', '.join(lacking)}: another interface than known"
        )
    return module


def _check_file(path: str, about: dict[str, Any]) -> None:
    try:
        if not os.path.isfile(path):
            raise SDKError(f"{path} is no regular file: copy it again")
        if os.path.getsize(path) != about["bytes"]:
            raise SDKError(
                f"{path} has {os.path.getsize(path)} bytes, the manifest says {about['bytes']}: copy it again"
            )
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise SDKError(f"{path} cannot be read: {error}") from error
    if digest != about["sha256"]:
        raise SDKError(f"{path} is not the file that the manifest describes (sha256): copy it again")


def main() -> int:
    """`python compile.py`: 0 done, 2 it cannot be done, with the reason."""
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Compile this artefact with the Lynxi SDK.")
    parser.add_argument("--out", default=os.path.join(here, "apu"), help="directory to write; must not exist")
    try:
        print(compile_net(here, parser.parse_args().out))
    except SDKError as error:
        print(f"compile.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
