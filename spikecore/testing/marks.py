"""The decorators of a check: the capabilities it depends on, since which contract, how long it takes, what to do.

@needs("elementwise")
@long
@advice("reset the counter in `initial_state`")
def test_long_sequences(self) -> None: ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

Check = TypeVar("Check", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Need:
    """One condition of a check; see `needs`."""

    capability: str
    wanted: Any = True

    def unmet(self, capabilities: Any) -> str:
        """Why the check does not apply, or ""."""
        value = getattr(capabilities, self.capability)
        if isinstance(value, tuple):
            return "" if self.wanted in value else f"capabilities.{self.capability} lacks {self.wanted!r}"
        met = bool(value) == self.wanted
        return "" if met else f"capabilities.{self.capability} is {value!r}"

    def __str__(self) -> str:
        if isinstance(self.wanted, bool):
            return self.capability if self.wanted else f"not {self.capability}"
        return f"{self.wanted!r} in {self.capability}"


def needs(capability: str, wanted: Any = True) -> Callable[[Check], Check]:
    """The check applies where `capabilities.<capability>` is as wanted (for a tuple: holds it)."""

    def mark(check: Check) -> Check:
        check.needs = (Need(capability, wanted), *getattr(check, "needs", ()))  # type: ignore[attr-defined]
        return check

    return mark


def since(api_version: int) -> Callable[[Check], Check]:
    """The check belongs to the contract from this `api_version` on; components of an older one skip it."""

    def mark(check: Check) -> Check:
        check.since = api_version  # type: ignore[attr-defined]
        return check

    return mark


def long(check: Check) -> Check:
    """The check takes its time: in a pytest run it is made for one component per kind and plugin, see `is_long_run`."""
    check.long = True  # type: ignore[attr-defined]
    return check


def advice(text: str) -> Callable[[Check], Check]:
    """What the author of the component can do when this check fails; added to the message of the failure."""

    def mark(check: Check) -> Check:
        check.advice = text  # type: ignore[attr-defined]
        return check

    return mark


def skip(reason: str) -> Any:
    """End a check that does not apply, with the reason."""
    pytest.skip(reason)
