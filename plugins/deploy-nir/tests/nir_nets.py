"""Random small nets that NIR can say, with weights whose sums are exact; and how they are compared."""

from collections import OrderedDict

import torch
from hypothesis import strategies as st

from spikecore import nn
from spikecore.analysis import record_spikes
from spikecore.testing.small_nets import settle_weights
from spikecore_deploy_nir import NIR

POWERS = (2.0, 4.0)
TAUS = (1.0, 2.0, 3.0, 2.7, 8.0)
FIRES = st.sampled_from(("at", "above"))


@st.composite
def neurons(draw, channels):
    """One of the neurons, at values that make it spike."""
    kind = draw(st.sampled_from(("if", "lif", "cuba", "li", "integrator")))
    many = draw(st.booleans())
    threshold = (
        tuple(0.25 + 0.25 * (place % 4) for place in range(channels))
        if many
        else draw(st.sampled_from((0.25, 0.7, 1.0)))
    )
    common = {"v_threshold": threshold, "fires": draw(FIRES), "backend": "torch"}
    if kind == "if":
        return nn.IF(v_reset=draw(st.sampled_from((0.0, -0.5))), v_init=0.0, **common)
    if kind == "cuba":
        share = st.sampled_from((0.0, 0.3, 0.5, 0.9))
        return nn.CubaLIF(c_decay=draw(share), v_decay=draw(share), v_reset=-0.25, v_init=0.0, **common)
    if kind == "li":
        return nn.LI(tau=draw(st.sampled_from((1.5, 3.0))), decay_input=draw(st.booleans()), backend="torch")
    if kind == "integrator":
        return nn.NonSpikingIF(backend="torch")
    v_leak = draw(st.sampled_from((0.0, -0.5, 0.125)))
    tau = tuple(1.5 + place for place in range(channels)) if draw(st.booleans()) else draw(st.sampled_from(TAUS))
    return nn.LIF(
        tau=tau,
        v_leak=v_leak,
        v_init=v_leak,
        v_reset=draw(st.sampled_from((0.0, -0.25))),
        decay_input=draw(st.booleans()),
        **common,
    )


@st.composite
def nets(draw):
    """(net, shape of a sample)."""
    parts = OrderedDict()
    is_image = draw(st.booleans())
    shape = (2, 6, 6) if is_image else (5,)
    width = 5
    if is_image:
        parts["conv"] = nn.Conv2d(
            2,
            4,
            3,
            stride=draw(st.sampled_from((1, 2))),
            padding=draw(st.sampled_from((0, 1))),
            groups=draw(st.sampled_from((1, 2))),
            bias=draw(st.booleans()),
        )
        parts["fire"] = draw(neurons(4))
        parts["pool"] = draw(st.sampled_from((nn.AvgPool2d, nn.SumPool2d)))(2)
        parts["flat"] = nn.Flatten()
        width = torch.nn.Sequential(*parts.values())(torch.zeros(1, 1, *shape)).shape[-1]
    parts["linear"] = torch.nn.Linear(width, 6, bias=draw(st.booleans()))
    loop = draw(st.sampled_from(("none", "lateral", "self")))
    neuron = draw(neurons(6))
    if loop == "lateral":
        neuron = nn.LateralRecurrent(neuron, 6)
    elif loop == "self":
        neuron = nn.ElementwiseRecurrent(neuron)
    parts["hidden"] = neuron
    parts["last"] = torch.nn.Linear(6, 3)
    parts["out"] = draw(neurons(3))
    return settle_weights(torch.nn.Sequential(parts), draw(st.integers(0, 99)), -24, 40), shape


def inputs(shape, seed=0, num_steps=12, batch=2):
    """Spikes `[T, B, *shape]`."""
    return torch.randint(0, 2, (num_steps, batch, *shape), generator=torch.Generator().manual_seed(seed)).float()


def assert_deployed(net, x, path, keeps_names=True, **options):
    """Net, file and the net of the file compute the same; returns the spikes of the net, and the net of the file."""
    deployer = NIR(**options)
    artefact = deployer.export(net, x, path)
    out, spikes = record_spikes(net, x)
    traced = NIR().trace(artefact, x)
    assert list(traced) == list(spikes)
    for name, right in spikes.items():
        torch.testing.assert_close(traced[name], right, rtol=0, atol=0, msg=f"layer {name}")
    torch.testing.assert_close(NIR().simulate(artefact, x), out, rtol=0, atol=0)
    loaded = NIR().load(path)
    again, others = record_spikes(loaded, x)
    torch.testing.assert_close(again, out, rtol=0, atol=0, msg="the net of the file")
    assert not keeps_names or list(others) == list(spikes)
    return spikes, loaded
