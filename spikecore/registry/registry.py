"""Lookup: `(kind, name)` → component, with its provenance. Every error names the plugin, the cause and the cure."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikecore.errors import (
    AmbiguousComponentError,
    BlockedPluginError,
    BrokenPluginError,
    IncompatiblePluginError,
    PluginError,
    UnknownComponentError,
)
from spikecore.kinds import KINDS
from spikecore.registry.blocking import CONFIG, Blocking
from spikecore.registry.choices import TAKEN, declared_tables
from spikecore.registry.loading import check_contract, construct, kind_keywords, load_target, who
from spikecore.registry.metadata import normalise
from spikecore.registry.nearest import did_you_mean
from spikecore.registry.scan import Entry, Plugin, core_entries, scan
from spikecore.registry.unknown import owner_and_name, unknown_message
from spikecore.version import __version__

if TYPE_CHECKING:
    from spikecore.registry.manager import Hooks

RUNTIME = Plugin("runtime", "runtime", "", "registered by spikecore.register", source="runtime")


class Registry:
    """All components one process can reach.

    Args:
        path: directories to search instead of `sys.path`; `()` refuses discovery (for tests).
        blocking: the blocked plugins; by default those of the environment.
        core_version: the version that plugins are compared with.
        builtins: include core's own components even if its metadata are not on `path`; by default if `path` is None.
    """

    def __init__(
        self,
        path: Sequence[str] | None = None,
        blocking: Blocking | None = None,
        core_version: str | None = None,
        builtins: bool | None = None,
    ) -> None:
        self._path = path
        self._blocking = Blocking.from_environment() if blocking is None else blocking
        self._core_version = core_version or __version__
        self._builtins = path is None if builtins is None else builtins
        self._core: dict[tuple[str, str], Entry] | None = None
        self._entries: list[Entry] | None = None
        self._registered: dict[tuple[str, str], tuple[Any, Entry]] = {}
        self._loaded: dict[tuple[str, str], tuple[str, Any]] = {}
        self._names: dict[int, tuple[Any, str]] = {}  # the object is kept, so that its id stays its own
        self._files: list[Plugin] = []
        self._source = RUNTIME
        self._hooks: Hooks | None = None

    @property
    def blocking(self) -> Blocking:
        """The blocked plugins."""
        return self._blocking

    @property
    def hooks(self) -> Hooks:
        """Calls the hooks of the plugins during a run."""
        if self._hooks is None:
            from spikecore.registry.manager import Hooks

            self._hooks = Hooks(self)
        return self._hooks

    def without(self, plugins: Iterable[str], by: str = CONFIG) -> Registry:
        """A copy of this registry that blocks some more plugins; it keeps what is registered in this process.

        Args:
            plugins: plugin ids or distribution names.
            by: the flag, variable or table that disables them, for messages.
        """
        other = Registry(self._path, self._blocking.with_denied(plugins, by), self._core_version, self._builtins)
        other._registered = dict(self._registered)
        other._names = dict(self._names)
        other._files = list(self._files)
        return other

    def rescan(self) -> None:
        """Read the metadata again at the next lookup."""
        self._entries = self._core = None
        importlib.invalidate_caches()

    def entries(self) -> list[Entry]:
        """Every entry: installed ones, then those registered in this process."""
        if self._entries is None:
            self._entries = scan(self._core_version, self._blocking, self._path, self._builtins)
        return [*self._entries, *(entry for _, entry in self._registered.values())]

    def components(self, kind: str | None = None) -> list[Entry]:
        """The components of one kind, or of all kinds (without commands and hook modules)."""
        if kind is not None:
            check_kind(kind)
        return [entry for entry in self.entries() if entry.kind in KINDS and kind in (None, entry.kind)]

    def choices(self, table: str) -> list[Entry]:
        """The choices of a table (`loss`)."""
        self._check_kind_or_table(table)
        return [entry for entry in self.entries() if entry.kind == table]

    def tables(self) -> list[str]:
        """The tables of choices: those that a Config names, and those for which a choice is offered."""
        return sorted({entry.kind for entry in self.entries()} - TAKEN | declared_tables())

    def plugins(self) -> list[Plugin]:
        """The installed distributions, each once."""
        return list(dict.fromkeys(entry.plugin for entry in self.entries() if not entry.plugin.is_runtime))

    def find(self, kind: str, name: str) -> Entry:
        """The one entry that `name` means.

        Args:
            kind: a kind in the singular (`neuron`), or a table of choices (`loss`).
            name: a component's name, or `distribution:name` (a plugin id serves as well).

        Raises:
            UnknownComponentError: there is none; the message suggests the nearest names, or the line that installs it.
            AmbiguousComponentError: several distributions offer it.
            BlockedPluginError, IncompatiblePluginError: the plugin may not be used.
            BrokenPluginError: its metadata are damaged.
        """
        if (own := self._registered.get((kind, name))) is not None:
            return own[1]
        if (core := self._core_entry(kind, name)) is not None:
            return core
        self._check_kind_or_table(kind)
        try:
            return self._resolve(kind, name)
        except PluginError:
            self.rescan()  # a plugin may have been installed or upgraded since, as in a notebook
            return self._resolve(kind, name)

    def load(self, kind: str, name: str) -> Any:
        """The class or factory itself, imported and checked against its contract.

        Raises:
            BrokenPluginError: its import failed; the cause is chained.
            PluginUnavailable: it cannot work here.
            ContractError: it loaded, but does not satisfy the contract of its kind.
            IncompatiblePluginError: it has another `api_version`.
        """
        return self._load(self.find(kind, name))

    def create(self, kind: str, name: str, *args: Any, **options: Any) -> Any:
        """An instance: `create("neuron", "lif", tau=2.0)`. Raises what `load` and the component itself raise.

        Keywords of the kind (`weights` of a model) are not passed to the constructor, but applied to the instance.
        """
        entry = self.find(kind, name)
        component = self._load(entry)
        after = kind_keywords(component, KINDS[kind], options)
        own_options = {key: value for key, value in options.items() if key not in after}
        instance = construct(component, entry, args, own_options)
        for keyword, apply in after.items():
            apply(instance, options[keyword], name)
        return instance

    def build(self, kind: str, name: str, config: Any, *args: Any, **keywords: Any) -> Any:
        """An instance from a Config that has been checked, without checking or building anything again.

        Args:
            kind, name: of the component.
            config: an instance of its Config, as `interfaces.component.check_options` gives it.
            args, keywords: what else its constructor takes (a neuron's `backend`).
        """
        entry = self.find(kind, name)
        component = self._load(entry)
        if hasattr(component, "from_config"):
            return construct(component.from_config, entry, (config, *args), keywords)
        options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        return construct(component, entry, args, {**options, **keywords})

    def register(self, kind: str, name: str, obj: Any = None, *, replace: bool = False) -> Any:
        """Add a component, or a choice of a table, to this process; also a decorator: `@register("neuron", "mine")`.

        Returns:
            `obj`.

        Raises:
            PluginError: the name is taken (pass `replace=True`, or choose another) or cannot be typed.
            ContractError: `obj` is not of this kind.
        """
        self._check_kind_or_table(kind)
        if obj is None:
            return lambda target: self.register(kind, name, target, replace=replace)
        if not name or ":" in name or name != name.strip():
            raise PluginError(f"a {kind} cannot be named {name!r}: the name is empty, or has a colon or outer spaces")
        taken = [entry for entry in self._matches(kind, "", name) if entry.status in ("ok", "ambiguous")]
        if taken and not replace:
            raise PluginError(
                f"{kind} {name!r} is already offered by {who(taken[0])}: choose another name or replace=True"
            )
        entry = Entry(kind, name, target_of(obj), self._source)
        check_contract(obj, entry)
        self._registered[kind, name] = (obj, entry)
        self._names[id(obj)] = (obj, name)
        return obj

    def load_file(self, path: str | Path, may_be_empty: bool = False) -> Plugin:
        """Run a Python file whose `spikecore.register(...)` calls add components to this registry; none if it fails.

        Args:
            path: the file.
            may_be_empty: it may register nothing, since something else in it is wanted.

        Returns:
            The file as a source of components: its path and the SHA-256 of its bytes.

        Raises:
            PluginError: it cannot be read, or registers nothing.
            BrokenPluginError: running it failed.
        """
        from spikecore.registry.files import file_source, run_file

        plugin = file_source(path)
        before, self._source = self._source, plugin
        registered, names, files = dict(self._registered), dict(self._names), list(self._files)
        try:
            with use(self):
                run_file(plugin)
        except BaseException:  # all of it or nothing: no half of a file that failed may be used
            self._registered, self._names, self._files = registered, names, files
            raise
        finally:
            self._source = before
        # Not by their number: a file may replace what another one registered.
        if not may_be_empty and not any(entry.plugin is plugin for _, entry in self._registered.values()):
            raise PluginError(
                f"{path}: registers nothing; decorate a component with @spikecore.register(KIND, NAME) in it"
            )
        self._files.append(plugin)
        return plugin

    @property
    def files(self) -> list[Plugin]:
        """The files loaded so far."""
        return list(self._files)

    def registered_components(self) -> list[Any]:
        """The components that were registered in this process."""
        return [component for component, _ in self._registered.values()]

    def name_of(self, obj: Any) -> str:
        """The name under which a component (or an instance of it) is known, else its class's qualified name."""
        source = _source_of(obj)
        for known in (obj, source):
            if id(known) in self._names:
                return self._names[id(known)][1]
        entry = next((entry for entry in self.entries() if entry.kind != "command" and _offers(entry, source)), None)
        return target_of(source) if entry is None else entry.shortest

    def choice_of(self, table: str, obj: Any) -> str | None:
        """The name under which a table offers the class of `obj`, or `obj` itself (a function); None: it does not."""
        source = _source_of(obj)
        for entry in self.choices(table):
            registered, _ = self._registered.get((table, entry.name), (None, None))
            if registered is source or (not entry.plugin.is_runtime and _offers(entry, source)):
                return entry.shortest
        return None

    def _load(self, entry: Entry) -> Any:
        if entry.plugin.is_runtime:
            return self._registered[entry.kind, entry.name][0]
        key = (entry.kind, entry.qualified)
        target, component = self._loaded.get(key, ("", None))
        if target != entry.target:  # first use, or another version was installed meanwhile
            component = load_target(entry)
            check_contract(component, entry)
            self._loaded[key] = (entry.target, component)
            self._names.setdefault(id(component), (component, entry.shortest))
        return component

    def _core_entry(self, kind: str, name: str) -> Entry | None:
        """A built-in by its bare name. The name is reserved, so no other distribution needs to be looked at."""
        if self._core is None:
            entries = core_entries(self._core_version) if self._path is None and self._builtins else []
            self._core = {(entry.kind, entry.name): entry for entry in entries}
        return self._core.get((kind, name))

    def _resolve(self, kind: str, name: str) -> Entry:
        owner, plain = owner_and_name(name)
        matches = self._matches(kind, "", name) or self._matches(kind, owner, plain)
        if matches and matches[0].name == name:
            owner = ""  # the colon is the name's own, as in `tonic:NMNIST`
        if not matches:
            raise UnknownComponentError(unknown_message(kind, name, self.entries()))
        if not owner:
            usable = [entry for entry in matches if entry.status in ("ok", "ambiguous")]
            matches = usable or matches
        if len(matches) > 1:
            choices = " or ".join(repr(entry.qualified) for entry in matches)
            owners = ", ".join(f"{entry.plugin.distribution} {entry.plugin.version}" for entry in matches)
            raise AmbiguousComponentError(f"{kind} {name!r} is offered by {owners}: write {choices}")
        return usable_entry(matches[0])

    def _matches(self, kind: str, owner: str, name: str) -> list[Entry]:
        named = [entry for entry in self.entries() if (entry.kind, entry.name) == (kind, name)]
        if not owner:
            return named
        exact = [entry for entry in named if entry.plugin.distribution in (owner, normalise(owner))]
        return exact or [entry for entry in named if entry.plugin.id == owner]

    def _check_kind_or_table(self, kind: str) -> None:
        if kind in KINDS:
            return
        tables = self.tables()
        if kind not in tables:
            raise UnknownComponentError(
                f"no kind {kind!r}{did_you_mean(kind, (*KINDS, *tables))} (kinds: {', '.join(KINDS)}; "
                f"tables of choices: {', '.join(tables) or 'none'})"
            )


_default: Registry | None = None


def registry() -> Registry:
    """The registry in use."""
    global _default
    if _default is None:
        _default = Registry()
    return _default


@contextmanager
def use(other: Registry) -> Iterator[Registry]:
    """Inside the block, `other` is the registry in use."""
    global _default
    before, _default = _default, other
    try:
        yield other
    finally:
        _default = before


def usable_entry(entry: Entry) -> Entry:
    """The entry itself; raises when its plugin is blocked, incompatible or damaged."""
    plugin = entry.plugin
    if entry.status == "blocked":
        raise BlockedPluginError(f"{who(entry)} is blocked: {entry.reason}. Remove that to use it.")
    if entry.status == "incompatible":
        raise IncompatiblePluginError(
            f"{who(entry)} does not fit: {entry.reason}. "
            f"Upgrade one of them: pip install --upgrade {plugin.distribution} spikecore"
        )
    if entry.status == "broken":
        cure = f"Install it again: pip install --force-reinstall {plugin.distribution}"
        raise BrokenPluginError(f"{who(entry)} cannot be used: {entry.reason}. {cure}")
    return entry


def check_kind(kind: str) -> None:
    """Raises `UnknownComponentError` unless `kind` is in the table of kinds."""
    if kind not in KINDS:
        raise UnknownComponentError(f"no kind {kind!r}{did_you_mean(kind, KINDS)} (kinds: {', '.join(KINDS)})")


def target_of(obj: Any) -> str:
    """`module:qualified name`, as an entry point would name it."""
    return f"{getattr(obj, '__module__', '')}:{getattr(obj, '__qualname__', type(obj).__qualname__)}"


def _source_of(obj: Any) -> Any:
    """What an entry point would name: the class of an instance; a class or function itself."""
    return obj if isinstance(obj, type) or inspect.isroutine(obj) else type(obj)


def _offers(entry: Entry, source: Any) -> bool:
    """Is this what the entry's target names? A target may be a re-export: `package:Class` of `package.part:Class`."""
    where, _, what = entry.target.partition(":")
    module, _, attribute = target_of(source).partition(":")
    return what == attribute and (module == where or module.startswith(f"{where}."))
