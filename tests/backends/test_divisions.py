"""Divisions as torch's CUDA operators compute them: products with the reciprocal of a number."""

import torch

from spikecore.backends.kit import multiply_by_reciprocals
from spikecore.dynamics import OPS, evaluate, spike
from spikecore.nn import LIF, Neuron


class Divided(Neuron):
    """A quotient by an option, by a constant, of two tensors, and of a number by a tensor."""

    class Config(Neuron.Config):
        tau: float = 3.0

    state = {"v": 0.5}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        by_number = x / 3.0 + state.v / 7.0
        by_tensor = x / state.v + 5.0 / x
        return spike(by_number - 1.0, params.surrogate), {"v": by_number + by_tensor}


def num(graph, op):
    return sum(node.op == op for node in graph.nodes)


def test_quotients_by_numbers_become_products():
    graph = Divided().program().forward
    new = multiply_by_reciprocals(graph)
    x, v = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0)).abs() + 0.1
    state = evaluate(new, {"x": x, "state.v": v})["state.v"]
    one = torch.ones(())
    right = x * (one / 3.0) + v * (one / 7.0) + (x / v + 5.0 / x)
    assert torch.equal(state, right)
    divided = evaluate(graph, {"x": x, "state.v": v})["state.v"]
    assert torch.equal(divided, x / 3.0 + v / 7.0 + (x / v + 5.0 / x))
    assert not torch.equal(divided, right), "no last bit differs: this proves nothing"


def test_one_reciprocal_for_each_number():
    graph = multiply_by_reciprocals(LIF(tau=3.0).program().forward)
    divisions = [[graph.nodes[index] for index in node.args] for node in graph.nodes if node.op == "div"]
    by_tau = [
        dividend for dividend, divisor in divisions if divisor.slot is not None
    ]  # 1 / tau, for every value of tau
    assert [(dividend.value, dividend.slot) for dividend in by_tau] == [(1.0, None)]


def test_a_learnable_parameter_is_a_tensor_and_divides():
    program = LIF(tau=3.0, learnable=("tau",)).program()
    for graph in (program.forward, program.backward):
        assert num(graph, "div") >= 1
        assert multiply_by_reciprocals(graph) == graph


def test_the_order_of_nodes_is_topological():
    for graph in (Divided().program().forward, Divided().program().backward):
        new = multiply_by_reciprocals(graph)
        assert all(index < place for place, node in enumerate(new.nodes) for index in node.args)
        assert {node.op for node in new.nodes} <= {*OPS, "input", "const"}
        assert num(new, "mul") > num(graph, "mul")
