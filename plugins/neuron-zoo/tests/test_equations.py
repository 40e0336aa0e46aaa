"""Every elementwise neuron against its equations, integrated anew in Python floats."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spikecore.nn import LIF
from spikecore.registry import create

# A function per neuron: (x, state, options) -> (output, distances to thresholds, next state); `state` begins as START.


def reset(o, h, s):
    return (h if s == 0 else o["v_reset"]) if o["reset"] == "hard" else h - s * o["v_threshold"]


def leaky(o, v, x):
    keep = 1 - 1 / o["tau"]
    return keep * v + o["v_reset"] / o["tau"] + (x / o["tau"] if o["decay_input"] else x)


def qif(x, q, o):
    h = q["v"] + (x + o["a0"] * (q["v"] - o["v_rest"]) * (q["v"] - o["v_c"])) / o["tau"]
    s = float(h >= o["v_threshold"])
    return s, [h - o["v_threshold"]], {"v": reset(o, h, s)}


def exponential(v, x, o):
    height = min((v - o["theta_rh"]) / o["delta_T"], 700.0)  # a soft reset may run away; such cases are left out below
    return v + (x - (v - o["v_rest"]) + o["delta_T"] * math.exp(height)) / o["tau"]


def eif(x, q, o):
    h = exponential(q["v"], x, o)
    s = float(h >= o["v_threshold"])
    return s, [h - o["v_threshold"]], {"v": reset(o, h, s)}


def adex(x, q, o):
    h = exponential(q["v"], x - q["w"], o)
    s = float(h >= o["v_threshold"])
    w = q["w"] * (1 - 1 / o["tau_w"]) + o["a"] * (q["v"] - o["v_rest"]) / o["tau_w"] + o["b"] * s
    return s, [h - o["v_threshold"]], {"v": reset(o, h, s), "w": w}


def floor_lif(x, q, o):
    h = o["decay"] * q["v"] + x * (1 - o["decay"] if o["scale_input"] else 1)
    share = h / o["v_threshold"]
    s = float(math.floor(share)) if share >= 1 else 0.0
    near = share - round(share) if share > 0.5 else 1.0
    return s, [near], {"v": max(h - s * o["v_threshold"], o["v_min"])}


def izhikevich(x, q, o):
    v, w = q["v"], q["w"]
    h = v + (o["a0"] * (v * v - (o["v_rest"] + o["v_c"]) * v + o["v_rest"] * o["v_c"]) - w + x) / o["tau"]
    s = float(h >= o["v_threshold"])
    u = h if o["update"] == "sequential" else v
    w = w + (o["a"] * (u - o["v_rest"]) - w) / o["tau_w"] + o["b"] * s
    return s, [h - o["v_threshold"]], {"v": reset(o, h, s), "w": w}


def alif(x, q, o):
    h = leaky(o, q["v"], x)
    threshold = o["v_threshold"] + o["beta"] * q["a"]
    s = float(h >= threshold)
    return s, [h - threshold], {"v": reset(o, h, s), "a": (1 - 1 / o["tau_a"]) * q["a"] + s}


def klif(x, q, o):
    h = max(0.0, o["k"] * leaky(o, q["v"], x))
    s = float(h >= o["v_threshold"])
    v = reset(o, h, s)
    if o["scale_reset"] and not (o["reset"] == "hard" and s):
        v = v / o["k"]
    return s, [h - o["v_threshold"]], {"v": v}


def glif(x, q, o):
    i = o["beta"] * o["conductance"] * x + (1 - o["beta"]) * x
    leak = o["alpha"] * o["tau"] + (1 - o["alpha"])
    d = leak * q["v"]
    v = d + i - (1 - o["alpha"]) * o["leak"]
    v -= q["s"] * (o["gamma"] * d + (1 - o["gamma"]) * o["v_subtract"])
    s = float(v >= o["v_threshold"])
    return s, [v - o["v_threshold"]], {"v": v, "s": s}


ANALOG = {
    "relu": lambda u: max(u, 0.0),
    "leaky_relu": lambda u: u if u > 0 else u / 100,
    "selu": lambda u: 1.0507009873554805 * (u if u > 0 else 1.6732632423543772 * math.expm1(u)),
    "sigmoid": lambda u: 1 / (1 + math.exp(-u)),
    "tanh": math.tanh,
    "identity": lambda u: u,
}


def liaf(x, q, o):
    h = leaky(o, q["v"], x)
    s = float(h >= o["v_threshold"])
    seen = h - o["v_threshold"] * o["threshold_related"]
    return ANALOG[o["activation"]](seen), [h - o["v_threshold"]], {"v": reset(o, h, s)}


def ilif(x, q, o):
    h = leaky(o, q["v"], x)
    u = h / o["v_threshold"]
    s = sum(float(u > k + 0.5) for k in range(o["surrogate"]["max_spike_count"]))
    return s, [u - k - 0.5 for k in range(9)], {"v": h - s * o["v_threshold"]}


def ternary(h, o):
    s = float(h >= o["v_threshold"]) - float(h <= -o["v_threshold"])
    return s, [h - o["v_threshold"], h + o["v_threshold"]], {"v": reset(o, h, s)}


def ternary_if(x, q, o):
    return ternary(q["v"] + x, o)


def ternary_lif(x, q, o):
    return ternary(leaky(o, q["v"], x), o)


def resonate_and_fire(x, q, o):
    z = (q["u"] + 1j * q["v"]) * complex(math.exp(o["b"]), 0) * complex(math.cos(o["omega"]), math.sin(o["omega"])) + x
    s = float(z.imag >= o["v_threshold"])
    return s, [z.imag - o["v_threshold"]], {"u": z.real, "v": reset(o, z.imag, s)}


number = st.floats
fraction = number(0.05, 0.95)
RESETS = {
    "v_threshold": number(0.5, 1.5),
    "v_reset": number(-0.5, 0.3),
    "reset": st.sampled_from(["hard", "soft"]),
}
LEAKY = {**RESETS, "tau": number(1.2, 8.0), "decay_input": st.booleans()}
QUADRATIC = {**RESETS, "tau": number(2.0, 8.0), "v_c": number(0.3, 1.0), "a0": number(0.2, 1.5)}
QUADRATIC["v_rest"] = number(-0.5, 0.2)
EXPONENTIAL = {**RESETS, "tau": number(2.0, 8.0), "delta_T": number(0.3, 2.0), "theta_rh": number(0.5, 1.0)}
EXPONENTIAL["v_rest"] = number(-0.3, 0.3)
ADAPTING = {"tau_w": number(1.5, 20.0), "a": number(-0.5, 0.5), "b": number(0.0, 1.0)}
UPDATES = st.sampled_from(["simultaneous", "sequential"])
FLOOR = {"decay": number(0.2, 1.0), "scale_input": st.booleans(), "v_threshold": number(0.5, 1.5)}
CASES = {
    "floor_lif": (floor_lif, {**FLOOR, "v_min": number(-1.0, 0.0)}),
    "qif": (qif, QUADRATIC),
    "eif": (eif, EXPONENTIAL),
    "adex": (adex, {**EXPONENTIAL, **ADAPTING}),
    "izhikevich": (izhikevich, {**QUADRATIC, **ADAPTING, "w_rest": number(-0.2, 0.2), "update": UPDATES}),
    "alif": (alif, {**LEAKY, "tau_a": number(1.5, 30.0), "beta": number(0.0, 1.0)}),
    "klif": (klif, {**LEAKY, "k": number(0.3, 3.0), "scale_reset": st.booleans()}),
    "glif": (
        glif,
        dict.fromkeys(("alpha", "beta", "gamma", "tau", "v_threshold", "leak", "v_subtract", "conductance"), fraction),
    ),
    "liaf": (liaf, {**LEAKY, "activation": st.sampled_from(sorted(ANALOG)), "threshold_related": st.booleans()}),
    "ilif": (
        ilif,
        {
            **LEAKY,
            "reset": st.just("soft"),
            "surrogate": st.integers(1, 6).map(lambda d: {"name": "multi_level_spike_count", "max_spike_count": d}),
        },
    ),
    "ternary_if": (ternary_if, RESETS),
    "ternary_lif": (ternary_lif, LEAKY),
    "resonate_and_fire": (resonate_and_fire, {**RESETS, "b": number(-1.0, 0.0), "omega": number(0.1, 3.0)}),
}
START = {"v": "v_reset", "w": "w_rest"}


def integrate(step, xs, options, names):
    """Outputs, distances, and the state after every step."""
    state = {name: options.get(START.get(name), 0.0) for name in names}
    outputs, distances, trace = [], [], []
    for x in xs:
        out, near, state = step(x, state, options)
        outputs.append(out)
        distances += near
        trace.append(state)
    return outputs, distances, trace


def exactly(neuron):
    """The neuron in float64 with its parameters from the options anew, not rounded to float32."""
    neuron.double()
    for key, parameter in neuron.named_parameters():
        option = key.removeprefix("param_").removeprefix("gate_")
        value = torch.tensor(getattr(neuron.config, option), dtype=torch.float64)
        parameter.data.copy_(torch.logit(value) if "gate_" in key else value)
    return neuron


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_neuron_follows_its_equations(name, data):
    step, strategies = CASES[name]
    options = {option: data.draw(strategy, label=option) for option, strategy in strategies.items()}
    xs = data.draw(st.lists(number(-3.0, 4.0), min_size=1, max_size=12), label="x")
    neuron = exactly(create("neuron", name, **options))
    neuron.record = names = tuple(neuron.state)
    outputs, distances, trace = integrate(step, xs, options, names)
    assume(min(abs(distance) for distance in distances) > 1e-6)  # no verdict by rounding
    assume(max(abs(value) for state in trace for value in state.values()) < 1e6)
    simulated = neuron(torch.tensor(xs, dtype=torch.float64).reshape(-1, 1, 1)).flatten().tolist()
    assert simulated == pytest.approx(outputs, rel=1e-9, abs=1e-9)
    for state in names:
        wanted = [row[state] for row in trace]
        assert neuron.recorded[state].flatten().tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in CASES if name != "liaf"])
def test_the_inputs_above_make_spikes(name):
    neuron = create("neuron", name)
    x = torch.rand(12, 50, 1, generator=torch.Generator().manual_seed(0)) * 7 - 3
    assert 0.02 < (neuron(x) != 0).float().mean() < 0.9


def test_timed_glif_scales_the_input_of_each_step():
    torch.manual_seed(0)
    beta, scales = 0.7, [0.2, 0.9, 0.5, 0.4]
    timed = create("neuron", "timed_glif", num_steps=4, beta=beta).double()
    timed.conductances.data.copy_(torch.logit(torch.tensor(scales)))
    xs = (torch.rand(4, 9, 1, dtype=torch.float64) * 3).tolist()
    for sample in range(9):
        options = {"alpha": 0.5, "beta": beta, "gamma": 0.5, "tau": 0.25, "v_threshold": 0.5, "leak": 0.0625}
        options |= {"v_subtract": 0.5}
        state, wanted = {"v": 0.0, "s": 0.0}, []
        for x, conductance in zip(xs, scales, strict=True):
            s, _, state = glif(x[sample][0], state, {**options, "conductance": conductance})
            wanted.append(s)
        x = torch.tensor(xs, dtype=torch.float64)[:, sample : sample + 1]
        assert timed(x).flatten().tolist() == wanted


def test_gates_are_sigmoids_and_start_where_they_are_told():
    neuron = create("neuron", "glif", alpha=0.3, tau=[0.2, 0.5, 0.8])
    assert len(list(neuron.parameters())) == 8
    assert neuron.param_gate_alpha.sigmoid().item() == pytest.approx(0.3)
    assert neuron.param_gate_tau.sigmoid().tolist() == pytest.approx([0.2, 0.5, 0.8])


@pytest.mark.parametrize(
    ("name", "options"),
    [("alif", {"beta": 0.0}), ("klif", {"k": 1.0})],
)
def test_it_is_lif_where_what_it_adds_is_switched_off(name, options):
    x = torch.rand(10, 20, 3, generator=torch.Generator().manual_seed(0)) * 3  # klif: positive, so no rectification
    assert torch.equal(create("neuron", name, tau=3.0, **options)(x), LIF(tau=3.0)(x))
