"""Options that one neuron hands to another."""

from __future__ import annotations

import dataclasses
from typing import Any


def options_of(neuron: Any, config: Any) -> dict[str, Any]:
    """Those of a configuration's fields that are options of `neuron`."""
    names = [field.name for field in dataclasses.fields(neuron.Config)]
    return {name: getattr(config, name) for name in names if hasattr(config, name)}
