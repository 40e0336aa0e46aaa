"""From plain JSON data to dataclasses, by their annotations."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class Mismatch(ValueError):
    """A value is not of the type that the annotation says."""


def from_plain(hint: Any, value: Any, where: str = "") -> Any:
    """The value as `hint` says: dataclasses, lists, tuples of one type, dicts by string, unions, literals, plain types.

    Args:
        hint: an annotation of these.
        value: what `json.loads` gave.
        where: dotted path, for the message.

    Raises:
        Mismatch: it is of another type, lacks a field or has one too many; says where.
    """
    if hint is Any:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, where)
    if origin in (Union, types.UnionType):
        return _union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise Mismatch(f"{where or 'it'} is {value!r}, not one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (list, tuple):
        items = _expect(list, value, where)
        return origin(from_plain(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    if origin in (dict, Mapping):
        table = _expect(dict, value, where)
        return {key: from_plain(arguments[1], item, _join(where, key)) for key, item in table.items()}
    if hint is float and type(value) is int:
        return float(value)
    return _expect(type(None) if hint is None else hint, value, where)


def _dataclass(hint: Any, value: Any, where: str) -> Any:
    table = _expect(dict, value, where)
    hints = get_type_hints(hint)
    names = {item.name for item in dataclasses.fields(hint)}
    if table.keys() != names:
        odd = sorted(table.keys() ^ names)
        raise Mismatch(f"{where or 'it'} must have the keys {', '.join(sorted(names))}; look at {', '.join(odd)}")
    return hint(**{name: from_plain(hints[name], item, _join(where, name)) for name, item in table.items()})


def _union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    problems = []
    for argument in arguments:
        try:
            return from_plain(argument, value, where)
        except Mismatch as error:
            problems.append(error)
    raise problems[0]  # the alternatives after the first are None, which tells less


def _expect(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise Mismatch(f"{where or 'it'} must be {kind.__name__}, got {type(value).__name__}")
    return value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
