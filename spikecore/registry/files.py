"""Files given on the command line (`spike run --load my_neuron.py`): run once, their registrations kept apart."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

from spikecore.errors import BrokenPluginError, PluginError, SpikeError
from spikecore.files import read_file
from spikecore.registry.loading import cause_text, is_strict
from spikecore.registry.scan import Plugin

MOST_BYTES = 1 << 26
"""Of a file of Python."""


def file_source(path: str | Path, option: str = "--load") -> Plugin:
    """The file as a source of components.

    Args:
        path: of it.
        option: that named the file, for messages.

    Raises:
        PluginError: it cannot be read, or is no Python file.
    """
    file = Path(path).expanduser().resolve()
    if file.suffix != ".py":
        raise PluginError(f"{option} {path}: must be a Python file that ends in .py")
    try:
        digest = hashlib.sha256(read_file(file, MOST_BYTES, follows_link=True)).hexdigest()  # no pipe, which may wait
    except OSError as error:
        raise PluginError(f"{option} {path}: cannot be read: {error.strerror or error}") from error
    return Plugin(file.stem, str(file), digest, "loaded from the command line", source="file", path=str(file))


def run_file(plugin: Plugin, option: str = "--load") -> None:
    """Import the file as a module of its own, so that its classes have source, name and pickle as others do.

    Raises:
        BrokenPluginError: it raised; the cause is chained.
    """
    name = f"spikecore_loaded_{plugin.id}_{plugin.version[:8]}"
    spec = importlib.util.spec_from_file_location(name, plugin.path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{option} {plugin.path}: Python cannot import it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if is_strict() or isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, SpikeError):
            raise PluginError(f"{option} {plugin.path}: {error}") from error
        raise BrokenPluginError(
            f"{option} {plugin.path} (sha256 {plugin.version[:12]}) failed: {cause_text(error)}. Repair it."
        ) from error
