"""The host side of backends whose kernels run a whole sequence: checks, buffers, missing gradients, sums.

A subclass prints kernels from plans (see `kit.plans`) and launches them; nothing here depends on the language or the
device. The tensors of a launch have names:

    forward     x, state.S, param.P -> out, final.S, recorded.S, row.S
    backward    x, row.S or state.S, param.P, grad.out, grad.state.S, grad.recorded.S
                -> grad.x, grad.initial.S, sum.P

A lane is an element of one step. `sum.P` holds one number for each lane, the sum over time; the sum over lanes is made
here, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spikecore.backends.kit.checks import channels, check_arguments, check_support
from spikecore.backends.kit.dtypes import state_dtype, widen
from spikecore.backends.kit.kernel_text import INTEGERS, integer_arguments
from spikecore.backends.kit.lanes import read_sequence, read_state
from spikecore.backends.kit.norm import along_channels
from spikecore.backends.kit.plans import (
    BackwardCall,
    BackwardPlan,
    ForwardPlan,
    backward_calls,
    num_rows,
    segment_length,
)
from spikecore.dynamics import Program, normed
from spikecore.interfaces.backend import Backend, NormCall, Support

ALIGNMENT = 16
"""In elements: a plan is `aligned` where every distance in memory is a multiple of it, and kernels may rely on that."""


class Place(NamedTuple):
    """Where a tensor stands in memory.

    Element (t, n) is t * step + n // width * row + n % width * lane elements behind the first.

    Args:
        tensor: itself.
        step: distance between two steps.
        lane: distance between two lanes of a row: 1, or 0 where one number stands for all lanes of a step.
        width: lanes of a row; 0 where all lanes are one row.
        row: distance between two rows.
    """

    tensor: Tensor
    step: int
    lane: int
    width: int = 0
    row: int = 0


@dataclass(frozen=True)
class Launch:
    """One call of a kernel.

    Args:
        program: the program.
        dtype: of x.
        plan: what the kernel is printed for.
        tensors: by name, see the module.
        places: where what is read stands in memory, by name.
        num_lanes: elements of one step; the distance between two steps of what is written, and between two rows.
        num_segments: of the loop; in a backward pass also the row of the earliest cell.
        inner: lane n belongs to channel n // inner % channels.
        channels: number of channels.
    """

    program: Program
    dtype: torch.dtype
    plan: ForwardPlan | BackwardPlan
    tensors: Mapping[str, Tensor]
    places: Mapping[str, Place]
    num_lanes: int
    num_segments: int
    inner: int
    channels: int

    @property
    def integers(self) -> dict[str, int]:
        """The integer arguments of the kernel, in their order."""
        values: dict[str, int] = {}
        for argument, (name, what) in integer_arguments(self.program, self.plan).items():
            values[argument] = getattr(self.places[name], what)
        return values | {name: getattr(self, name) for name in INTEGERS}

    @property
    def device(self) -> torch.device:
        """On which the kernel runs, on its current stream."""
        return self.tensors["x"].device


class FusedBackend(Backend):
    """Base of backends that run a sequence in one kernel; a subclass has `operators` and `launch`."""

    @property
    def operators(self) -> Collection[str]:
        """The operators that its printer knows."""
        raise NotImplementedError(f"{type(self).__name__} must implement operators")

    def launch(self, launch: Launch) -> None:
        """Enqueue a kernel on the current stream of the device of its tensors."""
        raise NotImplementedError(f"{type(self).__name__} must implement launch()")

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """Every program of known operators, on the declared devices and dtypes."""
        return check_support(self.capabilities, self.operators, program, device, dtype)

    def saved_like(self, key: str, x: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """The states before each segment; nothing where there is one segment."""
        rows = num_rows(segment_length(self.program(key)), x.shape[0])
        if not rows:
            return []
        return [state.new_empty((rows, *state.shape), dtype=state_dtype(x.dtype)) for state in states]

    def run(
        self, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """See `Backend.run`."""
        program = self.program(key)
        num_steps, num_lanes = x.shape[0], math.prod(x.shape[1:])
        wide = state_dtype(x.dtype)
        check_arguments(program, num_lanes, wide, x.device, states, params)
        inner, num_channels = channels(program, x.shape, params)
        out = _empty(x, x.shape)
        finals = [_empty(state, state.shape) for state in states if carry]
        recorded = [_empty(x, x.shape, wide) for _ in program.record]
        saved = self.saved_like(key, x, states) if save else []
        if not num_steps:
            for final, state in zip(finals, states, strict=carry):  # no finals without `carry`
                final.copy_(state)
        if not num_steps or not num_lanes:
            return out, finals, recorded, saved
        segment = segment_length(program)
        reads: dict[str, Place] = {"x": _place(x)}
        for name, state in zip(program.states, states, strict=True):
            reads[f"state.{name}"] = Place(*read_state(state))
        # Without `carry` there are no finals to write, and without `save` no rows: `zip` is strict where there are.
        writes: dict[str, Tensor] = {"out": out}
        writes |= {f"final.{name}": final for name, final in zip(program.states, finals, strict=carry)}
        writes |= {f"recorded.{name}": sequence for name, sequence in zip(program.record, recorded, strict=True)}
        writes |= {f"row.{name}": rows for name, rows in zip(program.states, saved, strict=bool(saved))}
        plan = ForwardPlan(
            segment=segment,
            rest=num_steps % segment,
            keeps=bool(saved),
            carries=carry,
            uniform=_uniform(reads),
            split=_split(reads),
            aligned=_is_aligned(reads, num_lanes),
        )
        self.launch(
            Launch(
                program,
                x.dtype,
                plan,
                {**_tensors(reads), **_params(program, params), **writes},
                reads,
                num_lanes,
                num_steps // segment,
                inner,
                num_channels,
            )
        )
        return out, finals, recorded, saved

    def run_bwd(
        self,
        key: str,
        saved: Sequence[Tensor],
        x: Tensor,
        states: Sequence[Tensor],
        params: Sequence[Tensor],
        grad_out: Tensor | None,
        grad_states: Sequence[Tensor | None],
        grad_recorded: Sequence[Tensor | None],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """See `Backend.run_bwd`."""
        program = self.program(key)
        num_steps, num_lanes = x.shape[0], math.prod(x.shape[1:])
        check_arguments(program, num_lanes, state_dtype(x.dtype), x.device, states, params)
        grad_x = _empty(x, x.shape)
        sums = [torch.zeros_like(param, memory_format=torch.contiguous_format) for param in params]
        # The gradients of the states behind the steps that are still to come: at first those of the final states.
        carried = {
            f"state.{name}": grad for name, grad in zip(program.states, grad_states, strict=True) if grad is not None
        }
        if num_steps and num_lanes:
            reads = _backward_reads(program, saved, x, states, grad_out, grad_recorded)
            arriving = tuple([grad is not None for grad in (grad_out, *grad_states, *grad_recorded)])
            for call in backward_calls(program, arriving, num_steps, segment_length(program)):
                carried = self._run_call(program, call, reads, carried, x, states, params, grad_x, sums)
        firsts: list[Tensor] = []
        for name, state in zip(program.states, states, strict=True):
            grad = carried.get(f"state.{name}")
            if grad is None:
                firsts.append(_empty(state, state.shape).zero_())
            elif num_steps and num_lanes:
                firsts.append(grad)
            else:  # still that of the final state, which is the caller's
                firsts.append(_empty(state, state.shape).copy_(grad))
        return grad_x, firsts, sums

    def norm_neuron(
        self, call: NormCall, save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor, list[Tensor]]:
        """See `Backend.norm_neuron`: the statistics, then one kernel that normalises what it reads."""
        var, mean = _var_mean(call.y)
        inverse = torch.rsqrt(var + call.eps)
        params = [*call.params, mean, inverse, *_scale_and_shift(call, mean)]
        out, finals, recorded, saved = self.run(self._normed_key(call.key), call.y, call.states, params, save, carry)
        # The mean and the variance belong to the caller, who may change them.
        return out, finals, recorded, mean, var, [mean.clone(), inverse, *saved] if save else []

    def norm_neuron_grad(
        self,
        call: NormCall,
        saved: Sequence[Tensor],
        grad_out: Tensor | None,
        grad_states: Sequence[Tensor | None],
        grad_recorded: Sequence[Tensor | None],
        wants_states: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor], list[Tensor]]:
        """See `Backend.norm_neuron_grad`; the equations are those of `run_normed`."""
        y = call.y
        mean, inverse, *rows = saved
        scale, shift = _scale_and_shift(call, mean)
        params = [*call.params, mean, inverse, scale, shift]
        grads = (grad_out, grad_states, grad_recorded)
        grad_y, grad_firsts, sums = self.run_bwd(self._normed_key(call.key), rows, y, call.states, params, *grads)
        *grad_params, _, _, grad_gamma, grad_beta = sums
        # dL/dy = gamma inverse (dL/dx - (grad_beta + y' grad_gamma) / n); the kernel gave the first term.
        share = scale * inverse / (y.numel() // y.shape[2])
        slope = along_channels(share * inverse * grad_gamma, y)
        through_statistics = (y - along_channels(mean, y)) * slope + along_channels(share * grad_beta, y)
        return (
            grad_y.sub_(through_statistics),
            None if call.gamma is None else grad_gamma,
            None if call.beta is None else grad_beta,
            grad_firsts if wants_states else [],
            grad_params,
        )

    def _normed_key(self, key: str) -> str:
        """The key of the normed program, which is learned here."""
        program = normed(self.program(key))
        self.learn(program)
        return program.key

    def _run_call(
        self,
        program: Program,
        call: BackwardCall,
        reads: Mapping[str, Place],
        carried: Mapping[str, Tensor],
        x: Tensor,
        states: Sequence[Tensor],
        params: Sequence[Tensor],
        grad_x: Tensor,
        sums: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Launch one kernel; writes its steps of `grad_x` and adds to `sums`.

        Returns:
            The gradients of the states before its steps, by name.
        """
        num_lanes = math.prod(x.shape[1:])
        inner, num_channels = channels(program, x.shape, params)
        reads = {**reads, **{f"grad.{name}": Place(*read_state(grad)) for name, grad in carried.items()}}
        plan = BackwardPlan(
            segment=segment_length(program),
            cells=call.cells,
            steady=call.steady,
            has_rows=not any(f"state.{name}" in reads for name in program.states),
            recorded=frozenset(f"state.{name}" for name in program.record if f"grad.recorded.{name}" in reads),
            uniform=_uniform(reads),
            split=_split(reads),
            aligned=_is_aligned(reads, num_lanes),
        )
        before: dict[str, Tensor] = {}
        for name, state in zip(program.states, states, strict=True):
            if f"state.{name}" in plan.leaves(program):
                before[f"state.{name}"] = _empty(state, state.shape)
        by_lane: dict[str, Tensor] = {}
        for param in program.params:
            if param.learnable:
                by_lane[f"sum.{param.name}"] = _empty(x, x.shape[1:], state_dtype(x.dtype))
        writes = {"grad.x": grad_x, **by_lane}
        writes |= {name.replace("state.", "grad.initial.", 1): grad for name, grad in before.items()}
        tensors = {**_tensors(reads), **_params(program, params), **writes}
        self.launch(Launch(program, x.dtype, plan, tensors, reads, num_lanes, call.first, inner, num_channels))
        for total, param in zip(sums, program.params, strict=True):
            if param.learnable:
                values = by_lane[f"sum.{param.name}"]
                total += sum_lanes(values, inner, num_channels if param.per_channel else 1).view(total.shape)
        return before


def sum_lanes(values: Tensor, inner: int, channels: int) -> Tensor:
    """The sum over the lanes of each channel, `[channels]`; the order depends on the sizes alone.

    Args:
        values: one number for each lane.
        inner: lane n belongs to channel n // inner % channels.
        channels: number of channels; 1 sums all lanes.
    """
    if channels == 1:
        inner = values.numel()
    by_channel = values.reshape(-1, channels, inner)
    if values.is_cuda:
        return by_channel.sum((0, 2))  # no atomics: torch adds up in an order of the sizes
    # torch's sums on the CPU depend on the number of threads; elementwise sums of halves do not.
    rows = by_channel.transpose(1, 2).reshape(-1, channels)
    while len(rows) > 1:
        half = (len(rows) + 1) // 2
        folded = rows[:half].clone()
        folded[: len(rows) - half] += rows[half:]
        rows = folded
    return rows[0]


def _scale_and_shift(call: NormCall, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Gamma and beta of a norm, `[C]`, written out where they are None."""
    scale = torch.ones_like(mean) if call.gamma is None else call.gamma
    shift = torch.zeros_like(mean) if call.beta is None else call.beta
    return scale, shift


def _var_mean(y: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (of the population) and mean of each channel of `[T, B, C, ...]`, in the dtype of the state."""
    wide = widen(y)
    if y.is_cuda:
        var, mean = torch.var_mean(wide, [axis for axis in range(y.dim()) if axis != 2], correction=0)
        return var, mean
    num_channels = y.shape[2]
    inner, count = math.prod(y.shape[3:]), y.numel() // num_channels
    mean = sum_lanes(wide.reshape(-1), inner, num_channels) / count
    centred = wide - along_channels(mean, y)
    return sum_lanes((centred * centred).reshape(-1), inner, num_channels) / count, mean


def _backward_reads(
    program: Program,
    saved: Sequence[Tensor],
    x: Tensor,
    states: Sequence[Tensor],
    grad_out: Tensor | None,
    grad_recorded: Sequence[Tensor | None],
) -> dict[str, Place]:
    """What every call of a backward pass reads: sequences, and rows or the initial states."""
    reads: dict[str, Place] = {"x": _place(x)}
    if grad_out is not None:
        reads["grad.out"] = _place(grad_out)
    for name, grad in zip(program.record, grad_recorded, strict=True):
        if grad is not None:
            reads[f"grad.recorded.{name}"] = _place(grad)
    if saved:
        reads |= {f"row.{name}": Place(rows, 0, 1) for name, rows in zip(program.states, saved, strict=True)}
    else:
        reads |= {
            f"state.{name}": Place(*read_state(state)) for name, state in zip(program.states, states, strict=True)
        }
    return reads


def _empty(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    return like.new_empty(shape, dtype=dtype)


def _place(x: Tensor) -> Place:
    """Of a sequence `[T, ...]`: where it is, if its lanes are rows at equal distances; otherwise of a copy."""
    # (size, stride) of the axes behind T; axes that lie in memory as one axis are joined.
    groups: list[tuple[int, int]] = []
    for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True):
        if groups and groups[-1][1] == stride * size:
            groups[-1] = (groups[-1][0] * size, stride)
        elif size != 1:
            groups.append((size, stride))
    step = x.stride(0) if x.shape[0] > 1 else 0
    if len(groups) == 2 and groups[1][1] == 1:
        return Place(x, step, 1, width=groups[1][0], row=groups[0][1])
    if len(groups) == 1 and groups[0][1] > 1:
        return Place(x, step, 1, width=1, row=groups[0][1])
    return Place(*read_sequence(x))


def _tensors(reads: Mapping[str, Place]) -> dict[str, Tensor]:
    return {name: place.tensor for name, place in reads.items()}


def _params(program: Program, params: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"param.{param.name}": value.contiguous() for param, value in zip(program.params, params, strict=True)}


def _uniform(reads: Mapping[str, Place]) -> frozenset[str]:
    return frozenset(name for name, place in reads.items() if place.lane == 0)


def _split(reads: Mapping[str, Place]) -> frozenset[str]:
    return frozenset(name for name, place in reads.items() if place.width)


def _is_aligned(reads: Mapping[str, Place], num_lanes: int) -> bool:
    distances = [num_lanes]
    for place in reads.values():
        distances += [place.step, place.width, place.row]
    return all(distance % ALIGNMENT == 0 for distance in distances)
