"""Where the samples of a batch lie in every value of a net, and which calls do not treat them one by one.

In multi-step mode a converted net runs with the steps of all samples as one large batch, `[T * B, ...]`. That gives
the numbers of the given net only where every call treats samples one by one, so that

    f(a and b, joined along the batch) = f(a) and f(b), joined along one axis

Softmax or sums along the batch, `x / x.shape[0]`, `x[0]` and `x.view(2, -1)` break this. No table of functions knows
all of these, so each call is tried: with random numbers of its own for every input that depends on the data, hence
whatever the layers before it do, for a batch `a`, a batch `b` of another size, and both together.
"""

from __future__ import annotations

import linecache
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.nn import NetGraph, NetNode, Ref, Stateful

SIZES = (2, 3)
"""Samples in `a` and in `b`."""
SHIFT = 7919
"""Between the starts of two tensors in the row of random numbers: a prime, so that they differ."""
MOST_CALLS = 1 << 16
TOLERANCE = 1e-4
"""Of the largest value: products of other sizes are summed in another order."""

_Runs = tuple[Any, Any, Any]
"""One value for `a`, for `b`, and for both together."""


@dataclass(frozen=True)
class Samples:
    """What the trials have shown.

    Args:
        axes: node → axis of its tensor along which the samples lie, one entry each; None where the axis holds more,
            such as the tokens of all samples, or there is none. Without those that could not be tried.
        problems: node that does not treat samples one by one → what it does, in words.
    """

    axes: Mapping[str, int | None]
    problems: Mapping[str, str]


def find_samples(graph: NetGraph, example: Tensor, dependent: frozenset[str]) -> Samples:
    """Try every call of a net that takes one batch `[B, ...]`.

    Args:
        graph: in evaluation mode, traced with `example`.
        example: `[B, ...]`.
        dependent: nodes whose tensors depend on the input. Only these are judged: `torch.arange(x.shape[0])` alone does
            no harm.
    """
    numbers = _Numbers()
    runs: dict[str, _Runs] = {}
    axes: dict[str, int | None] = {}
    problems: dict[str, str] = {}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for node in graph:
            if node.kind == "input":
                runs[node.name] = _inputs(example, numbers)
            elif node.kind == "attribute":
                runs[node.name] = (graph.attribute(node),) * 3
            elif all(name in runs for name in node.inputs):
                try:
                    runs[node.name] = _results(graph, node, runs)
                except Exception as error:
                    # It ran with the example; what differs is the number of samples.
                    problems[node.name] = _problem(node, f"fails for another size of the batch ({error})")
                    continue
            else:
                continue  # behind a problem
            if node.name in dependent and not _is_by_sample(runs[node.name]):
                again = _again(graph, node, runs)
                if not _is_random(runs[node.name], again):
                    del runs[node.name]
                    problems[node.name] = _problem(
                        node,
                        "runs along the batch, or computes with its size: samples would mix, and steps with them; use "
                        "the axes after the first alone, and x.shape[0] for shapes alone",
                    )
                    continue
            if isinstance(runs[node.name][2], Tensor):
                axes[node.name] = _axis(runs[node.name], SIZES)
            if node.name in dependent:
                runs[node.name] = _renewed(runs[node.name], numbers)
    return Samples(axes, problems)


def _problem(node: NetNode, text: str) -> str:
    file, _, line = node.place.rpartition(":")
    source = linecache.getline(file, int(line)).strip() if file else ""
    return f"{node.operation} {text}" + (f"\n      {source}" if source else "")


def _inputs(example: Tensor, numbers: _Numbers) -> _Runs:
    if example.is_floating_point():
        a, b = (numbers.like(example, (size, *example.shape[1:])) for size in SIZES)
    else:
        rows = example.repeat(-(-sum(SIZES) // len(example)), *([1] * (example.dim() - 1)))
        a, b = rows[: SIZES[0]], rows[SIZES[0] : sum(SIZES)]
    return a, b, torch.cat([a, b])


class _Numbers:
    """Random numbers, each tensor others: parts of one long row, since drawing them takes longer than the calls."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._row = torch.empty(0, dtype=torch.float64)
        self._start = 0

    def like(self, value: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """For a tensor of this dtype, device and shape."""
        shape = tuple(value.shape) if shape is None else shape
        count = math.prod(shape)
        if len(self._row) <= 2 * count:
            self._row = torch.randn(4 * count + MOST_CALLS, generator=self._generator, dtype=value.dtype)
        self._start = (self._start + SHIFT) % (len(self._row) - count)
        return self._row[self._start : self._start + count].reshape(shape).to(value)


def _results(graph: NetGraph, node: NetNode, runs: Mapping[str, _Runs]) -> _Runs:
    results: list[Any] = []
    for place, size in enumerate((*SIZES, sum(SIZES))):
        values = {name: runs[name][place] for name in node.inputs}
        if _is_known(node, graph, runs):
            results.append(_by_form(node, graph, values, size))
            continue
        results.append(graph.call(node, _filled(tuple(node.args), values), _filled(dict(node.kwargs), values)))
    return results[0], results[1], results[2]


def _is_known(node: NetNode, graph: NetGraph, runs: Mapping[str, _Runs]) -> bool:
    """Whether a call treats samples one by one by its contract: a neuron, or a convolution, which would take long."""
    module = node.module
    if module is None:
        return False
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and len(node.inputs) == 1:
        given = runs[node.inputs[0]]
        return given[0].dim() == 2 + len(module.kernel_size) and _axis(given, SIZES) == 0
    return any(isinstance(part, Stateful) and part.state_names != () for part in module.modules())


def _by_form(node: NetNode, graph: NetGraph, values: Mapping[str, Any], size: int) -> Any:
    """Something of the form that the output has, which differs from sample to sample."""
    value = values[node.inputs[0]]
    shape = graph[node.inputs[0]].shape
    if node.shape == shape or node.shape is None:
        return value
    # A different number for each sample, the same alone as among others.
    first = value.flatten(1)[:, 0] if value.dim() > 1 else value
    return first.reshape(size, *([1] * (len(node.shape) - 1))).expand(size, *node.shape[1:])


def _filled(value: Any, by_name: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return by_name[value.name]
    if isinstance(value, tuple):
        parts = [_filled(part, by_name) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_filled(part, by_name) for part in value]
    if isinstance(value, dict):
        return {key: _filled(part, by_name) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(_filled(part, by_name) for part in (value.start, value.stop, value.step)))
    return value


def _is_by_sample(runs: _Runs) -> bool:
    """Whether what comes of `a` and `b` together is what comes of each, joined along one axis; or of neither."""
    a, b, both = runs
    if isinstance(both, tuple | list):
        if not len(a) == len(b) == len(both):
            return False
        return all(_is_by_sample(parts) for parts in zip(a, b, both, strict=True))
    if not isinstance(both, Tensor) or not both.is_floating_point():
        return True  # judged where it is used
    if a.shape == b.shape == both.shape:
        return _are_equal(a, both) and _are_equal(b, both)
    axis = _axis(runs)
    return axis is not None and _are_equal(torch.cat([a, b], axis), both)


def _axis(runs: _Runs, sizes: tuple[int, int] | None = None) -> int | None:
    """The one axis whose length differs; with `sizes`, only where it has as many entries as there are samples."""
    a, b, both = runs
    if not a.dim() == b.dim() == both.dim():
        return None
    differing = [axis for axis in range(both.dim()) if not a.shape[axis] == b.shape[axis] == both.shape[axis]]
    if len(differing) != 1:
        return None
    (axis,) = differing
    lengths = a.shape[axis], b.shape[axis]
    if sum(lengths) != both.shape[axis] or (sizes is not None and lengths != sizes):
        return None
    return axis


def _are_equal(value: Tensor, other: Tensor) -> bool:
    if torch.equal(value, other):  # as of most calls, and much quicker
        return True
    # What overflows does so in any order; whether to infinity or NaN depends on it.
    known = value.isfinite() & other.isfinite()
    value, other = torch.where(known, value, 0.0), torch.where(known, other, 0.0)
    scale = float(other.abs().max()) if other.numel() else 0.0
    return torch.allclose(value, other, rtol=TOLERANCE, atol=TOLERANCE * scale)


def _again(graph: NetGraph, node: NetNode, runs: Mapping[str, _Runs]) -> Any:
    return None if node.kind == "input" else _results(graph, node, runs)[2]


def _is_random(runs: _Runs, again: Any) -> bool:
    """Whether the same values give another result: then the trial shows nothing."""
    both = runs[2]
    return isinstance(both, Tensor) and isinstance(again, Tensor) and not _are_equal(again, both)


def _renewed(runs: _Runs, numbers: _Numbers) -> _Runs:
    """Random numbers in place of tensors along whose one axis the samples lie; anything else as it is."""
    a, b, both = runs
    if isinstance(both, tuple | list):
        parts = [_renewed(part, numbers) for part in zip(a, b, both, strict=True)]
        return tuple(part[0] for part in parts), tuple(part[1] for part in parts), tuple(part[2] for part in parts)
    if not isinstance(both, Tensor) or not both.is_floating_point():
        return runs
    axis = _axis(runs)
    if axis is None:
        return runs
    a, b = (numbers.like(value) for value in (a, b))
    return a, b, torch.cat([a, b], axis)
