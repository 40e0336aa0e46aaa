"""A net to give away: a directory with `config.json` and `model.safetensors`, as the Hugging Face hub lays out models.

    spike share RUN_DIR --out DIR
    net = spikecore.load(DIR)

config.json holds the tables that the net is built from, and checksums; nothing of the run, its data or this machine.
Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import nn

from spikecore.documents import parse_json
from spikecore.errors import CheckpointError, ConfigError, InputError
from spikecore.files import read_file, write_directory
from spikecore.nn import quantized
from spikecore.registry import use
from spikecore.run.checkpoint import LAST
from spikecore.run.config import Resolved, resolve, tables_of
from spikecore.run.parts import Parts, rebuild_model
from spikecore.run.randomness import seed_everything
from spikecore.run.record import MOST_BYTES, NetRecord
from spikecore.run.restore import SavedRun
from spikecore.run.typed import Mismatch, from_plain
from spikecore.version import __version__

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LIBRARY = "spikecore"
FORM = 1
"""Of config.json."""


def is_shared(directory: Path) -> bool:
    """Whether this is a directory that `share` wrote, or one laid out like it."""
    return (directory / CONFIG).is_file() and (directory / WEIGHTS).is_file()


def share(directory: str | Path, out: str | Path, checkpoint: str = LAST) -> Path:
    """Write the net of a run for others.

    Args:
        directory: of the run.
        out: a new directory.
        checkpoint: `last`, `best` or a name.

    Returns:
        `out`.

    Raises:
        ConfigError: this is no run, its trainer made the net itself, or a part comes from a file given with `--load`.
        CheckpointError: the checkpoint is missing, damaged or of another model.
        OSError: it cannot be written.
    """
    saved = SavedRun.open(Path(directory))
    record = saved.record
    if not record.nets:
        raise ConfigError(f"{directory}: the trainer made this net itself, so its tables alone do not build it again")
    if record.files:
        files = ", ".join(file.path for file in record.files)
        raise ConfigError(f"{directory}: parts of this run come from files ({files}): make them a plugin to share it")
    net = saved.net()
    weights = bytes_of({name: value.contiguous() for name, value in saved.checkpoint(checkpoint, net).model.items()})
    roles = {how.role for how in record.nets.values()}
    only = [table for table in record.config if table in {"neuron", "backend", *roles}]
    tables = tables_of(resolve(saved.source, record.changes, only=only).to_toml())
    parts = {name: {"distribution": part.distribution, "version": part.version} for name, part in _parts(saved, only)}
    config: dict[str, Any] = {
        "library_name": LIBRARY,
        "form": FORM,
        "spikecore": __version__,
        "tables": {name: tables[name] for name in only},
        "nets": {name: {**asdict(how), "weights": None} for name, how in record.nets.items()},
        "components": parts,
        "classes": list(record.classes),
        "sha256": {WEIGHTS: hashlib.sha256(weights).hexdigest()},
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    write_directory(Path(out), {CONFIG: text.encode(), WEIGHTS: weights})
    return Path(out)


def _parts(saved: SavedRun, only: list[str]) -> list[tuple[str, Any]]:
    return [(table, part) for table, part in saved.record.components.items() if table in only]


def load_shared(directory: Path, backend: str | None = None) -> nn.Module:
    """The net in a directory that `share` wrote, in evaluation mode, on the CPU; the weights are verified.

    Args:
        directory: with config.json and model.safetensors.
        backend: to run the neurons on; None for the one in config.json.

    Raises:
        ConfigError: config.json is damaged or another library's, or a part is not installed.
        CheckpointError: the weights are damaged, or of another net.
    """
    config = _config(directory / CONFIG)
    resolved = _resolve(directory, config, backend)
    try:
        records: dict[str, NetRecord] = from_plain(dict[str, NetRecord], config["nets"], "nets")
        sums: dict[str, str] = from_plain(dict[str, str], config.get("sha256"), "sha256")
    except Mismatch as error:
        raise ConfigError(f"{directory / CONFIG}: is damaged: {error}") from error
    path = directory / WEIGHTS
    try:
        data = read_file(path, path.stat().st_size, follows_link=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != sums.get(WEIGHTS):
        raise CheckpointError(f"{path}: is damaged, or is not the file that {CONFIG} was written with")
    with use(resolved.registry):
        seed_everything(0)
        net = rebuild_model(Parts(resolved, torch.device("cpu"), with_weights=False), records)
    try:
        state = tensors_of(data)
        quantized.prepare(net, state)
        net.load_state_dict(state)
    except (RuntimeError, SafetensorError, InputError) as error:
        raise CheckpointError(f"{path}: does not fit the net that {CONFIG} describes: {error}") from error
    return net.eval()


def _resolve(directory: Path, config: dict[str, Any], backend: str | None) -> Resolved:
    overrides = [f"backend.name={backend}"] if backend else []
    try:
        return resolve(config["tables"], overrides, only=["run", "plugins", *config["tables"]])
    except ConfigError as error:
        try:
            parts = from_plain(dict[str, dict[str, str | None]], config.get("components"), "components")
            needs = [f"{table}: from {part['distribution']} {part['version']}" for table, part in parts.items()]
        except (Mismatch, KeyError):
            raise error from None
        raise ConfigError([*error.problems, f"{directory / CONFIG} was written with {'; '.join(needs)}"]) from error


def _config(path: Path) -> dict[str, Any]:
    try:
        # A directory that was downloaded may be one of links, as in the cache of a hub.
        text = read_file(path, MOST_BYTES, follows_link=True)
        config: dict[str, Any] = parse_json(text, most_bytes=MOST_BYTES)
        library, form = config.get("library_name"), config.get("form")
        is_whole = isinstance(config.get("tables"), dict) and isinstance(config.get("nets"), dict)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: is damaged: {type(error).__name__}: {error}") from error
    if library != LIBRARY:
        raise ConfigError(f"{path}: is of library_name {library!r}, expected {LIBRARY!r}: it is no net of spikecore")
    if form != FORM or not is_whole:
        raise ConfigError(f"{path}: is of form {form!r}, this spikecore reads {FORM}: use the one that wrote it")
    return config
