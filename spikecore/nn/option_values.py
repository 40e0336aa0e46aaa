"""What a neuron computes with now: its options, of which some may have been trained. For deployers and reports."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from spikecore.interfaces.component import DefaultsTo
from spikecore.nn.neuron import Neuron
from spikecore.nn.parameters import marks_of
from spikecore.nn.slopes import parameter_name, with_options


def option_values(neuron: Neuron) -> dict[str, Any]:
    """Name → value of everything that the neuron's step reads as `params`.

    A number, or a tuple with one for each channel (nested tuples: one for each neuron), is what the step sees: of an
    option that was trained, or loaded from a checkpoint, the value of its tensor within the range of the option, and
    not the one that it was made with. An option whose tensor still holds what the configuration says, rounded to the
    tensor's dtype, is given as the configuration says it.

    Args:
        neuron: of any kind.

    Example:
        >>> from spikecore.nn import LIF
        >>> lif = LIF(tau=[2.1, 3.0], learnable=("tau",))
        >>> option_values(lif)["tau"]
        (2.1, 3.0)
        >>> with torch.no_grad():
        ...     _ = lif.param_tau.add_(1.0)
        >>> [round(tau, 3) for tau in option_values(lif)["tau"]]
        [3.1, 4.0]
    """
    values = {field.name: getattr(neuron.config, field.name) for field in dataclasses.fields(neuron.config)}
    values.pop("learnable", None)
    for option, (name, _) in neuron.trained.items():
        values.pop(option)  # only where the parameter started from
        values[name] = None
    for name, configured in values.items():
        tensor = getattr(neuron, f"param_{name}", None)
        if isinstance(tensor, Tensor):
            values[name] = _value(neuron.within_range(name, tensor.detach()), configured)
    for option, learnable in neuron._surrogates.items():
        trained = {}
        for name in learnable.names:
            flat = parameter_name(option, name)
            tensor = getattr(neuron, f"param_{flat}").detach()
            configured = getattr(learnable.surrogate.config, name)
            trained[name] = _value(neuron.within_range(flat, tensor), configured)
        values[option] = with_options(learnable.surrogate, trained)
    config_type: type = type(neuron.config)
    for name, mark in marks_of(config_type, DefaultsTo).items():
        if values[name] is None:
            values[name] = values[mark.option]
    return values


def _value(tensor: Tensor, configured: Any) -> Any:
    if configured is not None:
        rounded = torch.as_tensor(configured, dtype=tensor.dtype, device=tensor.device)
        if torch.equal(rounded, tensor):
            return configured
    return _tuples(tensor.double().tolist())


def _tuples(value: Any) -> Any:
    """Nested lists as nested tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
