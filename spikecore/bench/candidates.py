"""The candidates: the reference, every usable backend in the registry, and peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from spikecore.backends.selection import REFERENCE, backend_named
from spikecore.bench.cases import STEP, Case, Runner, options_of
from spikecore.errors import DynamicsError, PluginError
from spikecore.registry import create, load, registry

if TYPE_CHECKING:
    from spikecore.interfaces.backend import Backend


class Unsupported(Exception):
    """A candidate does not support this case, for the reason in the message. This is not a fault."""


@dataclass(frozen=True)
class Candidate:
    """Something that runs a case.

    Args:
        name: as the table shows it.
        make: `(case, measure) -> Runner`; raises `Unsupported`.
        version: of the distribution it comes from.
        is_backend: a backend of ours, held to the reference in outputs and gradients; else a peer.
        same_dynamics: computes what our neuron computes, so that spikes must be equal.
        same_gradient: and its gradient is ours as well.
        caches: keeps compiled code on disk.
        compiles_per_shape: takes long at every new shape.
        about: what is measured, or in what it differs.
        backend: the backend object, if it is one.
    """

    name: str
    make: Callable[[Case, str], Runner]
    version: str = ""
    is_backend: bool = False
    same_dynamics: bool = True
    same_gradient: bool = True
    caches: bool = False
    compiles_per_shape: bool = False
    about: str = ""
    backend: Backend | None = field(default=None, compare=False)


def reference() -> Candidate:
    """Eager torch: what the others are compared with."""
    return _of_backend(REFERENCE, None)


def backends(asked: Sequence[str] = ()) -> tuple[list[Candidate], dict[str, str]]:
    """The backends that can be used here, the reference first.

    Args:
        asked: their names; none for all that are installed.

    Returns:
        `(candidates, name → why an installed one cannot be used)`.

    Raises:
        PluginError: one that was asked for does not exist or cannot be used here.
    """
    candidates, unusable = [reference()], {}
    names = list(asked)
    if not asked:
        for entry in registry().components("backend"):
            if entry.status == "ok":
                names.append(entry.name)
            else:
                unusable[entry.qualified] = f"{entry.status}: {entry.reason}"
    for name in dict.fromkeys(names):
        if name == REFERENCE:
            continue
        try:
            candidates.append(_of_backend(name, backend_named(name)))
        except PluginError as error:
            if asked:
                raise
            unusable[name] = str(error)
    return candidates, unusable


def _of_backend(name: str, backend: Backend | None) -> Candidate:
    def make(case: Case, measure: str) -> Runner:
        return neuron_runner(case, measure, name, backend)

    version = registry().find("backend", name).plugin.version if backend is not None else ""
    return Candidate(name, make, version, is_backend=True, caches=backend is not None, backend=backend)


def neuron_runner(case: Case, measure: str, name: str, backend: Backend | None = None) -> Runner:
    """Our own neuron on a backend.

    Raises:
        Unsupported: the backend does not take this neuron, device or dtype.
    """
    mode = "single" if measure == STEP else "multi"
    modes = load("neuron", case.neuron).capabilities.step_modes
    if mode not in modes:
        raise Unsupported(f"the neuron takes step_mode {', '.join(map(repr, modes))} only")
    neuron = create("neuron", case.neuron, backend=name, step_mode=mode, **options_of(case)).to(case.device)
    if backend is not None:
        try:
            program = neuron.program()
        except DynamicsError as error:
            raise Unsupported(f"the step is outside the neuron language: {error}") from error
        support = backend.supports(program, case.device, case.dtype)
        if not support:
            raise Unsupported(support.reason or "it does not support this")
    params = tuple(parameter for parameter in neuron.parameters() if parameter.requires_grad)

    def prepare(x: Tensor) -> Tensor:
        return x[0] if measure == STEP else x

    return Runner(neuron, params, prepare=prepare, module=neuron)
