"""Checkpointing and packed spikes: the same bits, running statistics moved once, and refusals with the reason.

The tensors that autograd saves are watched, so that a tool that keeps everything would not pass.
"""

import copy

import pytest
import torch
from torch import nn as torch_nn
from torch.autograd.graph import saved_tensors_hooks

from spikecore import nn
from spikecore.backends import packing
from spikecore.errors import OptionError, StateError
from spikecore.nn import checkpoint_layers, checkpoint_time, packed_spikes, run_all, streaming
from spikecore.testing.threads import at_once


class Residual(torch_nn.Module):
    """A block outside of a chain."""

    def __init__(self):
        super().__init__()
        self.block = nn.ConvBNNeuron(torch_nn.Conv2d(8, 8, 3, padding=1), torch_nn.BatchNorm2d(8), nn.LIF(tau=1.2))

    def forward(self, x):
        return x + self.block(x)


def make(**neuron):
    torch.manual_seed(0)
    first = torch_nn.Sequential(torch_nn.Conv2d(2, 8, 3, padding=1, bias=False), torch_nn.BatchNorm2d(8, momentum=None))
    net = torch_nn.Sequential(
        nn.fold_time(first),
        nn.LIF(tau=1.2, **neuron),
        nn.Dropout(0.3),
        Residual(),
        nn.fold_time(torch_nn.Sequential(torch_nn.MaxPool2d(2), torch_nn.Conv2d(8, 4, 3), torch_nn.BatchNorm2d(4))),
        nn.CubaLIF(**neuron),
        torch_nn.Flatten(2),
        nn.Linear(16, 3),
    )
    with torch.no_grad():
        net[-1].weight *= 5
    return net


X = torch.rand(6, 3, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 2


def trained(net, packs=False, x=X):
    """Two steps of training: outputs, gradients and buffers; the bytes that were saved by the first."""
    torch.manual_seed(5)
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    outs = []
    for _ in range(2):
        context = packed_spikes() if packs else saved_tensors_hooks(pack, lambda tensor: tensor)
        with context:
            out = net(x)
            loss = out.square().sum()
        loss.backward()
        outs.append(out.detach().clone())
    grads = [parameter.grad.clone() for parameter in net.parameters()]
    assert all(bool(grad.any()) for grad in grads[:-1])
    return [*outs, *grads, *(buffer.clone() for buffer in net.buffers())], sum(saved.values())


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_checkpointed_layers_give_the_same_bits(packs, backend):
    right, whole = trained(make(backend=backend))
    net = make(backend=backend)
    told = checkpoint_layers(net)
    assert told == ("[0:3]", "[3:4]", "[4:7]", "[7:8]")
    given, kept = trained(net, packs)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(given, right, strict=True))
    assert net[0].module[1].num_batches_tracked == 2  # not 4
    if not packs and backend == "torch":
        assert kept < whole / 3


def test_a_graph_that_is_kept_goes_backward_again():
    right, net = make(), make()
    checkpoint_layers(net)
    for each in (right, net):
        torch.manual_seed(5)
        out = each(X)
        out.sum().backward(retain_graph=True)
        (3 * out).sum().backward()
    for ours, theirs in zip(net.parameters(), right.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert net[0].module[1].num_batches_tracked == 1  # not 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: net])
def test_copies_run_their_own_parts(copied):
    net = make()
    checkpoint_layers(net)
    twin = copied(net)
    assert set(twin.state_dict()) == set(make().state_dict())
    with torch.no_grad():
        twin[7].bias += 1
    right, _ = trained(make())
    given, _ = trained(twin)
    torch.testing.assert_close(given[0] - right[0], torch.ones_like(right[0]))
    run_all(net)
    assert all("forward" not in vars(module) for module in net.modules())


def test_parts_that_are_named():
    net = make()
    assert checkpoint_layers(net, names=["3.block", "5"]) == ("3.block", "5")
    right, _ = trained(make())
    given, _ = trained(net)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(given, right, strict=True))
    with pytest.raises(OptionError, match="no module '9'"):
        checkpoint_layers(net, names=["9"])
    with pytest.raises(OptionError, match="inside another"):
        checkpoint_layers(net, names=["3", "3.block"])
    with pytest.raises(OptionError, match="no neurons"):
        checkpoint_layers(torch_nn.Linear(2, 2))


def test_a_part_at_two_places_of_a_chain_runs_at_both():
    def chain():
        torch.manual_seed(0)
        lif = nn.LIF(tau=1.2, v_threshold=0.3)
        return torch_nn.Sequential(nn.Linear(5, 9), lif, nn.Linear(9, 9), lif, nn.Linear(9, 4), lif)

    x = torch.rand(6, 3, 5, generator=torch.Generator().manual_seed(1)) * 4
    right, net = chain()(x), chain()
    assert 0 < right.mean() < 1
    assert checkpoint_layers(net) == ("[0:2]", "[2:4]", "[4:6]")
    out = net(x)
    assert torch.equal(out, right)
    out.sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in net.parameters())


def test_a_chain_that_grew_is_cut_again():
    net = make()
    checkpoint_layers(net)
    net.append(nn.LIF(tau=1.2))
    with pytest.raises(StateError, match="a chain of 8 parts, and it has 9 now: call checkpoint_layers"):
        net(X)
    assert checkpoint_layers(net)[-1] == "[7:9]"
    assert set(net(X).unique().tolist()) <= {0.0, 1.0}


def test_the_net_itself_and_a_part_of_it_are_refused():
    with pytest.raises(OptionError, match="'3' is inside another module that is named"):
        checkpoint_layers(make(), names=["", "3"])


def test_without_a_gradient_nothing_runs_twice():
    net = make().eval()
    checkpoint_layers(net)
    calls = []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        net(X)
    assert len(calls) == 1
    net(X).sum().backward()
    assert len(calls) == 3


def test_a_streamed_sequence_is_refused_in_its_backward_pass():
    net = make()
    checkpoint_layers(net)
    with streaming(net):
        loss = net(X).sum()
    with pytest.raises(StateError, match="activation checkpointing"):
        loss.backward()


@pytest.mark.parametrize("chunks", [1, 2, 4, 9])
def test_chunks_of_time(chunks):
    def small():
        torch.manual_seed(0)
        net = torch_nn.Sequential(nn.Linear(5, 9), nn.LIF(tau=1.2), nn.LinearRecurrent(nn.LIF(tau=1.3), 9, 9))
        with torch.no_grad():
            net[2].linear.weight *= 6
        return net

    x = torch.rand(9, 4, 5, generator=torch.Generator().manual_seed(1)) * 4

    def gradients(net):
        given = x.clone().requires_grad_()
        out = net(given)
        assert 0.02 < float((out.detach() != 0).float().mean()) < 0.98
        out.square().sum().backward()
        return out.detach(), [given.grad, *(parameter.grad for parameter in net.parameters())]

    right_out, right = gradients(small())
    net = small()
    checkpoint_time(net, chunks)
    for _ in range(2):
        net.zero_grad()
        out, given = gradients(net)
        assert torch.equal(out, right_out)
        for ours, theirs in zip(given, right, strict=True):
            torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        assert torch.equal(net(x), right_out)
    neuron = nn.LIF(tau=1.2, backend="torch")
    wanted, wanted_grad = gradients(nn.LIF(tau=1.2, backend="torch"))
    checkpoint_time(neuron, chunks)
    assert torch.equal(gradients(neuron)[0], wanted)
    assert torch.equal(gradients(neuron)[1][0], wanted_grad[0])


def test_chunks_of_time_in_several_threads():
    torch.manual_seed(0)
    net = torch_nn.Sequential(nn.Linear(5, 9), nn.LIF(tau=1.2, v_threshold=0.4))
    inputs = [torch.rand(6, 2 + seed, 5, generator=torch.Generator().manual_seed(seed)) * 4 for seed in range(3)]

    def gradients(x):
        given = x.clone().requires_grad_()
        out = net(given)
        return [out.detach(), torch.autograd.grad(out.square().sum(), given)[0]]

    right = [gradients(x) for x in inputs]
    assert all(0 < out.mean() < 1 for out, _ in right)
    checkpoint_time(net, 3)

    def checked(x, wanted):
        def call():
            for ours, theirs in zip(gradients(x), wanted, strict=True):
                torch.testing.assert_close(ours, theirs)

        return call

    at_once([checked(x, wanted) for x, wanted in zip(inputs, right, strict=True)], num_calls=5)


def test_chunks_of_time_are_refused_where_samples_are_coupled():
    net = make()
    checkpoint_time(net, 2)
    with pytest.raises(StateError, match=r"'0\.module\.1'.*statistics.*checkpoint_layers"):
        net(X)
    net.eval()
    net(X).sum().backward()
    with pytest.raises(OptionError, match="at least one chunk"):
        checkpoint_time(net, 0)


def spikes(*shape, seed=0, dtype=torch.float32):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.3).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1025,), (3, 5, 7, 11), (2, 8, 64)])
def test_bits_give_back_values_layout_and_dtype(shape, dtype):
    x = spikes(*shape, dtype=dtype)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    packed = packing.pack_spikes(x)
    again = packed.floats()
    assert torch.equal(again, x)
    assert (again.dtype, again.stride()) == (x.dtype, x.stride())
    assert packed.bits.numel() == -(-x.numel() // 8)
    assert packing.pack_spikes(x) is packed  # of one tensor, once


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan"), float("inf")])
def test_other_values_are_kept_as_they_are(value):
    x = spikes(2000)
    x[1999] = value
    assert packing.pack_spikes(x) is None


def test_what_cannot_be_packed_is_kept():
    assert packing.pack_spikes(spikes(1, 50).expand(100, 50)) is None
    assert packing.pack_spikes(spikes(4000)[::2]) is None
    assert packing.pack_spikes(spikes(10)) is None
    assert packing.pack_spikes(spikes(2000).long()) is None
    assert packing.pack_spikes(torch_nn.Parameter(torch.ones(2000))) is None


def test_memory_that_is_used_again_is_not_taken_for_what_it_held():
    """Marking by address would give the bits of a tensor that has died, or has been written to."""
    kept = []
    for seed in range(30):
        x = spikes(4096, seed=seed)
        packed = packing.pack_spikes(x)
        kept.append(packed)
        assert torch.equal(packed.floats(), x)
        x[seed] = 1 - x[seed]
        assert torch.equal(packing.pack_spikes(x).floats(), x)
        view = x[1024:]
        assert torch.equal(packing.pack_spikes(view).floats(), view)
        del x, view  # the next one gets this memory
    assert len({bool(packed.bits.any()) for packed in kept}) == 1


def test_saved_spikes_are_bits_and_their_gradients_are_the_same():
    weight = torch.randn(7, 64, requires_grad=True)
    x = spikes(50, 64)
    (x @ weight.t()).square().sum().backward()
    right, weight.grad = weight.grad.clone(), None
    with packed_spikes():
        loss = (x @ weight.t()).square().sum()
    x.fill_(9.0)  # the bits are those at the moment of saving
    loss.backward()
    assert torch.equal(weight.grad, right)


def test_packed_spikes_that_were_written_to_and_are_read_through_data():
    weight = torch.randn(2000, requires_grad=True)
    with packed_spikes():
        x = (torch.rand(2000, generator=torch.Generator().manual_seed(0)) < 0.3).float()
        first = weight * x  # keeps the bits of x alive
        x.fill_(1)
        second = weight * x.data
    assert torch.equal(torch.autograd.grad(second.sum(), weight)[0], torch.ones(2000))
    assert first.requires_grad
