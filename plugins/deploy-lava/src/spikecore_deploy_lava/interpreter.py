"""Runs lava-nc: in this process where it imports, otherwise in a Python 3.10 that has it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spikecore import find_python
from spikecore.errors import PluginUnavailable
from spikecore_deploy_lava import runner

VARIABLE = "SPIKE_LAVA_PYTHON"
RECIPE = f"python3.10 -m venv ~/lava && ~/lava/bin/pip install lava-nc==0.10.0 && export {VARIABLE}=~/lava/bin/python"
ASK = "import lava.proc.lif.process, lava.proc.dense.process; print('lava is here')"
ASK_TIMEOUT_S = 120.0
GRACE_S = 5.0
"""Between the request to end and the end by force: multiprocessing removes its shared memory meanwhile."""
SHOWN = 2000
"""Characters of what a failed run printed."""

Array = np.ndarray[Any, Any]


def imports_here() -> bool:
    """Whether lava-nc is part of this environment and imports."""
    try:
        if importlib.util.find_spec("lava") is None or importlib.util.find_spec("lava.proc.lif") is None:
            return False
        import lava.proc.lif.process  # type: ignore[import-not-found]  # noqa: F401
    except Exception:  # a package of another Python fails in many ways, and then the other Python is asked
        return False
    return True


def lava_python() -> Path:
    """A Python that has lava-nc.

    Raises:
        PluginUnavailable: there is none; says how to make one.
    """
    named = os.environ.get(VARIABLE)
    candidate = Path(named).expanduser() if named else find_python("3.10")
    where = f"{VARIABLE} names {named}" if named else f"python3.10 is {candidate}"
    if candidate is None:
        raise PluginUnavailable(f"lava-nc needs Python 3.10, and there is none here. With one: {RECIPE}")
    problem = why_unusable(candidate)
    if problem:
        raise PluginUnavailable(
            f"{where}, which cannot import lava-nc: {problem.rstrip('.')}. To make one that can: {RECIPE}"
        )
    return candidate


def why_unusable(python: Path) -> str:
    """What is wrong with an interpreter; "" where it imports lava-nc."""
    try:
        done, text = ended([str(python), "-I", "-c", ASK], ASK_TIMEOUT_S)
    except OSError as error:
        return f"it does not start ({error})"
    if done is None:
        return f"it gave no answer within {ASK_TIMEOUT_S:g} s"
    if done != 0 or "lava is here" not in text:
        last = text.strip().splitlines()[-1:] or ["it printed nothing"]
        return f"exit status {done}: {last[0]}"
    return ""


def run_in_lava(directory: Path, x: Array, timeout_s: float) -> list[Array]:
    """The output of every layer of a network, `[T, B, ...]`, as lava-nc computes it.

    Args:
        directory: of the network.
        x: `[T, B, ...]`, whole numbers.
        timeout_s: after which a run in another Python is ended.

    Raises:
        PluginUnavailable: lava-nc is not here, failed, or did not end.
    """
    if imports_here():
        return list(runner.run(directory, x))
    python = lava_python()
    with tempfile.TemporaryDirectory() as folder:
        given, output = Path(folder, "in.npy"), Path(folder, "out")
        np.save(given, x)
        command = [
            str(python),
            "-I",
            str(Path(runner.__file__)),
            str(Path(directory).resolve()),
            str(given),
            str(output),
        ]
        done, text = ended(command, timeout_s)
        if done is None:
            raise PluginUnavailable(
                f"lava-nc in {python} did not end within {timeout_s:g} s, and was ended; set timeout"
            )
        if done != 0:
            raise PluginUnavailable(f"lava-nc in {python} failed with exit status {done}:\n{text[-SHOWN:]}")
        paths = sorted(Path(folder).glob("out.*.npy"), key=lambda path: int(path.name.split(".")[1]))
        return [np.load(path, allow_pickle=False) for path in paths]


def ended(command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
    """(exit status, output) of a command; None where it did not end in time. No process of it is left."""
    with tempfile.TemporaryFile() as output:
        # In a session of its own: Lava starts a process for each of its own, and all are ended together.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        status: int | None = None
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end_group(process)
        output.seek(0)
        return status, output.read().decode(errors="replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a session: first politely, which the tracker of shared memory survives to clean up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and _is_alive(process):
            time.sleep(0.02)
    process.wait()


def _is_alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # or it would stay in the group as a zombie
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def description() -> str:
    """Of the Python that would run lava-nc, for `spike doctor`."""
    return f"in process, {sys.executable}" if imports_here() else str(lava_python())
