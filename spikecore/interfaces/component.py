"""What every component has in common: a frozen `Config`, `api_version`, `capabilities`.

A component's options are the fields of its `Config`. `nn.LIF(tau=3.0)`, `create("neuron", "lif", tau=3.0)` and the
TOML table `[neuron] name = "lif"  tau = 3.0` all end in `LIF.Config(tau=3.0)`.

    class LIF(Neuron):
        @dataclass(frozen=True)
        class Config(Neuron.Config):
            tau: Annotated[float, Range(gt=1.0)] = 2.0
            surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

from spikecore.errors import OptionError, SpikeError


@runtime_checkable
class Component(Protocol):
    """What the registry relies on, for every kind."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[Any]


@dataclass(frozen=True)
class Range:
    """Bounds of a numeric option, for `Annotated[float, Range(gt=1.0)]`. NaN is never inside."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __contains__(self, value: float) -> bool:
        return not math.isnan(value) and (
            (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
        )

    def __str__(self) -> str:
        bounds = ((">", self.gt), (">=", self.ge), ("<", self.lt), ("<=", self.le))
        return " and ".join(f"{sign} {_exactly(bound)}" for sign, bound in bounds if bound is not None)


def _exactly(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


@dataclass(frozen=True)
class Inner:
    """Marks an option that is itself a component, for `Annotated[Surrogate, Inner("surrogate")]`.

    It accepts an instance, a name (`"atan"`) or a table (`{"name": "atan", "alpha": 2.0}`).
    """

    kind: str


@dataclass(frozen=True, eq=False)
class OneOf:
    """Marks an option chosen from its owner's own table, for `Annotated[Any, OneOf(TRANSFORMS)]`.

    The table maps names to frozen dataclasses, each of which holds its name in `name`. The option accepts an instance,
    a name (`"flip"`) or a table (`{"name": "flip", "p": 0.5}`); with `tuple[Any, ...]`, a list of these.
    """

    table: Mapping[str, type]

    def __str__(self) -> str:
        return f"from {', '.join(self.table)}"


class Configurable:
    """Base of our components: turns keywords into `self.config` and shows the fields as the signature.

    Keywords of `__init__` that are not fields (a neuron's `step_mode`) are named in `extra_keywords`.
    """

    api_version: ClassVar[int] = 1
    extra_keywords: ClassVar[tuple[str, ...]] = ()

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
        if "__init__" not in cls.__dict__:
            keyword = inspect.Parameter.KEYWORD_ONLY
            fields = [
                inspect.Parameter(field.name, keyword, default=_default(field), annotation=field.type)
                for field in dataclasses.fields(config)
            ]
            cls.__signature__ = inspect.Signature(fields)  # type: ignore[attr-defined]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty


def make_config(component: type, options: Mapping[str, Any]) -> Any:
    """Build `component.Config` from keywords; every fault is reported at once.

    Args:
        component: a class with a frozen dataclass `Config`.
        options: field name → value; inner components as instances, names or tables.

    Returns:
        The `Config` instance, its inner components built.

    Raises:
        OptionError: an unknown option (with the nearest name), a missing one, a wrong type, a value out of range or
            not among the allowed ones.
    """
    config, problems = check_options(component, options)
    if problems:
        raise OptionError(f"{component.__name__}: " + "; ".join(f"option {name!r} {text}" for name, text in problems))
    return config


def check_options(component: Any, options: Mapping[str, Any]) -> tuple[Any, list[tuple[str, str]]]:
    """`(Config, [])`, or `(None, [(option, what is wrong), ...])`; see `make_config`."""
    return _check_fields(component.Config, options, getattr(component, "per_channel", False))


def _check_fields(
    config_type: type, options: Mapping[str, Any], per_channel: bool
) -> tuple[Any, list[tuple[str, str]]]:
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    hints = get_type_hints(config_type, include_extras=True)
    problems: list[tuple[str, str]] = []
    values = {}
    for name, value in options.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append((name, f"is unknown{hint} (options: {', '.join(fields) or 'none'})"))
            continue
        try:
            values[name] = _checked(hints[name], value, per_channel)
        except SpikeError as error:
            problems.append((name, str(error)))
    for name, field in fields.items():
        if name not in options and _default(field) is inspect.Parameter.empty:
            problems.append((name, "is required"))
    return (None, problems) if problems else (config_type(**values), [])


def _checked(hint: Any, value: Any, per_channel: bool) -> Any:
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    plain = get_args(hint)[0] if metadata else hint
    for mark in metadata:
        if isinstance(mark, Inner):
            return _inner(mark.kind, value)
        if isinstance(mark, OneOf) and get_origin(plain) is tuple:
            if not isinstance(value, list | tuple):
                raise OptionError(f"must be a list, got {value!r}")
            return tuple(_chosen(mark.table, item) for item in value)
        if isinstance(mark, OneOf):
            return _chosen(mark.table, value)
    value = _typed(plain, value, per_channel)
    for mark in metadata:
        if isinstance(mark, Range):
            for number in value if isinstance(value, tuple) else (value,):
                if number not in mark:
                    raise OptionError(f"must be {mark}, got {number!r}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and math.isnan(number):
            raise OptionError("must be a number, got nan")
    return value


def _typed(plain: Any, value: Any, per_channel: bool) -> Any:
    if get_origin(plain) is Literal:
        if value not in get_args(plain):
            raise OptionError(f"must be one of {', '.join(map(repr, get_args(plain)))}; got {value!r}")
        return value
    if get_origin(plain) is tuple:
        if not isinstance(value, list | tuple):
            raise OptionError(f"must be a list, got {value!r}")
        return tuple(_typed(get_args(plain)[0], item, False) for item in value)
    if plain is float and per_channel and isinstance(value, list | tuple):
        if not value:
            raise OptionError("must hold a number for each channel, got none")
        return tuple(_typed(float, item, False) for item in value)
    wanted = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}.get(plain)
    if wanted and (not isinstance(value, wanted) or (plain is not bool and isinstance(value, bool))):
        names = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}
        raise OptionError(f"must be {names[plain]}, got {value!r}")
    return value


def _inner(kind: str, value: Any) -> Any:
    from spikecore.registry import create

    if isinstance(value, str):
        return create(kind, value)
    if isinstance(value, Mapping):
        options = dict(value)
        if "name" not in options:
            raise OptionError(
                f"a {kind} given as a table needs a 'name'; got the keys {', '.join(options) or '(none)'}"
            )
        return create(kind, options.pop("name"), **options)
    if isinstance(value, type) or not hasattr(value, "config"):
        raise OptionError(f"must be a {kind}: an instance, a name or a table with a 'name'; got {value!r}")
    return value


def _chosen(table: Mapping[str, type], value: Any) -> Any:
    options = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = options.pop("name", None)
    if not isinstance(value, str | Mapping):
        return value  # an instance; its owner knows what it needs of it
    if name not in table:
        near = difflib.get_close_matches(str(name), table, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise OptionError(f"must have a name among {', '.join(table)}; got {name!r}{hint}")
    made, problems = _check_fields(table[name], options, False)
    if problems:
        raise OptionError("; ".join(f"{name!r}: option {option!r} {text}" for option, text in problems))
    return made
