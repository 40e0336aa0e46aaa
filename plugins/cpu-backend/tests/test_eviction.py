"""Kernels in memory are bounded: what was loaded first is unloaded, but never while a thread is in it."""

import gc
import random
import threading
from pathlib import Path

import pytest
import torch
from spikecore_cpu_backend import CPUBackend, backend, cache, kernels

from spikecore.backends.kit import NormCall, store
from spikecore.nn import IF, LIF, CubaLIF

MOST = 1
NEURONS = [IF(), LIF(), CubaLIF()]
LARGE, SMALL = (4, 2, 4, 2048), (3, 2, 4, 5)
"""[T, B, C, N]: with Python's lock let go, so that threads are in kernels together, and with the lock kept."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


def mapped(folder):
    """Kernels of this folder that are in memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if str(folder) in line}


@pytest.fixture
def loads(monkeypatch):
    """Few kernels may stay; counts what is loaded."""
    monkeypatch.setattr(store, "MOST_LOADED", MOST)
    monkeypatch.setattr(kernels, "MOST_CODES", MOST)
    monkeypatch.setattr(backend, "MOST_KERNELS", MOST)
    counted = []
    monkeypatch.setattr(cache, "open_library", lambda path: counted.append(path) or store.open_library(path))
    return counted


def everything(made, program, x):
    """What run, run_bwd and norm_neuron with its gradient give."""
    states = [torch.zeros(x.shape[1:]) for _ in program.states]
    out, finals, _, saved = made.run(program.key, x, states, [], True, True)
    grad_x, grad_states, _ = made.run_bwd(program.key, saved, x, states, [], torch.cos(x), [None] * len(states), [])
    call = NormCall(program.key, x, None, None, 1e-5, states, [])
    normed, _, _, mean, _, kept = made.norm_neuron(call, True, False)
    none = [None] * len(states)
    grad_y, *_ = made.norm_neuron_grad(call, kept, torch.cos(x), none, [], False)
    return [out, *finals, grad_x, *grad_states, normed, mean, grad_y]


@pytest.mark.parametrize("shape", [LARGE, SMALL], ids=["large", "small"])
def test_threads_share_a_backend_that_drops_kernels_all_the_time(shape, loads, folder):
    made = CPUBackend(cache_dir=str(folder))
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 3
    programs = [neuron.program() for neuron in NEURONS]
    for program in programs:
        made.learn(program)
    wanted = [everything(made, program, x) for program in programs]
    assert all(0.02 < results[0].mean() < 0.98 for results in wanted), "they spike"
    num_structures = len(set(loads))
    loads.clear()
    wrong = []

    def work(number):
        dice = random.Random(number)
        for _ in range(25):
            place = dice.randrange(len(programs))
            results = everything(made, programs[place], x)
            if not all(map(torch.equal, results, wanted[place])):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(loads) > 50, "kernels were dropped and loaded again"
    gc.collect()
    # What the two dictionaries hold, the runtime, and the kernels that the last calls made ready.
    assert len(mapped(folder)) <= 3 * MOST + 1 < num_structures


def test_programs_of_one_structure_are_bounded_as_well(loads, folder):
    made = CPUBackend(cache_dir=str(folder))
    x = torch.rand(SMALL) * 3
    for number in range(20):
        neuron = LIF(tau=2.1 + number / 100, backend="torch")
        program = neuron.program()
        made.learn(program)
        out, *_ = made.run(program.key, x, [torch.zeros(SMALL[1:])], [], False, False)
        assert torch.equal(out, neuron(x))
    assert len(made._kernels) <= MOST
    assert len(loads) == 2, "the runtime, and one kernel for all"


def test_an_address_alone_keeps_no_code(loads, folder):
    """The tests above see kernels go: a library that nobody holds is unmapped at once."""
    made = CPUBackend(cache_dir=str(folder))
    code = made.runtime.code(LIF().program(), False)
    path = code.library._name
    assert path in mapped(folder)
    for neuron in NEURONS:
        made.runtime.code(neuron.program(), True)
    assert path in mapped(folder), "held here"
    del code
    assert path not in mapped(folder)
