"""Where a run comes from: machine, versions, plugins, components, files given with `--load`, commit."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import spikecore
from spikecore.errors import ConfigError
from spikecore.nn.products import SpikeLayer
from spikecore.processor import processor_name
from spikecore.registry import Registry
from spikecore.run.config import AUTO_BACKEND, Resolved
from spikecore.run.record import BackendRecord, ComponentRecord, FileRecord, PluginRecord, Record
from spikecore.run.roles import kind_of

MATTERS = ("spikecore", "torch", "num_threads", "num_processes", "device_name")
"""What numbers may depend on, beyond configuration and seed."""


def backends(model: nn.Module) -> dict[str, BackendRecord]:
    """What ran each neuron and each product, and why; one that never ran is not there.

    A product is that of a layer, or of a block's layer; its reason names path, rate and shape of the last call, and
    before it those of calls of other shapes.
    """
    records = {}
    for name, part in model.named_modules():
        chosen = getattr(part, "chosen", None)
        if chosen is not None:
            records[name] = BackendRecord(asked=part.backend, ran=chosen.backend, reason=chosen.reason)
    for name, layer in model.named_modules():
        if isinstance(layer, SpikeLayer) and layer.product is not None:
            reason = "; before: ".join(map(str, layer.choices))
            records[name] = BackendRecord(layer.products, layer.product.backend, reason)
    return records


def environment(device: torch.device, num_processes: int = 1) -> dict[str, Any]:
    """Machine and versions."""
    versions = {name: _version(name) for name in ("numpy", "safetensors", "pluggy", "click")}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "num_threads": torch.get_num_threads(),
        "num_processes": num_processes,
        "num_cores": os.cpu_count(),
        "spikecore": spikecore.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **versions,
        "argv": sys.argv,
    }


def changed_environment(
    environment: Mapping[str, Any],
    plugins: Sequence[PluginRecord],
    here: Mapping[str, Any],
    now: Sequence[PluginRecord],
) -> list[str]:
    """What is not as it was, and may change the numbers.

    Args:
        environment, plugins: as they were.
        here, now: as they are.
    """
    changed = [name for name in MATTERS if environment.get(name) != here[name]]
    lines = [f"{name} was {environment.get(name)}, is {here[name]}" for name in changed]
    before, after = _used_versions(plugins), _used_versions(now)
    for name in {**before, **after}:
        if after.get(name) != before.get(name):
            was, becomes = before.get(name, "not in use"), after.get(name, "not in use")
            lines.append(f"plugin {name} was {was}, is {becomes}")
    return lines


def _used_versions(plugins: Sequence[PluginRecord]) -> dict[str, str]:
    """Version by distribution, of the plugins that are not switched off or broken."""
    return {plugin.distribution: plugin.version for plugin in plugins if plugin.status == "ok"}


def files(registry: Registry) -> list[FileRecord]:
    """The files that this run was given with `--load`."""
    records = []
    for file in registry.files:
        components = [f"{entry.kind}:{entry.name}" for entry in registry.entries() if entry.plugin == file]
        records.append(FileRecord(path=file.path, sha256=file.version, components=tuple(components)))
    return records


def check_files(record: Record, registry: Registry, tables: Collection[str] | None = None) -> None:
    """The files that the run was given with `--load` are here, with the same bytes.

    Args:
        record: of the run.
        registry: holds what was given to this process.
        tables: only files that define something which these tables name are needed; None for all files.

    Raises:
        ConfigError: one is missing, or its content has changed.
    """
    given = {file.version: file.path for file in registry.files} | _imported_files(registry)
    for file in record.files:
        if file.sha256 in given or (tables is not None and not _is_named(file, record, tables)):
            continue
        made = f"this run was made with --load {file.path}"
        same = [(digest, path) for digest, path in given.items() if Path(path).name == Path(file.path).name]
        if same or (here := _digest(file.path)) not in ("", file.sha256):
            digest, path = same[0] if same else (here, file.path)
            raise ConfigError(
                f"{made}, and {path} has changed since: expected sha256 {file.sha256[:12]}, got {digest[:12]}; put the "
                "content of then back (from version control, or a copy), and give it with --load"
            )
        raise ConfigError(
            f"{made} (sha256 {file.sha256[:12]}, it defines {', '.join(file.components)}), which was not given: give "
            "it again with --load; from Python, import it before"
        )


def _is_named(file: FileRecord, record: Record, tables: Collection[str]) -> bool:
    """Whether these tables of the run's configuration name something that the file defined."""
    named: set[str] = set()
    for table in tables:
        named |= _words(record.config.get(table, {}))
    return any(component.partition(":")[2] in named for component in file.components)


def _words(value: Any) -> set[str]:
    """Every string in a table, since any may pick a component or a choice; also without an owner (`owner:name`)."""
    if isinstance(value, str):
        return {value, value.rpartition(":")[2]}
    items: Iterable[Any] = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, list | tuple):
        items = value
    words: set[str] = set()
    for item in items:
        words |= _words(item)
    return words


def _digest(path: str) -> str:
    """SHA-256 of a file; "" where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def _imported_files(registry: Registry) -> dict[str, str]:
    """Hash → path of the source files whose components were registered in this process."""
    path_of = {}
    for component in registry.registered_components():
        try:
            path = str(inspect.getsourcefile(inspect.unwrap(component)))
        except (OSError, TypeError):
            continue  # made in a notebook: no file
        if digest := _digest(path):
            path_of[digest] = path
    return path_of


def components(resolved: Resolved) -> dict[str, ComponentRecord]:
    """The component of every table that names one."""
    chosen = {table: name for table, name in resolved.names.items() if (table, name) != AUTO_BACKEND}
    entries = {table: resolved.registry.find(str(kind_of(table)), name) for table, name in chosen.items()}
    records = {}
    for table, entry in entries.items():
        plugin = entry.plugin
        records[table] = ComponentRecord(entry.name, entry.target, plugin.id, plugin.distribution, plugin.version)
    return records


def plugins(resolved: Resolved) -> list[PluginRecord]:
    """Every plugin that this run could use: those whose hooks are called, and files given with `--load`."""
    registry = resolved.registry
    hooked = {plugin.id for plugin in registry.hooks.active}
    records = []
    for plugin in (*registry.plugins(), *registry.files):
        failure = str(registry.hooks.failures.get(plugin.id, ""))
        record = PluginRecord(
            id=plugin.id,
            distribution=plugin.distribution,
            version=plugin.version,
            target=plugin.target,
            source=plugin.source,
            status=plugin.status,
            reason=plugin.reason or failure,
            hooks=plugin.id in hooked,
        )
        records.append(record)
    return records


def git() -> dict[str, Any] | None:
    """Commit of the working directory, and whether tracked files differ from it (`dirty`; None where git did not tell).

    None outside a repository, and in one without a commit.
    """
    commit = _output("git", "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    changes = _output("git", "status", "--porcelain", "-uno")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _output(*command: str) -> str | None:
    """What a command prints; None where it is not here, fails, or takes long (git in a very large tree)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
