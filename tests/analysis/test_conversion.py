"""`compare_conversion` against numpy over whole sequences, and what it says of wrong input."""

import numpy as np
import pytest
import torch
from torch import nn

from spikecore.analysis import compare_conversion
from spikecore.errors import OptionError, ShapeError
from spikecore.interfaces import ConversionReport, LayerReport
from spikecore.nn import IF, LIF, GraphNet, get_state, set_step_mode, trace_net

NUM_STEPS = 12


class Net(nn.Module):
    """A ReLU that is a module, one that is a function, one that works in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 10), nn.Linear(10, 8), nn.Linear(8, 4)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.third(torch.relu_(self.second(self.relu(self.first(x)))))


LAYERS = ["relu", "relu_"]


@pytest.fixture
def given():
    torch.manual_seed(1)
    net = Net()
    with torch.no_grad():
        net.first.weight.mul_(2.5)
        net.second.weight.mul_(2.5)
        net.third.bias.sub_(net(torch.rand(100, 6)).mean(0))  # so that decisions differ
    return net


@pytest.fixture
def made(given):
    neurons = {
        "relu": IF(reset="soft", v_init=0.5),
        "relu_": LIF(tau=3.0, reset="soft", v_init=0.3, v_threshold=0.5),
    }
    return GraphNet(trace_net(given), neurons)


def batches():
    """Of different sizes, with labels."""
    generator = torch.Generator().manual_seed(4)
    sizes = (7, 16, 1)
    return [(torch.rand(n, 6, generator=generator), torch.randint(4, (n,), generator=generator)) for n in sizes]


def reference(given, made):
    """With numpy, over all batches and steps at once."""
    x, labels = torch.cat([x for x, _ in batches()]), torch.cat([y for _, y in batches()]).numpy()
    with torch.no_grad():
        hidden = given.first(x).relu()
        activations = {"relu": hidden, "relu_": given.second(hidden).relu()}
        right = given(x).numpy()
        spikes = {}
        for name in LAYERS:
            made.get_submodule(name).register_forward_hook(lambda _, args, out, name=name: spikes.update({name: out}))
        out = made(x.expand(NUM_STEPS, *x.shape)).double().numpy()
    counts = np.arange(1, NUM_STEPS + 1)[:, None, None]
    correlation = {}
    for name in LAYERS:
        means = np.cumsum(spikes[name].double().numpy(), 0) / counts
        flat = activations[name].flatten()
        correlation[name] = [np.corrcoef(flat, mean.flatten())[0, 1] for mean in means]
    rates = {name: float((spikes[name] != 0).double().mean()) for name in LAYERS}
    decided = np.cumsum(out, 0).argmax(-1)
    agreement = (decided == right.argmax(-1)).mean(1)
    return correlation, rates, agreement, (decided == labels).mean(1), (right.argmax(-1) == labels).mean()


def test_it_is_what_numpy_says(given, made):
    comparison = compare_conversion(given, made, iter(batches()), NUM_STEPS, LAYERS)
    correlation, rates, agreement, accuracy, given_accuracy = reference(given, made)
    assert all(0.05 < rate < 0.95 for rate in rates.values())
    assert list(comparison.correlation) == LAYERS
    for name in LAYERS:
        np.testing.assert_allclose(comparison.correlation[name], correlation[name], rtol=1e-6)
        assert comparison.rates[name] == pytest.approx(rates[name])
    assert len(set(comparison.correlation["relu"])) == NUM_STEPS
    np.testing.assert_allclose(comparison.agreement, agreement)
    np.testing.assert_allclose(comparison.accuracy, accuracy)
    assert comparison.given_accuracy == pytest.approx(given_accuracy)
    assert len(set(comparison.agreement)) > 1
    assert comparison.num_samples == 24


def test_large_means_do_not_cancel():
    """An activation of 1000 with a spread of 1e-3 in float64: sums of squares would lose it."""
    given = nn.Sequential(nn.Identity(), nn.ReLU()).double()
    made = GraphNet(trace_net(given), {"1": nn.Hardtanh(0.0, 2000.0)})
    x = 1000 + 1e-3 * torch.rand(50, 4, dtype=torch.float64)
    comparison = compare_conversion(given, made, x.split(7), 3, ["1"])
    assert comparison.correlation["1"] == pytest.approx((1.0, 1.0, 1.0), abs=1e-9)


def test_a_silent_layer_has_no_correlation(given):
    silent = GraphNet(trace_net(given), {"relu": IF(v_threshold=1e6), "relu_": IF()})
    comparison = compare_conversion(given, silent, batches(), 3, ["relu"])
    assert comparison.correlation == {"relu": (0.0, 0.0, 0.0)}
    assert comparison.rates == {"relu": 0.0}


def test_constant_activations_have_no_correlation():
    """Also where their mean is rounded."""
    given = nn.Sequential(nn.ReLU())
    made = GraphNet(trace_net(given), {"0": IF(v_threshold=0.3, reset="soft")})
    comparison = compare_conversion(given, made, [torch.full((3, 7), 0.1), torch.full((6, 7), 0.1)], 4, ["0"])
    assert comparison.correlation["0"] == (0.0,) * 4
    assert comparison.rates["0"] > 0


def test_a_value_that_is_overwritten_later_is_kept(given):
    made = GraphNet(trace_net(given), {"relu_": nn.ReLU()})
    comparison = compare_conversion(given, made, batches(), 1, ["second"])
    assert comparison.correlation["second"] == pytest.approx((1.0,))
    assert (comparison.agreement, comparison.accuracy) == ((1.0,), (comparison.given_accuracy,))


def test_nets_in_training_mode_are_compared_as_they_are_evaluated():
    given = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.9), nn.ReLU()).train()
    made = GraphNet(trace_net(given), {"2": nn.ReLU()}).train()
    comparison = compare_conversion(given, made, [torch.rand(50, 6)], 2, ["2"])
    assert comparison.correlation["2"] == pytest.approx((1.0, 1.0))
    assert comparison.agreement == (1.0, 1.0)


def test_the_nets_are_left_alone(given, made):
    given.train()
    set_step_mode(made, "single")
    with torch.no_grad():
        made(torch.rand(2, 6))
    before = {name: state["v"].clone() for name, state in get_state(made).items()}
    random = torch.get_rng_state()
    compare_conversion(given, made, batches(), 3, LAYERS)
    assert given.training
    assert made.step_mode == "single"
    assert torch.equal(torch.get_rng_state(), random)
    after = get_state(made)
    assert all(torch.equal(after[name]["v"], value) for name, value in before.items())


def test_the_report_gets_it(given, made):
    report = ConversionReport(
        (LayerReport("first", "kept", "linear"), LayerReport("relu", "became", "IF", 1.0)), {"mine": ((0.0, 1.0),)}
    )
    comparison = compare_conversion(given, made, batches(), NUM_STEPS, report.names("became"))
    full = comparison.added_to(report)
    assert (full.layers[0], full.layers[1].threshold) == (report.layers[0], 1.0)
    assert full.layers[1].correlation == comparison.correlation["relu"]
    assert full.layers[1].rate == comparison.rates["relu"]
    assert list(full.curves) == ["mine", "agreement over T", "accuracy over T", "accuracy of the given net"]
    assert full.curves["accuracy over T"][2] == (3.0, comparison.accuracy[2])
    assert full.curves["accuracy of the given net"][-1] == (float(NUM_STEPS), comparison.given_accuracy)
    unlabelled = compare_conversion(given, made, [x for x, _ in batches()], 3, ["relu"])
    assert (unlabelled.accuracy, unlabelled.given_accuracy) == ((), None)
    assert list(unlabelled.added_to(ConversionReport()).curves) == ["agreement over T"]


def test_outputs_that_are_no_scores_have_no_decisions():
    given = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    made = GraphNet(trace_net(given), {"1": IF()})
    comparison = compare_conversion(given, made, [torch.rand(3, 1, 5, 5)], 4, ["1"])
    assert (comparison.agreement, comparison.accuracy) == ((), ())
    assert len(comparison.correlation["1"]) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": ["relu", "gelu"]}, "the given net has no 'gelu'; it has first, relu"),
        ({"num_steps": 0}, "at least 1, got 0"),
        ({"batches": []}, "there are no batches"),
    ],
)
def test_wrong_input_is_told(given, made, change, says):
    arguments = {"batches": batches(), "num_steps": 2, "layers": LAYERS, **change}
    with pytest.raises(OptionError, match=says):
        compare_conversion(given, made, **arguments)


def test_a_layer_of_another_shape_is_told():
    odd = GraphNet(trace_net(nn.Sequential(nn.ReLU())), {"0": nn.Unflatten(1, (3, 2))})
    with pytest.raises(ShapeError, match=r"layer '0': expected \(4, 6\) as in the given net, got \(4, 3, 2\)"):
        compare_conversion(nn.Sequential(nn.ReLU()), odd, [torch.rand(4, 6)], 1, ["0"])


@pytest.mark.parametrize("wrong", [torch.zeros(16, 1, dtype=torch.int64), torch.zeros(15, dtype=torch.int64)])
def test_labels_of_another_shape_are_refused(given, made, wrong):
    with pytest.raises(ShapeError, match=r"one label for each of 16 samples, got \(1"):
        compare_conversion(given, made, [(torch.rand(16, 6), wrong)], NUM_STEPS, LAYERS)
