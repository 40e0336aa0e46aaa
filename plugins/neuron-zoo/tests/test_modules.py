"""The neurons that are torch modules, against numpy written anew; their own options and faults."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikecore_neuron_zoo.noisy import coloured_noise

from spikecore.errors import BackendError, OptionError, ShapeError, SpikeError, StateError
from spikecore.nn import LIF, Sigmoid, reset_state, set_step_mode, streaming
from spikecore.registry import create


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def filled(name, seed=0, **options):
    """A neuron in float64 with random parameters."""
    neuron = create("neuron", name, **options).double()
    for index, (key, parameter) in enumerate(neuron.named_parameters()):
        if "param_" not in key:  # options stay in their range
            parameter.data.copy_(normal(*parameter.shape, seed=seed + index + 10))
    return neuron


# PSN family


def test_psn_is_a_product_over_time():
    neuron, x = filled("psn", num_steps=4), normal(4, 3, 2, 5)
    h = np.einsum("ij,jbcn->ibcn", neuron.weight.detach(), x) + neuron.bias.detach().numpy()[:, None, None, None]
    assert np.array_equal(neuron(x).detach(), h >= 0)


def masked(weight, order, masking):
    size = len(weight)
    full = weight.copy()
    for i in range(size):
        for j in range(size):
            if not i - order < j <= i:
                full[i, j] *= 1 - masking
    return full


@given(order=st.integers(1, 5), masking=st.sampled_from([0.0, 0.25, 1.0]))
@settings(deadline=None, max_examples=20)
def test_masked_psn_fades_out_what_is_later_or_too_old(order, masking):
    neuron, x = filled("masked_psn", num_steps=5, order=order, masking=masking), normal(5, 3, 2)
    h = np.einsum("ij,jbn->ibn", masked(neuron.weight.detach().numpy(), order, masking), x)
    assert np.array_equal(neuron(x).detach(), h + neuron.bias.detach().numpy()[:, None, None] >= 0)


def test_masked_psn_runs_step_by_step_once_it_is_causal():
    neuron, x = filled("masked_psn", num_steps=5, order=3), normal(5, 3, 2)
    neuron.set_lambda(1.0)
    whole = neuron(x)
    with streaming(neuron):
        assert torch.equal(torch.cat([neuron(x[:2]), neuron(x[2:])]), whole)
        assert torch.equal(neuron(x), whole)  # the next sequence
        neuron(x[:2])
        with pytest.raises(StateError, match="reset_state"):
            neuron(x[:4])
        reset_state(neuron)
        assert torch.equal(neuron(x), whole)
    set_step_mode(neuron, "single")
    assert torch.equal(torch.stack([neuron(step) for step in x]), whole)
    assert "masking" in neuron.state_dict()
    for value in (-0.1, 1.5):
        with pytest.raises(OptionError, match="lambda"):
            neuron.set_lambda(value)
    reset_state(neuron)
    neuron.set_lambda(0.5)
    with pytest.raises(OptionError, match="lambda is 1"):
        neuron(x[0])


@given(order=st.integers(1, 6), num_steps=st.integers(0, 7))
@settings(deadline=None, max_examples=25)
def test_sliding_psn_is_a_causal_filter(order, num_steps):
    neuron, x = filled("sliding_psn", order=order), normal(num_steps, 3, 2)
    weight, wanted = neuron.weight.detach().numpy(), np.zeros((num_steps, 3, 2))
    for t in range(num_steps):
        for back in range(min(order, t + 1)):
            wanted[t] += weight[order - 1 - back] * x[t - back].numpy()
    assert np.array_equal(neuron(x).detach(), wanted + neuron.bias.item() >= 0)


def test_sliding_psn_starts_from_powers_of_two_or_at_random():
    assert create("neuron", "sliding_psn", order=3).weight.tolist() == [0.25, 0.5, 1.0]
    torch.manual_seed(0)
    assert create("neuron", "sliding_psn", order=3, exp_init=False).weight.abs().max() < 1


@pytest.mark.parametrize("name", ["psn", "masked_psn"])
def test_another_number_of_steps_is_refused(name):
    neuron = create("neuron", name, num_steps=4)
    for num_steps in (0, 3, 5):
        with pytest.raises(ShapeError, match=f"num_steps=4 steps, got {num_steps}"):
            neuron(torch.zeros(num_steps, 2, 3))
    with pytest.raises(OptionError, match="num_steps"):
        create("neuron", name)


def test_psn_does_not_run_step_by_step():
    with pytest.raises(OptionError, match="step_mode 'multi', got 'single'"):
        create("neuron", "psn", num_steps=4, step_mode="single")
    neuron = create("neuron", "psn", num_steps=4)
    set_step_mode(neuron, "single")
    with pytest.raises(SpikeError, match="single"):
        neuron(torch.zeros(2, 3))
    set_step_mode(neuron, "multi")
    x = normal(4, 2, 3).float()
    with streaming(neuron):  # every call is a window of its own
        assert torch.equal(neuron(x), neuron(x))


# MPBN


def mpbn(x, neuron, reset, residual, statistics=None):
    """Spikes, and running statistics after every step."""
    c, gamma, beta = neuron.config, neuron.weight.detach().numpy(), neuron.bias.detach().numpy()
    shape = (1, -1) + (1,) * (x.ndim - 3)
    axes = (0, *range(2, x.ndim - 1))
    v, outs, running = np.full(x.shape[1:], c.v_reset), [], []
    for current in x:
        leak = (v - c.v_reset) / c.tau
        h = v - leak + (current / c.tau if c.decay_input else current)
        mean, var = statistics or (h.mean(axes), h.var(axes))
        running.append((mean, var * h.size / (h.size - len(gamma))))
        n = (h - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + c.eps) * gamma.reshape(shape) + beta.reshape(shape)
        s = (n >= c.v_threshold).astype(float)
        m = n if residual == "normalized" else h
        v = np.where(s == 1, c.v_reset, m) if reset == "hard" else m - s * c.v_threshold
        outs.append(s)
    return np.stack(outs), running


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)])
@pytest.mark.parametrize("residual", ["normalized", "raw"])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_mpbn_normalises_the_potential_over_the_batch(reset, residual, shape):
    options = {"tau": 3.0, "v_threshold": 0.4, "v_reset": 0.1, "decay_input": True, "momentum": 0.2}
    neuron = filled("mpbn_lif", num_features=3, reset=reset, residual=residual, **options)
    x = normal(6, 7, *shape) * 2
    wanted, running = mpbn(x.numpy(), neuron, reset, residual)
    assert np.array_equal(neuron(x).detach(), wanted)
    mean, var = np.zeros(3), np.ones(3)
    for batch_mean, batch_var in running:
        mean, var = 0.8 * mean + 0.2 * batch_mean, 0.8 * var + 0.2 * batch_var
    np.testing.assert_allclose(neuron.running_mean, mean, rtol=1e-9)
    np.testing.assert_allclose(neuron.running_var, var, rtol=1e-9)
    neuron.eval()
    wanted, _ = mpbn(x.numpy(), neuron, reset, residual, (mean, var))
    assert np.array_equal(neuron(x).detach(), wanted)
    np.testing.assert_allclose(neuron.running_mean, mean, rtol=1e-9)


def test_mpbn_folds_into_thresholds():
    neuron = filled("mpbn_lif", num_features=3, residual="raw", tau=3.0, learn_threshold=True)
    neuron.v_threshold.data.copy_(torch.tensor([0.8, 1.0, 1.2]))  # learned since
    neuron.weight.data.abs_()
    x = normal(20, 9, 3, 4) * 2
    neuron(x)
    neuron.eval()
    folded = neuron.folded()
    assert isinstance(folded, LIF)
    folded.double()
    spikes = neuron(x)
    assert 0.05 < spikes.mean() < 0.95
    assert torch.equal(folded(x.float()), neuron.float()(x.float()))
    for options in ({"residual": "normalized"}, {"residual": "raw", "reset": "soft"}):
        with pytest.raises(OptionError, match="folds"):
            create("neuron", "mpbn_lif", num_features=3, **options).folded()
    neuron.weight.data[1] = -0.5
    with pytest.raises(OptionError, match=r"smallest weight -0\.5"):
        neuron.folded()


def test_mpbn_takes_half_precision_and_keeps_single_statistics():
    neuron = create("neuron", "mpbn_lif", num_features=3)
    out = neuron(torch.randn(4, 8, 3, dtype=torch.float16))
    assert out.dtype == torch.float16
    assert neuron.running_mean.dtype == torch.float32
    assert neuron.running_mean.abs().max() > 0


def test_mpbn_learns_one_threshold_per_channel():
    neuron = filled("mpbn_lif", num_features=3, learn_threshold=True)
    neuron(normal(4, 8, 3)).sum().backward()
    assert neuron.v_threshold.grad.abs().min() > 0
    with pytest.raises(ShapeError, match="3 channels"):
        neuron(torch.zeros(2, 4, 5, dtype=torch.float64))


# Intra-layer connections


def connected(x, neuron, charge):
    """Spikes of a layer whose steps are fed by `charge(state, c) -> (h, state)`, hard reset."""
    config, weight = neuron.config, neuron.weight.detach().numpy()
    size = config.group_size
    matrix = np.zeros((x.shape[2], x.shape[2]))
    for group, block in enumerate(weight):
        matrix[group * size : (group + 1) * size, group * size : (group + 1) * size] = block
    state, spikes, outs = {"v": np.full(x.shape[1:], config.v_reset), "i": np.zeros(x.shape[1:])}, None, []
    for current in x:
        if spikes is not None:
            current = current + spikes @ matrix.T + neuron.bias.detach().numpy()
        h, state = charge(state, current)
        spikes = (h >= config.v_threshold).astype(float)
        state["v"] = np.where(spikes == 1, config.v_reset, h)
        outs.append(spikes)
    return np.stack(outs)


def plain(state, c):
    return state["v"] + c, state


def leaky(state, c):
    return 0.75 * state["v"] + 0.25 * 0.1 + c, state


def current_based(state, c):
    state["i"] = 0.5 * state["i"] + c
    return 0.75 * state["v"] + state["i"], state


@pytest.mark.parametrize(("name", "charge"), [("ilc_if", plain), ("ilc_lif", leaky), ("ilc_cuba_lif", current_based)])
def test_intra_layer_connections_feed_the_next_step(name, charge):
    neuron = filled(name, num_groups=2, group_size=3, v_threshold=0.6, v_reset=0.1)
    x = normal(8, 20, 6)
    wanted = connected(x.numpy(), neuron, charge)
    assert np.array_equal(neuron(x).detach(), wanted)
    neuron.weight.data.zero_()
    assert not np.array_equal(neuron(x).detach(), wanted)


@pytest.mark.parametrize("name", ["ilc_if", "ilc_lif", "ilc_cuba_lif"])
def test_connections_refuse_what_does_not_fit(name):
    neuron = create("neuron", name, num_groups=2, group_size=3)
    with pytest.raises(ShapeError, match="6 channels"):
        neuron(torch.zeros(4, 2, 5))
    with pytest.raises(OptionError, match="num_groups"):
        create("neuron", name, group_size=3)


# Noise


@pytest.mark.parametrize("num_steps", [1, 2, 7, 64])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_coloured_noise_has_unit_variance(beta, num_steps):
    torch.manual_seed(0)
    noise = coloured_noise(beta, num_steps, 40000, torch.zeros((), dtype=torch.float64))
    assert noise.shape == (num_steps, 40000)
    assert noise.var(unbiased=False).item() == pytest.approx(1.0, rel=0.03)
    assert noise.mean().abs() < 0.02


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_its_power_falls_as_one_over_f_to_the_beta(beta):
    torch.manual_seed(0)
    noise = coloured_noise(beta, 256, 4000, torch.zeros((), dtype=torch.float64))
    power = torch.fft.rfft(noise, dim=0).abs().square().mean(1)[1:-1].log()
    frequency = torch.arange(1, 128, dtype=torch.float64).log()
    slope = ((frequency - frequency.mean()) * power).sum() / (frequency - frequency.mean()).square().sum()
    assert slope.item() == pytest.approx(-beta, abs=0.02)


NOISY = [("noisy_cuba_lif", {"num_features": 6}), ("noisy_ilc_cuba_lif", {"num_groups": 2, "group_size": 3})]


@pytest.mark.parametrize(("name", "size"), NOISY)
def test_noise_surrounds_the_neuron_in_training_only(name, size):
    torch.manual_seed(0)
    neuron, x = create("neuron", name, sigma=0.5, **size).double(), normal(8, 20, 6)
    clean = neuron.neuron(x)
    assert torch.equal(neuron.eval()(x), clean)
    noisy = neuron.train()(x)
    outside = noisy - noisy.round()
    assert torch.equal(outside[:, :1].expand_as(outside).round(decimals=9), outside.round(decimals=9))  # whole batch
    assert (noisy.round() != clean).double().mean() > 0.05  # noise inside
    spread = torch.cat([neuron(torch.zeros(200, 1, 6).double()).flatten() for _ in range(5)])
    spread = spread - spread.round()
    assert spread.std().item() == pytest.approx(0.5 / 6**0.5, rel=0.1)
    torch.manual_seed(3)
    first = neuron(x)
    torch.manual_seed(3)
    assert torch.equal(neuron(x), first)


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize(("name", "size"), NOISY)
def test_noise_drawn_ahead_lasts_for_its_steps(name, size, beta):
    torch.manual_seed(0)
    neuron, x = create("neuron", name, noise_beta=beta, num_steps=8, **size).double(), normal(8, 4, 6)
    torch.manual_seed(5)
    whole = neuron(x)
    torch.manual_seed(5)
    with streaming(neuron):
        assert torch.equal(torch.cat([neuron(x[:3]), neuron(x[3:])]), whole)
        with pytest.raises(StateError, match="num_steps=8"):
            neuron(x[:1])
    set_step_mode(neuron, "single")
    torch.manual_seed(5)
    assert torch.equal(torch.stack([neuron(step) for step in x]), whole)
    reset_state(neuron)
    assert not torch.equal(torch.stack([neuron(step) for step in x]), whole)
    set_step_mode(neuron, "multi")
    with pytest.raises(StateError, match="num_steps=8"):
        neuron(normal(9, 4, 6))


@pytest.mark.parametrize(
    ("name", "size"),
    [("noisy_cuba_lif", {"num_features": 6}), ("noisy_ilc_cuba_lif", {"num_groups": 2, "group_size": 3})],
)
@pytest.mark.parametrize("num_steps", [0, 8])
def test_noise_for_an_empty_batch(name, size, num_steps):
    assert create("neuron", name, num_steps=num_steps, **size)(torch.zeros(8, 0, 6)).shape == (8, 0, 6)


def test_correlated_noise_needs_the_length_of_its_sequence():
    with pytest.raises(OptionError, match="num_steps"):
        create("neuron", "noisy_cuba_lif", num_features=3, noise_beta=1.0)
    with pytest.raises(ShapeError, match="3 channels"):
        create("neuron", "noisy_cuba_lif", num_features=3)(torch.zeros(2, 4, 5))


# All of them


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("psn", {"num_steps": 4}),
        ("masked_psn", {"num_steps": 4, "masking": 0.3}),
        ("sliding_psn", {"order": 3}),
        ("mpbn_lif", {"num_features": 4, "learn_threshold": True}),
        ("mpbn_lif", {"num_features": 4, "reset": "soft", "residual": "raw"}),
        ("ilc_cuba_lif", {"num_groups": 2, "group_size": 2, "c_decay": 0.3}),
        ("ilc_if", {"num_groups": 2, "group_size": 2}),
        ("ilc_lif", {"num_groups": 2, "group_size": 2, "reset": "soft"}),
    ],
)
def test_the_smooth_gradient_is_that_of_finite_differences(name, options):
    neuron = filled(name, surrogate=Sigmoid(spiking=False), **options)
    x = normal(4, 3, 4).requires_grad_()
    parameters = list(neuron.parameters())
    assert parameters
    assert torch.autograd.gradcheck(lambda x, *_: neuron(x), (x, *parameters))


@pytest.mark.parametrize("name", ["psn", "mpbn_lif", "ilc_if"])
def test_only_torch_runs_them(name):
    required = {"psn": {"num_steps": 4}, "mpbn_lif": {"num_features": 4}}
    options = required.get(name, {"num_groups": 2, "group_size": 2})
    neuron = create("neuron", name, backend="auto", **options)
    neuron(torch.zeros(4, 2, 4))
    assert neuron.chosen.backend == "torch"
    assert "elementwise" not in neuron.chosen.reason
    with pytest.raises(BackendError, match="'cpu'"):
        create("neuron", name, backend="cpu", **options)
