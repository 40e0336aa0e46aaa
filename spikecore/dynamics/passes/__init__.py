"""Passes over a program for backends and learning rules: rewritten graphs, and which gradients arrive when."""

from spikecore.dynamics.passes.arguments import lift_numbers
from spikecore.dynamics.passes.binary import gives_spikes
from spikecore.dynamics.passes.derivatives import derivatives
from spikecore.dynamics.passes.hoist import DERIVED, UNIFORM, hoist, hoist_uniform
from spikecore.dynamics.passes.kept import KEPT, keep_distance
from spikecore.dynamics.passes.numbering import Numbering
from spikecore.dynamics.passes.phases import Phase, gradient_at, phases, reached_in_pass

__all__ = [
    "DERIVED",
    "KEPT",
    "UNIFORM",
    "Numbering",
    "Phase",
    "derivatives",
    "gives_spikes",
    "gradient_at",
    "hoist",
    "hoist_uniform",
    "keep_distance",
    "lift_numbers",
    "phases",
    "reached_in_pass",
]
