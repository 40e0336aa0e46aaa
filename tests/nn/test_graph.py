"""The graph of a net: names, completeness, shapes, errors with the user's line, and that the net is left alone."""

import copy
import pickle
import threading
import weakref
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikecore import nn as snn
from spikecore.errors import NetTraceError, OptionError, ShapeError
from spikecore.models.convnet import ConvNet
from spikecore.models.mlp import MLP
from spikecore.nn import GraphNet, Ref, features, readouts, trace_net


class Block(nn.Module):
    def __init__(self, channels, inplace=False):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU(inplace)
        self.gain = nn.Parameter(torch.tensor([0.5]))
        self.register_buffer("shift", torch.tensor([0.25]))

    def forward(self, x):
        y = self.relu(self.conv1(x))
        y = self.conv2(y) * self.gain + self.shift
        return self.relu(y + x)


class Net(nn.Module):
    """Functions, methods, attributes of shapes, a constant, a parameter, a default, a shared layer."""

    def __init__(self, inplace=False):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.layer1 = nn.Sequential(Block(3, inplace), Block(3, inplace))
        self.fc = nn.Linear(4, 3)

    def forward(self, x, mask=None):
        x = F.relu(self.stem(x))
        x = self.layer1(x)
        batch, _, height, width = x.shape
        x = torch.cat([x, torch.zeros(batch, 1, height, width)], 1)
        x = F.relu(x.mean((2, 3)) - torch.tensor([0.1, 0.2, 0.3, 0.4]))
        if mask is not None:
            x = x * mask
        return {"scores": self.fc(torch.flatten(x, 1).relu()), "features": (x,)}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def names(graph):
    return [node.name for node in graph.layers]


def test_names_are_those_of_a_user(net):
    block = ["conv1", "relu", "conv2", "mul", "add", "add#2", "relu#2"]
    assert names(trace_net(net)) == [
        *("stem", "relu", *(f"layer1.0.{name}" for name in block), *(f"layer1.1.{name}" for name in block)),
        *("shape", "getitem", "getitem#2", "getitem#3", "getitem#4", "zeros", "cat", "mean", "sub", "relu#2"),
        *("flatten", "relu#3", "fc"),
    ]


def test_a_layer_keeps_its_name_whatever_comes_before_it():
    class Shadow(nn.Module):
        def __init__(self):
            super().__init__()
            self.add, self.output = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, output):
            return self.output(self.add(output + 1) + 2)

    graph = trace_net(Shadow())
    assert [(node.name, node.kind) for node in graph] == [
        ("output#2", "input"),
        ("add#2", "function"),
        ("add", "module"),
        ("add#3", "function"),
        ("output", "module"),
    ]


def test_the_parts_of_a_node(net):
    graph = trace_net(net)
    conv = graph["layer1.0.conv1"]
    assert (conv.kind, conv.target, conv.module, conv.scope) == (
        "module",
        "layer1.0.conv1",
        net.layer1[0].conv1,
        "layer1.0",
    )
    assert conv.args == (Ref("relu"),)
    relu = graph["relu"]
    assert (relu.kind, relu.target, relu.kwargs, relu.scope) == ("function", F.relu, {"inplace": False}, "")
    mean = graph["mean"]
    assert (mean.kind, mean.target, mean.operation, mean.args) == ("method", "mean", ".mean()", (Ref("cat"), (2, 3)))
    assert graph["layer1.1.mul"].inputs == ("layer1.1.conv2", "layer1.1.gain")
    assert graph["layer1.1.gain"].kind == "attribute"
    assert graph.attribute(graph["layer1.1.gain"]) is net.layer1[1].gain
    assert graph.attribute(graph["constant"]).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert graph.output == {"scores": Ref("fc"), "features": (Ref("relu#2"),)}
    assert [node.name for node in graph.users("relu#2")] == ["flatten"]
    line = Path(__file__).read_text().splitlines().index("        y = self.relu(self.conv1(x))") + 1
    assert conv.place == f"{__file__}:{line}"
    with pytest.raises(KeyError, match=r"no node 'layer1.0.conv3': did you mean 'layer1\.[01]\.conv[12]'"):
        graph["layer1.0.conv3"]
    with pytest.raises(
        KeyError, match=r"no node 'layer1.0': it is made of \d+ nodes, 'layer1.0.conv1' to 'layer1.0.relu#2'"
    ):
        graph["layer1.0"]


def test_running_the_graph_is_running_the_net(net):
    x = torch.randn(5, 1, 4, 6)
    graph, right = trace_net(net), net(x)
    out = graph.run(x)
    assert torch.equal(out["scores"], right["scores"])
    assert torch.equal(out["features"][0], right["features"][0])
    with pytest.raises(TypeError, match=r"takes 1 inputs \(x\), got 2"):
        graph.run(x, x)


def test_every_call_of_a_run_can_be_taken(net):
    graph, seen = trace_net(net), []

    def call(node, args, kwargs):
        seen.append(node.name)
        value = graph.call(node, args, kwargs)
        return value * 0 if node.name == "layer1.0.relu#2" else value

    out = graph.run(torch.randn(2, 1, 4, 4), call=call)
    assert seen == names(graph)
    bias = net.layer1[1].conv1.bias.relu().reshape(1, -1, 1, 1).expand(1, 3, 4, 4)
    block = net.layer1[1]
    right = (block.conv2(bias) * block.gain + block.shift).relu().mean((2, 3))
    shifted = (torch.cat([right, torch.zeros(1, 1)], 1) - torch.tensor([0.1, 0.2, 0.3, 0.4])).relu()
    torch.testing.assert_close(out["features"][0], shifted.expand(2, 4))


def test_values_are_let_go(net):
    graph, held = trace_net(net), {}

    def call(node, args, kwargs):
        value = graph.call(node, args, kwargs)
        if isinstance(value, torch.Tensor):
            held[node.name] = weakref.ref(value)
        if node.name == "cat":
            assert held["stem"]() is None
            assert held["layer1.1.relu#2"]() is not None
        return value

    with torch.no_grad():
        graph.run(torch.randn(2, 1, 4, 4), call=call)


def test_shapes_and_values_for_an_example(net):
    graph = trace_net(net, torch.randn(5, 1, 4, 6))
    assert graph["stem"].shape == (5, 3, 4, 6)
    assert graph["stem"].dtype == torch.float32
    assert graph["shape"].value == (5, 3, 4, 6)
    assert graph["getitem#3"].value == 4
    assert graph["x"].shape == (5, 1, 4, 6)
    assert graph["layer1.0.gain"].shape == (1,)
    assert "5×3×4×6" in str(graph)
    assert trace_net(net)["stem"].shape is None


def test_inputs_are_the_arguments_without_a_default_or_with_an_example(net):
    assert [node.name for node in trace_net(net).inputs] == ["x"]
    graph = trace_net(net, torch.randn(2, 1, 4, 4), torch.ones(4))
    assert [node.name for node in graph.inputs] == ["x", "mask"]
    assert "mul" in graph
    for count in (0, 3):
        if count:
            with pytest.raises(NetTraceError, match=r"takes x, mask; got 3 example inputs"):
                trace_net(net, *[torch.ones(1)] * count)

    class Named(nn.Module):
        def forward(self, first, *rest, scale):
            return sum(rest, first) * scale

    assert [node.name for node in trace_net(Named(), *torch.ones(4, 1)).inputs] == [
        "first",
        "rest_0",
        "rest_1",
        "scale",
    ]
    assert trace_net(Named(), *torch.ones(4, 1)).run(*torch.tensor([1.0, 2.0, 3.0, 5.0])).item() == 30.0


def test_core_models():
    mlp = MLP(snn.LIF, (1, 6, 6), 3, hidden=(5, 4))
    graph = trace_net(mlp, torch.rand(4, 2, 1, 6, 6))
    assert names(graph) == ["dim", "sub", "flatten", *(f"layers.{index}" for index in range(5))]
    assert graph["sub"].value == 2
    assert graph["flatten"].shape == (4, 2, 36)
    convnet = ConvNet(snn.LIF, (1, 8, 8), 3)
    graph = trace_net(convnet, torch.rand(4, 2, 1, 8, 8))
    assert names(graph) == [f"layers.{index}" for index in range(8)]
    assert [graph[name].operation for name in names(graph)[:3]] == ["FoldTime", "LIF", "FoldTime"]
    assert graph["layers.7"].shape == (4, 2, 3)


def test_what_is_a_leaf():
    class Mine(nn.Conv2d):
        """torch's forward."""

    class Twisted(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight) - self.bias

    class Homemade(nn.Module):
        """A neuron by its contract, of no class of ours."""

        capabilities = snn.LIF.capabilities

        def forward(self, x):
            return x if x.sum() > 0 else -x

    parts = OrderedDict(
        conv=snn.Conv2d(1, 2, 3, padding=1),
        lif=snn.LIF(tau=3.0),
        plain=snn.fold_time(nn.Sequential(Mine(2, 2, 3), nn.BatchNorm2d(2))),
        block=snn.ConvBNNeuron(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), snn.IF()),
        drop=snn.Dropout(0.5),
        flat=snn.Flatten(),
        inner=snn.Sequential(nn.Linear(8, 8), snn.LI()),
        loop=snn.LinearRecurrent(snn.LIF(), 8, 8),
        own=Homemade(),
        twisted=Twisted(8, 3),
    )
    graph = trace_net(snn.Sequential(parts))
    assert names(graph) == [
        *("conv", "lif", "plain", "block", "drop", "flat", "inner.0", "inner.1", "loop", "own"),
        *("twisted.linear", "twisted.sub"),
    ]
    assert [node.name for node in graph if node.kind == "attribute"] == ["twisted.weight", "twisted.bias"]
    assert names(trace_net(nn.Sequential(Mine(1, 1, 1)))) == ["0"]
    assert names(trace_net(snn.Sequential(parts), leaves=(Twisted,)))[-1] == "twisted"


@pytest.mark.parametrize("leaf", [snn.LIF(), nn.Linear(2, 3), snn.Linear(2, 3)])
def test_a_net_that_is_one_layer(leaf):
    graph = trace_net(leaf, torch.rand(4, 1, 2))
    assert names(graph) == ["net"]
    assert graph["net"].module is leaf
    x = torch.rand(4, 1, 2)
    assert torch.equal(graph.run(x), leaf(x))
    assert torch.equal(GraphNet(graph, {})(x), leaf(x))


def test_readouts_are_calls():
    class Scored(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            y = self.fc(x)
            scores = (readouts.rate, readouts.count, readouts.last, readouts.max_over_time, readouts.max_abs_over_time)
            return [readout(y) for readout in scores]

    graph = trace_net(Scored(), torch.rand(4, 2, 3))
    assert names(graph) == ["fc", "rate", "count", "last", "max_over_time", "max_abs_over_time"]
    assert graph["rate"].target is readouts.rate
    assert graph["rate"].shape == (2, 2)


def test_a_compiled_or_wrapped_net_is_looked_through(net):
    assert names(trace_net(nn.DataParallel(net))) == names(trace_net(net))
    assert names(trace_net(torch.compile(net))) == names(trace_net(net))


class Odd(nn.Module):
    """Does in `forward` what it is told."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        self.relus = [nn.ReLU()]
        self.memory = torch.zeros(3)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        return self.body(self, x)


def branch(self, x):
    if x.sum() > 0:  # a branch
        return x
    return -x


def shape_branch(self, x):
    return x if x.shape[0] > 3 else -x


def loop(self, x):
    for step in x:
        x = step
    return x


def count(self, x):
    return x * len(x)


def steps(self, x):
    return sum(x[t] for t in range(x.shape[0]))


def write(self, x):
    x[0] = 1.0
    return x


def stray(self, x):
    return nn.ReLU()(x)


def listed(self, x):
    return self.relus[0](x)


def keep(self, x):
    self.memory = self.memory * 0.5 + x
    return self.memory


def keep_buffer(self, x):
    self.count += 1
    return x


ODD = [
    (branch, "a branch depends on the values or the shape", "if x.sum() > 0:  # a branch", "torch.where"),
    (shape_branch, "a branch depends on", "x if x.shape[0] > 3 else -x", "option"),
    (loop, "a loop runs over a tensor", "for step in x:", "number that `__init__` stores"),
    (count, "len()", "return x * len(x)", "x.shape[0]"),
    (steps, "reads a number", "range(x.shape[0])", "option"),
    (write, "writes into a part of a tensor", "x[0] = 1.0", "torch.cat"),
    (stray, "a ReLU that is not among its submodules", "nn.ReLU()(x)", "in `__init__`"),
    (listed, "a ReLU that is not among its submodules", "self.relus[0](x)", "torch.nn.ModuleList"),
    (keep, "keeps a tensor for its next call, as self.1.memory", "self.memory * 0.5 + x", "spikecore.nn.Stateful"),
    (keep_buffer, "as self.1.count", "self.count += 1", "spikecore.nn.Stateful"),
]


@pytest.mark.parametrize(("body", "problem", "line", "cure"), ODD, ids=lambda value: getattr(value, "__name__", ""))
def test_what_cannot_be_traced_is_shown_with_its_line(body, problem, line, cure):
    net = snn.Sequential(nn.Linear(3, 3), Odd(body))
    with pytest.raises(NetTraceError) as caught:
        trace_net(net)
    text = str(caught.value)
    assert problem in text
    assert f'File "{__file__}", line ' in text
    assert line in text
    assert cure in text
    assert "Sequential cannot be traced" in text
    assert net[1].memory.tolist() == [0.0, 0.0, 0.0], "the net keeps what it had"
    assert type(net[1].count) is torch.Tensor
    assert names(trace_net(net, leaves=(Odd,))) == ["0", "1"], "the cure"


def test_the_line_is_the_users_where_a_function_of_ours_cannot_go_on():
    with pytest.raises(
        NetTraceError, match=r"(?s)test_graph.py\", line \d+.*over_own_steps\(readouts.rate, x, x > 0\)"
    ):
        trace_net(Odd(lambda self, x: readouts.over_own_steps(readouts.rate, x, x > 0)))


def test_random_numbers_are_calls_and_not_frozen():
    net = Odd(lambda self, x: x + torch.rand(3) + torch.randn(x.shape[0], 3) + torch.arange(3.0))
    before = torch.get_rng_state()
    graph = trace_net(net)
    assert torch.equal(torch.get_rng_state(), before)
    assert names(graph) == ["rand", "add", "shape", "getitem", "randn", "add#2", "add#3"]
    assert [node.name for node in graph if node.kind == "attribute"] == ["constant"]
    x = torch.zeros(2, 3)
    assert not torch.equal(graph.run(x), graph.run(x))


def test_the_net_is_left_alone(net):
    spiking = snn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), snn.LIF(step_mode="single", record=("v",)), nn.Dropout()
    )
    spiking(torch.rand(5, 3))
    kept = copy.deepcopy(spiking.state_dict())
    state = {
        name: {key: value.clone() for key, value in own.items()} for name, own in snn.get_state(spiking).items() if own
    }
    attributes = dict(vars(spiking))
    example = torch.rand(2, 3)
    before, rng = example.clone(), torch.get_rng_state()
    assert trace_net(spiking, example)["2"].shape == (2, 4)
    assert torch.equal(torch.get_rng_state(), rng)
    for name, value in spiking.state_dict().items():
        assert torch.equal(value, kept[name]), f"{name} changed"
    for name, own in state.items():
        assert torch.equal(snn.get_state(spiking)[name]["v"], own["v"])
    assert vars(spiking) == attributes
    assert torch.equal(example, before)
    assert spiking.training
    graph = trace_net(Net(inplace=True), torch.rand(2, 1, 4, 4))
    assert [node.name for node in graph if node.is_inplace] == [
        f"layer1.{i}.relu{n}" for i in (0, 1) for n in ("", "#2")
    ]
    assert torch.nn.Module.__call__.__qualname__ == "Module._wrapped_call_impl"


def add_and_read(self, x):
    y = x * 2
    old = y
    y += x
    return y * old


def divide_and_return(self, x):
    y = x * 2
    old = y
    y /= 3
    return old


@pytest.mark.parametrize("body", [add_and_read, divide_and_return])
def test_what_was_overwritten_under_another_name_is_not_read_as_it_was(body):
    """fx takes `y += x` for `y = y + x`: the graph would compute with the old numbers."""
    with pytest.raises(NetTraceError, match=r"(?s)after it wrote into it.*y [+/]= .*y = y \+ x"):
        trace_net(Odd(body))


def test_writing_into_what_nobody_reads_again_is_a_new_value():
    def body(self, x):
        size = x.shape[1]
        half = size
        half //= 2
        twice = size
        twice *= 2
        y = x * 2
        y += x
        y -= twice + size
        return y

    x = torch.rand(3, 4)
    graph = trace_net(Odd(body), x)
    assert [node.name for node in graph.layers if node.value is None][-1] == "sub"
    assert torch.equal(graph.run(x), body(None, x))


def test_a_plain_note_of_the_user_is_no_state():
    net = Odd(lambda self, x: setattr(self, "last", x) or x * 2)
    assert names(trace_net(net)) == ["mul"]
    assert not hasattr(net, "last")


def test_other_threads_run_their_nets_meanwhile():
    other, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.rand(2, 3)
    results, right = [], other(x)

    def body(self, given):
        thread = threading.Thread(target=lambda: results.append(other(x)))
        thread.start()
        thread.join()
        return given * 2

    assert names(trace_net(Odd(body))) == ["mul"]
    assert torch.equal(results[0], right)


def test_an_example_that_does_not_fit_names_the_layer(net):
    with pytest.raises(NetTraceError, match=r"do not pass stem \(Conv2d\) at .*test_graph.py:\d+ of Net"):
        trace_net(net, torch.rand(2, 5, 4, 4))


# GraphNet


def plain(inplace=False):
    class Plain(Net):
        def forward(self, x):
            return super().forward(x)["scores"]

    torch.manual_seed(1)
    return Plain(inplace).eval()


def test_a_graph_without_changes_is_the_net_over_time():
    net = plain()
    made = GraphNet(trace_net(net), {})
    x = torch.randn(3, 2, 1, 4, 4)
    torch.testing.assert_close(made(x), torch.stack([net(step) for step in x]))
    snn.set_step_mode(made, "single")
    assert torch.equal(made(x[0]), net(x[0]))
    assert {name for name in made.state_dict() if name != "constant"} == set(net.state_dict())
    ours = {value.data_ptr() for value in net.state_dict().values()}
    assert not any(value.data_ptr() in ours for value in made.state_dict().values()), "it is a copy"


def test_replacements_stand_under_the_names_of_their_nodes():
    net, x = plain(), torch.rand(6, 2, 1, 4, 4)
    graph = trace_net(net)
    relus = [node.name for node in graph.layers if "relu" in node.operation.lower()]
    kept_second = {name: snn.LIF(tau=3.0, v_threshold=0.2, reset="soft") for name in relus if name != "layer1.1.relu#2"}
    made = GraphNet(graph, kept_second)
    for name, neuron in kept_second.items():
        assert made.get_submodule(name) is neuron
    assert isinstance(made.get_submodule("layer1.1.relu#2"), nn.ReLU), "the other use of a replaced layer goes on"
    assert {type(part) for part in made.modules() if isinstance(part, nn.ReLU)} == {nn.ReLU}
    seen = []
    made.get_submodule("relu").register_forward_hook(lambda module, args, out: seen.append(out))
    multi = made(x)
    assert seen[0].shape == (6, 2, 3, 4, 4)
    assert 0 < seen[0].mean() < 1
    assert not torch.equal(multi, GraphNet(graph, {})(x))
    again = copy.deepcopy(made)
    assert torch.equal(again(x), multi)
    assert torch.equal(pickle.loads(pickle.dumps(GraphNet(graph, {})))(x), GraphNet(graph, {})(x))
    snn.set_step_mode(made, "single")
    torch.testing.assert_close(torch.stack([made(step) for step in x]), multi)
    assert isinstance(net.layer1[0].relu, nn.ReLU), "the given net is left alone"


def test_the_graph_of_a_changed_net_is_its_own():
    net, x = plain(), torch.rand(6, 2, 1, 4, 4)
    graph = trace_net(net)
    made = GraphNet(graph, {"relu": snn.LIF(v_threshold=0.2), "layer1.0.relu#2": snn.IF()})
    again = trace_net(made, x)
    assert names(again) == names(graph)
    assert again["relu"].module is made.get_submodule("relu")
    assert (again["relu"].kind, again["relu"].operation) == ("module", "LIF")
    assert again["relu"].shape == (6, 2, 3, 4, 4)
    assert again["layer1.0.add"].shape == (6, 2, 3, 4, 4)
    assert again["flatten"].shape == (6, 2, 4)
    assert torch.equal(again.run(x), made(x))
    twice = GraphNet(again, {"relu#2": snn.LI(tau=2.0)})
    assert not torch.equal(twice(x), made(x))
    assert torch.equal(GraphNet(again, {})(x), made(x))
    seen = []

    def call(node, args, kwargs):
        seen.append(node.name)
        return again.call(node, args, kwargs)

    again.run(x, call=call)
    assert seen == names(graph)
    assert names(trace_net(snn.Sequential(made, nn.Flatten(2)))) == ["0", "1"]
    snn.set_step_mode(made, "single")
    assert trace_net(made, x[0])["layer1.0.add"].shape == (2, 3, 4, 4)


def test_replacements_get_what_the_node_takes():
    class Difference(nn.Module):
        def forward(self, first, second):
            return first - second

    graph = trace_net(Odd(lambda self, x: torch.add(x * 3, x, alpha=2)))
    x = torch.rand(2, 4, 3)
    torch.testing.assert_close(GraphNet(graph, {"add": Difference()})(x), x * 2)


def test_gradients_and_state_dict_of_a_changed_net():
    net, x = plain(), torch.rand(6, 2, 1, 4, 4)
    graph = trace_net(net)
    made, other = (GraphNet(graph, {"relu": snn.LIF(v_threshold=[0.1, 0.2, 0.3])}) for _ in range(2))
    for parameter in other.parameters():
        parameter.data.add_(1.0)
    other.load_state_dict(made.state_dict())
    assert "relu.param_v_threshold" in made.state_dict()
    assert torch.equal(other(x), made(x))
    made(x).sum().backward()
    assert made.stem.weight.grad.abs().sum() > 0


def test_wrong_replacements_and_inputs_are_refused():
    graph = trace_net(plain())
    with pytest.raises(OptionError, match=r"replaced names 'layer1.0.relu#3'; the graph calls stem, relu"):
        GraphNet(graph, {"layer1.0.relu#3": snn.IF()})
    with pytest.raises(OptionError, match="step_mode"):
        GraphNet(graph, {}, step_mode="both")
    with pytest.raises(ShapeError, match="keep the batch as its first axis"):
        GraphNet(trace_net(Odd(lambda self, x: x.sum(0))), {})(torch.rand(4, 2, 3))


# features


@pytest.mark.parametrize("inplace", [False, True])
def test_features_by_name(inplace):
    torch.manual_seed(0)
    net, x = Net(inplace), torch.randn(3, 1, 4, 4)
    wanted = ["layer1.1.relu#2", "layer1.0.conv1", "relu"]
    out = features(net, wanted)(x)
    assert list(out) == wanted
    stem = F.relu(net.stem(x))
    assert torch.equal(out["relu"], stem)
    assert torch.equal(out["layer1.0.conv1"], net.layer1[0].conv1(stem)), "before the ReLU that writes into it"
    assert torch.equal(out["layer1.1.relu#2"], net.layer1(stem))
    out["relu"].sum().backward()
    assert net.stem.weight.grad is not None
    with pytest.raises(KeyError, match="did you mean"):
        features(net, ["layer1.1.relu#3"])
    with pytest.raises(OptionError, match="at least one"):
        features(net, [])


def test_features_compute_no_more_than_they_need(net):
    calls = []
    net.fc.register_forward_hook(lambda *_: calls.append(1))
    features(net, ["layer1.1.relu#2"])(torch.randn(2, 1, 4, 4))
    assert not calls


def test_features_follow_the_mode_of_the_net():
    net = Odd(lambda self, x: F.dropout(x * 2, 0.5, self.training))
    extracted, x = features(net, ["dropout"]), torch.ones(20, 3)
    assert (extracted(x)["dropout"] == 0).any()
    extracted.eval()
    assert torch.equal(extracted(x)["dropout"], x * 2)
    net.train()
    assert (extracted(x)["dropout"] == 0).any()


def test_features_of_a_spiking_net_over_time():
    torch.manual_seed(0)
    net = MLP(snn.LIF, (1, 6, 6), 3)
    extracted, x = features(net, ["layers.1"]), torch.rand(6, 2, 1, 6, 6) * 4
    spikes = extracted(x)["layers.1"]
    assert 0 < spikes.mean() < 1
    with snn.streaming(extracted):
        halves = torch.cat([extracted(part)["layers.1"] for part in x.split(3)])
    assert torch.equal(halves, spikes)
    assert torch.equal(copy.deepcopy(extracted)(x)["layers.1"], spikes)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda net, x: features(net, ["1"], x),
            r"leaves must be .*got Tensor; inputs go to the net",
        ),
        (lambda net, x: features(net, ["1"], [x]), r"features: leaves must be a list of classes of modules.*got list"),
        (
            lambda net, x: features(["1"], net),
            r"features: net must be a torch\.nn\.Module, got list",
        ),
        (lambda net, x: features(net, "1"), r"features: names must be a list of names of nodes.*got '1'"),
        (lambda net, x: features(net, x), r"features: names must be a list of names of nodes"),
        (lambda net, x: trace_net(net, leaves=x), r"trace_net: leaves must be .*got Tensor; inputs come before it"),
    ],
)
def test_arguments_in_the_wrong_place_are_told(call, says):
    with pytest.raises(OptionError, match=says):
        call(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.rand(1, 3))


def test_a_weight_as_long_as_all_samples_is_no_sequence():
    """Time and batch folded are as long as the weight: only what depends on the input has time."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.arange(6.0))

        def forward(self, x):
            return torch.mul(x, self.weight)

    class Seen(nn.Module):
        step_mode = "multi"

        def forward(self, x, weight):
            assert x.shape == (3, 2, 6)
            assert weight.shape == (6,)
            return x * weight

    net = GraphNet(trace_net(Scaled()), {"mul": Seen()})
    x = torch.rand(3, 2, 6)
    assert torch.equal(net(x), x * torch.arange(6.0))


def test_what_sees_time_needs_the_batch_first():
    class Turned(nn.Module):
        def forward(self, x):
            return torch.relu(x.transpose(0, 1)).transpose(0, 1)

    net = GraphNet(trace_net(Turned()), {"relu": snn.IF()})
    with pytest.raises(ShapeError, match=r"relu.*the batch must be the first axis"):
        net(torch.rand(3, 2, 5))
