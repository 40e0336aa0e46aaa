"""Faults that small inputs and single calls do not show: at length, at width, in memory, in threads, in settings.

Each is planted in a sound component, in `tests/conformance/faults/`, and caught by the check that is meant for it.
"""

import random
from collections import Counter

import pytest
import torch

from spikecore.registry import Blocking, Registry, use
from spikecore.testing.suite import suite_for
from tests.conformance.faults import backend_limits, backend_norms, dataset_limits, neuron_limits, other_limits
from tests.conformance.faults.backend_norms import ToyFused, ToyNormed
from tests.conformance.faults.dataset_limits import ToySeeded, ToyStored
from tests.conformance.faults.neuron_limits import SetsThreads
from tests.conformance.planting import assert_caught, assert_passes, name_of
from tests.conformance.toys import SOUND

FAULTS = [
    *neuron_limits.FAULTS,
    *backend_limits.FAULTS,
    *backend_norms.FAULTS,
    *dataset_limits.FAULTS,
    *other_limits.FAULTS,
]


@pytest.fixture
def registry():
    with use(Registry(blocking=Blocking())) as own:
        yield own


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_the_named_check_catches_it(fault, registry):
    assert_caught(fault, registry)


VARIANTS = (ToyFused, ToyNormed, ToySeeded, ToyStored)


def sound_cases():
    """`(sound component, check)`: every check that catches a fault here, on what that fault was planted in."""
    cases = {(ToySeeded, "test_every_seed_has_an_effect"), (ToyStored, "test_samples_are_their_own")}
    for fault in FAULTS:
        if fault.check == "test_every_seed_has_an_effect":
            continue  # only ToySeeded has a seed
        component = SOUND[fault.kind]
        for variant in VARIANTS:
            if issubclass(fault.component, variant):
                component = variant
                break
        cases.add((component, fault.check))
    return sorted(cases, key=str)


@pytest.mark.parametrize(("component", "check"), sound_cases(), ids=lambda value: getattr(value, "__name__", value))
def test_the_check_passes_on_what_is_sound(component, check, registry):
    kind = next(kind for kind, sound in SOUND.items() if issubclass(component, sound))
    assert_passes(kind, check, component, registry)


def test_the_settings_are_restored_after_a_check(registry):
    registry.register("neuron", "toy", SetsThreads)
    before = torch.get_num_threads(), torch.get_default_dtype(), random.getstate()
    with pytest.raises(AssertionError, match="get_num_threads"):
        suite_for("neuron", "toy")().test_copies()  # any check guards the settings
    assert (torch.get_num_threads(), torch.get_default_dtype(), random.getstate()) == before


def test_every_kind_has_some():
    count = Counter(fault.kind for fault in FAULTS)
    assert count["neuron"] >= 10
    assert count["backend"] >= 8
    assert count["dataset"] >= 5
