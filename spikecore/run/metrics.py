"""Metrics that a trainer returns: names and numbers."""

from __future__ import annotations

from collections.abc import Mapping

from spikecore.errors import ContractError

EXAMPLE = "{'test_accuracy': 0.93}"


def checked_metrics(trainer: object, method: str, value: object) -> dict[str, float]:
    """What `method` of a trainer returned.

    Raises:
        ContractError: it is no dict of names and numbers.
    """
    who = f"{type(trainer).__name__}.{method}"
    if not isinstance(value, Mapping):
        raise ContractError(
            f"{who} must return a dict of metrics, name -> number, as in {EXAMPLE}, got {value!r:.80}: add a `return` "
            "with them ({} where there are none)"
        )
    for name, number in value.items():
        if not isinstance(name, str) or isinstance(number, bool) or not isinstance(number, int | float):
            raise ContractError(
                f"{who} must return a dict of metrics, name -> number, as in {EXAMPLE}, got {name!r}: "
                f"{type(number).__name__}: write float(...) or int(...) around it"
            )
    return dict(value)
