"""Batch norm in training and a neuron, put together from a backend's own `run` and `run_bwd`.

It is the reference for backends that fuse the two, and all that one needs which has nothing better to offer:

    def norm_neuron(self, call, save, carry):
        return run_normed(self, call, save, carry)

    def norm_neuron_grad(self, call, saved, grad_out, grad_states, grad_recorded, wants_states):
        return run_normed_bwd(self, call, saved, grad_out, grad_states, grad_recorded, wants_states)

    y' = (y - mean) / sqrt(var + eps),  x = gamma y' + beta
    dL/dbeta = sum(dL/dx),  dL/dgamma = sum(dL/dx y'),  sums over all axes but the channels'
    dL/dy = gamma / sqrt(var + eps) (dL/dx - (dL/dbeta + y' dL/dgamma) / n),  n = values for each channel

Source: Ioffe & Szegedy, Batch Normalization (ICML 2015), algorithm 1 and the gradients in section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spikecore.backends.kit.dtypes import widen
from spikecore.interfaces.backend import Backend, NormCall


def run_normed(
    backend: Backend, call: NormCall, save: bool, carry: bool
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor, list[Tensor]]:
    """What `Backend.norm_neuron` promises, with torch's operators for the norm."""
    wide = widen(call.y)
    var, mean = torch.var_mean(wide, _other_axes(wide), correction=0)
    x = _scaled(_standardised(wide, mean, var, call.eps), call).to(call.y.dtype)
    out, finals, recorded, saved = backend.run(call.key, x, call.states, call.params, save, carry)
    # The mean and the variance belong to the caller, who may change them.
    return out, finals, recorded, mean, var, [mean.clone(), var.clone(), *saved] if save else []


def run_normed_bwd(
    backend: Backend,
    call: NormCall,
    saved: Sequence[Tensor],
    grad_out: Tensor | None,
    grad_states: Sequence[Tensor | None],
    grad_recorded: Sequence[Tensor | None],
    wants_states: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor], list[Tensor]]:
    """What `Backend.norm_neuron_grad` promises, after `run_normed`."""
    mean, var, *rest = saved
    y, wide = call.y, widen(call.y)
    standardised = _standardised(wide, mean, var, call.eps)
    x = _scaled(standardised, call).to(y.dtype)
    grad, grad_firsts, grad_params = backend.run_bwd(
        call.key, rest, x, call.states, call.params, grad_out, grad_states, grad_recorded
    )
    grad = grad.to(wide.dtype)
    axes = _other_axes(y)
    grad_beta, grad_gamma = grad.sum(axes), (grad * standardised).sum(axes)
    count = y.numel() // y.shape[2]
    centred = grad - (along_channels(grad_beta, y) + standardised * along_channels(grad_gamma, y)) / count
    factor = torch.rsqrt(var + call.eps)
    if call.gamma is not None:
        factor = factor * call.gamma
    grad_y = (centred * along_channels(factor, y)).to(y.dtype).contiguous()
    return (
        grad_y,
        None if call.gamma is None else grad_gamma,
        None if call.beta is None else grad_beta,
        grad_firsts if wants_states else [],
        grad_params,
    )


def _other_axes(y: Tensor) -> list[int]:
    return [axis for axis in range(y.dim()) if axis != 2]


def along_channels(value: Tensor, y: Tensor) -> Tensor:
    """One value per channel, as it broadcasts to y."""
    return value.reshape(-1, *[1] * (y.dim() - 3))


def _standardised(wide: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return (wide - along_channels(mean, wide)) * along_channels(torch.rsqrt(var + eps), wide)


def _scaled(standardised: Tensor, call: NormCall) -> Tensor:
    if call.gamma is not None:
        standardised = standardised * along_channels(call.gamma, standardised)
    return standardised if call.beta is None else standardised + along_channels(call.beta, standardised)
