"""`spike eval` and `spike deploy` of directories that `spike convert` wrote."""

import json
import sys
from pathlib import Path

import pytest
import torch

import spikecore
from spikecore.analysis import Fidelity
from spikecore.nn.encoders.direct import Direct
from spikecore.registry import Blocking, Registry, use
from spikecore.run.build import prepare
from spikecore.run.calibration import calibration_of
from spikecore.run.config import resolve
from spikecore.run.conversion import source_of
from spikecore.run.samples import samples_of
from spikecore.trainers.classify import Classify
from tests.cli.scaffolded import component_file, trained

ARTIFICIAL = {
    "trainer": {"epochs": 3},
    "encoder": {"num_steps": 1},
    "model": {"name": "mlp", "hidden": [24]},
    "neuron": {"name": "relu"},
    "run": {"name": "artificial"},
}
NUM_STEPS = 20
"""Of the converter `toy-if`."""
TOYS = f'''
import copy, operator, spikecore, torch
from dataclasses import dataclass, replace
from spikecore import nn
from spikecore.interfaces import Configurable, ConversionReport, ConverterCapabilities, LayerReport, make_config

spikecore.register("deployer", "toy", FreshToy)

@spikecore.register("converter", "toy-if")
class ToIF(Configurable):
    """Every ReLU becomes IF with soft reset, in the scale of the weights."""
    api_version = 2
    capabilities = ConverterCapabilities(needs_calibration=False, layers=("spikecore.nn.ReLU",), num_steps={NUM_STEPS})
    def __init__(self, **options):
        self.config = make_config(type(self), options)
    def convert(self, model, example_input, calibration=()):
        graph = nn.trace_net(copy.deepcopy(model).eval())
        relus = [node.name for node in graph.layers if isinstance(node.module, nn.ReLU)]
        net = nn.GraphNet(graph, {{name: nn.IF(reset="soft") for name in relus}})
        layers = [LayerReport(n.name, "became" if n.name in relus else "kept", "as it is") for n in graph.layers]
        return net, ConversionReport(tuple(layers))

@spikecore.register("converter", "toy-half")
class Half(Configurable):
    """Takes spiking nets, and halves every threshold."""
    api_version = 2
    layers = ("spikecore.nn.IF", "spikecore.nn.LIF")
    capabilities = ConverterCapabilities(needs_calibration=False, layers=layers, num_steps=7)
    def __init__(self, **options):
        self.config = make_config(type(self), options)
    def convert(self, model, example_input, calibration=()):
        graph = nn.trace_net(copy.deepcopy(model).eval())
        neurons = {{node.name: node.module for node in graph.layers if isinstance(node.module, nn.Neuron)}}
        made = {{}}
        for name, neuron in neurons.items():
            options = nn.option_values(neuron)
            made[name] = type(neuron)(**{{**options, "v_threshold": options["v_threshold"] / 2}})
        layers = [LayerReport(n.name, "became" if n.name in made else "kept", "as it is") for n in graph.layers]
        return nn.GraphNet(graph, made), ConversionReport(tuple(layers))
'''
FACTORY = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Linear(16, 3))
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """The deployer that `spike new-plugin` writes, and two converters."""
    return component_file(tmp_path_factory.mktemp("toys"), "deployer", TOYS)


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    return trained(ARTIFICIAL, tmp_path_factory.mktemp("runs") / "ann")


@pytest.fixture
def typed(spike, toys):
    return lambda *words: spike(*words, "--load", toys)


@pytest.fixture
def snn(typed, ann):
    """The artificial net, converted."""
    status, printed = typed("convert", "toy-if", ann, "--out", "snn")
    assert status == 0, printed
    return Path("snn")


@pytest.fixture
def twice(typed, snn):
    """The same with halved thresholds."""
    status, printed = typed("convert", "toy-half", snn, "--out", "twice")
    assert status == 0, printed
    return Path("twice")


def measured(typed, directory, *options):
    status, printed = typed("eval", directory, "--json", *options)
    assert status == 0, printed
    return json.loads(printed)


def accuracy(toys, directory, num_steps):
    """Counted by hand: the label of the largest sum over time, which is what `classify` reads out by default."""
    with use(Registry(blocking=Blocking())) as registry:
        registry.load_file(toys)
        net = spikecore.load(directory, backend="torch")
    split = spikecore.create("dataset", "digits").split("test")
    x, labels = torch.stack([split[i][0] for i in range(len(split))]), [split[i][1] for i in range(len(split))]
    spikes = []
    for part in net.modules():
        if isinstance(part, spikecore.nn.Neuron):
            part.register_forward_hook(lambda _, args, out: spikes.append(out.mean().item()))
    with torch.no_grad():
        scores = net(x.expand(num_steps, *x.shape)).sum(0)
    assert spikes
    assert all(0.01 < rate < 0.95 for rate in spikes)
    return float((scores.argmax(-1) == torch.tensor(labels)).double().mean())


def test_a_converted_net_is_measured_on_the_data_of_its_run(typed, ann, snn, toys):
    scores = measured(typed, snn)
    assert (scores["checkpoint"], scores["split"], scores["directory"]) == ("converted", "test", "snn")
    assert scores["metrics"]["test_accuracy"] == pytest.approx(accuracy(toys, snn, NUM_STEPS))
    given = measured(typed, ann)["metrics"]
    assert scores["metrics"]["test_loss"] != given["test_loss"], "it is another net"
    assert 0.5 < scores["metrics"]["test_accuracy"] <= given["test_accuracy"] + 0.1
    assert measured(typed, snn, "--split", "val")["metrics"]["val_accuracy"] > 0.5


def test_what_an_evaluation_may_change(typed, snn, toys):
    short = measured(typed, snn, "--set", "encoder.num_steps=3", "--set", "backend.name=torch")
    assert short["metrics"]["test_accuracy"] == pytest.approx(accuracy(toys, snn, 3))
    assert short["metrics"] != measured(typed, snn)["metrics"]
    status, printed = typed("eval", snn, "--set", "model.hidden=[3]")
    assert (status, "cannot change in an evaluation" in printed) == (2, True), printed
    status, printed = typed("eval", snn, "--checkpoint", "best")
    assert (status, "has no checkpoints" in printed) == (2, True), printed
    status, printed = typed("eval", snn, "--set", "backend.name=torhc")
    assert (status, "torch" in printed) == (2, True), printed


def test_a_net_that_was_converted_twice(typed, snn, twice, toys):
    """Its steps are those of the conversion that made it spike, not those of the second converter."""
    scores = measured(typed, twice)["metrics"]
    assert scores["test_accuracy"] == pytest.approx(accuracy(toys, twice, NUM_STEPS))
    assert scores != measured(typed, snn)["metrics"]


def test_a_spiking_run_that_was_converted_keeps_its_steps(typed, tmp_path, toys):
    config = {**ARTIFICIAL, "encoder": {"num_steps": 6}, "neuron": {"name": "lif", "v_threshold": 0.5}}
    with use(Registry(blocking=Blocking())):
        spikecore.run({**config, "trainer": {"epochs": 1}}, out=tmp_path / "spiking")
    assert typed("convert", "toy-half", tmp_path / "spiking", "--out", "half")[0] == 0
    assert measured(typed, "half")["metrics"]["test_accuracy"] == pytest.approx(accuracy(toys, "half", 6))


def test_a_converted_net_is_deployed_and_compared(typed, snn, twice):
    for directory in (snn, twice):
        out = Path(f"{directory}-chip")
        status, printed = typed("deploy", "toy", directory, "--out", out, "--verify", 30)
        assert status == 0, printed
        assert "30 samples of the test split" in printed
        fidelity = Fidelity.from_json((out / "fidelity.json").read_text())
        assert fidelity.is_exact
        assert [layer.shape for layer in fidelity.layers] == [(NUM_STEPS, 30, 24)]
        assert 0.01 < fidelity.layers[0].expected_spikes / fidelity.layers[0].num_outputs < 0.95
        assert json.loads((out / "deploy.json").read_text())["run"] == str(directory)
    thresholds = [json.loads(Path(f"{name}-chip/net").read_text())["layers"][2]["v_threshold"] for name in (snn, twice)]
    assert thresholds == [1.0, 0.5]


def test_without_the_data_it_is_deployed_for_a_shape(typed, snn, monkeypatch):
    def gone(*_, **__):
        raise OSError("the data are gone")

    monkeypatch.setattr("spikecore.datasets.digits.Digits.__init__", gone)
    status, printed = typed("eval", snn)
    assert (status, "snn: the data of this run" in printed) == (1, True), printed
    status, printed = typed("deploy", "toy", snn, "--out", "chip")
    assert (status, "--verify 0 --num-steps T" in printed) == (2, True), printed
    status, printed = typed("deploy", "toy", snn, "--out", "chip", "--verify", 0, "--num-steps", 9, "--batch", 2)
    assert status == 0, printed
    assert json.loads(Path("chip/deploy.json").read_text())["example_shape"] == [9, 2, 1, 8, 8]


def test_a_net_of_a_function_has_no_data(typed, tmp_path):
    (tmp_path / "nets.py").write_text(FACTORY)
    status, printed = typed("convert", "toy-if", "nets.py:make", "--input-shape", 6, "--out", "made")
    assert status == 0, printed
    for words in (("eval", "made"), ("deploy", "toy", "made", "--out", "chip")):
        status, printed = typed(*words)
        assert (status, "nets.py:make, which is no run and has no data" in printed) == (2, True), printed
    status, printed = typed("deploy", "toy", "made", "--out", "chip", "--verify", 0, "--num-steps", 5)
    assert status == 0, printed


def test_the_samples_of_a_converted_net_are_those_of_its_run(ann, snn, toys):
    with use(Registry(blocking=Blocking())) as registry:
        registry.load_file(toys)
        samples = samples_of(snn, 12)
    given = samples_of(ann, 12)
    assert samples.x.shape == (NUM_STEPS, 12, 1, 8, 8)
    assert torch.equal(samples.labels, given.labels)
    assert all(torch.equal(step, given.x[0]) for step in samples.x)


class Dimming(Direct):
    """An encoder with a weight of its own, 1 until it is trained."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("gain", torch.ones(()))

    def encode(self, x, generator):
        return super().encode(self.gain * x, generator)


class Dims(Classify):
    """Its training changes the encoder."""

    def fit(self, task, context):
        task.encoder.gain.fill_(0.25)
        return super().fit(task, context)


@pytest.mark.parametrize(("neuron", "num_steps"), [("relu", 1), ("lif", 3)])
def test_calibration_sees_what_the_encoder_of_the_run_gives(neuron, num_steps, tmp_path):
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("encoder", "dimming", Dimming)
        registry.register("trainer", "dims", Dims)
        tables = {
            "encoder": {"name": "dimming", "num_steps": num_steps},
            "model": {"name": "mlp", "hidden": [8]},
            "neuron": {"name": neuron},
            "trainer": {"name": "dims", "epochs": 1},
            "run": {"report": False},
        }
        spikecore.run(tables, out=tmp_path / "r")
        batches = list(calibration_of(source_of(str(tmp_path / "r")), None, 40, 16).batches())
        train = prepare(resolve(tables)).task.train
    images = torch.stack([train[index * len(train) // 40][0] for index in range(40)])
    wanted = 0.25 * images if num_steps == 1 else 0.25 * images.expand(3, *images.shape)
    assert torch.equal(torch.cat(batches, 0 if num_steps == 1 else 1), wanted)


IMAGES = """
import torch
from spikecore import nn

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), nn.ReLU(), torch.nn.Linear(16, 10))
"""


def forget(file):
    """As if it had not been run in this process."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == str(file):
            del sys.modules[name]


def test_a_net_from_a_file_goes_on_to_be_converted_and_deployed(spike, toys, tmp_path):
    """With the dataset that calibrated it; the file that made it is run when it is given again, unchanged."""
    nets = tmp_path / "images.py"
    nets.write_text(f"# {tmp_path}\n{IMAGES}")
    options = ("--load", toys)
    status, printed = spike("convert", "toy-if", f"{nets}:make", "--data", "digits", "--out", "snn", *options)
    assert status == 0, printed
    assert json.loads(Path("snn/converted.json").read_text())["dataset"] == "digits"
    forget(nets)
    for words in (("deploy", "toy", "snn", "--out", "o"), ("convert", "toy-half", "snn", "--out", "o")):
        status, printed = spike(*words, *options)
        assert status == 2
        assert f"run only when you ask for it: --load {nets}" in " ".join(printed.split())
    status, printed = spike("convert", "toy-half", "snn", "--out", "twice", *options, "--load", nets)
    assert status == 0, printed
    assert "accuracy over T: 1: " in printed
    forget(nets)
    status, printed = spike("deploy", "toy", "twice", "--out", "artefact", *options, "--load", nets)
    assert status == 0, printed
    deployed = json.loads(Path("artefact/deploy.json").read_text())
    assert deployed["example_shape"] == [NUM_STEPS, 1, 1, 8, 8]
    with use(Registry(blocking=Blocking())) as registry:
        registry.load_file(toys)
        samples = samples_of("twice", 5)
    assert samples.x.shape == (NUM_STEPS, 5, 1, 8, 8)
    assert torch.equal(samples.x[0], samples.x[-1])
    assert samples.source == "5 test samples of digits"
    status, printed = spike("eval", "twice", *options, "--load", nets)
    assert status == 2
    assert "is no run and has no data, and no trainer that measures: `spike convert" in " ".join(printed.split())
    nets.write_text(nets.read_text() + "\n")
    status, printed = spike("deploy", "toy", "twice", "--out", "again", *options, "--load", nets)
    assert status == 2
    assert f"nor is it the file that made this net, {nets} as it was then" in " ".join(printed.split())
