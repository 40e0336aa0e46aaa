"""The metadata of a distribution, read once. Damaged metadata become a `problem`, never an exception.

`importlib.metadata` parses METADATA again for every property, which is too slow with two hundred plugins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from spikecore.errors import PluginError
from spikecore.kinds import CHOICE_GROUP, COMMAND_GROUP, KINDS, PLUGIN_GROUP
from spikecore.registry.choices import CHOICE, table_and_name
from spikecore.version import __version__

GROUPS = {kind.group: kind.name for kind in KINDS.values()} | {
    COMMAND_GROUP: "command",
    PLUGIN_GROUP: "plugin",
    CHOICE_GROUP: CHOICE,
}
"""Entry-point group → the kind of what it holds; commands, hook modules and choices count as kinds here."""


@dataclass(frozen=True)
class Metadata:
    """What the registry needs to know of one distribution.

    Args:
        name: in canonical spelling.
        version, summary: as declared; "" when absent.
        requires: the `Requires-Dist` lines.
        points: `(kind, name, target)` of each of our entry points.
        path: its dist-info directory, "" when it has none on disk.
        problem: what is wrong with the metadata, or "".
    """

    name: str
    version: str
    summary: str
    requires: tuple[str, ...]
    points: tuple[tuple[str, str, str], ...]
    path: str
    problem: str = ""


def normalise(name: str) -> str:
    """A distribution's name in its canonical spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def kind_and_name(group: str, point: str) -> tuple[str, str]:
    """What an entry point in one of our groups offers; the kind of a choice is its table."""
    kind = GROUPS[group]
    return table_and_name(point) if kind == CHOICE else (kind, point)


def installed_metadata(path: Sequence[str] | None = None, name: str | None = None) -> Iterator[Metadata]:
    """The distributions with `spikecore.*` entry points, in the order of `sys.path`.

    Args:
        path: directories to search instead of `sys.path`.
        name: only this distribution; the files of no other are opened.
    """
    context: dict[str, Any] = {} if path is None else {"path": list(path)}
    for distribution in distributions(name=name, **context):
        metadata = _read(distribution)
        if metadata is not None:
            yield metadata


def malformed_entry_points() -> list[str]:
    """`PATH: what is wrong` of every entry_points.txt on the path that cannot be read, whoever it belongs to.

    `importlib.metadata.entry_points`, which torch calls while it is imported, fails on one such file.
    """
    problems = []
    for distribution in distributions():
        try:
            distribution.entry_points  # noqa: B018  (it is parsed when it is asked for)
        except Exception as error:  # a parser of Python's own, which raises what it meets
            path = Path(str(getattr(distribution, "_path", "")), "entry_points.txt")
            problems.append(f"{path}: {type(error).__name__}: {error}")
    return problems


def source_tree() -> Metadata:
    """Core's own metadata if it runs from a source tree without being installed: those of its pyproject.toml.

    Raises:
        PluginError: there is no pyproject.toml beside the package either.
    """
    from spikecore.documents import parse_toml  # not needed where core is installed

    package = Path(__file__).resolve().parents[1]
    try:
        project = parse_toml((package.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, KeyError, ValueError):
        project = {}
    if project.get("name") != "spikecore":  # none, or that of a program that the package was copied into
        raise PluginError(
            f"spikecore {__version__} in {package} has no metadata of this version, and no pyproject.toml of its own "
            "beside it: install it again, so that pip writes its metadata"
        )
    points = []
    for group, targets in project["entry-points"].items():
        if group in GROUPS:
            points += [(*kind_and_name(group, name), target) for name, target in targets.items()]
    return Metadata(project["name"], __version__, project["description"], (), tuple(points), path="")


def _read(distribution: Distribution) -> Metadata | None:
    try:
        text = distribution.read_text("entry_points.txt")
    except (OSError, UnicodeDecodeError):
        return None  # unreadable, so nothing shows that it is one of ours
    if not text or "spikecore." not in text:
        return None
    points = tuple(_points(text))
    if not points:
        return None
    where = str(getattr(distribution, "_path", ""))  # the public interface does not give the location
    problem = ""
    try:
        headers = _headers(distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "")
    except (OSError, UnicodeDecodeError) as error:
        headers, problem = {}, f"its METADATA cannot be read: {error}"
    if not problem and not ("name" in headers and "version" in headers):
        problem = "its METADATA lacks Name or Version"
    stem = Path(where).name.partition("-")[0]
    return Metadata(
        name=normalise(headers.get("name", [stem])[0]),
        version=headers.get("version", [""])[0],
        summary=headers.get("summary", [""])[0],
        requires=tuple(headers.get("requires-dist", ())),
        points=points,
        path=where,
        problem=problem,
    )


def _points(text: str) -> Iterator[tuple[str, str, str]]:
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif group in GROUPS and "=" in line and line[0] not in "#;":
            name, _, target = line.partition("=")
            yield *kind_and_name(group, name.strip()), target.partition("[")[0].strip()


def _headers(text: str) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.strip():
            break  # the description follows
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            headers.setdefault(key.lower(), []).append(value.strip())
    return headers
