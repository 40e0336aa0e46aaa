"""`run.json`: what ran, with which parts, where, and how it ended; always whole, written aside and renamed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

import spikecore
from spikecore.errors import ConfigError
from spikecore.files import write_file
from spikecore.registry import Registry
from spikecore.run.config import AUTO_BACKEND, Resolved, tables_of
from spikecore.run.files import holder
from spikecore.run.log import finite

FILE = "run.json"
SCHEMA = 1
OWN_SUM = "record_sha256"
"""Key of the checksum over all else: what is read was written by a run, to the last bit."""
RUNNING, DIED = "running", "died"
MATTERS = ("spikecore", "torch", "num_threads", "device_name")
"""What numbers may depend on, beyond configuration and seed."""


ALWAYS = (
    *("id", "status", "exit_status", "started", "seed", "config_sha256", "config", "changes", "components", "plugins"),
    *("files", "environment", "git", "header", "classes", "backends", "timings_s", "resumes", "notes"),
)
"""What every record has, from its first moment on."""


def new(resolved: Resolved, device: torch.device, header: Sequence[str], classes: Sequence[str] = ()) -> dict[str, Any]:
    """The record of a run that is about to start."""
    text = resolved.to_toml()
    return {
        "schema": SCHEMA,
        "id": secrets.token_hex(8),
        "status": RUNNING,
        "exit_status": None,
        "started": now(),
        "seed": resolved.tables["run"].seed,
        "config_sha256": digest(text),
        "config": tables_of(text),
        "changes": [],
        "components": _components(resolved),
        "plugins": plugins(resolved),
        "files": [{"path": file.path, "sha256": file.version} for file in resolved.registry.files],
        "environment": environment(device),
        "git": _git(),
        "header": list(header),
        "classes": list(classes),
        "backends": {},
        "timings_s": {},
        "resumes": [],
        "notes": [],
    }


def write(directory: Path, record: Mapping[str, Any]) -> None:
    """Replace the record of a run."""
    plain = {key: value for key, value in _plain(record).items() if key != OWN_SUM}
    write_file(directory / FILE, json.dumps({**plain, OWN_SUM: _sum(plain)}, indent=2) + "\n")


def read(directory: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        ConfigError: there is none, it is damaged, or of another schema.
    """
    path = directory / FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["schema"]
    except FileNotFoundError:
        raise ConfigError(
            f"{directory}: holds no {FILE}, so no run began here; name the directory that `spike run` printed"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged: {type(error).__name__}: {error}") from error
    if version != SCHEMA:
        raise ConfigError(f"{path}: is of schema {version!r}, this spikecore reads {SCHEMA}: use the one that wrote it")
    lost = [key for key in ALWAYS if key not in record]
    if lost:
        raise ConfigError(f"{path}: is damaged: it lacks {', '.join(lost)}")
    if record.pop(OWN_SUM, None) != _sum(record):
        raise ConfigError(f"{path}: is damaged or was edited: its content is not what {OWN_SUM} says")
    found: dict[str, Any] = record
    return found


def _sum(record: Mapping[str, Any]) -> str:
    return digest(json.dumps(record, sort_keys=True))


def status_of(directory: Path, record: Mapping[str, Any]) -> str:
    """`running`, `died` (it says running, and nothing runs), `finished`, `interrupted` or `failed`."""
    status: str = record["status"]
    return DIED if status == RUNNING and holder(directory) is None else status


def backends(model: nn.Module) -> dict[str, dict[str, str]]:
    """What ran each neuron, and why; a neuron that never ran is not there."""
    return {
        name: {"asked": part.backend, "ran": part.chosen.backend, "reason": part.chosen.reason}
        for name, part in model.named_modules()
        if getattr(part, "chosen", None) is not None
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Machine and versions."""
    versions = {name: _version(name) for name in ("numpy", "safetensors", "pluggy", "click")}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "num_threads": torch.get_num_threads(),
        "num_cores": os.cpu_count(),
        "spikecore": spikecore.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **versions,
        "argv": sys.argv,
    }


def changed_environment(record: Mapping[str, Any], here: Mapping[str, Any], active: Sequence[Any]) -> list[str]:
    """What is not as it was, and may change the numbers."""
    there = record["environment"]
    lines = [f"{name} was {there.get(name)}, is {here[name]}" for name in MATTERS if there.get(name) != here[name]]
    before, after = _used(record["plugins"]), _used(active)
    return [
        *lines,
        *(
            f"plugin {name} was {before.get(name, 'not in use')}, is {after.get(name, 'not in use')}"
            for name in {**before, **after}
            if after.get(name) != before.get(name)
        ),
    ]


def _used(plugins: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Version by distribution, of the plugins that are not switched off or broken."""
    return {plugin["distribution"]: plugin["version"] for plugin in plugins if plugin["status"] == "ok"}


def check_files(record: Mapping[str, Any], registry: Registry) -> None:
    """The files that the run was given with `--load` are here, with the same bytes.

    Raises:
        ConfigError: one is missing, or has another hash.
    """
    given = {file.version: file.path for file in registry.files} | _imported(registry)
    for file in record["files"]:
        if file["sha256"] not in given:
            name = Path(file["path"]).name
            other = [path for path in given.values() if Path(path).name == name]
            came = f"{other[0]} is another file" if other else "it was not given"
            raise ConfigError(
                f"this run was made with --load {file['path']} (sha256 {file['sha256'][:12]}), and {came}: "
                f"give the same one again with --load; from Python, import it before"
            )


def now() -> str:
    """This moment, for people; nothing is ordered by it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _imported(registry: Registry) -> dict[str, str]:
    """Hash → path of the source files whose components were registered in this process."""
    found = {}
    for component in registry.registered():
        try:
            path = inspect.getsourcefile(inspect.unwrap(component))
            found[hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()] = str(path)
        except (OSError, TypeError):
            continue  # made in a notebook: no file
    return found


def _components(resolved: Resolved) -> dict[str, dict[str, str]]:
    chosen = {table: name for table, name in resolved.names.items() if (table, name) != AUTO_BACKEND}
    entries = {table: resolved.registry.find(table, name) for table, name in chosen.items()}
    return {
        table: {
            "name": entry.name,
            "target": entry.target,
            "plugin": entry.plugin.id,
            "distribution": entry.plugin.distribution,
            "version": entry.plugin.version,
        }
        for table, entry in entries.items()
    }


def plugins(resolved: Resolved) -> list[dict[str, Any]]:
    """Every plugin that this run could use: those whose hooks are called, and files given with `--load`."""
    registry = resolved.registry
    hooked = {plugin.id for plugin in registry.hooks.active}
    return [
        {
            "id": plugin.id,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "target": plugin.target,
            "source": plugin.source,
            "status": plugin.status,
            "reason": plugin.reason or str(registry.hooks.failures.get(plugin.id, "")),
            "hooks": plugin.id in hooked,
        }
        for plugin in (*registry.plugins(), *registry.files)
    ]


def _git() -> dict[str, Any] | None:
    """Commit of the working directory, and whether tracked files differ from it; None outside a repository."""
    commit, changes = _output("git", "rev-parse", "HEAD"), _output("git", "status", "--porcelain", "-uno")
    return {"commit": commit, "dirty": bool(changes)} if commit else None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "") or (
        platform.processor() or platform.machine()
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _plain(value: Any) -> Any:
    """Strict JSON: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return finite(value)
