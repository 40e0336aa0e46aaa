"""What is kept for the backward pass: how much, and that its gradients are right."""

from dataclasses import dataclass

import pytest
import torch
from cpu_comparison import agree, outcome, worst
from spikecore_cpu_backend import CPUBackend
from torch.autograd.graph import saved_tensors_hooks

from spikecore.dynamics import keep_distance
from spikecore.errors import OptionError
from spikecore.nn import IF, LIF, configure_backend
from spikecore.registry import Blocking, Registry, use


def keeper(way):
    class Keeper(CPUBackend):
        @dataclass(frozen=True)
        class Config(CPUBackend.Config):
            keep: str = way

    return Keeper


@pytest.fixture(autouse=True)
def backends():
    registry = Registry(blocking=Blocking())
    for way in ("input", "distance", "distance_bf16"):
        registry.register("backend", way, keeper(way))
    with use(registry):
        yield


def kept_bytes(neuron, x):
    """Bytes per element-step that autograd holds for the neuron, counting each storage once."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        neuron(x)
    return sum(storages.values()) / x.numel()


@pytest.mark.parametrize(
    ("backend", "options", "dtype", "expected"),
    [
        ("cpu", {}, torch.float32, 4),  # u
        ("cpu", {}, torch.float64, 8),
        ("cpu", {}, torch.bfloat16, 2),  # x
        ("input", {}, torch.float32, 4),  # x
        ("distance", {}, torch.float32, 4),  # u
        ("distance_bf16", {}, torch.float32, 2),  # u
        ("distance_bf16", {"learnable": ("tau",)}, torch.float32, 4),  # x: u is not enough
        ("distance_bf16", {"learnable": ("v_threshold",)}, torch.float32, 2),
    ],
)
def test_bytes_for_each_element_step(backend, options, dtype, expected):
    x = torch.randn(200, 2, 40, dtype=dtype, requires_grad=True)
    num_bytes = kept_bytes(LIF(backend=backend, **options), x)
    assert expected <= num_bytes < expected + 0.2  # the initial state, 1/200 of a sequence, and parameters


def test_nothing_is_kept_without_gradients():
    assert kept_bytes(LIF(backend="cpu"), torch.randn(20, 2, 40)) == 0


@pytest.mark.parametrize("way", ["input", "distance"])
@pytest.mark.parametrize(
    "case", [{}, {"reset": "soft"}, {"detach_reset": True}, {"v_reset": -0.2, "tau": 3.0}], ids=str
)
@pytest.mark.parametrize("make", [IF, LIF])
def test_both_ways_agree_with_the_loop(make, case, way):
    if make is IF:
        case = {name: value for name, value in case.items() if name != "tau"}
    x = torch.randn(20, 3, 50, generator=torch.Generator().manual_seed(1)) * 1.5
    agree(lambda on: make(backend=way if on == "cpu" else on, record=("v",), **case), x)


@pytest.mark.parametrize("way", ["input", "distance"])
def test_learnable_threshold(way):
    x = torch.randn(20, 4, 3, 50, generator=torch.Generator().manual_seed(1)) * 1.5
    options = {"v_threshold": [0.5, 1.0, 1.5], "learnable": ("v_threshold",)}
    agree(lambda on: LIF(backend=way if on == "cpu" else on, **options), x)


@pytest.mark.parametrize("options", [{}, {"learnable": ("v_threshold",)}], ids=["constant", "learnable"])
def test_a_threshold_that_is_never_reached(options):
    x = torch.randn(9, 3, 7, generator=torch.Generator().manual_seed(2))
    results = agree(lambda on: LIF(v_threshold=float("inf"), detach_reset=False, backend=on, **options), x)
    assert results["grad x"].isfinite().all()


@pytest.mark.parametrize("learnable", [(), ("v_threshold",)], ids=["buffer", "learnable"])
def test_channels_whose_threshold_is_never_reached(learnable):
    x = torch.randn(9, 3, 2, generator=torch.Generator().manual_seed(2))
    thresholds = (float("inf"), 0.5)
    results = agree(lambda on: LIF(v_threshold=thresholds, detach_reset=False, learnable=learnable, backend=on), x)
    assert results["grad x"].isfinite().all()


def test_sixteen_bits_cost_a_thousandth():
    x = torch.randn(20, 3, 500, generator=torch.Generator().manual_seed(1)) * 1.5
    ours, right = (outcome(LIF(backend=on), x) for on in ("distance_bf16", "torch"))
    assert torch.equal(ours["out"], right["out"])
    assert 1e-6 < worst(ours["grad x"], right["grad x"]) < 5e-3


def test_on_which_side_of_the_threshold_is_never_forgotten():
    h = torch.tensor([1.0, 1.0 - 2**-24, 1.0 + 2**-23]).repeat(1, 40)
    neuron = IF(backend="distance_bf16", surrogate={"name": "rectangular", "alpha": 1.0})
    x = h.reshape(1, 1, -1).repeat(2, 1, 1).requires_grad_()
    neuron(x)[1].sum().backward()  # through v = (1 - s) h
    given = x.detach().clone().requires_grad_()
    IF(backend="torch", surrogate={"name": "rectangular", "alpha": 1.0})(given)[1].sum().backward()
    assert worst(x.grad, given.grad) < 5e-3


def test_the_class_of_programs():
    assert keep_distance(LIF(detach_reset=True).program())
    assert keep_distance(LIF(v_threshold=[1.0, 2.0], learnable=("v_threshold",)).program())
    assert keep_distance(LIF(tau=[1.5, 2.0]).program())
    assert keep_distance(LIF(tau=[1.5, 2.0], learnable=("tau",)).program()) is None


def test_a_backend_can_be_configured_for_the_process():
    x = torch.randn(200, 2, 40, requires_grad=True)
    neuron = LIF(backend="cpu")
    assert 4 <= kept_bytes(neuron, x) < 4.2
    configure_backend("cpu", keep="distance_bf16")
    assert 2 <= kept_bytes(neuron, x) < 2.2  # one that was made and used before, too
    with pytest.raises(OptionError, match="keep"):
        configure_backend("cpu", keep="everything")


def test_wrong_option():
    with pytest.raises(OptionError, match="keep"):
        CPUBackend(keep="everything")
