"""Docstrings as reStructuredText.

They are written for `help()` and `spike info`: paragraphs with `code` in single backticks, equations and examples that
are indented, and sections such as `Args:`. What reStructuredText would take for markup of its own is escaped, so no
docstring has to care about it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence

SECTION = re.compile(r"(Args|Returns|Raises|Yields|Gradients|Example|Examples|Source|Parity):$")
LITERAL_SECTIONS = ("Example", "Examples")
ITEM = re.compile(r"([\w.*, `\[\]:]*?\w`?): (.*)")
COLUMNS = re.compile(r"\S {2,}\S")
"""Equations beside one another, or beside the option that chooses them."""
BULLET = re.compile(r"[*-] ")
CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
MARKUP = re.compile(r"([\\*|_`])")


def inline(text: str) -> str:
    """One paragraph: code in double backticks, everything else escaped."""
    parts = []
    for index, part in enumerate(CODE.split(" ".join(text.split()))):
        if index % 2 == 0:
            parts.append(MARKUP.sub(r"\\\1", part))
            continue
        code = part.strip("`").strip()
        parts.append(rf"\ ``{code}``\ " if code else "")
    return "".join(parts).strip()


def rst(docstring: str) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    return list(_blocks(inspect.cleandoc(docstring).splitlines()))


def literal(lines: Sequence[str]) -> Iterator[str]:
    """Lines that are shown as they are."""
    yield from ("", ".. code-block:: text", "")
    yield from (f"    {line}" for line in inspect.cleandoc("\n".join(["", *lines])).splitlines())
    yield ""


def definitions(items: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A list of terms, each with its text; terms are markup already."""
    for term, text in items:
        yield term
        yield f"    {text or '–'}"
        yield ""


def _blocks(lines: list[str]) -> Iterator[str]:
    while lines:
        line = lines[0]
        if not line.strip():
            lines = lines[1:]
            continue
        if line.startswith(" "):
            block, lines = _indented(lines)
            yield from literal(block)
            continue
        heading = SECTION.match(line)
        if heading:
            block, lines = _indented(lines[1:])
            yield from _section(heading.group(1), block)
            continue
        block, lines = _paragraph(lines)
        are_equations = all(" = " in part for part in block)
        if are_equations and any(COLUMNS.search(part) for part in block):
            yield from literal(block)
            continue
        if are_equations and len(block) > 1:  # they keep their lines
            yield from ("", *(f"| {inline(part)}" for part in block), "")
            continue
        is_bullet = bool(BULLET.match(block[0]))
        text = inline(" ".join(block)[2:] if is_bullet else " ".join(block))
        yield from ("", f"* {text}" if is_bullet else text, "")


def _section(title: str, block: list[str]) -> Iterator[str]:
    yield from ("", f"**{title}**", "")
    if title in LITERAL_SECTIONS:
        yield from literal(block)
        return
    items: list[tuple[str, list[str]]] = []
    for line in inspect.cleandoc("\n".join(["", *block])).splitlines():
        item = ITEM.match(line)
        if item and title in ("Args", "Raises"):
            items.append((item.group(1), [item.group(2)]))
        elif items:
            items[-1][1].append(line)
        else:
            items.append(("", [line]))
    for name, text in items:
        paragraph = inline(" ".join(text))
        if name:
            names = ", ".join(f"``{part.strip().strip('`')}``" for part in name.split(","))
            yield from definitions([(names, paragraph)])
        else:
            yield from (paragraph, "")


def _indented(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines up to the next one that is not indented, and the rest."""
    end = 0
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" ")):
        end += 1
    return lines[:end], lines[end:]


def _paragraph(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines of a paragraph or a bullet with its indented lines, and the rest."""
    is_bullet = bool(BULLET.match(lines[0]))
    end = 1
    while end < len(lines) and lines[end].strip():
        line = lines[end]
        if BULLET.match(line) or SECTION.match(line):
            break
        if line.startswith(" ") and not is_bullet:
            break
        if is_bullet and not line.startswith(" "):
            break
        end += 1
    return lines[:end], lines[end:]
