"""neuron-zoo against spikingjelly and norse: equal outputs, and gradients of the input and of every parameter.

All in float64, at non-default values. Where the dynamics differ, the test says how the options map.
"""

import importlib
import os

import pytest
import torch
from torch import Tensor

from spikecore.nn import set_state, streaming
from spikecore.registry import create


def require(name):
    """Another library. Missing, it skips the file; in `make check` it fails it."""
    if os.environ.get("SPIKE_PEERS"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed here; make check installs it")


require("spikecore_neuron_zoo")
theirs = require("spikingjelly.activation_based.neuron")
their_surrogate = require("spikingjelly.activation_based.surrogate")
functional = require("spikingjelly.activation_based.functional")

T, B, C = 9, 5, 6
SIGMOID = {"surrogate": {"name": "sigmoid", "alpha": 3.0}}


def currents(*shape, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (T, B, C), generator=generator, dtype=torch.float64) * scale + 0.4


def compare(ours, other, x, parameters=None, rtol=1e-9):
    """Outputs are equal, gradients close; `parameters` are pairs of leaves (ours, theirs)."""
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    pairs = parameters or []
    results = []
    for net, leaves in ((ours, [a for a, _ in pairs]), (other, [b for _, b in pairs])):
        given = x.clone().requires_grad_()
        out = net(given * 1.0)  # a copy: some write into their input
        out = torch.stack(out) if isinstance(out, list | tuple) else out
        gradients = torch.autograd.grad((out * weight).sum(), [given, *leaves])
        results.append((out.detach(), gradients))
    (out, gradients), (their_out, their_gradients) = results
    torch.testing.assert_close(out, their_out, rtol=rtol, atol=1e-12)
    assert (out != 0).double().mean() > 0.02
    assert gradients[0].count_nonzero() > x.numel() / 20
    for gradient, their_gradient in zip(gradients, their_gradients, strict=True):
        torch.testing.assert_close(gradient.reshape(their_gradient.shape), their_gradient, rtol=1e-7, atol=1e-9)


RESETS = [(reset, detach) for reset in ("hard", "soft") for detach in (False, True)]


def both_resets(reset, detach, threshold=0.9, v_reset=-0.15):
    """Options of ours and of theirs; a soft reset leaks to 0 there, so v_reset is 0 here."""
    hard = reset == "hard"
    ours = {"v_threshold": threshold, "v_reset": v_reset if hard else 0.0, "reset": reset, "detach_reset": detach}
    other = {"v_threshold": threshold, "v_reset": v_reset if hard else None, "detach_reset": detach, "step_mode": "m"}
    return {**ours, **SIGMOID}, {**other, "surrogate_function": their_surrogate.Sigmoid(alpha=3.0)}


QUADRATIC = {"tau": 3.0, "v_c": 0.7, "a0": 0.8, "v_rest": -0.05}
EXPONENTIAL = {"tau": 3.0, "delta_T": 0.7, "theta_rh": 0.6, "v_rest": -0.05}
ADAPTING = {"tau_w": 4.0, "a": 0.3, "b": 0.4}
SAME_NAMES = [
    ("qif", "QIFNode", QUADRATIC),
    ("eif", "EIFNode", EXPONENTIAL),
    ("izhikevich", "IzhikevichNode", {**QUADRATIC, **ADAPTING, "w_rest": 0.1}),
    ("klif", "KLIFNode", {"tau": 3.0, "scale_reset": False}),
    ("klif", "KLIFNode", {"tau": 3.0, "decay_input": False, "scale_reset": True}),
    ("ternary_if", "TernaryIFNode", {}),
    ("ternary_lif", "TernaryLIFNode", {"tau": 3.0, "decay_input": False}),
    ("resonate_and_fire", "RAFNode", {"b": -0.1, "omega": 0.7}),
]


@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize(("name", "peer", "options"), SAME_NAMES)
def test_neurons_of_spikingjelly(name, peer, options, reset, detach):
    if name == "izhikevich" and reset == "hard" and detach:
        pytest.skip("spikingjelly does not detach the spike in the v_reset term; tested below with v_reset = 0")
    mine, other = both_resets(reset, detach)
    if name == "izhikevich":
        mine["update"] = "sequential"
    ours, node = create("neuron", name, **mine, **options).double(), getattr(theirs, peer)(**options, **other).double()
    parameters = []
    if name == "klif":
        ours.param_k.data.fill_(1.3)
        node.k.data.fill_(1.3)
        parameters = [(ours.param_k, node.k)]
    compare(ours, node, currents(), parameters)


def test_izhikevich_detached_where_the_reset_value_is_zero():
    mine, other = both_resets("hard", True, v_reset=0.0)
    options = {**QUADRATIC, **ADAPTING}
    mine["update"] = "sequential"
    compare(create("neuron", "izhikevich", **mine, **options), theirs.IzhikevichNode(**options, **other), currents())


@pytest.mark.parametrize("threshold_related", [True, False])
@pytest.mark.parametrize(("activation", "function"), [("relu", torch.relu), ("tanh", torch.tanh), ("selu", torch.selu)])
def test_liaf(activation, function, threshold_related):
    mine, other = both_resets("hard", False)
    ours = create("neuron", "liaf", activation=activation, threshold_related=threshold_related, tau=3.0, **mine)
    node = theirs.LIAFNode(function, threshold_related, tau=3.0, store_v_seq=True, **other)  # else it gives spikes
    compare(ours, node, currents())


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("maximum", [1, 3])
def test_ilif(maximum, detach):
    surrogate = {"name": "multi_level_spike_count", "max_spike_count": maximum}
    ours = create("neuron", "ilif", tau=1.8, v_threshold=0.8, detach_reset=detach, surrogate=surrogate)
    node = theirs.ILIFNode(
        tau=1.8,
        v_threshold=0.8,
        surrogate_function=their_surrogate.MultiLevelSpikeCount(maximum),
        detach_reset=detach,
        step_mode="m",
    )
    compare(ours, node, currents())


GATES = {
    "alpha": "alpha",
    "beta": "beta",
    "gamma": "gamma",
    "tau": "tau",
    "v_threshold": "v_threshold",
    "leak": "linear_decay",
    "v_subtract": "v_subreset",
}


@pytest.mark.parametrize("channels", [None, 3])
def test_gated_lif(channels):
    node = theirs.GatedLIFNode(T=T, inplane=channels, surrogate_function=their_surrogate.Sigmoid(alpha=3.0)).double()
    with torch.no_grad():
        for index, parameter in enumerate(node.parameters()):
            parameter.copy_(currents(*parameter.shape, scale=0.6, seed=index) - 0.4 if parameter.dim() else 0.1 * index)
    options = {name: [0.5] * channels if channels else 0.5 for name in GATES}
    ours = create("neuron", "timed_glif", num_steps=T, **options, **SIGMOID).double()
    pairs = [(getattr(ours, f"param_gate_{name}"), getattr(node, peer)) for name, peer in GATES.items()]
    pairs.append((ours.conductances, node.conduct))
    for mine, other in pairs:
        mine.data.copy_(other.data)
    x = currents(T, B, 3, 2, 2)
    compare(ours, node, x, pairs)
    if channels is None:
        node.conduct.data.fill_(0.3)
        every_step = create("neuron", "glif", **options, **SIGMOID).double()
        for name, peer in GATES.items():
            getattr(every_step, f"param_gate_{name}").data.copy_(getattr(node, peer).data)
        every_step.param_gate_conductance.data.fill_(0.3)
        functional.reset_net(node)
        compare(every_step, node, x)


# PSN family


def test_psn():
    ours, node = create("neuron", "psn", num_steps=T).double(), theirs.PSN(T).double()
    node.weight.data.copy_(currents(T, T, seed=1))
    ours.weight.data.copy_(node.weight.data)
    compare(ours, node, currents(), [(ours.weight, node.weight), (ours.bias, node.bias)])


@pytest.mark.parametrize("masking", [0.0, 0.6, 1.0])
def test_masked_psn(masking):
    ours = create("neuron", "masked_psn", num_steps=T, order=3, masking=masking).double()
    node = theirs.MaskedPSN(k=3, T=T, lambda_init=masking, step_mode="m").double()
    node.weight.data.copy_(currents(T, T, seed=1))
    ours.weight.data.copy_(node.weight.data)
    compare(ours, node, currents(), [(ours.weight, node.weight), (ours.bias, node.bias)])


def test_sliding_psn():
    ours, node = create("neuron", "sliding_psn", order=4).double(), theirs.SlidingPSN(k=4, step_mode="m").double()
    torch.testing.assert_close(ours.weight, node.weight)
    compare(ours, node, currents(), [(ours.weight, node.weight), (ours.bias, node.bias)])


# MPBN, intra-layer connections, noise


@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize("shape", [(C,), (C, 3, 3)])
def test_mpbn(shape, reset, detach, decay_input):
    mine, other = both_resets(reset, detach, threshold=0.4)
    size = {"out_features": C} if len(shape) == 1 else {"out_channels": C}
    options = {"tau": 3.0, "decay_input": decay_input}
    ours = create("neuron", "mpbn_lif", num_features=C, **options, **mine).double()
    node = theirs.MPBNLIFNode(**options, **size, **other).double()
    node.vbn.weight.data.copy_(currents(C, seed=1, scale=0.3) + 0.6)
    node.vbn.bias.data.copy_(currents(C, seed=2, scale=0.3))
    ours.weight.data.copy_(node.vbn.weight.data)
    ours.bias.data.copy_(node.vbn.bias.data)
    x = currents(T, B, *shape)
    compare(ours, node, x, [(ours.weight, node.vbn.weight), (ours.bias, node.vbn.bias)])
    torch.testing.assert_close(ours.running_mean, node.vbn.running_mean)
    torch.testing.assert_close(ours.running_var, node.vbn.running_var)
    functional.reset_net(node)
    compare(ours.eval(), node.eval(), x)


def connections(ours, node):
    """Give both the same weights: `conn` is a grouped convolution over one group's spikes."""
    groups, size = ours.weight.shape[:2]
    node.conn.weight.data.copy_(currents(*node.conn.weight.shape, seed=1, scale=0.5))
    node.conn.bias.data.copy_(currents(*node.conn.bias.shape, seed=2, scale=0.2))
    ours.weight.data.copy_(node.conn.weight.data.reshape(groups, size, size))
    ours.bias.data.copy_(node.conn.bias.data)
    return [(ours.weight, node.conn.weight), (ours.bias, node.conn.bias)]


@pytest.mark.parametrize(
    ("name", "peer", "ours", "other", "v_reset"),
    [
        ("ilc_if", "ILCIFNode", {}, {}, 0.1),
        ("ilc_lif", "ILCLIFNode", {"tau": 2.5, "decay_input": False}, {"v_decay": 0.6}, 0.0),
        ("ilc_cuba_lif", "ILCCUBALIFNode", {"c_decay": 0.3, "v_decay": 0.6}, {"c_decay": 0.3, "v_decay": 0.6}, 0.1),
    ],
)
def test_intra_layer_connections(name, peer, ours, other, v_reset):
    options = {"v_threshold": 0.6, "v_reset": v_reset}
    neuron = create("neuron", name, num_groups=2, group_size=3, **ours, **options, **SIGMOID).double()
    surrogate = their_surrogate.Sigmoid(alpha=3.0)
    node = getattr(theirs, peer)(2, 3, surrogate_function=surrogate, **other, **options).double()
    compare(neuron, node, currents(), connections(neuron, node))


@pytest.mark.parametrize("name", ["noisy_cuba_lif", "noisy_ilc_cuba_lif"])
def test_noise_goes_in_and_out_in_the_same_way(name):
    """Both are fed the same noise; half of theirs goes into the layer, half is added to what comes out."""
    decays = {"c_decay": 0.3, "v_decay": 0.6, "v_threshold": 0.4, "v_reset": 0.05}
    sizes = {"num_features": C} if name == "noisy_cuba_lif" else {"num_groups": 2, "group_size": 3}
    options = {"sigma": 0.7, "num_steps": T, "noise_beta": 1.0, **sizes, **decays, **SIGMOID}
    ours = create("neuron", name, **options).double()
    surrogate = their_surrogate.Sigmoid(alpha=3.0)
    if name == "noisy_cuba_lif":
        node, pairs = theirs.NoisyCUBALIFNode(C, T=T, sigma_init=0.7, surrogate_function=surrogate, **decays), []
    else:
        node = theirs.NoisyILCCUBALIFNode(2, 3, T=T, sigma_init=0.7, surrogate_function=surrogate, **decays).double()
        pairs = connections(ours.neuron, node)
    noise = currents(T, 2 * C, seed=5, scale=1.0)
    before, after = noise.split(C, dim=1)

    def mine(x):
        with streaming(ours):
            own = {"noise_in": before, "noise_out": after, "t": torch.zeros((), dtype=torch.float64)}
            set_state(ours, {"": own, **dict.fromkeys(noisy_parts(ours))})
            return ours(x)

    def peer(x):
        functional.reset_net(node)
        node.load_colored_noise(noise.expand(B, T, 2 * C).clone())
        return node(x)

    compare(mine, peer, currents(), pairs)


def noisy_parts(net):
    """Names of the modules with state inside."""
    return [name for name, part in net.named_modules() if name and hasattr(part, "initial_state")]


# Surrogates


SURROGATES = [
    ("nonzero_sign_log_abs", {"alpha": 1.7}, "NonzeroSignLogAbs", {"alpha": 1.7}),
    ("piecewise_leaky_relu", {"w": 0.6, "c": 0.1}, "PiecewiseLeakyReLU", {"w": 0.6, "c": 0.1}),
    ("squarewave_fourier_series", {"num_terms": 3, "period": 6.0}, "SquarewaveFourierSeries", {"n": 4, "T_period": 6}),
    ("s2nn", {"alpha": 3.0, "beta": 0.7}, "S2NN", {"alpha": 3.0, "beta": 0.7}),
    ("q_pseudo_spike", {"alpha": 2.6}, "QPseudoSpike", {"alpha": 2.6}),
    ("leaky_k_relu", {"leak": 0.2, "k": 1.4}, "LeakyKReLU", {"leak": 0.2, "k": 1.4}),
    ("fake_numerical_gradient", {"alpha": 0.8}, "FakeNumericalGradient", {"alpha": 0.8}),
    ("log_tailed_relu", {"leak": 0.2}, "LogTailedReLU", {"alpha": 0.2}),
    ("deterministic_pass", {}, "DeterministicPass", {}),
    ("multi_level_spike_count", {"max_spike_count": 3}, "MultiLevelSpikeCount", {"max_spike_count": 3}),
]


@pytest.mark.parametrize("spiking", [True, False])
@pytest.mark.parametrize(("name", "options", "peer", "other"), SURROGATES)
def test_surrogates_of_spikingjelly(name, options, peer, other, spiking):
    if not spiking and name == "fake_numerical_gradient":
        pytest.skip("it has no primitive")
    smooth = {} if peer == "FakeNumericalGradient" else {"spiking": spiking}
    ours = create("surrogate", name, **options, **({} if spiking else {"spiking": False}))
    their = getattr(their_surrogate, peer)(**other, **smooth)
    u = torch.cat([currents(300, scale=1.5), torch.tensor([-2.0, 2.0], dtype=torch.float64)])
    results: list[tuple[Tensor, Tensor]] = []
    for surrogate in (ours, their):
        given = u.clone().requires_grad_()
        out = surrogate(given)
        (gradient,) = torch.autograd.grad(out.sum(), given)
        results.append((out, gradient))
    rough = {"rtol": 0.0, "atol": 1e-4} if name == "s2nn" and not spiking else {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(results[0][0], results[1][0], **rough)  # theirs adds 1e-5 within the logarithm
    torch.testing.assert_close(results[0][1], results[1][1], **rough)


def test_poisson_pass_has_the_same_rate_and_gradient():
    p = torch.linspace(0.0, 1.0, 11, dtype=torch.float64).expand(4000, 11)
    for surrogate in (create("surrogate", "poisson_pass"), their_surrogate.PoissonPass()):
        torch.manual_seed(0)
        given = p.clone().requires_grad_()
        out = surrogate(given)
        assert ((out.mean(0) - p[0]).abs() < 4 * (p[0] * (1 - p[0]) / 4000).sqrt() + 1e-12).all()
        (gradient,) = torch.autograd.grad(out.sum(), given)
        assert (gradient == 1).all()


# norse


def number(value):
    return torch.tensor(float(value), dtype=torch.float64)


def run_norse(step, state, parameters, x, dt):
    outs = []
    for current in x:
        out, state = step(current, state, parameters, dt)
        outs.append(out)
    return torch.stack(outs), state


def test_adex_of_norse():
    """With 1 / tau_syn = 1 / dt the synapse passes the input on at once. Part of its numbers are float32."""
    adex = require("norse.torch.functional.lif_adex")
    dt, rate, rate_w = 0.1, 3.0, 2.0
    parameters = adex.LIFAdExParameters(
        adaptation_current=number(0.7),
        adaptation_spike=number(0.3),
        delta_T=number(0.5),
        tau_ada_inv=number(rate_w),
        tau_syn_inv=number(1 / dt),
        tau_mem_inv=number(rate),
        v_leak=number(0.1),
        v_th=number(0.9),
        v_reset=number(-0.1),
    )
    x = currents(60, 8, scale=2.5)
    start = adex.LIFAdExFeedForwardState(v=torch.full((8,), -0.1).double(), i=number(0), a=number(0))
    spikes, state = run_norse(adex.lif_adex_feed_forward_step, start, parameters, x, dt)
    ours = create(
        "neuron",
        "adex",
        tau=1 / (dt * rate),
        tau_w=1 / (dt * rate_w),
        a=0.7,
        b=0.3,
        delta_T=0.5,
        theta_rh=0.9,
        v_threshold=0.9,
        v_rest=0.1,
        v_reset=-0.1,
        record=("v", "w"),
    )
    assert torch.equal(ours(x.unsqueeze(-1)).squeeze(-1), spikes)
    assert spikes.sum() > 30
    torch.testing.assert_close(ours.recorded["v"][-1, :, 0], state.v, rtol=0, atol=1e-7)
    torch.testing.assert_close(ours.recorded["w"][-1, :, 0], state.a, rtol=0, atol=1e-7)


def test_alif_of_norse():
    """norse acts on the input of the step before; its b is the threshold itself and jumps before it decays."""
    lsnn = require("norse.torch.functional.lsnn")
    dt, rate, rate_a, jump = 0.1, 3.0, 1.5, 0.8
    parameters = lsnn.LSNNParameters(
        tau_syn_inv=number(1 / dt),
        tau_mem_inv=number(rate),
        tau_adapt_inv=number(rate_a),
        v_leak=number(0.0),
        v_th=number(0.6),
        v_reset=number(0.0),
        beta=number(jump),
    )
    x = currents(60, 8, scale=4.0)
    start = lsnn.LSNNFeedForwardState(v=torch.zeros(8).double(), i=torch.zeros(8).double(), b=number(0.6))
    spikes, state = run_norse(lsnn.lsnn_feed_forward_step, start, parameters, x, dt)
    rho = 1 - dt * rate_a
    ours = create(
        "neuron",
        "alif",
        tau=1 / (dt * rate),
        tau_a=1 / (dt * rate_a),
        beta=rho * jump,
        v_threshold=0.6,
        record=("v", "a"),
    )
    late = torch.cat([torch.zeros(1, 8).double(), x[:-1]])
    assert torch.equal(ours(late.unsqueeze(-1)).squeeze(-1), spikes)
    assert spikes.sum() > 30
    torch.testing.assert_close(ours.recorded["v"][-1, :, 0], state.v, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(0.6 + jump * ours.recorded["a"][-1, :, 0], state.b, rtol=1e-9, atol=1e-12)


SINABS = [(None, None, False), (None, -1.0, False), (4.0, -0.5, True), (4.0, -0.5, False), (20.0, None, True)]


@pytest.mark.parametrize(("tau", "v_min", "norm_input"), SINABS)
@pytest.mark.parametrize("threshold", [1.0, 0.7])
def test_floor_lif_of_sinabs(tau, v_min, norm_input, threshold):
    """Counts, potentials and gradients; their surrogate, at grad_scale=0.5, is PiecewiseExp."""
    layers, activation = require("sinabs.layers"), require("sinabs.activation")
    options = {"spike_threshold": torch.tensor(threshold), "min_v_mem": v_min, "record_states": True}
    options["surrogate_grad_fn"] = activation.SingleExponential(grad_width=0.5 / threshold, grad_scale=0.5)
    if tau is None:
        layer, decay = layers.IAF(**options), 1.0
    else:
        layer, decay = (
            layers.LIF(tau_mem=tau, norm_input=norm_input, **options),
            torch.exp(torch.tensor(-1 / tau)).item(),
        )  # theirs is in float32
    name = {"decay": decay, "scale_input": norm_input, "v_threshold": threshold, "v_min": v_min}
    ours = create("neuron", "floor_lif", **name, record=("v",), backend="torch")
    x = (currents(24, 8, scale=2.0).float() + 0.2) / (1 - decay if norm_input else 1)
    given, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    counts = ours(given.unsqueeze(-1)).squeeze(-1)
    theirs_counts = layer(other.T.unsqueeze(-1)).squeeze(-1).T
    assert counts.max() >= 2
    assert v_min is None or (ours.recorded["v"] == v_min).any()
    assert torch.equal(counts, theirs_counts)
    potentials = layer.recordings["v_mem"].squeeze(-1).T
    assert (ours.recorded["v"].squeeze(-1) - potentials).abs().max() < 2e-6
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (counts * weights).sum().backward()
    (theirs_counts * weights).sum().backward()
    assert given.grad.abs().max() > 0.01
    assert (given.grad - other.grad).abs().max() < 1e-5 * other.grad.abs().max().clamp(min=1)


def test_izhikevich_of_norse():
    """In the order of updates that is the default; u is not coupled to v in this set (b = 0)."""
    module = require("norse.torch.functional.izhikevich")
    parameters = module.IzhikevichParameters(a=0.02, b=0.0, c=-65, d=8)
    share = 0.001 * parameters.tau_inv
    x = currents(400, 8, scale=20.0) + 40
    start = module.IzhikevichState(v=torch.full((8,), -65.0).double(), u=torch.zeros(8).double())
    spikes, state = run_norse(module.izhikevich_feed_forward_step, start, parameters, x, 0.001)
    root = (5 * 5 - 4 * 0.04 * 140) ** 0.5  # 0.04 v² + 5 v + 140 = 0.04 (v - rest) (v - critical)
    ours = create(
        "neuron",
        "izhikevich",
        tau=1 / share,
        a0=0.04,
        v_rest=(-5 - root) / 0.08,
        v_c=(-5 + root) / 0.08,
        tau_w=1 / (share * 0.02),
        a=0.0,
        b=8.0,
        v_reset=-65.0,
        v_threshold=30.0,
        record=("v", "w"),
    )
    out = ours(x.unsqueeze(-1)).squeeze(-1)
    assert spikes.sum() > 30
    assert torch.equal(out, spikes)
    torch.testing.assert_close(ours.recorded["v"][-1, :, 0], state.v, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.recorded["w"][-1, :, 0], state.u, rtol=1e-6, atol=1e-6)
