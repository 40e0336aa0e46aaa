"""Contracts of `.importlinter` that import-linter does not have: doors for plugins, components by name, the root.

import-linter imports this module before it builds its graph, so this is also where the plugins' sources are put on the
path: `lint-imports` sees them without being installed.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
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
    """Plugins use what the doors of core export and nothing else of ours; core imports no plugin; every file is linted.

    Imports for type checkers count too, though the graph has none of them.

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
        for folder in unlisted_folders([Path(self.core), *SOURCES]):
            yield f"{folder} has no __init__.py: nothing checks the modules in it"
        for module in [self.core, *graph.find_descendants(self.core)]:
            for line, text in strings_with(source_of(module), plugins):
                yield f"{module} (line {line}) holds the string {text!r}: core must not know a plugin"
            for line, imported in imports_for_types(source_of(module)):
                if imported.partition(".")[0] in plugins:
                    yield f"{module} (line {line}) imports {imported}: core must not import a plugin"
        for source in SOURCES:
            for path in sorted(source.rglob("*.py")):
                yield from self._faults_in_plugin(path, path.relative_to(source), roots)
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

    def _faults_in_plugin(self, path: Path, name: Path, roots: set[str]) -> Iterator[str]:
        """What the graph does not show: names behind a door, imports for type checkers, imports by a string."""
        text = path.read_text(encoding="utf-8")
        own = name.parts[0]
        for line, imported in imports_for_types(path):
            other = imported.partition(".")[0]
            if other in roots - {own, self.core}:
                yield f"{name} (line {line}) imports {imported}: a plugin must not import a plugin"
        for line, imported in imports_by_string(text):
            other = imported.partition(".")[0]
            if other in roots - {own, self.core}:
                yield f"{name} (line {line}) imports {imported}: a plugin must not import a plugin"
            elif other == self.core and imported not in self.doors:
                yield f"{name} (line {line}) imports {imported}: plugins import doors only"
        for line, door, used in names_of_doors(text, set(self.doors)):
            if used not in exported_names().get(door, ()):
                yield f"{name} (line {line}) uses {door}.{used}, which that door does not export"


class RootContract(Listed):
    """Only the top layers import the package itself, whose lazy names lead to all layers.

    No module imports any other package that it lies in: that is a cycle, which acyclic siblings do not show.

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
        roots = set(self.session_options["root_packages"])
        for importer in graph.modules:
            if importer.partition(".")[0] not in roots or graph.is_module_squashed(importer):
                continue
            for imported in graph.find_modules_directly_imported_by(importer):
                if importer != imported != self.root and is_in(importer, imported):
                    yield f"{place(graph, importer, imported)} imports {imported}, the package that it lies in: a cycle"


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
        targets: set[str] = set()
        for group, points in project["entry-points"].items():
            if re.fullmatch(self.groups, group):
                targets.update(points.values())
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


def unlisted_folders(places: list[Path]) -> Iterator[Path]:
    """Folders of a package with modules but without `__init__.py`: Python imports from them, the graph has no such."""
    for start in places:
        for folder in sorted({path.parent for path in start.rglob("*.py")}):
            is_plain = not (folder / "__init__.py").exists()
            if folder != start and is_plain:
                yield folder


def imports_for_types(path: Path) -> Iterator[tuple[int, str]]:
    """What a file imports under `if TYPE_CHECKING`."""
    text = path.read_text(encoding="utf-8")
    if "TYPE_CHECKING" not in text:
        return
    for block in ast.walk(ast.parse(text)):
        if not isinstance(block, ast.If) or "TYPE_CHECKING" not in ast.unparse(block.test):
            continue
        for node in ast.walk(block):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.lineno, node.module
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name


def imports_by_string(text: str) -> Iterator[tuple[int, str]]:
    """The modules of `import_module("...")` and `__import__("...")`."""
    if "import_module" not in text and "__import__" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        module = node.args[0]
        is_text = isinstance(module, ast.Constant) and isinstance(module.value, str)
        if called in ("import_module", "__import__") and is_text:
            yield node.lineno, module.value


@cache
def exported_names() -> dict[str, set[str]]:
    """Door → the names that it exports, as tests/tools/doors.txt pins them."""
    names: dict[str, set[str]] = {}
    for line in Path(__file__).with_name("doors.txt").read_text(encoding="utf-8").splitlines():
        door, name = line.split()
        names.setdefault(door, set()).add(name)
    return names


def names_of_doors(text: str, doors: set[str]) -> Iterator[tuple[int, str, str]]:
    """`(line, door, name)` of what a file takes from doors: imported, or as an attribute of a door."""
    tree = ast.parse(text)
    bound: dict[str, str] = {}  # name in this file → the door that it means
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module in doors:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in doors:
                    bound[alias.asname or alias.name] = inner
                else:
                    yield node.lineno, node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname and alias.name in doors:
                    bound[alias.asname] = alias.name
                elif not alias.asname and alias.name.partition(".")[0] in doors:
                    root = alias.name.partition(".")[0]
                    bound[root] = root
    if not bound:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            door = _door(node.value, bound, doors)
            if door is not None and f"{door}.{node.attr}" not in doors:
                yield node.lineno, door, node.attr


def _door(node: ast.expr, bound: dict[str, str], doors: set[str]) -> str | None:
    """The door that an expression means: `nn`, or `spikecore.nn`."""
    if isinstance(node, ast.Name):
        return bound.get(node.id)
    if isinstance(node, ast.Attribute):
        outer = _door(node.value, bound, doors)
        if outer is not None and f"{outer}.{node.attr}" in doors:
            return f"{outer}.{node.attr}"
    return None


def named(path: Path, classes: set[str]) -> Iterator[tuple[int, str]]:
    """Where a file imports one of these classes of ours, or reaches it as an attribute of a module of ours."""
    ours: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").partition(".")[0] == "spikecore"):
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
