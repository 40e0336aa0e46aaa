"""Numeric options are arguments of compiled code: programs that differ in them alone have one structure."""

import math
from dataclasses import replace

import pytest
import torch

from spikecore.dynamics import (
    CPrinter,
    Graph,
    clamp,
    derivatives,
    equations,
    evaluate,
    explain,
    keep_distance,
    slots_of,
    trace,
    with_gaps,
)
from spikecore.nn import IF, LIF, CubaLIF
from spikecore.nn.surrogates import ATan, Sigmoid
from tests.interpreter import run_graph


def structures(programs):
    return len({program.structure for program in programs})


def test_a_sweep_has_one_structure_and_a_key_for_each_value():
    programs = [LIF(tau=1.15 + 0.3 * i, v_threshold=0.7 + 0.01 * i, v_reset=0.1).program() for i in range(20)]
    assert structures(programs) == 1
    assert len({program.key for program in programs}) == 20
    assert all({1.15 + 0.3 * i, 0.7 + 0.01 * i, 0.1} < {*program.numbers} for i, program in enumerate(programs))


@pytest.mark.parametrize(
    "make",
    [
        lambda value: LIF(tau=1 + value),
        lambda value: LIF(v_threshold=value, tau=3.0),
        lambda value: LIF(v_reset=-value, tau=3.0),
        lambda value: IF(surrogate=ATan(alpha=value)),
        lambda value: IF(surrogate=Sigmoid(alpha=value)),
        lambda value: CubaLIF(c_decay=value / 9),
    ],
)
def test_every_numeric_option_is_an_argument(make):
    first, second = make(0.3).program(), make(0.37).program()
    assert first.structure == second.structure
    assert first.key != second.key
    assert first.numbers != second.numbers


def test_what_a_clamp_limits_is_an_argument_its_limits_are_not():
    def step(x, state, params):
        return clamp(3.3, x, 5.5), {}

    assert trace("Limited", step, (), {}).numbers == (3.3,)


def test_values_worth_knowing_stay_constants():
    kinds = [{}, {"tau": 4.0}, {"v_threshold": math.inf}, {"v_reset": 0.3}, {"v_threshold": 0.3}, {"tau": 3.0}]
    assert structures(LIF(**options).program() for options in kinds) == len(kinds)
    assert LIF(tau=2.0).program().numbers == (math.pi,)  # of the surrogate
    assert LIF(tau=3.0).program().numbers == (3.0, math.pi)
    assert LIF(tau=2.0, v_reset=-1.0).program().numbers == (math.pi,)
    assert LIF(v_threshold=2.0).program().numbers == LIF(v_threshold=2.0, tau=2.0).program().numbers


def test_limits_of_clamp_stay_constants():
    def step(limit):
        return lambda x, state, params: (clamp(x, -limit, limit), {})

    programs = [trace("Clamped", step(limit), (), {}) for limit in (1.3, 1.7)]
    assert structures(programs) == 2
    assert programs[0].numbers == ()


def test_a_number_is_shown():
    program = LIF(tau=3.7, v_threshold=0.6).program()
    lines = equations(program.forward)
    assert lines[0] == "t1 = v + (x - v) / 3.7"
    assert "t1 - 0.6" in lines[1]
    assert "/ 3.7" in explain(program).partition("gradient")[2]


def without_slots(graph):
    return Graph(tuple(replace(node, slot=None) for node in graph.nodes), graph.outputs)


def test_every_graph_of_a_program_has_its_slots_and_no_other():
    program = LIF(tau=3.7, v_threshold=0.6, v_reset=0.2, detach_reset=True).program()
    graphs = [program.forward, program.backward, with_gaps(program), *keep_distance(program), derivatives(program)]
    for graph in graphs:
        for node in graph.nodes:
            if node.slot is not None:
                assert node.value == program.numbers[node.slot]
    assert {node.slot for node in program.forward.nodes} - {None} == set(range(len(program.numbers)))
    read_by_out = {program.numbers[slot] for slot in slots_of(program.forward, ["out"])}
    assert read_by_out == {3.7, 0.6, 0.2}  # and not the surrogate's, which stands in the gradient alone


@pytest.mark.parametrize("options", [{"tau": 3.7}, {"tau": 2.9, "v_threshold": 0.6, "v_reset": 0.2, "reset": "soft"}])
def test_arguments_change_no_number(options):
    """Interpreters read a slot as the constant that it is."""
    program = LIF(**options).program()
    values = torch.randn(2, 50, dtype=torch.float32, generator=torch.Generator().manual_seed(0)) * 2
    given = {"x": values[0], "state.v": values[1], "grad.out": values[1], "grad.state.v": values[0]}
    for graph in (program.forward, program.backward):
        ours, right = evaluate(graph, given), evaluate(without_slots(graph), given)
        other = run_graph(graph, {name: value.numpy() for name, value in given.items()}, values.numpy().dtype.type)
        for name in graph.outputs:
            assert torch.equal(ours[name], right[name])
            torch.testing.assert_close(ours[name], torch.as_tensor(other[name]))


class Shared(CPrinter):
    def number(self, slot, value):
        return f"numbers[{slot}]"


def test_a_printer_may_read_numbers_and_need_not():
    given = {"x": "x", "state.v": "v"}
    texts = []
    for tau in (3.0, 3.7):
        program = LIF(tau=tau, reset="soft").program()
        texts.append([printer().print(program.forward, given, ["state.v"]) for printer in (CPrinter, Shared)])
    assert texts[0][0] != texts[1][0]
    assert texts[0][1] == texts[1][1]
    assert "(sc_2 / numbers[0])" in "".join(texts[0][1][0])
    assert f"/ {(3.0).hex()}f" in "".join(texts[0][0][0])


def test_what_a_vjp_introduces_is_no_argument():
    """2 of the derivative of sqrt is not 2.0 of an option."""
    from spikecore.dynamics import sqrt

    def step(x, state, params):
        return sqrt(x) - 2.0, {}

    program = trace("Root", step, (), {})
    assert program.numbers == (2.0,)
    twos = [node.slot for node in program.backward.nodes if node.value == 2.0]
    assert twos == [None]
