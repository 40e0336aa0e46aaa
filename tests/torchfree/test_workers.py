"""Processes that help a run leave its end to it, and never outlive it."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from spikecore.errors import BrokenPluginError, RunError
from spikecore.workers import NUM_PASSED, begin_worker, naming_dead_readers, starting_workers


def forked(work):
    """Process id of a child that does the work and leaves with status 0."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def raise_here(*numbers):
    begin_worker()
    for number in numbers:
        signal.raise_signal(number)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGINT] * 5, 0),
        ([signal.SIGTERM] * NUM_PASSED, 0),
        ([signal.SIGTERM] * (NUM_PASSED + 1), -signal.SIGTERM),
        ([signal.SIGINT] * 5 + [signal.SIGTERM] * (NUM_PASSED + 1), -signal.SIGTERM),
    ],
)
def test_ctrl_c_and_the_first_two_sigterm_pass(numbers, code):
    child = forked(lambda: raise_here(*numbers))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


def begin_late(*numbers):
    """Signals arrive before the worker has called `begin_worker`."""
    for number in numbers:
        os.kill(os.getpid(), number)
    begin_worker()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "nothing waits any longer"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_is_starting_is_not_killed(number):
    with starting_workers():
        child = forked(lambda: begin_late(number))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    child = forked(lambda: begin_late(number))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def start_and_be_ended():
    met = []
    signal.signal(signal.SIGTERM, lambda *_: met.append("SIGTERM"))
    with starting_workers():
        os.kill(os.getpid(), signal.SIGTERM)
        assert not met
    assert met == ["SIGTERM"]
    with contextlib.suppress(ZeroDivisionError), starting_workers():
        raise ZeroDivisionError
    os.kill(os.getpid(), signal.SIGTERM)
    assert met == ["SIGTERM"] * 2


def test_what_ends_a_run_waits_until_its_workers_are_started():
    # In a process of one thread: with more, the system gives the signal to another one.
    child = forked(start_and_be_ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_orphan_ends_at_the_first_sigterm():
    told, tell = os.pipe()
    begun, begin = os.pipe()

    def orphan():
        begin_worker()
        parent = os.getppid()
        os.write(begin, b".")
        while os.getppid() == parent:
            time.sleep(0.01)
        os.write(tell, b"alone")
        signal.raise_signal(signal.SIGTERM)
        os.write(tell, b" passed")

    def parent():
        forked(orphan)
        os.read(begun, 1)  # it has looked who its parent is

    os.waitpid(forked(parent), 0)
    os.close(tell)
    text = b""
    while part := os.read(told, 100):
        text += part
    assert text == b"alone"


SCRIPT = """
import multiprocessing, sys, time
from spikecore.workers import begin_worker, starting_workers

def work(pipe):
    begin_worker()
    pipe.send("ready")
    time.sleep(600)

if __name__ == "__main__":
    if sys.argv[1] == "killing":
        for _ in range(2):
            with starting_workers():
                pass
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=work, args=(there,), daemon=True)
    worker.start()
    here.recv()
    print(worker.pid, flush=True)
"""


def test_workers_end_with_the_interpreter(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run([*command, "killing"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
    # Without it multiprocessing sends one SIGTERM, which passes, and waits for ever.
    with subprocess.Popen([*command, "nothing"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        os.kill(worker, signal.SIGKILL)
        process.wait(timeout=60)


@pytest.mark.parametrize(
    "said",
    [
        "DataLoader worker (pid 12066) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 7, 8) exited unexpectedly",
    ],
)
def test_a_reader_that_was_killed_is_named(said):
    with pytest.raises(RunError, match=r"reads samples is gone: DataLoader worker \(pid.*want of memory"):  # noqa: SIM117
        with naming_dead_readers():
            raise RuntimeError(said)


@pytest.mark.parametrize("is_cause", [False, True])
def test_a_layer_is_not_blamed_for_a_reader_that_was_killed(is_cause):
    """torch raises its error in the middle of whatever runs, and what runs may be named for it."""

    def blame():
        try:
            raise RuntimeError("DataLoader worker (pid 12066) is killed by signal: Killed. ")
        except RuntimeError as error:
            if is_cause:
                raise BrokenPluginError(f"a hook (handler) on layer '' failed: {error}") from error
            raise BrokenPluginError("a hook (handler) on layer '' failed")  # noqa: B904

    with pytest.raises(RunError, match="reads samples is gone: DataLoader worker"), naming_dead_readers():
        blame()


def test_other_errors_are_left_alone():
    error = RuntimeError("worker: shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ") as caught, naming_dead_readers():
        raise error
    assert caught.value is error
