"""What the artefact computes: the bits of the net in float32, near it in float16."""

import json
import tempfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lynxi_nets import assert_equal_bits, exported, inputs, small_net

from spikecore import create, nn
from spikecore.analysis import compare_traces, record_spikes
from spikecore.testing.small_nets import settle_weights
from spikecore_deploy_lynxi import Lynxi

NEURONS = (
    lambda: nn.IF(v_threshold=0.75, reset="soft", v_init=-0.5),
    lambda: nn.LIF(tau=2.7, v_threshold=0.4, v_leak=0.1, v_reset=-0.3),
    lambda: nn.LIF(tau=(1.5, 3.0, 4.0, 2.0), v_threshold=(0.3, 0.5, 0.7, 0.9), decay_input=False, reset="soft"),
    lambda: nn.LIF(tau=3.0, fires="above", learnable=("tau", "v_threshold")),
    lambda: nn.CubaLIF(c_decay=0.3, v_decay=0.9),
    lambda: nn.Leaky(beta=0.8),
    lambda: nn.Leaky(beta=0.8, reset="hard", reset_delay=False),
    lambda: nn.LI(tau=3.3),  # from here on the outputs are no spikes
    lambda: nn.NonSpikingIF(),
)


@given(st.sampled_from(NEURONS[:7]), st.sampled_from(NEURONS), st.booleans(), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_random_nets_have_the_bits_of_the_net(first, second, is_image, seed):
    """Weights are any numbers, so sums are rounded: as torch rounds them."""
    torch.manual_seed(seed)
    parts = OrderedDict()
    if is_image:
        conv = torch.nn.Conv2d(2, 4, 3, groups=2, padding="same", dilation=2)
        parts = OrderedDict(conv=nn.ConvBNNeuron(conv, torch.nn.BatchNorm2d(4), first()), pool=nn.AvgPool2d(2))
        parts.update(flat=nn.Flatten(), linear=torch.nn.Linear(16, 4))
    else:
        parts = OrderedDict(linear=torch.nn.Linear(5, 4, bias=False), hidden=first(), last=torch.nn.Linear(4, 4))
    parts["out"] = second()
    net = torch.nn.Sequential(parts).eval()
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(part.running_var, 0.01, 0.05)
        elif isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
            with torch.no_grad():
                part.weight.mul_(4).add_(0.3)
    nn.set_backend(net, "torch")
    shape = (2, 4, 4) if is_image else (5,)
    with tempfile.TemporaryDirectory() as folder:
        assert_equal_bits(net, inputs(shape), folder, other=inputs(shape, seed + 1))


@pytest.mark.parametrize("make", NEURONS)
@pytest.mark.parametrize("runs", ["torchscript", "onnx"])
def test_a_neuron_alone(tmp_path, make, runs):
    """Nothing is summed, so onnxruntime gives these bits as well."""
    x = 3 * torch.rand(9, 2, 4, generator=torch.Generator().manual_seed(0))
    net = torch.nn.Sequential(make()).requires_grad_(False)
    nn.set_backend(net, "torch")
    assert assert_equal_bits(net, x, tmp_path, runs)["0"].abs().mean() > 0.05


@pytest.mark.parametrize(
    "loop",
    [
        lambda: nn.LateralRecurrent(nn.LIF(v_threshold=0.6, backend="torch"), 4),
        lambda: nn.ElementwiseRecurrent(nn.CubaLIF(v_threshold=2.0, backend="torch")),
        lambda: nn.LinearRecurrent(nn.LIF(v_threshold=1.0, backend="torch"), 4, 4),
    ],
)
def test_loops(tmp_path, loop):
    net = settle_weights(torch.nn.Sequential(OrderedDict(rec=loop(), last=torch.nn.Linear(4, 3))))
    spikes = assert_equal_bits(net, inputs((4,)), tmp_path, other=inputs((4,), 1))
    assert 0.1 < spikes["rec.module"].mean() < 0.9


@pytest.mark.parametrize("layer", [nn.SumPool2d(2), nn.SumPool2d(3, 1), nn.AdaptiveAvgPool2d((2, 3)), nn.MaxPool2d(2)])
def test_pools(tmp_path, layer):
    """Sums of spikes are exact, whatever their window."""
    net = torch.nn.Sequential(nn.IF(backend="torch", v_threshold=2.0), layer, nn.IF(backend="torch"))
    spikes = assert_equal_bits(net, inputs((2, 6, 6)), tmp_path)
    assert 0.05 < spikes["2"].mean() <= 1
    odd = isinstance(layer, nn.SumPool2d) and layer.kernel_size == 3
    record = Lynxi().check(net, inputs((2, 6, 6)))[1]
    assert record.outcome == ("approximated" if odd else "mapped")


def convnet():
    torch.manual_seed(0)
    net = create(
        "model", "convnet", lambda: nn.LIF(v_threshold=0.4, backend="torch"), (2, 8, 8), 5, channels=(8, 8)
    ).eval()
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(part.running_var, 0.01, 0.05)
    return net


@pytest.mark.parametrize("runs", ["torchscript", "onnx", "export"])
def test_a_convolutional_net(tmp_path, runs):
    net, x = convnet(), inputs((2, 8, 8), batch=4)
    out, spikes = record_spikes(net, x)
    assert all(0.02 < layer.mean() < 0.9 for layer in spikes.values())
    if runs == "torchscript":
        assert_equal_bits(net, x, tmp_path)
        return
    artefact = exported(net, x, tmp_path, runs=runs)
    fidelity = compare_traces(spikes, Lynxi(runs=runs).trace(artefact, x))
    assert fidelity.agreement >= 0.9999, str(fidelity)
    assert fidelity.num_different or (Lynxi(runs=runs).simulate(artefact, x) - out).abs().max() < 1e-5


def test_float16_is_near_and_says_so(tmp_path):
    net, x = convnet(), inputs((2, 8, 8), batch=4)
    deployer = Lynxi(dtype="float16")
    artefact = deployer.export(net, x, tmp_path / "net")
    outcomes = {record.outcome for record in artefact.mapping}
    assert "approximated" in outcomes
    assert "mapped" not in {record.outcome for record in artefact.mapping if record.operator == "LIF"}
    _, spikes = record_spikes(net, x)
    fidelity = compare_traces(spikes, deployer.trace(artefact, x))
    assert 1 - deployer.capabilities.tolerance < fidelity.agreement <= 1
    assert Lynxi().capabilities.tolerance == 0
    manifest = json.loads((artefact.path / "manifest.json").read_text())
    assert manifest["input"]["dtype"] == manifest["output"]["dtype"] == "float16"
    script = torch.jit.load(artefact.path / "net.pt")
    assert {tensor.dtype for tensor in script.state_dict().values()} == {torch.float16}
    assert not manifest["agreement"]["equal"]
    assert "differ by" in artefact.notes[0]


def test_float16_rounds_as_half_precision_does(tmp_path):
    """A threshold that float16 cannot hold: 1 + 2**-12 becomes 1, so that a potential of 1 fires."""
    net = torch.nn.Sequential(nn.IF(v_threshold=1 + 2**-12, backend="torch"))
    x = torch.ones(3, 1, 1)
    full, half = exported(net, x, tmp_path), Lynxi(dtype="float16").export(net, x, tmp_path / "half")
    assert Lynxi().simulate(full, x).flatten().tolist() == net(x).flatten().tolist() == [0, 1, 0]
    assert Lynxi().simulate(half, x).flatten().tolist() == [1, 1, 1]


def test_what_is_recorded_is_no_state(tmp_path):
    net = torch.nn.Sequential(nn.LIF(tau=3.0, v_threshold=0.3, record=("h", "v"), backend="torch"))
    assert_equal_bits(net, inputs((4,)), tmp_path)


def test_equal_nets_give_equal_bytes_and_no_paths(tmp_path):
    """Also in another process, and whatever was traced before."""
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from lynxi_nets import *; "
        "exported(small_net(), inputs((5,)), sys.argv[2], files='torchscript+onnx')"
    )
    here = str(__import__("pathlib").Path(__file__).parent)
    (tmp_path / "other").mkdir()
    subprocess.run([sys.executable, "-c", code, here, str(tmp_path / "other")], check=True)
    mine = exported(small_net(), inputs((5,)), tmp_path, files="torchscript+onnx").path
    files = {path.name: path.read_bytes() for path in sorted(mine.iterdir())}
    assert set(files) == {"net.pt", "net.onnx", "compile.py", "manifest.json"}
    for name, content in files.items():
        assert (tmp_path / "other" / "net" / name).read_bytes() == content, name
        assert here.encode() not in content
        assert b"mangle" not in content


def test_a_quantized_net(tmp_path):
    """The record of quantization has scales in doubles; the layer computes in float32."""
    from spikecore.interfaces import QuantizedLayer

    net = small_net()
    layer = next(part for part in net.modules() if isinstance(part, torch.nn.Linear))
    values = (layer.weight.detach() * 32).round().clamp(-128, 127).to(torch.int8)
    record = QuantizedLayer(values, torch.tensor(2.0**-5), torch.tensor(0, dtype=torch.int32), bits=8)
    nn.quantized.attach(layer, record)
    with torch.no_grad():
        layer.weight.copy_(record.dequantize())
    assert_equal_bits(net, inputs((5,)), tmp_path)
