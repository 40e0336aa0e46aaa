"""Recycled results: right whoever holds what, bounded, and given back."""

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from spikecore_cpu_backend import CPUBackend, free_memory, memory
from spikecore_cpu_backend.memory import HUGE_PAGE, Recycler

from spikecore.nn import LIF

SHAPE = (4, 1 << 18)  # 4 MiB of float32
SMALL = (4, 1 << 15)


@pytest.fixture
def recycler():
    return Recycler(64 << 20)


def test_memory_comes_back_and_is_used_again(recycler):
    first = recycler.empty(SHAPE, torch.float32)
    address = first.data_ptr()
    assert first.shape == SHAPE
    assert first.is_contiguous()
    assert address % HUGE_PAGE == 0
    assert recycler.idle_bytes == 0
    del first
    assert recycler.idle_bytes == 4 << 20
    assert recycler.empty(SHAPE, torch.float32).data_ptr() == address


def test_views_hold_their_memory(recycler):
    part = recycler.empty(SHAPE, torch.float32).fill_(7.0)[1, 5:9]
    array = recycler.empty(SHAPE, torch.float32).fill_(8.0).numpy()
    gc.collect()
    assert recycler.idle_bytes == 0
    for _ in range(4):
        recycler.empty(SHAPE, torch.float32).fill_(-1.0)
    assert part.tolist() == [7.0] * 4
    assert array.min() == 8.0
    del part, array
    assert recycler.idle_bytes == 12 << 20


def test_results_behave_like_tensors_of_torch(recycler):
    tensor = recycler.empty(SHAPE, torch.float32).zero_()
    assert tensor._base is None  # a view could not be changed in place by users
    tensor.add_(1)
    assert tensor.clone().equal(tensor)
    assert torch.save(tensor[:, :3].clone(), "/dev/null") is None
    tensor.share_memory_()
    assert tensor.is_shared()
    assert float(tensor.sum()) == 1 << 20


def test_results_may_be_changed_in_place_and_differentiated():
    x = torch.randn(16, 4, 32768, requires_grad=True)
    out = LIF(backend="cpu")(x)
    out += 1
    out.sum().backward()
    right = torch.autograd.grad(LIF(backend="torch")(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, right)


def test_what_is_kept_is_bounded():
    recycler = Recycler(10 << 20)
    held = [recycler.empty(SHAPE, torch.float32) for _ in range(5)]
    held.clear()
    assert recycler.idle_bytes == 8 << 20
    nothing = Recycler(0)
    nothing.empty(SHAPE, torch.float32)
    assert nothing.idle_bytes == 0


def test_small_results_are_torch_s_own(recycler):
    recycler.empty((10, 10), torch.float32)
    assert recycler.idle_bytes == 0


def test_idle_memory_is_told_to_the_kernel(recycler, monkeypatch):
    monkeypatch.setattr(memory, "IDLE_S", 0.05)
    advised = []
    real = memory.Region.advise
    monkeypatch.setattr(memory.Region, "advise", lambda region, advice: (advised.append(advice), real(region, advice)))
    recycler.empty(SHAPE, torch.float32)
    deadline = time.monotonic() + 600
    while memory.MADV_FREE not in advised and time.monotonic() < deadline:
        time.sleep(0.02)
    assert memory.MADV_FREE in advised
    again = recycler.empty(SHAPE, torch.float32).fill_(3.0)
    assert float(again.min()) == 3.0


def resident(address):
    """Bytes in memory of the mapping that holds an address."""
    is_inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and ":" not in head:
            low, high = (int(part, 16) for part in head.split("-"))
            is_inside = low <= address < high
        elif is_inside and head == "Rss:":
            return int(line.split()[1]) << 10
    return 0


def test_free_memory_gives_back():
    backend = CPUBackend()
    tensor = backend.recycler.empty(SHAPE, torch.float32).zero_()
    address = tensor.data_ptr()
    assert resident(address) >= 4 << 20
    del tensor
    assert resident(address) >= 4 << 20
    free_memory()
    assert backend.recycler.idle_bytes == 0
    assert resident(address) < 4 << 20


def test_many_threads(recycler):
    wrong = []

    def work(number):
        for _ in range(200):
            tensor = recycler.empty(SHAPE, torch.float32)
            tensor[0, :8] = number
            time.sleep(0)
            if tensor[0, :8].tolist() != [number] * 8:
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(float(number),)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert recycler.idle_bytes <= 32 << 20  # each held an old one while it got a new one


@pytest.fixture
def unraisable(monkeypatch):
    """What finalizers raise."""
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: raised.append(event.exc_value))
    return raised


def test_leases_that_end_while_idle_memory_is_looked_at(unraisable):
    recycler = Recycler(512 << 20)
    held = [recycler.empty(SMALL, torch.float32) for _ in range(60)]
    held.clear()
    before = gc.get_threshold()
    try:
        for turn in range(1000):  # the collector runs within the look itself, wherever that allocates
            circle = [recycler.empty(SMALL, torch.float32)]
            circle.append(circle)
            others = [[] for _ in range(turn % 5)]
            gc.set_threshold(1 + turn % 4)
            del circle, others
            assert recycler.idle_bytes >= 59 * 512 << 10
            recycler.empty(SMALL, torch.float32)
    finally:
        gc.set_threshold(*before)
    assert not unraisable


def test_looking_while_other_threads_let_go(recycler, unraisable):
    wrong, before = [], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(look):
        try:
            for _ in range(300):
                recycler.idle_bytes if look else recycler.empty(SMALL, torch.float32)
        except Exception as error:
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(6)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong
    assert not unraisable


def test_a_program_that_holds_results_until_its_end_ends():
    """No timer is started by the interpreter's own end, where the thread for it would never come."""
    script = """
import torch
from spikecore.nn import LIF
result = LIF(backend="cpu")(torch.linspace(-1, 3, 16 * 24000).reshape(16, 24000))
cycle = [result + 0, result]
cycle.append(cycle)
"""
    process = subprocess.run([sys.executable, "-c", script], timeout=600, capture_output=True)
    assert (process.returncode, process.stderr) == (0, b"")


def test_many_results_go_and_come_one_step_each(recycler, monkeypatch):
    """However many are idle: neither giving one back nor taking one looks at all of them."""
    recycler.limit = 1 << 30
    held = [recycler.empty(SMALL, torch.float32) for _ in range(2000)]
    steps = 0

    class Counted(memory.deque):
        def __iter__(self):
            nonlocal steps
            steps += len(self)
            return super().__iter__()

    monkeypatch.setattr(memory, "deque", Counted)
    held.clear()
    held += [recycler.empty(SMALL, torch.float32) for _ in range(2000)]
    assert recycler.idle_bytes == 0
    assert steps == 0


def test_the_oldest_goes_first_whatever_its_size():
    recycler = Recycler(9 << 20)
    shapes = [(4, 1 << 18), (2, 1 << 18), (4, 1 << 18)]
    tensors = [recycler.empty(shape, torch.float32) for shape in shapes]
    newest = tensors[2].data_ptr()
    while tensors:
        tensors.pop(0)  # 4, 2, 4 MiB: the first 4 have to go
    assert recycler.idle_bytes == 6 << 20
    assert recycler.empty(shapes[2], torch.float32).data_ptr() == newest


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("lanes", [8, 700, 40000])
def test_the_default_device_is_no_matter(device, lanes):
    """Results of every size, on first use too."""
    code = f"""
import torch
from spikecore.nn import LIF
x = torch.randn(8, 4, {lanes}, requires_grad=True)
neuron = LIF(backend="cpu", record=("v",))
torch.set_default_device({device!r})
out = neuron(x)
(out.sum() + neuron.recorded["v"].sum()).backward()
neuron(x[:, :, ::2])
assert out.device.type == neuron.recorded["v"].device.type == x.grad.device.type == "cpu"
assert float(x.grad.abs().sum()) > 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
