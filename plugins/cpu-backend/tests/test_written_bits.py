"""Bits that kernels of neurons write beside their floats: equal to them, and gone with whatever changes them."""

import copy
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikecore_cpu_backend import products
from spikecore_cpu_backend.printer import print_program
from torch import nn
from torch.nn import functional

from spikecore.backends.selection import backend_named
from spikecore.backends.spike_bits import bits_of, forget_bits
from spikecore.interfaces import ProductGeometry
from spikecore.nn import (
    IF,
    LIF,
    Conv2d,
    ConvBNNeuron,
    Linear,
    LinearBNNeuron,
    MaxPool2d,
    ParametricLIF,
    ReLU,
    Sequential,
    configure_backend,
    set_products,
)

SAME = ProductGeometry("conv2d", padding=(1, 1))


@pytest.fixture(autouse=True)
def products_in_use(monkeypatch):
    """Bits are written once a product has run by events."""
    monkeypatch.setattr(products, "LEAST_TERMS", 0)
    configure_backend("cpu", crossover=1.0)
    Linear(32, 8)(torch.zeros(1, 2, 32))
    forget_bits()
    yield
    forget_bits()
    configure_backend("cpu")


@pytest.fixture
def packs(monkeypatch):
    """Counts packings."""
    calls = []
    pack = products.Products.pack
    monkeypatch.setattr(products.Products, "pack", lambda self, *args: calls.append(args) or pack(self, *args))
    return calls


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2


def last(x):
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


def images(x):
    """`[T * B, C, H, W]`, a view."""
    x = x.detach()
    return x.flatten(0, 1) if x.is_contiguous() else x.movedim(2, -1).flatten(0, 1).movedim(-1, 1)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 4), batch=st.integers(1, 4), channels=st.integers(1, 70), height=st.integers(1, 40),
    width=st.integers(1, 40), is_last=st.booleans(), trains=st.booleans(), threads=st.integers(1, 3),
    block=st.booleans(),
)  # fmt: skip
def test_bits_are_those_of_the_floats(steps, batch, channels, height, width, is_last, trains, threads, block):
    x = noise(steps, batch, channels, height, width)
    x = last(x) if is_last else x
    neuron = LIF(v_threshold=0.4)
    net = ConvBNNeuron(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), neuron) if block else neuron
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        out = net(x.requires_grad_(trains))
        bits = bits_of(images(out), True)
    finally:
        torch.set_num_threads(before)
    if bits is not None:
        assert torch.equal(bits.floats(), images(out))
    elif batch * channels * height * width % 64 == 0 and out.numel() >= 1 << 15:
        assert block, "no bits were written"  # its blocks may be shorter than a word of bits


@pytest.mark.parametrize("shape", [(4, 4, 32, 24, 16), (4, 4, 40, 24, 16), (3, 8, 33, 16, 16), (2, 64, 512)])
@pytest.mark.parametrize("is_last", [False, True])
def test_a_product_behind_a_neuron_packs_nothing(shape, is_last, packs):
    torch.manual_seed(0)
    channels = shape[2]
    if len(shape) == 3:
        block = LinearBNNeuron(nn.Linear(channels, 512), nn.BatchNorm1d(512), LIF())
        net = Sequential(LIF(v_threshold=0.3), block, Linear(512, 8))
    else:
        net = Sequential(
            LIF(v_threshold=0.3), Conv2d(channels, 64, 3, padding=1), ParametricLIF(v_threshold=0.2), MaxPool2d(2),
            ConvBNNeuron(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), IF(reset="soft")),
            Conv2d(64, 8, 3, stride=2),
        )  # fmt: skip
    x = noise(*shape)
    x = last(x) if is_last and len(shape) == 5 else x
    twin = set_dense(copy.deepcopy(net))
    for training in (True, False):
        results = []
        for model in (net, twin):
            model.train(training).zero_grad()
            out = model(x)
            out.square().sum().backward()
            results.append((out.detach(), [parameter.grad for parameter in model.parameters()]))
        (ours, grads), (theirs, right) = results
        assert theirs.std() > 0.01
        torch.testing.assert_close(ours, theirs)
        for gradient, dense in zip(grads, right, strict=True):
            assert float((gradient - dense).norm()) <= 1e-4 * float(dense.norm()) + 1e-3
    paths = [part.product.path for part in net if getattr(part, "product", None) is not None]
    assert set(paths) == {"event"}
    assert not packs, "what a neuron had written was packed again"


def set_dense(net):
    set_products(net, "dense")
    return net


def numpy_writes(x):
    np.asarray(x)[...] = 0.5


def doubles_without_gradient(x):
    with torch.no_grad():
        x.mul_(2)


def writes_in_inference_mode(x):
    with torch.inference_mode():
        x.mul_(2)


WRITES = {
    "mul_": lambda x: x.mul_(2),
    "item": lambda x: x[0, 0, 3, 5, 5].fill_(2),
    "a place": lambda x: x.__setitem__((0, 0, 0, 0, 0), 2),
    "view": lambda x: x.flatten(0, 1)[1:, :4].add_(1),
    "detached": lambda x: x.detach().neg_(),
    "out=": lambda x: torch.mul(x, 3, out=x),
    "no_grad": doubles_without_gradient,
    "inference mode": writes_in_inference_mode,
    # Behind torch's back: its version does not change, and a sample of the values tells.
    ".data": lambda x: x.data.mul_(0.5),
    "numpy": numpy_writes,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("is_last", [False, True])
def test_whatever_changes_the_floats_ends_the_bits(write, is_last):
    torch.manual_seed(0)
    x = noise(4, 4, 32, 16, 24)
    neuron, layer = LIF(v_threshold=0.3), Conv2d(32, 8, 3, padding=1)
    out = neuron(last(x) if is_last else x)
    assert bits_of(images(out), True) is not None
    write(out)
    with torch.no_grad():
        torch.testing.assert_close(images(layer(out)), functional.conv2d(images(out), layer.weight, layer.bias, 1, 1))
    assert layer.product.path == "dense"


def test_copies_have_none_and_views_have_them():
    out = LIF(v_threshold=0.3)(noise(4, 4, 32, 16, 24))
    for twin in (copy.deepcopy(out), out.clone(), out + 0):
        assert bits_of(images(twin), True) is None
    for view in (out.detach(), out.view(2, 2, 4, 32, 16, 24).flatten(0, 1), out.view(out.shape)):
        assert torch.equal(bits_of(images(view), True).floats(), images(out))
    for part in (out[1:], out[:, :2], out[..., :12]):
        assert bits_of(part.flatten(0, 1).detach(), True) is None
    with torch.no_grad():
        assert bits_of(images(LIF(v_threshold=0.3)(noise(4, 4, 32, 16, 24))), True) is not None


def test_memory_that_is_used_again_has_none_of_the_last_bits():
    """Results are recycled: the very memory comes back for other values, of a neuron and of others."""
    torch.manual_seed(0)
    layer = Conv2d(32, 8, 3, padding=1)
    recycler = backend_named("cpu").recycler
    addresses = []
    for seed in range(6):
        out = LIF(v_threshold=0.3)(noise(4, 4, 32, 16, 24, seed=seed))
        addresses.append(out.data_ptr())
        shape = out.shape
        with torch.no_grad():
            torch.testing.assert_close(
                images(layer(out)), functional.conv2d(images(out), layer.weight, layer.bias, 1, 1)
            )
        del out
        other = recycler.empty(shape, torch.float32).fill_(0.25)
        addresses.append(other.data_ptr())
        assert bits_of(images(other), True) is None
        del other
    assert len(set(addresses)) < len(addresses), "no memory was used twice: this proves nothing"


def test_threads_do_not_mix_them_up():
    torch.manual_seed(0)
    layer, neuron = Conv2d(32, 8, 3, padding=1), LIF(v_threshold=0.3)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    wrong = []

    def work(number):
        for turn in range(10):
            with torch.no_grad():
                out = neuron(noise(2, 4, 32, 16, 16, seed=100 * number + turn))
                y = copy.copy(layer)(out)
                if not torch.allclose(images(y), functional.conv2d(images(out), weight, bias, 1, 1), atol=1e-5):
                    wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_within_a_compiled_graph_none_are_noted():
    """It may write to the memory of its own tensors without raising their version."""
    neuron = LIF(v_threshold=0.3)
    x = noise(4, 4, 32, 16, 24)
    right = neuron(x)
    assert bits_of(images(right), True) is not None
    for backend in ("eager", "aot_eager"):
        out = torch.compile(neuron, backend=backend)(x)
        assert torch.equal(out, right)
        assert bits_of(images(out), True) is None
    mapped = torch.func.vmap(neuron)(x[None])
    assert torch.equal(mapped[0], right)
    assert bits_of(images(mapped[0]), True) is None


def test_who_fires_other_values_writes_none_and_no_one_before_the_first_product():
    x = noise(4, 4, 32, 16, 24)
    for neuron in (LIF(surrogate={"name": "sigmoid", "spiking": False}), ReLU()):
        assert "end_spikes" not in print_program(neuron.program(), False)
        assert bits_of(images(neuron(x)), True) is None
    assert "end_spikes" in print_program(LIF().program(), False)
    configure_backend("cpu", crossover=1.0)
    assert bits_of(images(LIF(v_threshold=0.3)(x)), True) is None


def test_rows_of_every_width():
    """Rows of channels that are no whole words, and planes that begin within a byte."""
    backend = backend_named("cpu")
    for channels in (1, 7, 31, 32, 33, 64, 65, 100):
        out = LIF(v_threshold=0.3)(noise(2, 64, 256, channels))
        rows = out.view(-1, channels)
        assert torch.equal(bits_of(rows, False).floats(), rows)
        assert backend.pack(rows).words.equal(
            backend._products.pack(rows, products.Sizes(len(rows), 1, 1, channels, 1, 1, 1, 0)).words
        )
    out = LIF(v_threshold=0.3)(noise(4, 64, 35, 3, 17))
    assert torch.equal(bits_of(images(out), True).floats(), images(out))
