"""Events for plugins: a typed facade of pluggy's hooks.

Hook modules are loaded one by one: a broken one is left out and reported, and never stops the command line. Pluggy's
own loader of entry points would stop at the first broken one.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from spikecore.errors import BrokenPluginError, PluginError, SpikeError
from spikecore.registry.hookspecs import PROJECT, DoctorCheck, HookSpecs
from spikecore.registry.loading import cause_text, cure, is_strict, load_target, who
from spikecore.registry.scan import Entry, Plugin

if TYPE_CHECKING:
    from torch import nn

    from spikecore.registry.registry import Registry


HEADER = "spike_report_header"
ANSWERS: dict[str, tuple[type, str]] = {
    HEADER: (str, "a string or a list of strings"),
    "spike_doctor_checks": (DoctorCheck, "a list of DoctorCheck"),
}
"""Hook → of what its answer is made."""
HOOKS = tuple(name for name in vars(HookSpecs) if name.startswith("spike_"))


class Hooks:
    """Calls the hooks of the active plugins.

    Args:
        registry: where the plugins come from.
        only: the id of the one plugin to activate; all by default.

    Attributes:
        active: the plugins whose hooks are called.
        failures: plugin id → why its hook module is left out.
    """

    def __init__(self, registry: Registry, only: str | None = None) -> None:
        self.active: list[Plugin] = []
        self.failures: dict[str, PluginError] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(HookSpecs)
        for entry in registry.entries():
            if entry.kind == "plugin" and entry.status == "ok" and only in (None, entry.plugin.id):
                try:
                    self._activate(entry)
                except PluginError as error:
                    self.failures[entry.plugin.id] = error

    def report_header(self, device: str) -> list[str]:
        """See `HookSpecs.spike_report_header`; core's line comes first."""
        answers = self._manager.hook.spike_report_header(device=device)
        lines: list[str] = []
        for answer in reversed(answers):  # pluggy calls the latest registered first
            lines += [answer] if isinstance(answer, str) else answer
        return lines

    def run_start(self, directory: Path, record: Mapping[str, Any], model: nn.Module) -> None:
        """See `HookSpecs.spike_run_start`."""
        self._manager.hook.spike_run_start(directory=directory, record=copy.deepcopy(record), model=model)

    def log(self, directory: Path, metrics: Mapping[str, float | int | str]) -> None:
        """See `HookSpecs.spike_log`."""
        self._manager.hook.spike_log(directory=directory, metrics=metrics)

    @contextmanager
    def with_listeners(self, listeners: Sequence[object]) -> Iterator[None]:
        """Inside, hooks of these objects are called too; what they raise is raised as it is.

        Args:
            listeners: modules, or objects whose methods are marked with `spikecore.hookimpl`.

        Raises:
            BrokenPluginError: one has no hook, or one of an unknown name or with unknown arguments.
        """
        added: list[object] = []
        try:
            for listener in listeners:
                self._require_hooks(listener)
                try:
                    self._manager.register(listener)
                except (pluggy.PluginValidationError, ValueError) as error:
                    raise BrokenPluginError(f"{listener!r} does not fit the hooks: {error}") from error
                added.append(listener)
            yield
        finally:
            for listener in added:
                self._manager.unregister(listener)

    def _require_hooks(self, listener: object) -> None:
        names = [name for name in dir(listener) if self._manager.parse_hookimpl_opts(listener, name) is not None]
        for name in names:
            if name not in HOOKS:
                raise BrokenPluginError(f"{listener!r}: there is no hook {name!r} (hooks: {', '.join(HOOKS)})")
        if not names:
            raise BrokenPluginError(
                f"{listener!r} has no hook: mark its methods with @spikecore.hookimpl (hooks: {', '.join(HOOKS)})"
            )

    def epoch_end(self, directory: Path, epoch: int, metrics: Mapping[str, float]) -> None:
        """See `HookSpecs.spike_epoch_end`."""
        self._manager.hook.spike_epoch_end(directory=directory, epoch=epoch, metrics=metrics)

    def run_end(self, directory: Path, status: str, metrics: Mapping[str, float]) -> None:
        """See `HookSpecs.spike_run_end`."""
        self._manager.hook.spike_run_end(directory=directory, status=status, metrics=metrics)

    def doctor_checks(self) -> list[DoctorCheck]:
        """See `HookSpecs.spike_doctor_checks`."""
        checks: list[DoctorCheck] = []
        for of_plugin in self._manager.hook.spike_doctor_checks():
            checks += of_plugin
        return checks

    def _activate(self, entry: Entry) -> None:
        module = load_target(entry)
        hooks = _Guarded()
        for name in dir(module):
            if self._manager.parse_hookimpl_opts(module, name) is not None:
                if name not in HOOKS:
                    known = ", ".join(HOOKS)
                    raise BrokenPluginError(f"{who(entry)}: there is no hook {name!r} (hooks: {known}). {cure(entry)}")
                setattr(hooks, name, _guard(getattr(module, name), name, entry))
        try:
            self._manager.register(hooks, name=entry.plugin.id)
        except (pluggy.PluginValidationError, ValueError) as error:  # wrong arguments; two plugins of one id
            if self._manager.is_registered(hooks):
                self._manager.unregister(hooks)
            raise BrokenPluginError(f"{who(entry)} does not fit the hooks: {error}. {cure(entry)}") from error
        self.active.append(entry.plugin)


def _check_answer(answer: Any, hook: str, entry: Entry) -> None:
    if answer is None or hook not in ANSWERS:
        return
    kind, text = ANSWERS[hook]
    items = [answer] if hook == HEADER and isinstance(answer, str) else answer
    if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
        what = f"its {hook} must return {text}, got {type(answer).__name__}"
        raise BrokenPluginError(f"{who(entry)}: {what}. {cure(entry)}")


class _Guarded:
    """The guarded hooks of one plugin. Equal only to itself, because pluggy distinguishes plugins by equality."""


def _guard(function: Callable[..., Any], hook: str, entry: Entry) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        try:
            # Copies: what one plugin does to them is seen neither by the run nor by another plugin.
            answer = function(*[copy.deepcopy(arg) if isinstance(arg, Mapping) else arg for arg in args])
        except BaseException as error:
            names_plugin = isinstance(error, SpikeError) and who(entry) in str(error)
            if names_plugin or is_strict() or isinstance(error, KeyboardInterrupt):
                raise
            raise BrokenPluginError(f"{who(entry)}: its {hook} failed: {cause_text(error)}. {cure(entry)}") from error
        _check_answer(answer, hook, entry)
        return answer

    return call
