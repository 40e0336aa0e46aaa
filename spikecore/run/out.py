"""The directory that a command writes: there whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spikecore.errors import ConfigError
from spikecore.files import cure, sync_tree


@contextmanager
def whole_directory(out: Path) -> Iterator[Path]:
    """A directory to write into, which takes the place of `out` when the block comes to its end.

    Args:
        out: new or empty; directories above it are made.

    Raises:
        ConfigError: it cannot be written, also inside the block; nothing is left then.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise _not_written(out, error) from error
    try:
        yield aside
        sync_tree(aside)
        if out.is_dir():
            out.rmdir()  # an empty one
        aside.chmod(0o755)
        os.rename(aside, out)
    except OSError as error:
        raise _not_written(out, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _not_written(out: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--out {out}: cannot be written: {cure(error)}")
