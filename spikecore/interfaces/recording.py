"""Files of recordings: what a plugin that reads them offers to `spike view FILE` and `spike info format`.

A reader is a choice of the table `recording_reader`: a frozen dataclass without fields, offered by a line of metadata.

    [project.entry-points."spikecore.choices"]
    "recording_reader.mine" = "my_package.files:Reader"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from spikecore.registry.choices import declare_table

if TYPE_CHECKING:
    import numpy as np

READERS = "recording_reader"
"""The table of choices."""
declare_table(READERS)


@dataclass(frozen=True)
class FileFormat:
    """A format that a reader reads.

    Args:
        name: as users type it.
        title: in words.
        suffixes: of file names.
        facts: what else a user should know: `(what, text)`, as in `("unit of times", "µs")`.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RecordingView:
    """What is shown of a recording.

    Args:
        lines: `(what, text)`, as in `("sensor", "180 × 240 pixels")`.
        frames: the picture, counts `[T, C, H, W]`.
    """

    lines: tuple[tuple[str, str], ...]
    frames: np.ndarray


@runtime_checkable
class RecordingReader(Protocol):
    """Reads files of some formats."""

    def formats(self) -> Sequence[FileFormat]:
        """All formats that it reads."""

    def takes(self, path: Path) -> bool:
        """Whether a file of this name may be one of its formats; the file is not opened."""

    def view(self, path: Path, options: Mapping[str, Any], num_steps: int) -> RecordingView:
        """A recording, read with these options, in a picture of so many steps.

        Raises:
            SpikeError: it cannot be read; says what was expected, what is there and which option settles it.
        """
