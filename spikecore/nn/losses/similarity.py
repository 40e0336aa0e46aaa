"""Comparison of spike trains: traces, distances, kernels, and losses built from them.

trace         f[t] = e^(-1/tau) f[t - 1] + s[t]                    s [T, ...]
van Rossum    D²(a, b) = 1/tau Σ_t (f_a[t] - f_b[t])²              summed over the neurons
kernels       x·y, (x·y)^degree, σ(scale x·y), x·y / |x| |y|, exp(-|x - y|² / (2 width²))
              of whole trains x = s[0..T-1], all neurons in one vector

Half precision is computed in float32, under autocast too, and the result is float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikecore.errors import OptionError, ShapeError
from spikecore.interfaces.component import Configurable, Range, make_config
from spikecore.nn.half import widened

KernelName = Literal["linear", "polynomial", "sigmoid", "cosine", "gaussian"]
Positive = Annotated[float, Range(gt=0.0, lt=math.inf)]


def exponential_trace(spikes: Tensor, tau: float) -> Tensor:
    """f[t] = e^(-1/tau) f[t - 1] + s[t]: each spike adds 1, which decays.

    Args:
        spikes: `[T, ...]`, floating point.
        tau: in steps, > 0.

    Returns:
        `[T, ...]`; float32 for half precision.

    Raises:
        OptionError: `tau` is not above 0.
        TypeError: not floating point.

    Example:
        >>> exponential_trace(torch.tensor([1.0, 0.0, 1.0]), tau=1 / math.log(2)).tolist()
        [1.0, 0.5, 1.25]
    """
    if not tau > 0:
        raise OptionError(f"exponential_trace needs tau > 0 steps, got {tau!r}")
    wide = _wide(spikes, "exponential_trace")
    if not len(wide):
        return wide.clone()
    decay = math.exp(-1 / tau)
    trace = torch.zeros_like(wide[0])
    traces = []
    for step in wide.unbind(0):
        trace = decay * trace + step
        traces.append(trace)
    return torch.stack(traces)


def van_rossum_distance(a: Tensor, b: Tensor, tau: float = 10.0) -> Tensor:
    """The squared distance D² of each pair of trains; 0 for equal ones.

        D²(a, b) = 1/tau Σ_t (f_a[t] - f_b[t])²,   f the exponential trace

    A small `tau` counts spikes that do not coincide, a large one compares the numbers of spikes. One spike against
    none gives (1 - q^(2n)) / (tau (1 - q²)), q = e^(-1/tau), with n steps to the end: about 1/2, as in continuous time.

    Args:
        a, b: `[T, B, ...]`, equal shapes, floating point.
        tau: in steps, > 0.

    Returns:
        `[B]`.

    Raises:
        ShapeError: the shapes differ, or have no batch.
        OptionError: `tau` is not above 0.

    Source: van Rossum, A Novel Spike Distance (Neural Computation 2001), eq. 2.2, in discrete time.

    Example:
        >>> a, b = torch.tensor([[[1.0]], [[0.0]]]), torch.zeros(2, 1, 1)
        >>> round(van_rossum_distance(a, b, tau=1 / math.log(2)).item(), 4)
        0.8664
    """
    if a.shape != b.shape or a.dim() < 2:
        raise ShapeError(
            f"van_rossum_distance takes two trains [T, B, ...] of one shape, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    # The trace is linear: the difference of two traces is the trace of the difference, taken in full precision.
    difference = exponential_trace(widened(a) - widened(b), tau)
    return difference.square().movedim(1, 0).flatten(1).sum(1) / tau


def spike_kernel(
    a: Tensor,
    b: Tensor,
    kernel: KernelName = "cosine",
    *,
    degree: float = 2.0,
    scale: float = 1.0,
    width: float = 1.0,
) -> Tensor:
    """How similar every train of `a` is to every train of `b`.

    linear      x·y                                the number of coincident spikes
    polynomial  (x·y)^degree
    sigmoid     1 / (1 + exp(-scale x·y))          1/2 to 1 for spikes
    cosine      x·y / (|x| |y|)                    0 to 1 for spikes; 0 where a train is empty
    gaussian    exp(-|x - y|² / (2 width²))        0 to 1

    Args:
        a: `[T, A, ...]`.
        b: `[T, B, ...]`; T and the axes after the batch are those of `a`.
        kernel: one of the above.
        degree, scale, width: of that kernel.

    Returns:
        `[A, B]`; float32 for half precision.

    Gradients: those of the formulas; an empty train gets that of the cosine as if its length were 1.

    Raises:
        ShapeError: the trains differ in more than the batch.
        TypeError: not floating point.
        OptionError: no such kernel; `width` is not above 0.

    Parity: SpikingJelly's `kernel_dot_product` (`tests/peers/test_losses.py`).

    Example:
        >>> a = torch.tensor([[[1.0], [1.0]], [[0.0], [1.0]]])
        >>> spike_kernel(a, a, "linear").tolist()
        [[1.0, 1.0], [1.0, 2.0]]
    """
    if kernel not in get_args(KernelName):
        raise OptionError(f"spike_kernel knows {', '.join(get_args(KernelName))}; got {kernel!r}")
    if a.dim() < 2 or (a.shape[0], *a.shape[2:]) != (b.shape[0], *b.shape[2:]):
        raise ShapeError(
            f"spike_kernel takes trains [T, A, ...] and [T, B, ...] that differ in the batch only, got "
            f"{tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not width > 0:
        raise OptionError(f"spike_kernel needs width > 0, got {width!r}")
    x = _wide(a, "spike_kernel").movedim(1, 0).flatten(1)
    y = _wide(b, "spike_kernel").movedim(1, 0).flatten(1)
    with torch.autocast(x.device.type, enabled=False):
        return _similarity(x, y, kernel, degree, scale, width)


def _similarity(x: Tensor, y: Tensor, kernel: KernelName, degree: float, scale: float, width: float) -> Tensor:
    if kernel == "cosine":
        return _unit(x) @ _unit(y).T
    dot = x @ y.T
    if kernel == "gaussian":
        squared = x.square().sum(1)[:, None] + y.square().sum(1)[None, :] - 2 * dot
        return torch.exp(squared.clamp(min=0) / (-2 * width * width))
    if kernel == "polynomial":
        return dot**degree
    if kernel == "sigmoid":
        return torch.sigmoid(scale * dot)
    return dot  # linear


def _unit(x: Tensor) -> Tensor:
    """Rows of length 1. An empty row stays 0: division by a tiny number would give it a gradient of 10^12."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(length > 0, length, torch.ones_like(length))


def _wide(spikes: Tensor, name: str) -> Tensor:
    if not spikes.is_floating_point():
        raise TypeError(f"{name} takes floating-point spikes, got {spikes.dtype}: call .float() on them")
    return widened(spikes)


class VanRossumLoss(Configurable, nn.Module):
    """Mean over the batch of D² between the net's spikes and wanted spikes; see `van_rossum_distance`.

    Gradients: 2/tau times the trace of the difference, computed backwards in time, because an early spike affects all
        later values of its trace.

    Example:
        >>> VanRossumLoss(tau=5.0)(torch.ones(4, 2, 3), torch.ones(4, 2, 3)).item()
        0.0
    """

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            tau: of the trace, in steps.
        """

        tau: Positive = 10.0

    def __init__(self, **options: Any) -> None:
        nn.Module.__init__(self)
        self.config = make_config(type(self), options)

    def forward(self, spikes: Tensor, wanted: Tensor) -> Tensor:
        """`[T, B, ...]` twice → a number.

        Raises:
            ShapeError: the shapes differ.
        """
        return van_rossum_distance(spikes, wanted, self.config.tau).mean()

    def extra_repr(self) -> str:
        return f"tau={self.config.tau}"


class SpikeSimilarityLoss(Configurable, nn.Module):
    """Trains of one class should be alike, trains of two classes not.

        L = mean over all pairs (i, j) of l(K(s_i, s_j), A_ij),    A_ij = 1 where i and j share a class, else 0

    It needs no output per class: it is taken at any layer.

    Raises:
        TypeError: the trains are not floating point.
        OptionError: `compare="bce"` with a kernel that is not limited to 0 .. 1.

    Example:
        >>> spikes = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> SpikeSimilarityLoss(kernel="cosine")(spikes, torch.tensor([0, 1])).item()
        0.0
    """

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            kernel: K, of `spike_kernel`.
            compare: l: squared difference, absolute difference, or binary cross entropy.
            tau: K is taken of exponential traces with this time constant, in steps; 0: of the spikes themselves.
            degree, scale, width: of the kernel.
        """

        kernel: KernelName = "cosine"
        compare: Literal["mse", "l1", "bce"] = "mse"
        tau: Annotated[float, Range(ge=0.0, lt=math.inf)] = 0.0
        degree: Positive = 2.0
        scale: Positive = 1.0
        width: Positive = 1.0

    def __init__(self, **options: Any) -> None:
        nn.Module.__init__(self)
        config = self.config = make_config(type(self), options)
        if config.compare == "bce" and config.kernel in ("linear", "polynomial"):
            raise OptionError(
                f"SpikeSimilarityLoss: compare='bce' takes similarities from 0 to 1, and the {config.kernel} kernel "
                "has no upper limit: choose kernel='cosine', 'gaussian' or 'sigmoid', or compare='mse'"
            )

    def forward(self, spikes: Tensor, labels: Tensor) -> Tensor:
        """The loss of trains `[T, B, ...]` with labels `[B]` (whole numbers) or classes `[B, C]` (0 or 1).

        Raises:
            ShapeError: not one row of labels per train.
        """
        if spikes.dim() < 2 or labels.dim() not in (1, 2) or len(labels) != spikes.shape[1]:
            raise ShapeError(
                f"SpikeSimilarityLoss takes spikes [T, B, ...] and labels [B] or [B, C], got {tuple(spikes.shape)} "
                f"and {tuple(labels.shape)}"
            )
        config = self.config
        trains = exponential_trace(spikes, config.tau) if config.tau else spikes
        options = {"degree": config.degree, "scale": config.scale, "width": config.width}
        similar = spike_kernel(trains, trains, config.kernel, **options)
        if labels.dim() == 1:
            shares_class = labels[:, None] == labels
        else:
            shares_class = (labels.to(similar) @ labels.to(similar).T) > 0
        alike = shares_class.to(similar)
        if config.compare == "bce":
            with torch.autocast(similar.device.type, enabled=False):
                return functional.binary_cross_entropy(similar.clamp(0, 1), alike)
        difference = similar - alike
        return difference.abs().mean() if config.compare == "l1" else difference.square().mean()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in vars(self.config).items())
