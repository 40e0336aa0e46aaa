"""What every component has: a frozen `Config`, `api_version`, `capabilities`.

A component's options are the fields of its `Config`. `nn.LIF(tau=3.0)`, `create("neuron", "lif", tau=3.0)` and the
TOML table `[neuron] name = "lif"  tau = 3.0` all become `LIF.Config(tau=3.0)`; `interfaces.options` checks them.

    class LIF(Neuron):
        @dataclass(frozen=True)
        class Config(Neuron.Config):
            tau: Annotated[float, Range(gt=1.0)] = 2.0
            surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from spikecore.interfaces.options import (
    DefaultsTo,
    Inner,
    OneOf,
    Range,
    SameAs,
    check_options,
    default_of,
    make_config,
)

__all__ = [
    "Component",
    "Configurable",
    "DefaultsTo",
    "Inner",
    "OneOf",
    "Range",
    "SameAs",
    "check_options",
    "make_config",
    "refuse_positional",
]

Self = TypeVar("Self", bound="Configurable")


@runtime_checkable
class Component(Protocol):
    """What the registry relies on, for every kind."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[Any]


class Configurable:
    """Base of our components: turns keywords into `self.config` and shows the fields as the signature.

    Keywords of `__init__` that are not fields (a neuron's `step_mode`) are named in `extra_keywords`. Instead of the
    fields `__init__` takes `config=`, a Config of this class (see `from_config`).
    """

    api_version: ClassVar[int] = 1
    extra_keywords: ClassVar[tuple[str, ...]] = ()
    renamed: ClassVar[Mapping[str, str]] = {}
    """Option of other libraries → what to use instead, for the message: `{"beta": "tau = 1 / (1 - beta)"}`."""
    known_as: ClassVar[tuple[str, ...]] = ()
    """Names that other libraries give to this component, for the message about an unknown name."""

    @dataclass(frozen=True)
    class Config:
        """No options."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        config = cls.Config
        if not (dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            raise TypeError(
                f"{cls.__qualname__}.Config must be a frozen dataclass: put `@dataclass(frozen=True)` above it"
            )
        if any(field.name == "config" for field in dataclasses.fields(config)):
            raise TypeError(
                f"{cls.__qualname__}.Config has a field 'config', which stands for a whole Config: rename it"
            )
        if "__init__" not in cls.__dict__:
            keyword = inspect.Parameter.KEYWORD_ONLY
            parameters = []
            for field in dataclasses.fields(config):
                default = default_of(field)
                parameters.append(inspect.Parameter(field.name, keyword, default=default, annotation=field.type))
            cls.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    @classmethod
    def from_config(cls: type[Self], config: Any, *args: Any, **keywords: Any) -> Self:
        """An instance with these options. A Config that `check_options` returned is neither checked nor built again.

        Args:
            config: of this class.
            args, keywords: what else `__init__` takes.

        Raises:
            OptionError: `config` belongs to another class, or was created by hand and is wrong.
        """
        construct: Any = cls  # subclasses declare `__init__` with other arguments
        instance: Self = construct(*args, config=config, **keywords)
        return instance

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """`(option, what is wrong)` for rules about several options; a component with such rules overrides this.

        The faults of single options are reported together with these. A rule that reads a wrong option stops there.
        """
        return ()

    @classmethod
    def idle_options(cls, config: Any) -> Iterable[tuple[str, str]]:
        """`(option, why)` for options without effect beside the others; a run reports those that the user set."""
        return ()


def refuse_positional(component: type, args: tuple[Any, ...]) -> None:
    """Refuse positional arguments of a component that takes its options by name.

    Raises:
        TypeError: there are some; the message shows the first option by name.
    """
    if not args:
        return
    config: Any = component.Config  # type: ignore[attr-defined]
    first = next((field.name for field in dataclasses.fields(config)), None)
    example = f", as in {component.__name__}({first}={args[0]!r})" if first else "; it has none"
    raise TypeError(f"{component.__name__} takes its options by name{example}")
