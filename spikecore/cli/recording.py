"""`spike view FILE`: a single recording, by whichever installed plugin reads its format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spikecore.cli.output import say
from spikecore.errors import PluginError
from spikecore.interfaces.recording import READERS, RecordingReader
from spikecore.registry import registry

if TYPE_CHECKING:
    from spikecore.interfaces.recording import RecordingView


def readers() -> list[RecordingReader]:
    """The readers of all installed plugins; one that cannot be loaded is named on the error stream."""
    made: list[RecordingReader] = []
    for entry in registry().choices(READERS):
        try:
            made.append(registry().load(READERS, entry.shortest)())
        except PluginError as error:
            say(f"{entry.shortest} cannot be loaded: {error}", is_error=True)
    return made


def is_file_name(word: str) -> bool:
    """Whether a word means a file rather than a dataset: there is one, or it has a folder or a suffix in it."""
    path = Path(word)
    return path.exists() or len(path.parts) > 1 or bool(path.suffix)


def view_file(path: Path, options: Mapping[str, Any], num_steps: int) -> RecordingView:
    """Read a recording and print what it is.

    Raises:
        click.UsageError: there is no such file, or no plugin reads it.
        SpikeError: it cannot be read.
    """
    if path.is_dir():
        raise click.UsageError(
            f"{path} is a directory: name one of its files, or view it as a dataset, as in spike view event-folder "
            f"--set root={path}"
        )
    if not path.exists():
        raise click.UsageError(f"{path}: there is no such file")
    available = readers()
    if not available:
        raise click.UsageError(f"{path}: no installed plugin reads files of recordings")
    reader = next((reader for reader in available if reader.takes(path)), available[0])
    view = reader.view(path, options, num_steps)
    say(str(path))
    for what, text in view.lines:
        say(f"  {what:<9} {text}")
    return view
