"""The directory of a converted net, and the way back from it to the net, without the data.

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from torch import Tensor, nn

from spikecore.documents import parse_json
from spikecore.errors import (
    BrokenPluginError,
    CheckpointError,
    ConfigError,
    ConversionError,
    NetTraceError,
    PluginError,
)
from spikecore.files import read_file
from spikecore.nn import quantized, set_backend, set_step_mode
from spikecore.registry import create, registry
from spikecore.registry.files import file_source
from spikecore.run.restore import SavedRun
from spikecore.run.sources import CONVERTED, FILE, RUN, call_factory, find_module
from spikecore.run.typed import Mismatch, from_plain

FORM = 1
"""Of converted.json."""
MOST_BYTES = 1 << 26
OWN_SUM = "sha256_of_the_rest"
PARTS: dict[str, Any] = {
    "files": dict[str, str],
    "converter": dict[str, Any],
    "source": dict[str, Any],
    "example_shape": list[int],
}
"""What is read of converted.json, and of which type it is."""
MANIFEST, WEIGHTS, EXAMPLE, SOURCE = "converted.json", "net.safetensors", "example.safetensors", "source"


def is_converted(directory: Path) -> bool:
    """Whether `spike convert` wrote this directory."""
    return (directory / MANIFEST).is_file()


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
    state = _tensors(directory, read_manifest(directory), WEIGHTS)
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


def skeleton(directory: Path, loaded_bytes: int | None = None) -> nn.Module:
    """The net in a directory that `convert` wrote, with new weights; errors are those of `load_converted`.

    Args:
        directory: with a converted.json.
        loaded_bytes: of the weights that are to be loaded; None for those in the directory.
    """
    manifest = read_manifest(directory)
    loaded_bytes = weight_bytes(directory) if loaded_bytes is None else loaded_bytes
    tensors = _tensors(directory, manifest, EXAMPLE)
    if "example" not in tensors:
        raise CheckpointError(f"{directory / EXAMPLE}: is damaged: it holds no tensor named example")
    example = tensors["example"]
    how = manifest["converter"]
    converter = create("converter", how["name"], **how["options"])
    net = rebuild_source(manifest["source"], directory / SOURCE, converter, loaded_bytes)
    try:
        made: nn.Module = converter.convert(net, example, [example])[0]
    except (ConversionError, NetTraceError) as error:
        raise ConfigError(
            f"{directory}: converter {how['name']!r} refuses the net that it has converted before (with version "
            f"{how.get('version')} of {how.get('distribution')}): {error}"
        ) from error
    set_step_mode(made, "multi")
    return made


@dataclass(frozen=True)
class Beginning:
    """What a converted net comes from, however often it was converted.

    Args:
        place: the directory of the run's configuration and record, or of what else rebuilds the first net.
        about: that net, as its source was described.
        num_steps: T for which a net without state was converted; None where the first net takes sequences.
        dataset: name of the one that calibrated the net, the last time that one was named; None for none.
    """

    place: Path
    about: dict[str, Any]
    num_steps: int | None
    dataset: str | None


def beginning_of(directory: Path) -> Beginning:
    """Follow a converted net back; errors are those of `read_manifest`, or that a converter is not installed."""
    num_steps, dataset = None, None
    manifests = _manifests(directory)
    for _, manifest in manifests:
        source, how = manifest["source"], manifest["converter"]
        if source["step_mode"] == "single":
            num_steps = create("converter", how["name"], **how["options"]).capabilities.num_steps
        if dataset is None:
            dataset = manifest.get("dataset")
    place, last = manifests[-1]
    return Beginning(place / SOURCE, last["source"], num_steps, dataset)


def _manifests(directory: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Of a converted net, then of the one it was converted from, as long as that was a converted net too."""
    manifests = [(directory, read_manifest(directory))]
    while manifests[-1][1]["source"]["kind"] == CONVERTED:
        place = manifests[-1][0] / SOURCE
        manifests.append((place, read_manifest(place)))
    return manifests


def load_files(files: Sequence[str | Path], directory: Path) -> None:
    """Run the files that `--load` names: of components, or the one that made the net before it was converted.

    Args:
        files: to run.
        directory: of the net to look at; perhaps a run's, or none.

    Raises:
        PluginError: a file cannot be read, fails, or is neither.
    """
    about: dict[str, Any] = _manifests(directory)[-1][1]["source"] if files and is_converted(directory) else {}
    for file in files:
        makes_net = "function" in about and file_source(file).version == about["sha256"]
        try:
            registry().load_file(file, may_be_empty=makes_net)
        except PluginError as error:
            if isinstance(error, BrokenPluginError) or "function" not in about:
                raise
            raise PluginError(
                f"{error}; nor is it the file that made this net, {about['file']} as it was then (sha256 "
                f"{about['sha256'][:12]})"
            ) from error


def input_shape(directory: Path) -> tuple[int, ...]:
    """The shape of one sample in one step, `[...]`; errors are those of `read_manifest`."""
    manifest = read_manifest(directory)
    num_lead = 2 if manifest["source"]["step_mode"] == "multi" else 1
    return tuple(manifest["example_shape"][num_lead:])


def weight_bytes(directory: Path) -> int:
    """Size of the weights in a directory that `convert` wrote; 0 where they are missing."""
    try:
        return (directory / WEIGHTS).lstat().st_size
    except OSError:
        return 0


def rebuild_source(about: dict[str, Any], directory: Path, converter: Any, loaded_bytes: int) -> nn.Module:
    """The net of a source with new weights, in the step mode in which it was converted.

    Args:
        about: of the `Source`.
        directory: that holds its `files`.
        converter: that converted it, and reads files of other programs.
        loaded_bytes: of the weights that the converted net gets.

    Raises:
        ConfigError: what it is built from is not here.
    """
    if about["kind"] == RUN:
        net = SavedRun.open(directory).net(loaded_bytes=loaded_bytes)
    elif about["kind"] == CONVERTED:
        net = skeleton(directory, loaded_bytes)
    elif about["kind"] == FILE:
        path = directory / about["stored"]
        try:
            net = converter.from_content(read_file(path, path.lstat().st_size))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
        except ConversionError as error:
            raise ConfigError(f"{path}: {error}") from error
    else:
        module = find_module(about["sha256"])
        if module is None:
            raise ConfigError(
                f"this net was made by {about['file']}:{about['function']} (sha256 {about['sha256'][:12]}), which is "
                f"run only when you ask for it: --load {about['file']}, or in Python import that file before, unchanged"
            )
        net = call_factory(getattr(module, about["function"], None), f"{about['file']}:{about['function']}")
    set_step_mode(net.eval(), about["step_mode"])
    return net


def sum_of(manifest: dict[str, Any]) -> str:
    """Of all that the manifest holds but this sum."""
    rest = json.dumps({key: value for key, value in manifest.items() if key != OWN_SUM}, sort_keys=True)
    return hashlib.sha256(rest.encode()).hexdigest()


def read_manifest(directory: Path) -> dict[str, Any]:
    """What converted.json says; the files that it lists, but the weights, are verified.

    Raises:
        ConfigError: it is missing, damaged or of another form.
        CheckpointError: a file is damaged.
    """
    path = directory / MANIFEST
    try:
        manifest: dict[str, Any] = parse_json(read_file(path, MOST_BYTES), most_bytes=MOST_BYTES)
        form = manifest["form"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is missing or damaged: {type(error).__name__}: {error}") from error
    if form != FORM:
        raise ConfigError(f"{path}: is of form {form!r}, this spikecore reads {FORM}: use the one that wrote it")
    if manifest.get(OWN_SUM) != sum_of(manifest):
        raise ConfigError(f"{path}: is damaged or was edited: its content is not what {OWN_SUM} says")
    try:
        for key, hint in PARTS.items():
            from_plain(hint, manifest.get(key), key)
        from_plain(str, manifest["converter"].get("name"), "converter.name")
        from_plain(dict[str, Any], manifest["converter"].get("options"), "converter.options")
        _check_source(manifest["source"])
    except Mismatch as error:
        raise ConfigError(f"{path}: is damaged: {error}") from error
    for name in manifest["files"]:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ConfigError(f"{path}: is damaged: {name!r} is not a file of this directory")
        if name != WEIGHTS:  # which are read, and verified, where they are wanted; a source has been saved without them
            _read_verified(directory, manifest, name)
    return manifest


def _check_source(about: dict[str, Any]) -> None:
    """What `rebuild_source` reads of a source.

    Raises:
        Mismatch: a part is missing or of another type.
    """
    kind = from_plain(str, about.get("kind"), "source.kind")
    needed = {RUN: (), CONVERTED: (), FILE: ("stored",)}.get(kind, ("sha256", "file", "function"))
    for key in ("step_mode", *needed):
        from_plain(str, about.get(key), f"source.{key}")
    if about["step_mode"] not in ("single", "multi"):
        raise Mismatch(f"source.step_mode is {about['step_mode']!r}, not single or multi")
    if PurePosixPath(about.get("stored", "")).name != about.get("stored", ""):
        raise Mismatch(f"source.stored is {about['stored']!r}, no name of a file")


def _tensors(directory: Path, manifest: dict[str, Any], name: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = tensors_of(_read_verified(directory, manifest, name))
    except SafetensorError as error:
        raise CheckpointError(f"{directory / name}: is damaged: {error}") from error
    return tensors


def _read_verified(directory: Path, manifest: dict[str, Any], name: str) -> bytes:
    path = directory / name
    try:
        data = read_file(path, path.lstat().st_size)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != manifest["files"].get(name):
        raise CheckpointError(f"{path}: is damaged: its bytes are not those that were written")
    return data
