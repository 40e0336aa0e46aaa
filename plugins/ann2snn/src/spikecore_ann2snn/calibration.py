"""What calibration finds: thresholds from activations that stream by, in constant memory.

max           θ = scale · max a                                                 Rueckauer et al. 2017, eq. 8, λ = max
percentile    θ: this share of all a, zeros included, lies below                Rueckauer et al. 2017, section 2.2.1
balancing     θ ← θ + 2 mean(relu(a - θ)), from θ = 0, `updates` times a batch   Bu et al. 2024

per layer, or per channel along axis 1 of `[B, C, ...]`. Balancing per layer takes the largest of the channels' θ: over
all channels at once the mean would be so small, where few are active, that θ stays far below what those need.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from spikecore.errors import ConversionError
from spikecore.nn import NetGraph, NetNode

Per = Literal["layer", "channel"]
BINS = 1 << 13
"""Of a percentile's histogram: its resolution is at least the 4096th part of the largest activation."""

FAR = 10.0
"""Standard deviations of training between the means of training and of calibration."""
ENOUGH = 1 << 12
"""Values of a channel in one batch from which balancing takes its means."""


class Observer(Protocol):
    """Sees the activations of one layer batch by batch."""

    def see(self, values: Tensor) -> None:
        """`[B, C, ...]`."""

    def threshold(self) -> Tensor:
        """`[]`, or `[C]`; 0 where nothing ever fired."""


class Expected:
    """Compares the output of a batch norm with what training left in it: mean β and deviation γ, per channel.

    Args:
        node: of the norm, also where it has been folded since.
        gain: γ, `[C]`.
        bias: β, `[C]`.
    """

    def __init__(self, node: NetNode, gain: Tensor, bias: Tensor) -> None:
        self.node, self.gain, self.bias = node, gain.detach().double().abs(), bias.detach().double()
        self.count, self.total = 0, torch.zeros(())

    def see(self, values: Tensor) -> None:
        rows = _rows(values, "channel")
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(1).double()

    def threshold(self) -> Tensor:
        """None of its own."""
        return torch.zeros(())

    def check(self) -> None:
        """Refuse data whose mean lies further than `FAR` deviations away in most channels.

        Raises:
            ConversionError: so it is.
        """
        if not self.count:
            return
        distance = (self.total / self.count - self.bias).abs()
        deviations = float((distance / self.gain.clamp(min=1e-6)).median())
        if deviations > FAR:
            raise ConversionError(
                f"{self.node} gets inputs {deviations:.3g} standard deviations away from those of training: the "
                "calibration data are not like those that the net has been trained on (another range, or not "
                "normalized?)"
            )


class Largest:
    """The largest activation, times `scale`."""

    def __init__(self, per: Per, scale: float = 1.0) -> None:
        self.per, self.scale = per, scale
        self.largest: Tensor | None = None

    def see(self, values: Tensor) -> None:
        largest = _rows(values, self.per).amax(1)
        self.largest = largest if self.largest is None else torch.maximum(self.largest, largest)

    def threshold(self) -> Tensor:
        return _shaped(self.largest, self.per) * self.scale


class Percentile:
    """The value below which `percentile` percent of all activations lie: a histogram whose range doubles on demand."""

    def __init__(self, per: Per, percentile: float) -> None:
        self.per, self.percentile = per, percentile
        self.counts: Tensor | None = None
        self.range = 0.0
        self.number = 0
        self.is_finite = True

    def see(self, values: Tensor) -> None:
        rows = _rows(values, self.per)
        largest = float(rows.max()) if rows.numel() else 0.0
        if not math.isfinite(largest):
            self.is_finite = False
        if not self.is_finite:
            return
        if self.counts is None:
            self.counts = torch.zeros(len(rows), BINS, dtype=torch.int64, device=values.device)
        if largest > 0 and not self.range:
            self.range = largest
            self.counts[:, 0] += self.number  # all of them were 0
        while largest > self.range:
            pairs = self.counts.unflatten(1, (BINS // 2, 2)).sum(2)
            self.counts = torch.cat([pairs, torch.zeros_like(pairs)], 1)
            self.range *= 2
        self.number += rows.shape[1]
        if not self.range:
            return
        if len(rows) == 1:
            self.counts[0] += torch.histc(rows.float(), BINS, 0.0, self.range).long()
            return
        bins = (rows * (BINS / self.range)).long().clamp_(max=BINS - 1)
        bins += BINS * torch.arange(len(rows), device=bins.device).unsqueeze(1)
        self.counts += torch.bincount(bins.flatten(), minlength=self.counts.numel()).reshape(self.counts.shape)

    def threshold(self) -> Tensor:
        if not self.is_finite:
            return torch.full((), math.nan)
        if self.counts is None or not self.range:
            return _shaped(None if self.counts is None else torch.zeros(len(self.counts)), self.per)
        wanted = self.percentile / 100 * self.number
        below = self.counts.cumsum(1)
        index = (below < wanted).sum(1)  # of the first bin up to whose end at least so many lie
        # Linear within the bin. A channel that never fires has all its values in the first one, which begins at 0.
        inside = self.counts.gather(1, index.clamp(max=BINS - 1).unsqueeze(1)).squeeze(1)
        share = (wanted - (below.gather(1, index.clamp(max=BINS - 1).unsqueeze(1)).squeeze(1) - inside)) / inside
        edges = (index + share.clamp(0, 1)) * (self.range / BINS)
        is_silent = self.counts[:, 0] == self.number
        return _shaped(torch.where(is_silent, torch.zeros_like(edges), edges).to(torch.get_default_dtype()), self.per)


class Magnitudes:
    """Shows another observer the magnitudes of a leaky ReLU's inputs, its outputs `a` being given: a, or -a / slope.

    Args:
        observer: that finds the threshold.
        slope: of the negative side; 0 leaves that out.
    """

    def __init__(self, observer: Observer, slope: float) -> None:
        self.observer, self.slope = observer, slope

    def see(self, values: Tensor) -> None:
        positive = values.clamp(min=0)
        self.observer.see(torch.maximum(positive, values / -self.slope) if self.slope > 0 else positive)

    def threshold(self) -> Tensor:
        return self.observer.threshold()


class Balancing:
    """Local threshold balancing: a step down the gradient of the squared error that the clip makes, for each batch."""

    def __init__(self, per: Per, updates: int = 1) -> None:
        self.per, self.updates = per, updates
        self.theta: Tensor | None = None

    def see(self, values: Tensor) -> None:
        rows = _rows(values, "channel")
        # Of a large map an even share is enough for a mean, and costs less than the forward pass.
        rows = rows[:, :: max(1, rows.shape[1] // ENOUGH)]
        if self.theta is None:
            self.theta = rows.new_zeros(len(rows))
        for _ in range(self.updates):
            self.theta = self.theta + 2 * (rows - self.theta.unsqueeze(1)).clamp_(min=0).mean(1)

    def threshold(self) -> Tensor:
        theta = self.theta
        if theta is not None and self.per == "layer":
            theta = theta.max().reshape(1)
        return _shaped(theta, self.per)


def _rows(values: Tensor, per: Per) -> Tensor:
    """`[1, N]`, or `[C, N]`."""
    if per == "layer" or values.dim() < 2:
        return values.reshape(1, -1)
    return values.movedim(1, 0).flatten(1)


def _shaped(value: Tensor | None, per: Per) -> Tensor:
    if value is None:
        return torch.zeros(())
    return value.squeeze(0) if per == "layer" else value


def calibrate(
    graph: NetGraph, example: Tensor, batches: Iterable[Tensor], observers: Mapping[str, Observer]
) -> tuple[int, Tensor | None]:
    """Run all batches through the net, once, and show the observers their layers.

    Args:
        graph: of the given net.
        example: of the shape and dtype that batches must have.
        batches: `[B, ...]`.
        observers: node name → observer.

    Returns:
        The number of samples, and a copy of the first batch; None without any.

    Raises:
        ConversionError: a batch does not suit the example, or holds NaN or infinity.
    """
    count = 0
    first: Tensor | None = None

    def call(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = graph.call(node, args, kwargs)
        observer = observers.get(node.name)
        if observer is not None:
            observer.see(value)
        return value

    with torch.no_grad():
        for index, batch in enumerate(_shown(batches)):
            _check_batch(batch, example, index)
            if not len(batch):
                continue
            if first is None:
                first = batch.detach().clone()
            count += len(batch)
            if observers:
                graph.run(batch.to(example.device), call=call)
    return count, first


def _check_batch(batch: Tensor, example: Tensor, index: int) -> None:
    if not isinstance(batch, Tensor) or batch.shape[1:] != example.shape[1:]:
        got = tuple(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
        raise ConversionError(
            f"calibration batch {index} is {got}, expected [B, {', '.join(map(str, example.shape[1:]))}] as the "
            "example input: prepare the data as for training"
        )
    if batch.dtype != example.dtype:
        raise ConversionError(f"calibration batch {index} is {batch.dtype}, the example input {example.dtype}")
    if not bool(batch.isfinite().all()):
        raise ConversionError(f"calibration batch {index} holds NaN or infinity: thresholds would be too")


def _shown(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same batches, with a progress bar where somebody sits at a terminal."""
    if not sys.stderr.isatty():
        yield from batches
        return
    from rich.console import Console
    from rich.progress import track

    total = len(batches) if hasattr(batches, "__len__") else None
    yield from track(batches, "calibration", total=total, console=Console(stderr=True), transient=True)


def sane(threshold: Tensor, node: NetNode) -> tuple[Tensor, str]:
    """A threshold that a neuron can have, and a remark where calibration found none.

    A channel that never fires gets the largest threshold of its layer, a silent layer 1.

    Raises:
        ConversionError: the activations of the node are no finite numbers.
    """
    if not bool(threshold.isfinite().all()):
        raise ConversionError(
            f"{node} gives NaN or infinity for the calibration data: the net overflows on them; look for the layer "
            "before it whose outputs grow without bound"
        )
    silent = threshold <= 0
    if not bool(silent.any()):
        return threshold, ""
    largest = threshold.max()
    stand_in = largest if largest > 0 else torch.ones_like(largest)
    number = int(silent.sum())
    if not threshold.dim() or number == threshold.numel():
        remark = "never fires for the calibration data: threshold 1"
    else:
        remark = f"{number} of {threshold.numel()} channels never fire for the calibration data: the layer's largest θ"
    return torch.where(silent, stand_in, threshold), remark
