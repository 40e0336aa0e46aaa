"""What backend authors build on.

A backend that interprets graphs derives from `Interpreter`; one that prints and compiles them derives from
`spikecore.interfaces.backend.Backend` and takes the rest from here and from `spikecore.dynamics` (printers, passes).
"""

from spikecore.backends.kit.bounded import BoundedDict
from spikecore.backends.kit.checks import channels, check_arguments, check_support
from spikecore.backends.kit.divisions import multiply_by_reciprocals
from spikecore.backends.kit.dtypes import state_dtype
from spikecore.backends.kit.fused import ALIGNMENT, FusedBackend, Launch, Place, sum_lanes
from spikecore.backends.kit.interpreter import Interpreter
from spikecore.backends.kit.kernel_text import (
    INTEGERS,
    OF_INPUT_DTYPE,
    KernelText,
    arguments,
    integer_arguments,
    is_distance,
    pointer,
)
from spikecore.backends.kit.lanes import Lanes, read_sequence, read_state
from spikecore.backends.kit.norm import run_normed, run_normed_bwd
from spikecore.backends.kit.plans import (
    BackwardCall,
    BackwardPlan,
    BackwardStep,
    ForwardPlan,
    backward_calls,
    num_rows,
    segment_length,
)
from spikecore.backends.kit.store import KernelStore, cache_folder, open_library
from spikecore.backends.memory_format import is_channels_last, to_rows
from spikecore.backends.spike_bits import Layout, bits_of, note_bits, note_spikes
from spikecore.interfaces.backend import Backend, BackendCapabilities, NormCall, Support

__all__ = [
    "ALIGNMENT",
    "INTEGERS",
    "OF_INPUT_DTYPE",
    "Backend",
    "BackendCapabilities",
    "BackwardCall",
    "BackwardPlan",
    "BackwardStep",
    "BoundedDict",
    "ForwardPlan",
    "FusedBackend",
    "Interpreter",
    "KernelStore",
    "KernelText",
    "Lanes",
    "Launch",
    "Layout",
    "NormCall",
    "Place",
    "Support",
    "arguments",
    "backward_calls",
    "bits_of",
    "cache_folder",
    "channels",
    "check_arguments",
    "check_support",
    "integer_arguments",
    "is_channels_last",
    "is_distance",
    "multiply_by_reciprocals",
    "note_bits",
    "note_spikes",
    "num_rows",
    "open_library",
    "pointer",
    "read_sequence",
    "read_state",
    "run_normed",
    "run_normed_bwd",
    "segment_length",
    "state_dtype",
    "sum_lanes",
    "to_rows",
]
