"""Every neuron of this plugin with options that make it run on steps `[B, 6]`, for T = 5 where T is fixed."""

import importlib.util
from pathlib import Path

from spikecore.registry import components, load

_SPEC = importlib.util.spec_from_file_location("interpreter", Path(__file__).parents[3] / "tests/interpreter.py")
interpreter = importlib.util.module_from_spec(_SPEC)
"""Runs graphs in numpy: that of the core's tests."""
_SPEC.loader.exec_module(interpreter)

NUM_STEPS, FEATURES = 5, 6
REQUIRED = {
    "timed_glif": {"num_steps": NUM_STEPS},
    "psn": {"num_steps": NUM_STEPS},
    "masked_psn": {"num_steps": NUM_STEPS},
    "mpbn_lif": {"num_features": FEATURES},
    "ilc_if": {"num_groups": 2, "group_size": 3},
    "ilc_lif": {"num_groups": 2, "group_size": 3},
    "ilc_cuba_lif": {"num_groups": 2, "group_size": 3},
    "noisy_cuba_lif": {"num_features": FEATURES},
    "noisy_ilc_cuba_lif": {"num_groups": 2, "group_size": 3},
}
NEURONS = [entry.name for entry in components("neuron") if entry.plugin.id == "neuron-zoo"]
SURROGATES = [entry.name for entry in components("surrogate") if entry.plugin.id == "neuron-zoo"]
DECLARED = [name for name in NEURONS if load("neuron", name).capabilities.elementwise]
MODULES = [name for name in NEURONS if name not in DECLARED]
assert len(DECLARED) >= 13
assert len(MODULES) >= 6
assert len(SURROGATES) >= 12


def has_option(name, option):
    """Whether a neuron's Config has this field."""
    return option in load("neuron", name).Config.__dataclass_fields__
