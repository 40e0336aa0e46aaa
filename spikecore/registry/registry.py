"""Lookup: `(kind, name)` → component, with its provenance; every refusal says who, why and what to do."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Sequence
from typing import Any, TypeVar

from spikecore.errors import (
    AmbiguousComponentError,
    BlockedPluginError,
    BrokenPluginError,
    ContractError,
    IncompatiblePluginError,
    PluginError,
    PluginUnavailable,
    SpikeError,
    UnknownComponentError,
)
from spikecore.kinds import KINDS
from spikecore.registry.blocking import Blocking
from spikecore.registry.known import install_hint
from spikecore.registry.scan import Entry, Plugin, normalise, scan

T = TypeVar("T")
RUNTIME = Plugin("runtime", "(this process)", "", "registered by spikecore.register")


class Registry:
    """All components one process can reach.

    Args:
        path: directories to search instead of `sys.path`; `()` refuses discovery (for tests).
        blocking: the blocked plugins; by default those of the environment.
        core_version: the version that plugins are compared with.
    """

    def __init__(
        self, path: Sequence[str] | None = None, blocking: Blocking | None = None, core_version: str | None = None
    ) -> None:
        self._path = path
        self._blocking = Blocking.from_environment() if blocking is None else blocking
        self._core_version = core_version or _version()
        self._entries: list[Entry] | None = None
        self._registered: dict[tuple[str, str], Any] = {}
        self._loaded: dict[tuple[str, str], Any] = {}
        self._names: dict[int, tuple[str, str]] = {}

    def rescan(self) -> None:
        """Forget what was found, so that the next lookup reads the metadata again."""
        self._entries = None

    def entries(self) -> list[Entry]:
        """Everything on offer: installed, then registered in this process."""
        if self._entries is None:
            self._entries = scan(self._core_version, self._blocking, self._path)
        own = [Entry(kind, name, _target(obj), RUNTIME) for (kind, name), obj in self._registered.items()]
        return [*self._entries, *own]

    def components(self, kind: str | None = None) -> list[Entry]:
        """The components of one kind, or of all kinds (without commands and hook modules)."""
        if kind is not None:
            self._check_kind(kind)
        return [entry for entry in self.entries() if entry.kind in KINDS and kind in (None, entry.kind)]

    def plugins(self) -> list[Plugin]:
        """The installed distributions, each once."""
        return list(dict.fromkeys(entry.plugin for entry in self.entries() if entry.plugin is not RUNTIME))

    def find(self, kind: str, name: str) -> Entry:
        """The one entry that `name` means.

        Args:
            kind: a kind in the singular (`neuron`).
            name: a component's name, or `distribution:name` (a plugin id serves as well).

        Raises:
            UnknownComponentError: nothing has this name; the message holds the nearest and the install line.
            AmbiguousComponentError: several distributions offer it.
            BlockedPluginError, IncompatiblePluginError: the plugin may not be used.
        """
        self._check_kind(kind)
        owner, _, plain = name.rpartition(":")
        matches = self._matches(kind, owner, plain)
        if not matches:
            self.rescan()  # something may have been installed since, as in a notebook
            matches = self._matches(kind, owner, plain)
        if not matches:
            raise UnknownComponentError(self._unknown(kind, name))
        if not owner:
            own = [entry for entry in matches if entry.plugin is RUNTIME]
            matches = own or [e for e in matches if e.status not in ("shadowed", "blocked", "incompatible")] or matches
        if len(matches) > 1:
            choices = " or ".join(repr(entry.qualified) for entry in matches)
            raise AmbiguousComponentError(f"{kind} {name!r} is offered by several distributions: write {choices}")
        entry = matches[0]
        if entry.status == "blocked":
            raise BlockedPluginError(f"{_who(entry)} is blocked: {entry.reason}. Remove that to use it.")
        if entry.status == "incompatible":
            raise IncompatiblePluginError(
                f"{_who(entry)} does not fit: {entry.reason}. "
                f"Upgrade one of them: pip install --upgrade {entry.plugin.distribution} spikecore"
            )
        return entry

    def load(self, kind: str, name: str) -> Any:
        """The class or factory itself, imported and checked against its contract.

        Raises:
            BrokenPluginError: its import failed; the cause is chained.
            PluginUnavailable: it cannot work here.
            ContractError: it loaded, but is not of this kind.
        """
        entry = self.find(kind, name)
        if entry.plugin is RUNTIME:
            return self._registered[entry.kind, entry.name]
        key = (kind, entry.qualified)
        if key not in self._loaded:
            component = load_target(entry)
            check_contract(component, entry)
            self._loaded[key] = component
            self._names.setdefault(id(component), (kind, entry.name))
        return self._loaded[key]

    def create(self, kind: str, name: str, *args: Any, **options: Any) -> Any:
        """An instance: `create("neuron", "lif", tau=2.0)`."""
        return self.load(kind, name)(*args, **options)

    def register(self, kind: str, name: str, obj: T | None = None, *, replace: bool = False) -> Any:
        """Add a component to this process; also a decorator: `@register("neuron", "mine")`.

        Raises:
            PluginError: the name is taken; pass `replace=True`, or choose another.
            ContractError: `obj` is not of this kind.
        """
        self._check_kind(kind)
        if obj is None:
            return lambda target: self.register(kind, name, target, replace=replace)
        taken = [entry for entry in self._matches(kind, "", name) if entry.status in ("ok", "ambiguous")]
        if taken and not replace:
            raise PluginError(
                f"{kind} {name!r} is already offered by {_who(taken[0])}: choose another name or replace=True"
            )
        check_contract(obj, Entry(kind, name, _target(obj), RUNTIME))
        self._registered[kind, name] = obj
        self._names[id(obj)] = (kind, name)
        return obj

    def name_of(self, obj: Any) -> str:
        """The name under which a component (or an instance of it) is known, else its class's qualified name."""
        cls = obj if isinstance(obj, type) else type(obj)
        if id(cls) in self._names:
            return self._names[id(cls)][1]
        target = _target(cls)
        for entry in self.components():
            if entry.target == target:
                return entry.name
        module, _, attribute = target.partition(":")
        for entry in self.components():  # a target may be a re-export of the defining module's class
            if entry.target.endswith(f":{attribute}") and module.startswith(entry.target.partition(":")[0]):
                return entry.name
        return target

    def _matches(self, kind: str, owner: str, name: str) -> list[Entry]:
        owners = {owner, normalise(owner)}
        return [
            entry
            for entry in self.entries()
            if entry.kind == kind
            and entry.name == name
            and (not owner or owners & {entry.plugin.distribution, entry.plugin.id})
        ]

    def _unknown(self, kind: str, name: str) -> str:
        names = sorted({entry.name for entry in self.components(kind)})
        near = difflib.get_close_matches(name.rpartition(":")[2], names, n=3)
        meant = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        offered = f"Known {kind}s: {', '.join(names) or 'none'}."
        return " ".join(
            part for part in (f"no {kind} {name!r}.", meant.strip(), install_hint(kind, name), offered) if part
        )

    def _check_kind(self, kind: str) -> None:
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownComponentError(f"no kind {kind!r}{meant} (kinds: {', '.join(KINDS)})")


def load_target(entry: Entry) -> Any:
    """Import what an entry names; any failure becomes an error of ours with its cause chained."""
    module, _, attribute = entry.target.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found
    except SpikeError:
        raise
    except ModuleNotFoundError as error:
        if not error.name or error.name.split(".")[0] == module.split(".")[0]:
            raise BrokenPluginError(_broken(entry, error)) from error
        if _declares(entry.plugin.distribution, error.name):
            cure = f"pip install {error.name}"
            raise PluginUnavailable(f"{_who(entry)} needs the missing package {error.name!r}", cure) from error
        raise BrokenPluginError(_broken(entry, error)) from error
    except (Exception, SystemExit) as error:
        raise BrokenPluginError(_broken(entry, error)) from error


def check_contract(component: Any, entry: Entry) -> None:
    """Raises `IncompatiblePluginError` or `ContractError` unless `component` has what its kind promises."""
    kind = KINDS[entry.kind]
    missing = [name for name in ("api_version", "Config", "capabilities") if not hasattr(component, name)]
    if not callable(component):
        missing.insert(0, "a call that makes an instance")
    module, _, attribute = kind.contract.partition(":")
    contract = getattr(importlib.import_module(module), attribute)
    methods = [name for name, value in vars(contract).items() if not name.startswith("_") and callable(value)]
    if isinstance(component, type):
        missing += [name for name in methods if not hasattr(component, name)]
    if missing:
        raise ContractError(
            f"{_who(entry)} is not a {entry.kind}: it lacks {', '.join(missing)}. "
            f"The contract is {kind.contract}; is the entry point in the right group?"
        )
    if component.api_version not in kind.api_versions:
        known = ", ".join(map(str, sorted(kind.api_versions)))
        raise IncompatiblePluginError(
            f"{_who(entry)} speaks api_version {component.api_version!r} of {entry.kind}; "
            f"this core understands {known}. Upgrade spikecore or the plugin."
        )


def _who(entry: Entry) -> str:
    plugin = entry.plugin
    return f"{entry.kind} {entry.name!r} ({plugin.distribution} {plugin.version}, entry point {entry.target!r})"


def _broken(entry: Entry, error: BaseException) -> str:
    cause = f"{type(error).__name__}: {error}".replace("\n", " ")
    return (
        f"{_who(entry)} failed to load: {cause}. "
        f"Repair or remove it (pip uninstall {entry.plugin.distribution}); `spike doctor {entry.plugin.id}` tells more."
    )


def _declares(distribution: str, module: str) -> bool:
    wanted = normalise(module.split(".")[0])
    try:
        requires = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return False
    return any(normalise(text).startswith(wanted) for text in requires)


def _target(obj: Any) -> str:
    return f"{getattr(obj, '__module__', '')}:{getattr(obj, '__qualname__', type(obj).__qualname__)}"


def _version() -> str:
    from spikecore import __version__

    return __version__
