"""Runs whose trainer leaves quantized records on the net: they are loaded, measured and resumed."""

from dataclasses import dataclass

import pytest
import torch

import spikecore
from spikecore.errors import CheckpointError
from spikecore.interfaces.quantized import QuantizedLayer, QuantizedNeuron
from spikecore.nn import quantized
from spikecore.registry import Blocking, Registry, use
from spikecore.run.experiment import evaluate, resume
from spikecore.run.samples import samples_of
from tests.conformance.toys import ToyDataset, ToyModel, ToyTrainer

CONFIG = {
    "dataset": {"name": "toy"},
    "model": {"name": "toy"},
    "trainer": {"name": "aware", "epochs": 2},
    "encoder": {"num_steps": 3},
}


class Plain(ToyTrainer):
    """The toy dataset has no validation split."""

    @dataclass(frozen=True)
    class Config(ToyTrainer.Config):
        val_share: float = 0.25


class Aware(Plain):
    """Quantizes the weights after every epoch, from the first on."""

    def tell(self, context):
        for name in ("first", "last"):
            layer = self.model.get_submodule(name)
            scale = layer.weight.detach().abs().max() / 127
            values = (layer.weight.detach() / scale).round().to(torch.int8)
            quantized.attach(layer, QuantizedLayer(values, scale, torch.zeros((), dtype=torch.int8), bits=8))
        neuron = QuantizedNeuron(torch.tensor(64), torch.tensor(1 / 64), {"v": torch.tensor(2048)}, 12, 16)
        quantized.attach(self.model.neuron, neuron)
        super().tell(context)

    def fit(self, task, context):
        self.model = task.model
        return super().fit(task, context)


@pytest.fixture(autouse=True)
def toys():
    with use(Registry(blocking=Blocking())) as own:
        own.register("dataset", "toy", ToyDataset)
        own.register("model", "toy", ToyModel)
        own.register("trainer", "aware", Aware)
        own.register("trainer", "plain", Plain)
        yield own


@pytest.fixture
def directory(tmp_path):
    spikecore.run(CONFIG, out=tmp_path / "run")
    return tmp_path / "run"


def test_the_net_is_loaded_with_its_records(directory):
    net = spikecore.load(directory)
    records = quantized.records(net)
    assert list(records) == ["first", "neuron", "last"]
    assert records["first"].values.dtype == torch.int8
    error = (records["first"].dequantize() - net.first.weight).abs().max()
    assert 0 < error <= records["first"].scale / 2 * 1.001
    assert int(records["neuron"].decays["v"]) == 2048
    assert list(quantized.records(spikecore.load(directory, "best"))) == ["first", "neuron", "last"]


def test_it_is_measured_and_fed_again(directory):
    assert set(evaluate(directory).metrics) == {"test_loss"}
    assert samples_of(directory, 2).x.shape[:2] == (3, 2)


def test_it_is_resumed(directory, tmp_path):
    spikecore.run({**CONFIG, "trainer": {"name": "aware", "epochs": 2}}, out=tmp_path / "again")
    resume(directory, checkpoint="best")
    first, second = spikecore.load(directory), spikecore.load(tmp_path / "again")
    assert torch.equal(quantized.read(first.first).values, quantized.read(second.first).values)


def test_a_net_without_records_has_none(tmp_path):
    spikecore.run({**CONFIG, "trainer": {"name": "plain", "epochs": 1}}, out=tmp_path / "plain")
    assert quantized.records(spikecore.load(tmp_path / "plain")) == {}


def test_records_of_a_layer_that_the_net_lacks_are_refused(directory, toys):
    class Other(ToyModel):
        def __init__(self, make_neuron, input_shape, num_outputs, **options):
            super().__init__(make_neuron, input_shape, num_outputs, **options)
            self.end = self.last
            del self.last

    toys.register("model", "toy", Other, replace=True)
    with pytest.raises(CheckpointError, match="quantized records of last, which Other lacks"):
        spikecore.load(directory)
