"""Exact numbers of operations of one call of a torch operator that multiplies: convolutions and matrix products.

    dense     Σ over outputs of the inputs and weights that meet there, zeros included; padding is no input
    synops    those of them where neither the input nor the weight is 0

An operation of a convolution belongs to one input value, which meets the weights of its fan-out. The fan-out of every
place is the gradient of Σ conv(x, 1[w ≠ 0]) with respect to x, so stride, padding, dilation and groups are exact. All
outputs count alike, so the weights of an input channel are added up first, and the convolution is one by channels:

    synops = Σ 1[x ≠ 0] · fan-out                      of a matrix product: Σ_k #(a[:, k] ≠ 0) · #(b[k, :] ≠ 0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Product:
    """What one call of an operator does.

    Args:
        dense: operations, zeros included.
        synops: operations without those that meet a zero.
        is_spiking: one factor besides the weight is -1, 0 and 1 alone, so that nothing need be multiplied.
        num_inputs: values of the input.
        num_events: of them, those that are not 0.
        num_outputs: values of the output.
        num_weights: values of the weight, or of the second factor.
    """

    dense: float
    synops: float
    is_spiking: bool
    num_inputs: int
    num_events: int
    num_outputs: int
    num_weights: int


IsWeight = Callable[[Tensor], bool]
Count = Callable[[Sequence[Any], Any, IsWeight], Product]


def is_ternary(x: Tensor) -> bool:
    """Is every value -1, 0 or 1?"""
    if not _is_ternary(x.flatten()[:MOST_TELL]):
        return False  # without reading all of it
    return _is_ternary(x)


def _is_ternary(x: Tensor) -> bool:
    return torch.equal(x * x, x.abs()) and bool(x.isfinite().all())


MOST_TELL = 1 << 10
"""Values of which one is most likely another number, where not all are -1, 0 and 1."""


def events_at(x: Tensor) -> Tensor:
    """How many entries along the first axis are not 0, int32; torch's sums of bools are several times slower."""
    return (x != 0).view(torch.uint8).sum(0, dtype=torch.int32)


def convolution(args: Sequence[Any], out: Tensor, is_weight: IsWeight) -> Product:
    """`aten.convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)`."""
    x, weight, _, *geometry = args
    events = events_at(x).double()  # per place of a sample
    all_weights = _fan_out(x, out, torch.ones_like(weight), geometry)
    fan_out = all_weights if bool((weight != 0).all()) else _fan_out(x, out, weight != 0, geometry)
    return Product(
        dense=len(x) * float(all_weights.sum()),
        synops=float((events * fan_out).sum()),
        is_spiking=is_ternary(x),
        num_inputs=x.numel(),
        num_events=int(events.sum()),
        num_outputs=out.numel(),
        num_weights=weight.numel(),
    )


def _fan_out(x: Tensor, out: Tensor, weight: Tensor, geometry: Sequence[Any]) -> Tensor:
    """How many weights other than 0 each place of a sample meets, `[C, ...]`."""
    *places, is_transposed, output_padding, groups = geometry
    num_channels = x.shape[1]
    if is_transposed:  # [in, out / groups, ...]
        by_channel = weight.float().sum(1, keepdim=True)
    else:  # [out, in / groups, ...]: the outputs of a group meet that group's inputs
        by_group = weight.float().reshape(groups, -1, *weight.shape[1:])
        by_channel = by_group.sum(1).flatten(0, 1).unsqueeze(1)
    ones = torch.ones(1, num_channels, *out.shape[2:], device=x.device)
    shape_only = torch.zeros(1, *x.shape[1:], device=x.device)
    by_channels = (*places, is_transposed, output_padding, num_channels)
    gradients = torch.ops.aten.convolution_backward(
        ones, shape_only, by_channel, None, *by_channels, [True, False, False]
    )  # counts below 2 ** 24 are exact
    fan_out: Tensor = gradients[0][0]
    return fan_out.round().double()  # a convolution by transforms would miss whole numbers by rounding


def matrix_product(a: Tensor, b: Tensor, out: Tensor, is_weight: IsWeight) -> Product:
    """`a [..., N, K] @ b [..., K, M]`; which one is the weight decides what the input is."""
    rows = a.shape[-2] if a.dim() > 1 else 1
    columns = b.shape[-1] if b.dim() > 1 else 1
    batch = a.shape[0] if a.dim() == 3 else 1
    by_inner_a = (a != 0).double().sum(-2) if a.dim() > 1 else (a != 0).double()
    by_inner_b = (b != 0).double().sum(-1) if b.dim() > 1 else (b != 0).double()
    x, weight = (b, a) if is_weight(a) and not is_weight(b) else (a, b)
    is_spiking = is_ternary(x)
    if not is_weight(weight):  # two activations: spikes on either side are enough
        is_spiking = is_spiking or is_ternary(weight)
    return Product(
        dense=float(batch * rows * columns * a.shape[-1]),
        synops=float((by_inner_a * by_inner_b).sum()),
        is_spiking=is_spiking,
        num_inputs=x.numel(),
        num_events=int((x != 0).sum()),
        num_outputs=out.numel(),
        num_weights=weight.numel(),
    )


def _first_two(args: Sequence[Any], out: Tensor, is_weight: IsWeight) -> Product:
    return matrix_product(args[0], args[1], out, is_weight)


def _after_bias(args: Sequence[Any], out: Tensor, is_weight: IsWeight) -> Product:
    return matrix_product(args[1], args[2], out, is_weight)


def attention(args: Sequence[Any], out: Any, is_weight: IsWeight) -> Product:
    """Fused attention, `softmax(q kᵀ) v`: both products; the softmax between them is not counted."""
    query, key, value = args[:3]
    scores = query.numel() * key.shape[-2]
    mixed = query.numel() // query.shape[-1] * key.shape[-2] * value.shape[-1]
    result = out[0] if isinstance(out, tuple) else out
    return Product(
        dense=float(scores + mixed),
        synops=float(scores + mixed),
        is_spiking=False,
        num_inputs=query.numel(),
        num_events=int((query != 0).sum()),
        num_outputs=result.numel(),
        num_weights=key.numel() + value.numel(),
    )


COUNTS: dict[str, Count] = {
    "aten::convolution": convolution,
    "aten::mm": _first_two,
    "aten::bmm": _first_two,
    "aten::mv": _first_two,
    "aten::dot": _first_two,
    "aten::addmm": _after_bias,
    "aten::baddbmm": _after_bias,
    "aten::addmv": _after_bias,
}
"""Operator → how it is counted."""


def count_of(name: str) -> Count | None:
    """How an operator is counted; None where it multiplies nothing that is counted."""
    return attention if "scaled_dot_product" in name else COUNTS.get(name)


def is_uncounted(name: str) -> bool:
    """Whether an operator holds products that are not seen one by one: a fused recurrent layer, a quantized one."""
    parts = ("rnn", "lstm", "gru", "fft", "cdist", "_int_mm", "quantized", "addbmm", "linear")
    return any(part in name for part in parts) and "backward" not in name
