"""`--set KEY=VALUE`, as the commands for one component take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Option → value, read as TOML; a key may reach inside: `surrogate.alpha=3` gives `{"surrogate": {"alpha": 3}}`.

    Raises:
        click.UsageError: one is not of the form KEY=VALUE.
    """
    from spikecore.errors import ConfigError
    from spikecore.run.overrides import parse_settings

    try:
        return parse_settings(settings)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
