"""`--set KEY=VALUE`, as several commands take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


def parsed(settings: Sequence[str], example: str = "tau=3.0") -> dict[str, Any]:
    """Key → value, read as TOML reads it; a later one replaces an earlier one.

    Raises:
        click.UsageError: one is not of the form KEY=VALUE.
    """
    from spikecore.run.config import parse_value

    options = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not (equals and key.strip()):
            raise click.UsageError(f"--set {text}: expected KEY=VALUE, as in {example}")
        options[key.strip()] = parse_value(value)
    return options
