"""`--out DIR`, as the commands that write a directory take it."""

from __future__ import annotations

from pathlib import Path


def require_empty(out: Path) -> None:
    """Refuse a directory to write that holds something already.

    Raises:
        ConfigError: it is no new or empty directory.
    """
    from spikecore.errors import ConfigError

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: must be a new or empty directory; name another")
