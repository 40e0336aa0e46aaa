"""Nets, inputs and comparisons that the tests share."""

from pathlib import Path

import torch

from spikecore import nn
from spikecore.analysis import record_spikes
from spikecore.interfaces import Artefact
from spikecore.testing.small_nets import settle_weights
from spikecore_deploy_lynxi import Lynxi


def inputs(shape, seed=0, num_steps=7, batch=3):
    """Spikes `[T, B, *shape]`."""
    return torch.randint(0, 2, (num_steps, batch, *shape), generator=torch.Generator().manual_seed(seed)).float()


def small_net():
    """A linear layer and a neuron that spikes."""
    return settle_weights(torch.nn.Sequential(torch.nn.Linear(5, 4), nn.LIF(tau=3.0, v_threshold=0.4, backend="torch")))


def exported(net, x, folder, **options):
    """The artefact, at `folder/net`."""
    return Lynxi(**options).export(net, x, Path(folder) / "net")


def assert_equal_bits(net, x, folder, runs="torchscript", other=None):
    """Every neuron layer and the output, on another input than that of the export; gives the spikes."""
    artefact = exported(net, x, folder, runs=runs)
    x = x if other is None else other
    out, spikes = record_spikes(net, x)
    deployer, fresh = Lynxi(runs=runs), Artefact(artefact.path)
    traced = deployer.trace(fresh, x)
    assert list(traced) == list(spikes)
    for name, right in spikes.items():
        torch.testing.assert_close(traced[name], right, rtol=0, atol=0, msg=f"{runs}, layer {name}")
    torch.testing.assert_close(deployer.simulate(fresh, x), out, rtol=0, atol=0, msg=runs)
    return spikes
