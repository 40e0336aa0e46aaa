"""What backend authors build on.

A backend that interprets graphs derives from `Interpreter`; one that prints and compiles them derives from
`spikecore.interfaces.backend.Backend` and takes the rest from here and from `spikecore.dynamics` (printers, passes).
"""

from spikecore.backends.kit.checks import channels, check_arguments, check_support
from spikecore.backends.kit.interpreter import Interpreter
from spikecore.backends.kit.lanes import Lanes, read_sequence, read_state
from spikecore.backends.kit.norm import run_normed, run_normed_bwd
from spikecore.backends.kit.store import KernelStore, cache_folder
from spikecore.backends.spike_bits import bits_of, note_bits
from spikecore.interfaces.backend import Backend, BackendCapabilities, Support

__all__ = [
    "Backend",
    "BackendCapabilities",
    "Interpreter",
    "KernelStore",
    "Lanes",
    "Support",
    "bits_of",
    "cache_folder",
    "channels",
    "check_arguments",
    "check_support",
    "note_bits",
    "read_sequence",
    "read_state",
    "run_normed",
    "run_normed_bwd",
]
