"""The table of kinds, the exception tree and the option machinery, without torch."""

import importlib
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikecore import errors
from spikecore.errors import OptionError, SpikeError
from spikecore.interfaces.component import Component, Configurable, Range, make_config
from spikecore.interfaces.deployer import records_from_json, records_to_json
from spikecore.kinds import KINDS


class Leaky(Configurable):
    capabilities = None

    @dataclass(frozen=True)
    class Config:
        tau: Annotated[float, Range(gt=1.0)] = 2.0
        reset: Literal["hard", "soft"] = "hard"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_has_its_contract(name):
    module, _, attribute = KINDS[name].contract.partition(":")
    contract = getattr(importlib.import_module(module), attribute)
    # A protocol names what it asks for; a base class has it.
    declared = {*dir(contract), *contract.__annotations__}
    assert {"api_version", "Config", "capabilities"} <= declared
    assert KINDS[name].group == f"spikecore.{name}s"


def test_there_are_nine_kinds():
    assert len(KINDS) >= 9


def test_every_error_is_a_spike_error():
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(classes) >= 20
    assert all(issubclass(value, SpikeError) for value in classes)


def test_options_become_a_frozen_config():
    config = make_config(Leaky, {"tau": 3.0})
    assert config == Leaky.Config(tau=3.0, reset="hard")
    assert isinstance(Leaky(), Component)


def test_every_wrong_option_is_named_at_once():
    with pytest.raises(OptionError) as caught:
        make_config(Leaky, {"tua": 3.0, "tau": 1.0, "reset": "none"})
    message = str(caught.value)
    assert "did you mean 'tau'" in message
    assert "'tau' must be > 1" in message
    assert "'hard', 'soft'" in message


@given(st.floats(allow_nan=True))
def test_a_range_is_its_inequality(value):
    assert (value in Range(gt=1.0, le=5.0)) == (not math.isnan(value) and 1.0 < value <= 5.0)


def test_a_range_names_its_bounds_exactly():
    assert str(Range(ge=0, lt=2**32)) == ">= 0 and < 4294967296"
    assert str(Range(gt=0.0, le=1.0)) == "> 0 and <= 1"


def test_a_config_that_can_change_is_refused():
    with pytest.raises(TypeError, match="frozen"):

        class Loose(Configurable):
            @dataclass
            class Config:
                tau: float = 2.0


@pytest.mark.parametrize(
    "row",
    [
        {"name": "0", "operator": "Linear", "outcome": "mapped", "target": 3},
        {"name": "0", "operator": "Linear", "outcome": "mapped", "target": "Affine", "reason": 3},
        {"name": "0", "operator": "Linear", "outcome": "mapped", "target": "Affine", "shape": "[2]"},
        {"name": "0", "outcome": "mapped", "target": "Affine"},
        ["0", "Linear", "mapped", "Affine"],
    ],
)
def test_rows_that_are_no_operator_records_are_refused(row):
    """A manifest comes from a file, which somebody else may have written."""
    sound = {"name": "1", "operator": "LIF", "outcome": "mapped", "target": "LIF", "reason": "", "cure": ""}
    assert records_to_json(records_from_json([sound])) == [sound]
    with pytest.raises(OptionError, match=r"expected the rows of operator records|must be a string, got 3"):
        records_from_json([sound, row])
