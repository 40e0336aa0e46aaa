"""The first line of a component's docstring, read from its source: nothing is imported.

summary("spikecore.nn.neurons:LIF")    ->    "Leaky integrate and fire, Euler."
"""

from __future__ import annotations

import ast
import importlib.util
import re
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from spikecore.files import read_file

END_OF_SENTENCE = re.compile(r"(?<=[^.\s]\.) ")
"""A space behind a full stop that stands at a word: not the one in `0 .. 1`."""
MOST_BYTES = 1 << 20
"""A longer source file is not read."""
MOST_STEPS = 8
"""How many modules may pass a name on."""


def summary(target: str) -> str:
    """The summary of `module:attribute`; "" where the source does not show it, such as in a compiled module."""
    module, _, attribute = target.partition(":")
    for _ in range(MOST_STEPS):
        place = _place(module)
        tree = _tree(place)
        if place is None or tree is None:
            return ""
        node = _definition(tree, attribute)
        if node is not None:
            return _first_line(ast.get_docstring(node) or "")
        origin = _origin(tree, attribute, module, is_package=place.name == "__init__.py")
        if origin is None:
            return ""
        module, attribute = origin
    return ""


def _place(module: str) -> Path | None:
    """The file of a module. Only the finders are asked: `find_spec` of a dotted name would import its parents."""
    top, *parts = module.split(".")
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(top)
        name = top
        for part in parts:
            if spec is None or spec.submodule_search_locations is None:
                return None
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _tree(place: Path | None) -> ast.Module | None:
    if place is None:
        return None
    try:
        return ast.parse(read_file(place, MOST_BYTES, follows_link=True))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # the component's own error is told when it is loaded


def _definition(tree: ast.Module, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    return None


def _origin(tree: ast.Module, name: str, module: str, is_package: bool) -> tuple[str, str] | None:
    """Module and attribute that `from … import name` takes the name from; None where it is made in another way."""
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) == name:
                return _absolute(node, module, is_package), alias.name
    return None


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _first_line(doc: str) -> str:
    """The first paragraph, as one line, to the end of its first sentence."""
    line = " ".join(doc.partition("\n\n")[0].split())
    return END_OF_SENTENCE.split(line, maxsplit=1)[0]
