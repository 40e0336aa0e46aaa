"""`--set KEY=VALUE` and `--out DIR`, as the commands for one component take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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


def require_empty(out: Path) -> None:
    """Refuse a directory to write that holds something already.

    Raises:
        ConfigError: it is no new or empty directory.
    """
    from spikecore.errors import ConfigError

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: must be a new or empty directory; name another")
