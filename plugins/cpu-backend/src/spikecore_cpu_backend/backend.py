"""The backend `cpu`: prints a program as C, compiles it once, and calls it on the addresses of tensors."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore.backends.kit import (
    Backend,
    BackendCapabilities,
    BoundedDict,
    Support,
    channels,
    check_arguments,
    check_support,
)
from spikecore.dynamics import Program, phases
from spikecore.errors import BackendError
from spikecore.interfaces import NormCall, ProductGeometry, Range, SpikeBits, SpikeProduct
from spikecore_cpu_backend import layout, norm, tuning
from spikecore_cpu_backend.cache import KernelCache, default_folder
from spikecore_cpu_backend.call import MAX_TENSORS, PHASE, BackwardCall, ForwardCall
from spikecore_cpu_backend.compiler import TIMEOUT_S, Compiler
from spikecore_cpu_backend.kernels import ELEMENTS, Kernel, Runtime
from spikecore_cpu_backend.memory import Recycler
from spikecore_cpu_backend.norm_choice import NormChoice
from spikecore_cpu_backend.printer import KernelPrinter
from spikecore_cpu_backend.products import (
    Products,
    WrittenBits,
    pack_spikes,
    prepare_weight,
    run_product,
    run_product_grad,
    run_product_of_bits,
)

CPU = torch.device("cpu")
MOST_KERNELS = 2048
"""Programs that are held ready to be called, 4 KB for each; one that was dropped is made again in 0.1 ms."""
_LIVE: weakref.WeakSet[CPUBackend] = weakref.WeakSet()


class CPUBackend(Backend):
    """Every neuron as a fused C kernel, compiled on first use.

    Raises:
        PluginUnavailable: no C compiler works here, or this is not Linux.
        BackendError: the compiler refuses the runtime.
    """

    capabilities: ClassVar[BackendCapabilities] = BackendCapabilities(
        priority=100, affine_neuron=True, spike_products=("conv2d", "linear"), spike_bits=True, norm_neuron=True
    )

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
            crossover: the share of ones in the input up to which a layer with products="auto" multiplies by events. By
                default it is measured for each class of shapes on first use and kept under `cache_dir`; a number makes
                the choice, and with it the last bits, the same on every machine.
            norm: how blocks run batch norm and neuron in training: `together` in one call, `apart` one by one. `auto`:
                whichever is faster, which for medium sizes is measured once for each class of shapes and kept under
                `cache_dir`; their last bits may differ.
        """

        compiler: str = ""
        cache_dir: str = ""
        compile_timeout_s: Annotated[float, Range(gt=0.0)] = TIMEOUT_S
        recycle_mib: Annotated[int, Range(ge=0)] = 1024
        keep: Literal["auto", "input", "distance", "distance_bf16"] = "auto"
        crossover: Annotated[float | None, Range(ge=0.0, le=1.0)] = None
        norm: Literal["auto", "together", "apart"] = "auto"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        folder = Path(self.config.cache_dir).expanduser() if self.config.cache_dir else default_folder()
        self.runtime = Runtime(KernelCache(self.config.compiler, folder, self.config.compile_timeout_s))
        self.recycler = Recycler(self.config.recycle_mib << 20)
        # A call holds its kernel, so that one that another thread drops stays whole until the call returns.
        self._kernels: BoundedDict[tuple[str, torch.dtype], Kernel] = BoundedDict(MOST_KERNELS)
        self._products: Products | BackendError | None = None
        self._norm_choice = NormChoice(self.runtime)
        _LIVE.add(self)

    @property
    def compiler(self) -> Compiler:
        """The one that compiles now."""
        return self.runtime.cache.compiler

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """Any program, for CPU tensors; its kernel is compiled here, so that a failure shows before the choice."""
        support = check_support(self.capabilities, KernelPrinter.operations, program, device, dtype)
        if not support:
            return support
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
        kernel = self._kernels.get((key, x.dtype)) or self._kernel(key, x.dtype)
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
        kernel = self._kernels.get((key, x.dtype)) or self._kernel(key, x.dtype)
        count = x.numel()
        kept_dtype = self._kept_dtype(key, x) if save else None
        if kernel.is_simple and kept_dtype is None and 0 < count < tuning.ALONE:
            results = _run_small(kernel, x, states, x.shape[0], count // x.shape[0], carry)
            if results is not None:
                return *results, [], []
        program, shape = kernel.program, x.shape
        num_lanes = count // shape[0] if count else math.prod(shape[1:])
        check_arguments(program, num_lanes, kernel.state_dtype, CPU, states, params)
        out = self._empty(shape, x.dtype, x)
        finals = [self._empty(state.shape, kernel.state_dtype, state) for state in states if carry]
        recorded = [self._empty(shape, kernel.state_dtype) for _ in program.record]
        kept = [] if kept_dtype is None else [self._empty(shape, kept_dtype)]
        threads = _threads(count)
        block = tuning.forward_block(num_lanes, threads)
        bits = self.bits_for(kernel, out, math.gcd(num_lanes, block))
        inner, num_channels = channels(program, shape, params) if params else (1, 1)
        used: list[Tensor] = []
        values = [param.contiguous() for param in params]
        state_views: list[int] = []
        for state in states:
            state_views += layout.state(state, used)
        call = ForwardCall(
            program=kernel.address,
            numbers=kernel.numbers,
            num_threads=threads,
            inner=inner,
            channels=num_channels,
            io=kernel.element,
            streams=tuning.streams(count * kernel.element_bytes, tuning.TRAINING if save else tuning.INFERENCE),
            block=block,
            kept=kept[0].data_ptr() if kept else 0,
            kept_io=ELEMENTS[kept[0].dtype] if kept else 0,
            bits=0 if bits is None else bits.address,
            num_steps=shape[0],
            num_lanes=num_lanes,
            x=layout.sequence(x, used),
            out=out.data_ptr(),
            states=state_views,
            finals=[final.data_ptr() for final in finals] if carry else [0] * len(states),
            recorded=[sequence.data_ptr() for sequence in recorded],
            params=[value.data_ptr() for value in values],
        )
        run = kernel.forward.quick if count < tuning.ALONE else kernel.forward.free
        _check_status(run(call.pack(kernel.pack_forward)))
        if bits is not None:
            bits.note(out)
        return out, finals, recorded, kept

    def bits_for(self, kernel: Kernel, out: Tensor, run: int) -> WrittenBits | None:
        """Room for the bits of a neuron's output, where products read them and its kernel writes them.

        Args:
            kernel: that writes them.
            out: `[T, ...]`.
            run: lanes of a step, and of a block, are multiples of it.
        """
        products = self._products
        if not kernel.writes_bits or not isinstance(products, Products) or not products.runs_by_events:
            return None
        if out.dtype != torch.float32 or run % tuning.LANES or out.numel() < tuning.ALONE:
            return None
        return WrittenBits(products, out.numel())

    def step(
        self, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]] | None:
        """See `interfaces.backend.Backend.step`."""
        kernel = self._kernels.get((key, x.dtype)) or self._kernel(key, x.dtype)
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
        kernel = self._kernels.get((key, x.dtype)) or self._kernel(key, x.dtype)
        program, shape, count = kernel.program, x.shape, x.numel()
        num_lanes = count // shape[0] if count else math.prod(shape[1:])
        check_arguments(program, num_lanes, kernel.state_dtype, CPU, states, params)
        grad_x = self._empty(shape, x.dtype, x)
        grad_firsts = [self._empty(state.shape, kernel.state_dtype, state) for state in states]
        sums = [torch.zeros_like(param, memory_format=torch.contiguous_format) for param in params]
        inner, num_channels = channels(program, shape, params) if params else (1, 1)
        block, segment = tuning.backward_block(shape[0], num_lanes, len(states), kernel.state_dtype.itemsize)
        arriving = tuple([grad is not None for grad in (grad_out, *grad_states, *grad_recorded)])
        table = _phase_table(program, arriving, shape[0])
        used: list[Tensor] = []
        values = [param.contiguous() for param in params]
        state_views: list[int] = []
        grad_views: list[int] = []
        for state, grad in zip(states, grad_states, strict=True):
            state_views += layout.state(state, used)
            grad_views += layout.state(grad, used)
        recorded_views: list[int] = []
        arrives_recorded = 0
        for name, grad in zip(program.record, grad_recorded, strict=True):
            recorded_views += layout.sequence(grad, used)
            arrives_recorded |= (grad is not None) << 1 + program.states.index(name)
        call = BackwardCall(
            program=kernel.address,
            numbers=kernel.numbers,
            num_threads=_threads(count),
            inner=inner,
            channels=num_channels,
            io=kernel.element,
            streams=tuning.streams(count * kernel.element_bytes, tuning.TRAINING),
            block=block,
            kept=saved[0].data_ptr() if saved else 0,
            kept_io=ELEMENTS[saved[0].dtype] if saved else 0,
            num_steps=shape[0],
            num_lanes=num_lanes,
            segment=segment,
            phases=ctypes.addressof(table),
            arrives_recorded=arrives_recorded,
            x=layout.sequence(saved[0] if saved else x, used),
            grad_out=layout.sequence(grad_out, used),
            grad_x=grad_x.data_ptr(),
            states=state_views,
            grad_finals=grad_views,
            grad_states=[grad.data_ptr() for grad in grad_firsts],
            grad_recorded=recorded_views,
            params=[value.data_ptr() for value in values],
            grad_params=[total.data_ptr() for total in sums],
        )
        run = kernel.backward.quick if count < tuning.ALONE else kernel.backward.free
        _check_status(run(call.pack(kernel.pack_backward)))
        return grad_x, grad_firsts, sums

    def product(
        self, geometry: ProductGeometry, x: Tensor, weight: Tensor, bias: Tensor | None, always: bool, save: bool
    ) -> SpikeProduct:
        """See `interfaces.backend.Backend.product`."""
        products = self._ready_products()
        if isinstance(products, BackendError):
            return SpikeProduct(None, reason=f"the kernels do not compile: {products}")
        return run_product(products, geometry, x, weight, bias, always, save)

    def product_grad(
        self, geometry: ProductGeometry, kept: Sequence[Tensor], x_shape: Sequence[int], grad: Tensor, weight: Tensor
    ) -> Tensor:
        """See `interfaces.backend.Backend.product_grad`."""
        products = self._ready_products()
        if isinstance(products, BackendError):
            raise products
        return run_product_grad(products, geometry, kept, x_shape, grad, weight)

    def pack(self, x: Tensor) -> SpikeBits | None:
        """See `interfaces.backend.Backend.pack`."""
        products = self._ready_products()
        return None if isinstance(products, BackendError) else pack_spikes(products, x)

    def prepare(self, geometry: ProductGeometry, weight: Tensor) -> Tensor | None:
        """See `interfaces.backend.Backend.prepare`."""
        products = self._ready_products()
        return None if isinstance(products, BackendError) else prepare_weight(products, geometry, weight)

    def product_of_bits(
        self, geometry: ProductGeometry, bits: SpikeBits, weight: Tensor, bias: Tensor | None, prepared: Tensor,
        always: bool,
    ) -> SpikeProduct:  # fmt: skip
        """See `interfaces.backend.Backend.product_of_bits`."""
        products = self._ready_products()
        if isinstance(products, BackendError):
            raise products
        return run_product_of_bits(products, geometry, bits, weight, bias, prepared, always)

    def _ready_products(self) -> Products | BackendError:
        """The kernels of products, compiled on first use, or why there are none."""
        if self._products is None:
            try:
                self._products = Products(self.runtime, self.recycler, self.config.crossover)
            except BackendError as error:
                self._products = error
        return self._products

    def norm_neuron_pays(self, key: str, y: Tensor) -> bool:
        """See `interfaces.backend.Backend.norm_neuron_pays`."""
        way = self.config.norm
        return self._norm_choice.is_together(self, self.program(key), y) if way == "auto" else way == "together"

    def norm_neuron(
        self, call: NormCall, save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor, list[Tensor]] | None:
        """See `interfaces.backend.Backend.norm_neuron`; None where `tuning.norm_tiles` gives none."""
        kernel = self._kernels.get((call.key, call.y.dtype)) or self._kernel(call.key, call.y.dtype)
        return norm.forward(self, kernel, call, save, carry)

    def norm_neuron_grad(
        self,
        call: NormCall,
        saved: Sequence[Tensor],
        grad_out: Tensor | None,
        grad_states: Sequence[Tensor | None],
        grad_recorded: Sequence[Tensor | None],
        wants_states: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor], list[Tensor]]:
        """See `interfaces.backend.Backend.norm_neuron_grad`."""
        kernel = self._kernels.get((call.key, call.y.dtype)) or self._kernel(call.key, call.y.dtype)
        arriving = tuple([grad is not None for grad in (grad_out, *grad_states, *grad_recorded)])
        phases = _phase_table(kernel.program, arriving, call.y.shape[0])
        return norm.backward(self, kernel, call, saved, grad_out, grad_states, grad_recorded, wants_states, phases)

    @staticmethod
    def num_threads(count: int) -> int:
        """Threads for a call of so many element-steps."""
        return _threads(count)

    def stream_copy(self, to: Tensor, source: Tensor) -> None:
        """Copy a contiguous tensor past the caches: the least that moving its bytes costs here."""
        if not (to.is_contiguous() and source.is_contiguous() and to.nbytes == source.nbytes):
            raise BackendError("stream_copy takes two contiguous tensors of one size")
        self.runtime.library.sc_copy(to.data_ptr(), source.data_ptr(), to.nbytes, torch.get_num_threads())

    def _empty(self, shape: Sequence[int], dtype: torch.dtype, like: Tensor | None = None) -> Tensor:
        """A contiguous result; of a small one torch makes the fastest from a contiguous `like`."""
        if like is not None and like.nbytes < 1 << 16 and like.is_contiguous():
            return torch.empty_like(like)
        return self.recycler.empty(shape, dtype)

    def _compiled(self, program: Program, dtype: torch.dtype) -> Kernel:
        kernel = self._kernels.get((program.key, dtype))
        if kernel is None:
            kernel = self._kernels[program.key, dtype] = self.runtime.kernel(program, dtype)
        return kernel

    def _kernel(self, key: str, dtype: torch.dtype) -> Kernel:
        return self._compiled(self.program(key), dtype)


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
    words = [num_steps, num_lanes, x.data_ptr(), num_lanes, 1, out.data_ptr()]
    addresses = []
    finals = []
    for state in states:
        if state.numel() != num_lanes or state.dtype is not dtype or not (state.is_contiguous() and state.is_cpu):
            return None
        words += (state.data_ptr(), 0, 1)
        if carry:
            finals.append(final := empty_like(state))
        addresses.append(final.data_ptr() if carry else 0)
    if kernel.forward.quick(kernel.small + kernel.pack_small(*words, *addresses)):
        _check_status(1)
    return out, finals


def _threads(count: int) -> int:
    return 1 if count < tuning.ALONE else torch.get_num_threads()


@lru_cache(maxsize=4096)
def _phase_table(program: Program, arriving: tuple[bool, ...], steps: int) -> ctypes.Array[ctypes.c_int64]:
    """The phases of a backward pass as the driver reads them: for each one, PHASE."""
    seeds = ["out", *(f"state.{name}" for name in program.states)]
    words: list[int] = []
    for phase in phases(program, arriving, steps):
        arrives = sum(1 << bit for bit, seed in enumerate(seeds) if seed in phase.arriving)
        words += (arrives, phase.num_steps)
    return (ctypes.c_int64 * max(len(words), len(PHASE)))(*words)


def _check_status(status: int) -> None:
    if status:
        raise BackendError("no memory for the scratch rows of a kernel")


def free_memory() -> None:
    """Give the memory that is kept for coming results back to the system."""
    for backend in _LIVE:
        backend.recycler.free()
