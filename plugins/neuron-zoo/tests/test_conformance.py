"""The conformance suites of spikecore on every neuron, with two surrogates each, and on every surrogate."""

from zoo_cases import NEURONS, SURROGATES

from spikecore.testing import NeuronSuite, SurrogateSuite

NUM_STEPS, CHANNELS = 6, 4
STEPS, GROUPS = {"num_steps": NUM_STEPS}, {"num_groups": 5, "group_size": 12}  # of steps [B, 4, 3, 5]
OPTIONS = {
    "timed_glif": STEPS,
    "psn": STEPS,
    "masked_psn": {**STEPS, "masking": 1.0},
    "mpbn_lif": {"num_features": CHANNELS},
    "ilc_if": GROUPS,
    "ilc_lif": GROUPS,
    "ilc_cuba_lif": GROUPS,
    "noisy_cuba_lif": {"num_features": 60},
    "noisy_ilc_cuba_lif": GROUPS,
}
OTHER = {"ilif": {"name": "multi_level_spike_count", "max_spike_count": 2}}


def _suite(base, component, word, options):
    name = "Test" + component.title().replace("_", "") + word
    globals()[name] = type(name, (base,), {"component": component, "options": options, "__module__": __name__})


for _name in NEURONS:
    _options = OPTIONS.get(_name, {})
    _suite(NeuronSuite, _name, "", _options)
    _suite(NeuronSuite, _name, "Other", {**_options, "surrogate": OTHER.get(_name, "sigmoid")})
for _name in SURROGATES:
    _suite(SurrogateSuite, _name, "", {})


def test_all_of_them_are_here():
    suites = [suite for name, suite in globals().items() if name.startswith("Test")]
    assert len(suites) == 2 * len(NEURONS) + len(SURROGATES) >= 50
