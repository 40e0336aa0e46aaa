"""Options without effect: those whose every other value gives the same results.

An option may matter only beside another (a scale of the reset is 1 unless another option changes it), so each is tried
with the component's own values, with every other choice among the rest, and with all other numbers moved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from spikecore.errors import SpikeError
from spikecore.interfaces.component import DefaultsTo, Inner, OneOf, Range
from spikecore.registry import registry

Options = dict[str, Any]
Observation = list[Tensor] | str
"""What a component gave, or the name of the error that it raised."""
FACTORS, STEPS = (1.25, 0.75, 2.0, 0.5), (0.25, -0.25, 1.0, -1.0)
WHOLE_STEPS = (1, -1, 5, 50)


def options_without_effect(
    config_type: type,
    config: Any,
    make: Callable[[Options], Any],
    observe: Callable[[Any], Observation],
    looked_at: Sequence[str],
    is_costly: bool = False,
) -> list[str]:
    """The options for which no other value changes what is observed.

    Args:
        config_type: the component's `Config`.
        config: the values that the component has.
        make: an instance with these options over the present ones; raises where they are refused.
        observe: everything by which an option may show: outputs, states, gradients.
        looked_at: the options in question; the others are moved only to let these show their effect.
        is_costly: observing takes long: only one other value of each option is tried, alone, beside each choice of a
            list, and beside one other value of each number.

    Returns:
        Their names. An option that has no other value (or none that is accepted) is not among them.
    """
    choices = alternatives(config_type, config)
    observed: dict[tuple[str, ...], Observation | None] = {}

    def look(options: Options) -> Observation | None:
        """What is observed with these options; None where they are refused."""
        key = tuple(f"{name}={options[name]!r}" for name in sorted(options))
        if key not in observed:
            try:
                component = make(options)
            except (SpikeError, ValueError, TypeError):
                observed[key] = None
            else:
                observed[key] = _observation(component, observe)
        return observed[key]

    ignored = []
    for name in looked_at:
        values = choices[name][:1] if is_costly else choices[name]
        if _is_without_effect(name, values, _contexts(name, choices, config, is_costly), look):
            ignored.append(name)
    return ignored


def _is_without_effect(
    name: str,
    values: Sequence[Any],
    contexts: Iterator[Options],
    look: Callable[[Options], Observation | None],
) -> bool:
    num_compared = 0
    for context in contexts:
        before = look(context)
        if before is None:
            continue
        for value in values:
            after = look({**context, name: value})
            if after is None:
                continue
            num_compared += 1
            if not _is_equal(before, after):
                return False
    return num_compared > 0


def _contexts(name: str, choices: Mapping[str, list[Any]], config: Any, is_costly: bool) -> Iterator[Options]:
    """Values of the other options beside which an option may show its effect."""
    others = {other: values for other, values in choices.items() if other != name and values}
    numbers = [other for other in others if _is_number(getattr(config, other))]
    # An option that is a tuple and no number lists choices, such as `learnable`.
    lists = [other for other in others if other not in numbers and isinstance(others[other][0], tuple)]
    yield {}
    for other in lists:
        for value in others[other]:
            yield {other: value}
    if is_costly:
        for other in numbers:
            yield {other: others[other][-1]}
        return
    moved = {other: others[other][0] for other in numbers}
    yield moved
    for other, values in others.items():
        if other in lists:
            continue
        for value in values:
            yield {other: value}
            if other not in numbers:
                yield {**moved, other: value}


def _observation(component: Any, observe: Callable[[Any], Observation]) -> Observation:
    try:
        return observe(component)
    except (SpikeError, ValueError, TypeError, RuntimeError) as error:
        return type(error).__name__


def _is_equal(ours: Observation, theirs: Observation) -> bool:
    if isinstance(ours, str) or isinstance(theirs, str):
        return ours == theirs
    if len(ours) != len(theirs):
        return False
    for own, other in zip(ours, theirs, strict=True):
        if own.shape != other.shape:
            return False
        if not torch.allclose(own, other, rtol=0.0, atol=0.0, equal_nan=True):  # `equal` takes NaN for a difference
            return False
    return True


def alternatives(config_type: type, config: Any) -> dict[str, list[Any]]:
    """Option → other values that it may have; empty for an option that is neither a number nor a choice."""
    hints = get_type_hints(config_type, include_extras=True)
    others: dict[str, list[Any]] = {}
    for field in dataclasses.fields(config_type):
        others[field.name] = _others(hints[field.name], getattr(config, field.name))
    return others


def _others(hint: Any, value: Any) -> list[Any]:
    """Other values of one option.

    Args:
        hint: its annotation, such as `Annotated[float, Range(low=1)]`.
        value: that it has.
    """
    is_marked = get_origin(hint) is Annotated
    plain: Any = get_args(hint)[0] if is_marked else hint
    marks: tuple[Any, ...] = get_args(hint)[1:] if is_marked else ()
    for mark in marks:
        if isinstance(mark, Inner):
            return _other_components(value)
        if isinstance(mark, OneOf):
            if get_origin(plain) is tuple:  # a list of choices: with each of them alone
                return [(name,) for name in mark.names()]
            return _other_choices(mark, value)
    if get_origin(plain) in (Union, types.UnionType):
        if value is None and any(isinstance(mark, DefaultsTo) for mark in marks):
            return _other_numbers(plain, 0.0, marks)
        return _other_numbers(plain, value, marks) if _is_number(value) else []
    if get_origin(plain) is Literal:
        return [other for other in get_args(plain) if other != value]
    if isinstance(value, bool):
        return [not value]
    return _other_numbers(plain, value, marks) if _is_number(value) else []


def _other_components(value: Any) -> list[Any]:
    """The same component with one option changed."""
    others = []
    for name, values in alternatives(type(value).Config, value.config).items():
        given = {field.name: getattr(value.config, field.name) for field in dataclasses.fields(value.config)}
        for other in values[:2]:
            with contextlib.suppress(SpikeError):
                others.append(type(value)(**{**given, name: other}))
    return others


def _other_choices(mark: OneOf, value: Any) -> list[Any]:
    """The names that the option may have instead."""
    own = value if isinstance(value, str) else registry().choice_of(mark.table, value)
    return [name for name in mark.names() if name != own]


def _is_number(value: Any) -> bool:
    """A number, or one for each channel."""
    values = value if isinstance(value, tuple) and value else (value,)
    return all(isinstance(number, int | float) and not isinstance(number, bool) for number in values)


def _other_numbers(plain: Any, value: Any, marks: Sequence[Any]) -> list[Any]:
    """Numbers near to `value` and far from it that the ranges among the marks allow; each of a tuple is moved alike."""
    bounds = [mark for mark in marks if isinstance(mark, Range)]
    is_whole = plain is int or get_args(plain)[:1] == (int,)
    # A change is number * factor + step.
    changes: list[tuple[float, float]] = []
    if is_whole:
        changes += [(1, step) for step in WHOLE_STEPS]
    else:
        changes += [(factor, 0) for factor in FACTORS]
        changes += [(1, step) for step in STEPS]
    values = value if isinstance(value, tuple) else (value,)
    others: list[Any] = []
    for factor, step in changes:
        numbers = tuple([number * factor + step for number in values])
        other = numbers if isinstance(value, tuple) else numbers[0]
        if other != value and other not in others and all(_is_allowed(number, bounds) for number in numbers):
            others.append(other)
    return others


def _is_allowed(number: float, bounds: Sequence[Range]) -> bool:
    return math.isfinite(number) and all(number in bound for bound in bounds)


def ignored_text(names: Sequence[str]) -> str:
    """What a check says of options without effect."""
    listed = ", ".join(repr(name) for name in names)
    what, pronoun = ("the option", "it") if len(names) == 1 else ("the options", "them")
    return f"it accepts {what} {listed} and ignores {pronoun}: no other value changes any result"
