"""What commands print: layers, classes, metrics and plugins have names that others chose."""

from __future__ import annotations

import sys

import click

from spikecore.foreign import printable_lines


def say(text: object = "", *, is_error: bool = False, ends_line: bool = True) -> None:
    """Print a text whole, but for what would control the terminal.

    Args:
        text: of one or several lines.
        is_error: to stderr.
        ends_line: a new line follows.
    """
    click.echo(printable_lines(text, sys.maxsize), err=is_error, nl=ends_line)
