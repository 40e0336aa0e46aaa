"""Monitors: what they record, how little they keep, what they leave behind, and nets that change under them."""

import copy
import doctest
import importlib
import warnings

import pytest
import torch
from torch import nn

from spikecore.analysis import Monitor, RateMeter, firing_rate, select_layers
from spikecore.errors import OptionError, ShapeError, StateError
from spikecore.nn import IF, LIF, Linear, Sequential, set_step_mode


def make(record=()):
    torch.manual_seed(0)
    return Sequential(Linear(3, 4), LIF(tau=1.5, record=record), nn.Sequential(Linear(4, 2), IF()))


def x(num_steps=5, batch=6):
    return torch.randn(num_steps, batch, 3, generator=torch.Generator().manual_seed(1)) * 3


def hooks(net):
    return [
        len(getattr(module, name))
        for module in net.modules()
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    ]


def by_hand(net, inputs):
    """What goes into and comes out of each layer."""
    seen, value = {}, inputs
    for name, layer in (("0", net[0]), ("1", net[1]), ("2.0", net[2][0]), ("2.1", net[2][1])):
        seen[name] = (value, layer(value))
        value = seen[name][1]
    return seen


def test_outputs_and_inputs_are_those_of_the_layers():
    net, inputs = make(), x()
    seen = by_hand(net, inputs)
    with Monitor(net, "output", where=Linear) as outs, Monitor(net, "input") as ins:
        net(inputs)
        net(inputs * 0)
    assert outs.names == ("0", "2.0")
    assert ins.names == ("1", "2.1")
    for name in outs.names:
        assert torch.equal(outs[name][0], seen[name][1])
    for name in ins.names:
        assert torch.equal(ins[name][0], seen[name][0])
        assert len(ins[name]) == 2
        assert not ins[name][0].requires_grad
    assert outs[1] is not outs["2.0"]
    assert torch.equal(outs[1][1], outs["2.0"][1])
    with pytest.raises(KeyError, match="not monitored"):
        outs["1"]


def test_inputs_given_by_keyword_are_inputs():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Bilinear(2, 3, 4)

        def forward(self, x, y):
            return self.layer(x, input2=y) + self.layer(input1=x, input2=y)

    net, x, y = Named(), torch.rand(5, 2), torch.rand(5, 3)
    with Monitor(net, "input", where="layer") as monitor:
        net(x, y)
    for seen in monitor["layer"]:
        assert torch.equal(seen[0], x)
        assert torch.equal(seen[1], y)


def test_gradients_are_those_of_autograd():
    net, inputs = make(), x().requires_grad_()
    layer = net[2][0]
    with Monitor(net, "grad_output", where="2.0") as outs, Monitor(net, "grad_input", where=["2.0", "0"]) as ins:
        net(inputs).square().sum().backward()
    between = net[1](net[0](inputs))
    current = layer(between)
    loss = net[2][1](current).square().sum()
    to_output, to_input, to_x = torch.autograd.grad(loss, (current, between, inputs))
    torch.testing.assert_close(outs["2.0"][0], to_output)
    torch.testing.assert_close(ins["2.0"][0], to_input)
    torch.testing.assert_close(ins["0"][0], to_x)
    assert to_x.abs().sum() > 0


def test_a_gradient_that_does_not_flow_is_told_once():
    net = make()
    with Monitor(net, "grad_input", where="0") as monitor, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(2):
            net(x()).sum().backward()
    assert len([w for w in warned if "layer '0'" in str(w.message)]) == 1
    assert monitor["0"] == []
    net.requires_grad_(False)
    with Monitor(net, "grad_output", where=LIF) as monitor, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        net(x())
        net(x())
        with torch.no_grad():
            net(x())
    assert [str(w.message)[:46] for w in warned] == ["no gradient flows to the output of layer '1', "]


def test_the_gradient_of_several_outputs_is_a_tuple():
    class Two(nn.Module):
        def forward(self, value):
            return value * 2, {"more": value * 3}

    net = Two()
    with Monitor(net, "grad_output", where="") as monitor:
        a, b = net(torch.ones(2, requires_grad=True))
        (a.sum() + 5 * b["more"].sum()).backward()
    first, second = monitor[""][0]
    assert (first.tolist(), second.tolist()) == ([1, 1], [5, 5])


def test_gradients_after_the_block_are_not_recorded():
    net = make()
    with Monitor(net, "grad_output", where=LIF) as monitor:
        loss = net(x()).sum()
    loss.backward()
    assert monitor["1"] == []


def test_attributes_before_and_after():
    net, inputs = make(record=("v",)), x()
    with Monitor(net, "attribute", where=LIF, attribute="recorded.v") as monitor:
        net(inputs)
    assert torch.equal(monitor["1"][0], net[1].recorded["v"])
    with (
        Monitor(net, "attribute", where="0", attribute="bias", when="before") as before,
        Monitor(net, "attribute", where="0", attribute="bias") as after,
    ):

        def raise_bias(module, args):
            module.bias.data += 1

        handle = net[0].register_forward_pre_hook(raise_bias)
        net(inputs)
        handle.remove()
    torch.testing.assert_close(after["0"][0] - before["0"][0], torch.ones(4))
    with Monitor(net, "attribute", where=LIF, attribute="config.tau") as monitor:
        net(inputs)
    assert monitor["1"] == [1.5]


def test_a_missing_attribute_says_how_to_get_it():
    net = make()
    with (
        Monitor(net, "attribute", where=LIF, attribute="recorded.v"),
        pytest.raises(OptionError, match=r"record=\('v',\)"),
    ):
        net(x())
    assert not any(hooks(net))


def test_records_are_copies():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    with Monitor(net, "output", where="0") as monitor:
        net(x()[0])
    assert (monitor["0"][0] < 0).any()


def test_memory_is_bounded():
    net, inputs = make(), [x() * k for k in range(7)]
    with (
        Monitor(net, where=LIF, keep=2) as newest,
        Monitor(net, where=LIF, keep=None, every=3) as third,
        Monitor(net, where=LIF) as whole,
    ):
        for batch in inputs:
            net(batch)
    expected = [by_hand(net, batch)["1"][1] for batch in inputs]
    assert len(newest["1"]) == 2
    assert all(torch.equal(a, b) for a, b in zip(newest["1"], expected[-2:], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(third["1"], expected[::3], strict=True))
    assert len(third["1"]) == 3
    assert whole.num_recorded("1") == newest.num_recorded("1") == 7
    with Monitor(net, where=LIF) as default:
        for _ in range(20):
            net(inputs[0])
    assert len(default["1"]) == 16
    with Monitor(net, where=LIF, keep=1) as one:
        net(inputs[0])
        net(inputs[1])
    assert torch.equal(one["1"][0], expected[1])
    assert len(one["1"]) == 1


@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "min"])
def test_reduction_on_the_fly(reduce):
    net, inputs = make(), [x() * k for k in range(5)]
    with Monitor(net, where="0", reduce=reduce) as monitor:
        for batch in inputs:
            net(batch)
    outputs = torch.stack([net[0](batch) for batch in inputs]).detach()
    expected = {"mean": outputs.mean(0), "sum": outputs.sum(0), "max": outputs.amax(0), "min": outputs.amin(0)}[reduce]
    (value,) = monitor["0"]
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(monitor["0"][0], expected)  # reading changes nothing


def test_sums_are_wide():
    net = nn.Identity()
    with Monitor(net, where="", reduce="sum") as half, Monitor(net, where="", reduce="mean") as flags:
        for _ in range(3000):
            net(torch.ones(2, dtype=torch.float16))
    assert half[""][0].tolist() == [3000.0, 3000.0]
    assert flags[""][0].tolist() == [1.0, 1.0]
    with Monitor(net, where="", reduce="sum") as whole:
        net(torch.tensor([True, False]))
        net(torch.tensor([True, False]))
    assert whole[""][0].tolist() == [2, 0]


def test_transform_and_reduce():
    net, inputs = make(), x()
    with Monitor(net, where=LIF, transform=lambda s: s.mean(0), reduce="mean") as monitor:
        net(inputs)
        net(inputs[:, :6] * 2)
    expected = (by_hand(net, inputs)["1"][1].mean(0) + by_hand(net, inputs * 2)["1"][1].mean(0)) / 2
    torch.testing.assert_close(monitor["1"][0], expected)
    with Monitor(net, where=LIF, reduce="mean"):
        net(inputs)
        with pytest.raises(ShapeError, match="give a transform"):
            net(inputs[:3])
    with Monitor(net, where=LIF, reduce="max", transform=lambda s: float(s.sum())):
        net(inputs)
        with pytest.raises(OptionError, match="transform"):
            net(inputs)


def test_several_tensors_are_a_tuple():
    net = nn.Sequential(nn.MaxPool1d(2, return_indices=True))
    with Monitor(net, where="0", reduce="max") as monitor:
        net(torch.arange(8.0).reshape(1, 8))
        net(torch.arange(8.0).flip(0).reshape(1, 8))
    values, indices = monitor["0"][0]
    assert values.tolist() == [[7.0, 5.0, 5.0, 7.0]]
    assert indices.tolist() == [[1, 3, 5, 7]]


def test_pausing_and_clearing():
    net = make()
    with Monitor(net) as monitor:
        monitor.disable()
        net(x())
        assert monitor["1"] == []
        monitor.enable()
        net(x())
        assert len(monitor["1"]) == 1
        monitor.clear()
        assert monitor["1"] == []
        assert monitor.num_recorded("1") == 0
    assert dict(monitor.items()) == {"1": [], "2.1": []}


@pytest.mark.parametrize("what", ["output", "input", "attribute", "grad_output", "grad_input"])
def test_hooks_never_stay(what):
    net = make()
    options = {"attribute": "training"} if what == "attribute" else {}
    monitor = Monitor(net, what, **options)
    assert not any(hooks(net))
    with monitor:
        assert any(hooks(net))
    assert not any(hooks(net))
    with pytest.raises(ZeroDivisionError), monitor:
        1 / 0  # noqa: B018
    assert not any(hooks(net))
    with pytest.raises(RuntimeError), monitor:
        net(torch.zeros(2, 3, 99))
    assert not any(hooks(net))
    with monitor, pytest.raises(StateError, match="already recording"):
        monitor.__enter__()
    assert not any(hooks(net))


def test_hooks_of_others_stay():
    net, calls = make(), []
    net[1].register_forward_hook(lambda *_: calls.append(1))
    with Monitor(net):
        net(x())
    net(x())
    assert calls == [1, 1]


def test_the_net_computes_the_same_while_it_is_monitored():
    net, inputs = make(), x()
    expected = net(inputs)
    with Monitor(net), Monitor(net, "input"), Monitor(net, "grad_output"):
        assert torch.equal(net(inputs), expected)


def test_a_copy_made_inside_is_another_net():
    net = make()
    with Monitor(net) as monitor:
        copy.deepcopy(net)(x())
        assert monitor["1"] == []
        net(x())
    assert len(monitor["1"]) == 1


def test_a_replaced_layer_is_an_error():
    net = make()
    with Monitor(net) as monitor:
        net(x())
        net[1] = LIF(tau=9.0)
        with pytest.raises(StateError, match=r"'1' \(LIF\) was replaced by a LIF.*new Monitor"):
            net(x())
    assert len(monitor["1"]) == 1
    assert not any(hooks(net))
    with pytest.raises(StateError, match="replaced"), monitor:
        pass
    assert not any(hooks(net))


def test_a_removed_layer_is_an_error():
    net = make()
    with Monitor(net, where="2.1"):
        del net[2][1]
        with pytest.raises(StateError, match=r"'2.1' \(IF\) was removed"):
            net(x())
    assert not any(hooks(net))


def test_an_added_layer_is_an_error():
    net = make()
    with Monitor(net, where=IF):
        net.append(nn.Tanh())
        net(x())
        net.append(IF())
        with pytest.raises(StateError, match=r"'4' \(IF\) was added"):
            net(x())


def test_selection():
    net = make()
    assert list(select_layers(net, Linear)) == ["0", "2.0"]
    assert list(select_layers(net, ["2.1", LIF])) == ["1", "2.1"]
    assert list(select_layers(net, lambda name, module: name.startswith("2."))) == ["2.0", "2.1"]
    assert list(select_layers(net, "")) == [""]
    with pytest.raises(OptionError, match=r"no layer '2.2'; did you mean '2.*layers: '0', '1', '2', '2.0', '2.1'"):
        select_layers(net, "2.2")
    with pytest.raises(OptionError, match="no layer of type Conv2d; its layers are IF, LIF, Linear, Sequential"):
        select_layers(net, nn.Conv2d)
    with pytest.raises(OptionError, match="picks none"):
        select_layers(net, lambda name, module: False)
    for wrong in (3, net[1], [net[1]]):
        with pytest.raises(OptionError, match="by name, type"):
            select_layers(net, wrong)


def test_wrong_options():
    net = make()
    for options, text in (
        ({"what": "outputs"}, "what"),
        ({"when": "during"}, "when"),
        ({"reduce": "median"}, "reduce"),
        ({"what": "attribute"}, "attribute"),
        ({"attribute": "v"}, "attribute"),
        ({"every": 0}, "every"),
        ({"keep": 0}, "keep"),
        ({"every": 1.5}, "every"),
        ({"keep": 2.5}, "keep"),
    ):
        with pytest.raises(OptionError, match=text):
            Monitor(net, **options)


def test_rates_are_counted_over_steps_samples_and_calls():
    net, batches = make(), [x(5, 6), x(3, 2)]
    with RateMeter(net) as meter:
        for batch in batches:
            net(batch)
    fired = torch.cat([by_hand(net, batch)["1"][1].flatten(0, 1) for batch in batches])
    rates = meter.rates["1"]
    assert rates.num_steps == 5 * 6 + 3 * 2
    assert rates.num_neurons == 4
    torch.testing.assert_close(rates.per_neuron, fired.mean(0))
    assert rates.rate == pytest.approx(fired.mean().item())
    assert 0 < rates.rate < 1
    torch.testing.assert_close(firing_rate(by_hand(net, batches[0])["1"][1]), fired[:30].mean(0))


def test_silent_and_saturated_neurons():
    net = IF(reset="soft")
    current = torch.tensor([0.0, 1.0, 0.5, 0.5, 1.0, 0.0, 0.25, 0.0]).expand(4, 3, 8)
    with RateMeter(net) as meter:
        net(current)
    rates = meter.rates[""]
    assert rates.silent == 3 / 8
    assert rates.saturated == 2 / 8
    assert rates.rate == pytest.approx((2 * 1.0 + 2 * 0.5 + 0.25) / 8)
    assert str(rates) == "rate 0.4062, silent 37.5%, saturated 25.0% (8 neurons, 12 steps)"
    meter.clear()
    assert meter.rates[""].num_steps == 0
    assert meter.rates[""].rate != meter.rates[""].rate


def test_rates_in_single_step_mode():
    net, inputs = make(), x()
    with RateMeter(net) as multi:
        net(inputs)
    set_step_mode(net, "single")
    with RateMeter(net) as single:
        for step in inputs:
            net(step)
    for name in ("1", "2.1"):
        assert torch.equal(single.rates[name].per_neuron, multi.rates[name].per_neuron)
        assert single.rates[name].num_steps == 30


def test_rates_leave_padding_out():
    """A neuron with a bias fires in the padding, too."""
    net = IF(reset="soft")
    current = torch.ones(4, 2, 3)
    current[2:, 1, 0] = 0.0
    mask = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    with RateMeter(net) as meter:
        meter.own_steps(mask)
        net(current)
        assert (meter.rates[""].rate, meter.rates[""].num_steps, meter.rates[""].saturated) == (1.0, 6, 1.0)
        meter.own_steps(~mask)
        meter.clear()
        net(current)
        assert meter.rates[""].per_neuron.tolist() == [0.0, 1.0, 1.0]
        meter.own_steps(None)
        meter.clear()
        net(current)
        assert meter.rates[""].num_steps == 8
        meter.own_steps(mask[:3])
        with pytest.raises(ShapeError, match=r"own steps \(3, 2\)"):
            net(current)


def test_rates_of_one_neuron():
    net = nn.Identity()
    with RateMeter(net, where="") as meter:
        net(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert (meter.rates[""].rate, meter.rates[""].num_neurons, meter.rates[""].num_steps) == (0.75, 1, 4)
    assert firing_rate(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).item() == 0.75


def test_rates_refuse_what_they_cannot_count():
    with pytest.raises(ShapeError, match=r"\[T, B, \.\.\.\]"):
        firing_rate(torch.zeros(3))
    net = nn.Identity()
    with RateMeter(net, where="") as meter, pytest.raises(ShapeError, match="returned"):
        net(torch.zeros(3))
    assert meter.rates[""].num_steps == 0
    with RateMeter(make()) as meter:
        pass
    assert meter.rates["1"].num_neurons == 0


def test_nothing_is_warned_of_in_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = make()
        with Monitor(net), Monitor(net, "grad_output", where=[LIF, "0"]), RateMeter(net):
            net(x()).sum().backward()


@pytest.mark.parametrize("module", ["selection", "monitor", "rates"])
def test_the_examples_are_true(module):
    names = {"torch": torch, "nn": nn, "IF": IF}
    result = doctest.testmod(importlib.import_module(f"spikecore.analysis.{module}"), extraglobs=names)
    assert result.attempted >= 1
    assert result.failed == 0


def test_counts_are_whole_beyond_what_float32_counts():
    """2**24 + 3 steps in one call: the sum of so many ones in float32 is 2**24."""
    net = nn.Sequential(IF())
    with RateMeter(net) as meter, torch.inference_mode():
        net[0].register_forward_hook(
            lambda *_: torch.ones((1 << 24) + 3, dtype=torch.uint8)[:, None, None], prepend=True
        )
        net(torch.zeros(1, 1, 1))
    (rates,) = meter.rates.values()
    assert rates.num_steps == (1 << 24) + 3
    assert rates.rate == rates.saturated == 1.0
