"""`Suite`: a class whose `test_*` methods are the checks of one kind.

    class TestMine(NeuronSuite):
        component = "mine"                                    # its registered name
        options = {"tau": 3.0}                                # optional
        expected_failures = {"test_gradcheck": "why"}         # optional, strict: one that passes fails

A check passes, fails, or is skipped with a reason. `needs` names the capability that a check depends on, so what a
component does not promise is skipped by name and not by chance; a component on which fewer than `minimum` checks were
executed fails, so a suite cannot pass by skipping. A component that cannot be used here at all is skipped as a whole.

After every check the settings of the process are compared with those before (`spikecore.testing.process`).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import pytest
import torch

from spikecore.errors import OptionError, PluginUnavailable
from spikecore.kinds import KINDS
from spikecore.registry import Registry, registry
from spikecore.registry.loading import is_frozen_dataclass
from spikecore.testing import process
from spikecore.testing.marks import Check, Need, advice, long, needs, since, skip

__all__ = ["ENOUGH", "Check", "Need", "Outcome", "Suite", "advice", "long", "needs", "since", "skip", "suite_for"]

ENOUGH = "test_enough_checks_were_executed"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one check: `passed`, `failed` or `skipped`, with the reason of the latter two."""

    outcome: str
    reason: str
    seconds: float


class Suite:
    """Base of the suites. One instance serves one check."""

    kind: ClassVar[str] = ""
    minimum: ClassVar[int] = 1
    """Fewest checks that must be executed (not skipped) on any component of the kind."""
    component: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    expected_failures: ClassVar[Mapping[str, str]] = {}
    outcomes: ClassVar[dict[str, Outcome]] = {}
    is_long_run: ClassVar[bool] = True
    """Whether the checks marked `long` are made. A pytest run makes them for the first suite of each kind and
    distribution only, unless SPIKE_FULL=1."""
    _known: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = [name for name in vars(cls) if name.startswith("test_")]
        inherited = {name for base in cls.__mro__[1:] for name in vars(base) if name.startswith("test_")}
        if replaced := [name for name in own if name in inherited]:
            raise TypeError(
                f"{cls.__qualname__} replaces the check {replaced[0]}: a check that cannot pass goes into "
                f"expected_failures = {{{replaced[0]!r}: 'reason'}}"
            )
        _watch_checks(cls)
        if cls.component:
            cls.outcomes = {}
            cls._known = {}
            cls._expect_failures()
            setattr(cls, ENOUGH, _enough)  # the last name of the class, so pytest runs it after all checks

    @classmethod
    def _expect_failures(cls) -> None:
        for name, reason in cls.expected_failures.items():
            check = getattr(cls, name, None)
            if check is None or not name.startswith("test_"):
                raise TypeError(f"{cls.__qualname__}.expected_failures names {name!r}, which is no check of it")
            copied = types.FunctionType(
                check.__code__, check.__globals__, check.__name__, check.__defaults__, check.__closure__
            )
            copied.__dict__.update(check.__dict__)
            setattr(cls, name, pytest.mark.xfail(reason=reason, strict=True)(copied))

    @classmethod
    def checks(cls) -> dict[str, Callable[..., Any]]:
        """Name → check, in the order in which they run."""
        checks: dict[str, Callable[..., Any]] = {}
        for base in reversed(cls.__mro__):
            checks |= {name: getattr(cls, name) for name in vars(base) if name.startswith("test_") and name != ENOUGH}
        return checks

    @property
    def target(self) -> Any:
        """The component's class."""
        return registry().load(self.kind, self.component)

    @property
    def capabilities(self) -> Any:
        """What the component promises with the suite's options: the capabilities of an instance."""
        if "capabilities" not in self._known:
            with _left_alone():
                self._known["capabilities"] = self.sample().capabilities
        return self._known["capabilities"]

    def sample(self) -> Any:
        """An instance with the suite's options, made to be looked at; or the class, where an instance needs more."""
        return registry().create(self.kind, self.component, **self.options)

    def obstacle(self) -> str:
        """Why the component cannot be used here with the suite's options, or ""."""
        if "obstacle" not in self._known:
            try:
                with _left_alone():
                    self._known["obstacle"] = self.find_obstacle()
            except PluginUnavailable as error:
                self._known["obstacle"] = str(error)
            except Exception:  # a fault of the component, which its checks will show
                self._known["obstacle"] = ""
        return str(self._known["obstacle"])

    def find_obstacle(self) -> str:
        """The same, found anew; a suite whose components need more than their constructor adds to it.

        Raises:
            PluginUnavailable: the component says so itself.
        """
        _ = self.capabilities
        return ""

    def make(self, **options: Any) -> Any:
        """An instance with `options` over those of the suite."""
        return registry().create(self.kind, self.component, **{**self.options, **options})

    def test_contract(self) -> None:
        """It loads, has the members of its contract and speaks an `api_version` of this core."""
        target = self.target  # the registry compares the members
        assert target.api_version in KINDS[self.kind].api_versions
        assert is_frozen_dataclass(target.Config)

    def test_capabilities(self) -> None:
        """`capabilities` is an instance of the kind's own dataclass, its values of the declared types."""
        module, _, name = KINDS[self.kind].contract.partition(":")
        wanted = getattr(importlib.import_module(module), f"{name}Capabilities")
        given = self.capabilities
        for capabilities in (self.target.capabilities, given):
            assert isinstance(capabilities, wanted), f"expected {wanted.__name__}, got {type(capabilities).__name__}"
        for field, hint in get_type_hints(wanted).items():
            value = getattr(given, field)
            assert _has_type(value, hint), f"capabilities.{field} should be {hint}, is {value!r}"

    def test_options(self) -> None:
        """The fields of `Config` are its keywords: given back, they make an equal config."""
        config = getattr(self.make(), "config", None)
        if config is None:
            config = self.target.Config(**self.options)
        assert isinstance(config, self.target.Config), f"config is {type(config).__name__}, not {self.target.Config}"
        hash(config)
        again = self.make(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})
        assert getattr(again, "config", config) == config

    def test_unknown_option_is_refused(self) -> None:
        """A keyword that `Config` does not have is an error that names it."""
        with pytest.raises((OptionError, TypeError), match="no_such_option"):
            self.make(no_such_option=1)


@contextmanager
def _left_alone() -> Iterator[None]:
    """Inside, no random number is drawn and no setting changed that a check could notice."""
    before = process.snapshot()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        process.restore(before)


def _watch_checks(cls: type[Suite]) -> None:
    for name, value in list(vars(cls).items()):
        if name.startswith("test_") and isinstance(value, types.FunctionType):
            setattr(cls, name, _watched(name, value))


def suite_for(kind: str, name: str, options: Mapping[str, Any] | None = None) -> type[Suite]:
    """The suite of a kind as a test class for one component.

    Raises:
        UnknownComponentError: there is no such kind or component.
        PluginError: it cannot be used.
    """
    registry().load(kind, name)
    module, _, attribute = KINDS[kind].suite.partition(":")
    base = getattr(importlib.import_module(module), attribute)
    words = "".join(part.capitalize() for part in name.replace(":", "_").replace("-", "_").split("_"))
    made: type[Suite] = type(f"Test{kind.capitalize()}{words}", (base,), {"component": name, "options": options or {}})
    return made


def copy_of(active: Registry) -> Registry:
    """A registry with the same components, in which more can be registered for the time of one check."""
    return active.without(())


def _watched(name: str, check: Callable[..., Any]) -> Callable[..., Any]:
    """The check with its gates, its own random seed, the process's settings guarded, and its outcome written down."""

    @functools.wraps(check)
    def watched(self: Suite, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        start, outcome, reason = time.perf_counter(), "passed", ""
        before = process.snapshot()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                _gate(self, check)
                check(self, *args, **kwargs)
            if lines := process.changes(before, process.snapshot()):
                raise AssertionError(f"settings of the whole process changed during this check: {'; '.join(lines)}")
        except PluginUnavailable as error:
            outcome, reason = "skipped", f"unavailable here: {error}"
            pytest.skip(reason)
        except pytest.skip.Exception as error:
            outcome, reason = "skipped", str(error)
            raise
        except BaseException as error:
            if isinstance(error, AssertionError) and (text := getattr(check, "advice", "")):
                error.args = (f"{error}\nWhat to do: {text}.",)
            outcome, reason = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            process.restore(before)
            type(self).outcomes[name] = Outcome(outcome, reason, time.perf_counter() - start)

    return watched


def _gate(suite: Suite, check: Callable[..., Any]) -> None:
    if reason := suite.obstacle():
        skip(f"unavailable here: {reason}")
    if getattr(check, "long", False) and not suite.is_long_run:
        skip("a long check: made for another component of this kind and plugin; for all of them with SPIKE_FULL=1")
    first = getattr(check, "since", 1)
    if (version := suite.target.api_version) < first:
        skip(f"api_version is {version}; the check belongs to {first}")
    for need in getattr(check, "needs", ()):
        if reason := need.unmet(suite.capabilities):
            skip(reason)


def _enough(self: Suite) -> None:
    """At least `minimum` checks were executed."""
    if reason := self.obstacle():
        skip(f"unavailable here: {reason}")
    left = [name for name in self.checks() if name not in self.outcomes]
    if left:
        skip(f"{len(left)} checks were not selected, {left[0]} the first of them")
    executed = [name for name, outcome in self.outcomes.items() if outcome.outcome != "skipped"]
    reasons = dict.fromkeys(o.reason for o in self.outcomes.values() if o.outcome == "skipped")
    assert len(executed) >= self.minimum, (
        f"{self.kind} {self.component!r}: {len(executed)} checks were executed, at least {self.minimum} are needed; "
        f"the others were skipped: {'; '.join(reasons)}"
    )


def _has_type(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_has_type(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if parts[-1] is Ellipsis:
            return all(_has_type(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(_has_type, value, parts))
    if not isinstance(hint, type):  # Literal
        return value in parts
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)


_watch_checks(Suite)
