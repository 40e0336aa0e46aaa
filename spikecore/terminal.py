"""Text laid out for the terminal that it is printed on."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

__all__ = ["listed", "width"]

MIN_WIDTH, DEFAULT_WIDTH = 40, 80


def width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal at a stream; None where it is none, and lines are as long as they need be.

    Args:
        stream: None for stderr.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        return None
    try:
        # Not shutil.get_terminal_size, which asks stdout: that may be a file while stderr is the terminal.
        columns = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(stream.fileno()).columns
    except (ValueError, OSError):
        columns = 0
    return max(MIN_WIDTH, columns or DEFAULT_WIDTH)


def listed(label: str, parts: Sequence[str], width: int | None) -> str:
    """`label  part, part, …`; the parts in several lines, below one another, where the terminal is narrower."""
    if width is None:
        return f"{label}{', '.join(parts)}"
    # A part is not broken: textwrap takes a no-break space for a letter.
    text = ", ".join(part.replace(" ", "\xa0") for part in parts)
    filled = textwrap.fill(
        text,
        width - 1,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\xa0", " ")
