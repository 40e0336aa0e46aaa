"""What is installed, read from metadata alone: no plugin module is imported.

Each distribution's METADATA is read once, and only when it has `spikecore.*` entry points. The first distribution of a
name on `sys.path` wins, as in Python itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint, distributions

from spikecore.kinds import COMMAND_GROUP, KINDS, PLUGIN_GROUP
from spikecore.registry.blocking import Blocking

CORE = "spikecore"
GROUPS = {kind.group: kind.name for kind in KINDS.values()} | {COMMAND_GROUP: "command", PLUGIN_GROUP: "plugin"}


@dataclass(frozen=True)
class Plugin:
    """One installed distribution that offers something.

    Args:
        id: name of its entry in `spikecore.plugins`; the distribution's name where it has none.
        distribution, version, summary: from its METADATA.
        status: `ok`, `blocked` or `incompatible`.
        reason: why it is not `ok`.
        target: its module of hooks, or "".
    """

    id: str
    distribution: str
    version: str
    summary: str
    status: str = "ok"
    reason: str = ""
    target: str = ""


@dataclass(frozen=True)
class Entry:
    """One component on offer.

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


def normalise(name: str) -> str:
    """A distribution's name in its canonical spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def scan(core_version: str, blocking: Blocking, path: Sequence[str] | None = None) -> list[Entry]:
    """All components on offer, those of core first, then by distribution and name."""
    entries: list[Entry] = []
    seen: set[str] = set()
    for distribution in distributions(path=list(path)) if path is not None else distributions():
        points = spikecore_points(distribution)
        if not points:
            continue
        metadata = distribution.metadata
        name = normalise(metadata["Name"])
        if name in seen:
            continue
        seen.add(name)
        plugin = _plugin(distribution, name, points, core_version, blocking)
        entries += [Entry(GROUPS[p.group], p.name, p.value, plugin, plugin.status, plugin.reason) for p in points]
    entries.sort(
        key=lambda entry: (entry.plugin.distribution != CORE, entry.plugin.distribution, entry.kind, entry.name)
    )
    return _with_collisions(entries)


def spikecore_points(distribution: Distribution) -> list[EntryPoint]:
    """The entry points of our groups; the text is parsed only when it names one."""
    text = distribution.read_text("entry_points.txt")
    if not text or "spikecore." not in text:
        return []
    return [point for point in distribution.entry_points if point.group in GROUPS]


def _plugin(
    distribution: Distribution, name: str, points: Iterable[EntryPoint], core_version: str, blocking: Blocking
) -> Plugin:
    hooks = next((point for point in points if point.group == PLUGIN_GROUP), None)
    plugin = Plugin(
        id=hooks.name if hooks else name,
        distribution=name,
        version=distribution.metadata["Version"],
        summary=distribution.metadata["Summary"] or "",
        target=hooks.value if hooks else "",
    )
    if name == CORE:
        return plugin
    if reason := blocking.reason(plugin.id, name):
        return replace(plugin, status="blocked", reason=reason)
    if reason := _incompatibility(distribution.requires or [], core_version):
        return replace(plugin, status="incompatible", reason=reason)
    return plugin


def _incompatibility(requirements: Iterable[str], core_version: str) -> str:
    ours = [text for text in requirements if re.match(r"spikecore\s*(\[|[<>=!~;(]|$)", text, re.IGNORECASE)]
    if not ours:
        return ""
    from packaging.requirements import Requirement
    from packaging.version import Version

    # The base version: 0.4.0.dev3 is older than 0.4 for the specifier, but is that version for its developers.
    base = Version(core_version).base_version
    for text in ours:
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and not requirement.specifier.contains(base, prereleases=True):
            return f"needs spikecore{requirement.specifier}, this is {core_version}"
    return ""


def _with_collisions(entries: list[Entry]) -> list[Entry]:
    usable: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.status == "ok" and entry.kind != "plugin":
            usable.setdefault((entry.kind, entry.name), []).append(entry)
    result = []
    for entry in entries:
        rivals = usable.get((entry.kind, entry.name), [])
        if entry.status == "ok" and len(rivals) > 1:
            others = ", ".join(rival.plugin.distribution for rival in rivals if rival is not entry)
            built_in = any(rival.plugin.distribution == CORE for rival in rivals)
            if built_in and entry.plugin.distribution != CORE:
                entry = replace(entry, status="shadowed", reason="the name is reserved for the built-in")
            elif not built_in:
                entry = replace(entry, status="ambiguous", reason=f"also offered by {others}")
        result.append(entry)
    return result
