"""A run: build the parts by name, train, and leave a directory that tells what was done.

config.toml        the resolved configuration
run.json           plugins, backend per layer, environment, seed, timings, exit status
metrics.jsonl      one line per epoch
model.safetensors  the weights after the last completed epoch
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import spikecore
from spikecore.errors import ConfigError, RunError
from spikecore.interfaces.trainer import Task
from spikecore.registry import create, use
from spikecore.registry import load as load_component
from spikecore.registry.manager import Hooks
from spikecore.run.config import ROLES, Resolved, resolve

T = TypeVar("T")


@dataclass
class Context:
    """What the run gives to its trainer; see `interfaces.trainer.RunContext`."""

    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator
    model: nn.Module
    directory: Path | None = None
    hooks: Hooks | None = None
    timings: dict[str, float] = field(default_factory=dict)

    def log(self, **metrics: float | int | str) -> None:
        """Append one line to `metrics.jsonl`."""
        if self.directory is not None:
            with self.directory.joinpath("metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")

    def checkpoint(self, score: float | None = None) -> None:
        """Save the weights."""
        if self.directory is not None:
            _atomically(self.directory / "model.safetensors", lambda path: save_file(self.model.state_dict(), path))

    def epoch_end(self, epoch: int, metrics: dict[str, float]) -> None:
        """Tell the plugins that an epoch is over."""
        if self.hooks is not None and self.directory is not None:
            self.hooks.epoch_end(self.directory, epoch, metrics)

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Iterate with a progress bar; silent when not on a terminal."""
        if not sys.stderr.isatty():
            yield from items
            return
        from rich.console import Console
        from rich.progress import track

        yield from track(items, label, total=total, console=Console(stderr=True))

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time inside under `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[part] = self.timings.get(part, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Result:
    """What a run gives back: final metrics, seconds per part, and where its files are."""

    metrics: dict[str, float]
    timings: dict[str, float]
    directory: Path


def run(config: Mapping[str, Any] | str | Path | Resolved | None = None, *, out: str | Path | None = None) -> Result:
    """Train as `config` says and write a run directory.

    Raises:
        ConfigError: the configuration, or the directory, cannot be used.
    """
    resolved = config if isinstance(config, Resolved) else resolve(config)
    hooks = resolved.registry.hooks
    task, trainer, context = prepare(resolved)
    directory = context.directory = _new_directory(out, resolved)
    context.hooks = hooks
    header = hooks.report_header(str(context.device))
    record = {**_record(resolved, task.model), "header": header}
    for line in (*header, *(f"warning: hooks are left out: {error}" for error in hooks.failures.values())):
        print(line, file=sys.stderr)
    _write(directory / "config.toml", resolved.to_toml())
    _write(directory / "run.json", json.dumps(record, indent=2))
    start = time.perf_counter()
    metrics: dict[str, float] = {}
    try:
        hooks.run_start(directory, record, task.model)
        with use(resolved.registry):
            metrics = trainer.fit(task, context)
        context.checkpoint()
        record |= {"status": "finished", "exit_status": 0, "metrics": metrics}
    except KeyboardInterrupt:
        record |= {"status": "interrupted", "exit_status": 130}
        raise
    except BaseException as error:
        record |= {"status": "failed", "exit_status": 1, "error": f"{type(error).__name__}: {error}"}
        raise
    finally:
        record["backends"] = _backends(task.model)
        record["timings_s"] = {**context.timings, "total": time.perf_counter() - start}
        try:
            hooks.run_end(directory, str(record["status"]), metrics)
        finally:
            _write(directory / "run.json", json.dumps(record, indent=2))
    return Result(metrics, record["timings_s"], directory)


def prepare(resolved: Resolved) -> tuple[Task, Any, Context]:
    """Build data, net and trainer, all from the seed; writes nothing."""
    with use(resolved.registry):
        return _prepare(resolved)


def _prepare(resolved: Resolved) -> tuple[Task, Any, Context]:
    options = resolved.tables["run"]
    device = _device(options.device)
    torch.manual_seed(options.seed)
    dataset = create("dataset", resolved.names["dataset"], **resolved.options("dataset"))
    encoder = create("encoder", resolved.names["encoder"], **resolved.options("encoder"))
    backend = resolved.tables["backend"].name

    def make_neuron() -> nn.Module:
        made: nn.Module = create("neuron", resolved.names["neuron"], backend=backend, **resolved.options("neuron"))
        return made

    model = load_component("model", resolved.names["model"])(
        make_neuron, dataset.sample_shape, dataset.num_classes, **resolved.options("model")
    ).to(device)
    trainer = create("trainer", resolved.names["trainer"], **resolved.options("trainer"))
    train, test = dataset.split("train"), dataset.split("test")
    task = Task(model, encoder, train, test, dataset.num_classes, dataset.is_sequence)
    dtype: torch.dtype = getattr(torch, options.precision)
    return task, trainer, Context(device, dtype, torch.Generator().manual_seed(options.seed), model)


def load(directory: str | Path) -> nn.Module:
    """The trained net of a run, in evaluation mode, on the CPU."""
    task, _, _ = _restore(directory)
    return task.model.cpu().eval()


def evaluate(directory: str | Path) -> dict[str, float]:
    """The metrics of a run's saved weights on its test split."""
    task, trainer, context = _restore(directory)
    metrics: dict[str, float] = trainer.evaluate(task, context)
    return metrics


def _restore(directory: str | Path) -> tuple[Task, Any, Context]:
    directory = Path(directory)
    weights = directory / "model.safetensors"
    if not weights.is_file():
        raise ConfigError(f"{directory}: holds no model.safetensors; name the directory that `spike run` printed")
    task, trainer, context = prepare(resolve(directory / "config.toml"))
    try:
        task.model.load_state_dict(load_file(weights))
    except Exception as error:
        raise RunError(f"{weights}: cannot be loaded into the net of config.toml: {error}") from error
    return task, trainer, context


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"run.device: {name!r} was asked for, but there is no usable GPU here; use 'auto' or 'cpu'")
    return torch.device(name)


def _new_directory(out: str | Path | None, resolved: Resolved) -> Path:
    now = datetime.now(timezone.utc)
    name = resolved.tables["run"].name
    path = Path(out) if out is not None else Path("runs") / f"{name}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ConfigError(f"--out {path}: the directory is not empty; name a new one")
        path.joinpath(".writable").touch()
        path.joinpath(".writable").unlink()
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written: {error}") from error
    return path


def _record(resolved: Resolved, model: nn.Module) -> dict[str, Any]:
    entries = {role: resolved.registry.find(role, resolved.names[role]) for role in ROLES}
    components = {
        role: {
            "name": entry.name,
            "target": entry.target,
            "plugin": entry.plugin.id,
            "distribution": entry.plugin.distribution,
            "version": entry.plugin.version,
        }
        for role, entry in entries.items()
    }
    return {
        "schema": 1,
        "status": "running",
        "started": datetime.now(timezone.utc).isoformat(),
        "seed": resolved.tables["run"].seed,
        "config_sha256": hashlib.sha256(resolved.to_toml().encode()).hexdigest(),
        "components": components,
        "plugins": _plugins(resolved),
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "torch": torch.__version__,
            "spikecore": spikecore.__version__,
            "num_threads": torch.get_num_threads(),
        },
        "git_commit": _git_commit(),
    }


def _backends(model: nn.Module) -> dict[str, dict[str, str]]:
    """What ran each neuron, and why; a neuron that never ran is not there."""
    return {
        name: {"asked": part.backend, "ran": part.chosen.backend, "reason": part.chosen.reason}
        for name, part in model.named_modules()
        if getattr(part, "chosen", None) is not None
    }


def _plugins(resolved: Resolved) -> list[dict[str, Any]]:
    """Every plugin that this run could use: those whose hooks are called, and files given with `--load`."""
    registry = resolved.registry
    hooked = {plugin.id for plugin in registry.hooks.active}
    return [
        {
            "id": plugin.id,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "source": plugin.source,
            "status": plugin.status,
            "reason": plugin.reason or str(registry.hooks.failures.get(plugin.id, "")),
            "hooks": plugin.id in hooked,
        }
        for plugin in (*registry.plugins(), *registry.files)
    ]


def _git_commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _write(path: Path, text: str) -> None:
    _atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def _atomically(path: Path, write: Any) -> None:
    aside = path.with_name(path.name + ".partial")
    write(aside)
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)
