"""How configurations are laid over one another: tables, inner tables and `--set` overrides of any depth.

    --set trainer.epochs=5                    one option
    --set neuron.surrogate.alpha=3            an option of a component inside; its other options stay
    --set trainer.loss.name=tet               another choice: the options of the one before do not apply to it
    --set dataset.transforms.0.height=16      of the first in a list

Where a name stands alone (`surrogate = "sigmoid"`), it is the table `{ name = "sigmoid" }`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spikecore.documents import DocumentError, parse_toml
from spikecore.errors import ConfigError
from spikecore.interfaces.options import data_of


def parse_override(text: str) -> dict[str, Any]:
    """`{"neuron": {"surrogate": {"alpha": 3}}}` from `neuron.surrogate.alpha=3`.

    Raises:
        ConfigError: it is not `table.key=value`.
    """
    path, equals, value = text.partition("=")
    parts = [part.strip() for part in path.split(".")]
    if not equals or len(parts) < 2 or not all(parts):
        raise ConfigError(
            f"--set {text}: write table.key=value, as in --set trainer.epochs=5 or --set neuron.surrogate.alpha=3"
        )
    return _nest(parts, parse_value(value))


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Options of one component from `key=value`, where a key may reach inside: `surrogate.alpha=3`.

    Raises:
        ConfigError: one is not `key=value`.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        parts = [part.strip() for part in path.split(".")]
        if not equals or not all(parts):
            raise ConfigError(f"--set {text}: expected KEY=VALUE, as in tau=3.0 or surrogate.alpha=3")
        settings = join_changes(settings, _nest(parts, parse_value(value)))
    return settings


def parse_value(text: str) -> Any:
    """A value given on the command line: TOML, numbers between commas as a list of them, or else plain text."""
    try:
        parsed = parse_toml(f"value = {text}")
    except DocumentError as error:
        raise ConfigError(f"a value given on the command line {error}") from error
    except ValueError:
        return _numbers(text) or text.strip()
    return parsed["value"] if len(parsed) == 1 else text.strip()  # more than a value: a line too many


def _numbers(text: str) -> list[int | float]:
    """`8,16,32` as a list; empty for anything else."""
    try:
        values = parse_toml(f"values = [{text}]").get("values", [])
    except ValueError:
        return []
    is_plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return values if is_plain else []


def expand_keys(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The same with dotted keys taken apart: `{"trainer.loss.name": "tet"}` is `{"trainer": {"loss": {…}}}`."""
    result: dict[str, Any] = {}
    for key, value in tables.items():
        inner = expand_keys(value) if isinstance(value, Mapping) else value
        result = join_changes(result, _nest(str(key).split("."), inner))
    return result


def _nest(parts: Sequence[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts[1:]):
        value = {part: value}
    return {parts[0]: value}


def join_changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Changes that are meant together, whatever their order: a name in one does not drop the options in the other."""
    result = dict(first)
    for key, value in second.items():
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping | str):
            result[key] = join_changes(before, value if isinstance(value, Mapping) else {"name": value})
        elif isinstance(before, str) and isinstance(value, Mapping):
            result[key] = join_changes({"name": before}, value)
        else:
            result[key] = value
    return result


def merge(before: Any, change: Any, path: str, is_named: bool = True) -> Any:
    """`change` laid over `before`.

    Args:
        before: a value of the configuration so far; None where there is none.
        change: what replaces it; a table replaces the options it names.
        path: dotted, for messages.
        is_named: a key `name` picks a component or choice, so that another name drops the options of the one before.

    Raises:
        ConfigError: a list has no such place.
    """
    if not isinstance(change, Mapping):
        return change
    if isinstance(before, list | tuple) and all(str(key).isdecimal() for key in change):
        return _merge_list(before, change, path)
    table = _table(before)
    if is_named and "name" in change and change["name"] != table.get("name"):
        table = {}
    for key, value in change.items():
        table[key] = merge(table.get(key), value, f"{path}.{key}")
    return table


def dropped_options(given: Any, before: Any, change: Any, path: str, is_named: bool = True) -> list[str]:
    """Dotted paths of the options in `given` that `merge(before, change, path)` drops with the component they are of.

    Args:
        given: what the user's file says here, and what `before` has from it; what is a default is in `before` only.
        before: a value of the configuration so far.
        change: what is laid over it.
        path: dotted, of these values.
        is_named: as for `merge`.
    """
    if isinstance(given, list | tuple) and isinstance(change, Mapping):
        places = [(key, int(key)) for key in change if str(key).isdecimal() and int(key) < len(given)]
        inner = [dropped_options(given[i], before[i], change[key], f"{path}.{key}") for key, i in places]
        return [option for options in inner for option in options]
    options, now = _table(given), _table(before)
    if isinstance(change, str) and "name" in now:  # a name that stands alone: this one, with its defaults
        return _left_out(options, {"name": change}, path)
    if not isinstance(change, Mapping):
        return []
    if is_named and "name" in change and change["name"] != now.get("name"):
        return _left_out(options, change, path)
    dropped = []
    for key in change:
        if key in options:
            dropped += dropped_options(options[key], now.get(key), change[key], f"{path}.{key}")
    return dropped


def _left_out(options: Mapping[str, Any], change: Mapping[str, Any], path: str) -> list[str]:
    """What `options` says and `change` does not; the names of both are not compared."""
    paths = []
    for key, value in options.items():
        if key not in change:
            paths.append(f"{path}.{key}")
        elif isinstance(change[key], Mapping):
            paths += _left_out(_table(value), change[key], f"{path}.{key}")
    return paths


def _table(value: Any) -> dict[str, Any]:
    """A value as a table that options can be laid over: a name and a component given in Python are short for one."""
    if not isinstance(value, str | Mapping) and hasattr(value, "config"):
        value = data_of(value)
    if isinstance(value, str):
        return {"name": value}
    return dict(value) if isinstance(value, Mapping) else {}


def _merge_list(before: Sequence[Any], change: Mapping[str, Any], path: str) -> list[Any]:
    items = list(before)
    for key, value in change.items():
        if int(key) >= len(items):
            raise ConfigError(f"{path}.{key}: the list has {len(items)} items, numbered from 0")
        items[int(key)] = merge(items[int(key)], value, f"{path}.{key}")
    return items
