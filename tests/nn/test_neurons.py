"""IF, LIF, surrogates and state against closed forms and loops written by hand."""

import copy
import math
import pickle
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spikecore import create
from spikecore.dynamics import where
from spikecore.errors import OptionError, ShapeError, StateError, StateShapeError, StreamingError, UnknownComponentError
from spikecore.nn import (
    IF,
    LIF,
    ATan,
    Neuron,
    Sigmoid,
    detach_state,
    get_state,
    reset_state,
    set_state,
    set_step_mode,
    streaming,
)


def by_hand(x, tau, v_threshold, v_reset, reset, decay_input, detach, alpha=2.0):
    """LIF with the surrogate gradient built from a smooth function and a constant correction."""
    v, spikes, potentials = torch.full_like(x[0], v_reset), [], []
    for current in x:
        h = v + (current - (v - v_reset)) / tau if decay_input else v - (v - v_reset) / tau + current
        smooth = torch.atan(math.pi / 2 * alpha * (h - v_threshold)) / math.pi
        s = smooth + ((h >= v_threshold).to(x) - smooth).detach()
        r = s.detach() if detach else s
        v = (1 - r) * h + r * v_reset if reset == "hard" else h - r * v_threshold
        spikes.append(s)
        potentials.append(v)
    return torch.stack(spikes), torch.stack(potentials)


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("decay_input", [False, True])
def test_lif_equals_the_loop_in_values_and_gradients(reset, detach, decay_input):
    torch.manual_seed(0)
    x = torch.randn(9, 4, 5, dtype=torch.float64) + 0.7
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    lif = LIF(
        tau=3.0, v_threshold=0.8, v_reset=-0.1, reset=reset, detach_reset=detach, decay_input=decay_input, record=("v",)
    )
    s = lif(ours)
    expected, v = by_hand(theirs, 3.0, 0.8, -0.1, reset, decay_input, detach)
    assert 0.05 < s.mean() < 0.95
    assert torch.equal(s, expected.round())
    torch.testing.assert_close(lif.recorded["v"], v, rtol=0, atol=1e-12)
    weight = torch.randn_like(s)
    ((s + lif.recorded["v"]) * weight).sum().backward()
    ((expected + v) * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_lif_step_response_is_the_geometric_series():
    current, tau = 0.9, 4.0
    lif = LIF(tau=tau, record=("v",))
    lif(torch.full((20, 1), current, dtype=torch.float64))
    steps = torch.arange(1, 21, dtype=torch.float64)
    torch.testing.assert_close(lif.recorded["v"][:, 0], current * (1 - (1 - 1 / tau) ** steps))


@given(st.floats(1.05, 5.0), st.floats(1.5, 20.0))
@settings(deadline=None, max_examples=30)
def test_lif_fires_at_the_rate_of_its_f_i_curve(current, tau):
    exact = math.log(1 - 1 / current) / math.log(1 - 1 / tau)
    assume(abs(exact - round(exact)) > 1e-6)
    period = math.ceil(exact)
    spikes = LIF(tau=tau)(torch.full((10 * period, 1), current, dtype=torch.float64))
    assert spikes.sum() == 10
    assert spikes[period - 1] == 1


def test_if_counts_its_input():
    spikes = IF(reset="soft")(torch.full((100, 1), 0.25, dtype=torch.float64))
    assert spikes.sum() == 25
    assert spikes[3] == 1


@pytest.mark.parametrize("surrogate", [ATan(alpha=1.5), Sigmoid(alpha=3.0)])
def test_a_surrogate_is_its_declaration(surrogate):
    u = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    s = surrogate(u)
    assert torch.equal(s, (u >= 0).double())
    (grad,) = torch.autograd.grad(s.sum(), u)
    eps = 1e-6
    g = lambda z: surrogate.primitive(z.detach(), surrogate.config)  # noqa: E731
    torch.testing.assert_close(grad, (g(u + eps) - g(u - eps)) / (2 * eps), rtol=1e-6, atol=1e-8)
    assert surrogate(torch.tensor([math.nan])).item() == 0
    with pytest.raises(AttributeError, match="immutable"):
        surrogate.config = None


def test_smooth_neurons_pass_gradcheck_to_input_and_parameters():
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    lif = LIF(tau=[1.5, 2.5, 4.0], learnable=("tau", "v_threshold"), surrogate=Sigmoid(spiking=False)).double()
    assert {name for name, _ in lif.named_parameters()} == {"param_tau", "param_v_threshold"}
    assert torch.autograd.gradcheck(lambda x, *_: lif(x), (x, *lif.parameters()))


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4))
@settings(deadline=None, max_examples=25)
def test_chunks_and_single_steps_equal_the_whole(first, second, batch):
    x = torch.randn(first + second, batch, 3, generator=torch.Generator().manual_seed(first)) + 0.5
    lif = LIF(tau=3.0)
    whole = lif(x)
    with streaming(lif):
        assert torch.equal(torch.cat([lif(x[:first]), lif(x[first:])]), whole)
    set_step_mode(lif, "single")
    steps = [lif(step) for step in x]
    assert torch.equal(torch.stack(steps) if steps else whole, whole)


def test_a_multi_step_call_leaves_nothing_behind():
    lif, x = LIF(), torch.rand(5, 2, 3) * 2
    assert torch.equal(lif(x), lif(x))
    assert get_state(lif) == {"": None}
    with pytest.raises(StateError, match="streaming"):
        set_state(lif, {"": {"v": torch.zeros(2, 3)}})


def test_state_is_kept_moved_and_cut():
    lif, x = LIF(step_mode="single"), torch.rand(2, 3, requires_grad=True)
    lif(x)
    kept = copy.deepcopy({k: {n: t.detach() for n, t in v.items()} for k, v in get_state(lif).items()})
    after = lif(x)
    set_state(lif, kept)
    assert torch.equal(lif(x), after)
    detach_state(lif)
    assert get_state(lif)[""]["v"].grad_fn is None
    with pytest.raises(StateShapeError, match="reset_state"):
        lif(torch.rand(3, 3))
    reset_state(lif)
    lif(torch.rand(3, 3))
    assert not lif.state_dict()


def test_streaming_does_not_nest():
    lif = LIF()
    with streaming(lif), pytest.raises(StreamingError), streaming(lif):
        pass


def test_wrong_use_is_named():
    with pytest.raises(OptionError, match="tau"):
        LIF(tau=0.9)
    with pytest.raises(OptionError, match="tau"):
        LIF(tau=[2.0, 0.5])
    with pytest.raises(OptionError, match="record"):
        LIF(record=("w",))
    with pytest.raises(OptionError, match="learnable"):
        LIF(learnable=("surrogate",))
    with pytest.raises(TypeError, match=r"\.float\(\)"):
        LIF()(torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"\[T, B, \.\.\.\]"):
        LIF()(torch.ones(3))
    with pytest.raises(ShapeError, match="4 channels"):
        LIF(tau=[2.0] * 4)(torch.ones(3, 2, 5))
    with pytest.raises(UnknownComponentError, match="no backend 'abacus'"):
        LIF(backend="abacus")


def test_nan_becomes_state_and_never_spikes():
    lif = LIF(record=("v",))
    x = torch.ones(4, 2) * 5
    x[1, 0] = math.nan
    s = lif(x)
    assert s[:, 0].tolist() == [1, 0, 0, 0]
    assert lif.recorded["v"][1:, 0].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_a_float32_state(dtype):
    lif = LIF(record=("v",))
    s = lif(torch.rand(3, 2, 4).to(dtype))
    assert s.dtype == dtype
    assert lif.recorded["v"].dtype == torch.float32


def test_copies_and_names():
    lif = create("neuron", "lif", tau=3.0, surrogate={"name": "sigmoid", "alpha": 1.0})
    assert lif.config.surrogate == Sigmoid(alpha=1.0)
    x = torch.rand(5, 2, 3) * 3
    assert torch.equal(pickle.loads(pickle.dumps(lif))(x), copy.deepcopy(lif)(x))


def test_a_backward_pass_is_linear_in_time():
    def nodes(num_steps):
        x = torch.rand(num_steps, 2, requires_grad=True)
        seen, todo = set(), [LIF()(x).sum().grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in seen:
                seen.add(node)
                todo += [parent for parent, _ in node.next_functions]
        return len(seen)

    assert nodes(40) - nodes(20) == nodes(60) - nodes(40)


def test_torch_func():
    lif, x = LIF(), torch.rand(3, 4, 2) * 2
    per_sample = torch.func.vmap(torch.func.grad(lambda z: lif(z.unsqueeze(1)).sum()), in_dims=1, out_dims=1)(x)
    whole = x.clone().requires_grad_()
    lif(whole).sum().backward()
    torch.testing.assert_close(per_sample, whole.grad)


class Passing(Neuron):
    """Hands its input on, and keeps it."""

    state = {"v": 0.0}  # noqa: RUF012

    @staticmethod
    def step(x, state, params):
        return x, {"v": x}


@pytest.mark.parametrize("step_mode", ["single", "multi"])
def test_what_is_handed_out_shares_nothing_with_input_and_state(step_mode):
    neuron, x = Passing(step_mode=step_mode, record=("v",)), torch.zeros(2, 3)
    with nullcontext() if step_mode == "single" else streaming(neuron):
        neuron(x).add_(1)
        neuron.recorded["v"].add_(1)
        assert torch.equal(x, torch.zeros(2, 3))
        x.add_(1)
        assert not get_state(neuron)[""]["v"].any()


class Steady(Neuron):
    """Its state and, after the first step, its output are numbers."""

    state = {"v": 0.0}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        labels: tuple[str, ...] = ("a", "b")

    @staticmethod
    def step(x, state, params):
        return where(state.v > 0.5, 1.0, 0.0), {"v": 0.75}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_step_may_return_numbers(dtype):
    neuron = Steady(record=("v",))
    out = neuron(torch.zeros(3, 2, 1, dtype=dtype))
    assert out.dtype == dtype
    assert out[:, 0, 0].tolist() == [0, 1, 1]
    assert torch.equal(
        neuron.recorded["v"], torch.full((3, 2, 1), 0.75, dtype=torch.promote_types(dtype, torch.float32))
    )
