"""What a neuron costs, in operations of torch: those of the loop by hand, and nothing per step besides."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spikecore.backends import front
from spikecore.backends.reference import TorchBackend
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.nn import IF, LI, LIF, CubaLIF, NonSpikingIF, ParametricLIF, reset_state, streaming
from spikecore.registry import Blocking, Registry, use


class Count(TorchDispatchMode):
    """The operations that reach a kernel, in order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket._qualified_op_name.partition("::")[2])
        return function(*args, **(kwargs or {}))


def operations(call):
    """Names of the operations of one call."""
    with Count() as count:
        call()
    return count.names


SPIKE, HARD = ["ge", "_to_copy"], ["clamp_max", "rsub", "mul", "mul", "add"]
BY_HAND = {
    IF: ["add", "sub", *SPIKE, *HARD],
    LIF: ["sub", "sub", "div", "add", "sub", *SPIKE, *HARD],
    ParametricLIF: ["sub", "sigmoid", "sub", "mul", "add", "sub", *SPIKE, *HARD],
    CubaLIF: ["mul", "add", "mul", "add", "sub", *SPIKE, *HARD],
    NonSpikingIF: ["add"],
    LI: ["sub", "div", "add"],
}


@pytest.mark.parametrize("make", BY_HAND)
@pytest.mark.parametrize("wants_gradient", [True, False])
def test_a_step_is_the_operations_of_its_equations(make, wants_gradient):
    neuron = make(backend="torch")

    def ran(num_steps):
        x = torch.rand(num_steps, 2, 3, requires_grad=wants_gradient)
        with torch.set_grad_enabled(wants_gradient):
            names = operations(lambda: neuron(x))
        return [name for name in names if name != "detach"]  # autograd's own, of a result that it saves

    start = ["select", *["full"] * len(neuron.state), "unbind"]
    assert ran(5) == [*start, *BY_HAND[make] * 5, "stack"]
    assert ran(9) == [*start, *BY_HAND[make] * 9, "stack"]


@pytest.mark.parametrize("make", BY_HAND)
def test_a_single_step_adds_nothing_while_state_is_kept(make):
    neuron, x = make(backend="torch", step_mode="single"), torch.rand(2, 3)
    with torch.no_grad():
        neuron(x)
        names = operations(lambda: neuron(x))
    assert names == BY_HAND[make] + (["clone"] if make in (NonSpikingIF, LI) else [])  # the output is the state itself


def test_the_backward_pass_is_as_long_as_its_steps():
    lif = LIF(backend="torch")

    def ran(num_steps):
        loss = lif(torch.rand(num_steps, 2, 3, requires_grad=True)).sum()
        return len(operations(loss.backward))

    assert ran(40) - ran(20) == 2 * (ran(20) - ran(10))


class Asked(TorchBackend):
    """Counts what it is asked."""

    capabilities = BackendCapabilities(priority=5)

    def __init__(self):
        super().__init__()
        self.supported = self.learned = 0

    def supports(self, *arguments):
        self.supported += 1
        return super().supports(*arguments)

    def learn(self, program):
        self.learned += 1
        super().learn(program)


def test_a_backend_is_chosen_once_per_kind_of_input(monkeypatch):
    registry = Registry(path=(), builtins=True, blocking=Blocking())
    registry.register("backend", "asked", Asked)
    with use(registry):
        from spikecore.backends.selection import backend_named

        lif, backend = LIF(step_mode="single"), backend_named("asked")
        for dtype in (torch.float32, torch.float64) * 3:
            reset_state(lif)
            lif(torch.rand(2, 3, dtype=dtype))
        assert (backend.supported, backend.learned) == (2, 2)
        monkeypatch.setattr(LIF, "program", lambda *_: pytest.fail("traced again"))
        lif(torch.rand(2, 3, dtype=torch.float64))
        lif.record = ("v",)
        with pytest.raises(BaseException, match="traced again"):
            lif(torch.rand(2, 3, dtype=torch.float64))


def test_an_operator_backend_gets_two_views_and_no_more(monkeypatch):
    registry = Registry(path=(), builtins=True, blocking=Blocking())
    registry.register("backend", "asked", Asked)
    with use(registry), torch.no_grad():
        lif, x = LIF(step_mode="single"), torch.rand(2, 3)
        lif(x)
        v = torch.zeros(2, 3)
        monkeypatch.setattr(front, "is_plain", lambda *_: True)
        monkeypatch.setattr(Asked, "run", lambda *_: (x[None], [v], [], []))
        assert operations(lambda: lif(x)) == ["unsqueeze", "unsqueeze", "select"]  # the first one is the stand-in's


def test_streaming_checks_the_state_without_making_one():
    lif, x = LIF(backend="torch"), torch.rand(3, 2, 3)
    with streaming(lif), torch.no_grad():
        lif(x)
        lif(x)
        assert "full" not in operations(lambda: lif(x))
