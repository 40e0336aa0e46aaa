"""From an entry to the object that it names. Every error names plugin, cause and cure; the original one is chained.

    a declared requirement is missing, or the plugin raises PluginUnavailable   → PluginUnavailable
    it loads, but does not satisfy the contract of its kind                     → ContractError
    it loads, but has another api_version                                       → IncompatiblePluginError
    anything else, SystemExit included                                          → BrokenPluginError

`SPIKE_PLUGIN_STRICT=1` lets the original exception through, for the tests of plugins.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from spikecore.errors import (
    BrokenPluginError,
    ContractError,
    IncompatiblePluginError,
    PluginError,
    PluginUnavailable,
    SpikeError,
)
from spikecore.kinds import KINDS, Kind
from spikecore.registry.metadata import normalise
from spikecore.registry.scan import Entry

LACKING = object()

STRICT_VARIABLE = "SPIKE_PLUGIN_STRICT"
Announcer = Callable[[str], AbstractContextManager[None]]
_announcers: list[Announcer] = []


def is_strict() -> bool:
    """Whether failures of plugins pass through unchanged."""
    return os.environ.get(STRICT_VARIABLE, "") not in ("", "0")


@contextmanager
def announcing(announcer: Announcer) -> Iterator[None]:
    """Inside, imports of plugins run within `announcer("importing …")`, which can name one that ends the process."""
    _announcers.append(announcer)
    try:
        yield
    finally:
        _announcers.remove(announcer)


def load_target(entry: Entry) -> Any:
    """Import what an entry names.

    Raises:
        BrokenPluginError: importing it failed, or its module has no such attribute.
        PluginUnavailable: a declared requirement is missing, or the plugin says that it cannot work here.
    """
    module, _, attribute = entry.target.partition(":")
    try:
        with ExitStack() as stack:
            if entry.plugin.source not in ("core", "runtime") and module not in sys.modules:
                for announcer in _announcers:
                    stack.enter_context(announcer(f"importing {who(entry)}"))
            target = importlib.import_module(module)
        for part in filter(None, attribute.split(".")):
            target = getattr(target, part)
        return target
    except BaseException as error:
        if is_strict() or isinstance(error, KeyboardInterrupt):
            raise
        raise explain_failure(entry, error, "failed to load") from error


def construct(component: Any, entry: Entry, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """`component(*args, **options)`; what a plugin's constructor raises becomes an error of the plugin.

    Errors of ours pass, such as that of an option which does not fit; so does what is registered in this process, but
    for what would end it.

    Raises:
        PluginUnavailable: a requirement is missing, or the plugin says that it cannot work here.
        BrokenPluginError: the constructor raised anything else.
        ContractError: it gave nothing.
    """
    try:
        instance = component(*args, **options)
    except PluginUnavailable as error:
        if is_strict():
            raise
        raise explain_failure(entry, error, "") from error
    except (SpikeError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        is_own = entry.plugin.source in ("core", "runtime") or is_of_core(error, everywhere=True)
        # torch is not imported here, so its own error for a full device is known by name.
        if is_strict() or (is_own and isinstance(error, Exception)) or type(error).__name__ == "OutOfMemoryError":
            raise
        raise explain_failure(entry, error, f"failed to start in {place_of(error)}") from error
    if instance is None:
        raise ContractError(f"{who(entry)} gave None in place of an instance. {cure(entry)}")
    return instance


def place_of(error: BaseException) -> str:
    """`file:line` of the call that raised."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f"{frame.f_code.co_filename}:{line}"


def is_of_core(error: BaseException, everywhere: bool = False) -> bool:
    """Whether core raised an error.

    Args:
        error: that was raised.
        everywhere: ask that every frame is of core: no plugin was entered, as when a call has a wrong argument.
    """
    names = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    are_ours = [name.partition(".")[0] in ("spikecore", "click") for name in names]
    return all(are_ours) if everywhere else are_ours[-1]


def kind_keywords(component: Any, kind: Kind, options: Iterable[str]) -> dict[str, Callable[[Any, Any, str], None]]:
    """The keywords among `options` that belong to the kind, not to the component → the function that applies them."""
    own = {field.name for field in dataclasses.fields(component.Config)}
    functions = {}
    for keyword in options:
        if keyword in kind.keywords and keyword not in own:
            module, _, attribute = kind.keywords[keyword].partition(":")
            functions[keyword] = getattr(importlib.import_module(module), attribute)
    return functions


def explain_failure(entry: Entry, error: BaseException, what: str) -> PluginError:
    """The error to raise in place of `error`, or `error` itself if it already names its plugin."""
    if isinstance(error, PluginUnavailable):
        if getattr(error, "is_located", False):
            return error
        return _mark_located(PluginUnavailable(f"{who(entry)} is unavailable: {error.reason}", error.hint))
    if isinstance(error, ImportError) and (missing := _missing_requirement(entry, error)):
        name, line = missing
        reason = f"{who(entry)} needs {name!r}, which it declares and which is not installed"
        return _mark_located(PluginUnavailable(reason, line))
    return BrokenPluginError(f"{who(entry)} {what}: {cause_text(error)}. {cure(entry)}")


def cause_text(error: BaseException) -> str:
    """Type and text of an error of a plugin, in one line; a text that cannot be made is no reason to fail."""
    try:
        text = " ".join(str(error).split())
    except BaseException as problem:  # an error may also ask the process to end when its text is asked for
        text = f"its text cannot be shown: {type(problem).__name__}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def check_contract(component: Any, entry: Entry) -> None:
    """Check that `component` satisfies the contract of its kind.

    Raises:
        ContractError: it lacks members; all are listed.
        IncompatiblePluginError: its `api_version` is not one that this core understands.
        BrokenPluginError: it raises where it is asked for its members.
    """
    with asking(entry):
        _check_members(component, entry)


@contextmanager
def asking(entry: Entry) -> Iterator[None]:
    """Inside, a component is asked for its members and its documentation, which may be computed and raise anything.

    Raises:
        BrokenPluginError: it raised, or asked the process to end.
    """
    try:
        yield
    except BaseException as error:
        if is_strict() or isinstance(error, KeyboardInterrupt | PluginError):
            raise
        raise explain_failure(entry, error, "failed when it was asked for its members") from error


def _check_members(component: Any, entry: Entry) -> None:
    kind = KINDS.get(entry.kind)
    if kind is None:  # a choice: its owner says what else it must be
        if problem := _choice_problem(component):
            raise ContractError(f"{who(entry)} cannot be chosen: its target must be {problem}. {cure(entry)}")
        return
    problems = list(_problems(component, kind))
    version = getattr(component, "api_version", None)
    # A list has no hash, and an object of the plugin's own may equal anything.
    if version is not None and (not isinstance(version, int | str) or version not in kind.api_versions):
        # Before the members: an older component lacks those that the contract gained since.
        raise IncompatiblePluginError(_other_version(entry, kind, version, problems))
    if problems:
        raise ContractError(
            f"{who(entry)} is not a {entry.kind}: it lacks {', '.join(problems)}. "
            f"The contract is {kind.contract}; is the entry point in the right group?"
        )


def _other_version(entry: Entry, kind: Kind, version: Any, lacking: list[str]) -> str:
    known = ", ".join(map(str, sorted(kind.api_versions)))
    lacks = f" It lacks {', '.join(lacking)}." if lacking else ""
    if entry.plugin.is_runtime:
        advice = f"Follow the contract {kind.contract} as it is now, then say api_version = {known}."
    elif isinstance(version, int) and version < min(kind.api_versions):
        advice = f"Upgrade {entry.plugin.distribution}."
    else:
        advice = "Upgrade spikecore, or install an older plugin."
    return (
        f"{who(entry)} speaks api_version {version!r:.80} of {entry.kind}; this core understands {known}.{lacks} "
        f"{advice}"
    )


def _problems(component: Any, kind: Kind) -> Iterable[str]:
    if not callable(component):
        yield "a call that makes an instance"
    for name in ("api_version", "Config", "capabilities"):
        if not hasattr(component, name):
            yield name
    config = getattr(component, "Config", None)
    if config is not None and not is_frozen_dataclass(config):
        yield "a frozen dataclass as Config"
    capabilities = getattr(component, "capabilities", LACKING)
    if capabilities is not LACKING and (isinstance(capabilities, type) or not dataclasses.is_dataclass(capabilities)):
        yield "a dataclass instance as capabilities"
    if isinstance(component, type):  # the members of what a factory returns are known only after the call
        yield from (name for name in contract_members(kind) if not hasattr(component, name))


def _choice_problem(target: Any) -> str:
    """What the target of a choice should be and is not, or ""."""
    if not isinstance(target, type):
        return "" if callable(target) else "a class or a function"
    forms = (target, getattr(target, "Config", None))
    return "" if any(map(is_frozen_dataclass, forms)) else "a frozen dataclass, or a class with one as its Config"


def contract_members(kind: Kind) -> list[str]:
    """The methods and properties that the kind's contract asks of a class."""
    module, _, attribute = kind.contract.partition(":")
    contract = getattr(importlib.import_module(module), attribute)
    members = vars(contract).items()
    return [name for name, value in members if name[0] != "_" and (callable(value) or isinstance(value, property))]


def is_frozen_dataclass(config: Any) -> bool:
    """Is this a class made by `@dataclass(frozen=True)`?"""
    is_dataclass = isinstance(config, type) and dataclasses.is_dataclass(config)
    return is_dataclass and bool(config.__dataclass_params__.frozen)


def who(entry: Entry) -> str:
    """The component with its distribution, version and entry point, for messages."""
    plugin = entry.plugin
    noun = {"plugin": "hook module", "command": "command"}.get(entry.kind, entry.kind)
    if plugin.source == "runtime":
        return f"{noun} {entry.name!r} (registered in this process, {entry.target!r})"
    version = f"sha256 {plugin.version}" if plugin.source == "file" else plugin.version
    return f"{noun} {entry.name!r} ({plugin.distribution} {version}, entry point {entry.target!r})"


def unmet_requirements(requirements: Iterable[str], extra: str = "") -> list[tuple[str, str]]:
    """`(name, requirement)` of those that apply here, with this extra, and are not installed in a suitable version."""
    from packaging.requirements import InvalidRequirement, Requirement

    missing = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if not version or not requirement.specifier.contains(version, prereleases=True):
            missing.append((requirement.name, f"{requirement.name}{requirement.specifier}"))
    return missing


def extras_of(requirements: Iterable[str]) -> list[str]:
    """The extras that these `Requires-Dist` lines mention."""
    extras: set[str] = set()
    for text in requirements:
        extras.update(re.findall(r"extra\s*==\s*['\"]([^'\"]+)['\"]", text))
    return sorted(extras)


def _missing_requirement(entry: Entry, error: ImportError) -> tuple[str, str] | None:
    """The declared requirement whose absence explains this import failure, and the line that installs it."""
    module = (error.name or "").split(".")[0]
    own = entry.target.partition(":")[0].split(".")[0]
    if not module or module == own or module == "spikecore":
        return None
    plugin = entry.plugin
    if plugin.source == "core" and isinstance(error, ModuleNotFoundError):
        return module, f"pip install {module}"  # core imports nothing that it does not declare
    required = unmet_requirements(plugin.requires)
    extras = {extra: unmet_requirements(plugin.requires, extra) for extra in extras_of(plugin.requires)}
    for name, line in required:
        if _provides(name, module):
            return name, f"pip install '{line}'"
    for extra, missing in extras.items():
        if match := next((name for name, _ in missing if _provides(name, module)), None):
            return match, f"pip install '{plugin.distribution}[{extra}]'"
    if required and isinstance(error, ModuleNotFoundError):
        # The names of a module and its distribution may differ (yaml, PyYAML): name the first missing requirement.
        return required[0][0], "pip install " + " ".join(f"'{line}'" for _, line in required)
    return None


def _provides(distribution: str, module: str) -> bool:
    name, module = normalise(distribution), normalise(module)
    return module in (name, name.removeprefix("python-"), name.removeprefix("py"), name.removesuffix("-python"))


def _mark_located(error: PluginUnavailable) -> PluginUnavailable:
    error.is_located = True  # type: ignore[attr-defined]
    return error


def cure(entry: Entry) -> str:
    """What to do about a broken entry, for messages."""
    plugin = entry.plugin
    if plugin.source == "runtime":
        return "Repair it."
    if plugin.source == "file":
        return f"Repair {plugin.path}."
    if plugin.source == "core":
        return "Install spikecore again: pip install --force-reinstall --no-deps spikecore."
    return (
        f"Repair or remove it (pip uninstall {plugin.distribution}); `spike doctor {plugin.id}` tells more, "
        f"{STRICT_VARIABLE}=1 shows the traceback."
    )
