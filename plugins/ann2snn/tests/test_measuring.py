"""The report's measurement against core's, which goes step by step, and against counts of single parts."""

import pytest
import torch
from torch import nn

from spikecore.analysis import compare_conversion, count_operations
from spikecore.nn import GraphNet
from spikecore_ann2snn.calibration import calibrate
from spikecore_ann2snn.converter import Ann2SNN
from spikecore_ann2snn.measuring import measure
from spikecore_ann2snn.preparation import Prepared, fold_norms
from spikecore_ann2snn.recipes import Recipe

from .nets import Everything, settled

NUM_STEPS = 11
X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def converted():
    """The prepared net, the new one with its thresholds apart, and the names of its neurons."""
    given, folded = fold_norms(Prepared.of(settled(Everything()), X))
    recipe = Recipe(Ann2SNN(recipe="max").config, given, folded)
    calibrate(given.graph, X, [X], recipe.observe())
    plans = {node.name: recipe.plan(node) for node in given.graph.layers}
    modules = {name: plan.module for name, plan in plans.items() if plan.module is not None}
    return given.graph, GraphNet(given.graph, modules), [name for name, plan in plans.items() if plan.is_neuron]


@pytest.mark.parametrize("at_once", [None, 3, 13])
def test_it_is_what_comparing_step_by_step_gives(converted, at_once):
    graph, made, neurons = converted
    fidelity, numbers = measure(graph, made, neurons, X, NUM_STEPS, False, at_once)
    right = compare_conversion(GraphNet(graph, {}, "single"), made, [X], NUM_STEPS, neurons)
    assert len(neurons) == 5
    for name in neurons:
        assert fidelity.correlation[name] == pytest.approx(right.correlation[name], abs=1e-4)
        assert len(set(fidelity.correlation[name])) > 5
        assert fidelity.rates[name] == pytest.approx(right.rates[name], abs=1e-3)
        assert 0.01 < fidelity.rates[name] < 0.99
    assert fidelity.agreement == right.agreement
    assert fidelity.num_samples == 3
    counted = count_operations(GraphNet(graph, {}, "single"), X, has_time=False)
    assert numbers["MACs of the given net"] == counted.total("dense") > 0
    # Behind neurons whose spikes are not 1 every product is one of spikes; only the first layer takes values.
    dense = count_operations(made, X.expand(NUM_STEPS, *X.shape)).total("dense")
    first = 6 * (36 * 9 + 24 * 6 + 4 * 4)  # a 3×3 kernel on 8²: places inside, at the edges, in the corners
    assert numbers[f"MACs of the new net, T = {NUM_STEPS}"] == NUM_STEPS * first
    assert 0 < numbers[f"SynOps of the new net, T = {NUM_STEPS}"] < dense


def test_a_constant_activation_has_no_correlation():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(0.7)
    x = torch.rand(8, 3)
    _, report = Ann2SNN(recipe="max", T=(6,), measure=8).convert(net, x[:1], [x])
    assert report.layers[1].correlation == (0.0,) * 6
