"""Selects the backend of a neuron: the one that was named, or for `auto` the first capable one by priority, then name.

A backend that was named runs or raises. `auto` skips backends that are broken or unavailable and keeps the reasons; the
reference comes last and runs everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from spikecore.backends.installed import install, learn
from spikecore.errors import BackendError, PluginError
from spikecore.registry import Registry, registry

if TYPE_CHECKING:
    import torch

    from spikecore.dynamics import Program
    from spikecore.interfaces.backend import Backend

AUTO = "auto"
REFERENCE = "torch"
FAILURES = (PluginError, BackendError)
_known: WeakKeyDictionary[Registry, dict[str, Backend | PluginError | BackendError]] = WeakKeyDictionary()
_products: WeakKeyDictionary[Registry, dict[tuple[str, str], tuple[str, Backend | None, str]]] = WeakKeyDictionary()
_chosen: WeakKeyDictionary[Registry, dict[tuple[Any, ...], Choice]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Choice:
    """The backend that runs a neuron.

    Args:
        backend: its registered name.
        reason: why it was chosen, and why others were skipped.
    """

    backend: str
    reason: str


def choose(asked: str, program: Program, device: torch.device, dtype: torch.dtype) -> Choice:
    """The backend for one program on this device and dtype; it has learned the program.

    Raises:
        PluginError: the backend that was named cannot be loaded or used here.
        BackendError: it cannot run this program.
    """
    if asked == REFERENCE:
        return Choice(REFERENCE, "asked for")
    if asked != AUTO:
        backend = backend_named(asked)
        support = backend.supports(program, device, dtype)
        if not support:
            raise BackendError(f"backend {asked!r} cannot run {program.name}: {support.reason}; use 'auto' or another")
        learn(asked, program)
        return Choice(asked, "asked for")
    offered = tuple((entry.name, entry.status, entry.plugin) for entry in registry().components("backend"))
    chosen = _chosen.setdefault(registry(), {})
    question = (offered, device, dtype, program.key)
    if question not in chosen:
        chosen[question] = _first(program, device, dtype)
    elif chosen[question].backend != REFERENCE:
        backend_named(chosen[question].backend)  # another registry may have put its own under this name
    return chosen[question]


def _first(program: Program, device: torch.device, dtype: torch.dtype) -> Choice:
    passed_over: list[str] = []
    for name, candidate in _candidates():
        if isinstance(candidate, FAILURES):
            passed_over.append(f"{name}: {candidate}")
            continue
        # Of the class: an option may let an instance run elsewhere (a GPU backend's interpreter on the CPU). That is
        # slow, and `auto` should never choose it.
        declared = registry().load("backend", name).capabilities.devices
        if device.type not in declared:
            passed_over.append(f"{name}: it runs on {', '.join(declared)}")
            continue
        support = candidate.supports(program, device, dtype)
        if support:
            learn(name, program)
            return Choice(name, "; ".join(["first by priority", *passed_over]))
        passed_over.append(f"{name}: {support.reason}")
    return Choice(REFERENCE, "; ".join(passed_over) or "no other backend is installed")


def product_backend(kind: str, device_type: str) -> tuple[str, Backend | None, str]:
    """The backend for spike products of this kind, the first by priority: its name, itself, and why, or why none."""
    chosen = _products.setdefault(registry(), {})
    question = (kind, device_type)
    if question not in chosen:
        chosen[question] = _first_with_products(kind, device_type)
    return chosen[question]


def _first_with_products(kind: str, device_type: str) -> tuple[str, Backend | None, str]:
    passed_over: list[str] = []
    for name, candidate in _candidates():
        if isinstance(candidate, FAILURES):
            passed_over.append(f"{name}: {candidate}")
        elif kind not in candidate.capabilities.spike_products:
            passed_over.append(f"{name}: offers no spike products of kind {kind}")
        elif device_type not in candidate.capabilities.devices:
            passed_over.append(f"{name}: it runs on {', '.join(candidate.capabilities.devices)}")
        else:
            return name, candidate, "first by priority"
    return "", None, "; ".join(passed_over) or "no backend with spike products is installed"


def configure_backend(name: str, *, config: Any = None, **options: Any) -> None:
    """Give a backend other options than its defaults, for all neurons that it runs in this process.

    Args:
        name: its registered name.
        config: a Config of it that is checked already, instead of `options`.
        options: fields of its `Config`.

    Raises:
        PluginError: there is none, or it cannot be used here.
        OptionError: a wrong option.
    """
    backend: Backend
    if config is None:
        backend = registry().create("backend", name, **options)
    else:
        backend = registry().build("backend", name, config)
    _known.setdefault(registry(), {})[name] = backend
    _chosen.pop(registry(), None)
    _products.pop(registry(), None)
    install(name, backend)


def backend_named(name: str) -> Backend:
    """The backend of this name, ready to run.

    Raises:
        PluginError: there is none, or it cannot be used here.
        BackendError: it could not be made ready; it is not tried again.
    """
    known = _known.setdefault(registry(), {})
    if name not in known:
        try:
            known[name] = registry().create("backend", name)
        except FAILURES as error:
            known[name] = error
    backend = known[name]
    if isinstance(backend, FAILURES):
        # Raised again and again, it would gather the frames of all who asked, and keep their tensors alive.
        raise backend.with_traceback(None)
    install(name, backend)
    return backend


def _candidates() -> list[tuple[str, Backend | PluginError | BackendError]]:
    candidates: list[tuple[str, Backend | PluginError | BackendError]] = []
    for entry in registry().components("backend"):
        if entry.status == "ok" and entry.name != REFERENCE:
            try:
                candidates.append((entry.name, backend_named(entry.name)))
            except FAILURES as error:
                candidates.append((entry.name, error))
    return sorted(candidates, key=lambda item: (-_priority(item[1]), item[0]))


def _priority(candidate: Backend | PluginError | BackendError) -> int:
    """Failures come first, so that the reason of a choice names all of them."""
    return 1 << 30 if isinstance(candidate, FAILURES) else candidate.capabilities.priority
