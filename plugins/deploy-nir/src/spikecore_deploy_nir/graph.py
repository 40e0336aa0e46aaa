"""A NIR graph in memory: nodes with arrays, and edges between them.

The classes hold what a file holds and nothing else: reading and writing need no other package than h5py, and take files
of every version of `nir` alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.generic]
Value: TypeAlias = Array | str

INPUT, OUTPUT, GRAPH = "Input", "Output", "NIRGraph"

FIELDS: Mapping[str, tuple[str, ...]] = {
    INPUT: ("shape",),
    OUTPUT: ("shape",),
    "Affine": ("weight", "bias"),
    "Linear": ("weight",),
    "Scale": ("scale",),
    "Conv1d": ("weight", "bias", "stride", "padding", "dilation", "groups"),
    "Conv2d": ("weight", "bias", "stride", "padding", "dilation", "groups"),
    "SumPool2d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
    "Flatten": ("start_dim", "end_dim"),
    "Delay": ("delay",),
    "I": ("r",),
    "IF": ("r", "v_threshold"),
    "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"),
}
"""Type of a node → what it must have. `v_reset` (0), `w_in` (1), `input_shape` and `input_type` may be missing."""

SPIKING = ("IF", "LIF", "CubaLIF")
NEURONS = (*SPIKING, "I", "LI", "CubaLI")
MATRICES = ("Affine", "Linear")


@dataclass(frozen=True, eq=False)
class NirNode:
    """One node.

    Args:
        type: of the table `FIELDS`.
        values: its arrays and numbers, by their names in the file.
    """

    type: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def array(self, name: str) -> npt.NDArray[np.float64]:
        """A value as doubles."""
        return np.asarray(self.values[name], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class NirGraph:
    """A graph, which may be a node of another one.

    Args:
        nodes: name → node or graph.
        edges: (from, to); what several edges bring to a node is summed.
        metadata: text.
    """

    nodes: Mapping[str, NirNode | NirGraph]
    edges: tuple[tuple[str, str], ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def sources(self, name: str) -> list[str]:
        """The nodes with an edge to this one, in the order of the edges."""
        return [start for start, end in self.edges if end == name]
