"""What is known of a component, in users' words: for `spike info` and the pages of the reference.

Each option has its text from the `Args:` of the class that declares it, which may be a base class. Options that are
chosen from a table have a section of their own, with the options of each choice.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from spikecore.errors import PluginError
from spikecore.interfaces.component import OneOf
from spikecore.interfaces.options import Inner, options_marked
from spikecore.registry import Entry, name_of, registry
from spikecore.registry.loading import asking


@dataclass(frozen=True)
class Option:
    """An option of a component.

    Args:
        name: as users write it.
        type: in users' words, such as `number >= 1`.
        default: as a configuration file has it; None where the option is required.
        text: its lines in the documentation.
    """

    name: str
    type: str
    default: str | None
    text: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """As a terminal shows it."""
        yield f"{self.name}: {self.type}" + ("  (required)" if self.default is None else f" = {self.default}")
        yield from (f"    {line}" for line in self.text)


@dataclass(frozen=True)
class Section:
    """A part of a description.

    Args:
        title: of the section.
        lines: its text; empty where there are options.
        options: the options it lists.
    """

    title: str
    lines: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()


@dataclass(frozen=True)
class Description:
    """All that is known of a component.

    Args:
        entry: what was described.
        api_version: of the contract it was written for; None for kinds without one.
        text: its docstring.
        remarks: what the class of its options adds to their list.
        sections: options, choices, capabilities, facts on data or weights.
    """

    entry: Entry
    api_version: int | None
    text: str
    remarks: str
    sections: tuple[Section, ...]


def describe(kind: str, name: str) -> Description:
    """Load a component and describe it.

    Raises:
        PluginError: there is no such component, or it cannot be loaded.
    """
    component, entry = registry().load(kind, name), registry().find(kind, name)
    with asking(entry):
        return _describe(component, entry)


def _describe(component: Any, entry: Entry) -> Description:
    config = _config_of(component)
    sections, remarks = [], ""
    if config is not None:
        sections.append(Section("options", options=tuple(_options(config))))
        before, _, behind = _split(_doc(config))
        if config is not component:
            remarks = f"{before}\n\n{behind}".strip()
        for option, mark in options_marked(config, OneOf):
            sections.append(Section(f"choices of {option}", tuple(_choices(mark))))
    if hasattr(component, "capabilities"):
        sections.append(Section("capabilities", tuple(_fields(component.capabilities))))
    facts = getattr(component, "info", None)
    if dataclasses.is_dataclass(facts) and not isinstance(facts, type):
        title = "published" if entry.kind == "model" else "data"
        lines = (line for line in _fields(facts) if not line.startswith("unverified:"))
        sections.append(Section(title, tuple(lines)))
        if unverified := getattr(facts, "unverified", ()):
            sections.append(Section("not verified", tuple(f"! {statement}" for statement in unverified)))
    return Description(
        entry=entry,
        api_version=getattr(component, "api_version", None),
        text=inspect.getdoc(component) or "(no documentation)",
        remarks=remarks,
        sections=tuple(sections),
    )


def _options(config: type, without: tuple[str, ...] = ()) -> Iterator[Option]:
    hints, described = get_type_hints(config, include_extras=True), _arguments(config)
    for field in dataclasses.fields(config):
        if field.name in without:
            continue
        default = None
        if field.default is not dataclasses.MISSING:
            default = _show_value(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = _show_value(field.default_factory())
        yield Option(field.name, _type(hints[field.name]), default, tuple(described.get(field.name, ())))


def _config_of(component: Any) -> type | None:
    """The class with a component's options: its Config, or itself if it is a frozen dataclass; None for a function."""
    if hasattr(component, "Config"):
        config: type = component.Config
        return config
    return component if isinstance(component, type) else None


def _choices(mark: OneOf) -> Iterator[str]:
    """The choices of an option, each with its own options; one that cannot be loaded is listed with the reason."""
    for entry in registry().choices(mark.table):
        try:
            choice = registry().load(mark.table, entry.shortest)
        except PluginError as error:
            yield f"{entry.shortest}: {error}"
            continue
        yield f"{entry.shortest}: {_doc(choice).partition(chr(10))[0]}".rstrip(": ")
        config = _config_of(choice)
        if config is not None:
            yield from (f"    {line}" for option in _options(config, mark.fixed) for line in option.lines())


def _doc(kind: Any) -> str:
    """The docstring of a class or function itself, not an inherited one; "" for a dataclass's generated one."""
    own = vars(kind).get("__doc__") if isinstance(kind, type) else kind.__doc__
    doc = inspect.cleandoc(own or "")
    is_generated = doc.startswith(f"{kind.__name__}(")
    return "" if is_generated else doc


def _split(doc: str) -> tuple[str, list[str], str]:
    """The text before the `Args:`, their lines, and the text after them."""
    before, _, rest = doc.partition("Args:\n")
    lines = list(itertools.takewhile(lambda line: not line or line.startswith("    "), rest.splitlines()))
    return before.strip(), [line for line in lines if line], "\n".join(rest.splitlines()[len(lines) :])


def _arguments(kind: type) -> dict[str, list[str]]:
    """Name → its lines in the `Args:` of a class and its bases."""
    arguments: dict[str, list[str]] = {}
    for base in reversed(kind.__mro__):
        names: list[str] = []
        for line in _split(_doc(base))[1]:
            if line[4] != " ":
                before, _, line = line.strip().partition(": ")
                names = before.split(", ")
                arguments.update((name, []) for name in names)
            for name in names:
                arguments[name].append(line.strip())
    return arguments


def _fields(instance: Any) -> Iterator[str]:
    """A line for each field of a dataclass: its name and value; nothing for None."""
    if instance is None:
        return
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
            yield f"{field.name}:"
            yield from (f"  {item}" for item in value)
        else:
            yield f"{field.name}: {_show_value(value)}"


WORDS = {
    float: "number",
    int: "whole number",
    bool: "true or false",
    str: "text",
    type(None): "none",
    dict: "table",
    list: "list",
    tuple: "list",
    Any: "any value",
}
"""Types as a configuration file has them."""


def _type(hint: Any) -> str:
    """A type in users' words: `number >= 1`, `"hard" or "soft"`, `list of text`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        plain, *notes = arguments
        marks = [note for note in notes if isinstance(note, Inner | OneOf)]
        if marks:
            return _mark(marks[0], is_list=get_origin(plain) is tuple)
        words = " ".join([_type(plain), *map(str, notes)])
        return words.replace("number > -inf and < inf", "finite number")
    if origin is Literal:
        return " or ".join(map(_show_value, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(_type, arguments))
    if origin in (tuple, list, Sequence) and arguments:
        items = [argument for argument in arguments if argument is not Ellipsis]
        return f"list of {_type(items[0])}" if len(items) == 1 else f"list [{', '.join(map(_type, items))}]"
    if origin in (dict, Mapping):
        return f"table of {_type(arguments[1])}"
    if hint in WORDS:
        return WORDS[hint]
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _mark(mark: Inner | OneOf, is_list: bool) -> str:
    """An option that is chosen by name: `surrogate, by name or table`."""
    if isinstance(mark, Inner):
        return f"{mark.kind}, by name or table"
    words = "".join(f", or {_show_value(word)}" for word in mark.words)
    return f"{'list of choices' if is_list else 'choice'} of {mark.table}, by name or table{words}"


def _show_value(value: Any) -> str:
    """A value as a configuration file has it."""
    if hasattr(value, "config") and dataclasses.is_dataclass(value.config):
        fields = dataclasses.fields(value.config)
        options = [f"{field.name}={_show_value(getattr(value.config, field.name))}" for field in fields]
        return f"{name_of(value)}({', '.join(options)})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):  # a choice with its options
        options = [f"{field.name}={_show_value(getattr(value, field.name))}" for field in dataclasses.fields(value)]
        return f"{name_of(value)}({', '.join(options)})"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_show_value, value))}]"
    return repr(value)
