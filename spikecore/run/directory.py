"""The run directory: a new one, and what is kept where in it."""

from __future__ import annotations

import secrets
from datetime import datetime, timezone
from pathlib import Path

from spikecore.errors import ConfigError
from spikecore.files import PARTIAL
from spikecore.run.checkpoint import CheckpointStore
from spikecore.run.config import Resolved
from spikecore.run.files import LOCK

CONFIG = "config.toml"


def new_directory(out: str | Path | None, name: str) -> Path:
    """Make the directory of a new run.

    Args:
        out: where; None for a new name under `runs/`.
        name: the generated name begins with it.

    Raises:
        ConfigError: it is in use, is a file, or cannot be written.
    """
    for _ in range(10):  # a generated name that is taken (a clock may have moved back) is drawn again
        stamp = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        path = Path(out) if out is not None else Path("runs") / f"{name}-{stamp}"
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--out {path}: must be a new or empty directory, and is a file; name another")
        try:
            path.mkdir(parents=True, exist_ok=True)
            # A run that died before its record was written leaves no more than this.
            others = [item for item in path.iterdir() if item.name != LOCK and item.suffix != PARTIAL]
            if not others:
                (path / PARTIAL).touch()
                (path / PARTIAL).unlink()
                return path
        except OSError as error:
            raise ConfigError(f"--out {path}: cannot be written: {error}") from error
        if out is not None:
            break
    raise ConfigError(f"--out {path}: the directory is not empty; name a new one, or go on with --resume {path}")


def store_of(directory: Path, run: str, resolved: Resolved | None = None) -> CheckpointStore:
    """The checkpoints of a run; those that are written are kept as the configuration says."""
    if resolved is None:
        return CheckpointStore(directory, run)
    options = resolved.tables["run"]
    return CheckpointStore(directory, run, options.keep_last, options.keep_best)
