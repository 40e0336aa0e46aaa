"""All names of a new plugin follow from one.

NAME "fast-leaky-neuron", kind "neuron"
folder, plugin id   fast-leaky-neuron
distribution        spikecore-fast-leaky-neuron
package             spikecore_fast_leaky_neuron
component           fast_leaky               what users type; the kind at the end says nothing new
class               FastLeakyNeuron
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from dataclasses import dataclass

from spikecore.errors import OptionError
from spikecore.registry import Registry, registry
from spikecore.registry.catalogue import known
from spikecore.registry.metadata import normalise
from spikecore.registry.registry import check_kind
from spikecore.registry.scan import RESERVED_IDS, core_entries
from spikecore.version import __version__

FORM = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 36
"""So that no line of a template grows beyond what the linter allows."""


@dataclass(frozen=True)
class Names:
    """The names of one new plugin; see the module's table.

    Args:
        folder: directory, and plugin id.
        distribution: what pip installs.
        package: what Python imports.
        component: the entry-point name.
        class_name: the component's class.
    """

    folder: str
    distribution: str
    package: str
    component: str
    class_name: str


def names_for(name: str, kind: str) -> Names:
    """The names that follow from `name`, free to be used here.

    Raises:
        UnknownComponentError: no such kind.
        OptionError: `name` is malformed, reserved, or one of the names that follow from it is taken.
    """
    check_kind(kind)
    if not FORM.fullmatch(name) or len(name) > LONGEST:
        raise OptionError(_malformed_message(name))
    words = name.split("-")
    own = words[:-1] if len(words) > 1 and words[-1] == kind else words
    names = Names(
        folder=name,
        distribution=f"spikecore-{name}",
        package=f"spikecore_{name.replace('-', '_')}",
        component="_".join(own),
        class_name="".join(word.capitalize() for word in (*own, kind)),
    )
    if problem := _conflict(names, kind, registry()):
        raise OptionError(f"new plugin {name!r}: {problem}")
    return names


def _malformed_message(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    offered = re.sub(r"[^a-z0-9]+", "-", plain).strip("-").removeprefix("spikecore-")
    offered = offered[:LONGEST].strip("-")
    hint = f"; {offered!r} would do" if FORM.fullmatch(offered) else ""
    return (
        f"new plugin {name!r}: a name is made of lower-case ASCII letters and digits in words joined by '-', "
        f"begins with a letter and has at most {LONGEST} characters, since package and class are named after it{hint}"
    )


def _conflict(names: Names, kind: str, registry: Registry) -> str:
    """Why these names cannot be used, or ""."""
    if names.folder in RESERVED_IDS or names.folder.split("-")[0] == "spikecore":
        return f"the name is reserved for spikecore itself ({', '.join(RESERVED_IDS)}, spikecore-…); choose another"
    for plugin in registry.plugins():
        taken = {normalise(plugin.id), normalise(plugin.distribution)}
        if normalise(names.folder) in taken or plugin.distribution == names.distribution:
            return (
                f"{plugin.distribution} {plugin.version} is installed under this name; choose another, or uninstall it"
            )
    if (kind, names.component) in {(entry.kind, entry.name) for entry in core_entries(__version__)}:
        return f"the {kind} {names.component!r} is built in, and its name reserved; choose another"
    for entry in registry.components(kind):
        if entry.name == names.component:
            return f"{entry.plugin.distribution} already offers the {kind} {entry.name!r}; choose another name"
    if importlib.util.find_spec(names.package) is not None:
        return f"Python already finds a module {names.package!r} here; choose another name, or remove that module"
    return ""


def collisions(names: Names, kind: str) -> list[str]:
    """What would get in the way of this plugin once more of this project's plugins are installed; it may be made."""
    notes = []
    if names.folder in known().values():
        notes.append(f"the spikecore project has a plugin {names.folder!r}: only one of both can be installed")
    if owner := known().get((kind, names.component)):
        offered = f"{names.distribution}:{names.component}"
        notes.append(f"the plugin {owner} has a {kind} {names.component!r}: with both installed, write {offered!r}")
    return notes
