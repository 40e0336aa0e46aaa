"""One self-contained HTML page: no script, no request to anywhere, every user's string escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

# The page can ask for nothing, whatever is in it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, body: Iterable[str]) -> str:
    """The whole document."""
    css = files("spikecore.analysis").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def figure(name: str, title: str, picture: str, caption: str = "", *, narrow: bool = False) -> str:
    """A picture with its title and what it shows."""
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    kind = ' class="narrow"' if narrow else ""
    return f'<figure id="{escape(name)}"{kind}><h3>{escape(title)}</h3>{note}{picture}</figure>'


def grid(parts: Iterable[str]) -> str:
    """Parts side by side, if the page is wide enough."""
    return f'<div class="grid">{"".join(parts)}</div>'


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it."""
    return "\n".join([f"<h2>{escape(title)}</h2>", *parts])


def note(text: str) -> str:
    """A remark."""
    return f'<p class="note">{escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table. Text is escaped; numbers are right-aligned."""
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = [f"<tr>{titles}</tr>"]
    for row in rows:
        cells = "".join(map(_cell, row))
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="table"><table>{"".join(lines)}</table></div>'


def collapsible(title: str, content: str) -> str:
    """Content that is hidden until its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.6g}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value}</td>'
    return f"<td>{escape(str(value))}</td>"
