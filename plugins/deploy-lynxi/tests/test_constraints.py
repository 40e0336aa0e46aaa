"""What the chip does not take is refused with reason and cure; what is written keeps to its limits."""

import pytest
import torch
from lynxi_nets import exported, inputs, small_net

from spikecore import nn
from spikecore.analysis import record_spikes
from spikecore.errors import ConversionError
from spikecore.testing.small_nets import settle_weights
from spikecore_deploy_lynxi import Lynxi


def refused(net, x):
    records = Lynxi().check(net, x)
    return [record for record in records if record.outcome == "refused"]


LAYERS = [
    (torch.nn.GELU(), (4,), "GELU"),
    (nn.Conv3d(1, 1, 3), (1, 3, 3, 3), "5 axes"),
    (nn.IF(backend="torch"), (1, 3, 3, 3), "5 axes"),
    (nn.MaxPool2d(2, ceil_mode=True), (1, 4, 4), "ceil_mode"),
    (nn.AdaptiveAvgPool2d(3), (1, 4, 4), "differ in size"),
    (nn.Conv2d(1, 1, 2, padding="same"), (1, 4, 4), "one side"),
    (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), (1, 4, 4), "circular"),
    (torch.nn.BatchNorm1d(4, track_running_stats=False), (4,), "running statistics"),
]


@pytest.mark.parametrize(("layer", "shape", "word"), LAYERS)
def test_layers(tmp_path, layer, shape, word):
    net = torch.nn.Sequential(nn.FoldTime(layer) if isinstance(layer, torch.nn.BatchNorm1d) else layer).eval()
    (record,) = refused(net, inputs(shape))
    assert word in record.reason
    assert len(record.cure) > 10
    with pytest.raises(ConversionError, match=word):
        exported(net, inputs(shape), tmp_path)
    assert not list(tmp_path.iterdir())


class Calls(torch.nn.Module):
    """A function as a net."""

    def __init__(self, function):
        super().__init__()
        self.function, self.linear, self.neuron = function, torch.nn.Linear(4, 4), nn.IF(backend="torch")

    def forward(self, x):
        return self.function(self, x)


def dynamic(net, x):
    return torch.masked_select(net.linear(x), x > 0)


def overwritten(net, x):
    y = net.linear(x)
    z = y.relu_()
    return y + net.neuron(z)


def overwritten_view(net, x):
    y = net.linear(x)
    z = y.flatten(2).relu_()
    return y + net.neuron(z)


def twice_a_view(net, x):
    y = net.linear(x).flatten(2)
    y += x
    return net.neuron(y)


def two_results(net, x):
    return net.linear(x), x


def scaled(net, x):
    return net.neuron(x * 2.0)


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (dynamic, "depends on values"),
        (overwritten, "writes into"),
        (overwritten_view, "writes into"),
        (two_results, "one value"),
        (scaled, "is a number"),
    ],
)
def test_functions(tmp_path, function, word):
    net, x = Calls(function).eval(), inputs((4,))
    assert any(word in record.reason for record in refused(net, x))
    with pytest.raises(ConversionError, match=word):
        exported(net, x, tmp_path)


def test_writing_that_nobody_reads_becomes_a_value(tmp_path):
    """`y += x` on a tensor of its own is y + x; no operator of the script writes."""
    net, x = settle_weights(Calls(twice_a_view)), inputs((4,))
    out, spikes = record_spikes(net, x)
    assert 0.1 < spikes["neuron"].mean() < 0.9
    artefact = exported(net, x, tmp_path)
    assert torch.equal(Lynxi().simulate(artefact, x), out)
    script = torch.jit.load(artefact.path / "net.pt")
    kinds = {node.kind() for node in script.inlined_graph.nodes()}
    assert not [kind for kind in kinds if kind.endswith("_")]
    assert not kinds & {"prim::Loop", "prim::If", "aten::copy_", "aten::index_put_", "aten::size"}


def test_no_tensor_has_more_than_four_axes(tmp_path):
    """As eager torch sees it: every result of every operator, with T, B, C, H and W."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from spikecore_deploy_lynxi.planning import planned
    from spikecore_deploy_lynxi.straight import Straight

    net = torch.nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.LIF(tau=3.0, backend="torch"), nn.MaxPool2d(2), nn.IF(backend="torch")
    ).eval()
    x = inputs((2, 4, 4))
    ranks, shapes = set(), set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves((args, out)):
                if isinstance(tensor, torch.Tensor):
                    ranks.add(tensor.dim())
                    shapes.add(tuple(tensor.shape))
            return out

    straight = Straight(planned(net, x, False), torch.float32)
    rows = x.flatten(0, 1)
    with Watch(), torch.no_grad():
        straight(rows)
    assert max(ranks) == 4
    assert (21, 2, 4, 4) in shapes
    assert (3, 3, 4, 4) in shapes  # one step of the first neuron


def test_other_dtypes():
    record = refused(small_net().double(), inputs((5,)).double())[0]
    assert "float64" in record.reason
    assert "float32" in record.cure


def test_a_neuron_that_is_not_declared():
    from spikecore.testing.probes import Adaptive

    (record,) = refused(torch.nn.Sequential(Adaptive(backend="torch")), inputs((4,)))
    assert "not registered" in record.reason or "neuron language" in record.reason
    assert record.cure


def test_numbers_that_are_not_finite():
    net = small_net()
    with torch.no_grad():
        net[0].bias[1] = float("nan")
    (record,) = refused(net, inputs((5,)))
    assert record.reason == "its bias holds a number that is not finite"
