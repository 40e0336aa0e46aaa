"""Builds the site: the pages of docs/ and of the plugins, and those that are generated.

The sources are copied to .build/site/source, at their places in the repository, so that links between them lead where
they lead in the repository. Warnings are errors.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.suites.places import BUILD, ROOT, plugins
from tests.tools.site import components, doors, links

SOURCE = BUILD / "site/source"
SITE = BUILD / "site/html"
LINK = re.compile(r"\]\(([^)#\s]+)")
START = """<!doctype html>
<meta charset="utf-8">
<title>spikecore</title>
<meta http-equiv="refresh" content="0; url=docs/index.html">
"""


def build() -> Path:
    """Build the site.

    Returns: its folder.

    Raises:
        CalledProcessError: a page has a fault, which was shown.
        SystemExit: links lead nowhere.
    """
    shutil.rmtree(SOURCE.parent, ignore_errors=True)
    for path in sorted(_pages()):
        _copy(path)
    components.write(SOURCE / "docs/generated")
    doors.write(SOURCE / "docs/generated")
    options = ("-b", "html", "-W", "--keep-going", "-n", "-q", "-c", str(SOURCE / "docs"))
    subprocess.run([sys.executable, "-m", "sphinx", *options, str(SOURCE), str(SITE)], cwd=ROOT, check=True)
    (SITE / "index.html").write_text(START, encoding="utf-8")
    wrong = links.broken(SITE)
    if wrong:
        raise SystemExit("links that lead nowhere:\n" + "\n".join(wrong))
    return SITE


def _pages() -> Iterator[Path]:
    """The pages of the repository that are in the site, and what they link to."""
    folders = ("tutorials", "how-to", "reference", "explanation", "adr")
    waiting = [ROOT / "docs/index.md", ROOT / "docs/conf.py", *(ROOT / "docs/site").glob("*")]
    waiting += [page for folder in folders for page in (ROOT / "docs" / folder).glob("*.md")]
    waiting += [plugin / "README.md" for plugin in plugins()]
    known: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in known:
            continue
        known.add(path)
        yield path
        if path.suffix == ".md":
            targets = ((path.parent / target).resolve() for target in LINK.findall(path.read_text(encoding="utf-8")))
            waiting += [target for target in targets if target.is_file() and target.is_relative_to(ROOT)]


def _copy(path: Path) -> None:
    copy = SOURCE / path.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)


if __name__ == "__main__":
    print(f"built {build() / 'index.html'}")
