"""What backends and learning rules compute from a program: rewritten graphs, and which gradients arrive when."""

from spikecore.dynamics.passes.arguments import lift_numbers
from spikecore.dynamics.passes.derivatives import derivatives
from spikecore.dynamics.passes.hoist import DERIVED, UNIFORM, hoist, hoist_uniform
from spikecore.dynamics.passes.kept import KEPT, keeping
from spikecore.dynamics.passes.numbering import Numbering
from spikecore.dynamics.passes.phases import Phase, gradient_at, phases, reached_by

__all__ = [
    "DERIVED",
    "KEPT",
    "UNIFORM",
    "Numbering",
    "Phase",
    "derivatives",
    "gradient_at",
    "hoist",
    "hoist_uniform",
    "keeping",
    "lift_numbers",
    "phases",
    "reached_by",
]
