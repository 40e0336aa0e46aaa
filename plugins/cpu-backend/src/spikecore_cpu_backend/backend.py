"""The backend `cpu`: prints a program as C, compiles it once, and calls it on the addresses of tensors."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore.dynamics import Program
from spikecore.errors import BackendError
from spikecore.interfaces import BackendCapabilities, Configurable, Range, Support, make_config
from spikecore_cpu_backend import layout, tuning
from spikecore_cpu_backend.cache import KernelCache, default_folder
from spikecore_cpu_backend.compiler import TIMEOUT_S, Compiler
from spikecore_cpu_backend.kernels import ELEMENTS, Kernel, Runtime
from spikecore_cpu_backend.memory import Recycler
from spikecore_cpu_backend.printer import MAX_TENSORS

_LIVE: weakref.WeakSet[CPUBackend] = weakref.WeakSet()


class CPUBackend(Configurable):
    """Every neuron as a fused C kernel, compiled on first use.

    Raises:
        PluginUnavailable: no C compiler works here, or this is not Linux.
        BackendError: the compiler refuses the runtime.
    """

    capabilities: ClassVar[BackendCapabilities] = BackendCapabilities(priority=100, affine_neuron=True)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            compiler: path or name of the C compiler; by default the first of cc, gcc, clang that works.
            cache_dir: where compiled kernels are kept; by default under the user's cache directory.
            compile_timeout_s: seconds after which a compilation is stopped.
            recycle_mib: how much memory of results may be kept for the next ones.
            keep: what a forward pass keeps for the gradient, per element-step. `input`: x itself, 4 bytes in float32,
                and the steps run again. `distance`: u = h - v_threshold instead of x, 4 bytes; `distance_bf16`: u
                rounded to 2 bytes, gradients exact to about 1e-3. Where u is not enough (a learnable time constant,
                a quadratic charge), x is kept. `auto`: what measured fastest.
        """

        compiler: str = ""
        cache_dir: str = ""
        compile_timeout_s: Annotated[float, Range(gt=0.0)] = TIMEOUT_S
        recycle_mib: Annotated[int, Range(ge=0)] = 1024
        keep: Literal["auto", "input", "distance", "distance_bf16"] = "auto"

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)
        folder = Path(self.config.cache_dir).expanduser() if self.config.cache_dir else default_folder()
        self.runtime = Runtime(KernelCache(self.config.compiler, folder, self.config.compile_timeout_s))
        self.recycler = Recycler(self.config.recycle_mib << 20)
        self._programs: dict[str, Program] = {}
        self._kernels: dict[tuple[str, torch.dtype], Kernel] = {}
        _LIVE.add(self)

    @property
    def compiler(self) -> Compiler:
        """The one that compiles now."""
        return self.runtime.cache.compiler

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """Any program, for CPU tensors; its kernel is compiled here, so that a failure shows before the choice."""
        if device.type != "cpu":
            return Support(False, f"runs on the CPU, not on {device.type}")
        if dtype not in ELEMENTS:
            return Support(False, f"takes float16, bfloat16, float32 and float64, not {dtype}")
        if dtype == torch.float16 and not self.runtime.has_float16:
            return Support(False, f"{self.compiler.path} has no 16-bit floats for this processor")
        largest = max(len(program.states), len(program.params))
        if largest > MAX_TENSORS:
            return Support(False, f"at most {MAX_TENSORS} states and parameters, {program.name} has {largest}")
        try:
            self._compiled(program, dtype)
        except BackendError as error:
            return Support(False, str(error))
        return Support(True)

    def learn(self, program: Program) -> None:
        """See `interfaces.backend.Backend.learn`."""
        self._programs[program.key] = program

    def saved_like(self, key: str, x: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """u, or nothing where the backward pass runs the steps again from x."""
        dtype = self._kept_dtype(key, x)
        return [] if dtype is None else [x.new_empty(x.shape, dtype=dtype)]

    def reads_input(self, key: str, saved: Sequence[Tensor]) -> bool:
        """Not where u is kept."""
        return len(saved) == 0  # torch.compile traces this, and knows no `not` of a tuple

    def _kept_dtype(self, key: str, x: Tensor) -> torch.dtype | None:
        """What u is kept as; None: x is kept."""
        keep = self.config.keep
        if keep == "input":
            return None
        kernel = self._kernels.get((key, x.dtype)) or self._found(key, x.dtype)
        if not kernel.can_keep:
            return None
        if keep == "auto":
            pays = tuning.distance_pays(kernel.element_bytes, kernel.state_dtype.itemsize, x.shape[0])
            return kernel.state_dtype if pays else None
        return torch.bfloat16 if keep == "distance_bf16" and kernel.state_dtype == torch.float32 else kernel.state_dtype

    def run(
        self, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """See `interfaces.backend.Backend.run`."""
        kernel = self._kernels.get((key, x.dtype)) or self._found(key, x.dtype)
        count = x.numel()
        if kernel.is_simple and not save and 0 < count < tuning.ALONE:
            found = _run_small(kernel, x, states, x.shape[0], count // x.shape[0], carry)
            if found is not None:
                return *found, [], []
        program, shape = kernel.program, x.shape
        kept_dtype = self._kept_dtype(key, x) if save else None
        num_lanes = count // shape[0] if count else math.prod(shape[1:])
        layout.checked(program, num_lanes, kernel.state_dtype, states, params)
        is_small = count < tuning.ALONE
        out = self._empty(shape, x.dtype, x)
        finals = [self._empty(state.shape, kernel.state_dtype, state) for state in states if carry]
        recorded = [self._empty((shape[0], *shape[1:]), kernel.state_dtype) for _ in program.record]
        uses = tuning.TRAINING if save else tuning.INFERENCE
        head = self._head(kernel, shape, num_lanes, uses, params)
        block = tuning.forward_block(num_lanes, head[3])
        used = [layout.sequence(x)]  # keeps copies alive
        kept = [] if kept_dtype is None else [self._empty(shape, kept_dtype)]
        numbers = [*head, block, 1, *_kept(kept), *_address(used[0]), out.data_ptr()]
        for index, state in enumerate(states):
            used.append(layout.state(state))
            numbers += (*_address(used[-1]), finals[index].data_ptr() if carry else 0)
        numbers += [each.data_ptr() for each in recorded]
        values = [param.contiguous() for param in params]
        numbers += [value.data_ptr() for value in values]
        call = kernel.forward.quick if is_small else kernel.forward.free
        _done(call(kernel.pack_forward(*numbers)))
        return out, finals, recorded, kept

    def step(
        self, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]] | None:
        """See `interfaces.backend`."""
        kernel = self._kernels.get((key, x.dtype)) or self._found(key, x.dtype)
        count = x.numel()
        return _run_small(kernel, x, states, 1, count, True) if kernel.is_simple and 0 < count < tuning.ALONE else None

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
        """See `interfaces.backend.Backend.run_bwd`."""
        kernel = self._kernels.get((key, x.dtype)) or self._found(key, x.dtype)
        program, shape, count = kernel.program, x.shape, x.numel()
        num_lanes = count // shape[0] if count else math.prod(shape[1:])
        layout.checked(program, num_lanes, kernel.state_dtype, states, params)
        is_small = count < tuning.ALONE
        grad_x = self._empty(shape, x.dtype, x)
        found = [self._empty(state.shape, kernel.state_dtype, state) for state in states]
        sums = [torch.zeros_like(param, memory_format=torch.contiguous_format) for param in params]
        head = self._head(kernel, shape, num_lanes, tuning.TRAINING, params)
        block, segment = tuning.backward_block(shape[0], num_lanes, len(states), kernel.state_dtype.itemsize)
        used = [layout.sequence(saved[0] if saved else x), layout.sequence(grad_out)]
        numbers = [*head, block, segment, *_kept(saved), *_address(used[0]), *_address(used[1]), grad_x.data_ptr()]
        for state, grad, result in zip(states, grad_states, found, strict=True):
            used += (layout.state(state), layout.state(grad))
            numbers += (*_address(used[-2]), *_address(used[-1]), result.data_ptr())
        arrives, arrives_recorded = _bits([grad_out, *grad_states]), 0
        for name, grad in zip(program.record, grad_recorded, strict=True):
            index = program.states.index(name)
            used.append(layout.sequence(grad))
            numbers += _address(used[-1])
            arrives_recorded |= (grad is not None) << 1 + index
        numbers += (arrives, arrives_recorded)
        values = [param.contiguous() for param in params]
        for value, total in zip(values, sums, strict=True):
            numbers += (value.data_ptr(), total.data_ptr())
        call = kernel.backward.quick if is_small else kernel.backward.free
        _done(call(kernel.pack_backward(*numbers)))
        return grad_x, found, sums

    def stream_copy(self, to: Tensor, source: Tensor) -> None:
        """Copy a contiguous tensor past the caches: the least that moving its bytes costs here."""
        if not (to.is_contiguous() and source.is_contiguous() and to.nbytes == source.nbytes):
            raise BackendError("stream_copy takes two contiguous tensors of one size")
        self.runtime.library.sc_copy(to.data_ptr(), source.data_ptr(), to.nbytes, torch.get_num_threads())

    def _head(
        self, kernel: Kernel, shape: Sequence[int], num_lanes: int, num_sequences: int, params: Sequence[Tensor]
    ) -> tuple[int, ...]:
        count = shape[0] * num_lanes
        threads = 1 if count < tuning.ALONE else torch.get_num_threads()
        inner, channels = layout.channels(kernel.program, shape, params) if params else (1, 1)
        streams = tuning.streams(count * kernel.element_bytes, num_sequences)
        return (kernel.address, shape[0], num_lanes, threads, inner, channels, kernel.element, streams)

    def _empty(self, shape: Sequence[int], dtype: torch.dtype, like: Tensor | None = None) -> Tensor:
        """A contiguous result; of a small one torch makes the fastest from a contiguous `like`."""
        if like is not None and like.nbytes < 1 << 16 and like.is_contiguous():
            return torch.empty_like(like)
        return self.recycler.empty(shape, dtype)

    def _compiled(self, program: Program, dtype: torch.dtype) -> Kernel:
        found = self._kernels.get((program.key, dtype))
        if found is None:
            found = self._kernels[program.key, dtype] = self.runtime.kernel(program, dtype)
        return found

    def _found(self, key: str, dtype: torch.dtype) -> Kernel:
        if key not in self._programs:
            raise BackendError(f"backend 'cpu' knows no neuron under the key {key!r}; call `learn` first")
        return self._compiled(self._programs[key], dtype)


def _run_small(
    kernel: Kernel, x: Tensor, states: Sequence[Tensor], num_steps: int, num_lanes: int, carry: bool
) -> tuple[Tensor, list[Tensor]] | None:
    """Out and final states for the commonest form of a small call, where every line of Python shows; None for others.

    `x` has T in front or, for one step, has not. Without `carry` there are no final states.
    """
    if not x.is_contiguous() or len(states) != kernel.num_states:
        return None
    dtype, empty_like = kernel.state_dtype, torch.empty_like
    out = empty_like(x)
    numbers = [kernel.address, num_steps, num_lanes, 1, 1, 1, kernel.element, 0, 1024, 1, 0, 0]
    numbers += (x.data_ptr(), num_lanes, 1, out.data_ptr())
    finals = []
    for state in states:
        if state.numel() != num_lanes or state.dtype is not dtype or not (state.is_contiguous() and state.is_cpu):
            return None
        numbers += (state.data_ptr(), 0, 1)
        if carry:
            finals.append(final := empty_like(state))
        numbers.append(final.data_ptr() if carry else 0)
    if kernel.forward.quick(kernel.pack_forward(*numbers)):
        _done(1)
    return out, finals


def _address(form: tuple[layout.Readable, int, int]) -> tuple[int, int, int]:
    return form[0].data_ptr(), form[1], form[2]


def _kept(saved: Sequence[Tensor]) -> tuple[int, int]:
    """Address and element type of u, or zeros."""
    return (saved[0].data_ptr(), ELEMENTS[saved[0].dtype]) if saved else (0, 0)


def _bits(grads: Sequence[Tensor | None]) -> int:
    """Which gradients there are."""
    return sum((grad is not None) << place for place, grad in enumerate(grads))


def _done(status: int) -> None:
    if status:
        raise BackendError("no memory for the scratch rows of a kernel")


def free_memory() -> None:
    """Give the memory that is kept for coming results back to the system."""
    for backend in _LIVE:
        backend.recycler.free()
