"""From keywords to a checked `Config`: the annotations that a field may have, and the one function that checks them.

    number, bool, str, Literal, tuple[...]      checked by type; `Range` adds bounds
    Inner("surrogate")                          a component: an instance, a name, or a table with a name
    OneOf("loss")                               a choice of a table, likewise

A table without a name, `{"alpha": 3.0}`, changes options of the field's default. All faults are reported at once, with
their dotted paths relative to the component: `surrogate.alpha`.

Values and annotations of options have any type, hence the `Any` in this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints
from weakref import WeakValueDictionary

from spikecore.errors import OptionError, SpikeError
from spikecore.interfaces.plain_values import is_trained, numbers_in, plain_value, shape_of
from spikecore.registry import registry
from spikecore.registry.choices import declare_table
from spikecore.registry.nearest import did_you_mean

Problems: TypeAlias = "list[tuple[str, str]]"
"""`(dotted path of the option, what is wrong with it)`; the path is "" for a fault of no single option."""

MOST_BITS = 63
"""Of a whole number, without its sign."""


@dataclass(frozen=True)
class Range:
    """Bounds of a numeric option, for `Annotated[float, Range(gt=1.0)]`. NaN is never inside."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __contains__(self, value: float) -> bool:
        if math.isnan(value):
            return False
        is_high_enough = (self.gt is None or value > self.gt) and (self.ge is None or value >= self.ge)
        is_low_enough = (self.lt is None or value < self.lt) and (self.le is None or value <= self.le)
        return is_high_enough and is_low_enough

    def __str__(self) -> str:
        bounds = ((">", self.gt), (">=", self.ge), ("<", self.lt), ("<=", self.le))
        return " and ".join(f"{sign} {_format_bound(bound)}" for sign, bound in bounds if bound is not None)


def _format_bound(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


@dataclass(frozen=True)
class Inner:
    """Marks an option that is itself a component, for `Annotated[Surrogate, Inner("surrogate")]`.

    It accepts an instance, a name (`"atan"`) or a table (`{"name": "atan", "alpha": 2.0}`).
    """

    kind: str


@dataclass(frozen=True)
class OneOf:
    """Marks an option that is a choice of a table, for `Annotated[Any, OneOf("loss")]`.

    The choices come from the entry-point group `spikecore.choices`, under names such as `loss.tet`, so plugins add to
    any table. The option accepts an instance, a name (`"tet"`) or a table (`{"name": "tet", "mse_weight": 0.1}`), and
    holds an instance; a choice that is a function is held as it is. With `tuple[Any, ...]`, a list of these.

    Args:
        table: its name, in the singular.
        base: what every choice must be an instance of. With a base, instances of classes that are not on offer are
            accepted too.
        words: further names, kept as strings that the owner interprets (`auto`).
        fixed: options of the choices that the owner sets itself; users must leave them at their defaults.
        hint: what to do instead, for the message about an unsuitable instance.
    """

    table: str
    base: Any = None
    words: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    hint: str = ""

    def __post_init__(self) -> None:
        declare_table(self.table)

    def __str__(self) -> str:
        return f"from {', '.join(self.names())}"

    def names(self) -> list[str]:
        """What the option may name."""
        return [*self.words, *sorted({entry.shortest for entry in registry().choices(self.table)})]


@dataclass(frozen=True)
class DefaultsTo:
    """Marks an option that takes another one's value while it is None.

    `Annotated[float | None, DefaultsTo("v_reset")]`; the step of a neuron reads the value, never None.
    """

    option: str

    def __str__(self) -> str:
        return f"(unless given: {self.option})"


@dataclass(frozen=True)
class SameAs:
    """Marks an option whose default in a run is another table's: `SameAs("encoder.num_steps")`."""

    path: str

    def __str__(self) -> str:
        return f"(in a run, unless given: {self.path})"


_checked: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""Checked Configs by id: they need not be checked again."""


def make_config(component: Any, options: Mapping[str, Any]) -> Any:
    """Build `component.Config` from keywords; every fault is reported at once.

    Args:
        component: a class with a frozen dataclass `Config`.
        options: field name → value; inner components and choices as instances, names or tables. Or `config` alone: a
            Config, which is taken as it is where `check_options` made it.

    Returns:
        The `Config` instance, its inner components built.

    Raises:
        OptionError: an unknown option (with the nearest name), a missing one, a wrong type, a value out of range or
            not among the allowed ones.
    """
    if set(options) == {"config"}:
        config = options["config"]
        if type(config) is not component.Config:
            raise OptionError(f"{component.__name__}: config must be a {component.Config.__qualname__}, got {config!r}")
        if _checked.get(id(config)) is config:
            return config
        options = fields_of(config)
    config, problems = check_options(component, options)
    if problems:
        raise OptionError(f"{component.__name__}: " + "; ".join(_sentence(name, text) for name, text in problems))
    return config


_VERBS = ("must", "is", "needs", "takes", "given")
"""First words of messages that continue `option 'tau' …`; other messages are sentences of their own."""


def _sentence(name: str, text: str) -> str:
    if not name:
        return text
    return f"option {name!r} {text}" if text.partition(" ")[0] in _VERBS else f"option {name!r}: {text}"


def check_options(component: Any, options: Mapping[str, Any]) -> tuple[Any, Problems]:
    """`(Config, [])`, or `(None, [(option, what is wrong), ...])`; see `make_config`.

    The problems include those of several options together (`Configurable.option_problems`).
    """
    # A choice may be the frozen dataclass itself.
    config_type = getattr(component, "Config", component)
    values, problems = _check_fields(component, config_type, options)
    wrong = {path.partition(".")[0].partition("[")[0] for path, _ in problems}
    try:
        given = _Incomplete(config_type, values, wrong) if problems else config_type(**values)
    except SpikeError as error:  # its __post_init__
        return None, [("", str(error))]
    rules = getattr(component, "option_problems", None)
    if rules is not None:
        with contextlib.suppress(_Unknown):  # the other rules need an option that is wrong itself
            problems.extend(rules(given))
    if problems:
        return None, problems
    with contextlib.suppress(TypeError):  # a dataclass with slots: it will be checked again
        _checked[id(given)] = given
    return given, []


class _Unknown(Exception):
    """A rule read an option that is wrong."""


class _Incomplete:
    """A Config without its wrong options: rules that need only the others can still be checked."""

    def __init__(self, config_type: type, values: Mapping[str, Any], wrong: set[str]) -> None:
        for field in dataclasses.fields(config_type):
            value = values.get(field.name, default_of(field))
            if field.name not in wrong and value is not inspect.Parameter.empty:
                setattr(self, field.name, value)

    def __getattr__(self, name: str) -> Any:
        raise _Unknown(name)


def _check_fields(component: Any, config_type: type, options: Mapping[str, Any]) -> tuple[dict[str, Any], Problems]:
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    hints = _hints(config_type)
    per_channel = getattr(component, "per_channel", False)
    problems: Problems = []
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in fields:
            problems.append((name, f"is unknown{_unknown_hint(component, name, fields)}"))
            continue
        if is_trained(value):
            problems.append((name, _trained_text(name, per_channel)))
            continue
        default = default_of(fields[name])
        values[name], wrong = _check(hints[name], value, default, per_channel)
        problems += [(f"{name}{rest}", text) for rest, text in wrong or _infinite(component, name, values[name])]
    for name, field in fields.items():
        default = default_of(field)
        if name in options:
            continue
        if default is inspect.Parameter.empty:
            problems.append((name, "is required"))
        elif isinstance(default, str) and _mark(hints[name]) is not None:  # a default by name: built when needed
            values[name], wrong = _check(hints[name], default, default, per_channel)
            problems += [(f"{name}{rest}", text) for rest, text in wrong]
    return values, problems


def _infinite(component: Any, name: str, value: Any) -> Problems:
    """The problem of an infinite number in an option of equations, such as a neuron's; NaN was refused before."""
    names: tuple[str, ...] | None = getattr(component, "may_be_infinite", None)
    if names is None:
        return []
    for number in numbers_in(value):
        if isinstance(number, float) and math.isinf(number) and not (number > 0 and name in names):
            return [("", f"must be finite, got {number!r}: give a number, since 0 * inf is nan in the equations")]
    return []


@functools.lru_cache(maxsize=512)
def _hints(config_type: type) -> dict[str, Any]:
    return get_type_hints(config_type, include_extras=True)


def _unknown_hint(component: Any, name: str, fields: Mapping[str, Any]) -> str:
    renamed: Mapping[str, str] = getattr(component, "renamed", {})
    hint = f"; use {renamed[name]}" if name in renamed else did_you_mean(name, fields)
    return f"{hint} (options: {', '.join(fields) or 'none'})"


def _mark(hint: Any) -> Inner | OneOf | None:
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((mark for mark in marks if isinstance(mark, Inner | OneOf)), None)


def _check(hint: Any, value: Any, default: Any, per_channel: bool) -> tuple[Any, Problems]:
    """`(the value as the Config holds it, problems)`; the paths of the problems begin with `.` or `[`, or are ""."""
    mark = _mark(hint)
    if mark is None:
        try:
            return _plain_value(hint, value, per_channel), []
        except SpikeError as error:
            return None, [("", str(error))]
    if get_origin(get_args(hint)[0]) is not tuple:
        return _build(mark, value, default)
    if not isinstance(value, list | tuple):
        return None, [("", f"must be a list, got {value!r}")]
    items, problems = [], []
    for place, item in enumerate(value):
        built, wrong = _build(mark, item, inspect.Parameter.empty)
        items.append(built)
        problems += [(f"[{place}]{rest}", text) for rest, text in wrong]
    return tuple(items), problems


def _plain_value(hint: Any, value: Any, per_channel: bool) -> Any:
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    plain = get_args(hint)[0] if marks else hint
    if get_origin(plain) in (UnionType, Union) and NoneType in get_args(plain):
        if value is None:
            return None
        plain = Union[tuple(part for part in get_args(plain) if part is not NoneType)]  # noqa: UP007  (one may be left)
    value = _check_type(plain, value, per_channel)
    numbers = numbers_in(value)
    for number in numbers:
        # What computes with it takes no more, and the largest of a file have no float.
        if isinstance(number, int) and number.bit_length() > MOST_BITS:
            raise OptionError(f"must be a number of at most {MOST_BITS} bits, got one of {number.bit_length()}")
    for bounds in (mark for mark in marks if isinstance(mark, Range)):
        for number in numbers:
            if number not in bounds:
                raise OptionError(f"must be {bounds}, got {number!r}")
    if any(isinstance(number, float) and math.isnan(number) for number in numbers):
        raise OptionError("must be a number, got nan")
    return value


def _trained_text(name: str, per_channel: bool) -> str:
    problem = "is a tensor that is trained, and would be taken for a constant"
    if not per_channel:
        return f"{problem}: give it as a number"
    return (
        f"{problem}: give its first value as a number (or one for each channel) and name it in learnable=({name!r},); "
        f"it is then the parameter param_{name}"
    )


def _check_type(plain: Any, value: Any, per_channel: bool) -> Any:
    if is_trained(value):  # in a list
        raise OptionError("is a tensor that is trained, and would be taken for a constant: give it as a number")
    value = plain_value(value)
    if isinstance(value, Mapping):
        inner = ", ".join(repr(key) for key in value if key != "name")
        raise OptionError(
            f"must be a single value, and has no options of its own; got a table with {inner or 'a name'}"
        )
    if get_origin(plain) in (UnionType, Union):
        return _check_union(get_args(plain), value, per_channel)
    if get_origin(plain) is Literal:
        return _check_literal(get_args(plain), value)
    if get_origin(plain) is tuple:
        return _check_tuple(get_args(plain), value)
    if plain is float and per_channel and isinstance(value, list | tuple):
        if not value:
            raise OptionError("must hold a number for each channel, got none")
        numbers = tuple(_check_type(float, item, True) for item in value)
        if shape_of(numbers) is None:
            raise OptionError(f"must have rows of one length, got {value!r}")
        return numbers
    wanted = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}.get(plain)
    if wanted and (not isinstance(value, wanted) or (plain is not bool and isinstance(value, bool))):
        names = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}
        raise OptionError(f"must be {names[plain]}, got {value!r}")
    return value


def _check_literal(allowed: Sequence[Any], value: Any) -> Any:
    for choice in allowed:
        # To Python 2.0 equals 2, and True equals 1, of whose type it even is.
        is_same_type = isinstance(value, type(choice)) and isinstance(value, bool) == isinstance(choice, bool)
        if is_same_type and value == choice:
            return value
    hint = did_you_mean(value, map(str, allowed)) if isinstance(value, str) else ""
    raise OptionError(f"must be one of {', '.join(map(repr, allowed))}; got {value!r}{hint}")


def _check_tuple(plains: Sequence[Any], value: Any) -> tuple[Any, ...]:
    """A list of any length for `tuple[float, ...]`; of as many items as there are types for `tuple[int, int]`."""
    if not isinstance(value, list | tuple):
        alone = f"; write [{value!r}] for a list of it alone" if isinstance(value, str | int | float) else ""
        raise OptionError(f"must be a list, got {value!r}{alone}")
    if plains[-1] is Ellipsis:
        plains = [plains[0]] * len(value)
    if len(value) != len(plains):
        raise OptionError(f"must be a list of {len(plains)}, got {len(value)}: {value!r}")
    return tuple(_check_type(plain, item, False) for plain, item in zip(plains, value, strict=True))


def _check_union(plains: Sequence[Any], value: Any, per_channel: bool) -> Any:
    """The value as the first of several types that takes it."""
    problems = []
    for plain in plains:
        try:
            return _check_type(plain, value, per_channel)
        except OptionError as error:
            problems.append(str(error))
    raise OptionError("; or it ".join(problems))


def _build(mark: Inner | OneOf, value: Any, default: Any) -> tuple[Any, Problems]:
    """The component or choice that a name or a table specifies; an instance is checked and returned."""
    kind, words, fixed = _terms(mark)
    if isinstance(value, str) and value in words:
        return value, []
    if not isinstance(value, str | Mapping):
        problem = _instance_problem(mark, value)
        return (None, [("", problem)]) if problem else (value, [])
    options = {"name": value} if isinstance(value, str) else dict(value)
    if "name" not in options:
        if default is inspect.Parameter.empty or (isinstance(default, str) and default in words):
            keys = ", ".join(options) or "(none)"
            return None, [("", f"given as a table needs a 'name', that of a {kind}; got the keys {keys}")]
        before = {"name": default} if isinstance(default, str) else data_of(default, mark)
        options = {**before, **options}
    name = options.pop("name")
    where = "" if isinstance(value, str) or "name" not in value else ".name"
    if not isinstance(name, str):
        return None, [(where, f"must be a string, the name of a {kind}; got {name!r}")]
    try:
        source = registry().load(kind, name)
    except SpikeError as error:
        extra = f" Also: {', '.join(words)}." if words else ""
        return None, [(where, f"{error}{extra}")]
    if problem := _source_problem(mark, source):
        return None, [(where, problem)]
    return _build_named(kind, name, source, options, fixed)


def _terms(mark: Inner | OneOf) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Kind or table, words, fixed options."""
    if isinstance(mark, Inner):
        return mark.kind, (), ()
    return mark.table, mark.words, mark.fixed


def _build_named(
    kind: str, name: str, source: Any, options: dict[str, Any], fixed: Sequence[str]
) -> tuple[Any, Problems]:
    problems = [(f".{option}", _FIXED) for option in fixed if option in options]
    options = {option: value for option, value in options.items() if option not in fixed}
    if not hasattr(source, "Config") and not dataclasses.is_dataclass(source):  # a function
        problems += [(f".{option}", f"is unknown (a {kind} {name!r} has no options)") for option in options]
        return source, problems
    config, wrong = check_options(source, options)
    problems += [(f".{option}" if option else "", text) for option, text in wrong]
    if problems or not hasattr(source, "Config"):
        return config, problems
    try:
        return registry().build(kind, name, config), []
    except SpikeError as error:
        return None, [("", str(error))]


_FIXED = "is set by the component that uses it; leave it out"


def _source_problem(mark: Inner | OneOf, source: Any) -> str:
    base = mark.base if isinstance(mark, OneOf) else None
    if base is None:
        return ""
    fits = issubclass(source, base) if isinstance(source, type) else isinstance(source, base)
    if fits:
        return ""
    name = base.__name__
    return f"must be a {name}, which {source.__qualname__} is not: derive it from {name} of {base.__module__}"


def _instance_problem(mark: Inner | OneOf, value: Any) -> str:
    if isinstance(mark, Inner):
        fits = hasattr(value, "config") and not isinstance(value, type)
        wanted = f"must be a {mark.kind}: an instance, a name or a table with a 'name'"
        return "" if fits else f"{wanted}; got {value!r}"
    is_base = mark.base is not None and not isinstance(value, type) and isinstance(value, mark.base)
    if isinstance(value, type) or not (is_base or registry().choice_of(mark.table, value)):
        hint = f"; {mark.hint}" if mark.hint else ""
        return f"takes {', '.join(mark.names())}: an instance, a name or a table with a 'name'; got {value!r}{hint}"
    config = getattr(value, "config", value)
    for field in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
        if field.name in mark.fixed and getattr(config, field.name) != default_of(field):
            return f"must leave {field.name!r} at {default_of(field)!r}: the component that uses it decides"
    return ""


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field; `inspect.Parameter.empty` where it has none."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty


def fields_of(config: Any) -> dict[str, Any]:
    """Field name → value; inner components stay what they are."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def options_marked(config_type: type, mark: type) -> Iterator[tuple[str, Any]]:
    """`(option, mark)` for every option with a mark of this type (`OneOf`, `SameAs`)."""
    for name, hint in _hints(config_type).items():
        if get_origin(hint) is not Annotated:
            continue
        for item in get_args(hint)[1:]:
            if isinstance(item, mark):
                yield name, item


def as_data(config: Any) -> dict[str, Any]:
    """A Config as numbers, strings, lists and tables, as in TOML; `check_options` turns it into an equal Config.

    TOML has no null: an option that is None is left out, which means the same, since None is its default.
    """
    config_type: Any = type(config)
    hints = _hints(config_type)
    data = {}
    for name, value in fields_of(config).items():
        if value is None:
            continue
        mark = _mark(hints[name])
        is_list = mark is not None and isinstance(value, tuple)
        data[name] = [data_of(item, mark) for item in value] if is_list else data_of(value, mark)
    return data


def data_of(value: Any, mark: Inner | OneOf | None = None) -> Any:
    """The value of an option as plain data: a table with a name for a component or a choice."""
    if isinstance(value, list | tuple):
        return [data_of(item) for item in value]
    if isinstance(value, str) or (mark is None and not hasattr(value, "config")):
        return value
    name = registry().choice_of(mark.table, value) if isinstance(mark, OneOf) else None
    config = getattr(value, "config", value)
    options = as_data(config) if dataclasses.is_dataclass(config) else {}
    fixed = mark.fixed if isinstance(mark, OneOf) else ()
    options = {option: item for option, item in options.items() if option not in fixed}
    name = name or registry().name_of(value)
    return {"name": name, **options} if options else name
