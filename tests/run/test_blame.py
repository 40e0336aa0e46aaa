"""What a neuron, a surrogate or a forward hook raises in training names the layer; other errors are left alone."""

import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import spikecore
from spikecore.errors import BrokenPluginError
from spikecore.nn import IF, LIF, ATan, TorchNeuron
from spikecore.registry import Blocking, Registry, use
from spikecore.run.blame import naming_layers
from spikecore.testing.distributions import fake_distribution


class Net(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.first, self.stack = IF(backend="torch"), nn.Sequential(*layers)

    def forward(self, x):
        return self.stack(self.first(x))


class Explodes(LIF):
    @staticmethod
    def step(x, state, params):
        if isinstance(x, torch.Tensor) and x.max() > 1e6:
            raise ZeroDivisionError("in a step")
        return LIF.step(x, state, params)


class Stateless(TorchNeuron):
    @dataclass(frozen=True)
    class Config:
        answer: int = 0

    def initial_state(self, x):
        return {}

    def run(self, x, state):
        return [None, ("a", "b"), "abc"][self.config.answer]


class Kinked(ATan):
    @staticmethod
    def derivative(u, params):
        if isinstance(u, torch.Tensor):
            raise ZeroDivisionError("in a surrogate")
        return ATan.derivative(u, params)


def blamed(net, x=None):
    x = torch.full((3, 2, 4), 2.0, requires_grad=True) if x is None else x
    with pytest.raises(BrokenPluginError) as caught, naming_layers(net):
        net(x).sum().backward()
    return str(caught.value)


@pytest.mark.parametrize("answer", [0, 1, 2])
def test_a_step_that_returns_nonsense(answer):
    text = blamed(Net(Stateless(answer=answer)))
    assert text.startswith(f"layer 'stack.0' ({__name__}.Stateless) failed: ")


def raising(module, *_):
    raise ZeroDivisionError("in a hook")


@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
@pytest.mark.parametrize("place", ["", "stack", "stack.0", "first"])
def test_a_hook(kind, place):
    net = Net(nn.Linear(4, 4))
    getattr(net.get_submodule(place), f"register_{kind}_hook")(raising)
    text = blamed(net)
    assert f"layer {place!r} (" in text
    assert "ZeroDivisionError: in a hook" in text
    assert f"{__file__}:" in text
    if place != "first":
        assert text.startswith("a hook (raising) on layer")


def test_a_surrogate_in_the_backward_pass():
    net = Net(LIF(surrogate=Kinked(alpha=3.0), backend="torch"))
    text = blamed(net)
    assert text.startswith(f"the surrogate {__name__}.Kinked")
    assert "of layer 'stack.0' failed: ZeroDivisionError: in a surrogate" in text


def test_what_has_another_cause_is_left_alone(monkeypatch):
    net = Net(nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="shapes"), naming_layers(net):
        net(torch.ones(3, 2, 4))
    with pytest.raises(KeyboardInterrupt), naming_layers(net):
        raise KeyboardInterrupt
    monkeypatch.setenv("SPIKE_PLUGIN_STRICT", "1")
    with pytest.raises(TypeError), naming_layers(net):
        Net(Stateless())(torch.ones(3, 2, 4))


FAULTY = """
from spikecore.registry.hookspecs import hookimpl
@hookimpl
def spike_run_start(directory, record, model):
    def watch(module, args, output): raise ZeroDivisionError("watching")
    next(iter(model.children())).register_forward_hook(watch)
"""


def test_a_run_names_the_layer(tmp_path, monkeypatch):
    points = {"spikecore.plugins": {"w": "w_faulty"}}
    fake_distribution(tmp_path / "site", "spikecore-w", points, modules={"w_faulty.py": FAULTY})
    monkeypatch.syspath_prepend(tmp_path / "site")
    small = {"trainer": {"epochs": 1}, "encoder": {"num_steps": 1}, "model": {"name": "mlp"}}
    try:
        with use(Registry(blocking=Blocking())), pytest.raises(BrokenPluginError, match=r"hook \(watch\) on layer"):
            spikecore.run(small, out=tmp_path / "out")
    finally:
        sys.modules.pop("w_faulty", None)
