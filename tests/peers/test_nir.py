"""Files of the deployer `nir` in the readers of others, and files of theirs in ours."""

import contextlib
import io
from collections import OrderedDict

import pytest
import torch

from spikecore import nn
from spikecore.analysis import record_spikes
from spikecore.testing.small_nets import settle_weights
from tests.peers.compare import require

nir = require("nir")
require("nirtorch")
deploy = require("spikecore_deploy_nir")

LIF = {"backend": "torch", "v_threshold": 0.5}


def dense(neuron):
    parts = OrderedDict(first=torch.nn.Linear(4, 8), hidden=neuron(), second=torch.nn.Linear(8, 3), out=neuron())
    return settle_weights(torch.nn.Sequential(parts), low=-40, high=64), (4,)


def image():
    parts = [
        nn.Conv2d(1, 3, 3, padding=1),
        nn.LIF(**LIF),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.LIF(**LIF),
    ]
    parts += [nn.Flatten(), torch.nn.Linear(16, 3), nn.LIF(**LIF)]
    return settle_weights(torch.nn.Sequential(*parts), low=-60, high=60), (1, 4, 4)


def loop():
    neuron = nn.CubaLIF(backend="torch", v_threshold=2.0)
    parts = OrderedDict(first=torch.nn.Linear(4, 8), rec=nn.LateralRecurrent(neuron, 8), second=torch.nn.Linear(8, 3))
    return settle_weights(torch.nn.Sequential(parts), low=-60, high=60), (4,)


NETS = {
    "lif": lambda: dense(lambda: nn.LIF(tau=2.0, **LIF)),
    "lif, tau 3": lambda: dense(lambda: nn.LIF(tau=3.0, **LIF)),
    "lif, fires above": lambda: dense(lambda: nn.LIF(tau=4.0, fires="above", **LIF)),
    "lif, input not scaled": lambda: dense(
        lambda: nn.LIF(tau=3.0, decay_input=False, v_threshold=2.0, backend="torch")
    ),
    "cuba": lambda: dense(lambda: nn.CubaLIF(c_decay=0.3, v_decay=0.9, v_threshold=2.0, backend="torch")),
    "if": lambda: dense(lambda: nn.IF(backend="torch")),
    "loop": loop,
    "image": image,
}


def by_norse(path, x):
    """norse: any dt, r of 1, hard reset to 0; no average pool."""
    norse = require("norse.torch")
    net = norse.from_nir(nir.read(path), dt=2.0**-10, ignore_warnings=True)
    return steps_of(net, x)


def by_snntorch(path, x):
    """snntorch: dt is 1e-4, one threshold; its IF is another neuron."""
    reader = require("snntorch.import_nir")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        net = reader.import_from_nir(nir.read(path))
    return steps_of(net, x)


@torch.no_grad()
def steps_of(net, x):
    state, outs = None, []
    for now in x:
        result = net(now) if state is None else net(now, state)
        out, state = result if isinstance(result, tuple) else (result, None)
        outs.append(out)
    return torch.stack(outs)


def sample_by_sample(read, path, x):
    """Readers flatten as NIR says, without the batch."""
    return torch.stack([read(path, x[:, sample]) for sample in range(x.shape[1])], 1)


READERS = {
    by_norse: (2.0**-10, ("lif", "lif, tau 3", "lif, fires above", "cuba", "if", "loop")),
    by_snntorch: (1e-4, ("lif", "lif, tau 3", "lif, fires above", "lif, input not scaled", "cuba", "image")),
}


@pytest.mark.parametrize(("read", "name"), [(read, name) for read, (_, names) in READERS.items() for name in names])
def test_readers_give_every_spike_of_the_net(tmp_path, read, name):
    net, shape = NETS[name]()
    x = torch.randint(0, 2, (40, 4, *shape), generator=torch.Generator().manual_seed(0)).float()
    out, spikes = record_spikes(net, x)
    assert all(0.02 < layer.mean() < 0.98 for layer in spikes.values())
    path = tmp_path / "net.nir"
    deploy.NIR(dt=READERS[read][0]).export(net, x, path)
    theirs = sample_by_sample(read, path, x) if len(shape) > 1 else read(path, x)
    assert int((theirs != out).sum()) == 0


def test_a_file_of_norse_is_read(tmp_path):
    norse = require("norse.torch")
    parts = [
        torch.nn.Linear(4, 8),
        norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=torch.full((8,), 500.0)), dt=1e-3),
    ]
    net = norse.SequentialState(*settle_weights(torch.nn.Sequential(*parts), low=0, high=200))
    x = torch.randint(0, 2, (30, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    right = steps_of(net, x)
    weights = net[0]
    ones = torch.ones(8).numpy()
    lif = nir.LIF(tau=0.002 * ones, r=ones, v_leak=0 * ones, v_threshold=ones)
    affine = nir.Affine(weights.weight.detach().numpy(), weights.bias.detach().numpy())
    nir.write(tmp_path / "net.nir", nir.NIRGraph.from_list(affine, lif))
    loaded = deploy.NIR(dt=1e-3).load(tmp_path / "net.nir")
    assert 0.1 < right.mean() < 0.9
    assert int((loaded(x) != right).sum()) == 0


def test_a_file_of_snntorch_is_read(tmp_path):
    snntorch, writer = require("snntorch"), require("snntorch.export_nir")
    torch.manual_seed(0)
    options = {"beta": 0.75 * torch.ones(8), "threshold": torch.ones(8), "reset_mechanism": "zero", "init_hidden": True}
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), snntorch.Leaky(reset_delay=False, **options))
    settle_weights(net, low=-20, high=88)
    with contextlib.redirect_stdout(io.StringIO()):
        graph = writer.export_to_nir(net, torch.zeros(4))
    nir.write(tmp_path / "net.nir", graph)
    x = torch.randint(0, 2, (30, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    right = steps_of(net, x)
    loaded = deploy.NIR(dt=1e-4).load(tmp_path / "net.nir")
    assert 0.1 < right.mean() < 0.9
    assert int((loaded(x) != right).sum()) == 0
