"""Faults planted in sound components, and the check that catches each: the kit is tested as it tests others.

The broken components stand by kind in `tests/conformance/faults/`.
"""

from collections import Counter

import pytest

from spikecore.backends.selection import Choice
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.proving import prove
from tests.conformance.faults import (
    backends,
    converters,
    datasets,
    deployers,
    encoders,
    models,
    neurons,
    surrogates,
    trainers,
)
from tests.conformance.faults.datasets import ToySequences
from tests.conformance.faults.trainers import ToyExtendable, ToyShared
from tests.conformance.planting import assert_caught, caught, name_of
from tests.conformance.toys import SOUND, Respiking, ToyBackend

FAULTS = [
    *neurons.FAULTS,
    *surrogates.FAULTS,
    *encoders.FAULTS,
    *backends.FAULTS,
    *models.FAULTS,
    *datasets.FAULTS,
    *trainers.FAULTS,
    *converters.FAULTS,
    *deployers.FAULTS,
]
KINDS_OF_FAULTS = Counter(planted.kind for planted in FAULTS)


@pytest.fixture
def registry():
    with use(Registry(blocking=Blocking())) as own:
        yield own


OTHER_SOUND = [("dataset", ToySequences), ("trainer", ToyExtendable), ("trainer", ToyShared), ("converter", Respiking)]


@pytest.mark.parametrize(("kind", "sound"), [*SOUND.items(), *OTHER_SOUND])
def test_the_sound_toy_passes_everything(kind, sound, registry):
    registry.register(kind, "toy", sound)
    report = prove(kind, "toy")
    bad = {c["name"]: c["reason"] for c in report["checks"] if c["outcome"] not in ("passed", "skipped")}
    assert not bad
    assert report["ok"]
    assert report["executed"] == report["counts"]["passed"] >= report["minimum"]


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_the_named_check_catches_it(fault, registry):
    assert_caught(fault, registry)


def test_a_net_that_runs_on_something_else_is_caught(registry, monkeypatch):
    monkeypatch.setattr("spikecore.nn.placement.choose", lambda *_: Choice("torch", "it seemed faster"))
    registry.register("backend", "toy", ToyBackend)
    assert "it seemed faster" in caught("backend", "test_requested_is_executed")


def test_every_suite_has_three_faults_and_a_lie():
    assert set(KINDS_OF_FAULTS) == set(SOUND)
    assert min(KINDS_OF_FAULTS.values()) >= 3, KINDS_OF_FAULTS
    assert len(FAULTS) >= 60
