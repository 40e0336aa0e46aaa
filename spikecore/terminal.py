"""Text laid out for the terminal that it is printed on."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

__all__ = ["filled", "listed", "width", "wrapped"]

MIN_WIDTH, DEFAULT_WIDTH = 40, 80
HANGING = "  "
"""What the rest of a broken line is indented by."""
LAID_OUT = re.compile(r" = |>>>|\S  +\S|^\s*[*-] ")
"""Equations, examples, columns and bullets: such a line stays by itself."""
LABEL = re.compile(r"\s*[\w.*, `]+: ")
"""`name: text` and `Source: …` begin a paragraph."""


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
    block = textwrap.fill(
        text,
        width - 1,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return block.replace("\xa0", " ")


def wrapped(text: str, width: int | None) -> str:
    """A text whose lines are broken where the terminal is narrower; indentation stays, and what was broken hangs.

    Args:
        text: of one or several lines.
        width: None to leave it as it is.
    """
    if width is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        lines += _broken(line, width, HANGING)
    return "\n".join(lines)


def filled(text: str, width: int | None) -> str:
    """As `wrapped`, but a paragraph of prose that is too wide is filled again as a whole.

    Lines of a paragraph have the same indentation. Equations, examples and columns keep their lines.
    """
    if width is None:
        return text
    lines: list[str] = []
    for paragraph in _paragraphs(text):
        is_prose = not any(LAID_OUT.search(line) for line in paragraph)
        if is_prose and any(len(line) >= width for line in paragraph):
            indent = _indent(paragraph[0])
            lines += _broken(indent + " ".join(line.strip() for line in paragraph), width, "")
        else:
            for line in paragraph:
                lines += _broken(line, width, HANGING)
    return "\n".join(lines)


def _paragraphs(text: str) -> Iterator[list[str]]:
    """Lines that belong together; an empty line is a paragraph of its own."""
    paragraph: list[str] = []
    for line in text.split("\n"):
        begins = not line.strip() or LABEL.match(line) or (paragraph and _indent(line) != _indent(paragraph[0]))
        if paragraph and (begins or not paragraph[-1].strip()):
            yield paragraph
            paragraph = []
        paragraph.append(line)
    yield paragraph


def _broken(line: str, width: int, hanging: str) -> list[str]:
    if len(line) < width:
        return [line]
    indent = _indent(line)
    return textwrap.wrap(
        line.strip(),
        width - 1,  # a full line would make some terminals begin another one
        initial_indent=indent,
        subsequent_indent=indent + hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
