"""Activation checkpointing of nets with state: right gradients, or an error that names the cure. In both variants of
torch's checkpoint, with the backward pass in the caller's thread and in another one, which sees no state of the caller.
"""

import threading

import pytest
import torch
from torch import nn as torch_nn
from torch.utils.checkpoint import checkpoint

from spikecore import nn
from spikecore.errors import StateError
from spikecore.nn import functional, reset_state, set_step_mode, streaming

CURE = r"functional\(net\).*use_reentrant=False"
pytestmark = [
    pytest.mark.parametrize("use_reentrant", [False, True], ids=["saved tensors", "reentrant"]),
    pytest.mark.parametrize("thread", [False, True], ids=["same thread", "another thread"]),
]


class Memory(nn.Stateful):
    """A state without a graph, which the backward pass reads all the same: out = x * what came before."""

    def initial_state(self, x):
        return {"last": torch.ones_like(x)}

    def forward(self, x):
        multi = self.step_mode == "multi"
        out = x * self.state_for(x[0] if multi else x)["last"]
        (out,) = self.keep({"last": (x[-1] if multi else x).detach()}, out)
        return out


NETS = {
    "lif": lambda: nn.LIF(backend="torch"),
    "lif on auto": lambda: nn.LIF(),
    "cuba": lambda: torch_nn.Sequential(nn.CubaLIF(), torch_nn.Linear(6, 6)),
    "recurrent": lambda: nn.LinearRecurrent(nn.LIF(), 6, 6),
    "memory": Memory,
}
X = torch.rand(6, 2, 8, generator=torch.Generator().manual_seed(0)) * 3


def net_of(name):
    torch.manual_seed(0)
    return torch_nn.Sequential(torch_nn.Linear(8, 6), NETS[name](), torch_nn.Linear(6, 3))


def backward(loss, thread):
    """The backward pass, here or in another thread; its error comes out here."""
    errors = []

    def run():
        try:
            loss.backward()
        except Exception as error:
            errors.append(error)

    if thread:
        worker = threading.Thread(target=run)
        worker.start()
        worker.join()
    else:
        run()
    if errors:
        raise errors[0]


def gradient(net, call, pieces, thread=False):
    net.zero_grad()
    loss = sum((call(x.clone().requires_grad_()) * (number + 1)).sum() for number, x in enumerate(pieces))
    backward(loss, thread)
    return net[0].weight.grad.clone()


@pytest.mark.parametrize("name", NETS)
def test_single_steps_are_refused(name, use_reentrant, thread):
    net = net_of(name)
    set_step_mode(net, "single")
    assert gradient(net, net, X).any()
    reset_state(net)
    with pytest.raises(StateError, match=CURE):
        gradient(net, lambda x: checkpoint(net, x, use_reentrant=use_reentrant), X, thread)


@pytest.mark.parametrize("closed", [False, True], ids=["inside", "after"])
@pytest.mark.parametrize("name", NETS)
def test_streaming_is_refused_also_after_the_block_has_closed(name, closed, use_reentrant, thread):
    net = net_of(name)
    with streaming(net):
        loss = sum(checkpoint(net, x.clone().requires_grad_(), use_reentrant=use_reentrant).sum() for x in X.split(2))
        if not closed:
            with pytest.raises(StateError, match=CURE):
                backward(loss, thread)
    if closed:
        with pytest.raises(StateError, match=CURE):
            backward(loss, thread)


@pytest.mark.parametrize("name", NETS)
def test_whole_sequences_are_right_whatever_was_streamed_before(name, use_reentrant, thread):
    net = net_of(name)
    want = gradient(net, net, [X, X * 0.5])
    with streaming(net):
        gradient(net, net, X.split(2))
    step, init_state = functional(net)
    step(dict(net.named_parameters()), X, init_state(X))[0].sum().backward()
    given = gradient(net, lambda x: checkpoint(net, x, use_reentrant=use_reentrant), [X, X * 0.5], thread)
    torch.testing.assert_close(given, want)
    assert want.any()


@pytest.mark.parametrize("mode", ["single", "multi"])
@pytest.mark.parametrize("name", NETS)
def test_the_functional_form_is_right_or_refused(name, mode, use_reentrant, thread):
    net = net_of(name)
    set_step_mode(net, mode)
    pieces = X if mode == "single" else X.split(2)
    step, init_state = functional(net)
    params = dict(net.named_parameters())

    def explicit(call):
        state = init_state(pieces[0])

        def run(x):
            nonlocal state
            out, state = call(params, x, state)
            return out

        return run

    want = gradient(net, explicit(step), pieces)
    through_checkpoint = explicit(lambda *given: checkpoint(step, *given, use_reentrant=use_reentrant))
    if use_reentrant:
        with pytest.raises(StateError, match=r"use_reentrant=True.*gradient.*use_reentrant=False"):
            gradient(net, through_checkpoint, pieces, thread)
    else:
        torch.testing.assert_close(gradient(net, through_checkpoint, pieces, thread), want)


class Checkpointed(torch_nn.Module):
    """A part that checkpoints itself, inside of a call that holds its state."""

    def __init__(self, use_reentrant):
        super().__init__()
        self.body = torch_nn.Sequential(torch_nn.Linear(6, 6), nn.LIF(), torch_nn.Linear(6, 6))
        self.use_reentrant = use_reentrant

    def forward(self, x):
        return checkpoint(self.body, x, use_reentrant=self.use_reentrant)


def test_a_checkpoint_inside_of_a_container_or_a_step_is_refused(use_reentrant, thread):
    part = Checkpointed(use_reentrant)
    x = torch.rand(4, 2, 6, requires_grad=True)
    loss = nn.ElementwiseRecurrent(part)(x).sum()
    with pytest.raises(StateError, match=CURE):
        backward(loss, thread)
    part = Checkpointed(use_reentrant)
    step, init_state = functional(part)
    params = dict(part.named_parameters())
    state, loss = init_state(x), 0.0
    for piece in (x, x):
        out, state = step(params, piece, state)
        loss = loss + out.sum()
    with pytest.raises(StateError, match=CURE):
        backward(loss, thread)


def test_a_state_that_reaches_the_checkpoint_as_a_tensor_is_right(use_reentrant, thread):
    net = net_of("lif")
    set_step_mode(net, "single")
    step, _ = functional(net)
    params = dict(net.named_parameters())

    def flat(x, v):
        out, state = step(params, x, {"1": {"v": v}})
        return out, state["1"]["v"]

    def run(call):
        v = torch.zeros(2, 6, requires_grad=True)

        def one(x):
            nonlocal v
            out, v = call(x, v)
            return out

        return one

    want = gradient(net, run(flat), X)
    given = gradient(net, run(lambda x, v: checkpoint(flat, x, v, use_reentrant=use_reentrant)), X, thread)
    torch.testing.assert_close(given, want)
