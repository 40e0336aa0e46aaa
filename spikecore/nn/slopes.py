"""Learnable options of surrogates: `learnable=("surrogate.alpha",)` trains the slope of a neuron's surrogate.

The parameter is called `param_surrogate_alpha`. Its gradient is that of the surrogate's primitive, ds/dα := ∂g/∂α, as
ds/du := g'(u) is that of the input: see `spikecore.dynamics.spikes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from spikecore.dynamics import LearnableSurrogate
from spikecore.errors import OptionError
from spikecore.interfaces.plain_values import numbers_in
from spikecore.nn.surrogates import Surrogate


def is_numeric(value: object) -> bool:
    """Is it a number, or one for each channel or neuron?"""
    return all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers_in(value))


def learnable_names(options: Mapping[str, Any]) -> list[str]:
    """The options of surrogates that `learnable` may name, such as `surrogate.alpha`.

    Args:
        options: those of a neuron.
    """
    names = []
    for option, value in options.items():
        if isinstance(value, Surrogate):
            names += [f"{option}.{name}" for name in _numeric_options(value)]
    return names


def learnable_surrogates(options: Mapping[str, Any], learnable: Iterable[str]) -> dict[str, LearnableSurrogate]:
    """Option → its surrogate, where `learnable` names an option of that.

    Raises:
        OptionError: the surrogate declares no primitive.
        DynamicsError: the neuron language cannot express its primitive.
    """
    surrogates = {}
    for option, value in options.items():
        if not isinstance(value, Surrogate):
            continue
        names = [name for name in _numeric_options(value) if f"{option}.{name}" in learnable]
        if not names:
            continue
        if not value.capabilities.primitive:
            raise OptionError(
                f"learnable names {option}.{names[0]}, but {type(value).__name__} declares no primitive, whose "
                "derivative is the gradient of the slope: choose a surrogate whose capabilities say primitive"
            )
        surrogates[option] = LearnableSurrogate(value, names)
    return surrogates


def parameter_name(option: str, name: str) -> str:
    """The name of the parameter for an option of a surrogate, without `param_`: `surrogate_alpha`."""
    return f"{option}_{name}"


def with_options(surrogate: Surrogate, options: Mapping[str, float]) -> Surrogate:
    """The same surrogate with other values of some options."""
    config = surrogate.config
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return type(surrogate)(**{**values, **options})


def _numeric_options(surrogate: Surrogate) -> list[str]:
    config = surrogate.config
    names = [field.name for field in dataclasses.fields(config)]
    return [name for name in names if is_numeric(getattr(config, name))]
