"""Interpreters of other Python versions: for tests, `spike doctor`, and tools that need an old Python."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from spikecore.errors import OptionError

SUPPORTED_PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""The versions that core runs on."""
VERSION = re.compile(r"3\.\d+")
ASK = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"
ANSWER_TIMEOUT_S = 60.0
"""An interpreter that has not answered by then does not work."""


def find_python(version: str) -> Path | None:
    """A working interpreter of this version, from PATH or pyenv.

    Each candidate is started and asked for its version: a shim of a version manager may exist and lead nowhere, and a
    file called `python3.10` may be another Python.

    Args:
        version: major and minor, such as `3.10`.

    Returns:
        The interpreter's own path, never that of a shim; None when there is none.

    Raises:
        OptionError: `version` is not of this form.
    """
    if not VERSION.fullmatch(version):
        raise OptionError(f"version: expected major.minor, as in '3.10', got {version!r}")
    for candidate in _candidates(version):
        interpreter = _ask(candidate, version)
        if interpreter is not None:
            return interpreter
    return None


def _candidates(version: str) -> Iterator[Path]:
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        # An empty entry means the current directory: what lies there is not ours to start.
        if directory:
            yield Path(directory, f"python{version}")
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    yield from sorted(versions.glob(f"{version}.*/bin/python{version}"))


def _ask(candidate: Path, version: str) -> Path | None:
    """What the candidate calls itself, when it runs and is of this version."""
    if not os.access(candidate, os.X_OK) or candidate.is_dir():
        return None
    try:
        result = subprocess.run(
            [str(candidate), "-I", "-c", ASK], capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    answer = result.stdout.splitlines()
    if result.returncode != 0 or len(answer) != 2 or answer[0] != version:
        return None
    return Path(answer[1])
