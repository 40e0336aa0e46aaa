"""The pool: equal bits for any number of threads, forks, callers at once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from cpu_comparison import outcome

from spikecore.backends.selection import backend_named
from spikecore.nn import LIF


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)) * 1.5


def learning(channels):
    taus = torch.linspace(1.5, 3.0, channels).tolist()
    return LIF(backend="cpu", tau=taus, v_threshold=0.9, learnable=("tau", "v_threshold"))


@pytest.mark.parametrize("shape", [(5, 7, 1300), (40, 2, 30, 11, 13), (6, 3, 3, 50000)], ids=str)
def test_sums_have_equal_bits_for_any_number_of_threads(threads, shape):
    results = []
    for count in (1, 2, 3, 3, 2):
        threads(count)
        results.append(outcome(learning(shape[2]), noise(*shape)))
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


def test_sums_are_as_exact_as_a_sum_in_double(threads):
    threads(2)
    x = noise(64, 4, 3, 4000)

    def gradients(on, dtype):
        neuron = LIF(
            backend=on, tau=[1.5, 2.0, 3.0], learnable=("tau",), surrogate={"name": "sigmoid", "spiking": False}
        )
        neuron = neuron.to(dtype)
        neuron(x.to(dtype)).square().sum().backward()
        return neuron.param_tau.grad.double()

    exact = gradients("torch", torch.float64)
    assert ((gradients("cpu", torch.float32) - exact) / exact).abs().max() < 1e-5


def test_workers_are_used_and_counted(threads):
    threads(3)
    LIF(backend="cpu")(noise(8, 4, 30000))
    workers = num_workers()
    assert workers >= 2
    threads(1)
    LIF(backend="cpu")(noise(8, 4, 30000))
    assert num_workers() == workers


CHILD_LIMIT_S = 120.0


def in_child(work):
    """The exit status of a forked child that ends with `work()`.

    It must not call torch's own threaded operations: their OpenMP pool does not survive a fork.
    """
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    deadline = time.monotonic() + CHILD_LIMIT_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"a forked child did not end within {CHILD_LIMIT_S:g} s")


def prepared(*shape):
    """`(x, right, run)`: `run()` calls the kernel alone and says whether it gives what it gave before."""
    x, neuron = noise(*shape), LIF(backend="cpu")
    right = neuron(x)
    backend, v = backend_named("cpu"), torch.zeros(shape[1:])
    address = right.numpy()

    def run():
        out = backend.run(neuron.program().key, x, [v], [], False, False)[0]
        return bool((out.numpy() == address).all())

    return run


def num_workers():
    return backend_named("cpu").runtime.library.sc_num_workers()


def test_workers_treat_denormals_as_the_caller_does(threads):
    threads(3)
    neuron = LIF(backend="cpu", record=("v",))
    x = torch.full((8, 16, 8192), 1e-39)
    neuron(x)
    try:
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor cannot flush denormals")
        for _ in range(5):
            neuron(x)
            bits = neuron.recorded["v"].view(torch.int32)
            assert not bits.any()
    finally:
        torch.set_flush_denormal(False)
    neuron(x)
    assert (neuron.recorded["v"].view(torch.int32) != 0).all()


def test_small_work_wakes_nobody(threads):
    threads(2)
    run = prepared(2, 4, 100)
    assert run()
    assert in_child(lambda: num_workers() if run() else 98) == 0  # a child starts with an empty pool


def test_a_forked_child_makes_threads_of_its_own(threads):
    threads(2)
    run = prepared(8, 4, 30000)
    assert run()
    assert num_workers() >= 1
    for _ in range(3):
        assert in_child(lambda: num_workers() if run() else 98) == 1
    assert run()


def test_a_child_of_a_child(threads):
    threads(2)
    run = prepared(8, 4, 30000)
    assert in_child(lambda: in_child(lambda: num_workers() if run() else 98) if run() else 97) == 1


def test_loader_workers_run_neurons(threads):
    threads(2)
    x = noise(8, 2, 30000)
    right = LIF(backend="cpu")(x)

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return LIF(backend="cpu")(x).sum()

    loader = torch.utils.data.DataLoader(Data(), num_workers=2, timeout=CHILD_LIMIT_S)
    assert [float(total) for total in loader] == [float(right.sum())] * 4


def test_callers_at_once(threads):
    threads(2)
    x = noise(8, 4, 30000)
    right = LIF(backend="cpu")(x)
    wrong = []

    def work():
        wrong.extend(1 for _ in range(20) if not torch.equal(LIF(backend="cpu")(x), right))

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_worker_that_was_called_to_the_callers_core_may_go_where_it_could(threads):
    """Beside processes that keep every core busy results stay right, and no thread stays bound to one core."""
    threads(3)
    neuron, x = LIF(backend="cpu"), noise(16, 4, 40000)
    right = LIF(backend="torch")(x)
    before = os.sched_getaffinity(0)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in before]
    try:
        for _ in range(60):
            assert torch.equal(neuron(x), right)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert num_workers() >= 2
    for task in os.listdir("/proc/self/task"):
        assert os.sched_getaffinity(int(task)) == before
