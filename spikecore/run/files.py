"""The lock of a run directory: one process writes into it; the others get an error that names it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from spikecore.errors import ConfigError, RunError
from spikecore.files import FileLock, LockTaken, cure

LOCK = "run.lock"
_PATIENCE_S = 0.3
"""`holder` takes the lock too, for a moment."""


class DirectoryLock:
    """Keeps other processes from writing into a run directory; the system drops it when the process dies.

    Raises:
        ConfigError: another process has it, or the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = FileLock(directory / LOCK, timeout_s=_PATIENCE_S)

    def __enter__(self) -> DirectoryLock:
        try:
            self._lock.__enter__()
        except LockTaken as taken:
            pid, host = taken.holder.get("pid", "(unknown)"), taken.holder.get("host", "this host")
            raise ConfigError(
                f"{self._directory}: in use by process {pid} on {host}, which trains this run: "
                "wait for it, or stop it with Ctrl-C"
            ) from None
        except OSError as error:
            raise ConfigError(f"{self._directory}: cannot be written: {cure(error)}") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.__exit__(kind, error, at)


class Place:
    """A run directory that must stay where it is while the run writes into it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # The inode of the lock is in use as long as the run holds it, so no other file can have its number.
        self._identities = {path: _identity(path) for path in (directory, directory / LOCK)}

    def check(self) -> None:
        """Raises `RunError` when the directory, or the lock in it, was removed or replaced."""
        for path, identity in self._identities.items():
            if identity is not None and _identity(path) != identity:
                raise RunError(
                    f"{path}: was removed or replaced while the run went on, so nothing more is written there: put "
                    f"the directory back and go on with `spike run --resume {self._directory}`, or start a new run"
                )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        there = path.lstat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


def holder(directory: Path) -> dict[str, object] | None:
    """Which process is training in this directory: `pid` and `host`; None when there is none."""
    return FileLock.holder(directory / LOCK)
