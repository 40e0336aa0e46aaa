"""Readouts: the output of a net over time → one score per class.

out [T, B, C, ...] → [B, C, ...]

rate          r = 1/T Σ_t out[t]
count         n = Σ_t out[t]
last          out[T - 1]
max           max_t out[t]                               the largest membrane potential
max_abs       out[argmax_t |out[t]|]                     the one farthest from 0, with its sign
first_spike   -t1,  t1 = Σ_t Π_{k<=t} (1 - out[k])       t1: steps before the first spike; T without one

In a configuration they have these names; plugins add others, as `spikecore.choices` named `readout.NAME`.
Half precision is summed in float32, and the result is float32. For padded batches see `over_own_steps`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from spikecore.errors import InputError, ShapeError
from spikecore.nn.half import widened

__all__ = [
    "count",
    "first_spike",
    "first_spike_time",
    "last",
    "max_abs_over_time",
    "max_over_time",
    "over_own_steps",
    "rate",
    "trusted_values",
]


_trust = threading.local()


@contextmanager
def trusted_values() -> Iterator[None]:
    """Inside, in this thread, losses and readouts do not read the values of outputs and targets to check them.

    Each such check waits for a GPU. A training loop whose labels are checked on the CPU checks the first batch of an
    epoch, and trusts the values of the others. Shapes and dtypes are always checked.
    """
    before = getattr(_trust, "is_given", False)
    _trust.is_given = True
    try:
        yield
    finally:
        _trust.is_given = before


def _one_call(readout: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Lets whoever follows a net through torch's functions see the readout as one of them, without its checks."""

    @functools.wraps(readout)
    def call(out: Tensor) -> Tensor:
        if has_torch_function_unary(out):
            result: Tensor = handle_torch_function(call, (out,), out)
            return result
        return readout(out)

    return call


@_one_call
def rate(out: Tensor) -> Tensor:
    """Mean over time: of spikes, the firing rate per step.

    Args:
        out: `[T, B, C, ...]`, T >= 1.

    Returns:
        `[B, C, ...]`.

    Raises:
        ShapeError: fewer than three axes, or T = 0.
        TypeError: not floating point.

    Example:
        >>> rate(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])).tolist()
        [[1.0, 0.5]]
    """
    return wide_sequence(out, "rate").mean(0)


@_one_call
def count(out: Tensor) -> Tensor:
    """Sum over time: of spikes, their number. Shapes and errors as `rate`.

    Example:
        >>> count(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])).tolist()
        [[2.0, 1.0]]
    """
    return wide_sequence(out, "count").sum(0)


@_one_call
def last(out: Tensor) -> Tensor:
    """The last step. Shapes and errors as `rate`.

    Example:
        >>> last(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])).tolist()
        [[1.0, 1.0]]
    """
    return wide_sequence(out, "last")[-1]


@_one_call
def max_over_time(out: Tensor) -> Tensor:
    """The largest value over time. Shapes and errors as `rate`.

    Gradients: to the step of the maximum; divided equally among equal maxima.

    Example:
        >>> max_over_time(torch.tensor([[[0.2, -1.0]], [[0.1, -3.0]]])).tolist()
        [[0.20000000298023224, -1.0]]
    """
    return wide_sequence(out, "max").amax(0)


@_one_call
def max_abs_over_time(out: Tensor) -> Tensor:
    """The value farthest from 0 over time, with its sign; on a tie, the first. Shapes and errors as `rate`.

    Gradients: to its step.

    Example:
        >>> max_abs_over_time(torch.tensor([[[0.5, -1.0]], [[0.25, -3.0]]])).tolist()
        [[0.5, -3.0]]
    """
    sequence = wide_sequence(out, "max_abs")
    return sequence.gather(0, sequence.abs().argmax(0, keepdim=True)).squeeze(0)


@_one_call
def first_spike_time(spikes: Tensor) -> Tensor:
    """Steps before the first spike: 0 for a spike in the first step, T without a spike.

        t1 = Σ_{t<T} Π_{k<=t} (1 - s[k])

    Values between 0 and 1 (a smooth surrogate) are taken for probabilities; t1 is then the expected time.

    Args:
        spikes: `[T, B, C, ...]`, values from 0 to 1.

    Returns:
        `[B, C, ...]`, in steps.

    Raises:
        ShapeError: fewer than three axes, or T = 0.
        TypeError: not floating point.
        InputError: a value outside 0 .. 1, or NaN (not looked at under torch.compile and vmap).

    Gradients: those of the formula, which is linear in each s[k]: dt1/ds[k] is how much t1 changes when a spike is put
        at k. An earlier spike than the first one brings t1 down to k, so its gradient is k - t1; later steps than the
        second spike have gradient 0.

    Example:
        >>> first_spike_time(torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]], [[1.0, 1.0]]])).tolist()
        [[2.0, 0.0]]
    """
    sequence = wide_sequence(spikes, "first_spike_time")
    bounds = value_bounds(sequence)
    if bounds is not None and not (bounds[0] >= 0 and bounds[1] <= 1):
        raise InputError(
            f"first_spike_time takes spikes, values from 0 to 1, got {bounds[0]:g} to {bounds[1]:g}: end the net with "
            "a spiking neuron, or choose a readout for real values (rate, max, last)"
        )
    return torch.cumprod(1 - sequence, 0).sum(0)


@_one_call
def first_spike(spikes: Tensor) -> Tensor:
    """`-first_spike_time(spikes)`: the class that fires first has the highest score.

    Example:
        >>> first_spike(torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])).tolist()
        [[-1.0, -0.0]]
    """
    return -first_spike_time(spikes)


def over_own_steps(function: Callable[..., Tensor], out: Tensor, mask: Tensor | None, *per_sample: Tensor) -> Tensor:
    """`function(out, *per_sample)` as if every sample came alone and had never been padded.

    Samples with equally many steps are taken together, so any readout or loss counts steps, takes the last one, or
    looks at each of them without knowing of padding; values and gradients are those of the samples one by one.

    Args:
        function: of `[T, B, ...]` and what belongs to the samples, `[B, ...]` → `[B, ...]`, sample by sample.
        out: `[T, B, ...]`.
        mask: bool `[T, B]`, True for a sample's own steps (`Batch.mask`); None: all of them.
        per_sample: `[B, ...]`, such as labels.

    Raises:
        ShapeError: the mask has another shape, or a sample has no step.
        TypeError: the mask is not bool.

    Gradients: padded steps get 0.

    Example:
        >>> out = torch.tensor([[[1.0], [1.0]], [[3.0], [9.0]]])
        >>> over_own_steps(last, out, torch.tensor([[True, True], [True, False]])).tolist()
        [[3.0], [1.0]]
    """
    if mask is None:
        return function(out, *per_sample)
    check_mask(mask, out)
    by_sample, own = out.transpose(0, 1), mask.to(out.device).T  # [B, T, ...] and [B, T]
    counts = mask.sum(0)
    results, order = [], []
    for length in sorted(set(counts.tolist())):
        samples = (counts == length).nonzero().squeeze(1).to(out.device)
        # A bool index joins the steps of all these samples, one sample after the other.
        steps = by_sample[samples][own[samples]].reshape(len(samples), length, *out.shape[2:])
        results.append(function(steps.transpose(0, 1), *(values[samples] for values in per_sample)))
        order.append(samples)
    return torch.cat(results)[torch.argsort(torch.cat(order))]


def check_mask(mask: Tensor, out: Tensor) -> None:
    """Refuse what is no mask of the samples' own steps for an output `[T, B, ...]`.

    Raises:
        TypeError: it is not bool.
        ShapeError: it is not `[T, B]`, or a sample has no step.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"a mask of steps is bool, got {mask.dtype}")
    if mask.shape != out.shape[:2]:
        raise ShapeError(f"a mask of steps is [T, B] = {tuple(out.shape[:2])} for this output, got {tuple(mask.shape)}")
    has_steps = mask.any(0)
    if not bool(has_steps.all()):
        raise ShapeError(f"sample {int(has_steps.int().argmin())} of the batch has no step of its own")


def wide_sequence(out: Tensor, name: str) -> Tensor:
    """`out`, checked to be `[T, B, C, ...]`, half precision as float32."""
    if not out.is_floating_point():
        raise TypeError(f"{name} takes floating-point values, got {out.dtype}: call .float() on them")
    if out.dim() < 3 or not out.shape[0]:
        raise ShapeError(
            f"{name} takes the output over time [T, B, C, ...] with T >= 1, got {tuple(out.shape)}: "
            "run the net in step_mode 'multi', or stack the outputs of its steps"
        )
    return widened(out)


def value_bounds(values: Tensor) -> tuple[float, float] | None:
    """Smallest and largest value (NaN if one is); None where they are not read: empty, compiled, vmapped, trusted."""
    if not values.numel() or torch.compiler.is_compiling() or getattr(_trust, "is_given", False):
        return None
    bounds = torch.stack(torch.aminmax(values.detach()))
    try:
        low, high = bounds.tolist()  # both at once: the device is waited for once
        return low, high
    except RuntimeError:  # inside torch.func.vmap a tensor has no single value
        return None
