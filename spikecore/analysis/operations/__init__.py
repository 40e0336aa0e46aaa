"""What a net costs: operations, memory accesses, state, energy and time, layer by layer, on real data.

    operations = count_operations(net, x)              # x [T, B, ...]
    print(operations.table("horowitz-fp32"))

Formulas and units: docs/reference/operations.md.
"""

from spikecore.analysis.operations.counter import OperationCounter, count_operations
from spikecore.analysis.operations.energy import ENERGY_MODELS, EnergyModel, energy_model
from spikecore.analysis.operations.layers import Access, LayerOperations, Operations
from spikecore.analysis.operations.static import connection_sparsity, footprint
from spikecore.analysis.operations.times import time_layers

__all__ = [
    "ENERGY_MODELS",
    "Access",
    "EnergyModel",
    "LayerOperations",
    "OperationCounter",
    "Operations",
    "connection_sparsity",
    "count_operations",
    "energy_model",
    "footprint",
    "time_layers",
]
