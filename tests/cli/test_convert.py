"""`spike convert` from a trained net to a directory, with the converter of the scaffold: what it writes and says."""

import contextlib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import spikecore
from spikecore import nn
from spikecore.errors import CheckpointError, ConfigError, SpikeError
from spikecore.registry import Blocking, Registry, use
from spikecore.run.converted import sum_of
from spikecore.run.samples import samples_of
from tests.cli.scaffolded import component_file, trained

ARTIFICIAL = {
    "trainer": {"epochs": 3},
    "encoder": {"num_steps": 1},
    "model": {"name": "convnet", "channels": [8]},
    "neuron": {"name": "relu"},
    "run": {"name": "artificial"},
}
VARIANTS = '''
import spikecore
from dataclasses import dataclass, replace
from spikecore.interfaces import Configurable, make_config

@spikecore.register("converter", "toy")
class Toy(FreshToy):
    """As the scaffold writes it, with an option."""
    @dataclass(frozen=True)
    class Config(Configurable.Config):
        gain: float = 1.0
    def convert(self, model, example_input, calibration=()):
        net, report = super().convert(model, example_input, calibration)
        for part in net.modules():
            if isinstance(part, SpikingReLU):
                part.threshold *= self.config.gain
        return net, report

@spikecore.register("converter", "toy-forgets")
class Forgets(FreshToy):
    """The threshold that calibration found is no buffer."""
    def convert(self, model, example_input, calibration=()):
        net, report = super().convert(model, example_input, calibration)
        for part in net.modules():
            if isinstance(part, SpikingReLU):
                value = part.threshold
                del part.threshold
                part.threshold = value
        return net, report

@spikecore.register("converter", "toy-blind")
class Blind(FreshToy):
    """Needs no data."""
    capabilities = replace(FreshToy.capabilities, needs_calibration=False)
    def convert(self, model, example_input, calibration=()):
        return super().convert(model, example_input, [*calibration] or [example_input])

@spikecore.register("converter", "toy-pass")
class Pass(Configurable):
    """Takes spiking nets: raises every threshold by a tenth, as a buffer."""
    api_version = 2
    capabilities = replace(FreshToy.capabilities)
    def __init__(self, **options):
        self.config = make_config(type(self), options)
    def convert(self, model, example_input, calibration=()):
        batches = list(calibration)
        if not batches or batches[0].dim() < 3:
            raise ConversionError(f"expected sequences, got {[tuple(batch.shape) for batch in batches]}")
        graph = nn.trace_net(copy.deepcopy(model).eval())
        net = copy.deepcopy(model).eval()
        net.register_buffer("mean_input", torch.stack([batch.mean() for batch in batches]).mean())
        return net, ConversionReport(tuple(LayerReport(node.name, "kept", "as it was") for node in graph.layers))
'''
FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        net[0].weight.mul_(2)
        net[2].bias.copy_(-net(torch.rand(100, 6)).mean(0))
    return net

def branching():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x
    return Branching()

def broken():
    raise ValueError("no weights here")

def nothing():
    return 3
"""


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    """An artificial net trained on the digits."""
    return trained(ARTIFICIAL, tmp_path_factory.mktemp("runs") / "ann")


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """The converter that `spike new-plugin` writes, and variants of it, in one file."""
    return component_file(tmp_path_factory.mktemp("toys"), "converter", VARIANTS)


@pytest.fixture
def factory(tmp_path):
    """A file with functions that make nets; another one for each test, so that none was imported before."""
    file = tmp_path / "nets.py"
    file.write_text(f"# {tmp_path}\n{FACTORY}")
    return file


@pytest.fixture
def convert(spike, toys):
    """`spike convert NAME SOURCE`."""
    return lambda name, source, *options: spike("convert", name, source, *options, "--load", toys)


@pytest.fixture
def loaded(toys):
    """`spikecore.load(directory)` with the toys."""

    def load(directory, **options):
        with use(Registry(blocking=Blocking())) as registry:
            registry.load_file(toys)
            return spikecore.load(directory, **options)

    return load


def test_a_trained_net_becomes_a_spiking_one(convert, loaded, ann):
    status, printed = convert("toy", ann, "--out", "snn", "--set", "gain=1.25", "--samples", 200)
    assert status == 0, printed
    for said in ("layers.1  became", "if with soft reset", "as those of the given net (64 test samples of", "T = 64)"):
        assert said in printed, printed
    written = sorted(str(path.relative_to("snn")) for path in Path("snn").rglob("*") if path.is_file())
    source = ["source/config.toml", "source/run.json"]
    assert written == ["converted.json", "example.safetensors", "net.safetensors", "report.html", *source]

    manifest = json.loads(Path("snn/converted.json").read_text())
    assert manifest["converter"]["options"] == {"gain": 1.25}
    assert manifest["calibration"] == f"200 training samples of {ann}"
    assert manifest["source"]["kind"] == "run"
    layers = {layer["name"]: layer for layer in manifest["report"]["layers"]}
    assert list(layers) == [f"layers.{index}" for index in range(5)]
    state = load_file("snn/net.safetensors")
    assert state["layers.1.threshold"].item() == pytest.approx(1.25 * layers["layers.1"]["threshold"])

    given, net = spikecore.load(ann), loaded("snn")
    nn.set_step_mode(given, "single")
    x = samples_of(ann, 100).x[0]
    with torch.no_grad():
        right, scores = given(x), net(x.expand(64, *x.shape)).mean(0)
    assert (right.argmax(-1) == scores.argmax(-1)).float().mean() > 0.95
    assert len(right.argmax(-1).unique()) == 10
    error = (scores - right).norm() / (right - right.mean()).norm()
    assert 0 < error < 0.2
    spikes = []
    net.get_submodule("layers.1").register_forward_hook(lambda module, args, out: spikes.append(out))
    net(x.expand(4, *x.shape))
    assert 0.01 < (spikes[0] > 0).float().mean() < 0.9


def test_decisions_are_compared_with_labels_after_every_step(convert, loaded, ann):
    """Counted here with the whole sequence at once."""
    status, printed = convert("toy", ann, "--out", "snn", "--compare", 150)
    assert status == 0, printed
    report = json.loads(Path("snn/converted.json").read_text())["report"]
    x, labels = samples_of(ann, 150).x[0], samples_of(ann, 150).labels
    given = spikecore.load(ann)
    nn.set_step_mode(given, "single")
    with torch.no_grad():
        right = given(x).argmax(-1)
        decided = loaded("snn")(x.expand(64, *x.shape)).cumsum(0).argmax(-1)
    accuracy, agreement = (decided == labels).double().mean(1), (decided == right).double().mean(1)
    assert 0.1 < accuracy[0] < accuracy[-1]
    steps = [float(step) for step in range(1, 65)]
    for name, values in (("accuracy over T", accuracy), ("agreement over T", agreement)):
        assert [point[0] for point in report["curves"][name]] == steps
        assert [point[1] for point in report["curves"][name]] == pytest.approx(values.tolist())
    expected = float((right == labels).double().mean())
    assert report["curves"]["accuracy of the given net"][-1] == [64.0, pytest.approx(expected)]
    assert "accuracy over T: 1: " in printed
    page = Path("snn/report.html").read_text()
    assert "Accuracy against T" in page
    assert f"<dd>{float(accuracy[-1]):.2%}</dd>" in page
    assert "150 test samples of" in page


def test_nothing_is_compared_on_request(convert, ann):
    status, printed = convert("toy", ann, "--out", "snn", "--compare", 0)
    assert status == 0, printed
    assert "decisions" not in printed
    assert json.loads(Path("snn/converted.json").read_text())["report"]["curves"] == {}
    assert "No decisions were compared." in Path("snn/report.html").read_text()


def test_it_loads_in_another_process_without_the_data(convert, ann, toys, tmp_path):
    status, printed = convert("toy", ann, "--out", "snn")
    assert status == 0, printed
    moved = tmp_path / "elsewhere"
    Path("snn").rename(moved)
    code = (
        "import sys, torch, spikecore\n"
        "from spikecore.registry import registry\n"
        "import spikecore.datasets.digits as digits\n"
        "digits.Digits.__init__ = lambda self, **options: sys.exit('the dataset was asked for')\n"
        f"registry().load_file({str(toys)!r})\n"
        f"net = spikecore.load({str(moved)!r})\n"
        "print(net(torch.ones(8, 2, 1, 8, 8)).sum().item())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with use(Registry(blocking=Blocking())) as registry:
        registry.load_file(toys)
        here = spikecore.load(moved, backend="torch")
    assert {part.backend for part in here.modules() if isinstance(part, nn.Neuron)} == {"torch"}
    assert float(done.stdout) == pytest.approx(here(torch.ones(8, 2, 1, 8, 8)).sum().item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_a_function_in_a_file_with_weights_and_data_of_ones_own(convert, loaded, factory, kind, tmp_path):
    inputs = torch.rand(150, 6, generator=torch.Generator().manual_seed(3))
    data = tmp_path / f"inputs.{kind}"
    if kind == "npy":
        np.save(data, inputs.double().numpy())  # NumPy's own default is float64
    else:
        save_file({"x": inputs}, data)
    spec = importlib.util.spec_from_file_location(f"nets_{kind}", factory)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.make()
    net[2].weight.data.mul_(-1.5)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    options = ("--weights", tmp_path / "net.safetensors", "--data", data, "--batch-size", 40, "--out", "snn")
    status, printed = convert("toy", f"{factory}:make", *options)
    assert status == 0, printed
    assert json.loads(Path("snn/converted.json").read_text())["calibration"] == f"150 inputs in {data}"
    tensors = load_file("snn/net.safetensors")
    assert torch.equal(tensors["2.weight"], net[2].weight)
    assert tensors["1.threshold"].item() == pytest.approx(net[:2](inputs).max().item())
    again = loaded("snn")
    scores = again(inputs.expand(64, 150, 6)).mean(0)
    assert (scores - net(inputs)).norm() / net(inputs).norm() < 0.1


def test_a_file_is_run_only_when_it_is_asked_for(convert, loaded, factory):
    status, printed = convert("toy-blind", f"{factory}:make", "--input-shape", "6", "--out", "snn")
    assert status == 0, printed
    assert json.loads(Path("snn/converted.json").read_text())["calibration"] is None
    digest = hashlib.sha256(factory.read_bytes()).hexdigest()
    forget(factory)
    with pytest.raises(ConfigError, match=rf"nets.py:make \(sha256 {digest[:12]}\), which is run only when you ask"):
        loaded("snn")
    spec = importlib.util.spec_from_file_location("nets_of_mine", factory)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["nets_of_mine"] = module
    try:
        assert loaded("snn")(torch.rand(8, 2, 6)).shape == (8, 2, 3)
        factory.write_text(factory.read_text() + "\n")
        with pytest.raises(ConfigError, match="import that file before, unchanged"):
            loaded("snn")
    finally:
        del sys.modules["nets_of_mine"]


def test_a_converted_net_is_converted_again(convert, loaded, ann, tmp_path):
    assert convert("toy", ann, "--out", "snn")[0] == 0
    sequences = torch.rand(10, 6, 1, 8, 8)
    save_file({"x": sequences}, "inputs.safetensors")
    status, printed = convert("toy-pass", "snn", "--data", "inputs.safetensors", "--out", "twice")
    assert status == 0, printed
    twice = loaded("twice")
    assert twice.mean_input.item() == pytest.approx(sequences.mean().item())
    x = torch.rand(6, 2, 1, 8, 8)
    assert torch.equal(twice(x), loaded("snn")(x))


def test_a_converted_net_has_the_data_of_its_run(convert, loaded, ann):
    """Its encoder repeats every sample for as many steps as the net was converted for; so does a dataset by name."""
    assert convert("toy", ann, "--out", "snn")[0] == 0
    split = spikecore.create("dataset", "digits").split("train")
    mean = torch.stack([split[index][0] for index in range(len(split))]).mean()
    for options in ((), ("--data", "digits")):
        status, printed = convert("toy-pass", "snn", *options, "--samples", 10**6, "--out", f"twice{len(options)}")
        assert status == 0, printed
        assert "accuracy over T: 1: " in printed
        assert loaded(f"twice{len(options)}").mean_input.item() == pytest.approx(mean.item(), abs=1e-3)
    np.save("inputs.npy", np.full((5, 1, 8, 8), 0.25))
    status, printed = convert("toy-pass", "snn", "--data", "inputs.npy", "--out", "thrice")
    assert status == 0, printed
    assert loaded("thrice").mean_input.item() == 0.25


def forget(file):
    """As if it had not been run in this process."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == str(file):
            del sys.modules[name]


def test_a_converter_that_breaks_its_contract_writes_nothing(convert, ann):
    status, printed = convert("toy-forgets", ann, "--out", "snn")
    assert status == 1
    assert "the net that is loaded without the data gives other numbers" in printed
    assert list(Path().iterdir()) == []


REFUSED = [
    (["{ann}"], "Missing option '--out'"),
    (["{ann}", "--out", "{ann}"], "spike: --out {ann}: must be a new or empty directory"),
    (["{ann}", "--out", "o", "--weights", "w.safetensors"], "this source has its own weights; leave it out"),
    (["nowhere", "--out", "o"], "SOURCE nowhere: is no directory and no FILE.py:function"),
    (["{file}", "--out", "o"], "name the function that makes the net, as in {file}:make_net"),
    (["missing.py:make", "--out", "o"], "spike: SOURCE missing.py: cannot be read: No such file or directory"),
    (["{file}:absent", "--out", "o"], "{file}:absent: the file has no function of this name"),
    (["{file}:broken", "--out", "o"], "calling it without arguments failed: ValueError: no weights here"),
    (["{file}:nothing", "--out", "o"], "expected a torch.nn.Module, got int"),
    (["{file}:make", "--out", "o"], "--data is missing: name a dataset, or a .safetensors or .npy file"),
    (["{file}:make", "--out", "o", "--data", "gone.npy"], "--data gone.npy: cannot be read"),
    (["{file}:make", "--out", "o", "--data", "empty.npy"], "--data empty.npy: cannot be read: ValueError"),
    (["{file}:make", "--out", "o", "--data", "cut.npy"], "--data cut.npy: cannot be read: "),
    (["{file}:make", "--out", "o", "--data", "much.npy"], "--data much.npy: cannot be read: ValueError"),
    (["{file}:make", "--out", "o", "--data", "pipe.npy"], "--data pipe.npy: cannot be read: OSError"),
    (["{file}:make", "--out", "o", "--data", "nan.npy"], "--data nan.npy: holds nan or infinities"),
    (
        ["{file}:make", "--out", "o", "--data", "bytes.npy"],
        "--data bytes.npy: expected inputs [N, ...] of floating-point numbers, as the net takes them, got (4, 6) of",
    ),
    (["{file}:make", "--out", "o", "--data", "flat.npy"], "as the net takes them, got (4,) of torch.float64"),
    (["{file}:make", "--out", "o", "--data", "six.npy", "--input-shape", "2,3"], "are of the shape (6,): leave"),
    (["{file}:make", "--out", "o", "--data", "digitz"], "no dataset 'digitz'. Did you mean 'digits'"),
    (
        ["{file}:make", "--out", "o", "--input-shape", "6,x"],
        "--input-shape 6,x: expected sizes of 1 or more",
    ),
    (["{file}:make", "--out", "o", "--data", "digits", "--weights", "w.safetensors"], "w.safetensors: cannot be read"),
    (["{ann}", "--out", "o", "--checkpoint", "step-999"], "step-999"),
    (["{ann}", "--out", "o", "--set", "gian=2"], "did you mean 'gain'?"),
    (["{ann}", "--out", "o", "--set", "gain"], "spike: --set gain: expected KEY=VALUE, as in tau=3.0"),
]


def npy_header(text):
    """A `.npy` file that ends after this header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=str)
def test_what_is_refused(convert, ann, factory, arguments, said):
    Path("empty.npy").touch()
    Path("cut.npy").write_bytes(npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,2"))
    Path("much.npy").write_bytes(npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 6)}"))
    os.mkfifo("pipe.npy")
    np.save("nan.npy", np.full((4, 6), np.nan))
    np.save("bytes.npy", np.zeros((4, 6), np.uint8))
    np.save("flat.npy", np.zeros(4))
    np.save("six.npy", np.zeros((4, 6)))
    places = {"ann": ann, "file": factory}
    status, printed = convert("toy", *[argument.format(**places) for argument in arguments])
    assert status == 2, printed
    assert said.format(**places) in " ".join(printed.split()), printed
    assert not Path("o").exists()


def test_a_net_that_cannot_be_traced_is_refused_with_its_line(convert, factory):
    options = ("--input-shape", "6", "--out", "o")
    status, printed = convert("toy-blind", f"{factory}:branching", *options)
    assert status == 2
    assert "converter 'toy-blind' refuses this net: Branching cannot be traced" in printed
    assert "return x if x.sum() > 0 else -x" in printed
    status, printed = convert("toy-blind", f"{factory}:make", "--out", "o")
    assert status == 2
    assert "the shape of an input is not known: give --data, or --input-shape" in printed


def test_a_layer_that_is_refused_is_named(convert, tmp_path):
    with use(Registry(blocking=Blocking())):
        spikecore.run({**ARTIFICIAL, "trainer": {"epochs": 1}, "neuron": {"name": "lif"}}, out=tmp_path / "spiking")
    status, printed = convert("toy", tmp_path / "spiking", "--out", "o")
    assert status == 2
    assert "converter 'toy' refuses this net: layer layers.1 (LIF)" in printed


@pytest.mark.parametrize("name", ["net.safetensors", "example.safetensors", "source/run.json", "converted.json"])
def test_damage_is_noticed(convert, loaded, ann, name):
    assert convert("toy", ann, "--out", "snn")[0] == 0
    path = Path("snn") / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises((CheckpointError, ConfigError), match="damaged"):
        loaded("snn")
    path.unlink()
    with pytest.raises((CheckpointError, ConfigError), match=r"cannot be read|holds no run\.json"):
        loaded("snn")


def test_a_signed_manifest_of_other_types_is_refused(convert, loaded, ann, tmp_path):
    """Anybody can sign one; also one that names files elsewhere."""
    assert convert("toy", ann, "--out", "snn")[0] == 0
    good = json.loads(Path("snn/converted.json").read_text())
    places = [(key,) for key in ("files", "converter", "source", "example_shape")]
    places += [("converter", key) for key in ("name", "options")]
    places += [("source", key) for key in ("kind", "step_mode")]
    num_loaded = 0
    for place in places:
        for value in (None, [], {}, "x", 7, [1.5], {"a": 1}, {"../a": "x"}, {"/etc/passwd": "x"}):
            changed = json.loads(json.dumps(good))
            inner = changed[place[0]] if len(place) == 2 else changed
            inner[place[-1]] = value
            changed["sha256_of_the_rest"] = sum_of(changed)
            Path("snn/converted.json").write_text(json.dumps(changed))
            with contextlib.suppress(SpikeError):
                loaded("snn")
                num_loaded += 1
    assert num_loaded < 10
    (tmp_path / "secret").write_text("x")
    outside = {**good, "files": {**good["files"], "../secret": hashlib.sha256(b"x").hexdigest()}}
    Path("snn/converted.json").write_text(json.dumps({**outside, "sha256_of_the_rest": sum_of(outside)}))
    with pytest.raises(ConfigError, match=r"'\.\./secret' is not a file of this directory"):
        loaded("snn")


def test_what_a_manifest_does_not_list_is_not_given_away(convert, loaded, ann, tmp_path):
    """A link in a directory of somebody else: converted again, its net would take a file of one's own along."""
    assert convert("toy", ann, "--out", "snn")[0] == 0
    (tmp_path / "secret").write_text("mine")
    Path("snn/extra.json").symlink_to(tmp_path / "secret")
    Path("snn/source/folder").symlink_to(tmp_path)
    os.mkfifo("snn/source/pipe")
    save_file({"x": torch.rand(10, 6, 1, 8, 8)}, "inputs.safetensors")
    status, printed = convert("toy-pass", "snn", "--data", "inputs.safetensors", "--out", "twice")
    assert status == 0, printed
    loaded("twice")
    assert not [path for path in Path("twice").rglob("*") if path.is_file() and b"mine" in path.read_bytes()]


def test_other_versions_and_checkpoints_are_refused(convert, loaded, ann):
    assert convert("toy", ann, "--out", "snn")[0] == 0
    with pytest.raises(CheckpointError, match="has no checkpoints"):
        loaded("snn", checkpoint="best")
    with use(Registry(blocking=Blocking())), pytest.raises(spikecore.errors.UnknownComponentError, match="'toy'"):
        spikecore.load("snn")
    manifest = json.loads(Path("snn/converted.json").read_text())
    Path("snn/converted.json").write_text(json.dumps({**manifest, "form": 2}))
    with pytest.raises(ConfigError, match="is of form 2, this spikecore reads 1"):
        loaded("snn")
