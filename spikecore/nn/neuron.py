"""`Neuron`: from a declared step to a module.

A subclass declares its options, its states and one pure step; all else is here:

    class LIF(Neuron):
        state = {"v": "v_reset"}

        @staticmethod
        def step(x, state, params): ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from spikecore.backends.front import run_program, run_step
from spikecore.backends.memory_format import filled_like
from spikecore.backends.plain import is_plain
from spikecore.backends.reference import Step, loop
from spikecore.backends.selection import REFERENCE
from spikecore.dynamics import Namespace, Param, Program, trace
from spikecore.errors import DynamicsError, OptionError, ShapeError, StateShapeError
from spikecore.interfaces.component import Configurable, Inner, make_config, refuse_positional
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.half import HALF
from spikecore.nn.placement import Placed
from spikecore.nn.state import Form, Stateful
from spikecore.nn.surrogates import ATan, Surrogate

LARGE = 1 << 15
"""Neurons from which on writing an initial state costs more than it tells."""
RESERVED = "spikecore_"
SCALE, SHIFT = f"{RESERVED}scale", f"{RESERVED}shift"


class Neuron(Configurable, Placed, Stateful):
    """Base of elementwise neurons.

    Args:
        step_mode: `multi` takes `[T, B, ...]`, `single` takes `[B, ...]` and keeps state between calls.
        backend: `auto`, or the name of the backend that must run it.
        record: states whose post-reset sequence `[T, B, ...]` is kept in `recorded`, with gradient.
        options: the fields of `Config`. A sequence or tensor of size C is a per-channel value along axis 1 of a
            single step; names in `learnable` become `nn.Parameter`s, called `param_NAME`.

    Raises:
        OptionError: a wrong option; a state in `record` or a name in `learnable` that does not exist.
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities()
    per_channel = True
    extra_keywords = ("step_mode", "backend", "record")
    state: ClassVar[Mapping[str, float | str]] = {}
    """Name → initial value: a number, or the name of an option."""
    trained: ClassVar[Mapping[str, tuple[str, Callable[[float], float]]]] = {}
    """Options from which a parameter starts that is always trained: option → (the parameter's name, first value)."""

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = [f.name for f in dataclasses.fields(cls.Config) if f.name.startswith(RESERVED)]
        if taken:
            raise DynamicsError(
                f"{cls.__qualname__}.Config names {', '.join(taken)}: expected names that do not begin with "
                f"{RESERVED!r}, which spikecore keeps for itself"
            )

    def __init__(
        self,
        *args: Any,
        step_mode: str = "multi",
        backend: str = "auto",
        record: Sequence[str] = (),
        **options: Any,
    ) -> None:
        refuse_positional(type(self), args)
        Stateful.__init__(self)
        if step_mode not in ("single", "multi"):
            raise OptionError(f"step_mode must be 'single' or 'multi', got {step_mode!r}")
        if isinstance(record, str):
            raise OptionError(f"record must be a sequence of names, such as ({record!r},); got {record!r}")
        plain = {name: _plain(value) for name, value in options.items()}
        self.config = make_config(type(self), plain)
        self.step_mode = step_mode
        self.record = tuple(record)
        self.recorded: dict[str, Tensor] = {}
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._start: tuple[tuple[Any, ...], dict[str, Tensor]] | None = None
        _known("record", self.record, self.state)
        self._make_tensors()
        self._begin()
        self.place(backend)

    def _make_tensors(self) -> None:
        values = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(self.config)}
        learnable = values.get("learnable", ())
        starts = {name: values.pop(name) for name in self.trained}
        numeric = [n for n, v in values.items() if n != "learnable" and _is_numeric(v)]
        for name in set(learnable) & set(starts):
            raise OptionError(f"learnable names {name!r}, which is always trained (as {self.trained[name][0]!r})")
        _known("learnable", learnable, numeric)
        tensors = {n: values[n] for n in numeric if isinstance(values[n], tuple) or n in learnable}
        first = {self.trained[name][0]: _each(self.trained[name][1], value) for name, value in starts.items()}
        self._learnable = {*learnable, *first}
        for name, number in (tensors | first).items():
            value = torch.as_tensor(number, dtype=torch.get_default_dtype())
            if name in self._learnable:
                setattr(self, f"param_{name}", nn.Parameter(value))
            else:
                self.register_buffer(f"param_{name}", value)
        self._tensors = [*tensors, *first]
        self._constants = {n: v for n, v in values.items() if n not in tensors}
        self._fixed = Namespace(**self._constants)

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        """One step, pure: `(out, next state)`."""
        raise NotImplementedError("a neuron declares `step(x, state, params)`")

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names in `state`."""
        return tuple(self.state)

    def check_state(self, where: str, state: Mapping[str, Tensor]) -> None:
        """Refuse half precision, and states that do not belong together."""
        forms = {name: (tuple(value.shape), str(value.dtype), str(value.device)) for name, value in state.items()}
        if len(set(forms.values())) > 1 or any(value.dtype in HALF for value in state.values()):
            raise StateShapeError(
                f"the states of {where} must be float32 (for half-precision input too) or float64, and alike in shape, "
                f"dtype and device; got {', '.join(f'{name} {form}' for name, form in forms.items())}"
            )

    def params_for(self, x: Tensor) -> Namespace:
        """What `step` sees as `params`, for single-step inputs like `x` `[B, C, ...]`.

        Raises:
            ShapeError: a per-channel parameter does not fit axis 1 of `x`.
        """
        if not self._tensors:
            return self._fixed
        values = self._tensors_for(x)
        shaped = {n: v.reshape(-1, *([1] * (x.dim() - 2))) if v.dim() else v for n, v in values.items()}
        return Namespace(**self._constants, **shaped)

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
        return self._state_of(x, x.shape)

    def start_state(self, x: Tensor) -> dict[str, Tensor]:
        """The same, where it is large in shared memory: if all neurons start from one number, there is one number."""
        is_large = not torch.compiler.is_compiling() and x.numel() >= LARGE
        if not is_large or type(self).initial_state is not Neuron.initial_state:  # a subclass has its own
            return self.initial_state(x)
        if self._tensors or self.keeps_state or not x.is_cpu or type(x) is not Tensor:
            return self._state_of(x, ())
        # Made once: a twentieth of a call. Only where it never leaves the call, and in plain memory: what is made while
        # an accelerator records its work, or in a transform, does not outlive that.
        form = (x.shape, x.dtype, torch.is_inference_mode_enabled())
        kept = self._start  # another thread may bring another form meanwhile
        if kept is None or kept[0] != form:
            start = self._state_of(x, ())
            if not is_plain((x, *start.values())):
                return start
            kept = self._start = (form, start)
        return dict(kept[1])

    def _state_of(self, x: Tensor, shape: tuple[int, ...]) -> dict[str, Tensor]:
        dtype = torch.float32 if x.dtype in HALF else x.dtype
        params = self.params_for(x)
        state = {}
        for name, value in self.state.items():
            start = getattr(params, value) if isinstance(value, str) else value
            if shape or isinstance(start, Tensor):
                state[name] = filled_like(x, start, dtype)
            else:
                state[name] = torch.full((), start, dtype=dtype, device=x.device).expand(x.shape)
        return state

    def state_forms(self, x: Tensor) -> dict[str, Form]:
        """Every state looks like one step, in single precision at least."""
        form = (tuple(x.shape), x.device, torch.float32 if x.dtype in HALF else x.dtype)
        return dict.fromkeys(self.state, form)

    def forward(self, x: Tensor, affine: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """`[T, B, ...]` or `[B, ...]` by `step_mode` → output of the same shape and dtype.

        Args:
            x: the input current, floating point.
            affine: scale and shift, one value per channel: the steps see x * scale + shift. Only for a backend that
                `choose_backend(..., affine=True)` found; for `ConvBNNeuron`.

        Raises:
            TypeError: `x` is not floating point.
            ShapeError: `x` has too few axes, or channels that do not suit a parameter.
            StateShapeError: kept state belongs to another batch shape, device or dtype.
        """
        single = self.step_mode == "single"
        if not x.is_floating_point() or x.dim() < 2 - single:
            raise self._refusal(x)
        one_step = x if single else _one_step(x)
        state = self.state_for(one_step)
        backend, key = self._choice(x.device, x.dtype, affine is not None)
        if backend != REFERENCE:
            params = [*self._tensors_for(one_step).values(), *(affine or ())] if affine or self._tensors else []
            if single:
                out, finals, recorded = run_step(backend, key, x, [*state.values()], params)
            else:
                out, finals, recorded = run_program(backend, key, x, [*state.values()], params, self.keeps_state)
            state = dict(zip(state, finals))  # noqa: B905  (a checked zip takes twice as long)
        elif single:
            out, state = self._stepper(x)(x, state, {})
            for value in (x, *state.values()):
                if out is value:  # a caller may change what it is given
                    out = out.clone()
            recorded = [state[name].clone().unsqueeze(0) for name in self.record]
        else:
            out, state, sequences = loop(self._stepper(one_step), x, state, {}, self.record)
            recorded = list(sequences.values())
        if not self.record:
            if self.recorded:
                self.recorded = {}
            return self.keep(state, out)[0]
        out, *recorded = self.keep(state, out, *recorded)
        if not self._memory.is_explicit:
            self.recorded = dict(zip(self.record, recorded, strict=True))
        return out

    def _stepper(self, x: Tensor) -> Step:
        """`step` as a loop calls it: plain dictionaries in and out; half precision in, computed in single.

        Numbers become tensors, and no state is the input itself, which its owner may change.
        """
        step, params, dtype, is_half = self.step, self.params_for(x), x.dtype, x.dtype in HALF

        def advance(x: Tensor, state: dict[str, Any], _: Any) -> tuple[Tensor, dict[str, Tensor]]:
            wide = x.float() if is_half else x
            out, state = step(wide, Namespace(**state), params)
            if not isinstance(out, Tensor):
                out = torch.full_like(x, out)
            for name, value in state.items():
                if value is x:
                    state = {**state, name: x.clone()}
                elif not isinstance(value, Tensor):
                    state = {**state, name: torch.full_like(wide, value)}
            return out if out.dtype == dtype else out.to(dtype), state

        return advance

    def _refusal(self, x: Tensor) -> Exception:
        name = type(self).__name__
        if not x.is_floating_point():
            return TypeError(f"{name} takes floating-point input, got {x.dtype}: call .float() on it")
        form, other = ("[B, ...]", "multi") if self.step_mode == "single" else ("[T, B, ...]", "single")
        return ShapeError(
            f"{name} in step_mode {self.step_mode!r} takes {form}, got {tuple(x.shape)}: add the missing axis, or "
            f"set_step_mode(net, {other!r})"
        )

    def program(self, affine: bool = False) -> Program:
        """The traced equations, as backends get them.

        Args:
            affine: of `step(x * scale + shift, ...)`, with scale and shift as two more learnable per-channel
                parameters, the last ones.
        """
        found = self._programs.get((self.record, affine))
        if found is None:
            params = [Param(n, getattr(self, f"param_{n}").dim() == 1, n in self._learnable) for n in self._tensors]
            step = self.step
            if affine:
                params += [Param(SCALE, per_channel=True), Param(SHIFT, per_channel=True)]
                step = _scaled(step)
            found = trace(type(self).__name__, step, tuple(self.state), self._constants, params, self.record)
            self._programs[self.record, affine] = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_programs": {}, "recorded": {}, "_start": None}

    def extra_repr(self) -> str:
        fields = dataclasses.fields(self.config)
        shown = [f"{f.name}={getattr(self.config, f.name)!r}" for f in fields if f.name != "learnable"]
        return ", ".join([*shown, f"step_mode={self.step_mode!r}", f"backend={self.backend!r}"])


def _one_step(x: Tensor) -> Tensor:
    """What one step of the sequence looks like, for its shape, dtype and device."""
    if not x.shape[0]:
        return x.new_empty(x.shape[1:])
    return (x.detach() if x.requires_grad else x)[0]


def _scaled(step: Callable[..., Any]) -> Callable[..., Any]:
    def scaled(x: Any, state: Any, params: Any) -> Any:
        return step(x * getattr(params, SCALE) + getattr(params, SHIFT), state, params)

    return scaled


def _known(option: str, names: Sequence[str], allowed: Any) -> None:
    wrong = [name for name in names if name not in allowed]
    if wrong:
        raise OptionError(
            f"{option} names {', '.join(map(repr, wrong))}; it may name {', '.join(allowed) or 'nothing'}"
        )


def _each(function: Callable[[float], float], value: float | tuple[float, ...]) -> float | list[float]:
    return [function(each) for each in value] if isinstance(value, tuple) else function(value)


def _is_numeric(value: Any) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)


def _plain(value: Any) -> Any:
    """Per-channel tensors and sequences as tuples, so that a Config stays hashable and printable."""
    if isinstance(value, Tensor):
        return tuple(value.tolist()) if value.dim() else value.item()
    if type(value).__module__ == "numpy":
        return _plain(value.tolist())
    return tuple(value) if isinstance(value, list) else value
