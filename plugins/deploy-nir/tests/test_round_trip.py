"""Net → file → net: the same numbers, in every bit, over random nets."""

import tempfile
from collections import OrderedDict
from pathlib import Path

import nir
import pytest
import torch
from hypothesis import given, settings
from nir_nets import assert_deployed, inputs, nets

from spikecore import nn
from spikecore.testing.small_nets import settle_weights
from spikecore_deploy_nir import NIR, Delay, PerNeuron, Scale


@given(nets())
@settings(max_examples=25, deadline=None)
def test_random_nets(net_and_shape):
    net, shape = net_and_shape
    x = inputs(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.nir"
        _, loaded = assert_deployed(net, x, path)
        assert nir.read(path).input_type is not None  # and nir's own checks of shapes pass
        assert_deployed(loaded, x, Path(folder) / "again.nir")


def test_what_files_may_hold_and_core_has_no_layer_for(tmp_path):
    """Delays, scales and thresholds for each place of an image."""
    places = tuple(0.25 + 0.125 * (place % 5) for place in range(2 * 3 * 3))
    parts = OrderedDict(
        delay=Delay(torch.arange(18).reshape(2, 3, 3) % 4),
        scale=Scale(torch.arange(18).reshape(2, 3, 3) / 8),
        fire=PerNeuron(nn.LIF(tau=1.5, v_threshold=places, backend="torch")),
        late=Delay(2),
    )
    net = torch.nn.Sequential(parts).eval()
    x = inputs((2, 3, 3))
    spikes, loaded = assert_deployed(net, x, tmp_path / "net.nir")
    assert 0.1 < spikes["fire.neuron"].mean() < 0.9
    assert isinstance(loaded.fire, PerNeuron)
    nn.set_step_mode(loaded, "single")
    with nn.streaming(loaded), torch.no_grad():
        steps = torch.stack([loaded(step) for step in x])
    torch.testing.assert_close(steps, net(x), rtol=0, atol=0)


def test_options_for_each_place(tmp_path):
    """Arrays of the shape of a step; of another shape they are refused."""
    values = 0.25 + 0.125 * (torch.arange(18).reshape(2, 3, 3) % 5)
    places = tuple(tuple(map(tuple, channel)) for channel in values.tolist())
    net = torch.nn.Sequential(nn.LIF(tau=1.5, v_threshold=places, backend="torch"))
    spikes, _ = assert_deployed(net, inputs((2, 3, 3)), tmp_path / "net.nir", keeps_names=False)
    assert 0.1 < spikes["0"].mean() < 0.9
    assert nir.read(tmp_path / "net.nir").nodes["n0"].v_threshold.shape == (2, 3, 3)


def test_recurrence_of_input_and_output_together(tmp_path):
    net = settle_weights(
        torch.nn.Sequential(nn.LinearRecurrent(nn.LIF(v_threshold=1.0, backend="torch"), 5, 5), torch.nn.Linear(5, 3))
    )
    spikes, _ = assert_deployed(net, inputs((5,)), tmp_path / "net.nir", keeps_names=False)
    assert 0.1 < spikes["0.module"].mean() < 0.9


def test_blocks_and_odd_names(tmp_path):
    """A block is three operators; names with dots, digits and keywords become names that every reader takes."""
    norm = torch.nn.BatchNorm2d(3, eps=0.0)
    with torch.no_grad():
        norm.running_mean.fill_(0.25)
        norm.running_var.fill_(4.0)
        norm.weight.fill_(2.0)
        norm.bias.fill_(-0.125)
    block = nn.ConvBNNeuron(torch.nn.Conv2d(2, 3, 3), norm, nn.LIF(v_threshold=0.75, backend="torch"))
    parts = OrderedDict(
        {"class": block, "a_b": nn.Flatten(), "a": torch.nn.Sequential(OrderedDict(b=torch.nn.Linear(12, 3)))}
    )
    net = settle_weights(torch.nn.Sequential(parts))
    x = inputs((2, 4, 4))
    records = NIR().check(net, x)
    assert [record.outcome for record in records] == ["mapped", "folded", "mapped", "mapped", "mapped"]
    artefact = NIR().export(net, x, tmp_path / "net.nir")
    names = list(nir.read(tmp_path / "net.nir").nodes)
    assert all(name.isidentifier() for name in names)
    assert "a_b_2" in names
    right = net(x)
    torch.testing.assert_close(NIR().simulate(artefact, x), right, rtol=0, atol=0)
    torch.testing.assert_close(NIR().load(artefact.path)(x), right, rtol=0, atol=0)
    assert 0.1 < NIR().trace(artefact, x)["class"].mean() < 0.9


@pytest.mark.parametrize("dt", [1e-4, 1e-3, 0.1, 2.0**-10])
@pytest.mark.parametrize("profile", ["euler", "held"])
def test_time_constants_come_back_with_every_dt(tmp_path, dt, profile):
    taus = tuple(1.1 + 0.37 * place for place in range(40))
    net = torch.nn.Sequential(nn.LIF(tau=taus, decay_input=False, backend="torch"))
    x = inputs((40,), num_steps=4)
    NIR(dt=dt, profile=profile).export(net, x, tmp_path / "net.nir")
    loaded = NIR().load(tmp_path / "net.nir")
    tau = next(part for part in loaded.modules() if isinstance(part, nn.LIF)).config.tau
    assert torch.equal(torch.tensor(tau), torch.tensor(taus))
