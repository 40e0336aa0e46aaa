"""Going through a net for a deployer: containers, blocks, flattening and refusals, each operator accounted for once."""

import pytest
import torch

from spikecore import nn
from spikecore.errors import NetTraceError, ShapeError
from spikecore.nn import NetWalker, RefusedError, graph_for_deployment

LEAD = (3, 2)


class Shapes(NetWalker):
    """Maps layers that keep or give a shape; a value is (name, shape)."""

    def shape(self, value):
        return value[1]

    def layer(self, name, module, value, node):
        if isinstance(module, nn.Neuron):
            self.mapped(name, type(module).__name__, "neuron")
            return name, value[1]
        if isinstance(module, torch.nn.Linear):
            if len(value[1]) != 1:
                raise RefusedError("it takes one axis", "flatten before it")
            self.mapped(name, "Linear", "matrix", "rounded" if module.bias is None else "")
            return name, (module.out_features,)
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
            channels = module.out_channels if isinstance(module, torch.nn.Conv2d) else value[1][0]
            self.mapped(name, type(module).__name__, "image")
            return name, (channels, *value[1][1:])
        raise RefusedError("it is strange", "leave it out")

    def flat(self, name, operator, value):
        self.mapped(name, operator, "flat")
        return name, (value[1][0] * value[1][1] * value[1][2],)

    def unknown(self, name, shape, value):
        return name, shape


def walked(net, shape):
    walker = Shapes(graph_for_deployment(net, torch.zeros(*LEAD, *shape)), LEAD)
    return walker.walk(("input", shape)), walker.records


def outcomes(records):
    return {record.name: record.outcome for record in records}


def test_blocks_and_folded_chains_are_taken_apart():
    body = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Dropout(), torch.nn.Flatten())
    net = torch.nn.Sequential(nn.fold_time(body), torch.nn.Linear(32, 4), nn.LIF())
    out, records = walked(net, (1, 4, 4))
    assert out == ("2", (4,))
    wanted = {"0.module.0": "mapped", "0.module.1": "folded", "0.module.2": "mapped", "1": "mapped", "2": "mapped"}
    assert outcomes(records) == wanted
    block = torch.nn.Sequential(nn.ConvBNNeuron(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.BatchNorm2d(2), nn.LIF()))
    out, records = walked(block, (1, 4, 4))
    assert out == ("0", (2, 4, 4))
    assert list(outcomes(records)) == ["0.conv", "0.norm", "0"]


def test_what_follows_a_refusal_has_its_own_record():
    net = torch.nn.Sequential(torch.nn.GELU(), torch.nn.Linear(5, 4, bias=False), nn.LIF())
    out, records = walked(net, (5,))
    assert outcomes(records) == {"0": "refused", "1": "approximated", "2": "mapped"}
    assert (records[0].reason, records[0].cure) == ("it is strange", "leave it out")
    assert out == ("2", (4,))


@pytest.mark.parametrize("call", [lambda x: x.flatten(2), lambda x: x.reshape(3, 2, -1), lambda x: torch.flatten(x, 2)])
def test_calls_that_flatten_a_step(call):
    class Net(torch.nn.Module):
        def forward(self, x):
            return call(x)

    out, records = walked(Net(), (2, 3, 4))
    assert out[1] == (24,)
    assert [record.outcome for record in records] == ["mapped"]


def test_other_reshapes_and_functions_are_refused():
    class Net(torch.nn.Module):
        def forward(self, x):
            return x.flatten(3).sort(-1).values

    _, records = walked(Net(), (2, 3, 4))
    assert {record.outcome for record in records} == {"refused"}
    assert "whole step" in records[0].reason


def test_several_results_are_refused():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = nn.LIF()

        def forward(self, x):
            y = self.lif(x)
            return y, x

    out, records = walked(Net(), (4,))
    assert out is None
    assert outcomes(records) == {"lif": "refused"}


def test_a_layer_at_two_places_of_a_folded_chain_is_mapped_at_both():
    layer = torch.nn.Linear(4, 4)
    net = torch.nn.Sequential(nn.fold_time(torch.nn.Sequential(layer, torch.nn.Dropout(), layer)), nn.LIF())
    out, records = walked(net, (4,))
    assert out == ("1", (4,))
    wanted = {"0.module.0": "mapped", "0.module.1": "folded", "0.module.2": "mapped", "1": "mapped"}
    assert outcomes(records) == wanted


def test_the_net_is_left_alone():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), nn.LIF(step_mode="single")).train()
    graph = graph_for_deployment(net, torch.zeros(2, 1, 3))
    assert net.training
    assert net[1].step_mode == "single"
    assert net[0].weight.requires_grad
    assert graph["0"].module is not net[0]


class InPlace(torch.nn.Module):
    """`forward` is a function of (net, the result of a layer)."""

    def __init__(self, body):
        super().__init__()
        self.body, self.linear, self.lif = body, torch.nn.Linear(4, 4), nn.LIF()
        self.relu = torch.nn.ReLU(inplace=True)
        self.folded = nn.fold_time(torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(4, 4)))

    def forward(self, x):
        return self.body(self, self.linear(x))


def relu_then_read(net, y):
    z = net.relu(y)
    return net.lif(z), y


def view_then_read(net, y):
    z = net.relu(y.flatten(2))
    return z + net.lif(y)


def read_through_a_view(net, y):
    view = y.flatten(2)
    z = net.relu(y)
    return z + net.lif(view)


def folded_then_read(net, y):
    return net.folded(y) + net.lif(y)


def function_then_returned(net, y):
    torch.relu_(y)
    return y


@pytest.mark.parametrize(
    ("body", "operator"),
    [
        (relu_then_read, "relu"),
        (view_then_read, "relu"),
        (read_through_a_view, "relu"),
        (folded_then_read, "folded"),
        (function_then_returned, "relu_"),
    ],
)
def test_what_is_overwritten_must_not_be_read_again(body, operator):
    """On a target, what is written becomes a value of its own: the reader would get the numbers from before."""
    _, records = walked(InPlace(body), (4,))
    reasons = {record.name: record.reason for record in records if record.outcome == "refused"}
    assert "writes into the value" in reasons[operator]


def test_what_was_read_before_it_is_overwritten_is_right():
    class Net(InPlace):
        def forward(self, x):
            y = self.linear(x)
            self.lif(y)
            return self.lif(self.linear(self.relu(y)))

    walker = Shapes(graph_for_deployment(Net(None), torch.zeros(*LEAD, 4)), LEAD)
    walker.walk(("input", (4,)))
    (refused,) = [record for record in walker.records if record.outcome == "refused"]
    assert (refused.name, refused.reason) == ("relu", "it is strange")


def test_a_net_that_computes_nothing_and_returns_two_values_is_refused():
    class Net(torch.nn.Module):
        def forward(self, x):
            return x, x

    out, records = walked(Net(), (4,))
    assert out is None
    assert outcomes(records) == {"net": "refused"}


@pytest.mark.parametrize(
    "example", [[1.0], torch.tensor(1.0), torch.zeros(3), torch.zeros(0, 2, 4), torch.zeros(3, 0, 4)]
)
def test_an_example_without_steps_or_samples_is_refused(example):
    with pytest.raises(ShapeError, match=r"expected an example input \[T, B, ...\]"):
        graph_for_deployment(torch.nn.Sequential(torch.nn.Linear(4, 4)), example)


class Calls(torch.nn.Module):
    """A net of one matrix and one neuron, called as `body` says."""

    def __init__(self, body):
        super().__init__()
        self.linear, self.lif, self.body = torch.nn.Linear(4, 5), nn.LIF(), body

    def forward(self, x):
        return self.body(self, x)


@pytest.mark.parametrize(
    ("body", "operator"),
    [
        (lambda net, x: net.lif(net.linear(x.reshape(2, 3, 4))).reshape(3, 2, 5), "reshape"),
        (lambda net, x: net.lif(net.linear(x).reshape(1, 6, 5)).reshape(3, 2, 5), "reshape"),
        (lambda net, x: net.lif(net.linear(x.flatten(0, 1))).reshape(3, 2, 5), "lif"),
        (lambda net, x: net.lif(net.linear(x)).flatten(0, 1), "flatten"),
    ],
    ids=["steps and samples are swapped", "steps are samples", "samples are steps", "the output is folded"],
)
def test_steps_and_samples_that_are_mixed_are_refused(body, operator):
    _, records = walked(Calls(body), (4,))
    refused = next(record for record in records if record.outcome == "refused")
    assert refused.name == operator
    assert "(3, 2" in refused.reason or "whole step" in refused.reason


def test_time_may_be_folded_into_the_batch_around_a_matrix():
    _, records = walked(Calls(lambda net, x: net.lif(net.linear(x.flatten(0, 1)).reshape(3, 2, 5))), (4,))
    assert [record.outcome for record in records] == ["folded", "mapped", "folded", "mapped"]


def test_layers_of_pytorch_that_take_the_batch_for_channels_are_refused():
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(2), nn.LIF()).eval()
    assert net(torch.zeros(*LEAD, 4)).shape == (*LEAD, 4)  # it runs, with a batch of 2 only
    _, records = walked(net, (4,))
    assert outcomes(records) == {"0": "refused", "1": "mapped"}
    assert "takes the batch for channels" in records[0].reason
    folded = Calls(lambda net, x: net.norm(net.linear(x.flatten(0, 1))).reshape(3, 2, 5))
    folded.norm = torch.nn.BatchNorm1d(5)
    _, records = walked(folded, (4,))
    assert [record.reason for record in records if record.name == "norm"] == ["it is strange"]  # by the planner here


def doubled(module, given, result):
    return 2 * result


def test_forward_hooks_are_refused():
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Sequential(nn.LIF()))
    handles = [net[0].register_forward_hook(doubled), net[1].register_forward_pre_hook(lambda module, given: None)]
    with pytest.raises(NetTraceError, match=r"forward hooks on 0, 1: .* remove them"):
        graph_for_deployment(net, torch.zeros(*LEAD, 4))
    for handle in handles:
        handle.remove()
    net.register_forward_hook(doubled)
    with pytest.raises(NetTraceError, match="forward hooks on Sequential"):
        graph_for_deployment(net, torch.zeros(*LEAD, 4))
