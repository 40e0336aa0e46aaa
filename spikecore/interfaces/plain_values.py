"""Values of options that come from numpy or torch: as a configuration holds them, numbers and lists of numbers.

Neither library is imported here; both name their types in the same way.
"""

from __future__ import annotations

from typing import Any

LIBRARIES = ("numpy", "torch")


def plain_value(value: Any) -> Any:
    """A number, an array or a tensor of numpy or torch as Python's numbers, in lists; every other value as it is.

    Args:
        value: of an option; `is_trained` says no.
    """
    is_foreign = type(value).__module__.partition(".")[0] in LIBRARIES
    return value.tolist() if is_foreign and hasattr(value, "tolist") else value


def is_trained(value: object) -> bool:
    """Is it a tensor that an optimizer is meant to change? A configuration would keep its value of now."""
    is_parameter = any(base.__name__ == "Parameter" and base.__module__[:5] == "torch" for base in type(value).__mro__)
    return is_parameter or getattr(value, "requires_grad", False) is True


def shape_of(value: object) -> tuple[int, ...] | None:
    """The shape of nested tuples of numbers, `()` of a number; None where rows have different lengths."""
    if not isinstance(value, tuple):
        return ()
    shapes = {shape_of(item) for item in value}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    return None if shape is None else (len(value), *shape)


def numbers_in(value: Any) -> list[Any]:
    """The numbers of nested tuples, in order."""
    if not isinstance(value, tuple):
        return [value]
    numbers = []
    for item in value:
        numbers += numbers_in(item)
    return numbers
