"""Where a neuron runs: the backend that was asked for, the one chosen for an input, and why.

The answer is kept for each kind of input, because it is asked for in every call.
"""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from spikecore.backends.installed import installed_backend, learn
from spikecore.backends.selection import AUTO, REFERENCE, Choice, backend_named, choose
from spikecore.dynamics import Program
from spikecore.errors import DynamicsError, StepError
from spikecore.registry import Registry, registry
from spikecore.torch_internals import constant_when_compiled

_Question = tuple[Registry, str, torch.device, torch.dtype, tuple[str, ...], bool]
"""What a decision depends on: registry, `backend`, device and dtype of the input, `record`, whether it is affine."""
_Decision = tuple[Choice, str, str]
"""The choice, its backend, and the key of the program for it; "" on the reference."""


class Placed(nn.Module):
    """Base of modules with a program that a backend runs; `chosen` says which one ran last."""

    backend: str
    record: tuple[str, ...]
    chosen: Choice | None
    _is_per_neuron: bool
    """Does an option have a value for each neuron of a step?"""

    def program(self, affine: bool = False) -> Program:
        """The traced equations, as backends get them; see `Neuron.program`."""
        raise NotImplementedError("a placed module has a program")

    def place(self, backend: str) -> None:
        """Choose the backend; see `set_backend`."""
        if backend not in (AUTO, REFERENCE):
            registry().find("backend", backend)
        self.backend, self.chosen = backend, None

    def _begin(self) -> None:
        """Start without decisions, and under a number of its own for torch.compile."""
        self._decisions: dict[_Question, _Decision] = {}
        self._token = next(_TOKENS)
        _LIVE[self._token] = self

    def choose_backend(self, device: torch.device, dtype: torch.dtype, affine: bool = False) -> Choice:
        """Which backend runs inputs like this, and why.

        Args:
            device: of the input.
            dtype: of the input.
            affine: which one runs scale, shift and step as one; the reference where none does.

        Raises:
            PluginError: the backend that was named cannot be used here.
            BackendError: it cannot run this neuron.
            DynamicsError: the step is outside the neuron language, and a backend was named.
            StepError: the step branches on values or writes to them in place.
        """
        return self._decide(device, dtype, affine)[0]

    def _decide(self, device: torch.device, dtype: torch.dtype, affine: bool) -> _Decision:
        question = (registry(), self.backend, device, dtype, self.record, affine)
        return self._decisions.get(question) or self._ask(question)

    def _ask(self, question: _Question) -> _Decision:
        _, _, device, dtype, _, affine = question
        choice = self._choose_affine(device, dtype) if affine else self._choose(device, dtype)
        key = ""
        if choice.backend != REFERENCE:
            key = self.program(affine).key
        decision = choice, choice.backend, key
        self._decisions[question] = decision
        return decision

    def _choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        if self.backend == REFERENCE:
            return Choice(REFERENCE, "asked for")
        try:
            program = self.program()
        except DynamicsError as error:
            if self.backend != AUTO or isinstance(error, StepError):
                raise
            return Choice(REFERENCE, f"cannot be traced: {error}")
        return choose(self.backend, program, device, dtype)

    def _choose_affine(self, device: torch.device, dtype: torch.dtype) -> Choice:
        if self._is_per_neuron:
            return Choice(REFERENCE, "an option has a value for each neuron, the norm one for each channel")
        plain = self.choose_backend(device, dtype)
        if plain.backend == REFERENCE:
            return Choice(REFERENCE, f"the neuron runs on the reference ({plain.reason})")
        backend, program = backend_named(plain.backend), self.program(affine=True)
        if not backend.capabilities.affine_neuron:
            return Choice(REFERENCE, f"backend {plain.backend!r} does not offer affine_neuron")
        support = backend.supports(program, device, dtype)
        if not support:
            return Choice(REFERENCE, f"backend {plain.backend!r}: {support.reason}")
        learn(plain.backend, program)
        return Choice(plain.backend, f"backend {plain.backend!r} offers affine_neuron")

    def choose_norm_backend(self, device: torch.device, dtype: torch.dtype) -> Choice:
        """Which backend runs batch norm in training and steps in one call; the reference where none does."""
        if self._is_per_neuron:
            return Choice(REFERENCE, "an option has a value for each neuron, the norm one for each channel")
        plain = self.choose_backend(device, dtype)
        if plain.backend == REFERENCE:
            return Choice(REFERENCE, f"the neuron runs on the reference ({plain.reason})")
        if not backend_named(plain.backend).capabilities.norm_neuron:
            return Choice(REFERENCE, f"backend {plain.backend!r} does not offer norm_neuron")
        return Choice(plain.backend, f"backend {plain.backend!r} offers norm_neuron, where one call is faster")

    def runs_norm(self, y: Tensor) -> bool:
        """Whether a backend runs batch norm in training and steps in one call for y `[T, B, C, ...]`: where it pays."""
        name, key = self._choice(y.device, y.dtype, False)
        if name == REFERENCE or self._is_per_neuron:
            return False
        backend = installed_backend(name).backend
        return backend.capabilities.norm_neuron and backend.norm_neuron_pays(key, y)

    def _choice(self, device: torch.device, dtype: torch.dtype, affine: bool) -> tuple[str, str]:
        """`(backend, key of the program)` for a call, which `chosen` then tells. Repeats `_decide` to save its call."""
        if torch.compiler.is_compiling():
            constant: tuple[str, str] = _constant_choice(self._token, self.backend, str(device), dtype, affine)
            return constant
        question = (registry(), self.backend, device, dtype, self.record, affine)
        choice, backend, key = self._decisions.get(question) or self._ask(question)
        if choice is not self.chosen and not affine:
            self.chosen = choice
        return backend, key

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_decisions": {}}  # type: ignore[no-untyped-call]


_LIVE: WeakValueDictionary[int, Placed] = WeakValueDictionary()
_TOKENS = itertools.count()


@constant_when_compiled
def _constant_choice(token: int, backend: str, device: str, dtype: torch.dtype, affine: bool) -> tuple[str, str]:
    """The choice as plain strings: torch.compile asks once, outside of what it traces."""
    _, chosen, key = _LIVE[token]._decide(torch.device(device), dtype, affine)
    return chosen, key


def set_backend(net: nn.Module, backend: str) -> None:
    """Choose the backend of every neuron of `net`.

    Raises:
        UnknownComponentError: there is no such backend; the message holds the line that installs it.
        PluginError: it is blocked or does not fit.
    """
    if backend not in (AUTO, REFERENCE):
        # Looked up here too: a wrong name must change no neuron, and be refused even if the net has none.
        registry().find("backend", backend)
    for module in net.modules():
        if isinstance(module, Placed):
            module.place(backend)
