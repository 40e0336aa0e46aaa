"""Batch norm in training and neuron in one call: from tensors to the driver's arguments."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikecore.backends.kit import NormCall, channels, check_arguments
from spikecore.dynamics import Program
from spikecore.errors import BackendError
from spikecore_cpu_backend import layout, tuning
from spikecore_cpu_backend.kernels import Code, Kernel
from spikecore_cpu_backend.norm_call import NormBackwardCall, NormForwardCall

if TYPE_CHECKING:
    from spikecore_cpu_backend.backend import CPUBackend

CPU = torch.device("cpu")
Results = tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor, list[Tensor]]
Gradients = tuple[Tensor, Tensor | None, Tensor | None, list[Tensor], list[Tensor]]


class _Form:
    """y as the driver sees it: `[T, outer, channels, inner]`, and its blocks."""

    def __init__(self, kernel: Kernel, call: NormCall) -> None:
        y = call.y
        if y.dim() < 3 or not y.numel():
            raise BackendError(f"norm_neuron takes [T, B, C, ...] that is not empty, got {tuple(y.shape)}")
        self.num_steps, self.outer, self.channels = y.shape[:3]
        self.inner = math.prod(y.shape[3:])
        for name, value in (("gamma", call.gamma), ("beta", call.beta)):
            if value is not None and (value.shape != (self.channels,) or value.dtype != kernel.state_dtype):
                raise BackendError(
                    f"norm_neuron needs {name} as [{self.channels}] of {kernel.state_dtype}, got {tuple(value.shape)} "
                    f"of {value.dtype}"
                )
        self.tiles = tuning.norm_tiles(
            self.num_steps, self.outer, self.channels, self.inner, kernel.num_states, kernel.state_dtype.itemsize
        )

    @property
    def run(self) -> int:
        """Lanes that lie side by side in blocks, up to a factor: all that a word of bits holds belong to one block."""
        assert self.tiles is not None
        if self.tiles.block:
            return math.gcd(self.num_lanes, self.tiles.block)
        return math.gcd(self.inner, self.tiles.inner)

    @property
    def num_lanes(self) -> int:
        return self.outer * self.channels * self.inner


def _steps(y: Tensor, used: list[Tensor]) -> layout.Words:
    """y with every step written out; the steps may be the same one."""
    address, step, lanes = layout.sequence(y, used)
    if not lanes:
        address, step, lanes = layout.sequence(y.contiguous(), used)
    return address, step, lanes


def _rows(backend: CPUBackend, kernel: Kernel, form: _Form) -> Code:
    """The program whose rows read y * scale + shift."""
    normed = "row" if form.tiles is not None and form.tiles.block else "number"
    return backend.runtime.code(kernel.program, kernel.state_dtype == torch.float64, normed)


def _address(tensor: Tensor | None, used: list[Tensor]) -> int:
    if tensor is None:
        return 0
    used.append(tensor.contiguous())
    return used[-1].data_ptr()


def forward(backend: CPUBackend, kernel: Kernel, call: NormCall, save: bool, carry: bool) -> Results | None:
    """See `interfaces.backend.Backend.norm_neuron`."""
    form, program = _Form(kernel, call), kernel.program
    if form.tiles is None:
        return None
    y, states, params = call.y, call.states, call.params
    check_arguments(program, form.num_lanes, kernel.state_dtype, CPU, states, params)
    channels(program, y.shape, params)
    wide, used = kernel.state_dtype, []
    out = backend._empty(y.shape, y.dtype)
    finals = [backend._empty(state.shape, wide) for state in states if carry]
    recorded = [backend._empty(y.shape, wide) for _ in program.record]
    numbers = torch.empty((5, form.channels), dtype=wide, device=CPU)
    mean, var, inverse, scale, shift = numbers.unbind()
    state_views: list[int] = []
    for state in states:
        state_views += layout.state(state, used)
    bits = backend.bits_for(kernel, out, form.run)
    epsilon = ctypes.c_double(call.eps)
    code = _rows(backend, kernel, form)  # held until the call has returned
    arguments = NormForwardCall(
        program=code.address,
        numbers=kernel.numbers,
        num_threads=backend.num_threads(y.numel()),
        outer=form.outer,
        channels=form.channels,
        inner=form.inner,
        block=form.tiles.block,
        outer_block=form.tiles.outer,
        inner_block=form.tiles.inner,
        io=kernel.element,
        streams=tuning.streams(y.numel() * kernel.element_bytes, tuning.TRAINING),
        bits=0 if bits is None else bits.address,
        num_steps=form.num_steps,
        eps=ctypes.addressof(epsilon),
        gamma=_address(call.gamma, used),
        beta=_address(call.beta, used),
        mean=mean.data_ptr(),
        var=var.data_ptr(),
        inverse=inverse.data_ptr(),
        scale=scale.data_ptr(),
        shift=shift.data_ptr(),
        y=_steps(y, used),
        out=out.data_ptr(),
        states=state_views,
        finals=[final.data_ptr() for final in finals] if carry else [0] * len(states),
        recorded=[sequence.data_ptr() for sequence in recorded],
        params=[_address(param, used) for param in params],
    )
    entry = kernel.norm_forward
    _run(entry, y, arguments.pack(NormForwardCall.packer(program)))
    if bits is not None:
        bits.note(out)
    return out, finals, recorded, mean.clone(), var.clone(), [numbers] if save else []


def backward(
    backend: CPUBackend,
    kernel: Kernel,
    call: NormCall,
    saved: Sequence[Tensor],
    grad_out: Tensor | None,
    grad_states: Sequence[Tensor | None],
    grad_recorded: Sequence[Tensor | None],
    wants_states: bool,
    phases: Any,
) -> Gradients:
    """See `interfaces.backend.Backend.norm_neuron_grad`."""
    form, program = _Form(kernel, call), kernel.program
    if form.tiles is None:
        raise BackendError("norm_neuron_grad got a shape that norm_neuron does not take")
    y, states, params = call.y, call.states, call.params
    check_arguments(program, form.num_lanes, kernel.state_dtype, CPU, states, params)
    channels(program, y.shape, params)
    wide, used = kernel.state_dtype, []
    mean, _, inverse, scale, shift = saved[0].unbind()
    grad_y = backend._empty(y.shape, y.dtype)
    grad_x = grad_y if y.dtype == wide else backend._empty(y.shape, wide)
    grad_gamma, grad_beta = (None if value is None else torch.empty_like(mean) for value in (call.gamma, call.beta))
    grad_firsts = [backend._empty(state.shape, wide) for state in states if wants_states]
    sums = [torch.zeros_like(param, memory_format=torch.contiguous_format) for param in params]
    state_views: list[int] = []
    grad_views: list[int] = []
    for state, grad in zip(states, grad_states, strict=True):
        state_views += layout.state(state, used)
        grad_views += layout.state(grad, used)
    recorded_views, arrives_recorded = _recorded(program, grad_recorded, used)
    code = _rows(backend, kernel, form)  # held until the call has returned
    arguments = NormBackwardCall(
        program=code.address,
        numbers=kernel.numbers,
        num_threads=backend.num_threads(y.numel()),
        outer=form.outer,
        channels=form.channels,
        inner=form.inner,
        block=form.tiles.block,
        outer_block=form.tiles.outer,
        inner_block=form.tiles.inner,
        io=kernel.element,
        num_steps=form.num_steps,
        phases=ctypes.addressof(phases),
        arrives_recorded=arrives_recorded,
        gamma=_address(call.gamma, used),
        beta=_address(call.beta, used),
        mean=mean.data_ptr(),
        inverse=inverse.data_ptr(),
        scale=scale.data_ptr(),
        shift=shift.data_ptr(),
        y=_steps(y, used),
        grad_out=layout.sequence(grad_out, used),
        grad_x=grad_x.data_ptr(),
        grad_y=grad_y.data_ptr(),
        grad_gamma=0 if grad_gamma is None else grad_gamma.data_ptr(),
        grad_beta=0 if grad_beta is None else grad_beta.data_ptr(),
        states=state_views,
        grad_finals=grad_views,
        grad_states=[grad.data_ptr() for grad in grad_firsts] or [0] * len(states),
        grad_recorded=recorded_views,
        params=[_address(param, used) for param in params],
        grad_params=[total.data_ptr() for total in sums],
    )
    _run(kernel.norm_backward, y, arguments.pack(NormBackwardCall.packer(program)))
    return grad_y, grad_gamma, grad_beta, grad_firsts, sums


def _recorded(program: Program, grads: Sequence[Tensor | None], used: list[Tensor]) -> tuple[list[int], int]:
    """Views of the gradients of recorded sequences, and the bits of those that arrive."""
    views: list[int] = []
    arrives = 0
    for name, grad in zip(program.record, grads, strict=True):
        views += layout.sequence(grad, used)
        arrives |= (grad is not None) << 1 + program.states.index(name)
    return views, arrives


def _run(entry: Any, y: Tensor, words: bytes) -> None:
    run = entry.quick if y.numel() < tuning.ALONE else entry.free
    if run(words):
        raise BackendError("no memory for the scratch rows of a kernel")
