"""Numeric options: what may be trained, the range that they stay in, the digits that they keep; infinite inputs."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import nn as torch_nn

from spikecore.backends.reference import TorchBackend
from spikecore.errors import OptionError, ShapeError
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.interfaces.component import Range
from spikecore.nn import IF, LI, LIF, CubaLIF, Leaky, ParametricLIF, Sigmoid, functional, get_state, option_values
from spikecore.nn.parameters import limits
from spikecore.registry import Blocking, Registry, use


class GraphBackend(TorchBackend):
    """The interpreter of core as an operator backend."""

    capabilities = BackendCapabilities(priority=3)


@pytest.fixture(scope="module", autouse=True)
def backends():
    registry = Registry(blocking=Blocking())
    registry.register("backend", "graph", GraphBackend)
    with use(registry):
        yield


both = pytest.mark.parametrize("backend", ["torch", "graph"])
X = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0)) * 3


# What is trained is named in `learnable`.


TRAINED = {
    "a parameter": torch_nn.Parameter(torch.tensor(2.0)),
    "one per channel": torch_nn.Parameter(torch.tensor([2.0, 3.0, 4.0])),
    "frozen": torch_nn.Parameter(torch.tensor(2.0), requires_grad=False),
    "a leaf": torch.tensor(2.0, requires_grad=True),
    "a result": torch.tensor([2.0], requires_grad=True) * 1.5,
}


@pytest.mark.parametrize("value", TRAINED.values(), ids=TRAINED)
@pytest.mark.parametrize("make", [LIF, LI])
def test_a_tensor_that_is_trained_is_refused(make, value):
    with pytest.raises(OptionError, match=r"'tau' is a tensor that is trained.*learnable=\('tau',\)"):
        make(tau=value)


def test_the_cure_cures():
    lif = LIF(tau=2.0, learnable=("tau",))
    lif(X).sum().backward()
    assert lif.param_tau.grad != 0


# Ranges.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_limits_are_the_outermost_allowed_numbers(dtype):
    low, high = limits(Range(gt=1.0, lt=torch.inf), dtype)
    assert low > 1.0
    assert torch.tensor(low, dtype=dtype) == torch.nextafter(
        torch.tensor(1.0, dtype=dtype), torch.tensor(2.0).to(dtype)
    )
    assert high == torch.finfo(dtype).max
    assert limits(Range(ge=0.0, le=1.0), dtype) == (0.0, 1.0)
    assert limits(Range(), dtype) == (-torch.inf, torch.inf)


OUTSIDE = {  # neuron, its option, a value outside of its range, the nearest inside
    "tau below": (lambda **o: LIF(tau=2.0, learnable=("tau",), **o), "tau", 0.42, 1.0),
    "li": (lambda **o: LI(tau=2.0, learnable=("tau",), **o), "tau", -3.0, 1.0 + 2**-23),
    "decay above": (lambda **o: CubaLIF(c_decay=0.5, learnable=("c_decay",), **o), "c_decay", 1.75, 1.0),
    "decay below": (lambda **o: CubaLIF(v_decay=0.5, learnable=("v_decay",), **o), "v_decay", -0.5, 0.0),
    "channels": (
        lambda **o: LIF(tau=[2.0, 2.0, 2.0], learnable=("tau",), **o),
        "tau",
        [3.0, 0.5, 1.5],
        [3.0, 1.0, 1.5],
    ),
}


@both
@pytest.mark.parametrize("values", [[math.nan, 2.0, 3.0], [2.0, math.nan, 3.0]])
def test_a_parameter_that_became_nan_is_told_as_such(values, backend):
    """No value of the range is near to it: the message must not say that the step takes one."""
    neuron = LIF(tau=[2.0, 3.0, 4.0], learnable=("tau",), backend=backend)
    with torch.no_grad():
        neuron.param_tau.copy_(torch.tensor(values))
    with pytest.warns(UserWarning, match=r"option 'tau' of LIF is nan now.*>= 1.*: nothing is near to nan"):
        out = neuron(torch.full((6, 2, 3), 4.0))
    is_nan = torch.tensor(values).isnan()
    assert not out[..., is_nan].any()
    assert out[..., ~is_nan].any()


@both
@pytest.mark.parametrize("case", OUTSIDE)
def test_a_value_outside_its_range_is_bounded_with_its_gradient_and_told_once(case, backend):
    make, option, outside, bound = OUTSIDE[case]
    neuron, inside = make(backend=backend), make(backend=backend)
    with torch.no_grad():
        getattr(neuron, f"param_{option}").copy_(torch.tensor(outside))
        getattr(inside, f"param_{option}").copy_(torch.tensor(bound))
    with pytest.warns(UserWarning, match=rf"option '{option}' of {type(neuron).__name__}.*must be") as told:
        out = neuron(X)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(neuron(X), out)  # once
        want = inside(X)
    assert torch.equal(out, want)
    assert out.any()
    weight = torch.arange(1.0, 7.0).reshape(6, 1, 1)
    for result in (out, want):
        (result * weight).sum().backward()
    grad = getattr(neuron, f"param_{option}").grad
    assert torch.equal(grad, getattr(inside, f"param_{option}").grad)
    assert grad.any()
    assert torch.allclose(torch.tensor(option_values(neuron)[option]), torch.tensor(bound), rtol=0, atol=0)
    assert torch.equal(getattr(neuron, f"param_{option}"), torch.tensor(outside))  # the parameter itself stays


@both
def test_it_is_bounded_in_transforms_compilers_and_copies_too(backend):
    make, _, outside, bound = OUTSIDE["tau below"]
    neuron, inside = make(backend=backend), make(backend=backend)
    with torch.no_grad():
        neuron.param_tau.fill_(outside)
        inside.param_tau.fill_(bound)
    want = inside(X)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(neuron, backend="aot_eager", fullgraph=True)(X), want)
    step, init_state = functional(neuron)
    gradients = torch.func.grad(lambda p: step(p, X, init_state(X))[0].sum())({"param_tau": neuron.param_tau.detach()})
    (grad,) = torch.autograd.grad(want.sum(), inside.param_tau)
    torch.testing.assert_close(gradients["param_tau"], grad)
    twin = copy.deepcopy(neuron)
    with pytest.warns(UserWarning, match="'tau' of LIF"):
        assert torch.equal(twin(X), want)


@both
def test_values_inside_cost_no_bit_and_no_word(backend):
    neuron = LIF(tau=3.0, learnable=("tau", "v_threshold"), backend=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(neuron(X), LIF(tau=3.0, backend=backend)(X))
        with torch.no_grad():
            neuron.param_v_threshold.fill_(-2.0)  # has no range
        neuron(X)


def test_training_cannot_leave_the_range():
    torch.manual_seed(0)
    neuron = LI(tau=1.2, learnable=("tau",))
    optimizer = torch.optim.SGD(neuron.parameters(), lr=0.05)

    def train(target, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            (neuron(X) - target).square().mean().backward()
            optimizer.step()

    with pytest.warns(UserWarning, match="'tau' of LI"):
        train(4 * X, 30)  # asks for 1 / tau above 1
    assert neuron.param_tau < 0.9
    torch.testing.assert_close(neuron(X), X)  # 1 / tau = 1, no more
    with torch.no_grad():
        target = LI(tau=4.0)(X)
    train(target, 400)  # and it comes back
    assert neuron.param_tau > 1.5


# Digits.

XD = torch.rand(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3


@both
@pytest.mark.parametrize("learnable", [(), ("tau", "v_threshold")])
def test_double_goes_back_to_the_numbers_of_the_configuration(learnable, backend):
    scalar = LIF(tau=2.1, v_threshold=0.7, record=("v",), backend=backend)
    for make in (
        lambda lif: lif.double(),
        lambda lif: lif.half().float().double(),
        lambda lif: lif.to(torch.bfloat16).to(torch.float64),
        lambda lif: copy.deepcopy(lif).double(),
        lambda lif: pickle.loads(pickle.dumps(lif)).double(),
        lambda lif: lif,  # float32, with a wider input
        lambda lif: torch_nn.Sequential(lif).double()[0],
    ):
        for tau, threshold in ((2.1, 0.7), ([2.1] * 3, [0.7] * 3)):
            if not learnable and tau == 2.1:
                continue
            lif = make(LIF(tau=tau, v_threshold=threshold, learnable=learnable, record=("v",), backend=backend))
            assert torch.equal(lif(XD), scalar(XD))
            assert torch.equal(lif.recorded["v"], scalar.recorded["v"])
            assert lif.recorded["v"].abs().sum() > 0


def test_what_was_loaded_or_trained_is_not_replaced():
    lif = LIF(tau=[2.1, 3.1, 4.1], learnable=("tau",))
    with torch.no_grad():
        lif.param_tau[1] = 3.3
    wide = lif.double().param_tau
    assert wide.tolist() == [2.1, torch.tensor(3.3).item(), 4.1]
    assert wide is lif.param_tau
    loaded = LIF(tau=[2.1, 2.1])
    loaded.load_state_dict({"param_tau": torch.tensor([5.1, 2.1])})
    assert loaded.double().param_tau.tolist() == [torch.tensor(5.1).item(), 2.1]


def test_always_trained_parameters_keep_their_digits():
    assert ParametricLIF(init_tau=2.7).double().param_w.item() == ParametricLIF(init_tau=[2.7]).double().param_w.item()
    with torch.random.fork_rng():
        torch.set_default_dtype(torch.float64)
        try:
            made = ParametricLIF(init_tau=2.7).param_w.item()
        finally:
            torch.set_default_dtype(torch.float32)
    assert ParametricLIF(init_tau=2.7).double().param_w.item() == made


def test_gradients_reach_a_float32_parameter_from_a_wider_input():
    lif = LIF(tau=2.1, learnable=("tau",))
    lif(XD).sum().backward()
    wide = LIF(tau=2.1, learnable=("tau",)).double()
    wide(XD).sum().backward()
    assert lif.param_tau.grad.dtype == torch.float32
    torch.testing.assert_close(lif.param_tau.grad, wide.param_tau.grad.float())
    assert lif.param_tau.grad != 0


# Infinite input.


@both
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("surrogate", ["atan", Sigmoid(alpha=2.0)], ids=str)
@pytest.mark.parametrize("make", [IF, LIF, CubaLIF], ids=lambda make: make.__name__)
def test_a_hard_reset_recovers_from_infinity(make, surrogate, detach_reset, backend):
    options = {"v_reset": -0.25, "surrogate": surrogate, "detach_reset": detach_reset, "backend": backend}
    neuron = make(record=("v",), **options)
    x = X.clone()
    x[2, 0, 0] = torch.inf
    x.requires_grad_()
    out = neuron(x)
    v = neuron.recorded["v"]
    assert v.isfinite().all()
    assert out[2, 0, 0] == 1
    assert v[2, 0, 0] == -0.25
    if make is CubaLIF:  # its current keeps the infinity, and brings it again at every step
        assert out[2:, 0, 0].all()
        return
    # From there on it is a neuron that has just been reset.
    rest = make(**options)(X[3:])
    assert torch.equal(out[3:, 0, 0], rest[:, 0, 0])
    assert rest.any()
    out.sum().backward()
    assert x.grad.isfinite().all()
    others = make(**options)(X)
    others[:, :, 1:] -= out[:, :, 1:]
    assert not others[:, :, 1:].any()


@both
@pytest.mark.parametrize("reset_delay", [False, True])
def test_the_hard_reset_of_leaky_recovers_from_infinity(reset_delay, backend):
    options = {"beta": 0.75, "reset": "hard", "reset_delay": reset_delay, "backend": backend}
    neuron = Leaky(record=("v",), **options)
    x = X.clone()
    x[2, 0, 0] = torch.inf
    x.requires_grad_()
    out = neuron(x)
    v = neuron.recorded["v"]
    assert out[2, 0, 0] == 1
    assert v[2, 0, 0] == (torch.inf if reset_delay else 0)
    # From there on it is a neuron at rest.
    rest = Leaky(**options)(X[3:])
    assert torch.equal(out[3:, 0, 0], rest[:, 0, 0])
    assert rest[:, 0, 0].any()
    out.sum().backward()
    assert x.grad.isfinite().all()


@both
@pytest.mark.parametrize("detach_reset", [False, True])
def test_the_gradients_of_a_hard_reset_are_those_of_its_equation(detach_reset, backend):
    class Plain(LIF):
        """LIF with the reset as it is written in books."""

        @staticmethod
        def step(x, state, params):
            from spikecore.dynamics import detach, spike

            h = state.v + (x - (state.v - params.v_reset)) / params.tau
            s = spike(h - params.v_threshold, params.surrogate)
            r = detach(s) if params.detach_reset else s
            return s, {"v": (1 - r) * h + r * params.v_reset}

    options = {"tau": 1.7, "v_reset": -0.3, "detach_reset": detach_reset, "learnable": ("tau", "v_reset")}
    ours, plain = LIF(backend=backend, **options), Plain(backend=backend, **options)
    x = (X * 2).requires_grad_()
    weight = torch.arange(1.0, 7.0).reshape(6, 1, 1)
    grads = [torch.autograd.grad((neuron(x) * weight).sum(), [x, *neuron.parameters()]) for neuron in (ours, plain)]
    assert torch.equal(ours(x), plain(x))
    assert 0.1 < ours(x).mean() < 0.9
    for grad, want in zip(*grads, strict=True):
        assert torch.equal(grad, want)
        assert want.any()


def test_overflow_of_half_precision_is_survived():
    lif = LIF(step_mode="single")
    x = torch.full((2, 3), 60000.0, dtype=torch.float16) * 2  # inf
    assert lif(x).all()
    assert lif(torch.zeros(2, 3, dtype=torch.float16)).isfinite().all()
    assert (get_state(lif)[""]["v"] == 0).all()


@both
def test_nan_stays(backend):
    lif = LIF(record=("v",), backend=backend)
    x = X.clone()
    x[1, 0, 0] = torch.nan
    assert not lif(x)[1:, 0, 0].any()
    assert lif.recorded["v"][1:, 0, 0].isnan().all()


@pytest.mark.parametrize(
    ("tau", "shape", "message"),
    [
        ([2.0, 3.0], (5, 3), r"one value for each of 2 channels, the step's input is \(3,\)"),
        ([2.0, 3.0], (5, 3, 4), r"one value for each of 2 channels, the step's input is \(3, 4\)"),
        ([[2.0, 3.0]], (5, 3, 1, 4), r"one value for each neuron of a step \[B, 1, 2\]"),
    ],
)
def test_steps_without_these_channels_or_neurons_are_refused(tau, shape, message):
    with pytest.raises(ShapeError, match=message):
        LIF(tau=tau, backend="torch")(torch.ones(shape))


def test_a_parameter_that_was_replaced_by_a_longer_one_is_taken_as_it_is():
    neuron = LIF(tau=[2.1, 3.1], learnable=("tau",), backend="torch")
    neuron.param_tau = torch_nn.Parameter(torch.tensor([2.1, 3.1, 4.1]))
    x = torch.rand(6, 2, 3, dtype=torch.float64) * 3
    expected = LIF(tau=[float(value) for value in neuron.param_tau.tolist()], backend="torch").double()
    assert torch.equal(neuron(x), expected(x))
    assert neuron(x).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_bounds_of_its_own(dtype):
    """The largest number of float32 is none of half precision, and the number after 0 is another one."""
    neuron = LIF(tau=[2.0, 3.0], learnable=("tau",)).to(dtype)
    with torch.no_grad():
        neuron.param_tau[0] = 0.25
    assert option_values(neuron)["tau"] == (1.0, 3.0)
    surrogate = LIF(surrogate=Sigmoid(alpha=2.0), learnable=("surrogate.alpha",)).to(dtype)
    bounded = surrogate.within_range("surrogate_alpha", torch.tensor([-1.0, 3.0], dtype=dtype))
    assert bounded[0] == torch.nextafter(torch.tensor(0.0, dtype=dtype), torch.tensor(1.0, dtype=dtype))
    assert bounded[1] == 3.0
