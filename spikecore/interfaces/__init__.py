"""The contracts: one file per kind, each readable in a minute. None of them imports torch."""

from spikecore.interfaces.backend import Backend, BackendCapabilities, Support
from spikecore.interfaces.component import Component, Configurable, Inner, OneOf, Range, check_options, make_config
from spikecore.interfaces.converter import ConversionReport, Converter, ConverterCapabilities
from spikecore.interfaces.dataset import Batch, DataFile, Dataset, DatasetCapabilities, DatasetInfo, Split
from spikecore.interfaces.deployer import Artefact, Deployer, DeployerCapabilities
from spikecore.interfaces.encoder import Encoder, EncoderCapabilities
from spikecore.interfaces.model import Model, ModelCapabilities
from spikecore.interfaces.neuron import Neuron, NeuronCapabilities, StepMode
from spikecore.interfaces.quantized import QuantizedLayer
from spikecore.interfaces.surrogate import Surrogate, SurrogateCapabilities
from spikecore.interfaces.trainer import RunContext, Task, Trainer, TrainerCapabilities

__all__ = [
    "Artefact",
    "Backend",
    "BackendCapabilities",
    "Batch",
    "Component",
    "Configurable",
    "ConversionReport",
    "Converter",
    "ConverterCapabilities",
    "DataFile",
    "Dataset",
    "DatasetCapabilities",
    "DatasetInfo",
    "Deployer",
    "DeployerCapabilities",
    "Encoder",
    "EncoderCapabilities",
    "Inner",
    "Model",
    "ModelCapabilities",
    "Neuron",
    "NeuronCapabilities",
    "OneOf",
    "QuantizedLayer",
    "Range",
    "RunContext",
    "Split",
    "StepMode",
    "Support",
    "Surrogate",
    "SurrogateCapabilities",
    "Task",
    "Trainer",
    "TrainerCapabilities",
    "check_options",
    "make_config",
]
