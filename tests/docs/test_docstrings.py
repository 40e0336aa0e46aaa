"""The examples in the docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import spikecore.nn.neurons

NEURON_FILES = [
    f"neurons.{name}" for _, name, _ in pkgutil.iter_modules(spikecore.nn.neurons.__path__) if name != "equations"
]
MODULES = [*NEURON_FILES, "block", "state", "functional", "layers.fold"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"spikecore.nn.{name}")
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert outcome.attempted >= 2
    assert outcome.failed == 0


@pytest.mark.parametrize("name", NEURON_FILES)
def test_every_neuron_has_one(name):
    module = importlib.import_module(f"spikecore.nn.{name}")
    classes = [
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    ]
    assert len(classes) == 1
    for cls in classes:
        for heading in ("Returns:", "Gradients:", "Parity:", "Example:"):
            assert heading in cls.__doc__, f"{cls.__name__} has no {heading}"
