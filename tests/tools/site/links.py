"""Links inside a built site: every page, file and place on a page that one of its pages names exists."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The places on a page, and what it points to."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.places.add(value)
            if key in ("href", "src") and value and tag != "link":
                self.targets.append(value)


def broken(site: Path) -> list[str]:
    """The links that lead nowhere, as `page: target`; addresses of other sites are not looked at."""
    pages = {}
    for path in site.rglob("*.html"):
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        pages[path.resolve()] = page
    wrong = []
    for path, page in sorted(pages.items()):
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            place = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            exists = place.is_file()
            if exists and parts.fragment and place in pages:
                exists = unquote(parts.fragment) in pages[place].places
            if not exists:
                wrong.append(f"{path.relative_to(site.resolve())}: {target}")
    return wrong
