"""What the publications say these neurons do: firing patterns, f-I curves, closed forms."""

import math

import numpy as np
import pytest
import torch

from spikecore.registry import create

# Izhikevich, Dynamical systems in neuroscience (2007), sections 8.2.1–8.2.3: C k v_r v_t v_peak a b c d
PUBLISHED = {
    "regular spiking": (100, 0.7, -60, -40, 35, 0.03, -2, -50, 100),
    "intrinsically bursting": (150, 1.2, -75, -45, 50, 0.01, 5, -56, 130),
    "chattering": (50, 1.5, -60, -40, 25, 0.03, 1, -40, 150),
}


def spike_times(neuron, current, settle, num_steps):
    """Steps after the onset of a constant current at which it fires."""
    x = torch.zeros(settle + num_steps, 1, 1, dtype=torch.float64)
    x[settle:] = current
    times = neuron(x).flatten().nonzero().flatten().numpy() - settle
    return times[times > 0]


def published(pattern, current):
    c, k, v_r, v_t, v_peak, a, b, v_reset, d = PUBLISHED[pattern]
    neuron = create(
        "neuron",
        "izhikevich",
        tau=c,
        a0=k,
        v_rest=v_r,
        v_c=v_t,
        v_threshold=v_peak,
        tau_w=1 / a,
        a=b,
        b=d,
        v_reset=v_reset,
    )
    return spike_times(neuron, current, 300, 1500)


def as_published(pattern, current):
    """The program of the book: Euler with 1 ms, u from the potential before the step."""
    c, k, v_r, v_t, v_peak, a, b, v_reset, d = PUBLISHED[pattern]
    v, u, times = v_reset, 0.0, []
    for t in range(1800):
        i = current if t >= 300 else 0.0
        v, u = v + (k * (v - v_r) * (v - v_t) - u + i) / c, u + a * (b * (v - v_r) - u)
        if v >= v_peak:
            v, u = v_reset, u + d
            times.append(t - 300)
    return [t for t in times if t > 0]


BOOK = [202, 349, 498, 648, 795, 942]


@pytest.mark.parametrize(("update", "times"), [("simultaneous", BOOK), ("sequential", [201, 343, 489, 630, 774, 918])])
def test_the_order_of_updates(update, times):
    """The regular spiking set at 70 pA from step 100 on: the times of the book's program, and of the other order."""
    c, k, v_r, v_t, v_peak, a, b, v_reset, d = PUBLISHED["regular spiking"]
    options = {"tau": c, "a0": k, "v_rest": v_r, "v_c": v_t, "v_threshold": v_peak, "tau_w": 1 / a, "a": b, "b": d}
    neuron = create("neuron", "izhikevich", **options, v_reset=v_reset, v_init=v_r, update=update)
    x = torch.zeros(1000, 1, 1, dtype=torch.float64)
    x[100:] = 70.0
    fired = neuron(x).flatten().nonzero().flatten().tolist()
    assert fired[:6] == times


def test_regular_spiking_adapts_and_has_a_rheobase():
    assert len(published("regular spiking", 50)) == 0
    for current in (70, 100, 300):
        intervals = np.diff(published("regular spiking", current))
        assert intervals[0] <= intervals[-3:].min()
        assert intervals[3:].max() - intervals[3:].min() <= 0.06 * intervals.mean() + 2
    rates = [len(published("regular spiking", current)) for current in (60, 100, 200, 400, 700)]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] / 10


def test_intrinsically_bursting_begins_with_a_burst():
    intervals = np.diff(published("intrinsically bursting", 500))
    assert intervals[0] < intervals[1:].min() / 3
    assert np.ptp(intervals[1:]) < 0.1 * intervals.mean()
    burst = np.diff(published("intrinsically bursting", 700))[:2]
    assert burst.max() < 20


def test_chattering_fires_rhythmic_bursts():
    intervals = np.diff(published("chattering", 200))
    within, between = intervals[::2], intervals[1::2]
    assert within.max() < 12
    assert between.min() > 80
    assert np.ptp(between) < 5


@pytest.mark.parametrize(("pattern", "current"), [(name, i) for name in PUBLISHED for i in (200, 500)])
def test_its_rate_is_that_of_the_published_program(pattern, current):
    ours, theirs = published(pattern, current), as_published(pattern, current)
    assert abs(len(ours) - len(theirs)) <= 0.12 * len(theirs) + 1


# Naud, Marcille, Clopath and Gerstner, Firing patterns in the adaptive exponential integrate-and-fire model (2008),
# table 1: C (pF) g_L (nS) E_L V_T delta_T (mV) a (nS) tau_w (ms) b (pA) V_r (mV) I (pA)
PATTERNS = {
    "tonic": (200, 10, -70, -50, 2, 2, 30, 0, -58, 500),
    "adapting": (200, 12, -70, -50, 2, 2, 300, 60, -58, 500),
    "initial burst": (130, 18, -58, -50, 2, 4, 150, 120, -50, 400),
    "regular bursting": (200, 10, -58, -50, 2, 2, 120, 100, -46, 210),
}


def adex_intervals(pattern, dt=0.2):
    c, g, rest, v_t, delta, a, tau_w, b, v_reset, i = PATTERNS[pattern]
    options = {"tau": c / (g * dt), "v_rest": rest, "theta_rh": v_t, "delta_T": delta, "v_threshold": 0.0}
    options |= {"a": a / g, "b": b / g, "tau_w": tau_w / dt, "v_reset": v_reset}
    return np.diff(spike_times(create("neuron", "adex", **options), i / g, 1000, 2500)) * dt


def test_adex_fires_in_the_published_patterns():
    tonic, adapting = adex_intervals("tonic"), adex_intervals("adapting")
    assert np.ptp(tonic[5:]) < 0.2
    assert (np.diff(adapting) > -0.2).all()
    assert adapting[-1] > 5 * adapting[0]
    first = adex_intervals("initial burst")
    assert first[0] < 6
    assert first[2:].min() > 50
    bursts = adex_intervals("regular bursting")[1:]
    assert bursts[::2].max() < 10
    assert bursts[1::2].min() > 100


@pytest.mark.parametrize("current", [0.5, 2.0, 8.0])
def test_qif_fires_at_the_rate_of_its_closed_form(current):
    """tau v' = a0 (v - r)(v - c) + x has the period tau ∫ dv / (...), an arc tangent."""
    tau, a0, rest, critical, start, end = 500.0, 1.3, 0.1, 0.7, -0.8, 1.6
    middle = (rest + critical) / 2
    offset = current / a0 - ((critical - rest) / 2) ** 2
    root = math.sqrt(offset)
    period = tau / (a0 * root) * (math.atan((end - middle) / root) - math.atan((start - middle) / root))
    neuron = create("neuron", "qif", tau=tau, a0=a0, v_rest=rest, v_c=critical, v_reset=start, v_threshold=end)
    intervals = np.diff(spike_times(neuron, current, 0, int(period * 3.5)))
    assert len(intervals) >= 2
    assert intervals == pytest.approx(period, rel=0.02)


def test_qif_rests_below_its_rheobase():
    """The parabola's minimum is -a0 ((c - r) / 2)²: a smaller current leaves a fixed point."""
    rheobase = 1.3 * ((0.7 - 0.1) / 2) ** 2
    neuron = create("neuron", "qif", tau=50.0, a0=1.3, v_rest=0.1, v_c=0.7, v_reset=-0.1)
    assert len(spike_times(neuron, 0.95 * rheobase, 0, 4000)) == 0
    assert len(spike_times(neuron, 1.05 * rheobase, 0, 4000)) > 0


@pytest.mark.parametrize("current", [0.7, 2.0])
def test_eif_fires_at_the_rate_of_its_integral(current):
    tau, delta, theta, rest, start, end = 500.0, 0.3, 0.8, 0.1, -0.1, 1.5
    v = np.linspace(start, end, 20001)
    slope = current + rest - v + delta * np.exp((v - theta) / delta)
    period = tau * np.trapezoid(1 / slope, v)
    neuron = create(
        "neuron", "eif", tau=tau, delta_T=delta, theta_rh=theta, v_rest=rest, v_reset=start, v_threshold=end
    )
    intervals = np.diff(spike_times(neuron, current, 0, int(period * 3.5)))
    assert len(intervals) >= 2
    assert intervals == pytest.approx(period, rel=0.02)


def test_eif_has_its_rheobase_at_the_minimum_of_the_slope():
    """x + v_rest - v + delta exp((v - theta) / delta) is smallest at v = theta: x = theta - v_rest - delta."""
    neuron = create("neuron", "eif", tau=20.0, delta_T=0.3, theta_rh=0.8, v_rest=0.1, v_threshold=1.5)
    assert len(spike_times(neuron, 0.39, 0, 4000)) == 0
    assert len(spike_times(neuron, 0.42, 0, 4000)) > 0


def test_alif_slows_down_to_the_rate_that_its_threshold_allows():
    neuron = create("neuron", "alif", tau=5.0, tau_a=200.0, beta=0.1)
    intervals = np.diff(spike_times(neuron, 2.5, 0, 1500))
    assert intervals[0] < intervals[-1]
    assert (np.diff(intervals) >= -1).all()
    # In the steady state LIF reaches the threshold 1 + beta a, with a between its values before and after the spike.
    period = intervals[-5:].mean()
    top = 1 / (1 - (1 - 1 / 200) ** period)
    reached = 2.5 * (1 - (1 - 1 / 5) ** period)
    assert 1 + 0.1 * (top - 1) <= reached * 1.001
    assert 2.5 * (1 - (1 - 1 / 5) ** (period - 2)) < 1 + 0.1 * top


def test_resonate_and_fire_rings_as_a_damped_sine():
    b, omega = -0.1, 0.7
    neuron = create("neuron", "resonate_and_fire", b=b, omega=omega, v_threshold=9.0, record=("v", "u"))
    x = torch.zeros(30, 1, dtype=torch.float64)
    x[0] = 1.0
    neuron(x)
    t = torch.arange(30, dtype=torch.float64)
    torch.testing.assert_close(neuron.recorded["v"][:, 0], torch.exp(b * t) * torch.sin(omega * t))
    torch.testing.assert_close(neuron.recorded["u"][:, 0], torch.exp(b * t) * torch.cos(omega * t))


def test_resonate_and_fire_prefers_its_own_period():
    neuron = create("neuron", "resonate_and_fire", b=-0.02, omega=2 * math.pi / 20)

    def fires(period):
        x = torch.zeros(100, 1)
        x[::period] = 0.45
        return bool(neuron(x).sum())

    assert [period for period in (10, 14, 20, 26, 30) if fires(period)] == [20]


def test_integer_spikes_keep_the_charge():
    """Soft reset: what comes in is what goes out plus what is left, but for the leak."""
    neuron = create("neuron", "ilif", tau=1e9, record=("v",), surrogate={"name": "multi_level_spike_count"})
    x = torch.rand(40, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    s = neuron(x)
    assert set(s.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    torch.testing.assert_close(s.sum(0) + neuron.recorded["v"][-1], x.sum(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ["ternary_if", "ternary_lif"])
def test_ternary_neurons_recover_from_both_infinities(name, sign):
    x = torch.full((5, 1, 1), 2.5)
    x[1] = sign * torch.inf
    x.requires_grad_()
    neuron = create("neuron", name, v_reset=-0.25, record=("v",))
    out = neuron(x)
    assert out[1] == sign
    assert neuron.recorded["v"][1] == -0.25
    rest = create("neuron", name, v_reset=-0.25)(x[2:])
    assert torch.equal(out[2:], rest)
    assert rest.any()
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_ternary_spikes_are_odd_in_the_input():
    x = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)) * 2
    for name in ("ternary_if", "ternary_lif"):
        neuron = create("neuron", name, reset="soft")
        assert torch.equal(neuron(-x), -neuron(x))
        assert set(neuron(x).unique().tolist()) == {-1.0, 0.0, 1.0}
