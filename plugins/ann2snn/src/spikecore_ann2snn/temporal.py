"""Temporal differences: any function of batches as one of sequences whose mean it keeps.

Let m[t] be the mean of the first t inputs. Then

    y[t] = t f(m[t]) - (t - 1) f(m[t - 1])        so that        1/t Σ y[k] = f(m[t])        for every t

The mean output over T steps is exactly what `f` makes of the mean input: softmax, norms, attention and GELU of a
transformer lose nothing. Inputs that do not depend on time, such as weights, are handed on. For a function with
f(a x) = a f(x), a > 0, such as max pooling, sums stand in for means: y[t] = f(s[t]) - f(s[t - 1]); where the inputs are
spikes of one height, so are the outputs.

Source: Huang et al., Towards High-performance Spiking Transformers from ANN to SNN Conversion (2024), the expectation
compensation module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.nn import NetGraph, NetNode, Ref, Stateful
from spikecore_ann2snn.operations import function_of


class Call(nn.Module):
    """One call of a graph as a module of its node's inputs."""

    def __init__(self, node: NetNode, graph: NetGraph) -> None:
        super().__init__()
        self.names = node.inputs
        self.template = (tuple(node.args), dict(node.kwargs))
        self.module: nn.Module | None = None
        self.function: Callable[..., Any] | None = None
        if node.kind == "module":
            self.module = node.module
        else:
            self.function = function_of(node)

    def forward(self, *values: Any) -> Any:
        """The call's result for these values of `node.inputs`."""
        by_name = dict(zip(self.names, values, strict=True))
        args, kwargs = (_filled(part, by_name) for part in self.template)
        called = self.module if self.module is not None else self.function
        assert called is not None
        return called(*args, **kwargs)


def _filled(value: Any, by_name: dict[str, Any]) -> Any:
    if isinstance(value, Ref):
        return by_name[value.name]
    if isinstance(value, tuple | list):
        return type(value)(_filled(part, by_name) for part in value)
    if isinstance(value, dict):
        return {key: _filled(part, by_name) for key, part in value.items()}
    return value


class TemporalDifference(Stateful):
    """A function of batches, for sequences; see the module's docstring.

    Args:
        function: `(*values) -> tensor`, or a tuple of tensors and None, each with the batch as its first axis.
        has_time: for each value, whether it is a sequence; the others are handed on.
        is_homogeneous: f(a x) = a f(x) for a > 0.

    State: the sum of all inputs so far, `[B, N]`, flat and side by side, and their number, `[B, 1]`.
    """

    def __init__(self, function: nn.Module, has_time: Sequence[bool], is_homogeneous: bool = False) -> None:
        super().__init__()
        self.function = function
        self.has_time, self.is_homogeneous = tuple(has_time), is_homogeneous

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("sum", "count")

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """Zeros for the flat inputs `x` `[B, N]` of one step."""
        return {"sum": torch.zeros_like(x), "count": x.new_zeros(x.shape[0], 1)}

    def forward(self, *values: Any) -> Any:
        """`[T, B, ...]` or `[B, ...]` by `step_mode` → likewise.

        Raises:
            StateShapeError: the kept state belongs to inputs of another shape.
        """
        is_multi = self.step_mode == "multi"
        given = [value for value, has_time in zip(values, self.has_time, strict=True) if has_time]
        sequences = [value if is_multi else value.unsqueeze(0) for value in given]
        if not sequences[0].shape[0]:
            return self._of_nothing(values, sequences)
        state = self.state_for(_flat([sequence[0] for sequence in sequences]))
        before, count = state["sum"], state["count"]
        sums = [
            sequence.cumsum(0) + part
            for sequence, part in zip(sequences, _parts(before, [s[0] for s in sequences]), strict=True)
        ]
        steps = torch.arange(1, sequences[0].shape[0] + 1, device=before.device, dtype=before.dtype)
        counts = count + steps.reshape(-1, 1, 1)
        totals, is_single = self._totals(values, sums, counts)
        # A sequence that begins has nothing before it; f of it need not exist.
        if self.keeps_state:
            old = [part.unsqueeze(0) for part in _parts(before, [sequence[0] for sequence in sequences])]
            past, _ = self._totals(values, old, count.clamp(min=1).unsqueeze(0))
        else:
            past = [None if total is None else torch.zeros_like(total[:1]) for total in totals]
        outs: list[Tensor | None] = []
        for total, first in zip(totals, past, strict=True):
            if total is None or first is None:
                outs.append(None)
                continue
            known = torch.where(_like(count.unsqueeze(0) > 0, first), first, torch.zeros_like(first))
            outs.append(total - torch.cat([known, total[:-1]]))
        final = {"sum": _flat([value[-1] for value in sums]), "count": counts[-1]}
        tensors = [out if is_multi else out.squeeze(0) for out in outs if out is not None]
        kept = iter(self.keep(final, *tensors))
        results = [None if out is None else next(kept) for out in outs]
        return results[0] if is_single else tuple(results)

    def _totals(self, values: Sequence[Any], sums: list[Tensor], counts: Tensor) -> tuple[list[Tensor | None], bool]:
        """`t f(m[t])` for sums `[T, B, ...]` after `counts` `[T, B, 1]` steps; whether f gives one tensor alone."""
        lead = sums[0].shape[:2]
        means = sums if self.is_homogeneous else [value / _like(counts, value) for value in sums]
        folded = iter([value.flatten(0, 1) for value in means])
        args = [next(folded) if has_time else value for value, has_time in zip(values, self.has_time, strict=True)]
        result = self.function(*args)
        is_single = isinstance(result, Tensor)
        results = (result,) if is_single else tuple(result)
        totals: list[Tensor | None] = []
        for part in results:
            unfolded = None if part is None else part.reshape(*lead, *part.shape[1:])
            if unfolded is None or self.is_homogeneous:
                totals.append(unfolded)
            else:
                totals.append(unfolded * _like(counts, unfolded))
        return totals, is_single

    def _of_nothing(self, values: Sequence[Any], sequences: list[Tensor]) -> Any:
        """The result for T = 0: empty, of the right shape."""
        steps = [sequence.new_zeros(1, *sequence.shape[1:]) for sequence in sequences]
        totals, is_single = self._totals(values, steps, steps[0].new_ones(1, steps[0].shape[1], 1))
        results = [None if total is None else total[:0] for total in totals]
        return results[0] if is_single else tuple(results)


def _flat(steps: Sequence[Tensor]) -> Tensor:
    """Steps `[B, ...]` side by side: `[B, N]`."""
    return torch.cat([step.flatten(1) if step.dim() > 1 else step.unsqueeze(1) for step in steps], 1)


def _parts(flat: Tensor, steps: Sequence[Tensor]) -> list[Tensor]:
    """The way back."""
    sizes = [step[0].numel() if step.shape[0] else 0 for step in steps]
    if not flat.shape[0]:
        return [torch.zeros_like(step) for step in steps]
    return [part.reshape(step.shape) for part, step in zip(flat.split(sizes, 1), steps, strict=True)]


def _like(value: Tensor, other: Tensor) -> Tensor:
    """`[T, B, 1]` or `[B, 1]` with as many axes as `other`."""
    lead = value.dim() - 1
    return value.reshape(*value.shape[:lead], *([1] * (other.dim() - lead)))
