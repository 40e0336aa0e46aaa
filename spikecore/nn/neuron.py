"""`Neuron`: from a declared step to a module.

A subclass declares its options, its states and one pure step; all else is here:

    class LIF(Neuron):
        state = {"v": "v_init"}

        @staticmethod
        def step(x, state, params): ...
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NoReturn

import torch
from torch import Tensor

from spikecore.backends.memory_format import filled_like, one_step
from spikecore.backends.plain import is_plain
from spikecore.dynamics import Program
from spikecore.errors import DynamicsError, OptionError, ShapeError, StateShapeError
from spikecore.interfaces.component import Configurable, DefaultsTo, Inner, make_config, refuse_positional
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.interfaces.options import default_of
from spikecore.interfaces.plain_values import numbers_in
from spikecore.nn.batch_statistics import BatchStatistics
from spikecore.nn.half import DTYPES, HALF, STRIDED, check_input, state_dtype
from spikecore.nn.memory import Form
from spikecore.nn.missing import Recorded
from spikecore.nn.parameters import Parametrized, check_names
from spikecore.nn.placement import Placed
from spikecore.nn.runner import RESERVED, run, trace_step
from spikecore.nn.state import Stateful, check_step_mode
from spikecore.nn.surrogates import ATan, Surrogate

LARGE = 1 << 15
"""From this many neurons on, writing an initial state takes a share of a call that shows in its time."""


class Neuron(Configurable, Placed, Parametrized, Stateful):
    """Base of elementwise neurons.

    Args:
        step_mode: `multi` takes `[T, B, ...]`, `single` takes `[B, ...]` and keeps state between calls.
        backend: `auto`, or the name of the backend that must run it.
        record: states whose sequence `[T, B, ...]` is kept in `recorded`, with gradient: `v` as it is after the reset,
            and `h`, the potential before it.
        options: the fields of `Config`. A sequence or tensor of size C is a per-channel value along axis 1 of a
            single step; one of the shape `[C, H, W]` of a step without the batch has a value for each neuron.
            Names in `learnable` become `nn.Parameter`s, called `param_NAME`.

    Raises:
        OptionError: a wrong option; a state in `record` or a name in `learnable` that does not exist.
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities()
    per_channel = True
    may_be_infinite: ClassVar[tuple[str, ...]] = ("v_threshold",)
    """Options that take inf; all others must be finite. A neuron with an infinite threshold never fires."""
    extra_keywords = ("step_mode", "backend", "record")
    state: ClassVar[Mapping[str, float | str]] = {}
    """Name → initial value: a number, or the name of an option."""
    observed: ClassVar[tuple[str, ...]] = ()
    """What `step` returns beside the states, for `record` alone: `h`, the potential before the reset."""
    trained = {}  # noqa: RUF012
    """Options from which a parameter starts that is always trained: option → (the parameter's name, first value)."""

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            v_threshold: fires when `h >= v_threshold`; with inf, and a hard reset, never.
            v_reset: target of the hard reset.
            v_init: initial `v`; None for `v_reset`.
            fires: `at`: when h >= v_threshold; `above`: when h > v_threshold.
            reset: `hard`: v = (1 - s) h + s v_reset; `soft`: v = h - s v_threshold.
            detach_reset: no gradient through `s` in the reset.
            surrogate: the derivative of the spike.
            learnable: names of numeric options to train; `surrogate.alpha` is the slope of the surrogate.
        """

        v_threshold: float = 1.0
        v_reset: float = 0.0
        v_init: Annotated[float | None, DefaultsTo("v_reset")] = None
        fires: Literal["at", "above"] = "at"
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
        check_step_mode(step_mode)
        if isinstance(record, str):
            raise OptionError(f"record must be a sequence of names, such as ({record!r},); got {record!r}")
        self.config = make_config(type(self), options)
        self.step_mode = step_mode
        self.record = tuple(record)
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._start: tuple[tuple[Any, ...], dict[str, Tensor]] | None = None
        check_names("record", self.record, (*self.state, *self.observed))
        self._make_tensors()
        self._begin()
        self.place(backend)

    @property
    def recorded(self) -> Recorded:
        """Name → its sequence `[T, B, ...]` in this thread's last call, for the names in `record`.

        While a recurrent container runs, the last step `[1, B, ...]`.
        """
        memory = self._local.memory
        sequences = memory.pieces[-1] if memory.pieces else memory.recorded
        return Recorded(type(self).__name__, self.record, sequences if self.record else {})

    @recorded.setter
    def recorded(self, recorded: dict[str, Tensor]) -> None:
        self._local.memory.recorded = recorded

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        """One step, pure: `(out, next state)`, the latter with the names in `observed` as well."""
        raise NotImplementedError("a neuron declares `step(x, state, params)`")

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        surrogate = getattr(config, "surrogate", None)
        is_strict = getattr(config, "fires", "at") == "above"
        if is_strict and surrogate is not None and not surrogate.capabilities.heaviside:
            text = (
                f"must be 'at' with {type(surrogate).__name__}, whose output is not 0 below and 1 above the "
                "threshold: choose a surrogate whose capabilities say heaviside"
            )
            yield "fires", text
        if getattr(config, "reset", "hard") == "soft" and math.inf in numbers_in(getattr(config, "v_threshold", 0.0)):
            yield (
                "v_threshold",
                "must be finite with reset='soft', which subtracts s * v_threshold, got inf: use 'hard'",
            )

    @classmethod
    def idle_options(cls, config: Any) -> Iterable[tuple[str, str]]:
        surrogate = getattr(config, "surrogate", None)
        is_strict = getattr(config, "fires", "at") == "above"
        if is_strict and surrogate is not None and not surrogate.config.spiking:
            yield "fires", "a surrogate with spiking=False has no threshold to be at or above"

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

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """The state before the first step, for one single-step input `x` `[B, ...]`."""
        return self._state_of(x, x.shape)

    def start_state(self, x: Tensor) -> dict[str, Tensor]:
        """The same, but a large one is a view of one number (stride 0) where all neurons start from the same."""
        is_large = not torch.compiler.is_compiling() and x.numel() >= LARGE
        if not is_large or type(self).initial_state is not Neuron.initial_state:  # a subclass has its own
            return self.initial_state(x)
        if self._tensors or self.keeps_state or not x.is_cpu or type(x) is not Tensor:
            return self._state_of(x, ())
        # Made once: making it takes a twentieth of a call. Only where it never leaves the call, and in plain memory:
        # what is made while an accelerator records its work, or in a transform, does not outlive that.
        form = (x.shape, x.dtype, torch.is_inference_mode_enabled())
        kept = self._start  # another thread may bring another form meanwhile
        if kept is None or kept[0] != form:
            start = self._state_of(x, ())
            if not is_plain((x, *start.values())):
                return start
            kept = self._start = (form, start)
        return dict(kept[1])

    def _state_of(self, x: Tensor, shape: tuple[int, ...]) -> dict[str, Tensor]:
        dtype, params = state_dtype(x), self.params_for(x)
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
        form = (tuple(x.shape), x.device, state_dtype(x))
        return dict.fromkeys(self.state, form)

    def forward(
        self, x: Tensor, affine: tuple[Tensor, Tensor] | None = None, norm: BatchStatistics | None = None
    ) -> Tensor:
        """`[T, B, ...]` or `[B, ...]` by `step_mode` → output of the same shape and dtype.

        Args:
            x: the input current, floating point.
            affine: scale and shift, one value per channel: the steps see x * scale + shift. `ConvBNNeuron` passes it
                where `choose_backend(..., affine=True)` names a backend, not the reference.
            norm: a batch norm for the steps' input, which the backend runs in one call with them if it can; likewise.

        Raises:
            TypeError: `x` is not floating point, of 16 bits at least, or it is sparse.
            ShapeError: `x` has too few axes, or channels that do not suit a parameter.
            StateShapeError: kept state belongs to another batch shape, device or dtype.
        """
        single = self.step_mode == "single"
        fewest_axes = 1 if single else 2
        if not isinstance(x, Tensor) or x.dtype not in DTYPES or x.layout is not STRIDED or x.dim() < fewest_axes:
            self._refuse(x)  # the condition is written out here: a call for each input would cost more
        step = x if single else one_step(x)
        out, state, recorded = run(self, x, step, self.state_for(step), affine, norm)
        if not self.record:
            return self.keep(state, out)[0]
        out, *recorded = self.keep(state, out, *recorded)
        self._local.memory.take(dict(zip(self.record, recorded, strict=True)))
        return out

    def _refuse(self, x: Any) -> NoReturn:
        name = type(self).__name__
        check_input(name, x)
        form, other = ("[B, ...]", "multi") if self.step_mode == "single" else ("[T, B, ...]", "single")
        raise ShapeError(
            f"{name} in step_mode {self.step_mode!r} takes {form}, got {tuple(x.shape)}: add the missing axis, or "
            f"set_step_mode(net, {other!r})"
        )

    def program(self, affine: bool = False) -> Program:
        """The traced equations, as backends get them.

        Args:
            affine: of `step(x * scale + shift, ...)`, with scale and shift as two more learnable per-channel
                parameters, the last ones.
        """
        program = self._programs.get((self.record, affine))
        if program is None:
            program = self._programs[self.record, affine] = trace_step(self, affine)
        return program

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_programs": {}, "_start": None}

    def extra_repr(self) -> str:
        """The options that differ from their defaults."""
        fields = dataclasses.fields(self.config)
        values = {field.name: (getattr(self.config, field.name), default_of(field)) for field in fields}
        values |= {
            "step_mode": (self.step_mode, "multi"),
            "backend": (self.backend, "auto"),
            "record": (self.record, ()),
        }
        return ", ".join(f"{name}={value!r}" for name, (value, default) in values.items() if value != default)
