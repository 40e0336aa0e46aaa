"""`spike` in processes of its own that are killed on purpose, forked from a server that has torch loaded already.

    with Server(folder) as server:
        server.spike("run", "--out", "r", crash_at_call=9000)    # SIGKILL at the 9000th call of a function
        server.spike("run", "--out", "r", crash_at=7)            # SIGKILL at its seventh step on the disk

Steps on the disk are: half of a file written, a file flushed, a rename, a truncation, half of a directory deleted.
Calls are those of Python and of C functions in the main thread. Both count what the run does, so that an instant is the
same on a busy machine and on an idle one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
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

    def spike(self, *arguments, crash_at_call=None, count_calls=False, crash_at=None, error_at=None):
        """Run one command to its end.

        Args:
            arguments: of `spike`.
            crash_at_call: SIGKILL at this call of a function.
            count_calls: count the calls; a run is slower then.
            crash_at: SIGKILL at this step on the disk.
            error_at: `(step, errno)`: raise an OSError at this step on the disk and at all that follow.

        Returns:
            `status` (KILLED, or the exit status), `stderr`, `steps` taken on the disk, and `calls` where counted.
        """
        request = {"arguments": arguments, "crash_at": crash_at, "error_at": error_at}
        request |= {"crash_at_call": crash_at_call, "count_calls": count_calls}
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
        calls = Path("calls")
        calls.write_text("0")
        pid = os.fork()
        if pid == 0:
            child(request, steps, calls)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answer = {"status": status, "steps": len(steps.read_bytes()), "calls": int(calls.read_text())}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def child(request, steps, calls):
    output = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    watch_the_disk(request, steps)
    from spikecore.cli import main

    sys.argv = ["spike", *request["arguments"]]
    code = 0
    counter = watch_the_calls(request)
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    sys.setprofile(None)
    calls.write_text(str(counter()))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def watch_the_calls(request):
    """Count calls of functions, and die at the one that was asked for; returns a function that tells the count."""
    taken = 0
    last = request["crash_at_call"]

    def see(frame, event, argument):
        nonlocal taken
        if event in ("call", "c_call"):
            taken += 1
            if taken == last:
                os.kill(os.getpid(), signal.SIGKILL)

    if last is not None or request["count_calls"]:
        sys.setprofile(see)
    return lambda: taken


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
