"""Looking inside a net: what its layers hold while it runs, how often they fire, and pictures of both.

    with Monitor(net, "output", where=LIF, keep=1) as spikes:
        net(x)
    raster(spikes["layers.1"][0])

Nothing here changes a net: a monitor's hooks are gone when its `with` block ends. matplotlib is imported by the first
picture, not before.
"""

from spikecore.analysis.conversion import ConversionFidelity, compare_conversion
from spikecore.analysis.conversion_page import conversion_page
from spikecore.analysis.fidelity import Decisions, Divergence, Fidelity, LayerFidelity, compare_layer, compare_traces
from spikecore.analysis.fidelity_page import fidelity_page
from spikecore.analysis.monitor import Monitor
from spikecore.analysis.operations import (
    ENERGY_MODELS,
    EnergyModel,
    LayerOperations,
    OperationCounter,
    Operations,
    connection_sparsity,
    count_operations,
    footprint,
    time_layers,
)
from spikecore.analysis.plots import (
    feature_maps,
    heatmap,
    membrane,
    raster,
    rate_bars,
    surrogate_curves,
)
from spikecore.analysis.quantization_error import QuantizationError, quantization_errors
from spikecore.analysis.rates import LayerRates, RateMeter, firing_rate
from spikecore.analysis.recording import neuron_layers, record_spikes
from spikecore.analysis.selection import Where, select_layers

__all__ = [
    "ENERGY_MODELS",
    "ConversionFidelity",
    "Decisions",
    "Divergence",
    "EnergyModel",
    "Fidelity",
    "LayerFidelity",
    "LayerOperations",
    "LayerRates",
    "Monitor",
    "OperationCounter",
    "Operations",
    "QuantizationError",
    "RateMeter",
    "Where",
    "compare_conversion",
    "compare_layer",
    "compare_traces",
    "connection_sparsity",
    "conversion_page",
    "count_operations",
    "feature_maps",
    "fidelity_page",
    "firing_rate",
    "footprint",
    "heatmap",
    "membrane",
    "neuron_layers",
    "quantization_errors",
    "raster",
    "rate_bars",
    "record_spikes",
    "select_layers",
    "surrogate_curves",
    "time_layers",
]
