"""Where a reader's conventions meet ours: comparison, reset, start, decay, lag."""

import math

import nir
import numpy as np
import pytest
import torch
from nir_nets import assert_deployed, inputs

from spikecore import nn
from spikecore.analysis import record_spikes
from spikecore.errors import ConversionError, OptionError
from spikecore.testing.small_nets import settle_weights
from spikecore_deploy_nir import NIR


def refusal(net, x, **options):
    return [record for record in NIR(**options).check(net, x) if record.outcome == "refused"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_reached_threshold_fires_as_in_the_net(tmp_path, dtype):
    """0.5 + 0.5 lands on 1: exported is the next number below, in the reader's dtype; imported is the number itself."""
    net = torch.nn.Sequential(nn.IF(backend="torch"))
    x = torch.full((6, 1, 1), 0.5, dtype=getattr(torch, dtype))
    assert net(x).flatten().tolist() == [0, 1, 0, 1, 0, 1]
    NIR(dtype=dtype).export(net, x, tmp_path / "net.nir")
    kind = np.dtype(dtype).type
    written = nir.read(tmp_path / "net.nir").nodes["n0"].v_threshold
    assert written.item() == np.nextafter(kind(1), kind(0))
    loaded = NIR().load(tmp_path / "net.nir")
    assert loaded.get_submodule("0").config.v_threshold == 1.0
    assert loaded(x).flatten().tolist() == [0, 1, 0, 1, 0, 1]


def test_a_net_that_fires_above_keeps_its_threshold(tmp_path):
    net = torch.nn.Sequential(nn.IF(fires="above", backend="torch"))
    x = torch.full((6, 1, 1), 0.5)
    assert_deployed(net, x, tmp_path / "net.nir")
    assert nir.read(tmp_path / "net.nir").nodes["n0"].v_threshold.item() == 1.0
    assert NIR().load(tmp_path / "net.nir")(x).flatten().tolist() == [0, 0, 1, 0, 0, 1]


def test_soft_reset_needs_a_reader_that_subtracts_and_the_strict_option(tmp_path):
    x = inputs((3,), num_steps=30)
    soft = {"reset": "soft", "decay_input": False, "backend": "torch"}
    assert "soft reset" in refusal(torch.nn.Sequential(nn.LIF(**soft)), x)[0].reason
    assert "drift" in refusal(torch.nn.Sequential(nn.LIF(**soft)), x, profile="decay_soft")[0].reason
    hard = torch.nn.Sequential(nn.LIF(decay_input=False, fires="above"))
    assert "subtraction" in refusal(hard, x, profile="decay_soft")[0].reason
    net = settle_weights(
        torch.nn.Sequential(torch.nn.Linear(3, 8), nn.LIF(tau=3.0, v_threshold=0.7, fires="above", **soft))
    )
    spikes, _ = assert_deployed(net, x, tmp_path / "net.nir", profile="decay_soft")
    assert 0.1 < spikes["1"].mean() < 0.9


@pytest.mark.parametrize(
    ("neuron", "word"),
    [
        (nn.LIF(v_init=-1.0), "v_init"),
        (nn.LIF(v_leak=-1.0), "v_init"),
        (nn.IF(v_reset=-0.5), "v_init"),
        (nn.CubaLIF(c_decay=1.0), "time constant"),
        (nn.Leaky(), "no neuron"),
        (nn.ReLU(), "no neuron"),
    ],
)
def test_what_nir_cannot_say_is_refused(neuron, word):
    record = refusal(torch.nn.Sequential(neuron), inputs((3,)))[0]
    assert word in record.reason


@pytest.mark.parametrize(
    ("layer", "shape", "word"),
    [
        (nn.MaxPool2d(2), (2, 4, 4), "MaxPool2d"),
        (nn.BatchNorm2d(2), (2, 4, 4), "no weight before it"),
        (nn.AvgPool2d(3, ceil_mode=True), (2, 4, 4), "ceil_mode"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), (2, 4, 4), "count_include_pad"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), (2, 4, 4), "reflect"),
        (torch.nn.Linear(4, 4), (2, 4, 4), "one axis"),
        (torch.nn.Linear(4, 4).double(), (4,), "float64"),
    ],
)
def test_layers_that_compute_something_else_are_refused(layer, shape, word):
    x = inputs(shape).to(next((p.dtype for p in layer.parameters()), torch.float32))
    assert word in refusal(torch.nn.Sequential(layer), x)[0].reason


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_net_without_weights_computes_in_the_dtype_of_its_input(dtype, tmp_path):
    """A potential just below the threshold reaches it in float32."""
    net = torch.nn.Sequential(nn.IF(backend="torch"))
    x = torch.full((4, 1, 2), 1 - 2.0**-30, dtype=torch.float64).to(dtype)
    (record,) = refusal(net, x)
    assert f"the example input is {str(dtype).removeprefix('torch.')}" in record.reason
    if dtype == torch.float64:
        assert not torch.equal(net(x), net(x.float()).double())
        artefact = NIR(dtype="float64").export(net, x, tmp_path / "net.nir")
        assert torch.equal(NIR().simulate(artefact, x), net(x))


def test_a_file_says_how_it_is_meant_and_options_come_first(tmp_path):
    net = torch.nn.Sequential(nn.LIF(tau=3.0, v_threshold=0.4, backend="torch"))
    x = inputs((4,))
    artefact = NIR(dt=1e-3, profile="held").export(net, x, tmp_path / "net.nir")
    text = nir.read(tmp_path / "net.nir").metadata
    assert text["profile"] == "held"
    assert float(text["dt"]) == 1e-3
    right = net(x)
    assert torch.equal(NIR().simulate(artefact, x), right)
    others = [NIR(profile="euler").simulate(artefact, x), NIR(dt=5e-4).simulate(artefact, x)]
    assert not any(torch.equal(other, right) for other in others)
    with pytest.raises(ConversionError, match="set dt"):
        NIR(dt=1.0, profile="euler").load(artefact.path)


INPUT_STEPS = [*(6, 22, 27, 31, 32, 35, 37, 40, 41, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53), *range(67, 79), 84, 85]
"""Of 100 steps of the published experiment; 10 steps of 0.1 ms each."""
PUBLISHED = {
    "euler": ([460, 510, 710, 760], 1.0),  # norse, snntorch, nengo, spinnaker2
    "held": ([460, 510, 710, 760], 1.0),  # the exact solution
    "decay_soft": ([450, 500, 710, 760], 0.04),  # rockpool, and sinabs, to which dt / tau is given as the input
    "late": ([461, 511, 711, 761], 1.0),  # lava, as its spikes arrive
}


@pytest.mark.parametrize("profile", PUBLISHED)
def test_published_traces(tmp_path, profile):
    """The spikes of one LIF neuron in the readers of Pedersen et al. (2024), figure 2: tau 2.5 ms, threshold 0.1."""
    spikes, size = PUBLISHED[profile]
    one = {"tau": np.array([0.0025]), "r": np.array([1.0]), "v_leak": np.zeros(1), "v_threshold": np.array([0.1])}
    nodes = {"input": nir.Input({"input": np.array([1])}), "weight": nir.Linear(np.ones((1, 1))), "lif": nir.LIF(**one)}
    nodes["output"] = nir.Output({"output": np.array([1])})
    edges = [("input", "weight"), ("weight", "lif"), ("lif", "output")]
    nir.write(tmp_path / "lif.nir", nir.NIRGraph(nodes, edges))
    x = torch.zeros(1000, 1, 1)
    x[[10 * step for step in INPUT_STEPS]] = size
    net = NIR(profile=profile, dt=1e-4).load(tmp_path / "lif.nir")
    lag = 1 if profile == "late" else 0  # which is taken out of the net
    assert [step + lag for step in net(x).flatten().nonzero().flatten().tolist()] == spikes
    from spikecore.interfaces import Artefact

    artefact = Artefact(tmp_path / "lif.nir")
    assert torch.equal(NIR(profile=profile, dt=1e-4).simulate(artefact, x), net(x))


def test_late_spikes(tmp_path):
    """A reader that passes spikes on one step later computes the net where silence before them changes nothing."""
    parts = [torch.nn.Linear(4, 8), nn.LIF(v_threshold=0.4), torch.nn.Linear(8, 3, bias=False), nn.LIF(v_threshold=0.3)]
    net = settle_weights(torch.nn.Sequential(*parts))
    nn.set_backend(net, "torch")
    spikes, _ = assert_deployed(net, inputs((4,), num_steps=20), tmp_path / "net.nir", profile="late")
    assert 0.1 < spikes["3"].mean() < 0.95
    biased = settle_weights(torch.nn.Sequential(*parts[:2], torch.nn.Linear(8, 3), parts[3]))
    assert "first step" in refusal(biased, inputs((4,)), profile="late")[0].reason


def euler_cuba(x, tau_syn, tau_mem, r, w_in, threshold, reset, dt):
    """The equations of NIR, one Euler step after the other, in doubles."""
    current = v = np.zeros(x.shape[1])
    out = []
    for now in x:
        current = current + dt / tau_syn * (w_in * now - current)
        v = v + dt / tau_mem * (r * current - v)
        fires = v > threshold
        v = np.where(fires, reset, v)
        out.append(fires)
    return np.array(out, dtype=np.float32)


def test_other_gains_and_arrays_of_a_foreign_file(tmp_path):
    """A file of another tool: every value an array of its own, gains that are not 1."""
    rng = np.random.default_rng(0)
    draw = {
        "tau_syn": (0.002, 0.02),
        "tau_mem": (0.002, 0.02),
        "r": (0.5, 4.0),
        "w_in": (1.0, 6.0),
        "v_threshold": (0.1, 0.5),
    }
    values = {name: rng.uniform(*bounds, 12) for name, bounds in draw.items()}
    node = nir.CubaLIF(v_leak=np.zeros(12), v_reset=np.full(12, -0.1), **values)
    nir.write(tmp_path / "net.nir", nir.NIRGraph.from_list(node))
    x = inputs((12,), num_steps=60, batch=1)
    net = NIR(dt=1e-3).load(tmp_path / "net.nir")
    right = euler_cuba(
        x[:, 0].double().numpy(),
        values["tau_syn"],
        values["tau_mem"],
        values["r"],
        values["w_in"],
        values["v_threshold"],
        -0.1,
        1e-3,
    )
    out, _ = record_spikes(net, x)
    assert 0.05 < right.mean() < 0.9
    assert (out[:, 0].numpy() != right).sum() == 0


def test_if_is_read_as_the_equation_or_as_readers_do(tmp_path):
    node = nir.IF(r=np.ones(1), v_threshold=np.array([1.5]))
    nir.write(tmp_path / "net.nir", nir.NIRGraph.from_list(node))
    x = torch.ones(4000, 1, 1)
    counts = NIR(dt=1e-3).load(tmp_path / "net.nir")(x)
    assert abs(int(counts.sum()) - math.floor(4000 / 1501)) <= 1
    assert NIR(dt=1e-3, if_input="step").load(tmp_path / "net.nir")(x[:4]).flatten().tolist() == [0, 1, 0, 1]


class SideBranch(torch.nn.Module):
    """Computes what nobody takes."""

    def __init__(self):
        super().__init__()
        self.linear, self.side, self.fire = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), nn.IF()

    def forward(self, x):
        self.fire(self.side(x))
        return self.linear(x)


def test_what_nothing_uses_is_refused_by_name(tmp_path):
    """Readers refuse such a file, and a trace would lack the neuron."""
    net, x = SideBranch(), inputs((4,))
    assert {record.name for record in refusal(net, x)} == {"side", "fire"}
    with pytest.raises(ConversionError, match="nothing uses"):
        NIR().export(net, x, tmp_path / "net.nir")
    assert not list(tmp_path.iterdir())


class Overwritten(torch.nn.Module):
    """Adds in place, and reads the sum under the old name."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fire, self.other = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), nn.IF(), nn.IF()

    def forward(self, x):
        y = self.first(x)
        z = y.add_(self.second(x))
        return self.fire(z) + self.other(y)


def test_what_is_overwritten_must_not_be_read_again():
    """An edge would bring the value from before."""
    (record,) = refusal(Overwritten(), inputs((4,)))
    assert (record.name, "writes into" in record.reason) == ("add_", True)


@pytest.mark.parametrize("options", [{"profile": "Euler"}, {"if_input": "steps"}])
def test_options_that_are_no_choice_are_refused(options):
    with pytest.raises(OptionError, match="must be one of"):
        NIR(**options)
