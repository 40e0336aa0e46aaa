"""How dense the code is: figures to look at, without thresholds. `make lint` prints them.

    python -m tests.tools.density [FOLDER]…     core and the sources of every plugin by default

Per 1000 lines of code (lines with a token, docstrings and comments not counted): comprehensions and generator
expressions, conditional expressions, comments. Then the share of annotations that hold `Any`, and how often a variable
is called `found` or `each`, which say nothing of what it holds.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NO_CODE = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
)
DIRECTIVES = ("# type:", "# noqa", "# fmt:", "# pragma")
EMPTY_NAMES = ("found", "each")


@dataclass
class Density:
    """Counts over some files."""

    lines: int = 0
    comprehensions: int = 0
    conditionals: int = 0
    comments: int = 0
    annotations: int = 0
    annotations_with_any: int = 0
    found: int = 0
    each: int = 0

    def add(self, other: Density) -> None:
        """Add the counts of other files."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def row(self, name: str) -> str:
        """One line of the table."""
        thousands = max(self.lines, 1) / 1000
        any_share = 100 * self.annotations_with_any / max(self.annotations, 1)
        return (
            f"{name:18s} {self.lines:7d} {self.comprehensions / thousands:10.1f} {self.conditionals / thousands:9.1f} "
            f"{self.comments / thousands:9.1f} {any_share:7.1f} % {self.found:7d} {self.each:6d}"
        )


HEAD = " ".join(
    [
        *(f"{'':18s}", f"{'lines':>7s}", f"{'compreh.':>10s}", f"{'ternaries':>9s}"),
        *(f"{'comments':>9s}", f"{'Any':>9s}", f"{'`found`':>7s}", f"{'`each`':>6s}"),
    ]
)


def measure(text: str) -> Density:
    """The counts of one module."""
    tree = ast.parse(text)
    density = Density()
    documented = set(docstring_lines(tree))
    code_lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            density.comments += not token.string.startswith(DIRECTIVES)
        elif token.type not in NO_CODE:
            code_lines.update(range(token.start[0], token.end[0] + 1))
    density.lines = len(code_lines - documented)
    for node in ast.walk(tree):
        density.comprehensions += isinstance(node, COMPREHENSIONS)
        density.conditionals += isinstance(node, ast.IfExp)
        if isinstance(node, ast.Name) and node.id in EMPTY_NAMES:
            setattr(density, node.id, getattr(density, node.id) + 1)
        if isinstance(node, ast.arg) and node.arg in EMPTY_NAMES:
            setattr(density, node.arg, getattr(density, node.arg) + 1)
        for annotation in annotations(node):
            density.annotations += 1
            density.annotations_with_any += any(
                isinstance(part, ast.Name) and part.id == "Any" for part in ast.walk(annotation)
            )
    return density


def docstring_lines(tree: ast.Module) -> Iterator[int]:
    """The lines of docstrings, those under attributes too: any statement that is nothing but a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def annotations(node: ast.AST) -> Iterator[ast.expr]:
    """The annotations that a node itself carries: of an argument, a variable or a result."""
    if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
        yield node.annotation
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
        yield node.returns


def measure_folder(folder: Path) -> Density:
    """The counts of all modules below a folder."""
    total = Density()
    for path in sorted(folder.rglob("*.py")):
        total.add(measure(path.read_text(encoding="utf-8")))
    return total


def main(arguments: list[str]) -> None:
    """Print the table."""
    folders = [Path(argument) for argument in arguments]
    if not folders:
        folders = [ROOT / "spikecore", *sorted(ROOT.glob("plugins/*/src"))]
    print(HEAD)
    for folder in folders:
        print(measure_folder(folder).row(folder.parent.name if folder.name == "src" else folder.name))


if __name__ == "__main__":
    main(sys.argv[1:])
