"""Where a net comes from that is to be converted: a run directory, a converted net, or a function in a Python file.

A source gives the net with its weights, and what is needed to build it again without its weights: that is copied into
the directory of the converted net, below `source/`.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from spikecore.errors import CheckpointError, ConfigError, ConversionError
from spikecore.nn import Dropout, Stateful, set_step_mode
from spikecore.nn.weights import read_tensors
from spikecore.registry.files import file_source, run_file

RUN, CONVERTED, FACTORY, FILE = "run", "converted", "factory", "file"
"""Kinds of sources."""


@dataclass(frozen=True)
class Source:
    """A net to convert.

    Args:
        net: in evaluation mode, with its weights. One without state takes batches `[B, ...]` (step mode `single`, where
            it has one), one with state sequences `[T, B, ...]`.
        about: what it is, for the manifest, and for `rebuild_source`.
        files: name below `source/` → content: what rebuilds it.
        shape: of one sample `[...]`; None where it is not known without data.
        directory: of the run or the converted net; None for a function in a file.
        num_steps: T of a net that was converted from one without state: it takes the same input at every step. None for
            any other.
        dataset: name of the dataset that calibrated a converted net; None where that is not known.
        beginning: kind of the source that a net was converted from first; None for any other net.
    """

    net: nn.Module
    about: dict[str, Any]
    files: dict[str, bytes]
    shape: tuple[int, ...] | None
    directory: Path | None
    num_steps: int | None = None
    dataset: str | None = None
    beginning: str | None = None

    @property
    def has_run(self) -> bool:
        """Whether it is, or was converted from, a run, which has data."""
        return RUN in (self.about["kind"], self.beginning)


def from_function(file: Path, function: str, weights: Path | None) -> Source:
    """The net that a function in a file makes; the file is run.

    Raises:
        PluginError: the file cannot be read, or fails.
        ConfigError: it has no such function, or the function gives no net.
        CheckpointError: the weights are not those of the net.
    """
    plugin = file_source(file, "SOURCE")
    module = find_module(plugin.version)
    if module is None:
        run_file(plugin, "SOURCE")
        module = find_module(plugin.version)
    net = call_factory(getattr(module, function, None), f"{file}:{function}")
    if weights is not None:
        tensors, _ = read_tensors(weights)
        try:
            net.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"--weights {weights}: are not those of {file}:{function}: {error}") from error
    about: dict[str, Any] = {
        "kind": FACTORY,
        "file": str(file),
        "sha256": plugin.version,
        "function": function,
        "weights": None if weights is None else str(weights),
        "step_mode": set_given_mode(net.eval()),
    }
    return Source(net, about, {}, None, None)


def from_file(file: Path, converter: Any) -> Source:
    """The net in a file of another program, which the converter reads.

    Raises:
        ConfigError: it refuses the file.
    """
    try:
        content: bytes = converter.content(file)
        net: nn.Module = converter.from_content(content).eval()
    except ConversionError as error:
        text = str(error) if str(file) in str(error) else f"{file}: {error}"
        raise ConfigError(f"SOURCE {text}") from error
    name = f"net{file.suffix}"
    about: dict[str, Any] = {"kind": FILE, "file": str(file), "stored": name, "step_mode": set_given_mode(net)}
    return Source(net, about, {name: content}, None, None)


def call_factory(function: Any, what: str) -> nn.Module:
    """The net that a function makes.

    Raises:
        ConfigError: it is no function, fails, or gives no net.
    """
    if not callable(function):
        raise ConfigError(f"SOURCE {what}: the file has no function of this name")
    try:
        net = function()
    except Exception as error:
        raise ConfigError(
            f"SOURCE {what}: calling it without arguments failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(net, nn.Module):
        raise ConfigError(f"SOURCE {what}: expected a torch.nn.Module, got {type(net).__name__}")
    return net


def find_module(digest: str) -> Any:
    """The module that was imported in this process from a file with this hash."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and str(path).endswith(".py") and not str(path).startswith((sys.prefix, sys.base_prefix)):
            try:
                if hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest:
                    return module
            except OSError:
                continue
    return None


def set_given_mode(net: nn.Module) -> str:
    """Put a net into the step mode in which converters get it, and say which: `single` without state, else `multi`."""
    parts = [part for part in net.modules() if isinstance(part, Stateful) and not isinstance(part, Dropout)]
    mode = "multi" if any(part.state_names != () for part in parts) else "single"
    set_step_mode(net, mode)
    return mode


def spread(size: int, count: int) -> list[int]:
    """`count` indices below `size` (all where there are fewer) at equal distances, the first among them."""
    count = min(size, count)
    return [index * size // count for index in range(count)]
