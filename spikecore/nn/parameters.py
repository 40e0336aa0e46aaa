"""A neuron's numeric options as its step sees them: constants, values per channel or per neuron, trained parameters.

A plain number stays a Python number, which a compiler may fold. Several values are a buffer, `[C]` or the shape of a
step without the batch; a name in `learnable` is an `nn.Parameter`. Both are called `param_NAME`. The configuration's
numbers are doubles and are kept beside them: wherever a tensor still holds them, rounded, a wider dtype gets them back.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from spikecore.backends.plain import is_plain
from spikecore.dynamics import Namespace, Param
from spikecore.errors import DynamicsError, OptionError, ShapeError
from spikecore.interfaces.component import DefaultsTo, Range
from spikecore.interfaces.plain_values import shape_of
from spikecore.nn.half import HALF, state_dtype
from spikecore.nn.slopes import is_numeric, learnable_names, learnable_surrogates, parameter_name

Mark = TypeVar("Mark")

CALLS_BETWEEN_CHECKS = 256
"""On an accelerator, looking at a value waits for the device: this many calls pass between two looks."""


class Parametrized(nn.Module):
    """Base of modules whose step reads numeric options; `_make_tensors` turns those of `config` into tensors."""

    trained: ClassVar[Mapping[str, tuple[str, Callable[[float], float]]]] = {}
    config: Any

    def _make_tensors(self) -> None:
        """Divide the options into constants, tensors and surrogates with learnable slopes, and register the tensors."""
        values = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(self.config)}
        named = values.get("learnable", ())
        starts = {name: values.pop(name) for name in self.trained}
        numeric = [name for name, value in values.items() if name != "learnable" and is_numeric(value)]
        for name in set(named) & set(starts):
            raise OptionError(f"learnable names {name!r}, which is always trained (as {self.trained[name][0]!r})")
        check_names("learnable", named, [*numeric, *learnable_names(values)])
        exact: dict[str, Any] = {}  # of every tensor: the numbers of the configuration
        self._learnable: set[str] = set()
        for name in numeric:
            if name in named:
                self._learnable.add(name)
            if name in named or isinstance(values[name], tuple):
                exact[name] = values[name]
        self._surrogates = learnable_surrogates(values, named)
        self._keep_constants({name: value for name, value in values.items() if name not in exact})
        for option, start in starts.items():
            name, first_value = self.trained[option]
            exact[name] = _map_numbers(first_value, start)
            self._learnable.add(name)
        config_type: Any = type(self.config)
        ranges = {**marks_of(config_type, Range), **self._add_slopes(exact, [*values, *starts])}
        self._register(exact)
        self._ranges = {name: ranges[name] for name in self._learnable if name in ranges}
        # By dtype and beforehand, since torch.compile cannot look at the next number after a bound.
        self._limits: dict[str, dict[torch.dtype, tuple[float, float]]] = {}
        for name, allowed in self._ranges.items():
            self._limits[name] = {dtype: limits(allowed, dtype) for dtype in (torch.float32, torch.float64, *HALF)}
        self._calls_until_check = 0
        self._warned: set[str] = set()

    def _keep_constants(self, values: Mapping[str, Any]) -> None:
        """Keep the options that are no tensors; one that is None takes the value of the option that it defaults to."""
        self._constants = {name: value for name, value in values.items() if name not in self._surrogates}
        self._aliases: dict[str, str] = {}  # option → the tensor that it defaults to
        config_type: Any = type(self.config)
        for name, mark in marks_of(config_type, DefaultsTo).items():
            if name in self._constants and self._constants[name] is None:
                del self._constants[name]
                if mark.option in self._constants:
                    self._constants[name] = self._constants[mark.option]
                else:
                    self._aliases[name] = mark.option
        self._fixed = Namespace(**self._constants)

    def _register(self, exact: dict[str, Any]) -> None:
        """Make a parameter of every learnable option, a buffer of every other one with several values."""
        self._exact = exact
        self._tensors = [*exact]
        self._is_per_neuron = any(len(shape_of(number) or ()) > 1 for number in exact.values())
        for name, number in exact.items():
            value = torch.as_tensor(number, dtype=torch.get_default_dtype())
            if name in self._learnable:
                setattr(self, f"param_{name}", nn.Parameter(value))
            else:
                self.register_buffer(f"param_{name}", value)

    def _add_slopes(self, exact: dict[str, Any], taken: Sequence[str]) -> dict[str, Range]:
        """Add the learnable options of surrogates to the values that become tensors.

        Args:
            exact: what becomes a tensor; gets them.
            taken: the names of the neuron's own options.

        Returns:
            Their ranges, by the names of their parameters.

        Raises:
            DynamicsError: an option has the name of such a parameter.
        """
        ranges: dict[str, Range] = {}
        self._option_names: dict[str, str] = {}
        for option, learnable in self._surrogates.items():
            config = learnable.surrogate.config
            config_type: Any = type(config)
            allowed = marks_of(config_type, Range)
            for inner in learnable.names:
                name = parameter_name(option, inner)
                if name in taken:
                    raise DynamicsError(
                        f"{type(self).__name__} has an option {name!r}, which is also the name of the parameter for "
                        f"{option}.{inner}: rename the option"
                    )
                exact[name] = getattr(config, inner)
                self._learnable.add(name)
                self._option_names[name] = f"{option}.{inner}"
                if inner in allowed:
                    ranges[name] = allowed[inner]
        return ranges

    def params_for(self, x: Tensor) -> Namespace:
        """What `step` sees as `params`, for single-step inputs like `x` `[B, C, ...]`.

        Raises:
            ShapeError: a parameter per channel does not fit axis 1 of `x`, or one per neuron its axes from 1 on.
        """
        if not self._tensors:
            return self._fixed
        values = self._tensors_for(x)
        shaped: dict[str, Tensor] = {}
        for name, value in values.items():
            # One value per channel follows axis 1 of the step; one per neuron has all axes of the step but the batch.
            shaped[name] = value.reshape(-1, *[1] * (x.dim() - 2)) if value.dim() == 1 else value
        return Namespace(**self._constants, **shaped, **self._derived(shaped))

    def _derived(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a step reads besides constants and tensors: options that default to a tensor, learned surrogates.

        Args:
            values: of the tensors, or symbols for them.
        """
        derived = {name: values[option] for name, option in self._aliases.items()}
        for option, surrogate in self._surrogates.items():
            derived[option] = surrogate.with_values([values[parameter_name(option, name)] for name in surrogate.names])
        return derived

    def _tensors_for(self, x: Tensor) -> dict[str, Tensor]:
        """The same without constants: a number, `[C]`, or `[C, ...]` with one value for each neuron of a step."""
        dtype = state_dtype(x)
        values: dict[str, Tensor] = {}
        for name in self._tensors:
            stored: Tensor = getattr(self, f"param_{name}")
            if stored.dim() == 1 and (x.dim() < 2 or x.shape[1] != stored.shape[0]):
                raise ShapeError(
                    f"{type(self).__name__}.{name} has one value for each of {stored.shape[0]} channels, "
                    f"the step's input is {tuple(x.shape)}: axis 1 must have that size"
                )
            if stored.dim() > 1 and x.shape[1:] != stored.shape:
                raise ShapeError(
                    f"{type(self).__name__}.{name} has one value for each neuron of a step "
                    f"[B, {', '.join(map(str, stored.shape))}], the step's input is {tuple(x.shape)}"
                )
            value = stored if stored.dtype == dtype else _converted(stored, self._exact[name], dtype)
            if name in self._ranges:
                value = self._bounded(name, value)
            values[name] = value
        return values

    def _bounded(self, name: str, value: Tensor) -> Tensor:
        """`value`, or the nearest bound of the option's range; the gradient of the bound is passed to `value`."""
        low, high = self._limits[name][value.dtype]
        if is_plain((value,)) and self._is_check_due(value):
            # As Python numbers: torch's reductions need its thread pool, which threads of a forked child do not have.
            numbers = value.detach().reshape(-1).tolist()
            is_inside = all(low <= number <= high for number in numbers)  # not where one is NaN
            if is_inside and value.is_cpu:
                return value
            if not is_inside and name not in self._warned:
                self._warned.add(name)
                # With a NaN among the numbers, what `min` and `max` give depends on their order.
                is_nan = any(math.isnan(number) for number in numbers)
                extremes = (math.nan, math.nan) if is_nan else (min(numbers), max(numbers))
                self._warn_outside(name, *extremes)
        return self.within_range(name, value)

    def within_range(self, name: str, value: Tensor) -> Tensor:
        """A value of `param_NAME` as the step reads it: the nearest one that the option may have."""
        if name not in self._limits:
            return value
        low, high = self._limits[name][value.dtype]
        # value - value.detach() is 0 and carries the gradient: the sum is the bound, exactly.
        return value.detach().clamp(low, high) + (value - value.detach())

    def _is_check_due(self, value: Tensor) -> bool:
        if value.is_cpu:
            return True
        if not value.is_cuda or torch.cuda.is_current_stream_capturing():
            return False
        self._calls_until_check -= 1
        if self._calls_until_check >= 0:
            return False
        self._calls_until_check = CALLS_BETWEEN_CHECKS
        return True

    def _warn_outside(self, name: str, smallest: float, largest: float) -> None:
        option = self._option_names.get(name, name)
        if math.isnan(smallest) or math.isnan(largest):
            got, effect = "nan", "nothing is near to nan, so the step gives nan where it reads it, and then no spikes"
        else:
            got = f"{smallest:g}" if smallest == largest else f"{smallest:g} to {largest:g}"
            effect = f"the step takes the nearest allowed value, and param_{name} keeps its gradient"
        warnings.warn(
            f"the learnable option {option!r} of {type(self).__name__} is {got} now, but it must be "
            f"{self._ranges[name]}: {effect}. Lower the learning rate, or train a "
            "parameter that cannot leave its range, as ParametricLIF does",
            stacklevel=2,
        )

    def _declared_params(self) -> list[Param]:
        """The tensors as the program of a step declares them."""
        return [
            Param(name, getattr(self, f"param_{name}").dim() > 0, name in self._learnable) for name in self._tensors
        ]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What `double`, `to` and their like call. Wider values are those of the configuration again."""
        before = {name: getattr(self, f"param_{name}").dtype for name in self._tensors}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, dtype in before.items():
            value: Tensor = getattr(self, f"param_{name}")
            if torch.promote_types(dtype, value.dtype) != dtype and not value.is_meta:
                with torch.no_grad():
                    value.copy_(_converted(value.to(dtype), self._exact[name], value.dtype))
        return self


def _converted(stored: Tensor, exact: Any, dtype: torch.dtype) -> Tensor:
    """`stored` in another dtype: where it holds the rounded numbers `exact`, those numbers, rounded anew."""
    wide = stored.to(dtype)
    if torch.promote_types(stored.dtype, dtype) == stored.dtype:
        return wide
    numbers = torch.as_tensor(exact, dtype=dtype, device=stored.device)
    if numbers.shape != stored.shape:  # the parameter was replaced by one of another shape
        return wide
    value = torch.where(numbers.to(stored.dtype) == stored.detach(), numbers, wide.detach())
    return value + (wide - wide.detach()) if stored.requires_grad else value


@cache
def marks_of(config: Any, kind: type[Mark]) -> dict[str, Mark]:
    """Option → its mark of this kind (a `Range`, say), where the configuration declares one."""
    marks: dict[str, Mark] = {}
    for name, hint in get_type_hints(config, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            continue
        for mark in get_args(hint)[1:]:  # after the type itself
            if isinstance(mark, kind):
                marks[name] = mark
    return marks


def limits(allowed: Range, dtype: torch.dtype) -> tuple[float, float]:
    """The smallest and the largest number of a dtype that are in the range."""
    low = -math.inf if allowed.ge is None else allowed.ge
    high = math.inf if allowed.le is None else allowed.le
    if allowed.gt is not None:
        low = max(low, _beside(allowed.gt, math.inf, dtype))
    if allowed.lt is not None:
        high = min(high, _beside(allowed.lt, -math.inf, dtype))
    return low, high


def _beside(bound: float, towards: float, dtype: torch.dtype) -> float:
    """The next number of the dtype after `bound`, in the direction of `towards`."""
    start, end = torch.tensor(bound, dtype=dtype), torch.tensor(towards, dtype=dtype)
    return float(torch.nextafter(start, end))


def check_names(option: str, names: Sequence[str], allowed: Any) -> None:
    """Refuse names that are not allowed, or that come twice.

    Raises:
        OptionError: there are some.
    """
    wrong = [name for name in names if name not in allowed]
    if wrong:
        raise OptionError(
            f"{option} names {', '.join(map(repr, wrong))}; it may name {', '.join(allowed) or 'nothing'}"
        )
    twice = [name for name in dict.fromkeys(names) if list(names).count(name) > 1]
    if twice:
        raise OptionError(f"{option} names {', '.join(map(repr, twice))} more than once: name it once")


def _map_numbers(function: Callable[[float], float], value: Any) -> Any:
    """`function` of a number, or of every number in nested tuples."""
    if isinstance(value, tuple):
        return tuple(_map_numbers(function, item) for item in value)
    return function(value)
