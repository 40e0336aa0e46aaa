"""`spike` in processes of its own that are killed on purpose, forked from a server that has torch loaded already.

    with Server(folder) as server:
        server.spike("run", "--out", "r", kill_after_s=0.3)      # SIGKILL at that moment, if it is still running
        server.spike("run", "--out", "r", crash_at=7)            # SIGKILL at its seventh step on the disk

Steps on the disk are: half of a file written, a file flushed, a rename, a truncation, half of a directory deleted.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KILLED = -signal.SIGKILL


class Server:
    """Answers one request at a time; each runs in a fork of its own."""

    def __init__(self, folder):
        self.folder = folder
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, __file__], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        assert self._process.wait(60) == 0

    def spike(self, *arguments, kill_after_s=None, crash_at=None, error_at=None):
        """Returns `status` (KILLED, or the exit status), `seconds`, `stderr`, and `steps`, those taken on the disk.

        `error_at=(step, errno)` raises an OSError at this step on the disk and at all that follow.
        """
        request = {"arguments": arguments, "kill_after_s": kill_after_s, "crash_at": crash_at, "error_at": error_at}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        answer["stderr"] = Path(self.folder, "stderr").read_text()
        return answer


def serve():
    import torch
    import torch._dynamo  # what the first optimizer step would import

    import spikecore.cli.run  # noqa: F401
    from spikecore.run.config import resolve
    from spikecore.run.experiment import prepare

    prepare(resolve())

    assert torch.get_num_threads() == 1, "a fork does not survive other threads"
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        steps = Path("steps")
        steps.write_bytes(b"")
        start = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            child(request, steps)
        status = None
        while status is None:
            done, code = os.waitpid(pid, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(code)
            elif request["kill_after_s"] is not None and time.perf_counter() - start > request["kill_after_s"]:
                os.kill(pid, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            else:
                time.sleep(0.001)
        seconds = time.perf_counter() - start
        answers.write(json.dumps({"status": status, "seconds": seconds, "steps": len(steps.read_bytes())}) + "\n")
        answers.flush()


def child(request, steps):
    output = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    watch_the_disk(request, steps)
    from spikecore.cli import main

    sys.argv = ["spike", *request["arguments"]]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def watch_the_disk(request, steps):
    """Count what the run does to the disk, and die or fail where it was asked for."""
    from spikecore import files

    counter = steps.open("ab", buffering=0)
    taken = 0

    def step(half_done=lambda: None):
        nonlocal taken
        counter.write(b".")
        taken += 1
        if taken == request["crash_at"]:
            half_done()
            os.kill(os.getpid(), signal.SIGKILL)
        if request["error_at"] and taken >= request["error_at"][0]:
            half_done()
            raise OSError(request["error_at"][1], os.strerror(request["error_at"][1]))

    def before(function):
        def call(*arguments, **options):
            step()
            return function(*arguments, **options)

        return call

    write, delete = files._write_new, shutil.rmtree

    def write_half(path, data):
        step(lambda: path.write_bytes(data[: len(data) // 2]))
        write(path, data)

    def delete_half(path, *arguments, **options):
        step(lambda: sorted(Path(path).iterdir())[0].unlink())
        delete(path, *arguments, **options)

    files._write_new, shutil.rmtree = write_half, delete_half
    for name in ("fsync", "rename", "replace", "ftruncate"):
        setattr(os, name, before(getattr(os, name)))


if __name__ == "__main__":
    serve()
