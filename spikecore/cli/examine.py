"""What `spike doctor` looks at. Nothing here imports torch or a plugin; that happens in subprocesses."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from spikecore.documents import parse_toml
from spikecore.foreign import odd_characters, printable
from spikecore.pythons import SUPPORTED_PYTHONS, find_python
from spikecore.registry import Plugin, registry
from spikecore.registry.loading import extras_of, unmet_requirements
from spikecore.registry.metadata import (
    GROUPS,
    installed_metadata,
    kind_and_name,
    malformed_entry_points,
    normalise,
)
from spikecore.registry.probe import probe
from spikecore.registry.scan import CORE
from spikecore.version import __version__

USUAL = f"{string.ascii_lowercase}{string.digits}_:.-"
"""Characters of a component's name."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer.

    Args:
        plugin: id of the plugin it concerns; "" for the environment.
        status: `ok`; `missing`: an optional part is absent; `warning`: works, but not as one would think; `broken`.
        what: what was looked at.
        detail: what was found.
        hint: what to do.
        seconds: time to load, where something was loaded.
    """

    plugin: str
    status: str
    what: str
    detail: str = ""
    hint: str = ""
    seconds: float | None = None


def environment() -> dict[str, str]:
    """Versions and place of what runs here."""
    return {
        "spikecore": f"{__version__} ({Path(__file__).parents[1]})",
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "pythons": _pythons(),
        "cpus": str(os.cpu_count()),
        **{name: _version(name) for name in ("torch", "numpy", "pluggy", "click")},
    }


def _pythons() -> str:
    """The interpreters on this machine: some vendors' tools support one version of Python only."""
    present = {version: find_python(version) for version in SUPPORTED_PYTHONS}
    return ", ".join(f"{version} ({path})" for version, path in present.items() if path is not None) or "none"


def of_core() -> Iterator[Finding]:
    """Findings about the installation as a whole: metadata, duplicates, collisions."""
    distributions = list(installed_metadata())
    if all(data.name != CORE for data in distributions):
        yield Finding(
            "core",
            "warning",
            "metadata",
            "spikecore runs from a source tree that is not installed; plugins cannot require it",
            "pip install -e .",
        )
    for problem in malformed_entry_points():
        hint = "repair or remove this file, or reinstall what it belongs to: `import torch` fails on it"
        yield Finding("", "broken", "entry points", problem, hint)
    places: dict[str, list[str]] = {}
    # By path first, because one directory may be on sys.path twice.
    for path, name in {data.path: data.name for data in distributions}.items():
        places.setdefault(name, []).append(path)
    for name, paths in places.items():
        if len(paths) > 1:
            hint = f"pip uninstall {name}, until nothing is left of it; then install it again"
            yield Finding("", "warning", f"{name} is installed {len(paths)} times", ", ".join(paths), hint)
    for entry in registry().entries():
        if entry.status in ("ambiguous", "shadowed"):
            hint = f"write {entry.qualified!r}"
            yield Finding(
                entry.plugin.id, "warning", f"{entry.kind} {entry.name} is {entry.status}", entry.reason, hint
            )


def of_plugin(plugin: Plugin, timeout_s: float) -> Iterator[Finding]:
    """Findings about one plugin: metadata, each component loaded, optional parts, its own checks."""
    if plugin.status != "ok":
        status = "broken" if plugin.status == "broken" else "warning"
        yield Finding(plugin.id, status, f"{plugin.distribution} {plugin.version} is {plugin.status}", plugin.reason)
        return
    yield from _names(plugin)
    yield from _metadata(plugin)
    always_missing = dict(unmet_requirements(plugin.requires))
    for name, line in always_missing.items():
        if name != CORE:
            yield Finding(plugin.id, "warning", f"requirement {name}", "not installed as required", _install(line))
    for extra in extras_of(plugin.requires):
        missing = [name for name, _ in unmet_requirements(plugin.requires, extra) if name not in always_missing]
        if missing:
            source = f"{plugin.distribution}[{extra}]"
            yield Finding(plugin.id, "missing", f"extra {extra}", f"needs {', '.join(missing)}", _install(source))
    entries = [entry for entry in registry().entries() if entry.plugin == plugin and entry.kind != "plugin"]
    findings = probe(entries, registry().blocking, plugin=plugin.id if plugin.target else "", timeout_s=timeout_s)
    for entry, result in zip(entries, findings.probes, strict=True):
        status = {"ok": "ok", "unavailable": "missing"}.get(result.status, "broken")
        yield Finding(plugin.id, status, f"{entry.kind} {entry.name}", result.reason, seconds=result.seconds)
    for check in findings.checks:
        yield Finding(plugin.id, check.status, check.name, check.detail, check.hint)


def _names(plugin: Plugin) -> Iterator[Finding]:
    """Names that cannot be typed, or that look like others."""
    offered = [entry.name for entry in registry().entries() if entry.plugin == plugin]
    for name in dict.fromkeys([plugin.id, *offered]):
        signs = odd_characters(name, USUAL)
        if signs or not name:
            hint = f"names are of the characters {USUAL}: another one may be taken for a name that it only looks like"
            yield Finding(plugin.id, "warning", f"name {printable(name)!r}", ", ".join(signs[:5]) or "is empty", hint)


def _metadata(plugin: Plugin) -> Iterator[Finding]:
    if plugin.distribution != CORE:
        if not any(normalise(text).startswith(CORE) for text in plugin.requires):
            hint = "add spikecore with a version range to its dependencies"
            yield Finding(plugin.id, "warning", "metadata", "it does not say which spikecore it needs", hint)
        if not plugin.target:
            hint = "add one, so that the plugin has an id and hooks"
            yield Finding(plugin.id, "warning", "metadata", "it has no entry in spikecore.plugins", hint)
    source = editable_source(plugin)
    if source is None:
        return
    project = _project(source)
    if project is None:
        yield Finding(
            plugin.id, "warning", "editable install", f"{source} is gone or unreadable", f"pip install {source}"
        )
    elif stale := list(_stale(plugin, project)):
        detail = f"metadata are older than {source / 'pyproject.toml'}: {', '.join(stale)}"
        yield Finding(plugin.id, "warning", "editable install", detail, f"pip install -e {source}")


def editable_source(plugin: Plugin) -> Path | None:
    """The source tree of an editable install; None for any other."""
    try:
        url = json.loads(Path(plugin.path, "direct_url.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not url.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(url["url"]).path))


def _stale(plugin: Plugin, project: dict[str, Any]) -> Iterator[str]:
    """How the installed metadata differ from the source tree's pyproject.toml."""
    version = project.get("version", plugin.version)  # absent: dynamic
    if version != plugin.version:
        yield f"version {plugin.version}, now {version}"
    declared: set[tuple[str, str, Any]] = set()
    for group, points in project.get("entry-points", {}).items():
        if group in GROUPS:
            declared.update((*kind_and_name(group, name), target) for name, target in points.items())
    known = {(e.kind, e.name, e.target) for e in registry().entries() if e.plugin == plugin}
    for kind, name, _ in sorted(declared - known):
        yield f"{kind} {name} is new or moved"
    for kind, name, _ in sorted(known - declared):
        if (kind, name) not in {(other, named) for other, named, _ in declared}:
            yield f"{kind} {name} is gone"


def _project(source: Path) -> dict[str, Any] | None:
    try:
        project: dict[str, Any] = parse_toml((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return None
    return project


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _install(what: str) -> str:
    return f"pip install '{what}'"
