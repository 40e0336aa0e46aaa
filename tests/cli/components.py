"""Components for `--load`: a model that takes weights of others and ships its own, and a deployer to JSON."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import spikecore
from spikecore.errors import ConversionError
from spikecore.interfaces import ModelInfo
from spikecore.nn import Model
from tests.conformance.toys import ToyDeployer

SHIPPED = "SPIKE_TEST_WEIGHTS"
"""Names the directory whose files the toy model ships."""


@spikecore.register("model", "toy-weighted")
class WeightedToy(Model):
    """flatten → linear → neuron → linear; reads the weights of a library that calls its layers otherwise."""

    weight_sources = ("elsewhere",)
    info = ModelInfo(parameters=113, macs=102, input_shape=(1, 3, 4), num_outputs=5, reference="A. Author 2020")

    @dataclass(frozen=True)
    class Config:
        hidden: int = 6
        gain: float = 1.0

    def __init__(self, make_neuron, input_shape, num_outputs, **options):
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        size = int(torch.tensor(input_shape).prod())
        self.rank = len(input_shape)
        self.first, self.neuron = nn.Linear(size, self.config.hidden), make_neuron()
        self.last = nn.Linear(self.config.hidden, num_outputs)

    def forward(self, x):
        return self.last(self.neuron(self.config.gain * self.first(x.flatten(x.dim() - self.rank))))

    def import_weights(self, source, tensors):
        if source not in self.weight_sources:
            raise ConversionError(f"no weights of {source!r}: expected {', '.join(self.weight_sources)}")
        state = {}
        for ours, theirs in {"first": "fc.0", "last": "fc.2"}.items():
            for part in ("weight", "bias"):
                state[f"{ours}.{part}"] = tensors[f"{theirs}.{part}"]
        read = {"fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"}
        return state | {name: tensors[name] for name in set(tensors) - read}

    @classmethod
    def weights(cls) -> Mapping[str, Path]:
        folder = os.environ.get(SHIPPED)
        return {path.stem: path for path in sorted(Path(folder).glob("*.safetensors"))} if folder else {}


@spikecore.register("deployer", "toy-json")
class JsonDeployer(ToyDeployer):
    """As the conformance toy."""
