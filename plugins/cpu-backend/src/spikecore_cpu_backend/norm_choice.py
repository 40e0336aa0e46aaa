"""Whether batch norm in training and neuron are faster in one call or one by one: measured once per class of calls.

One call goes through memory less often; two have less to do in Python, and torch's norm is fast where everything stays
in the caches. Few elements are not worth one call on any machine that was measured, many are on all; in between both
ways are timed on the sequence at hand, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikecore.backends.kit import NormCall, is_channels_last, to_rows
from spikecore.dynamics import Program
from spikecore_cpu_backend.kernels import Runtime
from spikecore_cpu_backend.measured import Measured, best_times

if TYPE_CHECKING:
    from spikecore_cpu_backend.backend import CPUBackend

FEWEST = 1 << 17
"""Elements of y below which the time of Python decides."""
MOST = 1 << 21
"""Elements from which on one call was 1.3 times as fast or more on every machine."""
MARGIN = 0.95
"""One call must be faster by this much: about what its longer way through Python takes, which is not timed."""
ROUNDS = 3
EPS = 1e-5
Call = Callable[[], Tensor | None]


@dataclass(frozen=True)
class NormClass:
    """Calls for which one answer holds.

    Args:
        program: key of the neuron's program.
        channels: of y as `[T, outer, channels, inner]`.
        log_steps, log_outer, log_inner: binary logarithms of its other axes, rounded down.
        channels_last: memory format of y.
        dtype: of y.
        threads: of torch.
    """

    program: str
    channels: int
    log_steps: int
    log_outer: int
    log_inner: int
    channels_last: bool
    dtype: str
    threads: int


class NormChoice:
    """Finds the answers.

    Args:
        runtime: whose kernels are timed.
    """

    def __init__(self, runtime: Runtime) -> None:
        identity = f"{runtime.cache.compiler.identity}\n{runtime.identity}\n{MARGIN}"
        self._measured = Measured(runtime.cache.store.folder / "norms", "together", identity)

    def is_together(self, backend: CPUBackend, program: Program, y: Tensor) -> bool:
        """Is one call of this backend faster for y `[T, B, C, ...]`, forward and backward?"""
        count = y.numel()
        if count < FEWEST or count >= MOST:
            return count >= MOST
        num_steps, outer, channels = y.shape[:3]
        inner = count // (num_steps * outer * channels)
        logs = [size.bit_length() - 1 for size in (num_steps, outer, inner)]
        threads = torch.get_num_threads()
        kind = NormClass(program.key, channels, *logs, is_channels_last(y, 1), str(y.dtype), threads)
        return bool(self._measured.of(kind, lambda: _measure(backend, program, y.detach(), threads)))


def _measure(backend: CPUBackend, program: Program, y: Tensor, threads: int) -> float:
    with torch.no_grad():
        candidates = _candidates(backend, program, y)
        if candidates[0]() is None:
            return 0.0
        together, apart = best_times(candidates, ROUNDS, threads)
    return float(together < MARGIN * apart)


def _candidates(backend: CPUBackend, program: Program, y: Tensor) -> tuple[Call, Call]:
    """Both ways, on y itself, to the gradient of y or its rows; None where one call does not take it.

    The gradient that arrives and all else that a call needs are made up.
    """
    key = program.key
    wide = torch.float64 if y.dtype == torch.float64 else torch.float32
    num_steps, channels = y.shape[0], y.shape[2]
    rows = to_rows(y, 1) if is_channels_last(y, 1) else y
    states = [y.new_zeros((), dtype=wide).expand(rows.shape[1:]) for _ in program.states]
    params = [y.new_ones(channels if param.per_channel else (), dtype=wide) for param in program.params]
    gamma, beta = y.new_ones(channels, dtype=wide), y.new_zeros(channels, dtype=wide)
    grad = torch.ones_like(rows)
    none: list[Any] = [None] * len(program.states)
    none_recorded: list[Any] = [None] * len(program.record)

    def together() -> Tensor | None:
        call = NormCall(key, rows, gamma, beta, EPS, states, params)
        results = backend.norm_neuron(call, True, False)
        if results is None:
            return None
        return backend.norm_neuron_grad(call, results[5], grad, none, none_recorded, False)[0]

    def apart() -> Tensor:
        flat = y.flatten(0, 1)
        normed, mean, inverse = torch.native_batch_norm(flat, gamma, beta, None, None, True, 0.1, EPS)
        x = normed.view(num_steps, -1, *normed.shape[1:])
        x = to_rows(x, 1) if rows is not y else x
        *_, kept = backend.run(key, x, states, params, True, False)
        grad_x, *_ = backend.run_bwd(key, kept, x, states, params, grad, none, none_recorded)
        grad_y: Tensor = torch.ops.aten.native_batch_norm_backward(
            _like(grad_x, flat), flat, gamma, None, None, mean, inverse, True, EPS, [True, True, True]
        )[0]
        return to_rows(grad_y, 0) if rows is not y else grad_y

    return together, apart


def _like(grad: Tensor, flat: Tensor) -> Tensor:
    """Gradients of a sequence or of its rows, in the shape and memory format of the input of torch's norm."""
    if grad.dim() == flat.dim() + 1:
        return grad.flatten(0, 1)
    return grad.view(flat.shape[0], *flat.shape[2:], flat.shape[1]).movedim(-1, 1)
