"""Operations, memory accesses and energy: nets counted by hand, and counts by loops over every connection."""

import itertools

import pytest
import torch
from torch import nn as torch_nn

from spikecore import nn
from spikecore.analysis import OperationCounter, connection_sparsity, count_operations, footprint, time_layers
from spikecore.analysis.operations import ENERGY_MODELS, energy_model
from spikecore.analysis.operations.energy import access_pj
from spikecore.errors import OptionError, ShapeError, StateError


def seeded(*shape, rate=0.3, seed=0):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def test_a_net_counted_by_hand():
    """x = (1, 0.5) at 3 steps → linear 2→4 → IF → linear 4→3."""
    net = torch_nn.Sequential(torch_nn.Linear(2, 4), nn.IF(v_threshold=1.0), torch_nn.Linear(4, 3))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0], [0.0, 0.0]]))
        net[0].bias.zero_()
        net[2].weight.fill_(1.0)
        net[2].weight[0] = 0.0  # one output is connected to nothing
    operations = count_operations(net, torch.tensor([1.0, 0.5]).expand(3, 1, 2))
    first, neuron, last = operations.layers
    # 8 connections at 3 steps; 3 of them have a weight, and both inputs are there at each step.
    assert (first.macs, first.effective_macs, first.acs, first.dense) == (24, 9, 0, 24)
    # Neurons 0 and 1 fire at each step, neuron 2 at the second one, neuron 3 never.
    assert (neuron.spikes, neuron.updates, neuron.num_neurons, neuron.num_states) == (7, 12, 4, 4)
    assert neuron.rate == pytest.approx(7 / 12)
    # Each spike meets two weights that are not 0.
    assert (last.macs, last.effective_macs, last.acs, last.dense) == (0, 0, 14, 36)
    assert [layer.num_parameters for layer in operations.layers] == [12, 0, 15]
    assert operations.activation_sparsity == pytest.approx(5 / 12)
    assert operations.connection_sparsity == pytest.approx((5 + 4) / (8 + 12))
    assert operations.footprint == 4 * (12 + 15)
    assert operations.energy_pj() == pytest.approx(24 * 4.6 + 14 * 0.9)
    assert operations.energy_pj("horowitz-int8") == pytest.approx(24 * 0.23 + 14 * 0.03)
    # Memory: a MAC reads a weight and an input; a spike is read once, and each AC reads and writes a sum.
    assert {name: (access.reads, access.writes) for name, access in first.memory.items()} == {
        "weights": (24, 0),
        "inputs": (24, 0),
        "outputs": (0, 12),
    }
    assert {name: (access.reads, access.writes) for name, access in last.memory.items()} == {
        "weights": (14, 0),
        "inputs": (7, 0),
        "outputs": (14, 14),
    }
    assert {name: (access.reads, access.writes) for name, access in neuron.memory.items()} == {"state": (12, 12)}


def test_attention_is_counted_where_torch_would_fuse_it():
    """In evaluation mode torch has one operator for all of it, which holds 2112 products that nobody sees."""
    net = torch_nn.Sequential(torch_nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    is_allowed = torch.backends.mha.get_fastpath_enabled()
    operations = count_operations(net, torch.rand(3, 6, 8), has_time=False)
    # Of 6 tokens: projections to query, key and value, and of the result; scores and mixture of 2 heads.
    assert operations["0.self_attn"].dense == 6 * 8 * 24 + 6 * 8 * 8 + 2 * (2 * 6 * 6 * 4)
    assert operations["0.linear1"].dense == 6 * 8 * 16
    assert torch.backends.mha.get_fastpath_enabled() is is_allowed is True


def by_loops(x, weight, stride, padding, dilation, groups, out_size):
    """Every connection of a 2-d convolution, one at a time: all of them, and those without a zero."""
    num, per_group_out = 0, weight.shape[0] // groups
    dense = 0
    for n, out in itertools.product(range(len(x)), range(weight.shape[0])):
        group = out // per_group_out
        for row, column in itertools.product(range(out_size[0]), range(out_size[1])):
            for channel, i, j in itertools.product(*map(range, weight.shape[1:])):
                at_row = row * stride[0] - padding[0] + i * dilation[0]
                at_column = column * stride[1] - padding[1] + j * dilation[1]
                if not (0 <= at_row < x.shape[2] and 0 <= at_column < x.shape[3]):
                    continue
                dense += 1
                source = x[n, group * weight.shape[1] + channel, at_row, at_column]
                num += bool(source != 0 and weight[out, channel, i, j] != 0)
    return dense, num


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [((1, 1), (0, 0), (1, 1), 1), ((2, 1), (1, 2), (1, 2), 2), ((3, 2), (2, 0), (2, 1), 4)],
)
def test_convolutions_are_counted_by_connection(stride, padding, dilation, groups):
    layer = nn.Conv2d(4, 8, 3, stride=stride, padding=padding, dilation=dilation, groups=groups)
    with torch.no_grad():
        layer.weight *= seeded(*layer.weight.shape, rate=0.6, seed=3)
    x = seeded(2, 2, 4, 7, 6)
    operations = count_operations(layer, x)["net"]
    dense, num = by_loops(x.flatten(0, 1), layer.weight, stride, padding, dilation, groups, layer(x).shape[-2:])
    assert 0 < num < dense
    assert (operations.acs, operations.dense, operations.macs) == (num / 2, dense / 2, 0)
    analog = count_operations(layer, x * 0.7)["net"]
    assert (analog.macs, analog.effective_macs, analog.acs) == (dense / 2, num / 2, 0)


@pytest.mark.parametrize(
    "layer", [torch_nn.ConvTranspose2d(3, 4, 3, stride=2), torch_nn.ConvTranspose2d(3, 6, 2, groups=3)]
)
def test_a_transposed_convolution_gives_each_input_its_whole_kernel(layer):
    x = seeded(1, 2, 3, 4, 5)
    operations = count_operations(nn.fold_time(layer), x).products[0]
    assert operations.acs == float(x.sum()) / 2 * layer.weight[0].numel()


def test_products_without_a_module_are_counted_too():
    """Attention without softmax: q kᵀ of spikes is accumulated, its product with v too, since v is spikes."""

    class Attention(torch_nn.Module):
        def forward(self, q, k, v):
            return (q @ k.transpose(-1, -2)) @ v

    q, k, v = (seeded(1, 3, 5, 4, seed=seed)[0] for seed in range(3))
    with OperationCounter(Attention()) as counter:
        counter.net(q, k, v)
    (layer,) = counter.operations(num_samples=3).layers
    scores = q @ k.transpose(-1, -2)
    first = torch.einsum("bik,bjk->", q, k)
    second = torch.einsum("bij,bjk->", (scores != 0).float(), v)
    assert layer.acs == pytest.approx(float(first + second) / 3)
    assert layer.macs == 0
    with OperationCounter(Attention()) as counter:
        counter.net(q * 0.3, k * 0.3, v * 0.3)
    (layer,) = counter.operations(num_samples=3).layers
    assert layer.macs == 5 * 5 * 4 * 2
    assert layer.effective_macs == pytest.approx(float(first + second) / 3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rank", [2, 3])
def test_linear_layers_with_binary_weights_still_multiply_analog_inputs(bias, rank):
    layer = torch_nn.Linear(5, 3, bias=bias)
    torch_nn.init.ones_(layer.weight)
    x = torch.rand(*[2, 4, 5][3 - rank :], generator=torch.Generator().manual_seed(0)) + 0.1
    net = torch_nn.Sequential(layer)
    with OperationCounter(net) as counter:
        net(x)
    assert counter.operations(x.numel() // 5).total("macs") == 15


class Ternary(torch_nn.Module):
    """The signs of weights."""

    def forward(self, weight):
        return weight.sign()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rank", [2, 3])
def test_so_do_layers_whose_ternary_weights_are_computed(bias, rank):
    layer = torch_nn.Linear(5, 3, bias=bias)
    torch_nn.utils.parametrize.register_parametrization(layer, "weight", Ternary())
    x = torch.rand(*[2, 4, 5][3 - rank :], generator=torch.Generator().manual_seed(0)) + 0.1
    for given, multiplies in ((x, True), ((x > 0.5).float(), False)):
        with OperationCounter(layer) as counter:
            layer(given)
        counted = counter.operations(x.numel() // 5)
        assert counted.total("macs") == 15 * multiplies
        assert (counted.total("acs") > 0) == (not multiplies)


def test_blocks_recurrence_and_single_steps():
    block = nn.ConvBNNeuron(torch_nn.Conv2d(2, 3, 3), torch_nn.BatchNorm2d(3), nn.LIF(tau=1.1)).eval()
    block.norm.running_var.fill_(0.01)
    x = seeded(4, 2, 2, 6, 6)
    spikes = block(x)
    assert 0.05 < spikes.mean().item() < 0.9
    operations = count_operations(block, x)
    assert operations["conv"].dense == 4 * 3 * 16 * 18
    assert operations["neuron"].spikes == float(spikes.sum()) / 2
    nn.set_step_mode(block, "single")
    alone = count_operations(block, x)
    assert alone["conv"].acs == operations["conv"].acs
    assert alone["neuron"].spikes == operations["neuron"].spikes
    lateral = nn.LateralRecurrent(nn.IF(), 5)
    counted = count_operations(lateral, torch.ones(3, 2, 5))
    assert counted["lateral"].dense == 3 * 25
    assert counted["lateral"].acs > 0


def test_the_artificial_net_of_the_same_shape():
    net = torch_nn.Sequential(torch_nn.Linear(4, 6), nn.ReLU(), torch_nn.Linear(6, 2))
    operations = count_operations(net, torch.randn(1, 3, 4))
    assert operations.total("macs") == 4 * 6 + 6 * 2
    assert operations.total("spikes") == 0
    assert 0.2 < operations.activation_sparsity < 0.8
    assert count_operations(net, torch.randn(3, 4), has_time=False).total("macs") == 36


def test_nothing_about_the_net_changes():
    net = torch_nn.Sequential(torch_nn.Linear(2, 3), torch_nn.BatchNorm1d(3), nn.LIF(step_mode="single"))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    count_operations(net, torch.rand(4, 3, 2))
    assert net.training
    assert not net[0]._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_memory_costs_by_size():
    assert access_pj(8 * 1024 / 4) == 10
    assert access_pj(20 * 1024 / 4) == 15
    assert access_pj(1024 * 1024 / 4) == 100
    assert access_pj(2 * 1024 * 1024 / 4) > 150
    layer = torch_nn.Linear(2, 2, bias=False)
    operations = count_operations(layer, torch.full((1, 1, 2), 0.5))
    assert [round(access_pj(size), 6) for size in (2, 4)] == [0.009766, 0.019531]
    # 4 MACs read 4 weights of 4 and 4 inputs of 2, and write 2 outputs of 2.
    wanted = 4 * 3.2 + 4 * access_pj(4) + 4 * access_pj(2) + 2 * access_pj(2)
    assert operations.energy_pj("lemaire-int32") == pytest.approx(wanted)
    assert {name: (model.mac_pj, model.ac_pj) for name, model in ENERGY_MODELS.items()} == {
        "horowitz-fp32": (4.6, 0.9),
        "horowitz-fp16": (1.5, 0.4),
        "horowitz-int8": (0.23, 0.03),
        "lemaire-int32": (3.2, 0.1),
    }


def test_a_layer_may_be_told_to_take_spikes():
    """A threshold of 0.5 makes spikes of 0.5 in a converted net: the amplitude belongs to the weights."""
    net = torch_nn.Sequential(torch_nn.Linear(4, 3))
    x = seeded(2, 4) * 0.5
    with OperationCounter(net, is_spikes=lambda layer, by_value: layer == "0") as counter:
        net(x)
    assert counter.operations(2).total("acs") == float((x != 0).sum()) * 3 / 2


def test_fused_recurrent_layers_are_named_or_counted():
    lstm = torch_nn.LSTM(3, 4)
    operations = count_operations(lstm, torch.rand(2, 2, 3))
    counted = operations.total("macs") == 2 * 4 * 4 * (3 + 4)
    assert counted or operations.uncounted


def test_times_and_table():
    net = torch_nn.Sequential(nn.fold_time(torch_nn.Sequential(torch_nn.Linear(3, 4))), nn.LIF())
    times = time_layers(net, torch.rand(5, 2, 3), num_calls=2)
    assert set(times) == {"0", "1"}
    assert all(seconds > 0 for seconds in times.values())
    operations = count_operations(net, torch.rand(5, 2, 3)).with_times(times)
    assert [layer.name for layer in operations.layers] == ["0", "0.module.0", "1"]
    text = operations.table()
    assert "0.module.0  Linear" in text
    assert text.splitlines()[-1].startswith("all")


def test_errors():
    net = torch_nn.Linear(2, 2)
    with pytest.raises(ShapeError, match="T and B at least 1"):
        count_operations(net, torch.zeros(0, 1, 2))
    with pytest.raises(OptionError, match="horowitz-fp32"):
        energy_model("free lunch")
    with pytest.raises(OptionError, match="there are net"):
        count_operations(net, torch.ones(1, 1, 2))["conv"]
    counter = OperationCounter(net)
    with counter, pytest.raises(StateError, match="already counting"), counter:
        pass
    assert connection_sparsity(torch_nn.Identity()) == 0
    assert footprint(torch_nn.BatchNorm1d(2)) == 4 * 2 * 4 + 8
