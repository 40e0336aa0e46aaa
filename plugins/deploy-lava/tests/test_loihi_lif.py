"""The neuron against 64-bit integers: spikes, currents and potentials in every bit; and its training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loihi import loihi

from spikecore import create, nn
from spikecore.errors import OptionError
from spikecore_deploy_lava import LoihiLIF

RANGES = {"small": 400, "large": 6000, "wraps and saturates": 2**17}


def assert_equal_bits(sums, dtype, du, dv, vth, bias=0, v=0, scale=1):
    neuron = LoihiLIF(
        du=du,
        dv=dv,
        v_threshold=vth / scale,
        bias=bias / scale,
        v_init=v / 64 / scale,
        scale=scale,
        record=("u", "v"),
        backend="torch",
    )
    out = neuron(torch.tensor(sums / scale, dtype=dtype).unsqueeze(1))
    spikes, u, v = loihi(sums, du, dv, vth, bias, v)
    recorded = {name: value.numpy()[:, 0] * 64 * scale for name, value in neuron.recorded.items()}
    assert np.array_equal(out.numpy()[:, 0], spikes)
    assert np.array_equal(recorded["u"], u)
    assert np.array_equal(recorded["v"], v)
    return spikes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reach", RANGES.values(), ids=RANGES)
def test_every_bit(reach, dtype):
    rng, shares = np.random.default_rng(reach), []
    for _ in range(12):
        du, dv = (int(rng.integers(0, 4096)) for _ in range(2))
        vth, bias = int(rng.integers(0, min(2 * reach, 2**17))), int(rng.integers(-200, 200))
        sums = rng.integers(-reach // 3, reach, (40, 32))
        spikes = assert_equal_bits(sums, dtype, du, dv, vth, bias, int(rng.integers(-9000, 9000)))
        shares.append(spikes.mean())
    assert 0.05 < np.mean(shares) < 0.95


def test_the_limits_are_met():
    """u wraps, v saturates: at sums that only just do so, and those that only just do not."""
    for top in (2**17, 2**17 + 1, 2**17 - 1):
        for sign in (-1, 1):
            sums = np.array([[sign * top], [0], [sign * 5], [sign * top]])
            for dtype in (torch.float32, torch.float64):
                assert_equal_bits(sums, dtype, 0, 0, 2**17 - 1)


@given(
    du=st.integers(0, 4095),
    dv=st.integers(0, 4096),
    vth=st.integers(0, 2000),
    scale=st.sampled_from((1, 2, 64, 1024)),
    sums=st.lists(st.integers(-2000, 2000), min_size=1, max_size=20),
)
@settings(max_examples=40, deadline=None)
def test_scales_change_nothing(du, dv, vth, scale, sums):
    assert_equal_bits(np.array(sums)[:, None], torch.float32, du, dv, vth, 3, -77, scale)


def test_a_tie_does_not_fire():
    assert LoihiLIF(dv=0, scale=1, v_threshold=5.0)(torch.tensor([[5.0], [0.0], [1.0]])).flatten().tolist() == [0, 0, 1]


def test_inputs_are_rounded_to_whole_units():
    neuron = LoihiLIF(dv=0, scale=4, v_threshold=100.0, record=("v",), backend="torch")
    neuron(torch.tensor([[0.3], [0.3], [-0.7]]))
    assert neuron.recorded["v"].flatten().tolist() == [0.25, 0.5, -0.25]


def test_a_scale_that_is_no_power_of_two_is_refused():
    with pytest.raises(OptionError, match="power of two"):
        LoihiLIF(scale=48)


def test_the_gradient_is_that_of_the_equations_without_rounding():
    """Straight through: of a net of real numbers that lies near, as far as rounding allows."""
    torch.manual_seed(0)
    x = torch.randn(12, 2, 5, dtype=torch.float64) * 0.5
    slopes = []
    for neuron in (
        LoihiLIF(du=2047, dv=1024, scale=2**14, backend="torch", surrogate="sigmoid"),
        nn.CubaLIF(c_decay=0.5, v_decay=0.75, v_threshold=1.0, fires="above", backend="torch", surrogate="sigmoid"),
    ):
        given = x.clone().requires_grad_()
        out = neuron(given)
        assert 0.05 < float(out.detach().mean()) < 0.9
        slopes.append(torch.autograd.grad((out * torch.arange(1.0, 6.0)).sum(), given)[0])
    assert float(slopes[1].abs().max()) > 0.1
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-2)


def test_a_net_learns_with_it():
    """Quantization-aware: the forward pass is the chip's, so what is learnt is what the chip computes."""
    torch.manual_seed(0)
    digits = create("dataset", "digits").split("train")
    images, labels = digits.images[:400].flatten(1), digits.labels[:400]
    spikes = (torch.rand(6, 400, 64) < images).float()
    net = torch.nn.Sequential(torch.nn.Linear(64, 32), LoihiLIF(backend="torch"), torch.nn.Linear(32, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(net(spikes).mean(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]
