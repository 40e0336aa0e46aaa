"""Planting faults: a table of broken components for one test file, and what a check says of one of them.

FAULTS, fault = table()

@fault("test_several_threads", "output")
class SharedScratch(ToyBackend):
    \"\"\"scratch memory shared by threads\"\"\"
"""

import re
from dataclasses import dataclass
from typing import Any

import pytest

from spikecore.testing.suite import suite_for
from spikecore.trainers import Trainer
from tests.conformance.toys import SOUND

BASES = {**SOUND, "trainer": Trainer}
"""Kind → what its broken components derive from; some trainers share nothing but core's base."""


@dataclass(frozen=True)
class Fault:
    """Args:
    kind: of the component.
    what: what is wrong.
    check: the check that is meant to catch it.
    says: a regular expression for what the check says.
    component: the broken component.
    options: with which it is proved.
    """

    kind: str
    what: str
    check: str
    says: str
    component: Any
    options: Any = None


def table():
    """`(faults, fault)`: an empty list, and the decorator that adds to it."""
    faults: list[Fault] = []

    def fault(check, says, **options):
        """Adds a class to the table; its kind is that of the toy it derives from, its docstring says what is wrong."""

        def add(cls):
            kind = next(kind for kind, base in BASES.items() if issubclass(cls, base))
            faults.append(Fault(kind, cls.__doc__, check, says, cls, options))
            return cls

        return add

    return faults, fault


def name_of(fault):
    """For `pytest.mark.parametrize`."""
    return f"{fault.kind}-{fault.component.__name__}"


def caught(kind, name, options=None):
    """Runs one check on the component `toy` by hand; what it says."""
    suite = suite_for(kind, "toy", options)
    with pytest.raises((Exception, pytest.fail.Exception)) as error:
        getattr(suite(), name)()
    assert not isinstance(error.value, pytest.skip.Exception), f"skipped: {error.value}"
    assert suite.outcomes[name].outcome == "failed"
    return str(error.value)


def assert_caught(fault, registry):
    """The check that is named catches the fault and says what it should."""
    registry.register(fault.kind, "toy", fault.component)
    said = caught(fault.kind, fault.check, fault.options)
    assert re.search(fault.says, said), said


def assert_passes(kind, name, component, registry):
    """The check passes on a sound component, so that what it says of a broken one means something."""
    registry.register(kind, "toy", component)
    suite = suite_for(kind, "toy")
    getattr(suite(), name)()
    assert suite.outcomes[name].outcome == "passed"
