"""Processes that use neurons on both sides of a fork: equal bits, and every child ends (a time limit kills it if not).

Children here call none of torch's own threaded operations: their OpenMP pool does not survive a fork. So a step stays
below the 32768 elements from which on torch shares a fill among threads, and a call is far above the size from which on
the neuron does. A thread that computes while another forks has a neuron of its own: torch guards a parameter that needs
a gradient by a mutex, and if a thread holds it at the fork, the child waits for it for ever.
"""

import contextlib
import copy
import os
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from forked_work import Spikes, bits, inputs, make, num_workers, two_threads

LIMIT_S = 120.0


@pytest.fixture(autouse=True)
def threads():
    """Two for all calls here, and the machine as it was afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_child(work):
    """The bytes that `work()` gives in a forked child, which is killed when it does not end."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.write(writing, work())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    answers, _, _ = select.select([reading], [], [], LIMIT_S)
    if not answers:
        os.kill(pid, signal.SIGKILL)
    answer = os.read(reading, 1 << 12) if answers else b""
    os.close(reading)
    status = ended(pid)
    assert answers, f"a forked child did not answer within {LIMIT_S:g} s"
    assert status == 0
    return answer


def ended(pid):
    """The exit status of a child; one that hangs is killed, which shows as -9."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        ended_pid, status = os.waitpid(pid, os.WNOHANG)
        if ended_pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "LIMIT_S", 0.2)
    with pytest.raises(AssertionError, match=r"did not answer within 0\.2 s"):
        in_child(lambda: time.sleep(1000))


def test_after_use():
    neuron, given = make(), inputs()
    right = bits(neuron, *given)
    assert num_workers() >= 1
    for _ in range(4):
        assert in_child(lambda: bits(neuron, *given) + bytes([num_workers()])) == right + b"\1"
    assert in_child(lambda: bits(make(), *given)) == right  # a neuron that the parent did not have
    assert bits(neuron, *given) == right


def test_before_use():
    given = inputs()
    first = in_child(lambda: bits(make(), *given))
    assert first == bits(make(), *given)


def test_results_of_the_parent_stay_when_children_use_the_same_memory():
    neuron, (x, other) = make(), inputs()
    kept = neuron(x).detach()
    before = kept.clone()
    differs = lambda: bytes([bool((neuron(other).detach().numpy() != before.numpy()).any())])  # noqa: E731
    for _ in range(3):
        assert in_child(differs) == b"\1"
    assert torch.equal(kept, before)
    del kept
    assert torch.equal(neuron(x), before)


@pytest.mark.parametrize("forks_in", ["main", "thread"])
def test_while_a_call_is_running_in_another_thread(forks_in):
    """Of the threads one computes without pause, the other forks."""
    neuron, given = make(), inputs()
    right = bits(neuron, *given)
    long = inputs(400)[0]
    with torch.no_grad():
        right_long = neuron(long)
    is_inside, stop, wrong, digests = threading.Event(), threading.Event(), [], []

    def compute():
        other = make()
        with torch.no_grad():
            while not stop.is_set():
                is_inside.set()
                out = other(long)
                is_inside.clear()
                if not torch.equal(out, right_long):
                    wrong.append("parent")

    def fork():
        try:
            for _ in range(8):
                is_inside.wait(LIMIT_S)
                digests.append(in_child(lambda: bits(neuron, *given)))
        finally:
            stop.set()

    first, second = (compute, fork) if forks_in == "thread" else (fork, compute)
    beside = threading.Thread(target=second)
    beside.start()
    first()
    beside.join(LIMIT_S)
    assert not beside.is_alive()
    assert not wrong
    assert digests == [right] * 8
    assert bits(neuron, *given) == right


def test_from_a_thread_that_has_called_and_from_one_that_has_not():
    neuron, given = make(), inputs()
    right = bits(neuron, *given)
    digests = []

    def work(calls):
        if calls:
            digests.append(bits(neuron, *given))
        digests.append(in_child(lambda: bits(neuron, *given)))

    for calls in (True, False):
        thread = threading.Thread(target=work, args=(calls,))
        thread.start()
        thread.join(3 * LIMIT_S)
    assert digests == [right] * 3


def test_a_child_with_threads_of_its_own_that_call_at_once():
    neuron, given = make(), inputs()
    right = bits(neuron, *given)

    def work():
        digests = []
        callers = [threading.Thread(target=lambda: digests.append(bits(make(), *given))) for _ in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return b"".join(digests)

    assert in_child(work) == right * 3


def test_children_of_children():
    neuron, given = make(), inputs()
    right = bits(neuron, *given)

    def level(left):
        before = bits(neuron, *given)
        below = in_child(lambda: level(left - 1)) if left else b""
        return before + below + bits(neuron, *given)

    assert in_child(lambda: level(3)) == right * 8


def test_a_forked_child_ends_as_a_program_does():
    """Not by _exit, but by the interpreter's own end, while its workers wait and results are alive."""
    script = """
import os, sys, torch
from spikecore.nn import LIF
torch.set_num_threads(2)
x = torch.linspace(-1, 3, 16 * 24000).reshape(16, 24000)
neuron = LIF(backend="cpu")
right = neuron(x)
is_child = os.fork() == 0
out = neuron(x)
assert (out.numpy() == right.numpy()).all()
if not is_child:
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize(("context", "persistent"), [("fork", False), ("fork", True), ("spawn", True)])
def test_loader_workers(context, persistent):
    """Both epochs give the parent's bits; spawned workers may use several threads, forked ones have one."""
    data = Spikes()
    right = torch.stack([data[index][0] for index in range(len(data))])
    spawns = context == "spawn"
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=2,
        num_workers=2,
        persistent_workers=persistent,
        multiprocessing_context=context,
        worker_init_fn=two_threads if spawns else None,
        timeout=LIMIT_S,
    )
    processes = []
    for _ in range(2):
        samples, by, workers = (torch.cat(column) for column in zip(*loader, strict=True))
        assert torch.equal(samples, right)
        assert set(workers.tolist()) == {1 if spawns else 0}
        processes.append(set(by.tolist()))
    assert os.getpid() not in processes[0] | processes[1]
    assert (processes[0] == processes[1]) == persistent
    del loader


@contextlib.contextmanager
def computing(neuron, given, right, num_threads=1):
    """Threads that compute until the end of the block, and then have met nothing but the right bits."""
    stop, results = threading.Event(), []

    def compute():
        own = copy.deepcopy(neuron)
        is_right = True
        while is_right and not stop.is_set():
            is_right = bits(own, *given) == right
        results.append(is_right)

    computers = [threading.Thread(target=compute, daemon=True) for _ in range(num_threads)]
    for computer in computers:
        computer.start()
    try:
        yield
    finally:
        stop.set()
        for computer in computers:
            computer.join(LIMIT_S)
    assert results == [True] * num_threads


def test_several_children_while_several_threads_compute():
    """At whatever point the callers are: each child's pool is empty and free."""
    neuron, given = make(), inputs()
    right = bits(neuron, *given)
    with computing(neuron, given, right, num_threads=3):
        for index in range(12):
            time.sleep(index % 4 * 0.0007)
            assert in_child(lambda: bits(neuron, *given) + bytes([num_workers()])) == right + b"\1"


def test_a_child_forks_while_a_thread_of_it_computes():
    neuron, given = make(), inputs()
    right = bits(neuron, *given)

    def work():
        with computing(neuron, given, right):
            return b"".join(in_child(lambda: bits(neuron, *given)) for _ in range(3))

    assert in_child(work) == right * 3


def test_a_child_ends_while_a_thread_of_it_computes():
    neuron, given = make(), inputs()
    right = bits(neuron, *given)

    def work():
        own = copy.deepcopy(neuron)
        threading.Thread(target=lambda: [bits(own, *given) for _ in range(100000)], daemon=True).start()
        return bits(neuron, *given)

    for _ in range(4):
        assert in_child(work) == right


def test_loader_workers_while_a_thread_computes():
    neuron, given = make(), inputs()
    right = bits(neuron, *given)
    data = Spikes()
    wanted = [data[index][0].tolist() for index in range(len(data))]
    with computing(neuron, given, right):
        loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2, timeout=LIMIT_S)
        for _ in range(2):
            assert [sample.tolist() for sample, _, _ in loader] == wanted
