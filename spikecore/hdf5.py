"""HDF5 files of strangers: every one is read in another process first, under limits of memory and time.

    check_hdf5(path, DatasetError)
    with h5py.File(path, "r") as file:
        ...

libhdf5 trusts what it reads: a byte of a 32 KiB file made it take 4.4 GiB, others crash it or make it loop. What
another process has read whole, under a limit that follows from the size of the file, this one can read as well. The
other process (`spikecore.hdf5_server`) imports h5py once and forks for each file, so a check takes
some milliseconds and the time of reading.
"""

from __future__ import annotations

import atexit
import json
import os
import stat
import subprocess
import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from spikecore.errors import SpikeError
from spikecore.foreign import printable

__all__ = ["check_hdf5"]

LIMIT_S, LIMIT_S_PER_MB = 30.0, 5.0
COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from spikecore.hdf5_server import main; main()"
MOST_REMEMBERED = 10_000


def check_hdf5(path: Path, error_type: type[SpikeError]) -> None:
    """Raise unless the whole file can be read within memory and time that its size justifies.

    A file that passed is not read again by this process while its identity, size and times stay what they are. Nothing
    is noted on the disk, where it might come from somebody else.

    Args:
        path: of the file; links are followed.
        error_type: of what is raised.

    Raises:
        SpikeError: of that type: it is no regular file, or it is damaged.
        OSError: it is missing or cannot be read.
    """
    there = path.stat()
    if not stat.S_ISREG(there.st_mode):
        raise error_type(f"{path}: is no regular file, as is expected of HDF5")
    if not hasattr(os, "fork"):
        return  # no forks, no limits: docs/explanation/trust.md
    state = (there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)
    if state in _READER.passed:
        return
    problem = _READER.ask(path.absolute(), LIMIT_S + LIMIT_S_PER_MB * there.st_size / 1e6)
    if problem:
        raise error_type(f"{path}: is damaged: {printable(problem)}; get it again")
    _READER.passed[state] = None
    if len(_READER.passed) > MOST_REMEMBERED:
        _READER.passed.popitem(last=False)


class _Reader:
    """The other process, started by the first question."""

    def __init__(self) -> None:
        self.passed: OrderedDict[tuple[int, ...], None] = OrderedDict()
        self._process: subprocess.Popen[str] | None = None
        self._of_parent: subprocess.Popen[str] | None = None  # kept, as its end is none of ours
        self._lock = threading.Lock()

    def ask(self, path: Path, limit_s: float) -> str:
        """What is wrong with a file; "" if nothing is."""
        with self._lock:
            question = json.dumps({"path": str(path), "limit_s": limit_s}) + "\n"
            try:
                # It may have ended since the last question, as when the system ran out of memory.
                line = self._line(question) or self._line(question)
            except BaseException:  # Ctrl-C: the answer still to come must not be taken for that to the next question
                self._drop()
                raise
        if not line:
            raise RuntimeError("the process that reads HDF5 files before this one does not answer: is h5py sound?")
        return str(json.loads(line))

    def _line(self, question: str) -> str:
        """The answer; "" where the process ended in place of one."""
        if self._process is None:
            self._process = _start()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        line = ""
        with suppress(BrokenPipeError):
            stdin.write(question)
            stdin.flush()
            line = stdout.readline()
        if not line.endswith("\n"):
            self._drop()
            return ""
        return line

    def close(self) -> None:
        with self._lock:
            self._drop()

    def forget_process(self) -> None:
        """In a fork: the process is the parent's, and the lock may be held by a thread that is not here."""
        self._of_parent, self._process, self._lock = self._process, None, threading.Lock()

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()


def _start() -> subprocess.Popen[str]:
    # Neither `python -c` nor `-m` may look into the current directory: it may be a stranger's, with an h5py.py in it.
    paths = [str(Path(place).absolute()) for place in sys.path if place]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the asker, who then ends it
    )


_READER = _Reader()
atexit.register(_READER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_READER.forget_process)
