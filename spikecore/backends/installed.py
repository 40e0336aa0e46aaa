"""A backend as torch sees it: a pair of operators.

    spikecore::run_NAME       (key, x, states, params, save, carry) -> (out, states, recorded, saved)
    spikecore::run_bwd_NAME   (key, saved, x, states, params, grad_out, grad_states, grad_recorded) -> (grads)

The key is a string (the content hash of the equations), so one pair of operators serves every neuron, and a module
holds nothing that cannot be pickled. Both have fake implementations, for `torch.compile` and `torch.export`, and vmap
rules (see `vmap`). torch keeps operators for the life of the process, so a backend is replaced, never removed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikecore.backends.spike_bits import forget_bits_of
from spikecore.backends.vmap import run_bwd_rule, run_rule
from spikecore.errors import BackendError

if TYPE_CHECKING:
    from spikecore.dynamics import Program
    from spikecore.interfaces.backend import Backend

_LIBRARY = torch.library.Library("spikecore", "FRAGMENT")  # type: ignore[no-untyped-call]
_INSTALLED: dict[str, InstalledBackend] = {}
_INSTALLING = Lock()


class InstalledBackend:
    """A name with its current backend, its operators and the programs that the backend has learned.

    Args:
        name: of the backend.
        backend: itself.
    """

    def __init__(self, name: str, backend: Backend) -> None:
        self.name = name
        self.backend = backend
        self.programs: dict[str, Program] = {}
        identifier = _identifier(name)
        self._define(f"run_{identifier}", f"run_bwd_{identifier}")
        self.run_operator: Any = getattr(torch.ops.spikecore, f"run_{identifier}")
        self.run_bwd_operator: Any = getattr(torch.ops.spikecore, f"run_bwd_{identifier}")

    def replace(self, backend: Backend) -> None:
        """Give the name, with all programs, to another backend."""
        if backend is self.backend:
            return
        # Another thread may learn meanwhile: a copy can be iterated over, and what reached only the old backend follows
        # in the second pass. A lock would do as well, but a fork could leave it closed in the child.
        for program in self.programs.copy().values():
            backend.learn(program)
        self.backend = backend
        for program in self.programs.copy().values():
            backend.learn(program)

    def learn(self, program: Program) -> None:
        """Make a program callable by its key."""
        self.programs[program.key] = program
        self.backend.learn(program)

    def num_recorded(self, key: str) -> int:
        """How many sequences a program records."""
        return len(self.programs[key].record)

    def run(self, direct: bool) -> Any:
        """The backend's method if `direct`, else the operator, for compilers, transforms and modes."""
        return self.backend.run if direct else self.run_operator

    def run_bwd(self, direct: bool) -> Any:
        """The same for the backward pass."""
        return self.backend.run_bwd if direct else self.run_bwd_operator

    def _define(self, run: str, run_bwd: str) -> None:
        define: Any = _LIBRARY.define
        implement: Any = _LIBRARY.impl
        define(
            f"{run}(str key, Tensor x, Tensor[] states, Tensor[] params, bool save, bool carry) "
            "-> (Tensor, Tensor[], Tensor[], Tensor[])"
        )
        define(
            f"{run_bwd}(str key, Tensor[] saved, Tensor x, Tensor[] states, Tensor[] params, Tensor? grad_out, "
            "Tensor?[] grad_states, Tensor?[] grad_recorded) -> (Tensor, Tensor[], Tensor[])"
        )
        implement(run, self._forward, "CompositeExplicitAutograd")
        implement(run_bwd, self._backward, "CompositeExplicitAutograd")
        torch.library.register_fake(f"spikecore::{run}", self._fake_forward, lib=_LIBRARY)
        torch.library.register_fake(f"spikecore::{run_bwd}", self._fake_backward, lib=_LIBRARY)
        torch.library.register_vmap(f"spikecore::{run}", run_rule(lambda: self.run_operator), lib=_LIBRARY)
        torch.library.register_vmap(f"spikecore::{run_bwd}", run_bwd_rule(lambda: self.run_bwd_operator), lib=_LIBRARY)

    def _forward(
        self, key: str, x: Tensor, states: list[Tensor], params: list[Tensor], save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        results = self.backend.run(key, x.detach(), _detach(states), _detach(params), save, carry)
        # A compiled graph writes to the memory of its own tensors without raising their version.
        forget_bits_of(results[0])
        return results

    def _backward(
        self, key: str, saved: list[Tensor], x: Tensor, states: list[Tensor], params: list[Tensor], *grads: Any
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        return self.backend.run_bwd(key, saved, x.detach(), _detach(states), _detach(params), *grads)

    def _fake_forward(
        self, key: str, x: Tensor, states: list[Tensor], params: list[Tensor], save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        program = self.programs[key]
        recorded = []
        for name in program.record:
            state = states[program.states.index(name)]
            recorded.append(state.new_empty((x.shape[0], *state.shape)))
        saved = self.backend.saved_like(key, x, states) if save else []
        return _like(x), [_like(state) for state in states if carry], recorded, saved

    def _fake_backward(
        self, key: str, saved: list[Tensor], x: Tensor, states: list[Tensor], params: list[Tensor], *grads: Any
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        return _like(x), [_like(state) for state in states], [_like(param) for param in params]


def install(name: str, backend: Backend) -> InstalledBackend:
    """Give a backend its operators. A second backend of the same name replaces the first and learns its programs."""
    with _INSTALLING:
        entry = _INSTALLED.get(name)
        if entry is None:
            entry = _INSTALLED[name] = InstalledBackend(name, backend)
        else:
            entry.replace(backend)
    return entry


def installed_backend(name: str) -> InstalledBackend:
    """The backend of this name.

    Raises:
        BackendError: none was installed.
    """
    if name not in _INSTALLED:
        raise BackendError(f"backend {name!r} is not installed in this process: run the net once, or name it again")
    return _INSTALLED[name]


def learn(name: str, program: Program) -> None:
    """Make a program callable by its key on the backend of this name."""
    installed_backend(name).learn(program)


def _identifier(name: str) -> str:
    """A backend's name as a part of an operator's: `my-gpu` and `my_gpu` become different operators."""
    return re.sub(r"[^A-Za-z0-9_]", lambda sign: f"_{ord(sign[0]):x}_", name)


def _like(tensor: Tensor) -> Tensor:
    """What a backend returns is contiguous, whatever the strides of its inputs."""
    return tensor.new_empty(tensor.shape)


def _detach(tensors: Sequence[Tensor]) -> list[Tensor]:
    """An exported program calls the operators with the tensors of the user's own graph."""
    return [tensor.detach() for tensor in tensors]
