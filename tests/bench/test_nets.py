"""Nets: every candidate trains the same net on the same data; the bound has no neuron in it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from spikecore.bench import nets, stacks
from spikecore.bench.session import Plan, Session
from spikecore.bench.timing import Effort
from spikecore.nn import LIF, ConvBNNeuron, layers
from spikecore.registry import register, use
from tests.bench import toys


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The same nets on a tenth of their input."""
    shrunk = {name: replace(net, shape=nets.tiny(name)) for name, net in nets.NETS.items()}
    monkeypatch.setattr(nets, "NETS", shrunk)
    with use(toys.core_alone()):
        register("backend", "right", toys.Right)
        register("backend", "wrong_gradient", toys.WrongGradient)
        register("backend", "picky", toys.Picky)
        yield


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_a_step_repeats_itself_and_the_bound_differs(name):
    first, again, bound = (nets.step_of(name, candidate)() for candidate in ("torch", "torch", nets.BOUND))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(bound) == len(first)
    assert not torch.equal(bound[-1], first[-1])


def test_the_conv_net_is_the_one_that_is_described():
    made = nets.NETS["conv"].build(layers, lambda: LIF())
    kinds = [type(part).__name__ for part in made]
    block = ["Conv2d", "BatchNorm2d", "LIF", "MaxPool2d"]
    assert kinds == [*block, *block, "Flatten", "Linear", "LIF", "Linear"]
    assert made(torch.rand(8, 2, 1, 28, 28)).shape == (8, 2, 10)


def test_the_direct_net_is_that_net_of_blocks_whose_stem_runs_once(monkeypatch):
    first, _ = nets._model(nets.NETS["conv"], "torch")
    made, _ = nets._model(nets.NETS["direct"], "torch")
    kinds = [type(part).__name__ for part in made]
    assert kinds == [*["ConvBNNeuron", "MaxPool2d"] * 2, "Flatten", "Linear", "LIF", "Linear"]
    inputs, original = [], ConvBNNeuron._run_layer
    monkeypatch.setattr(
        ConvBNNeuron, "_run_layer", lambda self, x: (inputs.append(tuple(x.shape)), original(self, x))[1]
    )
    steps = [nets.step_of(name, "torch")() for name in ("direct", "direct")]
    assert inputs[0] == (2, 1, 28, 28), "the stem sees one step"
    assert inputs[1] == (4, 32, 14, 14), "what follows a neuron sees all"
    assert all(torch.equal(a, b) for a, b in zip(*steps, strict=True))
    shapes = [[tuple(p.shape) for p in model.parameters()] for model in (first, made)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["linear", "conv", "direct"])
def test_training_changes_the_loss_or_not(name):
    step = nets.step_of(name, "torch")
    first, second = step()[0], step()[0]
    assert (first != second) == nets.NETS[name].has_labels


@pytest.mark.parametrize("name", ["linear", "conv", "direct"])
def test_the_gate_tells_right_from_wrong(name):
    assert nets.gate(name, "right", "torch", "cpu").ok
    judgement = nets.gate(name, "wrong_gradient", "torch", "cpu")
    assert not judgement.ok
    assert "gradient" in judgement.text


def test_the_session_has_a_row_for_each_candidate_and_the_bound(monkeypatch):
    name, stack = next(iter(stacks.STACKS.items()))  # one of the deep stacks at one rate: all take two minutes
    monkeypatch.setattr(stacks, "STACKS", {name: stack})
    monkeypatch.setattr(stacks, "RATES", (0.1,))
    plan = Plan(shapes=((2, 1, 3),), effort=Effort(0, 2, 2), with_nets=True, with_fresh=False)
    report = Session(plan).run()
    for subject in ("linear net", "conv net", "direct net"):
        rows = {row.candidate: row for row in report.rows if row.subject == subject}
        bounds = {nets.BOUND} if subject != "direct net" else set()
        assert set(rows) == {"torch", "right", "wrong_gradient", "picky"} | bounds
        for bound in bounds:
            assert rows[bound].kind == "bound"
            assert rows[bound].times_faster == pytest.approx(rows["torch"].wall_ms / rows[bound].wall_ms)
        assert rows["wrong_gradient"].status == "failed"
        assert rows["wrong_gradient"].wall_ms is None
        assert rows["picky"].status == "unsupported"
        assert "the moon is not full" in rows["picky"].reason
        assert all(row.floor_ms is None and row.ps_per_byte is None for row in rows.values())  # no floor is known
    of_stack = [row for row in report.rows if row.subject == f"{name} at 10%"]
    assert {row.measure for row in of_stack} == set(stack.measures)
    assert stacks.DENSE in {row.candidate for row in of_stack}
    assert any("--peers" in note for note in report.notes)


def test_a_net_without_neurons_has_none():
    made, _ = nets._model(nets.NETS["conv"], nets.BOUND)
    assert not any(isinstance(part, LIF) for part in made.modules())
    assert sum(isinstance(part, nn.Identity) for part in made.modules()) == 3
