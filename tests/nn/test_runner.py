"""What a neuron on the reference hands out and keeps: tensors of its own, and numbers as tensors."""

import pytest
import torch

from spikecore.nn import Neuron


class Delayed(Neuron):
    """out[t] = x[t - 1]: the output is the state itself, the next state is the input itself."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        return state.v, {"v": x}


class Copied(Neuron):
    """The output is the input itself."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        return x, {"v": state.v + x}


class Constant(Neuron):
    """Output and state are numbers, whatever x is."""

    state = {"n": 0.5}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        return 2.0, {"n": 1 / 3}


def test_the_input_may_be_changed_after_a_step():
    neuron, x = Delayed(step_mode="single", backend="torch"), torch.rand(2, 3) + 1
    before = x.clone()
    assert not neuron(x).any()
    x.zero_()
    assert torch.equal(neuron(x), before)


def test_outputs_and_records_may_be_changed():
    neuron = Delayed(step_mode="single", backend="torch", record=("v",))
    first, second, third = torch.rand(3, 2, 3) + 1
    neuron(first)
    neuron.recorded["v"].zero_()
    out = neuron(second)
    assert torch.equal(out, first)
    out.zero_()
    assert torch.equal(neuron(third), second)
    assert neuron.recorded["v"].shape == (1, 2, 3)
    assert torch.equal(neuron.recorded["v"][0], third)


@pytest.mark.parametrize("step_mode", ["single", "multi"])
def test_an_output_is_never_the_input(step_mode):
    neuron = Copied(step_mode=step_mode, backend="torch")
    x = torch.rand(4, 2, 3) + 1
    before = x.clone()
    out = neuron(x)
    assert torch.equal(out, before)
    out.zero_()
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("step_mode", ["single", "multi"])
def test_numbers_become_tensors_in_the_dtype_of_the_state(step_mode, dtype):
    neuron = Constant(step_mode=step_mode, backend="torch", record=("n",)).to(dtype)
    out = neuron(torch.rand(3, 2, 4).to(dtype))
    assert out.shape == (3, 2, 4)
    assert out.dtype == dtype
    assert (out == 2).all()
    wide = torch.promote_types(dtype, torch.float32)
    recorded = neuron.recorded["n"]
    assert recorded.dtype == wide
    assert torch.equal(recorded, torch.full_like(recorded, 1 / 3))  # of half precision it would be another number
