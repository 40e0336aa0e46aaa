"""All entries with their status, from metadata alone: no plugin module is imported.

The first distribution of a name on `sys.path` wins, as in Python itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from spikecore.registry.blocking import ALL, Blocking
from spikecore.registry.choices import CHOICE
from spikecore.registry.commands import COMMANDS
from spikecore.registry.metadata import Metadata, installed_metadata, source_tree

CORE = "spikecore"
CORE_ID = "core"
RESERVED_IDS = (CORE_ID, ALL, "runtime")


@dataclass(frozen=True)
class Plugin:
    """One source of components: a distribution, this process, or a file.

    Args:
        id: name of its entry in `spikecore.plugins`; the distribution's name where it has none.
        distribution, version, summary: from its METADATA. For a file: its path and the start of its SHA-256.
        status: `ok`, `blocked`, `incompatible`, or `broken` where the metadata are damaged.
        reason: why it is not `ok`.
        target: its module of hooks, or "".
        source: `core`, `installed`, `runtime` (registered in this process) or `file` (`spike run --load`).
        path: its dist-info directory, or the file.
        requires: its `Requires-Dist` lines.
    """

    id: str
    distribution: str
    version: str
    summary: str
    status: str = "ok"
    reason: str = ""
    target: str = ""
    source: str = "installed"
    path: str = ""
    requires: tuple[str, ...] = ()

    @property
    def is_runtime(self) -> bool:
        """Registered in this process rather than installed."""
        return self.source in ("runtime", "file")


@dataclass(frozen=True)
class Entry:
    """One component on offer; also a command (kind `command`), a module of hooks (kind `plugin`) or a choice.

    The kind of a choice is its table (`loss`).

    Args:
        kind, name: what users type.
        target: `module:attribute`, imported on use.
        plugin: who offers it.
        status: the plugin's status, else `ok`, `shadowed` (a built-in has this name) or `ambiguous`.
        reason: why it is not `ok`.
    """

    kind: str
    name: str
    target: str
    plugin: Plugin
    status: str = "ok"
    reason: str = ""

    @property
    def qualified(self) -> str:
        """`distribution:name`, which always works."""
        return f"{self.plugin.distribution}:{self.name}"

    @property
    def shortest(self) -> str:
        """The name alone where that is enough."""
        return self.name if self.status == "ok" else self.qualified


def core_entries(core_version: str, path: Sequence[str] | None = None) -> list[Entry]:
    """Core's own components, read without opening any other distribution's files."""
    metadata = next((data for data in installed_metadata(path, CORE) if data.name == CORE), None)
    return _core(metadata, core_version)


def scan(
    core_version: str, blocking: Blocking, path: Sequence[str] | None = None, builtins: bool = True
) -> list[Entry]:
    """All entries: core's first, then by distribution, kind and name.

    Args:
        core_version: what plugins' requirements are compared with.
        blocking: the blocked plugins.
        path: directories to search instead of `sys.path`.
        builtins: include core's own components even if its metadata are not on `path`.
    """
    chosen: dict[str, Metadata] = {}
    for data in installed_metadata(path):
        rival = chosen.setdefault(data.name, data)
        if rival is not data and _same_directory(rival, data) and _newer(data.version, rival.version):
            # Two versions in one directory are left-overs of an upgrade: the order of a listing must not decide.
            chosen[data.name] = data
    core = chosen.pop(CORE, None)
    entries = _core(core, core_version) if core or builtins else []
    for name in sorted(chosen):
        plugin = _plugin(chosen[name], core_version, blocking)
        for kind, point, target in sorted(chosen[name].points):
            entries.append(Entry(kind, point, target, plugin, plugin.status, plugin.reason))
    return _with_collisions(entries)


def _core(data: Metadata | None, core_version: str) -> list[Entry]:
    # Metadata of another version belong to another copy of core, not to the one that runs.
    if data is None or data.version != core_version or data.problem:
        data = source_tree()
    plugin = Plugin(
        id=CORE_ID,
        distribution=CORE,
        version=core_version,
        summary=data.summary,
        target=next(target for kind, name, target in data.points if (kind, name) == ("plugin", CORE_ID)),
        source="core",
        path=data.path,
        requires=data.requires,
    )
    return [Entry(kind, name, target, plugin) for kind, name, target in sorted(data.points)]


def _plugin(data: Metadata, core_version: str, blocking: Blocking) -> Plugin:
    hooks = [(name, target) for kind, name, target in data.points if kind == "plugin"]
    own_id = hooks[0][0] if hooks and hooks[0][0] not in RESERVED_IDS else data.name
    plugin = Plugin(
        id=own_id,
        distribution=data.name,
        version=data.version,
        summary=data.summary,
        target=hooks[0][1] if hooks else "",
        path=data.path,
        requires=data.requires,
    )
    if reason := blocking.reason(plugin.id, data.name):
        return replace(plugin, status="blocked", reason=reason)
    if data.problem:
        return replace(plugin, status="broken", reason=data.problem)
    if reason := incompatibility(data.requires, core_version):
        return replace(plugin, status="incompatible", reason=reason)
    return plugin


def incompatibility(requirements: Iterable[str], core_version: str) -> str:
    """Why these `Requires-Dist` lines exclude this version of core, or ""."""
    for text in requirements:
        is_about_core = re.match(r"spikecore\s*(\[|[<>=!~;(@]|$)", text, re.IGNORECASE)
        if is_about_core and (reason := _refusal(text, core_version)):
            return reason
    return ""


@lru_cache(maxsize=256)  # plugins of one generation ask for the same versions
def _refusal(text: str, core_version: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import Version

    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        return f"its requirement {text!r} cannot be read: {str(error).splitlines()[0]}"
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return ""
    # The base version: 0.4.0.dev3 precedes 0.4 as specifiers see it, but its developers mean 0.4.
    base = Version(core_version).base_version
    if requirement.specifier.contains(base, prereleases=True):
        return ""
    return f"needs spikecore{requirement.specifier}, this is {core_version}"


def _same_directory(one: Metadata, other: Metadata) -> bool:
    return os.path.dirname(one.path) == os.path.dirname(other.path)


def _newer(version: str, than: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version) > Version(than)
    except InvalidVersion:
        return version > than


def _with_collisions(entries: list[Entry]) -> list[Entry]:
    usable: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.status == "ok" and entry.kind != "plugin":
            usable.setdefault((entry.kind, entry.name), []).append(entry)
    result = []
    for entry in entries:
        rivals = usable.get((entry.kind, entry.name), [])
        if entry.kind == CHOICE and entry.status == "ok":
            reason = "a choice is named TABLE.NAME, as in loss.tet, and TABLE is no kind of component"
            entry = replace(entry, status="broken", reason=reason)
        if entry.status == "ok" and entry.plugin.source != "core":
            others = ", ".join(rival.plugin.distribution for rival in rivals if rival is not entry)
            reserved = entry.kind == "command" and entry.name in COMMANDS
            if reserved or any(rival.plugin.source == "core" for rival in rivals):
                entry = replace(entry, status="shadowed", reason="the name is reserved for the built-in")
            elif len(rivals) > 1:
                entry = replace(entry, status="ambiguous", reason=f"also offered by {others}")
        result.append(entry)
    return result
