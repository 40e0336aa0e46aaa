"""The contracts: one file per kind, each readable in a minute. None of them imports torch."""

from spikecore.interfaces.backend import Backend, BackendCapabilities, NormCall, Support
from spikecore.interfaces.component import Component, Configurable
from spikecore.interfaces.converter import (
    ConversionReport,
    Converter,
    ConverterCapabilities,
    LayerReport,
    ReadingConverter,
)
from spikecore.interfaces.dataset import (
    Batch,
    DataFile,
    Dataset,
    DatasetCapabilities,
    DatasetInfo,
    Split,
    Target,
    TargetKind,
)
from spikecore.interfaces.deployer import (
    Artefact,
    Deployer,
    DeployerCapabilities,
    ImportingDeployer,
    OperatorRecord,
    Outcome,
    records_from_json,
    records_to_json,
    require_mapped,
)
from spikecore.interfaces.encoder import Encoder, EncoderCapabilities
from spikecore.interfaces.model import Model, ModelCapabilities, ModelInfo, WeightedModel
from spikecore.interfaces.neuron import Neuron, NeuronCapabilities, StepMode
from spikecore.interfaces.options import Inner, OneOf, Range, SameAs, check_options, make_config
from spikecore.interfaces.processes import Processes, Shard
from spikecore.interfaces.products import ProductGeometry, ProductKind, ProductMode, SpikeBits, SpikeProduct
from spikecore.interfaces.quantized import QuantizedLayer, QuantizedNeuron
from spikecore.interfaces.recording import FileFormat, RecordingReader, RecordingView
from spikecore.interfaces.show import SHOWN, Animation, Curve, Histogram, Image, Shown, Table
from spikecore.interfaces.surrogate import Surrogate, SurrogateCapabilities
from spikecore.interfaces.task import Parts, Task
from spikecore.interfaces.trainer import DEFAULT_ROLES, RunContext, TaskKind, Trainer, TrainerCapabilities

__all__ = [
    "DEFAULT_ROLES",
    "SHOWN",
    "Animation",
    "Artefact",
    "Backend",
    "BackendCapabilities",
    "Batch",
    "Component",
    "Configurable",
    "ConversionReport",
    "Converter",
    "ConverterCapabilities",
    "Curve",
    "DataFile",
    "Dataset",
    "DatasetCapabilities",
    "DatasetInfo",
    "Deployer",
    "DeployerCapabilities",
    "Encoder",
    "EncoderCapabilities",
    "FileFormat",
    "Histogram",
    "Image",
    "ImportingDeployer",
    "Inner",
    "LayerReport",
    "Model",
    "ModelCapabilities",
    "ModelInfo",
    "Neuron",
    "NeuronCapabilities",
    "NormCall",
    "OneOf",
    "OperatorRecord",
    "Outcome",
    "Parts",
    "Processes",
    "ProductGeometry",
    "ProductKind",
    "ProductMode",
    "QuantizedLayer",
    "QuantizedNeuron",
    "Range",
    "ReadingConverter",
    "RecordingReader",
    "RecordingView",
    "RunContext",
    "SameAs",
    "Shard",
    "Shown",
    "SpikeBits",
    "SpikeProduct",
    "Split",
    "StepMode",
    "Support",
    "Surrogate",
    "SurrogateCapabilities",
    "Table",
    "Target",
    "TargetKind",
    "Task",
    "TaskKind",
    "Trainer",
    "TrainerCapabilities",
    "WeightedModel",
    "check_options",
    "make_config",
    "records_from_json",
    "records_to_json",
    "require_mapped",
]
