"""`Neuron`: from a declared step to a module.

A subclass declares its options, its states and one pure step; all else is here:

    class LIF(Neuron):
        state = {"v": "v_reset"}

        @staticmethod
        def step(x, state, params): ...
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from spikecore.backends.operators import run_program
from spikecore.backends.reference import loop
from spikecore.backends.selection import AUTO, REFERENCE, Choice, choose
from spikecore.dynamics import Namespace, Param, Program, trace
from spikecore.errors import DynamicsError, OptionError, ShapeError
from spikecore.interfaces.component import Configurable, Inner, make_config
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.state import Stateful
from spikecore.nn.surrogates import ATan, Surrogate
from spikecore.registry import registry

HALF = (torch.float16, torch.bfloat16)


class Neuron(Configurable, Stateful):
    """Base of elementwise neurons.

    Args:
        step_mode: `multi` takes `[T, B, ...]`, `single` takes `[B, ...]` and keeps state between calls.
        backend: `auto`, or the name of the backend that must run it.
        record: states whose post-reset sequence `[T, B, ...]` is kept in `recorded`, with gradient.
        options: the fields of `Config`. A sequence or tensor of size C is a per-channel value along axis 1 of a
            single step; names in `learnable` become `nn.Parameter`s.

    Raises:
        OptionError: a wrong option; a state in `record` or a name in `learnable` that does not exist.
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities()
    per_channel = True
    extra_keywords = ("step_mode", "backend", "record")
    state: ClassVar[Mapping[str, float | str]] = {}

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            v_threshold: fires when `h >= v_threshold`.
            v_reset: initial `v`, target of the hard reset and of the leak.
            reset: `hard`: v = (1 - s) h + s v_reset; `soft`: v = h - s v_threshold.
            detach_reset: no gradient through `s` in the reset.
            surrogate: the derivative of the spike.
            learnable: names of numeric options to train.
        """

        v_threshold: float = 1.0
        v_reset: float = 0.0
        reset: Literal["hard", "soft"] = "hard"
        detach_reset: bool = False
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)
        learnable: tuple[str, ...] = ()

    def __init__(
        self, *, step_mode: str = "multi", backend: str = "auto", record: Sequence[str] = (), **options: Any
    ) -> None:
        Stateful.__init__(self)
        if step_mode not in ("single", "multi"):
            raise OptionError(f"step_mode must be 'single' or 'multi', got {step_mode!r}")
        plain = {name: _plain(value) for name, value in options.items()}
        self.config = make_config(type(self), plain)
        self.step_mode = step_mode
        self.backend = backend
        self.record = tuple(record)
        self.recorded: dict[str, Tensor] = {}
        self.chosen: Choice | None = None
        self._choices: dict[tuple[Any, ...], Choice] = {}
        self._programs: dict[tuple[str, ...], Program] = {}
        _known("record", self.record, self.state)
        self._make_tensors(options)
        set_backend(self, backend)
        self._token = _enlist(self)

    def _make_tensors(self, options: Mapping[str, Any]) -> None:
        values = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(self.config)}
        numeric = [n for n, v in values.items() if n != "learnable" and _is_numeric(v)]
        _known("learnable", self.config.learnable, numeric)
        self._tensors = [n for n in numeric if isinstance(values[n], tuple) or n in self.config.learnable]
        for name in self._tensors:
            value = torch.as_tensor(values[name], dtype=torch.get_default_dtype())
            if name in self.config.learnable:
                setattr(self, f"param_{name}", nn.Parameter(value))
            else:
                self.register_buffer(f"param_{name}", value)
        self._constants = {n: v for n, v in values.items() if n not in self._tensors}

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        """One step, pure: `(out, next state)`."""
        raise NotImplementedError("a neuron declares `step(x, state, params)`")

    def params_for(self, x: Tensor) -> Namespace:
        """What `step` sees as `params`, for single-step inputs like `x` `[B, C, ...]`.

        Raises:
            ShapeError: a per-channel parameter does not fit axis 1 of `x`.
        """
        if not self._tensors:
            return Namespace(**self._constants)
        values = self._tensors_for(x)
        shaped = {n: v.reshape(-1, *([1] * (x.dim() - 2))) if v.dim() else v for n, v in values.items()}
        return Namespace(**{**self._constants, **shaped})

    def _tensors_for(self, x: Tensor) -> dict[str, Tensor]:
        dtype = torch.float32 if x.dtype in HALF else x.dtype
        values = {name: getattr(self, f"param_{name}").to(dtype) for name in self._tensors}
        for name, value in values.items():
            if value.dim() == 1 and (x.dim() < 2 or x.shape[1] != value.shape[0]):
                raise ShapeError(
                    f"{type(self).__name__}.{name} has one value for each of {value.shape[0]} channels, "
                    f"the step's input is {tuple(x.shape)}: axis 1 must have that size"
                )
        return values

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """The state before the first step, for one single-step input `x` `[B, ...]`."""
        dtype = torch.float32 if x.dtype in HALF else x.dtype
        params = self.params_for(x) if self._tensors else Namespace(**self._constants)
        state = {}
        for name, value in self.state.items():
            start = getattr(params, value) if isinstance(value, str) else value
            if isinstance(start, Tensor):
                state[name] = start.expand(x.shape).clone()
            else:
                state[name] = torch.full(x.shape, start, dtype=dtype, device=x.device)
        return state

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` or `[B, ...]` by `step_mode` → spikes of the same shape and dtype.

        Raises:
            TypeError: `x` is not floating point.
            ShapeError: `x` has too few axes.
            StateShapeError: kept state belongs to another batch shape, device or dtype.
        """
        if not x.is_floating_point():
            raise TypeError(f"{type(self).__name__} takes floating-point input, got {x.dtype}: call .float() on it")
        multi = self.step_mode == "multi"
        if x.dim() < 1 + multi:
            form = "[T, B, ...]" if multi else "[B, ...]"
            raise ShapeError(
                f"{type(self).__name__} in step_mode {self.step_mode!r} takes {form}, got {tuple(x.shape)}"
            )
        sequence = x if multi else x.unsqueeze(0)
        like = sequence.new_empty(()).expand(sequence.shape[1:])
        state = self.state_for(like)
        backend, key = self._choice(x.device, x.dtype)
        if backend == REFERENCE:
            params = vars(self.params_for(like))
            out, final, self.recorded = loop(self._cast_step, sequence, state, params, self.record)
        else:
            out, final, self.recorded = self._run(backend, key, sequence, like, state)
        self.keep(final)
        return out if multi else out.squeeze(0)

    def _run(
        self, backend: str, key: str, x: Tensor, like: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        params = list(self._tensors_for(like).values())
        out, finals, recorded = run_program(backend, key, x, [state[name] for name in self.state], params)
        return out, dict(zip(self.state, finals, strict=True)), dict(zip(self.record, recorded, strict=True))

    def program(self) -> Program:
        """The traced equations, as backends get them."""
        found = self._programs.get(self.record)
        if found is None:
            params = [
                Param(name, getattr(self, f"param_{name}").dim() == 1, name in self.config.learnable)
                for name in self._tensors
            ]
            name = type(self).__name__
            found = trace(name, self.step, tuple(self.state), self._constants, params, self.record)
            self._programs[self.record] = found
        return found

    def choose_backend(self, device: torch.device, dtype: torch.dtype) -> Choice:
        """Which backend runs inputs like this, and why.

        Raises:
            PluginError: the backend that was named cannot be used here.
            BackendError: it cannot run this neuron.
            DynamicsError: the step is outside the neuron language, and a backend was named.
        """
        if self.backend == REFERENCE:
            return Choice(REFERENCE, "asked for")
        source = (registry(), self.backend, device, dtype, self.record)
        if source not in self._choices:
            try:
                program = self.program()
            except DynamicsError as error:
                if self.backend != AUTO:
                    raise
                self._choices[source] = Choice(REFERENCE, f"cannot be traced: {error}")
            else:
                self._choices[source] = choose(self.backend, program, device, dtype)
        return self._choices[source]

    def _choice(self, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
        if torch.compiler.is_compiling():
            constant: tuple[str, str] = _constant_choice(self._token, self.backend, str(device), dtype)
            return constant
        choice = self.chosen = self.choose_backend(device, dtype)
        return choice.backend, "" if choice.backend == REFERENCE else self.program().key

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._choices = {}
        self._token = _enlist(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_choices": {}, "_programs": {}}

    def _cast_step(
        self, x: Tensor, state: dict[str, Tensor], params: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        wide = x.float() if x.dtype in HALF else x
        out, state = self.step(wide, Namespace(**state), Namespace(**params))
        return out.to(x.dtype), state

    def extra_repr(self) -> str:
        fields = dataclasses.fields(self.config)
        shown = [f"{f.name}={getattr(self.config, f.name)!r}" for f in fields if f.name != "learnable"]
        return ", ".join([*shown, f"step_mode={self.step_mode!r}", f"backend={self.backend!r}"])


_LIVE: WeakValueDictionary[int, Neuron] = WeakValueDictionary()
_TOKENS = itertools.count()


def _enlist(neuron: Neuron) -> int:
    token = next(_TOKENS)
    _LIVE[token] = neuron
    return token


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _constant_choice(token: int, backend: str, device: str, dtype: torch.dtype) -> tuple[str, str]:
    """The choice as plain strings: torch.compile asks once, outside of what it traces."""
    neuron = _LIVE[token]
    choice = neuron.choose_backend(torch.device(device), dtype)
    return choice.backend, "" if choice.backend == REFERENCE else neuron.program().key


def set_backend(net: nn.Module, backend: str) -> None:
    """Choose the backend of every neuron of `net`.

    Raises:
        UnknownComponentError: there is no such backend; the message holds the line that installs it.
        PluginError: it is blocked or does not fit.
    """
    if backend not in (AUTO, REFERENCE):
        registry().find("backend", backend)
    for module in net.modules():
        if isinstance(module, Neuron):
            module.backend = backend


def _known(option: str, names: Sequence[str], allowed: Any) -> None:
    wrong = [name for name in names if name not in allowed]
    if wrong:
        raise OptionError(
            f"{option} names {', '.join(map(repr, wrong))}; it may name {', '.join(allowed) or 'nothing'}"
        )


def _is_numeric(value: Any) -> bool:
    return isinstance(value, int | float | tuple) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """Per-channel tensors and sequences as tuples, so that a Config stays hashable and printable."""
    if isinstance(value, Tensor):
        return tuple(value.tolist()) if value.dim() else value.item()
    return tuple(value) if isinstance(value, list) else value
