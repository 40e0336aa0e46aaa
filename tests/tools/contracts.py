"""Contracts of `.importlinter` that import-linter does not have: doors for plugins, components by name, the root.

import-linter imports this module before it builds its graph, so this is also where the plugins' sources are put on the
path: `lint-imports` sees them without being installed.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
from importlinter import Contract, ContractCheck, fields, output
from importlinter.application.contract_utils import AlertLevel, remove_ignored_imports_and_report

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SOURCES = sorted(Path.cwd().glob("plugins/*/src"))
sys.path[:0] = [str(source) for source in SOURCES]


class Listed(Contract):
    """A contract whose check yields one line per fault."""

    ignore_imports = fields.SetField(subfield=fields.ImportExpressionField(), required=False)
    unmatched_ignore_imports_alerting = fields.EnumField(AlertLevel, default=AlertLevel.ERROR)

    def faults(self, graph: grimp.ImportGraph) -> Iterator[str]:
        """What breaks the contract."""
        raise NotImplementedError

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        removal = remove_ignored_imports_and_report(
            graph=graph,
            ignore_imports=self.ignore_imports,
            unmatched_alerting=self.unmatched_ignore_imports_alerting,
        )
        lines = sorted(self.faults(graph))
        return ContractCheck(kept=not lines, warnings=list(removal.warnings), metadata={"faults": lines})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["faults"]:
            output.print_error(line)


def is_in(module: str, package: str) -> bool:
    """The module is the package or lies in it."""
    return module == package or module.startswith(f"{package}.")


def place(graph: grimp.ImportGraph, importer: str, imported: str) -> str:
    """`importer (line N)` of an import."""
    lines = [str(detail["line_number"]) for detail in graph.get_import_details(importer=importer, imported=imported)]
    return f"{importer} (line {', '.join(lines)})" if lines else importer


class PluginsContract(Listed):
    """Plugins import the doors of core and nothing else of ours; core imports no plugin; every plugin is linted.

    Args:
        core: the core package.
        doors: the modules of core that plugins may import.
    """

    type_name = "plugins"
    core = fields.StringField()
    doors = fields.SetField(subfield=fields.StringField())

    def faults(self, graph: grimp.ImportGraph) -> Iterator[str]:
        roots = set(self.session_options["root_packages"])
        for source in SOURCES:
            for package in source.glob("*/__init__.py"):
                if package.parent.name not in roots:
                    yield f"{package.parent.name} is missing in root_packages: nothing checks this plugin"
        plugins = roots - {self.core}
        for module in [self.core, *graph.find_descendants(self.core)]:
            for line, text in strings_with(source_of(module), plugins):
                yield f"{module} (line {line}) holds the string {text!r}: core must not know a plugin"
        for importer in graph.modules:
            own = importer.partition(".")[0]
            if own not in roots or graph.is_module_squashed(importer):
                continue
            for imported in graph.find_modules_directly_imported_by(importer):
                other = imported.partition(".")[0]
                where = place(graph, importer, imported)
                if other in roots and other != own and other != self.core:
                    who = "core" if own == self.core else "a plugin"
                    yield f"{where} imports {imported}: {who} must not import a plugin"
                elif own != self.core and other == self.core and imported not in self.doors:
                    yield f"{where} imports {imported}: plugins import doors only ({', '.join(sorted(self.doors))})"


class RootContract(Listed):
    """Only the top layers import the package itself, whose lazy names lead to all layers.

    Args:
        root: the package.
        importers: who may; with all that lies in them.
    """

    type_name = "root"
    root = fields.StringField()
    importers = fields.SetField(subfield=fields.StringField())

    def faults(self, graph: grimp.ImportGraph) -> Iterator[str]:
        for importer in graph.find_modules_that_directly_import(self.root):
            if is_in(importer, self.root) and not any(is_in(importer, allowed) for allowed in self.importers):
                yield f"{place(graph, importer, self.root)} imports {self.root}, which leads to every layer"


class ByNameContract(Listed):
    """These modules reach components through the registry, never by name.

    Components are what pyproject.toml declares as entry points. A class is found wherever it is imported from.

    Args:
        source_modules: the modules, with all that lies in them.
        groups: a pattern for the entry-point groups.
    """

    type_name = "by_name"
    source_modules = fields.SetField(subfield=fields.StringField())
    groups = fields.StringField()

    def faults(self, graph: grimp.ImportGraph) -> Iterator[str]:
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
        targets = {
            target
            for group, points in project["entry-points"].items()
            if re.fullmatch(self.groups, group)
            for target in points.values()
        }
        classes = {target.partition(":")[2] for target in targets}
        modules = {target.partition(":")[0] for target in targets}
        for module in graph.modules:
            if not any(is_in(module, source) for source in self.source_modules):
                continue
            for imported in graph.find_modules_directly_imported_by(module) & modules:
                yield f"{place(graph, module, imported)} imports {imported}, which holds a component"
            for line, name in named(source_of(module), classes):
                yield f"{module} (line {line}) names the component {name}: ask the registry"


def source_of(module: str) -> Path:
    """The file of a module of core."""
    path = Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def strings_with(path: Path, words: set[str]) -> Iterator[tuple[int, str]]:
    """String constants that hold one of these words, docstrings too: `import_module` would import it by its name."""
    text = path.read_text(encoding="utf-8")
    if not any(word in text for word in words):
        return  # parsing every file would take longer than all other checks
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and any(word in node.value for word in words):
            yield node.lineno, node.value


def named(path: Path, classes: set[str]) -> Iterator[tuple[int, str]]:
    """Where a file imports one of these classes of ours, or reaches it as an attribute of a module of ours."""
    ours: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "spikecore":
            for alias in node.names:
                ours.add(alias.asname or alias.name)
                if alias.name in classes:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "spikecore":
                    ours.add((alias.asname or alias.name).partition(".")[0])
        elif isinstance(node, ast.Attribute) and node.attr in classes:
            base = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in ours:
                yield node.lineno, node.attr
