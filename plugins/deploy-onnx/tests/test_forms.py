"""The three forms in onnxruntime: the bits of the net where its sums are exact, 1e-5 elsewhere."""

import tempfile
from collections import OrderedDict
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecore import create, nn
from spikecore.analysis import compare_traces, record_spikes
from spikecore.dynamics import OPS
from spikecore.errors import ConversionError, ShapeError
from spikecore.interfaces import QuantizedLayer
from spikecore.testing.small_nets import settle_weights
from spikecore_deploy_onnx import ONNX
from spikecore_deploy_onnx.language import SIMPLE, SPECIAL

FORMS = ("scan", "unrolled", "step")


def test_every_operator_of_core_is_printed():
    missing = set(OPS) - set({*SIMPLE, *SPECIAL})
    assert not missing, f"language.py has no node for {', '.join(sorted(missing))}"


def inputs(shape, seed=0, num_steps=10, batch=2):
    """Spikes `[T, B, *shape]`."""
    return torch.randint(0, 2, (num_steps, batch, *shape), generator=torch.Generator().manual_seed(seed)).float()


def deployed(net, x, folder, **options):
    deployer = ONNX(**options)
    artefact = deployer.export(net, x, Path(folder) / f"{options.get('form', 'scan')}.onnx")
    return deployer.simulate(artefact, x), deployer.trace(artefact, x)


def assert_equal_bits(net, x, form):
    """Every neuron and the output; gives the spikes."""
    out, spikes = record_spikes(net, x)
    with tempfile.TemporaryDirectory() as folder:
        got, traced = deployed(net, x, folder, form=form)
    assert list(traced) == list(spikes)
    for name, right in spikes.items():
        torch.testing.assert_close(traced[name], right, rtol=0, atol=0, msg=f"{form}, layer {name}")
    torch.testing.assert_close(got, out, rtol=0, atol=0, msg=form)
    return spikes


NEURONS = (
    lambda: nn.IF(v_threshold=0.75, reset="soft", v_init=-0.5),
    lambda: nn.LIF(tau=2.7, v_threshold=0.4, v_leak=0.1, v_reset=-0.3),
    lambda: nn.LIF(tau=(1.5, 3.0, 4.0, 2.0), v_threshold=(0.3, 0.5, 0.7, 0.9), decay_input=False, reset="soft"),
    lambda: nn.CubaLIF(c_decay=0.3, v_decay=0.9),
    lambda: nn.Leaky(beta=0.8),
    lambda: nn.Leaky(beta=0.8, reset="hard", reset_delay=False),
    lambda: nn.LIF(tau=3.0, learnable=("tau", "v_threshold")),
    lambda: nn.LI(tau=3.3),  # from here on the outputs are no spikes, and sums of them not exact
    lambda: nn.NonSpikingIF(),
)


@given(
    st.sampled_from(NEURONS[:7]), st.sampled_from(NEURONS), st.sampled_from(FORMS), st.booleans(), st.integers(0, 99)
)
@settings(max_examples=25, deadline=None)
def test_random_nets(first, second, form, is_image, seed):
    parts = OrderedDict()
    if is_image:
        conv = nn.ConvBNNeuron(torch.nn.Conv2d(2, 4, 3, groups=2, padding=1, stride=2), torch.nn.Identity(), first())
        parts = OrderedDict(conv=conv, pool=nn.SumPool2d(2), flat=nn.Flatten(), linear=torch.nn.Linear(4, 4))
    else:
        parts = OrderedDict(linear=torch.nn.Linear(5, 4, bias=False), hidden=first(), last=torch.nn.Linear(4, 4))
    parts["out"] = second()
    net = settle_weights(torch.nn.Sequential(parts), seed, -24, 40)
    nn.set_backend(net, "torch")
    assert_equal_bits(net, inputs((2, 4, 4) if is_image else (5,)), form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "loop",
    [
        lambda: nn.LateralRecurrent(nn.LIF(v_threshold=0.6, backend="torch"), 4),
        lambda: nn.ElementwiseRecurrent(nn.CubaLIF(v_threshold=2.0, backend="torch")),
        lambda: nn.LinearRecurrent(nn.LIF(v_threshold=1.0, backend="torch"), 4, 4),
    ],
)
def test_loops(loop, form):
    net = settle_weights(torch.nn.Sequential(OrderedDict(rec=loop(), last=torch.nn.Linear(4, 3))))
    spikes = assert_equal_bits(net, inputs((4,)), form)
    assert 0.1 < spikes["rec.module"].mean() < 0.9


@pytest.mark.parametrize("form", FORMS)
def test_a_neuron_alone_has_the_bits_of_the_net(form):
    """Nothing is summed, so its numbers may be anything."""
    x = 3 * torch.rand(12, 2, 4, generator=torch.Generator().manual_seed(0))
    for make in NEURONS:
        net = torch.nn.Sequential(make()).requires_grad_(False)
        nn.set_backend(net, "torch")
        spikes = assert_equal_bits(net, x, form)
        assert spikes["0"].abs().mean() > 0.05


@pytest.mark.parametrize("form", FORMS)
def test_any_weights_within_1e_5(tmp_path, form):
    torch.manual_seed(0)
    net = create(
        "model", "convnet", lambda: nn.LIF(v_threshold=0.4, backend="torch"), (2, 8, 8), 5, channels=(8, 8)
    ).eval()
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(part.running_var, 0.01, 0.05)
    x = inputs((2, 8, 8), batch=4)
    out, spikes = record_spikes(net, x)
    assert all(0.02 < layer.mean() < 0.9 for layer in spikes.values())
    got, traced = deployed(net, x, tmp_path, form=form)
    fidelity = compare_traces(spikes, traced)
    assert fidelity.agreement >= 0.9999, str(fidelity)
    assert fidelity.num_different or (got - out).abs().max() < 1e-5


def test_a_scan_runs_for_any_length_and_batch(tmp_path):
    net = settle_weights(torch.nn.Sequential(torch.nn.Linear(5, 4), nn.LIF(tau=3.0, backend="torch")))
    artefact = ONNX().export(net, inputs((5,), num_steps=3, batch=1), tmp_path / "net.onnx")
    x = inputs((5,), num_steps=37, batch=6)
    assert torch.equal(ONNX().simulate(artefact, x), net(x))
    kinds = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert kinds.count("Scan") == 1
    with pytest.raises(ShapeError, match="takes"):
        ONNX().simulate(artefact, inputs((6,)))


def test_unrolled_has_no_control_flow_and_one_length(tmp_path):
    net = settle_weights(torch.nn.Sequential(torch.nn.Linear(5, 4), nn.LIF(tau=3.0, backend="torch")))
    deployer = ONNX(form="unrolled")
    artefact = deployer.export(net, inputs((5,), num_steps=7), tmp_path / "net.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert not kinds & {"Scan", "Loop", "If"}
    with pytest.raises(ShapeError, match="7"):
        deployer.simulate(artefact, inputs((5,), num_steps=8))


def test_a_step_takes_and_gives_its_states(tmp_path):
    """The model of one step says how each state begins and where it comes back."""
    import json

    import onnxruntime

    net = settle_weights(torch.nn.Sequential(torch.nn.Linear(5, 4), nn.CubaLIF(v_init=-0.25, backend="torch")))
    ONNX(form="step").export(net, inputs((5,)), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["spikecore"])
    firsts = {state["input"]: state["first"] for state in about["states"]}
    assert firsts == {"1.current": 0.0, "1.v": -0.25}
    x = inputs((5,), batch=3)
    states = {name: torch.full((3, 4), first).numpy() for name, first in firsts.items()}
    outs = []
    for now in x:
        values = session.run(["y", *(state["output"] for state in about["states"])], {"x": now.numpy(), **states})
        outs.append(torch.from_numpy(values[0]))
        states = dict(zip(firsts, values[1:], strict=True))
    assert torch.equal(torch.stack(outs), net(x))


def test_int8_weights(tmp_path):
    """Stored are the integers of the record, or those of the rounded weights; the sums are those of the integers."""
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), nn.IF(backend="torch")).eval()
    values = torch.randint(-100, 100, (4, 5), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    scale = torch.full((4,), 2.0**-6)
    nn.quantized.attach(net[0], QuantizedLayer(values, scale, torch.zeros(4, dtype=torch.int32), bits=8, axis=0))
    with torch.no_grad():
        net[0].weight.copy_(values * scale[:, None])
        net[0].bias.fill_(0.25)
    x = inputs((5,))
    deployer = ONNX(weights="int8")
    assert deployer.check(net, x)[0].outcome == "approximated"
    artefact = deployer.export(net, x, tmp_path / "net.onnx")
    stored = {one.name: one for one in onnx.load(tmp_path / "net.onnx").graph.initializer}["weight_int8"]
    assert onnx.numpy_helper.to_array(stored).tolist() == values.tolist()
    right = net(x)
    assert 0.1 < right.mean() < 0.9
    assert torch.equal(deployer.simulate(artefact, x), right)
    with torch.no_grad():
        net[0].weight[2, 3] += scale[2] / 2  # trained on, without its record
    record = deployer.check(net, x)[0]
    assert record.outcome == "refused"
    assert "by up to 0.00781: it changed since" in record.reason
    nn.quantized.remove(net[0])
    assert deployer.check(net, x)[0].outcome == "approximated"
    other = torch.nn.Sequential(torch.nn.Linear(64, 8))
    x = torch.rand(3, 2, 64)
    plain = other(x)
    small, _ = deployed(other, x, tmp_path, weights="int8")
    error = (small - plain).abs().max()
    assert 0 < error < 64 * other[0].weight.abs().max() / 127
    assert artefact.notes[1] == "Layer 0: largest error of a weight 0."
    assert deployer.capabilities.tolerance > ONNX().capabilities.tolerance == 0


@pytest.mark.parametrize(("layer", "word"), [(torch.nn.GELU(), "GELU"), (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode")])
def test_what_has_no_node_is_refused(layer, word):
    record = ONNX().check(torch.nn.Sequential(layer), torch.zeros(3, 2, 1, 4, 4))[0]
    assert word in record.reason
    assert record.outcome == "refused"


class TestFiles:
    """Damaged and hostile."""

    @pytest.fixture
    def path(self, tmp_path):
        net = torch.nn.Sequential(torch.nn.Linear(5, 4), nn.LIF(tau=3.0, backend="torch"))
        ONNX().export(net, inputs((5,)), tmp_path / "net.onnx")
        return tmp_path / "net.onnx"

    def refused(self, path, match, **options):
        from spikecore.interfaces import Artefact

        with pytest.raises(ConversionError, match=match):
            ONNX(**options).simulate(Artefact(path), inputs((5,)))

    def test_shortened(self, path):
        content = path.read_bytes()
        for length in range(0, len(content) - 1, len(content) // 17):
            path.write_bytes(content[:length])
            self.refused(path, r"net\.onnx")

    def test_too_large(self, path):
        self.refused(path, "max_bytes", max_bytes=100)

    def test_another_file(self, path, tmp_path):
        (tmp_path / "secret").write_bytes(bytes(80))
        model = onnx.load(path)
        weight = model.graph.initializer[0]
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="secret")
        path.write_bytes(model.SerializeToString())
        self.refused(path, "another file")

    def test_sizes_without_numbers(self, path):
        model = onnx.load(path)
        model.graph.initializer[0].dims[:] = [2**40, 2**20]
        path.write_bytes(model.SerializeToString())
        self.refused(path, "has the shape")

    def test_operations_that_allocate_what_a_file_says(self, path):
        model = onnx.load(path)
        model.graph.node[0].op_type = "ConstantOfShape"
        path.write_bytes(model.SerializeToString())
        self.refused(path, "ConstantOfShape")

    def test_shapes_that_ask_for_more_than_there_is(self, path):
        model = onnx.load(path)
        shape = next(one for one in model.graph.initializer if one.name == "shape")
        shape.CopyFrom(onnx.numpy_helper.from_array(torch.tensor([2**40, 5]).numpy(), "shape"))
        path.write_bytes(model.SerializeToString())
        self.refused(path, "more than is supported")

    def test_a_model_of_another_tool(self, path):
        model = onnx.load(path)
        del model.metadata_props[:]
        path.write_bytes(model.SerializeToString())
        self.refused(path, "not a model of this plugin")

    def test_nothing_and_a_directory(self, tmp_path):
        self.refused(tmp_path, "expected an .onnx file")
        self.refused(tmp_path / "missing.onnx", "expected an .onnx file")


def test_places_that_cannot_be_written(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), nn.LIF())
    (tmp_path / "taken.onnx").mkdir()
    for place in (tmp_path / "taken.onnx", tmp_path / "missing" / "net.onnx"):
        with pytest.raises(ConversionError, match="cannot be written"):
            ONNX().export(net, inputs((5,)), place)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken.onnx"]


def test_only_unrolled_models_have_one_length():
    """Capabilities are those of an instance."""
    fixed = {form: ONNX(form=form, weights="int8").capabilities.fixed_shape for form in FORMS}
    assert fixed == {"scan": False, "unrolled": True, "step": False}
    assert ONNX(form="unrolled", weights="int8").capabilities.tolerance > ONNX(form="unrolled").capabilities.tolerance


@pytest.mark.parametrize("form", FORMS)
def test_an_input_without_steps_or_samples_is_refused(tmp_path, form):
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), nn.LIF(backend="torch"))
    artefact = ONNX(form=form).export(net, inputs((5,)), tmp_path / "net.onnx")
    for x in (inputs((5,), num_steps=0), inputs((5,), batch=0)):
        with pytest.raises(ShapeError, match="takes"):
            ONNX().simulate(artefact, x)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_numbers_that_are_not_finite_are_refused(name):
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), nn.IF())
    torch.nn.init.constant_(getattr(net[0], name), float("inf"))
    (record,) = [record for record in ONNX().check(net, inputs((5,))) if record.outcome == "refused"]
    assert (record.name, record.reason) == ("0", f"its {name} holds a number that is not finite")


class Overwritten(torch.nn.Module):
    """Adds in place, and reads the sum under the old name."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fire, self.other = torch.nn.Linear(5, 4), torch.nn.Linear(5, 4), nn.IF(), nn.IF()

    def forward(self, x):
        y = self.first(x)
        z = y.add_(self.second(x))
        return self.fire(z) + self.other(y)


class TwoInputs(torch.nn.Module):
    """Computes nothing, and returns two values."""

    def forward(self, x):
        return x, x


@pytest.mark.parametrize(("net", "word"), [(Overwritten(), "writes into"), (TwoInputs(), "one value")])
def test_nets_of_which_a_model_would_compute_something_else(tmp_path, net, word):
    with pytest.raises(ConversionError, match=word):
        ONNX().export(net, inputs((5,)), tmp_path / "net.onnx")
