"""Encoders against spikingjelly's: latency exactly, Poisson in its statistics."""

import pytest
import torch

from spikecore import nn
from tests.peers.compare import require

theirs = require("spikingjelly.activation_based.encoding")


@pytest.mark.parametrize("curve", ["linear", "log"])
@pytest.mark.parametrize("num_steps", [2, 5, 16])
def test_latency_is_equal(curve, num_steps):
    x = torch.rand(20, 30, generator=torch.Generator().manual_seed(num_steps), dtype=torch.float64)
    x[0, :2] = torch.tensor([0.0, 1.0])
    encoder = theirs.LatencyEncoder(num_steps, curve)
    their = torch.stack([encoder(x) for _ in range(num_steps)])
    ours = nn.Latency(num_steps=num_steps, curve=curve)(x)
    assert torch.equal(ours, their.to(ours))
    assert ours.sum(0).eq(1).all()


def test_poisson_has_the_same_rates():
    num_steps, samples = 64, 2000
    x = torch.linspace(0.05, 0.95, 10).expand(samples, 10)
    torch.manual_seed(0)
    encoder = theirs.PoissonEncoder()
    their = torch.stack([encoder(x) for _ in range(num_steps)]).float()
    ours = nn.Poisson(num_steps=num_steps)(x, torch.Generator().manual_seed(1))
    spread = (x[0] * (1 - x[0]) / (num_steps * samples)).sqrt()
    for spikes in (ours, their):
        assert ((spikes.mean((0, 1)) - x[0]).abs() < 5 * spread).all()
        # The number of spikes is binomial: its variance is T x (1 - x), and steps do not know of each other.
        variance = spikes.sum(0).var(0)
        torch.testing.assert_close(variance, num_steps * x[0] * (1 - x[0]), rtol=0.15, atol=0)
    assert ((ours.mean((0, 1)) - their.mean((0, 1))).abs() < 5 * 2**0.5 * spread).all()


def test_the_ends_of_poisson():
    x = torch.tensor([[0.0, 1.0]]).expand(500, 2)
    ours = nn.Poisson(num_steps=8)(x, torch.Generator().manual_seed(0))
    encoder = theirs.PoissonEncoder()
    their = torch.stack([encoder(x) for _ in range(8)]).float()
    assert torch.equal(ours, x.expand(8, 500, 2))
    assert torch.equal(ours[..., 1], their[..., 1])
