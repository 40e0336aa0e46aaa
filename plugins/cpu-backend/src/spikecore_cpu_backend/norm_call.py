"""What Python hands to the driver for batch norm and neuron in one call; see `call` for the form.

y, out and their gradients are `[T, outer, channels, inner]`. With `block`, blocks are so many lanes of a step, of all
channels. With `block` 0 a block has one channel: `outer_block` entries of the outer axis with the whole inner one, or
`inner_block` of the inner axis of one entry.
"""

from __future__ import annotations

from dataclasses import dataclass

from spikecore_cpu_backend.call import (
    Address,
    Call,
    Int,
    ParamAddresses,
    RecordedAddresses,
    RecordedViews,
    StateAddresses,
    StateViews,
    View,
    struct_text,
)


@dataclass(slots=True)
class NormForwardCall(Call):
    """The arguments of `sc_norm_forward_32` and `sc_norm_forward_64`; what has the same name is as in `ForwardCall`.

    Args:
        outer: size of the axes in front of the channels, but for T.
        channels: of the norm.
        inner: size of the axes behind the channels.
        block: see above.
        outer_block: the same.
        inner_block: the same.
        eps: address of a double.
        gamma: 0: ones.
        beta: 0: zeros.
        mean: where the mean of each channel goes.
        var: the same for the variance of the population.
        inverse: the same for 1 / sqrt(var + eps).
        scale: the same for scale and shift, with which the norm is y * scale + shift.
        shift: see `scale`.
    """

    name = "norm_forward_call"
    program: Address
    numbers: Address
    num_threads: Int
    outer: Int
    channels: Int
    inner: Int
    block: Int
    outer_block: Int
    inner_block: Int
    io: Int
    streams: Int
    bits: Address
    num_steps: Int
    eps: Address
    gamma: Address
    beta: Address
    mean: Address
    var: Address
    inverse: Address
    scale: Address
    shift: Address
    y: View
    out: Address
    states: StateViews
    finals: StateAddresses
    recorded: RecordedAddresses
    params: ParamAddresses


@dataclass(slots=True)
class NormBackwardCall(Call):
    """The arguments of `sc_norm_backward_32` and `sc_norm_backward_64`; names as above and in `BackwardCall`.

    Args:
        grad_states: as there; 0: nowhere.
        grad_x: room for the gradient of the normed sequence, in the precision of the state; may be `grad_y`.
        grad_gamma: where the gradient of gamma goes; 0: nowhere.
        grad_beta: the same for beta.
    """

    name = "norm_backward_call"
    program: Address
    numbers: Address
    num_threads: Int
    outer: Int
    channels: Int
    inner: Int
    block: Int
    outer_block: Int
    inner_block: Int
    io: Int
    num_steps: Int
    phases: Address
    arrives_recorded: Int
    gamma: Address
    beta: Address
    mean: Address
    inverse: Address
    scale: Address
    shift: Address
    y: View
    grad_out: View
    grad_x: Address
    grad_y: Address
    grad_gamma: Address
    grad_beta: Address
    states: StateViews
    grad_finals: StateViews
    grad_states: StateAddresses
    grad_recorded: RecordedViews
    params: ParamAddresses
    grad_params: ParamAddresses


def norm_header() -> str:
    """Both structs in C; those that they need are in call.h."""
    return "\n\n".join(struct_text(call) for call in (NormForwardCall, NormBackwardCall)) + "\n"
