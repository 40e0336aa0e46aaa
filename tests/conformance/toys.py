"""One sound component of every kind, small enough to be read at a glance; planted faults are subclasses of these."""

import copy
import json
import operator
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import nn

from spikecore.analysis import compare_conversion
from spikecore.backends.reference import TorchBackend
from spikecore.dynamics import sigmoid
from spikecore.errors import ConversionError, OptionError
from spikecore.interfaces.component import Configurable, Range, make_config
from spikecore.interfaces.converter import ConversionReport, ConverterCapabilities, LayerReport
from spikecore.interfaces.dataset import DatasetCapabilities, DatasetInfo
from spikecore.interfaces.deployer import Artefact, DeployerCapabilities, OperatorRecord, require_mapped
from spikecore.interfaces.encoder import EncoderCapabilities
from spikecore.interfaces.model import ModelCapabilities
from spikecore.interfaces.trainer import TrainerCapabilities
from spikecore.nn import (
    IF,
    LIF,
    Encoder,
    GraphNet,
    Model,
    Neuron,
    ReLU,
    Surrogate,
    fire_and_reset,
    option_values,
    trace_net,
)
from spikecore.registry import name_of
from spikecore.trainers import Trainer


class ToyNeuron(Neuron):
    """h = decay v + x."""

    state = {"v": "v_init"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        decay: Annotated[float, Range(gt=0.0, lt=1.0)] = 0.8

    @staticmethod
    def step(x, state, params):
        s, v = fire_and_reset(params.decay * state.v + x, params)
        return s, {"v": v}


class ToySurrogate(Surrogate):
    """The sigmoid."""

    @staticmethod
    def derivative(u, params):
        s = sigmoid(params.alpha * u)
        return params.alpha * s * (1 - s)

    @staticmethod
    def primitive(u, params):
        return sigmoid(params.alpha * u)


class ToyEncoder(Encoder):
    """Spikes with probability x."""

    capabilities = EncoderCapabilities(stochastic=True, rate=True, decodable=True)

    def encode(self, x, generator):
        shape = (self.config.num_steps, *x.shape)
        return (torch.rand(shape, generator=generator) < x).to(x.dtype)

    def decode(self, spikes):
        return spikes.mean(0)


class ToyBackend(TorchBackend):
    """The interpreter, which saves the input so that there is something to save."""

    def saved_like(self, key, x, states):
        return [torch.empty_like(x, memory_format=torch.contiguous_format)]

    def run(self, key, x, states, params, save, carry):
        out, finals, recorded, _ = super().run(key, x, states, params, save, carry)
        return out, finals, recorded, [x.clone(memory_format=torch.contiguous_format)] if save else []


class ToyModel(Model):
    """flatten → linear → neuron → linear."""

    capabilities = ModelCapabilities()

    def __init__(self, make_neuron, input_shape, num_outputs, **options):
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        self.rank = len(input_shape)
        self.first = nn.Linear(int(torch.tensor(input_shape).prod()), 6)
        self.neuron = make_neuron()
        self.last = nn.Linear(6, num_outputs)

    def forward(self, x):
        return self.last(self.neuron(self.first(x.flatten(x.dim() - self.rank))))


@dataclass(frozen=True)
class ToySplit:
    """Random images drawn from a seed per index."""

    seed: int
    size: int

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if not 0 <= index < self.size:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.seed + index)
        return torch.rand(1, 4, 4, generator=generator), index % 3


class ToyDataset(Configurable):
    """40 images for training, 12 for testing."""

    api_version = 2
    capabilities = DatasetCapabilities(embedded=True)
    info = DatasetInfo("Toy", ("a", "b", "c"), (1, 4, 4), "CC0", "nobody")
    num_outputs, sample_shape, is_sequence, splits = 3, (1, 4, 4), False, ("train", "test")
    make_split = ToySplit

    def __init__(self, **options):
        self.config = make_config(type(self), options)

    def split(self, name):
        if name not in self.splits:
            raise OptionError(f"no split {name!r}")
        return self.make_split(0, 40) if name == "train" else self.make_split(1000, 12)


@dataclass(frozen=True)
class ToyValueSplit(ToySplit):
    """The label of an image: its mean, and its first pixel less its last."""

    def __getitem__(self, index):
        x, _ = super().__getitem__(index)
        return x, torch.stack([x.mean(), x[0, 0, 0] - x[0, 3, 3]])


class ToyValues(ToyDataset):
    """Two values each; one has no name, and so has neither."""

    capabilities = DatasetCapabilities(embedded=True, target="value")
    info = DatasetInfo("Toy values", (), (1, 4, 4), "CC0", "nobody")
    num_outputs = 2
    make_split = ToyValueSplit


@dataclass(frozen=True)
class ToyStepSplit(ToySplit):
    """Three steps, each of its own brightness, which is its label."""

    def __getitem__(self, index):
        x, kind = super().__getitem__(index)
        steps = torch.stack([x * (step + kind) for step in range(3)])
        return steps, steps.mean((1, 2, 3)).unsqueeze(1)


class ToySteps(ToyDataset):
    """A value in each step."""

    capabilities = DatasetCapabilities(embedded=True, target="sequence")
    info = DatasetInfo("Toy steps", ("brightness",), (1, 4, 4), "CC0", "nobody")
    num_outputs, is_sequence = 1, True
    make_split = ToyStepSplit


@dataclass(frozen=True)
class ToyStepClassSplit(ToySplit):
    """Three steps, each with a class."""

    def __getitem__(self, index):
        x, kind = super().__getitem__(index)
        return torch.stack([x * step for step in range(3)]), (torch.arange(3) + kind) % 3


class ToyStepClasses(ToyDataset):
    """A class in each step."""

    capabilities = DatasetCapabilities(embedded=True, target="sequence")
    is_sequence = True
    make_split = ToyStepClassSplit


@dataclass(frozen=True)
class ToyItemSplit(ToySplit):
    """As many boxes as the number of the sample leaves by three: none, one or two."""

    def __getitem__(self, index):
        x, count = super().__getitem__(index)
        return x, x.flatten()[: 5 * count].reshape(count, 5)


class ToyItems(ToyDataset):
    """Boxes."""

    capabilities = DatasetCapabilities(embedded=True, target="items")
    make_split = ToyItemSplit


class ToyTrainer(Trainer):
    """Gradient descent with momentum; a safe point after every step."""

    capabilities = TrainerCapabilities()

    @dataclass(frozen=True)
    class Config:
        epochs: int = 4
        batch_size: int = 10
        lr: float = 0.1

    def __init__(self, **options):
        super().__init__(**options)
        self.epoch, self.order, self.velocity, self.metrics = 0, None, None, {}

    def fit(self, task, context):
        parameters = [p for p in task.model.parameters() if p.requires_grad]
        if self.velocity is None:
            self.velocity = [torch.zeros_like(p) for p in parameters]
        while self.epoch < self.config.epochs:
            if self.order is None:
                self.order = self.draw(len(task.train), context)
            while self.order:
                batch, self.order = self.order[: self.config.batch_size], self.order[self.config.batch_size :]
                self.step(task, context, parameters, batch)
                context.checkpoint()
            self.order, self.epoch = None, self.epoch + 1
            self.metrics = self.evaluate(task, context, "val")
            self.tell(context)
        return {**self.metrics, **self.evaluate(task, context)}

    def draw(self, size, context):
        return torch.randperm(size, generator=context.generator).tolist()

    def step(self, task, context, parameters, batch):
        task.model.train()
        loss = self.loss(task, task.train, batch)
        for p, v, g in zip(parameters, self.velocity, torch.autograd.grad(loss, parameters), strict=True):
            v.mul_(0.9).add_(g)
            p.data.add_(v, alpha=-self.config.lr)

    def loss(self, task, split, batch):
        samples = [split[index] for index in batch]
        x = torch.stack([x for x, _ in samples])
        sequence = x.transpose(0, 1) if task.is_sequence else task.encoder(x)
        return nn.functional.cross_entropy(task.model(sequence).mean(0), torch.tensor([y for _, y in samples]))

    def tell(self, context):
        context.log(epoch=self.epoch, **self.metrics)
        context.epoch_end(self.epoch, dict(self.metrics))
        context.checkpoint(-self.metrics["val_loss"])

    def evaluate(self, task, context, split="test"):
        with torch.no_grad():
            return {f"{split}_loss": float(self.loss(task, task.split(split), range(len(task.split(split)))))}

    def state_dict(self):
        return {"epoch": self.epoch, "order": self.order, "velocity": self.velocity, "metrics": self.metrics}

    def load_state_dict(self, state):
        self.epoch, self.order, self.velocity = state["epoch"], state["order"], state["velocity"]
        self.metrics = dict(state["metrics"])


class ToyRegression(ToyTrainer):
    """The mean over time is the value."""

    capabilities = TrainerCapabilities(task="value")

    def loss(self, task, split, batch):
        return self.error(task, split, batch)

    def error(self, task, split, batch, sign=1.0):
        samples = [split[index] for index in batch]
        x, wanted = torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])
        sequence = x.transpose(0, 1) if task.is_sequence else task.encoder(x)
        return (task.model(sequence).mean(0) - sign * wanted).square().mean()


class ToySequenceTrainer(ToyRegression):
    """The output of each step is the value of that step."""

    capabilities = TrainerCapabilities(task="sequence")

    def error(self, task, split, batch, sign=1.0):
        samples = [split[index] for index in batch]
        x, wanted = torch.stack([x for x, _ in samples], 1), torch.stack([y for _, y in samples], 1)
        return (task.model(x) - sign * wanted).square().mean()


class Replaying(ToyTrainer):
    """Learns each batch once more, from a buffer of all samples that it saw."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = torch.zeros(0, dtype=torch.int64)

    def step(self, task, context, parameters, batch):
        super().step(task, context, parameters, batch)
        self.seen = torch.cat([self.seen, torch.tensor(batch)])
        again = torch.randint(len(self.seen), (len(batch),), generator=context.generator)
        super().step(task, context, parameters, self.seen[again].tolist())

    def large_state_dict(self):
        return {"seen": self.seen}

    def load_large_state_dict(self, state):
        self.seen = state["seen"]


class SpikingReLU(nn.Module):
    """ReLU by rate: a soft reset, half a threshold to start with; a spike counts as much as the threshold."""

    def __init__(self, threshold):
        super().__init__()
        self.register_buffer("threshold", torch.tensor(threshold))
        self.neuron = IF(reset="soft", v_reset=0.5)

    def forward(self, x):
        return self.neuron(x / self.threshold) * self.threshold


RELUS = (nn.ReLU, ReLU, nn.functional.relu, torch.relu, "relu")
"""Classes, functions and method."""


def operation(node):
    return type(node.module) if node.kind == "module" else node.target


class ToyConverter(Configurable):
    """ReLU → IF with the largest activation as threshold; what is linear stays; all else is refused."""

    api_version = 2
    capabilities = ConverterCapabilities(
        layers=("torch.nn.ReLU", "spikecore.nn.ReLU", "torch.nn.functional.relu", "torch.relu", "torch.Tensor.relu")
    )
    known = (nn.Linear, nn.Conv2d, nn.AvgPool2d, nn.Flatten, operator.add, "flatten")

    def __init__(self, **options):
        self.config = make_config(type(self), options)

    def convert(self, model, example_input, calibration=()):
        graph = trace_net(copy.deepcopy(model).eval())
        batches = list(calibration)
        largest = self.largest(graph, batches)
        replaced, layers = {}, []
        for node in graph.layers:
            if operation(node) in RELUS:
                threshold = self.threshold(largest[node.name])
                replaced[node.name] = self.spiking(threshold)
                layers.append(LayerReport(node.name, "became", "IF with soft reset", threshold))
            elif (neuron := self.remade(node)) is not None:
                replaced[node.name] = neuron
                layers.append(LayerReport(node.name, "became", "a neuron with the same options"))
            elif operation(node) in self.known:
                layers.append(LayerReport(node.name, "kept", "linear in its input"))
            else:
                self.refuse(node)
        net, report = self.finished(GraphNet(graph, replaced)), ConversionReport(tuple(layers))
        return net, self.measured(graph.net, net, batches[:1], report)

    def measured(self, given, net, batches, report):
        """How near the new net comes; of a net that spikes already there is no activation to compare with."""
        if not batches or any(isinstance(part, (IF, LIF)) for part in given.modules()):
            return report
        return compare_conversion(given, net, batches, 4, report.names("became")).added_to(report)

    def largest(self, graph, calibration):
        peaks = {}

        def call(node, args, kwargs):
            value = graph.call(node, args, kwargs)
            if operation(node) in RELUS:
                peaks[node.name] = max(peaks.get(node.name, 0.0), float(value.max()))
            return value

        with torch.no_grad():
            for batch in calibration:
                graph.run(batch, call=call)
        if not peaks and any(operation(node) in RELUS for node in graph.layers):
            raise ConversionError("calibration batches are missing: pass a few inputs")
        return peaks

    def threshold(self, largest):
        return largest or 1.0

    def spiking(self, threshold):
        return SpikingReLU(threshold)

    def finished(self, net):
        return net

    def remade(self, node):
        """A new neuron in the place of another."""

    def refuse(self, node):
        raise ConversionError(f"layer {node}: has no spiking counterpart")


class Respiking(ToyConverter):
    """Takes nets that spike as well: each IF and LIF is made anew from what it computes with."""

    capabilities = replace(
        ToyConverter.capabilities, layers=(*ToyConverter.capabilities.layers, "spikecore.nn.IF", "spikecore.nn.LIF")
    )

    def remade(self, node):
        return type(node.module)(backend="torch", **self.options(node.module)) if operation(node) in (IF, LIF) else None

    def options(self, neuron):
        return option_values(neuron)


class ToyDeployer(Configurable):
    """Sequences of Linear, LIF and IF as one JSON file, which it also reads back."""

    api_version = 2
    capabilities = DeployerCapabilities(simulates=True, bit_exact=True, imports=True)

    def __init__(self, **options):
        self.config = make_config(type(self), options)

    def check(self, model, example_input):
        if type(model) is nn.Sequential:
            return tuple(self.record(name, layer) for name, layer in self.layers(model).items())
        reason = f"it is part of a {type(model).__name__}, whose forward may do more than call its parts in turn"
        cure = "write the net as one torch.nn.Sequential"
        nodes = [node for node in trace_net(model, example_input).layers if node.value is None]
        return tuple(OperatorRecord(node.name, node.operation, "refused", "", reason, cure) for node in nodes)

    def layers(self, model):
        return dict(model.named_children())

    def record(self, name, layer):
        operator = type(layer).__name__
        kind = self.kind(layer)
        if kind is None:
            reason, cure = f"the target has no {operator}", "use Linear, LIF and IF"
            return OperatorRecord(name, operator, "refused", "", reason, cure)
        return OperatorRecord(name, operator, "mapped", kind)

    def kind(self, layer):
        if type(layer) is nn.Linear:
            return "linear"
        return name_of(layer) if type(layer) in (LIF, IF) else None

    def export(self, model, example_input, path):
        records = self.check(model, example_input)
        require_mapped(records, "the toy")
        layers = [
            {"name": record.name, "kind": record.target, **self.values(layer)}
            for record, layer in zip(records, self.layers(model).values(), strict=True)
        ]
        path.write_text(json.dumps({"layers": layers, **self.extra()}))
        return Artefact(path, records)

    def values(self, layer):
        if isinstance(layer, nn.Linear):
            return {name: value.tolist() for name, value in layer.state_dict().items()}
        return {"options": self.options(layer)}

    def options(self, layer):
        """What the neuron computes with: a trained option is a parameter by now, and not what the config says."""
        options = {key: value for key, value in vars(layer.config).items() if key not in ("surrogate", "learnable")}
        for name in options:
            if isinstance(value := getattr(layer, f"param_{name}", None), torch.Tensor):
                options[name] = value.tolist()
        return options

    def extra(self):
        return {}

    def load(self, path):
        try:
            layers = json.loads(path.read_text())["layers"]
        except (ValueError, KeyError) as error:
            raise ConversionError(f"{path} is damaged: {error}") from error
        return nn.Sequential(OrderedDict((layer["name"], self.made(layer)) for layer in layers)).eval()

    def made(self, layer):
        if layer["kind"] != "linear":
            return {"lif": LIF, "if": IF}[layer["kind"]](backend="torch", **layer["options"])
        weight = torch.tensor(layer["weight"])
        made = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in layer)
        made.load_state_dict({key: torch.tensor(layer[key]) for key in made.state_dict()})
        return made

    def run(self, artefact, x):
        """Layer → its output."""
        outs = {}
        with torch.no_grad():
            for name, layer in self.load(artefact.path).named_children():
                x = outs[name] = layer(x)
        return outs

    def simulate(self, artefact, x):
        return [*self.run(artefact, x).values()][-1]

    def trace(self, artefact, x):
        kinds = {layer["name"]: layer["kind"] for layer in json.loads(artefact.path.read_text())["layers"]}
        return {name: out for name, out in self.run(artefact, x).items() if kinds[name] != "linear"}


SOUND: dict[str, Any] = {
    "neuron": ToyNeuron,
    "surrogate": ToySurrogate,
    "encoder": ToyEncoder,
    "backend": ToyBackend,
    "model": ToyModel,
    "dataset": ToyDataset,
    "trainer": ToyTrainer,
    "converter": ToyConverter,
    "deployer": ToyDeployer,
}
